"""OCTDL: optical coherence tomography of the retina, split by patient and by file content.

Kulyabin et al., "OCTDL: Optical Coherence Tomography Dataset for Image-Based Deep Learning
Methods", Scientific Data 2024. Layout: `octdl/OCTDL/<CLASS>/<file_name>.jpg` and
`octdl/OCTDL_labels.csv`.

What is an error and what an exclusion: a layout or table that cannot be trusted as a whole raises a
ValueError (no csv, a missing column, a file name twice, a class too small to split). One file that
cannot be used is left out and listed with its reason: broken, listed without a file, not in the
csv, without a patient, or in another class's folder. Leaving a listed image out changes the
variant.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from retention_lib.data.decode import assemble
from retention_lib.data.folder import components, excluded_table, grouped_split
from retention_lib.data.imageset import ImageSet, sample_ids
from retention_lib.data.scan import is_image, scan

NAME = "octdl"
#: Images per class of the complete data set.
COUNTS = {"AMD": 1231, "DME": 147, "ERM": 155, "NO": 332, "RAO": 22, "RVO": 101, "VID": 76}
TABLE = "OCTDL_labels.csv"
LAYOUT = f"octdl/OCTDL/<CLASS>/<file_name>.jpg and octdl/{TABLE}"


def home(root: str | Path) -> Path:
    """Folder that holds the csv and `OCTDL/`: `root/octdl`, or `root` itself."""
    root = Path(root)
    for folder in (root / "octdl", root):
        if (folder / TABLE).is_file() and (folder / "OCTDL").is_dir():
            return folder
    found = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else "no such folder"
    raise ValueError(f"no OCTDL below {root}: expected {LAYOUT}, found {found}")


def sample_table(
    root: str | Path,
    cache_dir: str | Path | None = None,
    log: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...], str, pd.DataFrame]:
    """Samples of OCTDL with their split, from verified files, without keeping any image.

    Parameters
    ----------
    root : path
        The folder that holds `octdl/`, or `octdl/` itself.
    cache_dir : path, optional
        Where results of the verification are remembered.

    Returns
    -------
    samples : DataFrame
        Sorted by path. `path` is relative to `OCTDL/`, `group` the connected component of images
        that share a patient or a byte-identical file (named after its smallest patient id), and
        the extra column `patient` the id in the csv.
    classes : tuple of str
    variant : str
        `official` for the complete set, `classes-...` for some of its classes; other contents
        carry a count and a hash.
    excluded : DataFrame
        `path` and `reason`.

    Examples
    --------
    >>> samples, classes, variant, excluded = sample_table("data")  # doctest: +SKIP
    >>> len(samples), variant  # doctest: +SKIP
    (2064, 'official')
    """
    folder = home(root)
    listed, files = _read_csv(folder / TABLE), _find_images(folder / "OCTDL")
    # A class without a folder makes a subset; one whose folder was emptied lacks its images.
    there = {p.name for p in (folder / "OCTDL").iterdir() if p.is_dir()}
    listed = listed[listed["disease"].isin(there) | listed["file_name"].isin(files["file_name"])]
    table = files.merge(listed, on="file_name", how="outer", indicator=True)
    reasons = _reasons(table)
    outside = [*zip(table["path"], reasons, strict=True)]
    table = table[reasons == ""].drop(columns="_merge")
    found = scan(folder / "OCTDL", sorted(table["path"]), cache_dir, log=log)
    outside += zip(found["path"], found["reason"], strict=True)
    excluded = excluded_table([row for row in outside if row[1]], NAME)
    samples = found[found["reason"] == ""].merge(table, on="path").reset_index(drop=True)
    if samples.empty:
        raise ValueError(f"no usable image below {folder / 'OCTDL'}; {len(excluded)} were left out")
    classes = tuple(sorted(samples["disease"].unique()))
    samples["label"] = samples["disease"].map(classes.index)
    samples["sample_id"] = sample_ids(samples["path"])
    samples["patient"] = samples["patient_id"]
    samples["group"] = components(samples["patient"], samples["content_hash"])
    samples["split"] = grouped_split(samples["label"], samples["group"], classes, at_least=2)
    columns = "sample_id path label split group content_hash file_bytes patient".split()
    _report_duplicates(samples, log)
    return samples[columns], classes, _variant(listed, samples), excluded


def load(
    root: str | Path,
    size: int,
    cache_dir: str | Path,
    log: Callable[[str], None] | None = None,
) -> ImageSet:
    """OCTDL as an `ImageSet` of `size` pixels; see `sample_table`.

    Scans are squashed to a square: findings lie across the whole width, of which a centre crop
    would keep about a third.
    """
    samples, classes, variant, excluded = sample_table(root, cache_dir, log)
    where = home(root) / "OCTDL"
    return assemble(
        NAME, variant, classes, samples, excluded, where, size, cache_dir, log, "squash"
    )


def duplicates(samples: pd.DataFrame) -> pd.DataFrame:
    """Sets of byte-identical images: one row per content hash that occurs more than once.

    Returns
    -------
    DataFrame
        `content_hash`, `n` (images), `patients`, `labels`, `splits` (how many different ones).
    """
    sets = samples.groupby("content_hash").agg(
        n=("path", "size"),
        patients=("patient", "nunique"),
        labels=("label", "nunique"),
        splits=("split", "nunique"),
    )
    return sets[sets["n"] > 1].reset_index()


def _read_csv(path: Path) -> pd.DataFrame:
    # Everything as text: "NO" is a class and an empty patient must stay recognisable.
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    need = ["file_name", "disease", "patient_id"]
    if missing := [c for c in need if c not in table.columns]:
        raise ValueError(f"{path.name} lacks the columns {missing}; it has {list(table.columns)}")
    table = table[need].apply(lambda column: column.str.strip())
    if len(twice := table["file_name"][table["file_name"].duplicated()].unique()):
        raise ValueError(f"{path.name} lists {list(twice[:3])} more than once; ids must be unique")
    return table


def _find_images(folder: Path) -> pd.DataFrame:
    """Files in the class folders; hidden ones (left by file managers) are not looked at."""
    rows = [
        (p.stem if is_image(p) else f"{c.name}/{p.name}", c.name, f"{c.name}/{p.name}")
        for c in sorted(folder.iterdir())
        if c.is_dir() and not c.name.startswith(".")
        for p in sorted(c.iterdir())
        if not p.name.startswith(".")
    ]
    files = pd.DataFrame(rows, columns=["file_name", "folder", "path"], dtype=str)
    if files.empty:
        raise ValueError(f"{folder} has no class folder with images: expected {LAYOUT}")
    twice = files[files["file_name"].duplicated(keep=False)]
    if len(twice):
        raise ValueError(f"the same file name in two places: {twice['path'].tolist()[:4]}")
    return files


def _reasons(table: pd.DataFrame) -> np.ndarray:
    """Why a row of the outer join of files and csv cannot be used; fills in missing paths."""
    lost = table["_merge"] == "right_only"
    table["path"] = table["path"].where(~lost, table["disease"] + "/" + table["file_name"])
    told = "mislabelled: folder " + table["folder"] + f", {TABLE} says " + table["disease"]
    return np.select(
        [
            lost,
            ~table["path"].map(is_image),
            table["_merge"] == "left_only",
            table["folder"] != table["disease"],
            table["patient_id"] == "",
        ],
        [
            f"no file: listed in {TABLE}",
            "not an image: unknown suffix",
            f"not listed: {TABLE} has no such file_name, so its patient is unknown",
            told.fillna(""),
            f"no patient: {TABLE} has no patient_id for it",
        ],
        default="",
    )


def _variant(listed: pd.DataFrame, samples: pd.DataFrame) -> str:
    counts = listed["disease"].value_counts().to_dict()
    digest = hashlib.blake2b("\n".join(samples["path"]).encode(), digest_size=4).hexdigest()
    if any(COUNTS.get(c) != n for c, n in counts.items()):
        return f"images-{len(samples)}-{digest}"
    name = "official" if len(counts) == len(COUNTS) else "-".join(["classes", *sorted(counts)])
    missing = len(listed) - len(samples)
    return f"{name}-without-{missing}-{digest}" if missing else name


def _report_duplicates(samples: pd.DataFrame, log: Callable[[str], None] | None) -> None:
    sets = duplicates(samples)
    across, clash = int((sets["patients"] > 1).sum()), int((sets["labels"] > 1).sum())
    if log is not None and len(sets):
        log(f"{len(sets)} sets of byte-identical images, {across} of them across patients")
    if clash:
        warnings.warn(
            f"{NAME}: {clash} sets of byte-identical images have two labels", stacklevel=3
        )
