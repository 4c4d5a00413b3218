"""No worker outlives the process that started it, and a SIGTERM stops all of them cleanly."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from retention_lib import config, parallel, study, train
from retention_lib.rundir import RunDir

pytestmark = pytest.mark.slow
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["retention_lib.study"])


def beat(folder, send):
    """A job that works until it is told to stop, and then finishes its step."""
    at = Path(folder) / str(os.getpid())
    with train.sigterm_noted() as stopped:
        send("begun")
        while not stopped:
            at.write_text(str(time.time()))
            time.sleep(0.02)
        time.sleep(0.3)
        at.with_suffix(".stopped").write_text("cleanly")
        send("last words")
        raise SystemExit(143)


def beat_in_two(folder, own_group):
    if own_group:
        os.setpgid(0, 0)

    def told(message):
        note_children(folder.with_name("children"))
        (folder / message).write_text("")

    parallel.in_processes(beat, [folder, folder, folder], 2, told)


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def note_children(path: Path) -> None:
    """Write down what this process has started: workers, and the one that passes messages."""
    path.write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # ended, but its new parent has not asked for its status
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def two_at_work(folder, own_group=False):
    """A process whose two workers have begun; also the ids of all that it started."""
    folder.mkdir()
    process = SERVER.Process(target=beat_in_two, args=(folder, own_group))
    process.start()
    wait_for(lambda: len([*folder.iterdir()]) == 3)  # two workers, of whom one has been heard
    started = [int(pid) for pid in folder.with_name("children").read_text().split()]
    workers = {int(file.name) for file in folder.iterdir() if file.name != "begun"}
    assert workers < {*started} and len(started) == 3
    return process, started


def test_workers_leave_with_a_parent_that_is_killed(tmp_path):
    process, started = two_at_work(tmp_path / "beats")
    os.kill(process.pid, signal.SIGKILL)
    began = time.monotonic()
    wait_for(lambda: all(map(gone, started)), 10)
    assert time.monotonic() - began < 3
    assert not [*tmp_path.rglob("*.stopped")]


def test_a_sigterm_to_the_whole_group_is_not_taken_for_two(tmp_path):
    process, started = two_at_work(tmp_path / "beats", own_group=True)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(timeout=60)
    assert process.exitcode == 143
    assert len([*tmp_path.rglob("*.stopped")]) == 2  # both finished, the third did not begin
    assert (tmp_path / "beats" / "last words").exists() and all(map(gone, started))


def test_a_second_sigterm_ends_all_at_once(tmp_path):
    process, started = two_at_work(tmp_path / "beats")
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGTERM
    wait_for(lambda: all(map(gone, started)), 10)


def capture_two(home, workers):
    """Two runs, one after the other or side by side."""
    os.environ["RETENTION_HOME"] = str(home)
    torch.set_num_threads(max(1, parallel.cores() // 2))
    base = {"n_train": 72, "input_size": 32, "epochs": 5, "warmup_epochs": 1, "weights": "none"}
    runs = [
        config.RunConfig("phantom_birds", arch="phantom_resnet18", seed=s, **base) for s in (0, 1)
    ]

    def note(line):
        note_children(home / "children")
        with open(home / "log.txt", "a") as file:
            print(line, file=file, flush=True)

    study.capture_or_load(runs, torch.device("cpu"), note, workers=workers)


def traces(home) -> dict[str, bytes]:
    found = sorted((home / "runs").rglob("*.parquet"))
    return {str(f.relative_to(home)): f.read_bytes() for f in found}


def test_a_study_side_by_side_goes_on_after_a_sigterm_and_a_kill(tmp_path):
    homes = {name: tmp_path / name for name in ("whole", "cut")}
    for home in homes.values():
        home.mkdir()
    whole = SERVER.Process(target=capture_two, args=(homes["whole"], 1))
    whole.start()
    whole.join()
    log, folder = homes["cut"] / "log.txt", homes["cut"] / "runs"
    for epoch, number in ((1, signal.SIGTERM), (3, signal.SIGKILL)):
        process = SERVER.Process(target=capture_two, args=(homes["cut"], 2))
        process.start()
        wait_for(lambda e=epoch: log.is_file() and f"epoch   {e}" in log.read_text(), 120)
        started = [int(pid) for pid in (homes["cut"] / "children").read_text().split()]
        os.kill(process.pid, number)
        process.join(timeout=60)
        assert process.exitcode == (143 if number == signal.SIGTERM else -number)
        wait_for(lambda pids=started: all(map(gone, pids)), 10)
        if number == signal.SIGTERM:
            runs = [RunDir(f) for f in folder.iterdir() if (f / "trace").is_dir()]
            stopped_at = [f"epoch {r.load_checkpoint()['epoch']}" for r in runs if not r.is_done]
            assert stopped_at == [r.progress() for r in runs if not r.is_done]
    last = SERVER.Process(target=capture_two, args=(homes["cut"], 2))
    last.start()
    last.join()
    assert (whole.exitcode, last.exitcode) == (0, 0)
    assert traces(homes["cut"]) == traces(homes["whole"])
    assert not [*folder.rglob("lock*"), *folder.rglob("*.tmp"), *folder.rglob("checkpoint.pt")]
