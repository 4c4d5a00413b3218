"""Getting the real data: downloads that resume and are verified, archives that cannot escape.

Nothing is downloaded when a folder of the data set is there, whatever its state: what somebody has
put there is read, and complained about, but never replaced.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from retention_lib import lock
from retention_lib.data.archive import safe_extract

#: CaltechDATA record 65de6-vp158. Verified in public code on GitHub: the address in
#: pyshen-watson/TAIR (data/README.md) and zijizhu/part-concept (setup_cub.sh), the MD5 in
#: ContinualAI/avalanche (benchmarks/datasets/cub200/cub200.py), the size in tensorflow/datasets
#: (url_checksums/caltech_birds2011.txt).
CUB_URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
CUB_BYTES, CUB_MD5 = 1_150_585_339, "97eceeb196236b17998738112f37df78"

#: No direct address and no checksum of this archive could be verified, so nothing downloads it.
OCTDL_BY_HAND = """OCTDL is not in {root}. To get it by hand:
  1. open https://data.mendeley.com/datasets/sncdhf53xc (Kulyabin et al., Scientific Data 2024)
  2. download the archive with the images and OCTDL_labels.csv
  3. put them as {root}/octdl/OCTDL/<CLASS>/*.jpg and {root}/octdl/OCTDL_labels.csv
The reader then verifies 2,064 images:
AMD 1231, NO 332, ERM 155, DME 147, RVO 101, VID 76, RAO 22."""
CUB_BY_HAND = """CUB-200-2011 could not be downloaded to {root}. To get it by hand:
  1. download {url}
     (1,150,585,339 bytes, MD5 97eceeb196236b17998738112f37df78)
  2. extract it, so that {root}/CUB_200_2011/images.txt exists"""

_CHUNK = 1 << 20
_INTERRUPTED = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
)


def fetch(
    url: str,
    target: str | Path,
    size: int | None = None,
    md5: str | None = None,
    attempts: int = 5,
    pause_s: float = 1.0,
    log: Callable[[str], None] | None = None,
) -> Path:
    """Download a file, resuming where an earlier attempt or an earlier call stopped.

    Parameters
    ----------
    url : str
        http or https.
    target : path
        Appears only when complete and verified; until then the bytes are in `<target>.part`.
    size : int, optional
        Expected length [byte].
    md5 : str, optional
        Expected checksum, hexadecimal. Without it nobody notices when the server's file changed
        between two calls of which the second resumed.
    attempts : int
        How often a broken connection is taken up again in this call.
    pause_s : float
        Wait before the second attempt [s], doubled each time.

    Returns
    -------
    Path
        `target`. If it exists already it is verified, not downloaded.

    Raises
    ------
    ValueError
        If size or checksum differ (both values are quoted; a wrong partial file is deleted).
    OSError
        If the server cannot be reached, or refuses.
    """
    target = Path(target)
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"only http and https are downloaded, got {url!r}")
    if target.exists():
        return _verify(target, size, md5)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(attempts):
        try:
            if size is None or not part.exists() or part.stat().st_size != size:
                _transfer(url, part, size)
            break
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            if error.code < 500 or attempt == attempts - 1:
                raise
        except _INTERRUPTED as error:
            have = part.stat().st_size if part.exists() else 0
            if log is not None:
                log(f"{target.name}: interrupted after {have} bytes ({error})")
            # A name that does not resolve means that there is no network: waiting is no use.
            offline = isinstance(getattr(error, "reason", None), socket.gaierror)
            if offline or attempt == attempts - 1:
                message = f"{url}: {error} (attempt {attempt + 1}, {have} bytes kept)"
                raise OSError(message) from error
        time.sleep(pause_s * 2**attempt)
    try:
        _verify(part, size, md5)
    except ValueError:
        part.unlink()  # taken up again, it would stay wrong for ever
        raise
    os.replace(part, target)
    return target


def _transfer(url: str, part: Path, size: int | None) -> None:
    """One attempt: append what is missing, or start again where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have > size:
        have = 0
    headers = {"User-Agent": "retention_lib", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond what we have: it is stale, or complete
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
            error.close()
            if total == str(have):
                return
            part.unlink()
            raise ConnectionError(f"partial file of {have} bytes does not fit {total}") from error
        raise
    with response:
        sent = response.headers.get("Content-Range", "")
        resumed = response.status == 206 and sent.startswith(f"bytes {have}-")
        if response.status == 206 and not resumed:
            part.unlink()
            raise ConnectionError(f"asked for bytes from {have}, the server sent {sent!r}")
        length = response.headers.get("Content-Length")
        with open(part, "ab" if resumed else "wb") as file:
            shutil.copyfileobj(response, file, _CHUNK)
            file.flush()
            os.fsync(file.fileno())
    expected = None if length is None else int(length) + (have if resumed else 0)
    if expected is not None and part.stat().st_size < expected:
        raise ConnectionError(f"got {part.stat().st_size} of {expected} bytes")


def _verify(file: Path, size: int | None, md5: str | None) -> Path:
    if size is not None and file.stat().st_size != size:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, expected {size}")
    if md5 is not None:
        with open(file, "rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        if found.hexdigest() != md5:
            raise ValueError(f"{file} has MD5 {found.hexdigest()}, expected {md5}")
    return file


def ensure_cub(
    root: str | Path,
    url: str = CUB_URL,
    size: int | None = CUB_BYTES,
    md5: str | None = CUB_MD5,
    log: Callable[[str], None] | None = print,
) -> Path:
    """Folder `root/CUB_200_2011`; the official archive is downloaded only when it does not exist.

    The archive is extracted beside its place and moved there whole, so that half an archive is
    never taken for a data set; it is deleted afterwards.
    """
    root = Path(root)
    place = root / "CUB_200_2011"
    if place.exists():
        return place
    with lock.hold(root / ".cub.lock", log=log):
        if not place.exists():  # another process may have put it there meanwhile
            _put_cub(root, place, url, size, md5, log)
    return place


def _put_cub(root: Path, place: Path, url: str, size, md5, log) -> None:
    for left in root.glob(".cub-*"):  # by a process that was killed
        shutil.rmtree(left)
    if log is not None:
        log(f"downloading {url} to {root}")
    try:
        archive = fetch(url, root / "CUB_200_2011.tgz", size, md5, log=log)
    except OSError as error:
        raise OSError(f"{CUB_BY_HAND.format(root=root, url=url)}\n({error})") from error
    with tempfile.TemporaryDirectory(prefix=".cub-", dir=root) as temporary:
        found = safe_extract(archive, temporary) / "CUB_200_2011"
        if not (found / "images.txt").is_file():
            raise ValueError(f"{archive} holds no CUB_200_2011/images.txt")
        names = Path(temporary, "attributes.txt")  # the archive has it outside the data's folder
        if names.is_file() and (found / "attributes").is_dir():
            names.replace(found / "attributes" / "attributes.txt")
        found.rename(place)
    archive.unlink()


def ensure_octdl(root: str | Path) -> Path:
    """Folder `root/octdl`; a FileNotFoundError with instructions when it does not exist."""
    place = Path(root) / "octdl"
    if not place.exists():
        raise FileNotFoundError(OCTDL_BY_HAND.format(root=root))
    return place
