"""Archives that cannot escape: every member is checked before the first is written."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple


class _Entry(NamedTuple):
    """A member of any archive: `kind` is file, folder, symlink, hardlink or other."""

    name: str
    kind: str
    link: str
    n_bytes: int
    open: Callable[[], IO[bytes]]


def safe_extract(archive: str | Path, folder: str | Path) -> Path:
    """Extract a tar or zip archive, refusing it before anything is written if a member is unsafe.

    Refused: absolute paths, drive letters, `..`, backslashes, links that leave the folder or pass
    through another link, members below a link, devices and pipes, and more bytes than the disk has
    free. Owners and permission bits are not restored.

    Raises
    ------
    ValueError
        Names the member, or says that the file is no archive.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                _extract(archive, folder, [_tar_entry(tar, m) for m in tar.getmembers()])
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _extract(archive, folder, [_zip_entry(zipped, i) for i in zipped.infolist()])
        else:
            raise ValueError(f"{archive} is neither a tar nor a zip archive")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} is damaged ({error}): delete it and fetch it again") from error
    return folder


def _tar_entry(tar: tarfile.TarFile, m: tarfile.TarInfo) -> _Entry:
    tests = {"file": m.isfile, "folder": m.isdir, "symlink": m.issym, "hardlink": m.islnk}
    kind = next((kind for kind, test in tests.items() if test()), "other")
    return _Entry(m.name, kind, m.linkname, m.size, lambda: tar.extractfile(m))


def _zip_entry(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    # A link in a zip is a file whose text is the target; none of our archives needs that.
    kind = "other" if stat.S_ISLNK(info.external_attr >> 16) else "file"
    kind = "folder" if info.is_dir() else kind
    return _Entry(info.orig_filename, kind, "", info.file_size, lambda: zipped.open(info))


def _extract(archive: Path, folder: Path, entries: list[_Entry]) -> None:
    # Case is folded, because on some file systems "A" and "a" are one link.
    links = {PurePosixPath(e.name.casefold()).parts for e in entries if e.kind == "symlink"}
    for e in entries:
        if why := _unsafe(e, links):
            raise ValueError(f"{archive.name}: refusing to extract {e.name!r}: {why}")
    folder.mkdir(parents=True, exist_ok=True)
    need, free = sum(e.n_bytes for e in entries), shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(f"{archive.name} needs {need} bytes in {folder}, {free} are free")
    inside = folder.resolve()
    for e in entries:
        target = folder / e.name
        if not target.parent.resolve().is_relative_to(inside) and target != folder:
            raise ValueError(f"{target} lies behind a link that leaves {folder}")
        if e.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # never write through a link or into a shared file
        if e.kind == "symlink":
            target.symlink_to(e.link)
        elif e.kind == "hardlink":
            target.hardlink_to(folder / e.link)
        else:
            with e.open() as source, open(target, "xb") as file:
                shutil.copyfileobj(source, file)


def _unsafe(e: _Entry, links: set[tuple[str, ...]]) -> str:
    """Why a member may not be extracted; empty if it may."""
    if e.kind == "other":
        return "not a file, folder or allowed link"
    for name in (e.name, e.link):
        if name.startswith("/") or "\\" in name or name[1:2] == ":":
            return f"{name!r} is an absolute or foreign path"
    parts = PurePosixPath(e.name.casefold()).parts
    if ".." in parts:
        return "it leaves the folder"
    if any(parts[:k] in links for k in range(1, len(parts))):
        return "it lies below a link"
    if e.kind in ("symlink", "hardlink"):
        # Walked step by step, because "link/.." is not where it seems to be.
        here = list(parts[:-1]) if e.kind == "symlink" else []
        for step in PurePosixPath(e.link.casefold()).parts:
            if step == ".." and not here:
                return f"its target {e.link!r} leaves the folder"
            here = here[:-1] if step == ".." else [*here, step]
            if tuple(here) in links:
                return f"its target {e.link!r} passes through a link"
    return ""
