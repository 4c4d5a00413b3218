"""The first pass over image files: hash each and try to decode it, before any split is made."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from PIL import Image

#: What is taken for an image; anything else in a class folder is listed as excluded.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
_SCAN_COLUMNS = ["path", "file_bytes", "mtime_ns", "content_hash", "reason"]


def is_image(path: str | Path) -> bool:
    """Whether the suffix is one of `IMAGE_SUFFIXES`."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def read_image(data: bytes) -> Image.Image:
    """Decode the bytes of an image file to 8-bit RGB, or L where it is grayscale.

    As torchvision's ImageFolder does: transparency is dropped, EXIF orientation ignored, the first
    frame taken. Raises ValueError for 16-bit, 32-bit and float images, which Pillow would clip to
    white, and whatever Pillow raises for a broken file.
    """
    image = Image.open(io.BytesIO(data))
    if image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode} has more than 8 bits per channel; convert it first")
    image.load()  # Pillow is lazy: truncation shows only here
    return image if image.mode == "L" else image.convert("RGB")


def scan(
    root: str | Path,
    paths: Iterable[str],
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    log: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Hash every file and try to decode it.

    Parameters
    ----------
    root : path
        What `paths` are relative to.
    paths : iterable of str
        With forward slashes.
    cache_dir : path, optional
        Remembers results; a file is read again when its size or modification time has changed.

    Returns
    -------
    DataFrame
        In the order of `paths`: `path`, `file_bytes`, `mtime_ns`, `content_hash` (64-bit BLAKE2b of
        the file's bytes, hexadecimal) and `reason`, empty for a good image, else why it is not.
    """
    root, paths = Path(root), list(paths)
    where = hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()
    store = Path(cache_dir) / f"scan-{where}.parquet" if cache_dir is not None else None
    known: dict[str, tuple] = {}
    if store is not None and store.exists():
        known = {row[0]: row for row in pd.read_parquet(store).itertuples(index=False, name=None)}

    def one(path: str) -> tuple:
        try:
            stat = (root / path).stat()
        except OSError as error:
            return path, 0, 0, "", f"unreadable file: {error.strerror}"
        old = known.get(path)
        if old is not None and old[1:3] == (stat.st_size, stat.st_mtime_ns):
            return old
        return path, stat.st_size, stat.st_mtime_ns, *_examine(root / path)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        rows = list(pool.map(one, paths))
    table = pd.DataFrame(rows, columns=_SCAN_COLUMNS)
    fresh = sum(known.get(row[0]) is not row for row in rows)
    if fresh and log is not None:
        log(f"verified {fresh} files in {time.perf_counter() - start:.1f} s")
    if fresh and store is not None:
        store.parent.mkdir(parents=True, exist_ok=True)
        temporary = store.with_name(f"{store.name}.{os.getpid()}.tmp")
        table.to_parquet(temporary)
        os.replace(temporary, store)
    return table


def _examine(path: Path) -> tuple[str, str]:
    """Content hash of one file, and the reason against it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return "", f"unreadable file: {error.strerror}"
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    try:
        read_image(data)
    except Exception as error:
        return digest, f"broken image: {tell(error)}" if data else "empty file"
    return digest, ""


def tell(error: Exception) -> str:
    """Pillow's message (it raises almost anything) without the address of the buffer in memory."""
    return f"{type(error).__name__}: {error}".split(" <_io")[0]
