"""A run killed at any moment and started again writes the trace of an uninterrupted run.

Every attempt is a process of its own, forked from a server that has imported torch but never
computed anything; the killed ones end themselves with SIGKILL at a given place.
"""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import CPU, make_config, make_images, start_run, train_run

from retention_lib import data, lock, study, train
from retention_lib.rundir import RunDir

EPOCHS = 4
BATCHES = 2
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["retention_lib.study"])  # torch is imported once, not 17 times


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner, name, wanted):
    """Make a function kill its process after it returned, if its arguments are the wanted ones."""
    function = getattr(owner, name)

    def deadly(*args, **kwargs):
        result = function(*args, **kwargs)
        if wanted(*args):
            die()
        return result

    setattr(owner, name, deadly)


def in_the_warm_up():
    after(train.models, "pooled_features", lambda *args: True)


def while_a_trace_is_written():
    rename = os.replace
    # the temporary file is whole and flushed, but has not got its name yet
    lock.os.replace = lambda a, b: die() if "epoch=001" in str(b) else rename(a, b)


def after_a_trace_before_its_checkpoint():
    after(RunDir, "write_epoch", lambda run, epoch, *args: epoch == 1)


def right_after_a_checkpoint():
    after(RunDir, "save_checkpoint", lambda run, state: state["epoch"] == 2)


def in_the_middle_of_a_later_epoch():
    calls = []
    after(train.Recorder, "add", lambda *args: calls.append(0) or len(calls) == 2 * BATCHES + 1)


def before_the_run_is_marked_as_done():
    RunDir.finish = lambda self, done: die()


#: Place of the kill -> trace files that are there afterwards, epoch of the checkpoint (None: none).
PLACES = {
    in_the_warm_up: (0, None),
    while_a_trace_is_written: (1, 0),
    after_a_trace_before_its_checkpoint: (2, 0),
    right_after_a_checkpoint: (3, 2),
    in_the_middle_of_a_later_epoch: (3, 2),
    before_the_run_is_marked_as_done: (EPOCHS + 1, EPOCHS - 1),
}


def attempt(home, prepare=None, checkpoint_seconds=0.0):
    """One process: capture the run, or what is left of it."""
    torch.set_num_threads(1)
    os.environ["RETENTION_HOME"] = str(home)
    images = make_images(n_train=32, n_val=8)
    data.load, data.identity = lambda config: images, lambda config: images.identity
    train.CHECKPOINT_SECONDS = checkpoint_seconds
    if prepare is not None:
        prepare()
    config = make_config(dataset="octdl", epochs=EPOCHS, warmup_epochs=2, lr=1e-3)
    log = Path(home) / "log.txt"

    def note(line):
        with open(log, "a") as file:
            print(line, file=file, flush=True)

    study.capture_or_load([config], torch.device("cpu"), note)


def run_process(*args) -> int:
    """Exit code of an attempt; minus the signal's number if one ended it."""
    process = SERVER.Process(target=attempt, args=args)
    process.start()
    process.join(timeout=300)
    return process.exitcode


def files(home) -> dict[str, bytes]:
    """What a run leaves that must not depend on interruptions: all but clocks."""
    (folder,) = (home / "runs").iterdir()
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in [*sorted(folder.rglob("*.parquet")), folder / "config.json"]
    }


