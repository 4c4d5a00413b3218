"""What is damaged is never gone on from: the run starts again, says why, and comes out the same."""

import errno
import io
import json
import os
import resource
import signal
import warnings
import zipfile

import numpy as np
import pytest
import torch
from conftest import CPU, make_config, make_images, start_run, train_run

from retention_lib import rundir, train
from retention_lib.lock import digest
from retention_lib.rundir import RunDir

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = make_config(epochs=3, warmup_epochs=1, lr=1e-3)


@pytest.fixture(scope="module")
def images():
    return make_images(n_train=20, n_val=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """The files of a run that nothing happened to."""
    return trace(train_run(tmp_path_factory.mktemp("whole"), CONFIG, images))


def trace(run: RunDir) -> dict[str, bytes]:
    return {str(f.relative_to(run.folder)): f.read_bytes() for f in run.folder.rglob("*.parquet")}


@pytest.fixture
def stopped(tmp_path, images) -> RunDir:
    """A run that was stopped after epoch 2, with a checkpoint of that epoch."""
    run = start_run(tmp_path / "key", CONFIG, images)

    def stop(row):
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train.fine_tune(CONFIG, images, run, CPU, amp=False, on_epoch=stop)
    return RunDir(run.folder)


def go_on(run: RunDir, images) -> list[int]:
    """Finish a run as a new process would; returns the epochs that were computed."""
    run, rows = start_run(run.folder, CONFIG, images), []
    train.fine_tune(CONFIG, images, run, CPU, amp=False, on_epoch=rows.append)
    run.finish({"seconds": 1.0})
    assert run.metrics["epoch"].tolist() == [0, 1, 2, 3]
    return [row["epoch"] for row in rows]


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def break_last_line(path):
    path.write_bytes(path.read_bytes()[:-30] + b"\n")


def replace_by_another_epoch(path):
    path.write_bytes(path.with_name("epoch=000.parquet").read_bytes())


DAMAGE = [
    *[(f, "trace/epoch=001.parquet") for f in (cut, flip, lose, empty, replace_by_another_epoch)],
    *[(f, "checkpoint.pt") for f in (cut, flip, empty)],
    *[(f, "metrics.jsonl") for f in (lose, empty, break_last_line)],
]


def test_without_damage_it_goes_on(stopped, images, whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert go_on(stopped, images) == [3]
    assert trace(stopped) == whole


@pytest.mark.parametrize(("how", "name"), DAMAGE, ids=lambda x: getattr(x, "__name__", x))
def test_a_damaged_file_is_named_and_the_run_starts_again(stopped, images, whole, how, name):
    how(stopped.folder / name)
    told = rf"{name} is (damaged|missing)\. The run starts again from epoch 0"
    with pytest.warns(UserWarning, match=told):
        assert go_on(stopped, images) == [0, 1, 2, 3]
    assert trace(stopped) == whole and not (stopped.folder / "checkpoint.pt").exists()


def test_a_damaged_sample_table_is_written_again(stopped, images, whole):
    cut(stopped.folder / "samples.parquet")
    with pytest.raises(ValueError, match=r"samples.parquet is damaged .*capture the run again"):
        _ = stopped.samples
    assert go_on(stopped, images) == [3] and trace(stopped) == whole


def test_images_that_changed_are_another_run(stopped, images):
    changed = images.samples.copy()
    changed.loc[5, "content_hash"] = "f" * 16
    header = stopped.header
    with pytest.raises(ValueError, match=r"holds another run \(contents of 1 images, first '"):
        RunDir(stopped.folder).create(header, changed)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"PAR1"])
