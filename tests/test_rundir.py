"""The run directory: values survive, files are whole, mismatches are told apart, bytes are few."""

import json
import os
import pickle
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_config, start_run
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_lib import lock
from retention_lib.rundir import QUANTITIES, RunDir


def random_view(n, classes=7, seed=0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "predicted": rng.integers(0, classes, n),
        "loss": rng.lognormal(-1, 2, n).astype(np.float32),
        "margin": rng.normal(2, 4, n).astype(np.float32),
    }


def read(run: RunDir, epoch: int) -> dict:
    table = pq.read_table(run.epoch_file(epoch))
    return {name: table.column(name).to_pylist() for name in table.column_names}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "key" / "trace").mkdir(parents=True)
    return RunDir(tmp_path / "key")


def test_values_survive_in_half_precision(run):
    clean, online = random_view(300, seed=1), random_view(300, seed=2)
    shown = np.random.default_rng(3).integers(0, 3, 300)
    run.write_epoch(4, clean, online, shown)
    assert run.epoch_file(4).name == "epoch=004.parquet"
    back = read(run, 4)
    assert list(back) == [f"{v}_{q}" for v in ("clean", "online") for q in QUANTITIES] + ["shown"]
    assert back["shown"] == shown.tolist()
    assert back["clean_predicted"] == clean["predicted"].tolist()
    for name in ("loss", "margin"):
        np.testing.assert_allclose(back[f"clean_{name}"], clean[name], rtol=2**-11, atol=3e-8)
    for name in QUANTITIES:
        stored = back[f"online_{name}"]
        assert [v is None for v in stored] == (shown == 0).tolist()
        kept = [v for v in stored if v is not None]
        np.testing.assert_allclose(kept, online[name][shown > 0], rtol=2**-11, atol=3e-8)


def test_before_fine_tuning_there_is_no_online_view(run):
    run.write_epoch(0, random_view(10), None, np.zeros(10, int))
    back = read(run, 0)
    assert all(back[f"online_{q}"] == [None] * 10 for q in QUANTITIES) and back["shown"] == [0] * 10


@pytest.mark.parametrize(("classes", "kind"), [(256, "uint8"), (257, "uint16"), (70_000, "uint32")])
def test_predicted_is_the_smallest_type_that_holds_it(run, classes, kind):
    view = random_view(50)
    view["predicted"][7] = classes - 1
    run.write_epoch(1, view, view, np.ones(50, int))
    schema = pq.read_table(run.epoch_file(1)).schema
    assert str(schema.field("clean_predicted").type) == kind
    assert str(schema.field("clean_loss").type) == str(schema.field("online_margin").type)
    assert str(schema.field("clean_loss").type) == "halffloat"
    assert read(run, 1)["online_predicted"] == view["predicted"].tolist()


def test_values_beyond_half_precision_are_clipped_not_infinite(run):
    view = random_view(3)
    view["loss"][:], view["margin"][:] = [1e6, 65504, 0], [-1e6, np.inf, -np.inf]
    run.write_epoch(0, view, None, np.zeros(3, int))
    back = read(run, 0)
    assert back["clean_loss"] == [65504, 65504, 0]
    assert back["clean_margin"] == [-65504, 65504, -65504]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_any_presentation_counts_survive(tmp_path_factory, shown, seed):
    run = RunDir(tmp_path_factory.mktemp("any"))
    (run.folder / "trace").mkdir()
    shown, view = np.array(shown), random_view(len(shown), 300, seed)
    run.write_epoch(2, view, view, shown)
    back = read(run, 2)
    assert back["shown"] == shown.tolist()
    want = [p if s else None for p, s in zip(view["predicted"].tolist(), shown, strict=True)]
    assert back["online_predicted"] == want


def test_a_failed_write_leaves_the_file_as_it_was(run, monkeypatch):
    run.write_epoch(1, random_view(20, seed=1), None, np.zeros(20, int))
    before = run.epoch_file(1).read_bytes()

    def fail(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "fsync", fail)
        for write in (
            lambda: run.write_epoch(1, random_view(20, seed=2), None, np.zeros(20, int)),
            lambda: run.write_metrics({"epoch": 1}),
            lambda: run.save_checkpoint({"epoch": 1}),
            lambda: run.finish({}),
        ):
            with pytest.raises(OSError, match=r"no space left"):
                write()
    assert run.epoch_file(1).read_bytes() == before
    assert not run.is_done and run.load_checkpoint() is None
    assert [f.name for f in run.folder.iterdir()] == ["trace"]  # nothing half-written is left
    left = run.epoch_file(2).with_name("epoch=002.parquet.tmp")  # as by a process that was killed
    left.write_bytes(b"half")
    assert run.progress() == "epoch 1"  # temporary files do not count
    run.write_epoch(2, random_view(20, seed=2), None, np.zeros(20, int))  # and are overwritten
    left.write_bytes(b"half")
    run.tidy()
    assert sorted(f.name for f in (run.folder / "trace").iterdir()) == [
        "epoch=001.parquet",
        "epoch=002.parquet",
    ]


