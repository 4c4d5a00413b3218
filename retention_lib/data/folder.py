"""Any folder of class folders, and what the readers share: exclusions, components, grouped splits.

Layout: `PATH/<class>/**/<image>`, or `PATH/train/<class>/**` beside `PATH/val/<class>/**` (also
called `valid`, `validation` or `test`). Without a given split, about 20 % of each class is held out
in the order of the content hashes, byte-identical files together: a function of the data set alone.

A layout that cannot be used raises a ValueError: no class folder, fewer than two classes, a class
without an image or with a single one, classes that differ between the splits. A file that is broken
or no image is left out and listed. Hidden files and folders are not looked at.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from retention_lib.data.decode import assemble
from retention_lib.data.imageset import ImageSet, sample_ids
from retention_lib.data.scan import is_image, scan

#: Folder names that mean held-out images, the first one present is used.
HELD_OUT = ("val", "valid", "validation", "test")


def sample_table(
    root: str | Path,
    cache_dir: str | Path | None = None,
    log: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...], str, pd.DataFrame]:
    """Samples of an image folder, with their split, from verified files.

    Returns
    -------
    samples : DataFrame
        Sorted by path (below `root`); `group` is the content hash, shared by byte-identical files.
    classes : tuple of str
        Folder names, sorted.
    variant : str
        `given-split` or `hash-split`.
    excluded : DataFrame
        `path` and `reason`.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"no folder {root}: expected one folder per class")
    sides, outside = _sides(root)
    files = [row for split, side in sides.items() for row in _walk(root, side, split)]
    table = pd.DataFrame(files, columns=["path", "class", "split"], dtype=str)
    good = table["path"].map(is_image).astype(bool)
    outside += [(path, "not an image: unknown suffix") for path in table["path"][~good]]
    found = scan(root, sorted(table["path"][good]), cache_dir, log=log)
    outside += zip(found["path"], found["reason"], strict=True)
    name = f"folder:{root.resolve().name}"
    excluded = excluded_table([row for row in outside if row[1]], name)
    classes = tuple(sorted({c for side in sides.values() for c in _folders(root / side)}))
    samples = found[found["reason"] == ""].merge(table, on="path")
    _check_classes(root, classes, samples, list(sides))
    samples["label"] = samples["class"].map(classes.index)
    samples["sample_id"] = sample_ids(samples["path"])
    samples["group"] = samples["content_hash"]
    if len(sides) == 1:
        samples["split"] = grouped_split(samples["label"], samples["group"], classes, at_least=1)
    _report_leaks(samples, name)
    columns = "sample_id path label split group content_hash file_bytes".split()
    return samples[columns], classes, "given-split" if len(sides) > 1 else "hash-split", excluded


def load(
    root: str | Path,
    size: int,
    cache_dir: str | Path,
    log: Callable[[str], None] | None = None,
) -> ImageSet:
    """An image folder as an `ImageSet` of `size` pixels, named `folder:<name>`."""
    samples, classes, variant, excluded = sample_table(root, cache_dir, log)
    name = f"folder:{Path(root).resolve().name}"
    return assemble(name, variant, classes, samples, excluded, root, size, cache_dir, log)


