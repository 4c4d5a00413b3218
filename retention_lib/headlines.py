"""Which numbers of notebooks 00 and 01 go into their result files, and what all notebooks share."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from retention_lib.config import Profile, RunConfig
from retention_lib.intervals import one_row, t_interval
from retention_lib.traces import Traces
from retention_lib.verdicts import PAPER, record

#: What the paper fine-tuned: its verdicts are about these only.
PAPER_ARCHS = {"resnet18", "deit_small_patch16_224"}
PAPER_CLASSES = {"octdl": 7, "cub": 200}
#: Quantities of the paper by notebook; written as null where there are no runs yet.
QUANTITIES = {
    "architecture_overlap": ("jaccard",),
    "decay_structure": ("r2_cnn", "r2_vit", "r2_difference"),
    "seed_stability": ("spearman",),
    "class_forgetting": ("kendall_w",),
    "early_loss": ("spearman",),
    "spaced_repetition": ("accuracy_difference",),
}


def kind_of(arch: str) -> str:
    """`cnn` for the ResNets of the study, `vit` for its vision transformers."""
    return "cnn" if "resnet" in arch else "vit"


def scale_of(configs: list[RunConfig], classes: tuple[str, ...]) -> str:
    """Whether runs are the paper's study (`paper`), a smaller one (`reduced`), or a `phantom`.

    The paper's: its two architectures, every class of its data set, at least 224 pixels.
    """
    dataset = configs[0].dataset
    if dataset.startswith("phantom"):
        return "phantom"
    whole = PAPER_CLASSES.get(dataset) == len(classes)
    known = {c.arch for c in configs} == PAPER_ARCHS
    return "paper" if whole and known and min(c.input_size for c in configs) >= 224 else "reduced"


def not_run(finding: str, dataset: str) -> list[dict]:
    """Records without a number, for a data set whose runs are not to be had here."""
    empty = one_row(math.nan, math.nan, math.nan, 0, math.nan, "not yet run")
    scale = "phantom" if dataset.startswith("phantom") else "reduced"
    return [record(finding, dataset, q, empty, scale=scale) for q in QUANTITIES.get(finding, ())]


def overlap_records(
    overlap: pd.DataFrame, tied: pd.DataFrame, untied: pd.DataFrame, scales: dict[str, str]
) -> list:
    """Records of notebook 01.

    Parameters
    ----------
    overlap : DataFrame
        Rows of `findings.architecture_overlap`, with `dataset`.
    tied, untied : DataFrame
        Rows of `controls.known_overlap` with `dataset`, for a score with and one without ties.
    scales : dict
        Data set -> `scale_of`, or None where nothing was run.
    """
    name, records = "architecture_overlap", []
    for dataset, scale in scales.items():
        if scale is None:
            records += not_run(name, dataset)
            continue
        rows = overlap[overlap["dataset"] == dataset]
        for _, row in rows[rows["kind"] == "same_architecture"].iterrows():
            quantity = f"jaccard_between_seeds_{kind_of(row['arch_a'])}"
            records.append(record(name, dataset, quantity, row, row["chance"], scale=scale))
        cross = rows[rows["kind"] == "cross_architecture"].iloc[0]
        levels = {"chance": cross["chance"], "ceiling": cross["ceiling"], "scale": scale}
        records.append(record(name, dataset, "jaccard", cross, **levels))
        seeds = over_seeds(cross, "jackknife over seeds, t, 95%")
        records.append(record(name, dataset, "jaccard_over_seeds", seeds, **levels))
        wrong = one_row(cross["misaligned"], math.nan, math.nan, cross["n"], math.nan, "misaligned")
        records.append(
            record(name, dataset, "jaccard_misaligned", wrong, cross["hypergeometric"], scale=scale)
        )
        for quantity, known in (("known_overlap", untied), ("known_overlap_with_ties", tied)):
            control = known[known["dataset"] == dataset].iloc[0]
            planted = {"planted": control["planted"], "scale": scale}
            records.append(record(name, dataset, f"jaccard_of_{quantity}", control, **planted))
    return records


def over_seeds(row: pd.Series, method: str) -> pd.DataFrame:
    """The same estimate with its interval over seeds, `n` counting these."""
    low, high = row["seed_low"], row["seed_high"]
    return one_row(row["estimate"], low, high, row["seeds"], math.nan, method)


def capture_records(
    curves: pd.DataFrame,
    shapes: pd.DataFrame,
    noise: pd.DataFrame,
    gain: pd.DataFrame,
    cost: pd.DataFrame,
    scales: dict[str, str],
) -> list:
    """Records of notebook 00, from the tables of `overview` and `study.capture_cost`.

    The label noise is recorded for the score `mean_margin`, the published one for finding it (area
    under the margin, Pleiss et al. 2020): one for all, not the best of each.
    """
    name, records = "capture", []
    for dataset, scale in scales.items():
        if scale is None:
            empty = one_row(math.nan, math.nan, math.nan, 0, math.nan, "not yet run")
            scale = "phantom" if dataset.startswith("phantom") else "reduced"
            records.append(record(name, dataset, "bytes_per_sample_epoch", empty, scale=scale))
            continue
        here = {
            key: table[table["dataset"] == dataset] if len(table) else table
            for key, table in (("curves", curves), ("shapes", shapes), ("cost", cost))
        }
        last = here["curves"][here["curves"]["epoch"] == here["curves"]["epoch"].max()]
        for arch, rows in last.groupby("arch", sort=False):
            accuracy = t_interval(rows["val_balanced_accuracy"])
            quantity = f"held_out_balanced_accuracy_{kind_of(arch)}"
            chance = 1 / rows["classes"].iloc[0]
            records.append(record(name, dataset, quantity, accuracy, chance, scale=scale))
        for arch, rows in here["shapes"].groupby("arch", sort=False):
            quantity = f"forgotten_at_least_once_{kind_of(arch)}"
            share = t_interval(rows["with_event"])
            records.append(record(name, dataset, quantity, share, scale=scale))
        size = t_interval(here["cost"]["bytes_per_sample_epoch"])
        size["method"] = "t over runs, 95%"
        records.append(record(name, dataset, "bytes_per_sample_epoch", size, scale=scale))
        records += _planted(noise, gain, dataset, scale)
    return records


def _planted(noise: pd.DataFrame, gain: pd.DataFrame, dataset: str, scale: str) -> list:
    """What only phantoms have: label noise that is known, weights that are known to be ours."""
    records = []
    if len(noise):
        of = noise[(noise["dataset"] == dataset) & (noise["score"] == "mean_margin")]
        for _, row in of.iterrows():
            quantity = f"label_noise_auc_{kind_of(row['arch'])}"
            levels = {"chance": 0.5, "planted": 1.0, "scale": scale}
            records.append(record("capture", dataset, quantity, row, **levels))
    if len(gain):
        for _, row in gain[gain["dataset"] == dataset].iterrows():
            quantity = f"pretraining_gain_{kind_of(row['arch'])}"
            records.append(record("capture", dataset, quantity, row, 0.0, scale=scale))
    return records


def verdict_table(records: list[dict]) -> pd.DataFrame:
    """What a notebook ends with: its records as a table, rounded for the eye.

    Examples
    --------
    >>> verdict_table(not_run("architecture_overlap", "octdl"))["verdict"].tolist()
    ['not tested at this scale']
    """
    table = pd.DataFrame(records)
    interval = [
        "" if low is None or math.isnan(low) else f"{low:.3f} to {high:.3f}"
        for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
    ]
    columns = ["dataset", "quantity", "estimate", "n", "chance", "ceiling", "planted", "paper"]
    out = table[columns].copy()
    out.insert(3, "interval", interval)
    out["verdict"] = table["verdict"].fillna("")
    numeric = ["estimate", "chance", "ceiling", "planted"]
    out[numeric] = out[numeric].astype(float).round(3)
    return out.replace({np.nan: "", None: ""})


def draws_of(profile: Profile, draws: int) -> int:
    """The notebook's number of draws, or the profile's where it says 0."""
    if draws < 0:
        raise ValueError(f"draws must be >= 0 (0: the profile's), got {draws}")
    return draws or profile.draws


def scales(configs: dict[str, list[RunConfig]], traces: dict[str, Traces]) -> dict:
    """`scale_of` every data set, None for those without runs."""
    return {
        name: scale_of(runs, traces[name].classes) if name in traces else None
        for name, runs in configs.items()
    }


def run_keys(traces: dict[str, Traces]) -> list[str]:
    """Keys of all runs that a notebook used."""
    return [key for found in traces.values() for key in found.runs["key"]]


def sizes(traces: dict[str, Traces]) -> dict[str, int]:
    """Samples of every data set."""
    return {name: len(found.samples) for name, found in traces.items()}


def paper_table(finding: str) -> pd.DataFrame:
    """The paper's numbers on one finding: data set, quantity, value, largest half-width allowed."""
    rows = [
        {"data set": d, "quantity": q, "paper": v.value, "tolerance": v.tolerance, "what": v.text}
        for (f, d, q), v in PAPER.items()
        if f == finding
    ]
    return pd.DataFrame(rows)


#: What the rows of notebook 01's figure are called.
OVERLAP_ROWS = {
    "jaccard": "between architectures",
    "jaccard_between_seeds_cnn": "CNN, two seeds",
    "jaccard_between_seeds_vit": "ViT, two seeds",
    "jaccard_misaligned": "samples misaligned",
    "jaccard_of_known_overlap": "control: known overlap, no ties",
    "jaccard_of_known_overlap_with_ties": "control: known overlap, ties",
}