def test_broken_settings_are_named(stopped, images, content):
    (stopped.folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json is damaged .*move the run's folder away"):
        start_run(stopped.folder, CONFIG, images)


def test_a_checkpoint_of_another_version_or_run_is_not_used(stopped, images, whole, monkeypatch):
    path = stopped.folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for changed in ({"schema": 7}, {"torch": "1.0"}, {"config": "00"}):
        torch.save({**state, "made": {**state["made"], **changed}}, path)
        with pytest.raises(ValueError, match=r"was made by .*, this is ") as told:
            stopped.load_checkpoint()
        (name, value), now = *changed.items(), state["made"]
        assert f"{name!r}: {value!r}" in str(told.value)
        assert f"{name!r}: {now[name]!r}" in str(told.value)
    del state["made"]  # as before versions were written down
    torch.save(state, path)
    with pytest.warns(UserWarning, match=r"made by None.* starts again from epoch 0"):
        assert go_on(stopped, images) == [0, 1, 2, 3]
    assert trace(stopped) == whole


def test_an_archive_that_is_no_checkpoint(stopped):
    with zipfile.ZipFile(stopped.folder / "checkpoint.pt", "w") as zipped:
        zipped.writestr("a.txt", "a")
    with pytest.raises(ValueError, match=r"checkpoint.pt is no checkpoint"):
        stopped.load_checkpoint()


@pytest.mark.parametrize(
    ("limit", "checkpoint_seconds", "fails", "computed"),
    [
        (500, 60.0, "trace/epoch=002.parquet", [0, 1, 2, 3]),
        (50_000, 0.0, "checkpoint.pt", [1, 2, 3]),
    ],
)
def test_a_full_disk_keeps_what_is_finished(
    tmp_path, images, whole, monkeypatch, limit, checkpoint_seconds, fails, computed
):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", checkpoint_seconds)
    run = start_run(tmp_path / "key", CONFIG, images)
    sizes = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row):
        if row["epoch"] == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, sizes[1]))

    try:
        with pytest.raises(OSError, match=r"make room or raise the limit and start again") as told:
            train.fine_tune(CONFIG, images, run, CPU, amp=False, on_epoch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, sizes)
    assert told.value.errno == errno.EFBIG and told.value.filename == str(run.folder / fails)
    kept = trace(run)
    assert {f"trace/epoch=00{t}.parquet" for t in (0, 1)} < {*kept}
    assert all(whole[name] == content for name, content in kept.items())
    assert not [*run.folder.rglob("*.tmp")]
    assert go_on(run, images) == computed and trace(run) == whole


@pytest.mark.parametrize("view", ["clean", "online"])
def test_a_loss_that_is_not_finite_is_never_written(stopped, images, monkeypatch, view):
    kept = trace(stopped)
    name = {"clean": "clean_pass", "online": "train_epoch"}[view]
    function = getattr(train, name)

    def poisoned(*args):
        seen, other = function(*args)
        seen["loss"][images.rows("train")[3]] = np.nan
        return seen, other

    monkeypatch.setattr(train, name, poisoned)
    with pytest.raises(FloatingPointError, match=r"not finite at epoch 3 of key: lower lr"):
        go_on(stopped, images)
    assert trace(stopped) == kept and not stopped.is_done
    assert stopped.load_checkpoint()["epoch"] == 2
    monkeypatch.setattr(train, name, function)
    assert go_on(stopped, images) == [3]


def test_checksums_are_those_of_the_files(stopped, images):
    go_on(stopped, images)
    done = json.loads((stopped.folder / "done.json").read_text())
    assert done["checksums"] == {name: digest(data) for name, data in trace(stopped).items()}


def test_a_write_that_fails_for_another_reason_is_that_error(tmp_path, monkeypatch):
    (tmp_path / "trace").mkdir()

    def confused(state, file: io.BufferedWriter):
        file.write(b"half")
        raise RuntimeError("unexpected")

    monkeypatch.setattr(rundir.torch, "save", confused)
    with pytest.raises(RuntimeError, match="unexpected"):
        RunDir(tmp_path).save_checkpoint({"epoch": 1})
    assert [f.name for f in tmp_path.iterdir()] == ["trace"]
