"""One process to a run: the second waits, says for whom, and goes on from what the first left."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path

import kills
import pytest

from retention_lib import lock
from retention_lib.rundir import RunDir

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["retention_lib.study"])


def hold_for(path, seconds):
    with lock.hold(path):
        time.sleep(seconds)


def hold_unlocked(path, seconds):
    lock.fcntl = None
    hold_for(path, seconds)


def holding(path, function=hold_for, seconds=60):
    """A process that holds a lock."""
    process = SERVER.Process(target=function, args=(path, seconds), daemon=True)
    process.start()
    while not any(f.stat().st_size for f in path.parent.glob("lock*")):
        time.sleep(0.01)
    return process


def no_locks(file, how):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


@pytest.fixture(params=["flock", "unsupported", "no fcntl"])
def kind(request, monkeypatch):
    """The system's lock, a file system without locks, a system without them."""
    if request.param == "unsupported":
        monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    if request.param == "no fcntl":
        monkeypatch.setattr(lock, "fcntl", None)
    return request.param


def test_the_holder_is_named_and_nothing_is_left(tmp_path, kind):
    path = tmp_path / "key" / "lock"
    with lock.hold(path):
        who = lock.holder(path)
        assert who.startswith(f"process {os.getpid()} on {socket.gethostname()} (since 2")
        with pytest.raises(TimeoutError, match=rf"key is held by process {os.getpid()} on .*wait"):
            with lock.hold(path, timeout_s=0.2):
                raise AssertionError
        assert lock.holder(path) == who  # who asked in vain changed nothing
    assert list((tmp_path / "key").iterdir()) == []
    with lock.hold(path, timeout_s=0):
        pass


def test_it_is_free_again_after_an_error(tmp_path, kind):
    with pytest.raises(KeyError), lock.hold(tmp_path / "lock"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_one_after_the_other_and_one_line_for_who_waits(tmp_path, kind):
    inside, most, told = [], [], []

    def work():
        with lock.hold(tmp_path / "lock", log=told.append):
            inside.append(0)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5 and list(tmp_path.iterdir()) == []
    waits = [line for line in told if "waiting for process" in line]
    assert 1 <= len(waits) <= 4
    assert any("has no file locks" in line for line in told) == (kind == "unsupported")


def test_a_killed_holder_holds_nothing(tmp_path):
    process = holding(tmp_path / "lock")
    with pytest.raises(TimeoutError, match=f"process {process.pid}"):
        with lock.hold(tmp_path / "lock", timeout_s=0):
            raise AssertionError
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / "lock").exists()
    with lock.hold(tmp_path / "lock", timeout_s=0):
        assert f"process {os.getpid()} " in lock.holder(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holders_stand_in_is_taken_over_on_its_machine_only(tmp_path, monkeypatch):
    process = holding(tmp_path / "lock", hold_unlocked)
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.raises(TimeoutError, match=f"process {process.pid}"):
        with lock.hold(tmp_path / "lock", timeout_s=0.2):
            raise AssertionError
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = tmp_path / "lock.held"
    who = json.loads(left.read_text())
    left.write_text(json.dumps({**who, "host": "elsewhere"}))
    with pytest.raises(TimeoutError, match=r"on elsewhere .*delete lock\* there"):
        with lock.hold(tmp_path / "lock", timeout_s=0.2):
            raise AssertionError
    left.write_text(json.dumps(who))
    with lock.hold(tmp_path / "lock", timeout_s=5):
        assert f"process {os.getpid()} " in lock.holder(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_says_nothing_is_a_lock(tmp_path):
    with lock.hold(tmp_path / "lock"):
        (tmp_path / "lock").write_text("{")
        with pytest.raises(TimeoutError, match="held by another process"):
            with lock.hold(tmp_path / "lock", timeout_s=0):
                raise AssertionError


def epochs(line_file: Path) -> list[int]:
    lines = line_file.read_text().splitlines() if line_file.is_file() else []
    return [int(line.split()[1]) for line in lines if line.startswith("  epoch")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    home = tmp_path_factory.mktemp("whole")
    kills.finish(home, 60.0)
    return kills.files(home)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_on_the_same_key(tmp_path, whole, killed):
    first = kills.start(tmp_path, 0.0)
    while not epochs(tmp_path / "log.txt"):
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGSTOP)  # until the second has met it
    second = SERVER.Process(target=kills.attempt, args=(tmp_path, 0.0))
    second.start()
    while "waiting for" not in (tmp_path / "log.txt").read_text() and second.is_alive():
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL if killed else signal.SIGCONT)
    first.join()
    second.join()
    log = (tmp_path / "log.txt").read_text()
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL if killed else 0, 0)
    assert f"waiting for process {first.pid} on {socket.gethostname()}" in log
    assert ("captured by another process meanwhile" in log) != killed
    # No epoch twice; what was killed in the middle of its writing may be computed again.
    assert len(epochs(tmp_path / "log.txt")) <= kills.EPOCHS + 1 + killed
    assert kills.files(tmp_path) == whole
    (folder,) = (tmp_path / "runs").iterdir()
    assert RunDir(folder).is_done and not [*folder.glob("lock*"), *folder.glob("check*")]