def test_files_are_flushed_before_they_are_renamed(run, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def flush(fd):
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    monkeypatch.setattr(lock.os, "fsync", flush)
    monkeypatch.setattr(lock.os, "replace", lambda a, b: done.append(b.name) or replace(a, b))
    run.write_epoch(1, random_view(5), None, np.zeros(5, int))
    run.write_metrics({"epoch": 1})
    run.save_checkpoint({"epoch": 1})
    run.finish({})
    names = ["epoch=001.parquet", "metrics.jsonl", "checkpoint.pt", "done.json"]
    assert [x for x in done if x != "folder"] == [x for name in names for x in ("file", name)]
    # What checkpoint and done.json count on has its name on the disk before they have theirs.
    for name in names[2:]:
        assert done[done.index(name) - 3 : done.index(name)] == ["folder", "folder", "file"]
    assert done[-1] == "folder"


def test_samples_and_settings_survive(tmp_path, tiny):
    config = make_config(seed=3, lr=2e-3)
    run = start_run(tmp_path / "key", config, tiny)
    assert run.config == config and run.header["schema"] == 1
    assert run.samples.equals(tiny.samples)
    assert run.progress() == "not started" and not run.is_done


def test_starting_again_keeps_the_first_choices(tmp_path, tiny):
    run = start_run(tmp_path / "key", make_config(), tiny)
    header = {k: v for k, v in run.header.items() if k != "schema"}
    again = run.create({**header, "choices": {"amp": True}}, tiny.samples)
    assert again["choices"] == {} and run.header["choices"] == {}


def test_another_run_in_the_folder_is_named_by_what_differs(tmp_path, tiny):
    run = start_run(tmp_path / "key", make_config(lr=1e-3), tiny)
    stored = (run.folder / "config.json").read_bytes()
    header = {**run.header, "identity": "other/1/ff", "config": make_config(lr=2e-3).to_dict()}
    with pytest.raises(ValueError, match=r"holds another run") as error:
        run.create(header, tiny.samples)
    told = str(error.value)
    assert "config.lr: stored 0.001, now 0.002" in told
    assert f"identity: stored {tiny.identity!r}, now 'other/1/ff'" in told
    assert "epochs" not in told and "classes" not in told  # what agrees is not named
    assert (run.folder / "config.json").read_bytes() == stored


@pytest.mark.parametrize(("name", "now"), [("schema", 2), ("weights", "blake2b:00")])
def test_another_schema_or_other_weights_are_another_run(tmp_path, tiny, name, now):
    run = start_run(tmp_path / "key", make_config(), tiny)
    with pytest.raises(ValueError, match=rf"{name}: stored .*, now {now!r}"):
        run.create({**run.header, name: now}, tiny.samples)


def test_a_folder_may_have_moved(tmp_path, tiny):
    run = start_run(tmp_path / "key", make_config(dataset="folder:/a/pets"), tiny)
    header = {**run.header, "config": make_config(dataset="folder:/b/pets").to_dict()}
    assert run.create(header, tiny.samples)["config"]["dataset"] == "folder:/a/pets"


def test_metrics_of_epochs_computed_again_are_replaced(run):
    for epoch in range(4):
        run.write_metrics({"epoch": epoch, "loss": 1.0})
    run.write_metrics({"epoch": 2, "loss": 5.0})
    assert run.metrics.to_dict("list") == {"epoch": [0, 1, 2], "loss": [1.0, 1.0, 5.0]}
    run.write_metrics({"epoch": 3, "loss": 6.0})
    assert run.metrics["loss"].tolist() == [1.0, 1.0, 5.0, 6.0]


@pytest.mark.parametrize("online", [True, False])
def test_at_most_12_bytes_per_sample_and_epoch(run, online):
    # A data set whose 1,500 samples are all trained on is the hardest case: held-out rows have one
    # view only. Values as in a run: losses spread over decades, 9 of 10 predictions right.
    n, total, epochs = 1500, 0, range(1, 6)
    labels = np.random.default_rng(0).integers(0, 50, n)
    shown = np.ones(n, int) if online else (np.arange(n) % 5 > 0).astype(int)
    for epoch in epochs:
        views = [random_view(n, 50, seed) for seed in (epoch, epoch + 100)]
        for view in views:
            right = view["predicted"] % 10 > 0
            view["predicted"] = np.where(right, labels, view["predicted"])
        run.write_epoch(epoch, *views, shown)
        total += run.epoch_file(epoch).stat().st_size
    assert total / n / len(epochs) <= 12


def test_heldout_logits_are_kept_in_half_precision(run):
    logits = np.random.default_rng(0).normal(0, 5, (30, 4)).astype(np.float32)
    logits[0, 0] = 1e6
    run.write_heldout_logits(logits)
    back = pq.read_table(run.folder / "heldout_logits.parquet").to_pandas().to_numpy()
    np.testing.assert_allclose(back, np.minimum(logits, 65504), rtol=2**-11)


def test_a_checkpoint_survives_and_goes_when_the_run_is_done(run):
    state = {"epoch": 3, "model": {"w": torch.randn(4, 3)}, "optimiser": {"state": {}}}
    run.save_checkpoint(state)
    back = run.load_checkpoint()
    assert back["epoch"] == 3 and torch.equal(back["model"]["w"], state["model"]["w"])
    run.finish({"seconds": 1.5})
    assert run.is_done and run.progress() == "done" and run.load_checkpoint() is None
    assert json.loads((run.folder / "done.json").read_text()) == {"seconds": 1.5}
    assert sorted(f.name for f in run.folder.iterdir()) == ["done.json", "trace"]


class Intruder:
    """A pickle that runs code when it is opened."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (self.target,))


def test_a_checkpoint_with_code_is_refused(run):
    target = str(run.folder / "intruded")
    torch.save({"model": Intruder(target)}, run.folder / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights"):
        run.load_checkpoint()
    assert not os.path.exists(target)


def test_progress_counts_beyond_three_digits(run):
    for epoch in (0, 999, 1000):
        run.write_epoch(epoch, random_view(2), None, np.zeros(2, int))
    assert run.progress() == "epoch 1000" and "epoch 1000" in repr(run)