def _folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _sides(root: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Folder of each split, `{"train": "."}` if there is none, and what is left aside."""
    names = _folders(root)
    held = [name for name in HELD_OUT if name in names]
    loose = [p.name for p in root.iterdir() if p.is_file() and not p.name.startswith(".")]
    if "train" not in names:
        return {"train": "."}, [(name, "outside: not in a class folder") for name in loose]
    if not held:
        raise ValueError(f"{root} has train/ but none of {HELD_OUT} beside it; it has {names}")
    aside = [*loose, *(name for name in names if name not in ("train", held[0]))]
    return {"train": "train", "val": held[0]}, [
        (name, f"outside: neither in train/ nor in {held[0]}/") for name in aside
    ]


def _walk(root: Path, side: str, split: str) -> Iterable[tuple[str, str, str]]:
    """All files below the class folders of one side, as (path below root, class, split)."""
    for name in _folders(root / side):
        for folder, inner, files in os.walk(root / side / name, followlinks=True):
            inner[:] = [f for f in inner if not f.startswith(".")]
            for file in files:
                if not file.startswith("."):
                    yield (Path(folder) / file).relative_to(root).as_posix(), name, split


def _check_classes(root: Path, classes: tuple[str, ...], samples: pd.DataFrame, splits: list[str]):
    if len(classes) < 2:
        raise ValueError(f"{root} needs at least two class folders, found {list(classes)}")
    for split in splits:
        counts = samples.loc[samples["split"] == split, "class"].value_counts()
        least = 2 if len(splits) == 1 else 1
        few = {c: int(counts.get(c, 0)) for c in classes if counts.get(c, 0) < least}
        if few:
            where = f"{root}/{split}" if len(splits) > 1 else root
            raise ValueError(
                f"{where}: every class needs {least} or more usable images, found {few}"
            )


def _report_leaks(samples: pd.DataFrame, name: str) -> None:
    sets = samples.groupby("content_hash")[["label", "split"]].nunique()
    for column, what in (("label", "under two classes"), ("split", "on both sides of the split")):
        if n := int((sets[column] > 1).sum()):
            warnings.warn(f"{name}: {n} sets of byte-identical images lie {what}", stacklevel=3)


def excluded_table(rows: Iterable[tuple[str, str]], where: str) -> pd.DataFrame:
    """Table of (path, reason) sorted by path, with a warning that counts the kinds of reason."""
    table = pd.DataFrame(sorted(rows), columns=["path", "reason"], dtype=str)
    if len(table):
        kinds = table["reason"].str.split(":").str[0].value_counts()
        text = ", ".join(f"{n} x {kind}" for kind, n in kinds.items())
        warnings.warn(f"{where}: left out {text}; see the `excluded` table", stacklevel=3)
    return table


def components(*keys: pd.Series) -> np.ndarray:
    """Connected components of rows that share a value of any key, row order without influence.

    Each is named by the smallest value of the first key in it.

    Examples
    --------
    >>> components(pd.Series(["a", "b", "c"]), pd.Series([1, 1, 2])).tolist()
    ['a', 'a', 'c']
    """
    codes = [pd.factorize(key, sort=True)[0] for key in keys]
    values = pd.factorize(keys[0], sort=True)[1]
    least = codes[0].copy()
    while True:  # the smallest first key spreads along shared values until nothing changes
        before = least.copy()
        for code in codes:
            smallest = np.full(code.max() + 1, len(values))
            np.minimum.at(smallest, code, least)
            least = smallest[code]
        if np.array_equal(before, least):
            return np.asarray(values)[least]


def grouped_split(
    label: pd.Series, group: pd.Series, classes: tuple[str, ...], at_least: int, share: float = 0.2
) -> np.ndarray:
    """Split that never divides a group, holds out about `share` of each class, and needs no seed.

    Classes are filled from the rarest to the commonest. Within one, groups come in the order of a
    hash of their name; a group is held out if that brings the class nearer to its share.

    Parameters
    ----------
    label, group : Series, (sample,)
    at_least : int
        Groups of every class that each side must have.
    share : float
        Held-out share of the images of a class.

    Returns
    -------
    ndarray of str, (sample,)
        `train` or `val`.

    Raises
    ------
    ValueError
        If a class has too few groups.
    """
    table = pd.DataFrame({"label": np.asarray(label), "group": np.asarray(group, dtype=str)})
    sizes = table.groupby(["label", "group"], as_index=False).size()
    digest = {g: hashlib.blake2b(g.encode()).digest() for g in sizes["group"].unique()}
    sizes = sizes.iloc[sorted(range(len(sizes)), key=lambda i: digest[sizes["group"].iloc[i]])]
    total = sizes.groupby("label")["size"].sum()
    held: dict[str, bool] = {}
    for c in sorted(total.index, key=lambda c: (total[c], c)):
        of_class = sizes[sizes["label"] == c]
        _hold_out(
            dict(zip(of_class["group"], of_class["size"], strict=True)), held, share, at_least
        )
    sizes["held"] = sizes["group"].map(held)
    for c, of_class in sizes.groupby("label"):
        n, n_held = len(of_class), int(of_class["held"].sum())
        if min(n_held, n - n_held) < at_least:
            raise ValueError(
                f"class {classes[c]} has {total[c]} images in {n} independent groups; the split "
                f"needs {at_least} groups on each side, found {n - n_held} train and {n_held} val"
            )
    return np.where(table["group"].map(held), "val", "train")


def _hold_out(groups: dict[str, int], held: dict[str, bool], share: float, at_least: int) -> None:
    """Decide for each group of one class that is still open, in the order given."""
    target, most = share * sum(groups.values()), len(groups) - at_least
    inside = [g for g in groups if held.get(g)]
    have, taken = sum(groups[g] for g in inside), len(inside)
    free = [g for g in groups if g not in held]
    for enough in (False, True):  # first towards the share, then up to the least number of groups
        for g in sorted(free, key=groups.get) if enough else free:
            nearer = abs(have + groups[g] - target) < abs(have - target)
            wanted = taken < at_least if enough else nearer
            if g not in held and wanted and taken < most:
                held[g], have, taken = True, have + groups[g], taken + 1
    for g in free:
        held.setdefault(g, False)
