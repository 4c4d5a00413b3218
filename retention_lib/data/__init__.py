"""What the known data sets look like, and how each is read or drawn: `load` and `identity`."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from retention_lib import paths
from retention_lib.config import RunConfig, check_names
from retention_lib.data.download import ensure_cub, ensure_octdl
from retention_lib.data.imageset import ImageSet, split_hash

PHANTOMS = ("phantom_oct", "phantom_birds")
REAL = {"octdl": "octdl", "cub": "CUB_200_2011"}  # name -> folder below the data root
PHANTOM_SEED = 20260  # the phantoms are fixed data sets: a run's seed never changes them


def load(config: RunConfig) -> ImageSet:
    """The images of a run, at its input size.

    Phantoms are drawn (and cached), real data is read from below `paths.data_root()`, and
    `folder:PATH` reads any folder of class folders.
    """
    return _load(config.dataset, config.n_train, config.input_size)


@lru_cache(maxsize=2)
def _load(dataset: str, n_train: int | None, size: int) -> ImageSet:
    kind, _, path = dataset.partition(":")
    check_names([kind], [*PHANTOMS, *REAL, "folder"], "data set")
    if kind in PHANTOMS:
        return _draw(kind, _phantom_size(kind, n_train), size)
    if n_train is not None:
        raise ValueError(f"n_train is for phantoms; {dataset} has the images it has, got {n_train}")
    if kind == "folder":
        return _module(kind).load(Path(path).expanduser(), size, paths.cache())
    root = {"octdl": ensure_octdl, "cub": ensure_cub}[kind](paths.data_root())
    return _module(kind).load(root, size, paths.cache())


def identity(config: RunConfig) -> str:
    """The identity of a run's data set, without decoding or drawing an image if that is possible.

    Known real data sets that are absent have the identity under which their runs were published.
    """
    kind = config.dataset.partition(":")[0]
    if kind in PHANTOMS:
        n_train = _phantom_size(kind, config.n_train)
        return f"{kind}/n={n_train}/{split_hash(_module(kind).sample_table(n_train, PHANTOM_SEED))}"
    if kind in REAL and not (paths.data_root() / REAL[kind]).is_dir():
        known = json.loads((Path(__file__).parent / "identities.json").read_text())
        if kind in known:
            return known[kind]
    return load(config).identity


def _phantom_size(kind: str, n_train: int | None) -> int:
    if n_train is None:
        raise ValueError(f"{kind} needs n_train, the number of training images to draw; got None")
    return n_train


def _module(kind: str):
    return importlib.import_module(f"retention_lib.data.{kind}")


def _draw(kind: str, n_train: int, size: int) -> ImageSet:
    """Draw a phantom, or open what was drawn before by the same code."""
    module = _module(kind)
    table = module.sample_table(n_train, PHANTOM_SEED)
    code = b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))
    version = hashlib.blake2b(code, digest_size=4).hexdigest()  # other code may draw otherwise
    file = paths.cache() / f"{kind}-n{n_train}-{size}px-{version}.npy"
    if not file.is_file():
        images = module.draw(table, size)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp.npy")  # another process may draw it too
        np.save(temporary, images)
        temporary.replace(file)
    images = np.load(file, mmap_mode="r")
    table["content_hash"] = [
        hashlib.blake2b(i.tobytes(), digest_size=8).hexdigest() for i in images
    ]
    return ImageSet(kind, f"n={n_train}", module.CLASSES, table, images)