def epochs_logged(home) -> list[int]:
    lines = (home / "log.txt").read_text().splitlines() if (home / "log.txt").is_file() else []
    return [int(line.split()[1]) for line in lines if line.startswith("  epoch")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The files of an uninterrupted run."""
    home = tmp_path_factory.mktemp("whole")
    assert run_process(home) == 0
    result = files(home)
    assert sum("epoch=" in name for name in result) == EPOCHS + 1 and len(result) == EPOCHS + 4
    return result


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.__name__)
def test_a_killed_run_started_again_gives_the_same_bytes(tmp_path, whole, place):
    assert run_process(tmp_path, place) == -signal.SIGKILL
    (folder,) = (tmp_path / "runs").iterdir()
    run, (written, checkpoint) = RunDir(folder), PLACES[place]
    assert len(list((folder / "trace").glob("*.parquet"))) == written and not run.is_done
    state = run.load_checkpoint()
    assert (state and state["epoch"]) == checkpoint
    (tmp_path / "log.txt").unlink(missing_ok=True)
    assert run_process(tmp_path) == 0
    first = 0 if checkpoint is None else checkpoint + 1
    assert epochs_logged(tmp_path) == list(range(first, EPOCHS + 1))  # no more than was lost
    assert files(tmp_path) == whole
    assert run.is_done and run.metrics["epoch"].tolist() == list(range(EPOCHS + 1))
    assert not list(folder.rglob("*.tmp")) and not (folder / "checkpoint.pt").exists()


def test_without_a_checkpoint_all_is_computed_again(tmp_path, whole):
    assert run_process(tmp_path, before_the_run_is_marked_as_done, 60.0) == -signal.SIGKILL
    (tmp_path / "log.txt").unlink()
    assert run_process(tmp_path, None, 60.0) == 0
    assert epochs_logged(tmp_path) == list(range(EPOCHS + 1)) and files(tmp_path) == whole


def test_a_terminated_process_leaves_a_checkpoint(tmp_path, whole):
    process = SERVER.Process(target=attempt, args=(tmp_path, None, 60.0))
    process.start()
    deadline = time.monotonic() + 300
    while not epochs_logged(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=300)
    assert process.exitcode == 143
    (folder,) = (tmp_path / "runs").iterdir()
    stopped_at = RunDir(folder).load_checkpoint()["epoch"]
    assert stopped_at == epochs_logged(tmp_path)[-1]
    (tmp_path / "log.txt").unlink()
    assert run_process(tmp_path) == 0
    assert epochs_logged(tmp_path) == list(range(stopped_at + 1, EPOCHS + 1))
    assert files(tmp_path) == whole


@pytest.mark.usefixtures("one_thread")
def test_sigterm_finishes_the_epoch_and_the_run_goes_on_later(tmp_path):
    config, images = make_config(epochs=3), make_images(20, 4)
    whole = train_run(tmp_path / "whole", config, images)
    for at in (0, 2, 3):
        run = start_run(tmp_path / f"at{at}", config, images)

        def stop(row, at=at):
            if row["epoch"] == at:
                os.kill(os.getpid(), signal.SIGTERM)

        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as end:
            train.fine_tune(config, images, run, CPU, amp=False, on_epoch=stop)
        assert end.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
        assert run.progress() == f"epoch {at}" and run.load_checkpoint()["epoch"] == at
        rows = []
        train.fine_tune(config, images, run, CPU, amp=False, on_epoch=rows.append)
        assert [r["epoch"] for r in rows] == list(range(at + 1, 4))
        for t in range(4):
            assert run.epoch_file(t).read_bytes() == whole.epoch_file(t).read_bytes()
        logits = "heldout_logits.parquet"
        assert (run.folder / logits).read_bytes() == (whole.folder / logits).read_bytes()


@pytest.mark.usefixtures("one_thread")
def test_sigterm_is_handled_as_before_afterwards_and_the_second_time():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:
        with train.sigterm_noted() as stopped:
            assert stopped == [] and calls == []
            signal.raise_signal(signal.SIGTERM)
            assert stopped == [signal.SIGTERM] and calls == []
            signal.raise_signal(signal.SIGTERM)
            assert len(stopped) == 1 and calls == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(calls) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("one_thread")
def test_training_off_the_main_thread_leaves_signals_alone(tmp_path):
    config, images, failed = make_config(epochs=1), make_images(20, 4), []

    def work():
        try:
            train_run(tmp_path / "key", config, images)
        except BaseException as error:
            failed.append(error)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == [] and (tmp_path / "key" / "done.json").is_file()
    assert signal.getsignal(signal.SIGTERM) is before
