"""CUB-200-2011: photos of 200 bird species, with the official split and class attributes.

Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001, Caltech 2011. Layout:
`CUB_200_2011/images/` and the lists `images.txt`, `classes.txt`, `image_class_labels.txt`,
`train_test_split.txt`. Lists with fewer classes make a named subset.

Lists that contradict each other, listed classes without a folder (half an archive) and classes
without images on both sides raise a ValueError. One file that is missing, broken, not listed, or
under another class than its folder is left out and listed as such; leaving a listed image out
changes the variant.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from retention_lib.data.decode import assemble
from retention_lib.data.folder import excluded_table
from retention_lib.data.imageset import ImageSet, sample_ids
from retention_lib.data.scan import scan

NAME = "cub"
#: Classes, images and attributes of the complete data set.
N_CLASSES, N_IMAGES, N_ATTRIBUTES = 200, 11_788, 312
LISTS = ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt")


def home(root: str | Path) -> Path:
    """Folder that holds the lists: `root/CUB_200_2011`, or `root` itself."""
    root = Path(root)
    for folder in (root / "CUB_200_2011", root):
        if (folder / "images.txt").is_file():
            missing = [x for x in (*LISTS, "images") if not (folder / x).exists()]
            if missing:
                raise ValueError(f"{folder} lacks {missing} of the official layout")
            return folder
    found = sorted(p.name for p in root.iterdir())[:8] if root.is_dir() else "no such folder"
    raise ValueError(
        f"no CUB-200-2011 below {root}: expected CUB_200_2011/ with images/ and {LISTS}, "
        f"found {found}"
    )


def sample_table(
    root: str | Path,
    cache_dir: str | Path | None = None,
    log: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...], str, pd.DataFrame]:
    """Samples of CUB with the official split (`test` is called `val`), from verified files.

    Parameters
    ----------
    root : path
        The folder that holds `CUB_200_2011/`, or that folder itself.
    cache_dir : path, optional
        Where results of the verification are remembered.

    Returns
    -------
    samples : DataFrame
        Sorted by path, which is relative to `images/`; `group` is the sample itself.
    classes : tuple of str
        As in `classes.txt`: `001.Black_footed_Albatross`, ...
    variant : str
        `official`, or a subset named by its classes (`classes-001-050`).
    excluded : DataFrame
        `path` and `reason`.

    Examples
    --------
    >>> samples, classes, variant, excluded = sample_table("data")  # doctest: +SKIP
    >>> samples["split"].value_counts().to_dict()  # doctest: +SKIP
    {'train': 5994, 'val': 5794}
    """
    folder = home(root)
    listed, classes = _read_lists(folder)
    reasons = _reasons(folder, listed)
    outside = _not_listed(folder / "images", listed, set(classes))
    outside += zip(listed["path"], reasons, strict=True)
    paths = sorted(listed["path"][reasons == ""])
    found = scan(folder / "images", paths, cache_dir, log=log)
    outside += zip(found["path"], found["reason"], strict=True)
    excluded = excluded_table([row for row in outside if row[1]], NAME)
    samples = found[found["reason"] == ""].merge(listed, on="path").reset_index(drop=True)
    _check_sides(samples, classes)
    samples["sample_id"] = sample_ids(samples["path"])
    samples["group"] = samples["sample_id"]
    _report_leaks(samples)
    columns = "sample_id path label split group content_hash file_bytes".split()
    return samples[columns], tuple(classes), _variant(listed, classes, samples), excluded


def load(
    root: str | Path,
    size: int,
    cache_dir: str | Path,
    log: Callable[[str], None] | None = None,
) -> ImageSet:
    """CUB-200-2011 as an `ImageSet` of `size` pixels; see `sample_table`."""
    samples, classes, variant, excluded = sample_table(root, cache_dir, log)
    where = home(root) / "images"
    return assemble(NAME, variant, classes, samples, excluded, where, size, cache_dir, log)


def class_attributes(root: str | Path) -> pd.DataFrame:
    """How often annotators saw each attribute in each class: a similarity that no network made.

    Returns
    -------
    DataFrame, (class, attribute)
        Percent of annotations, 0..100; rows are the classes of `classes.txt`, columns the 312 names
        of `attributes.txt` (`has_bill_shape::dagger`, ...).
    """
    folder = home(root)
    # The official archive puts attributes.txt beside CUB_200_2011/ rather than into it.
    places = [f / "attributes.txt" for f in (folder / "attributes", folder, folder.parent)]
    names = next((place for place in places if place.is_file()), None)
    values = folder / "attributes" / "class_attribute_labels_continuous.txt"
    if names is None or not values.is_file():
        raise ValueError(f"{folder} lacks attributes.txt or attributes/{values.name}")
    columns = _read_pairs(names)
    table = np.loadtxt(values, ndmin=2)
    if table.shape != (N_CLASSES, N_ATTRIBUTES) or len(columns) != N_ATTRIBUTES:
        raise ValueError(
            f"{values} must hold {N_CLASSES} classes x {N_ATTRIBUTES} attributes, "
            f"got {table.shape} and {len(columns)} names"
        )
    classes = _read_pairs(folder / "classes.txt")
    rows = [int(i) - 1 for i in classes.index]
    index = pd.Index(classes, name="class")
    return pd.DataFrame(table[rows], index=index, columns=pd.Index(columns, name="attribute"))


def _read_pairs(path: Path) -> pd.Series:
    """A list file, `<id> <value>` on each line, as a Series by id."""
    pairs = [
        line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip()
    ]
    if wrong := [pair for pair in pairs if len(pair) != 2 or not pair[0].isdigit()]:
        raise ValueError(f"{path.name}: expected '<id> <value>' on each line, got {wrong[0]}")
    table = pd.Series([v.strip() for _, v in pairs], index=[i for i, _ in pairs], dtype=str)
    if len(twice := table.index[table.index.duplicated()].unique()):
        raise ValueError(f"{path.name}: id {list(twice[:3])} is listed more than once")
    return table


def _read_lists(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The listed images (path, label, split) and the class names in the order of their ids."""
    names, paths, labels, sides = (_read_pairs(folder / name) for name in LISTS)
    for other, name in ((labels, LISTS[2]), (sides, LISTS[3])):
        if differ := sorted(set(other.index) ^ set(paths.index)):
            raise ValueError(f"images.txt and {name} list different ids, for example {differ[:3]}")
    if len(twice := paths[paths.duplicated()]):
        raise ValueError(f"images.txt lists {list(twice[:3])} more than once")
    if len(wrong := sides[~sides.isin(["0", "1"])]):
        raise ValueError(f"train_test_split.txt: expected 0 or 1, got {wrong.iloc[0]!r}")
    if unknown := sorted(set(labels) - set(names.index)):
        raise ValueError(f"image_class_labels.txt has classes {unknown[:3]}, not in classes.txt")
    names = names.sort_index(key=lambda ids: ids.astype(int))
    absent = [c for c in names if not (folder / "images" / c).is_dir()]
    if absent:
        raise ValueError(
            f"classes.txt lists {len(absent)} classes without a folder in images/, for example "
            f"{absent[0]}; extract the archive again, or list only the classes wanted"
        )
    label = labels[paths.index].map({id_: k for k, id_ in enumerate(names.index)})
    split = sides[paths.index].map({"1": "train", "0": "val"})
    return pd.DataFrame({"path": paths, "label": label, "split": split}), names.tolist()


