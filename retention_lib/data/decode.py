"""From image files to one memory-mapped array of squares, decoded once and kept in a cache.

Decoding runs in threads, because Pillow gives up the interpreter lock while it decodes and resizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from retention_lib import lock
from retention_lib.data.imageset import ImageSet
from retention_lib.data.known import check_identity
from retention_lib.data.scan import read_image, tell

#: Raised by one whenever the same file would decode to other pixels, so that old caches are left.
RECIPE = 1
FITS = ("crop", "squash")


def square(image: Image.Image, size: int, fit: str = "crop") -> np.ndarray:
    """Resize to uint8 (size, size, 3) by the rule `fit`.

    `crop` brings the short side to `size` and keeps the centre; `squash` brings both sides there,
    for pictures whose content fills their width, as a retinal scan's does.

    Anti-aliased bicubic. The centre square is cut by the resampling itself, at sub-pixel position,
    so that a very long image costs no more than a square one; grayscale is repeated afterwards.
    """
    width, height = image.size
    if fit == "squash":
        small = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(small.convert("RGB"))
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    small = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(small.convert("RGB"))


def fingerprint(
    paths: Iterable[str], content_hashes: Iterable[str], size: int, fit: str = "crop"
) -> str:
    """Name of the cache that holds these files at this size, in this order."""
    digest = hashlib.blake2b(f"recipe {RECIPE} {fit} size {size}\n".encode(), digest_size=8)
    for path, content in zip(paths, content_hashes, strict=True):
        digest.update(f"{path}\t{content}\n".encode())
    return digest.hexdigest()


def decode(
    paths: Iterable[str | Path],
    size: int,
    cache_dir: str | Path,
    key: str,
    workers: int | None = None,
    log: Callable[[str], None] | None = None,
    fit: str = "crop",
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Decode files into a memory-mapped cache, or open the cache when it is there.

    Parameters
    ----------
    paths : iterable of path
        Files, in the order of the rows.
    size : int
        Height and width of the squares [pixel].
    key : str
        File name of the cache without its suffix; see `fingerprint`.
    workers : int, optional
        Threads; as many as there are processors unless given.
    fit : {"crop", "squash"}
        See `square`.

    Returns
    -------
    images : ndarray of uint8, (path, size, size, 3)
        Read-only memory map; the row of a broken file is black.
    broken : list of (path, reason)
    """
    paths, cache_dir = [Path(p) for p in paths], Path(cache_dir)
    if fit not in FITS:
        raise ValueError(f"fit must be one of {FITS}, got {fit!r}")
    if not paths or size < 1:
        raise ValueError(
            f"decode needs paths and a size of at least 1, got {len(paths)} and {size}"
        )
    target, notes = cache_dir / f"{key}.npy", cache_dir / f"{key}.broken.json"
    if not target.exists():
        with lock.hold(cache_dir / f"{key}.lock", log=log):
            if not target.exists():  # another process may have decoded meanwhile
                start = time.perf_counter()
                _fill(paths, size, target, notes, workers or os.cpu_count(), fit)
                seconds = time.perf_counter() - start
                if log is not None:
                    log(f"decoded {len(paths)} images at {size} px in {seconds:.1f} s")
    return _open(target, notes, (len(paths), size, size, 3))


def _open(target: Path, notes: Path, shape: tuple) -> tuple[np.ndarray, list[tuple[str, str]]]:
    try:
        images = np.load(target, mmap_mode="r", allow_pickle=False)
        broken = json.loads(notes.read_text()) if notes.exists() else []
    except (ValueError, EOFError) as error:
        raise ValueError(f"{target} is damaged ({error}); delete it to decode again") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise ValueError(
            f"{target} holds {images.dtype} {images.shape}, expected uint8 {shape}; delete it to "
            "decode again"
        )
    return images, [(path, reason) for path, reason in broken]


def _fill(paths: list[Path], size: int, target: Path, notes: Path, workers: int, fit: str) -> None:
    """Decode into a temporary file, then give it its name: a half-written cache is never opened."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{target.stem}.*.tmp"):  # by a process that was killed
        left.unlink()
    need, free = len(paths) * size * size * 3, shutil.disk_usage(target.parent).free
    if need > free:
        raise OSError(
            f"decoding to {target} needs {need} bytes, {free} are free; make room, or let "
            "RETENTION_HOME name a folder on another disk"
        )
    temporary = target.with_name(f"{target.stem}.{os.getpid()}.tmp")
    shape = (len(paths), size, size, 3)
    try:
        images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(temporary)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise lock.explained(error, target) from error

    def one(row: int) -> tuple[str, str] | None:
        try:
            images[row] = square(read_image(paths[row].read_bytes()), size, fit)
        except Exception as error:  # kept: the caller gets every one with its path
            return str(paths[row]), tell(error)
        return None

    try:
        with ThreadPoolExecutor(workers) as pool:
            broken = [found for found in pool.map(one, range(len(paths))) if found]
        images.flush()
        notes.unlink(missing_ok=True)
        if broken:
            notes.write_text(json.dumps(broken, indent=1))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(file: Path) -> None:
    """Claim the disk for a file: a full disk under a memory map would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def assemble(
    name: str,
    variant: str,
    classes: tuple[str, ...],
    samples: pd.DataFrame,
    excluded: pd.DataFrame,
    root: str | Path,
    size: int,
    cache_dir: str | Path,
    log: Callable[[str], None] | None = None,
    fit: str = "crop",
) -> ImageSet:
    """Check the identity of a sample table, decode its files below `root`, return an `ImageSet`."""
    check_identity(name, variant, classes, samples)
    key = fingerprint(samples["path"], samples["content_hash"], size, fit)
    files = [Path(root) / path for path in samples["path"]]
    images, broken = decode(files, size, cache_dir, f"images-{size}px-{key}", log=log, fit=fit)
    if broken:
        raise ValueError(
            f"{name}: {len(broken)} files changed after they were verified: {broken[0]}"
        )
    return ImageSet(name, variant, classes, samples, images, excluded)
