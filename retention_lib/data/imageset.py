"""The one form in which images reach training: an `ImageSet`, whose rows keep their identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

#: Columns every `ImageSet.samples` has, in this order; planted truth and other extras follow them.
SAMPLE_COLUMNS = (
    "sample_id",
    "path",
    "label",
    "split",
    "group",
    "content_hash",
    "file_bytes",
)
SPLITS = ("train", "val")


def sample_ids(paths: list[str] | pd.Series) -> list[str]:
    """Identify samples by a hash of their dataset-relative path, never by their position.

    Parameters
    ----------
    paths : sequence of str
        Paths below the data set's root, with forward slashes.

    Returns
    -------
    list of str
        16 hexadecimal digits each (64-bit BLAKE2b).

    Examples
    --------
    >>> sample_ids(["AMD/amd_1.jpg"]) == sample_ids(["AMD/amd_1.jpg"])
    True
    """
    return [hashlib.blake2b(p.encode(), digest_size=8).hexdigest() for p in paths]


def split_hash(samples: pd.DataFrame) -> str:
    """Hash the sorted (path, label, split) list; data sets that differ in it are never aligned."""
    rows = samples[["path", "label", "split"]].sort_values("path")
    digest = hashlib.blake2b(digest_size=8)
    for path, label, split in rows.itertuples(index=False):
        digest.update(f"{path}\t{int(label)}\t{split}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class ImageSet:
    """Square images of one data set at one size, with what is known about each of them.

    Attributes
    ----------
    name, variant : str
        What the data set is (`octdl`, `phantom_birds`, ...) and which edition of it (`official`, a
        named subset, a number of samples).
    classes : tuple of str
        Class names; `samples.label` indexes them.
    samples : DataFrame
        One row per image, in the order of `images`, with the columns `SAMPLE_COLUMNS`. `split` is
        `train` or `val`; `group` names what belongs together (the patient, or the sample itself).
        Phantoms add planted truth in columns that start with `planted_`.
    images : ndarray of uint8, (sample, size, size, 3)
        May be a read-only memory map.
    excluded : DataFrame
        `path` and `reason` of every file left out.
    """

    name: str
    variant: str
    classes: tuple[str, ...]
    samples: pd.DataFrame
    images: np.ndarray
    excluded: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({"path": [], "reason": []}, dtype=str)
    )

    def __post_init__(self):
        check_samples(self.samples, self.classes, f"{self.name}/{self.variant}")
        n, shape = len(self.samples), self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[0] != n or shape[3] != 3:
            raise ValueError(
                f"{self.name}: images must be uint8 of shape ({n}, size, size, 3), "
                f"got {self.images.dtype} {shape}"
            )

    @property
    def size(self) -> int:
        """Height and width of every image [pixel]."""
        return self.images.shape[1]

    @property
    def identity(self) -> str:
        """`name/variant/split hash`: what published runs are found by."""
        return f"{self.name}/{self.variant}/{split_hash(self.samples)}"

    def rows(self, split: str) -> np.ndarray:
        """Positions of one split's samples in `samples` and `images`, ascending."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        return np.flatnonzero(self.samples["split"].to_numpy() == split)

    def __repr__(self):
        n_train = len(self.rows("train"))
        return (
            f"ImageSet({self.identity}: {n_train} train + {len(self.samples) - n_train} val, "
            f"{len(self.classes)} classes, {self.size} px, {len(self.excluded)} excluded)"
        )


def check_samples(samples: pd.DataFrame, classes: tuple[str, ...], where: str) -> None:
    """Raise a ValueError that says what is wrong with a sample table, or return None."""
    missing = [c for c in SAMPLE_COLUMNS if c not in samples.columns]
    if missing:
        raise ValueError(f"{where}: sample table lacks {missing}; it has {list(samples.columns)}")
    if len(samples) == 0:
        raise ValueError(f"{where}: no images were found")
    for column in ("sample_id", "path"):
        twice = samples[column][samples[column].duplicated()].unique()
        if len(twice):
            raise ValueError(f"{where}: {column} must be unique, but {list(twice[:3])} repeat")
    wrong = samples.loc[~samples["split"].isin(SPLITS), "split"].unique()
    if len(wrong):
        raise ValueError(f"{where}: split must be one of {SPLITS}, got {list(wrong[:3])}")
    label = samples["label"].to_numpy()
    if label.min() < 0 or label.max() >= len(classes):
        raise ValueError(
            f"{where}: labels must lie in 0..{len(classes) - 1} for {len(classes)} classes, "
            f"got {label.min()}..{label.max()}"
        )
