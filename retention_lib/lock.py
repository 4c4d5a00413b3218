"""What a run asks of the file system: one writer at a time, files that are whole or absent.

The lock is the operating system's (`flock`): it goes with the process that holds it, however that
ends. Where the system or a network file system has none, a file that only one process can create
stands in for it; a killed holder's file is then taken over on the same machine, and has to be
deleted by hand from another one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

POLL_SECONDS = 0.1
#: How file systems say that they have no locks.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def hold(path: Path | str, timeout_s: float | None = None, log: Callable | None = None):
    """Hold a lock while the block runs; other processes and threads wait for it.

    The lock's file says who holds it (process, host, since when) and is gone afterwards.

    Parameters
    ----------
    path : path
        The lock's file; its folder is made.
    timeout_s : float, optional
        How long to wait for another holder [s]; without it as long as it takes, 0 not at all.
    log : callable, optional
        Receives one line that names the holder, if there is one to wait for.

    Raises
    ------
    TimeoutError
        Names the holder, and says what to do.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with hold(folder / "lock"):
    ...     holder(folder / "lock").startswith(f"process {os.getpid()} on ")
    True
    >>> list(folder.iterdir())
    []
    """
    path, start, told = Path(path), time.monotonic(), False
    while (release := _acquire(path, log)) is None:
        who = holder(path)
        if timeout_s is not None and time.monotonic() - start >= timeout_s:
            raise TimeoutError(
                f"{path.parent} is held by {who}; waited {timeout_s:g} s. Wait until that process "
                f"is done, or end it; if it is gone for certain, delete {path.name}* there."
            )
        if log is not None and not told:
            log(f"{path.parent.name}: waiting for {who}")
            told = True
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        release()


def holder(path: Path | str) -> str:
    """Who holds a lock, in words; `another process` where its file does not tell."""
    for file in (Path(path), _stand_in(Path(path))):
        try:
            who = json.loads(file.read_text())
            return f"process {who['pid']} on {who['host']} (since {who['since']})"
        except (OSError, ValueError, TypeError, KeyError):
            continue  # released meanwhile, not yet written, or the other kind of lock
    return "another process"


def _acquire(path: Path, log: Callable | None) -> Callable | None:
    """Try once; returns what releases the lock, or None if somebody holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, path.parent) from error
    try:
        return _create(path) if fcntl is None else _flock(path)
    except FileNotFoundError:  # the last holder took its empty folder away
        return None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise explained(error, path) from error
    path.unlink(missing_ok=True)
    release = _create(path)
    if release is not None and log is not None:
        log(f"{path.parent} has no file locks; {_stand_in(path).name} stands in for one")
    return release


def _flock(path: Path) -> Callable | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A file that was released, so deleted, between opening and locking is nobody's lock.
        if _is_at(file, path):
            os.ftruncate(file, 0)
            os.write(file, _signature())
            return lambda: _release(file, path)
    except BlockingIOError:
        pass
    except OSError:
        os.close(file)
        raise
    os.close(file)
    return None


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _release(file: int, path: Path) -> None:
    path.unlink(missing_ok=True)  # while it is still locked: nobody else's is deleted
    os.close(file)


def _stand_in(path: Path) -> Path:
    return path.with_name(path.name + ".held")


def _create(path: Path) -> Callable | None:
    """The lock without locks: to have created the file is to hold it."""
    file = _stand_in(path)
    try:
        with open(file, "xb") as stream:
            stream.write(_signature())
    except FileExistsError:
        orphan = _orphan(file)
        if orphan:
            aside = file.with_name(f"{file.name}.{os.getpid()}")
            os.replace(file, aside)
            if aside.read_bytes() == orphan:
                aside.unlink()
            else:  # another process was quicker, and this is its lock
                os.replace(aside, file)
        return None
    return lambda: file.unlink(missing_ok=True)


def _orphan(file: Path) -> bytes:
    """Content of a stand-in whose holder ran on this machine and is gone; empty for any other."""
    content = b""
    try:
        content = file.read_bytes()
        who = json.loads(content)
        if who["host"] == socket.gethostname() and os.name != "nt":
            os.kill(who["pid"], 0)  # asks whether it exists; on Windows it would end it
    except ProcessLookupError:
        return content
    except (OSError, ValueError, TypeError, KeyError):
        return b""
    return b""


def _signature() -> bytes:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    return json.dumps(who).encode()


@contextmanager
def whole_file(path: Path):
    """Open a file for writing that gets its name only when it is whole and on the disk.

    Raises
    ------
    OSError
        Of the kind that the system raised; names the file and says what to do. What was written
        under a temporary name is deleted, and a file that had the name stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch reports its own confusion; why the file could not be written is in the context
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError):
            raise explained(cause, path) from error
        raise


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, so that a power cut cannot undo a rename."""
    with suppress(OSError):  # some systems cannot; a rename is then as safe as they make it
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def explained(error: OSError, path: Path) -> OSError:
    """The same kind of error, which names the file and says what to do about it."""
    if error.errno is None:
        return type(error)(f"{path} could not be written: {error}")
    advice = "could not be written"
    if error.errno in _FULL:
        advice += "; make room or raise the limit and start again: what is finished is kept"
    elif error.errno in _REFUSED:
        advice += "; let RETENTION_HOME (runs, caches) or RETENTION_DATA name a writable folder"
    return type(error)(error.errno, f"{error.strerror} ({advice})", str(path))


def keep_to_parent() -> None:
    """Let this process end with the one that started it, however that ends, and not by SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def leave():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def digest(content: bytes) -> str:
    """Checksum of a file's content: 64-bit BLAKE2b, hexadecimal."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def is_whole_zip(path: Path) -> bool:
    """Whether a file is a zip archive, as torch's are, and every checksum inside is right."""
    try:
        with zipfile.ZipFile(path) as zipped:
            return zipped.testzip() is None
    except Exception:  # zipfile raises almost anything for a broken archive
        return False
