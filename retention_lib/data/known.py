"""What the known data sets are known by: their identity and counts, committed and verified."""

from __future__ import annotations

import json
from importlib import resources

import pandas as pd

from retention_lib.data.imageset import SPLITS, split_hash


def identity_entry(
    name: str, variant: str, classes: tuple[str, ...], samples: pd.DataFrame
) -> dict:
    """What `identities.json` says of a data set: identity, and images per split and class."""
    of = samples["label"].map(dict(enumerate(classes)))
    counts = {
        s: of[samples["split"] == s].value_counts().reindex(classes, fill_value=0) for s in SPLITS
    }
    counts = {split: {c: int(n) for c, n in of_split.items()} for split, of_split in counts.items()}
    return {"identity": f"{name}/{variant}/{split_hash(samples)}", "counts": counts}


def check_identity(name: str, variant: str, classes: tuple[str, ...], samples: pd.DataFrame):
    """Raise a ValueError that quotes both sides if a known data set is not what is committed."""
    known = json.loads(resources.files(__package__).joinpath("identities.json").read_text("utf-8"))
    expected = known["known"].get(f"{name}/{variant}")
    if expected is None:
        return
    found = identity_entry(name, variant, classes, samples)
    for what in ("counts", "identity"):
        if found[what] != expected[what]:
            raise ValueError(
                f"{name}/{variant} is not the data set known by that name: its {what} should be "
                f"{expected[what]}, found {found[what]}"
            )