def _reasons(folder: Path, listed: pd.DataFrame) -> np.ndarray:
    names = _read_pairs(folder / "classes.txt").sort_index(key=lambda ids: ids.astype(int))
    told = listed["label"].map(dict(enumerate(names)))
    there = listed["path"].map(lambda path: (folder / "images" / path).exists())
    return np.select(
        [~there, listed["path"].str.split("/").str[0] != told],
        ["no file: listed in images.txt", "mislabelled: image_class_labels.txt says " + told],
        default="",
    ).astype(object)


def _not_listed(images: Path, listed: pd.DataFrame, classes: set[str]) -> list[tuple[str, str]]:
    """Files that no list names; a whole folder of another class counts once."""
    known, rows = set(listed["path"]), []
    for folder in sorted(p for p in images.iterdir() if not p.name.startswith(".")):
        if folder.name not in classes:
            rows.append((folder.name, "not listed: not a class of classes.txt"))
            continue
        files = (f"{folder.name}/{p.name}" for p in folder.iterdir() if not p.name.startswith("."))
        rows += [(file, "not listed: not in images.txt") for file in files if file not in known]
    return rows


def _check_sides(samples: pd.DataFrame, classes: list[str]) -> None:
    for split in ("train", "val"):
        counts = np.bincount(
            samples.loc[samples["split"] == split, "label"], minlength=len(classes)
        )
        if empty := [classes[c] for c in np.flatnonzero(counts == 0)]:
            raise ValueError(f"no usable {split} image in {len(empty)} classes: {empty[:3]}")


def _report_leaks(samples: pd.DataFrame) -> None:
    n = int((samples.groupby("content_hash")["split"].nunique() > 1).sum())
    if n:  # the official split is kept as it is, but not silently
        warnings.warn(f"{NAME}: {n} sets of byte-identical images lie on both sides", stacklevel=3)


def _variant(listed: pd.DataFrame, classes: list[str], samples: pd.DataFrame) -> str:
    def digest(lines) -> str:
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=4).hexdigest()

    ids = [c.split(".")[0] for c in classes]
    if len(classes) == N_CLASSES:
        full = len(listed) == N_IMAGES
        name = "official" if full else f"images-{len(listed)}-{digest(sorted(listed['path']))}"
    elif all(i.isdigit() for i in ids) and int(ids[-1]) - int(ids[0]) == len(ids) - 1:
        name = f"classes-{ids[0]}-{ids[-1]}"
    else:
        name = f"classes-{len(ids)}-{digest(classes)}"
    missing = len(listed) - len(samples)
    return f"{name}-without-{missing}-{digest(samples['path'])}" if missing else name
