"""The aligned cube: values in their places, and no alignment of runs that differ."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import make_config, make_images, start_run

from retention_lib.traces import Traces

EPOCHS = 3


def written_run(folder, images, seed=0, epochs=EPOCHS, arch="phantom_resnet18", finish=True):
    """A run whose values say where they belong: loss = seed + epoch / 8 + row / 1024."""
    run = start_run(folder, make_config(seed=seed, epochs=epochs, arch=arch), images)
    n = len(images.samples)
    label = images.samples["label"].to_numpy()
    train = (images.samples["split"] == "train").to_numpy()
    for t in range(epochs + 1):
        loss = seed + t / 8 + np.arange(n) / 1024
        clean = {"predicted": (label + (np.arange(n) % 5 == t)) % 4, "loss": loss, "margin": -loss}
        online = {"predicted": label, "loss": loss + 8, "margin": -loss - 8} if t else None
        shown = train & (np.arange(n) % 7 != t) if t else np.zeros(n, bool)
        run.write_epoch(t, clean, online, shown.astype(int))
    if finish:
        run.finish({"seconds": 1.0})
    return run.folder


def forget_checksums(folder):
    """As runs are that are older than checksums, which would notice any change first."""
    done = json.loads((folder / "done.json").read_text())
    assert done.pop("checksums")
    (folder / "done.json").write_text(json.dumps(done))


@pytest.fixture(scope="module")
def images():
    return make_images(n_train=40, n_val=12)


@pytest.fixture
def folders(tmp_path, images):
    return [
        written_run(tmp_path / "a", images, seed=0),
        written_run(tmp_path / "b", images, seed=1),
        written_run(tmp_path / "c", images, seed=1, arch="phantom_deit"),
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_value_lies_at_its_run_epoch_and_sample(folders, images, split):
    traces = Traces.from_runs(folders, split)
    rows = images.rows(split)
    assert traces.loss().shape == (3, EPOCHS + 1, len(rows)) and traces.epochs.tolist() == [
        0,
        1,
        2,
        3,
    ]
    assert traces.samples["sample_id"].tolist() == images.samples["sample_id"].iloc[rows].tolist()
    seeds = np.array([0, 1, 1])[:, None, None]
    want = seeds + np.arange(4)[None, :, None] / 8 + rows / 1024
    np.testing.assert_allclose(traces.loss(), want, rtol=2**-11, atol=1e-7)
    np.testing.assert_allclose(traces.margin(), -want, rtol=2**-11, atol=1e-7)
    wrong = (rows % 5)[None, :] == np.arange(4)[:, None]
    np.testing.assert_array_equal(traces.correct(), np.broadcast_to(~wrong, traces.correct().shape))
    assert traces.classes == images.classes and list(traces.labels) == list(
        images.samples.label[rows]
    )


def test_nothing_is_told_of_samples_that_were_not_shown(folders, images):
    traces = Traces.from_runs(folders)
    rows = images.rows("train")
    hidden = np.stack([np.ones(len(rows), bool), *((rows % 7 == t) for t in (1, 2, 3))])
    hidden = np.broadcast_to(hidden, traces.shown("online").shape)
    np.testing.assert_array_equal(traces.shown("online"), ~hidden)
    np.testing.assert_array_equal(traces.predicted("online") == -1, hidden)
    np.testing.assert_array_equal(np.isnan(traces.loss("online")), hidden)
    np.testing.assert_array_equal(np.isnan(traces.margin("online")), hidden)
    np.testing.assert_array_equal(traces.correct("online"), ~hidden)  # the twin is always right
    want = np.array([0, 1, 1])[:, None, None] + np.arange(4)[None, :, None] / 8 + rows / 1024 + 8
    np.testing.assert_allclose(traces.loss("online")[~hidden], want[~hidden], rtol=2**-11)


def test_held_out_samples_have_no_online_view(folders):
    traces = Traces.from_runs(folders, "val")
    assert not traces.shown("online").any() and traces.shown("clean").all()
    assert np.isnan(traces.loss("online")).all() and (traces.predicted("online") == -1).all()


def test_values_are_small_in_memory_and_wide_enough_in_use(folders):
    traces = Traces.from_runs(folders)
    assert {q: str(a.dtype) for q, a in traces.clean.items()} == {
        "predicted": "int32",
        "loss": "float16",
        "margin": "float16",
    }
    assert traces.loss().dtype == traces.margin().dtype == np.float32
    assert traces.correct().dtype == bool


def test_select_keeps_runs_by_their_columns(folders):
    traces = Traces.from_runs(folders)
    assert traces.runs.to_dict("list") == {
        "dataset": ["folder:tiny"] * 3,
        "arch": ["phantom_resnet18"] * 2 + ["phantom_deit"],
        "seed": [0, 1, 1],
        "sampler": ["uniform"] * 3,
        "key": ["a", "b", "c"],
    }
    assert traces.select(arch="phantom_resnet18", seed=1).runs["key"].tolist() == ["b"]
    both = traces.select(key=["c", "a"])
    assert both.runs["key"].tolist() == ["a", "c"] and both.runs.index.tolist() == [0, 1]
    np.testing.assert_array_equal(both.loss(), traces.loss()[[0, 2]])
    np.testing.assert_array_equal(both.loss("online"), traces.loss("online")[[0, 2]])
    with pytest.raises(ValueError, match=r"no run has {'seed': 5}"):
        traces.select(seed=5)
    with pytest.raises(ValueError, match=r"no column 'architecture'; they have .*'arch'"):
        traces.select(architecture="x")


def test_unknown_views_and_splits_are_refused(folders):
    with pytest.raises(ValueError, match=r"split must be one of .*'val'.*, got 'test'"):
        Traces.from_runs(folders, "test")
    with pytest.raises(ValueError, match=r"view must be one of .*'online'.*, got 'train'"):
        Traces.from_runs(folders).loss("train")


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match=r"at least one run directory, got none"):
        Traces.from_runs([])


def test_an_unfinished_run_is_refused(tmp_path, images, folders):
    half = written_run(tmp_path / "half", images, epochs=2, finish=False)
    with pytest.raises(ValueError, match=r"run half is not finished \(epoch 2\)"):
        Traces.from_runs([*folders, half])


def test_other_data_is_refused_with_both_identities(tmp_path, images, folders):
    other = make_images(n_train=41, n_val=12)
    with pytest.raises(ValueError, match=r"differ in data set and split") as error:
        Traces.from_runs([folders[0], written_run(tmp_path / "other", other)])
    assert repr(images.identity) in str(error.value) and repr(other.identity) in str(error.value)


def test_another_number_of_epochs_is_refused_with_both(tmp_path, images, folders):
    longer = written_run(tmp_path / "longer", images, epochs=5)
    with pytest.raises(ValueError, match=r"differ in epochs .*: a has 3, longer has 5"):
        Traces.from_runs([folders[0], longer])


def test_permuted_samples_are_refused_with_both_ids(folders):
    path = folders[1] / "samples.parquet"
    samples = pd.read_parquet(path)
    order = np.arange(len(samples))
    order[[3, 30]] = order[[30, 3]]
    samples.iloc[order].reset_index(drop=True).to_parquet(path)
    with pytest.raises(ValueError, match=r"samples.parquet is damaged"):
        Traces.from_runs(folders)
    forget_checksums(folders[1])
    with pytest.raises(ValueError, match=r"differ in sample_id of row 3") as error:
        Traces.from_runs(folders)
    assert samples["sample_id"][3] in str(error.value) and samples["sample_id"][30] in str(
        error.value
    )


def test_lost_samples_and_lost_epochs_are_refused(folders):
    (folders[2] / "trace" / "epoch=002.parquet").unlink()
    with pytest.raises(ValueError, match=r"epoch=002.parquet is missing"):
        Traces.from_runs(folders)
    path = folders[1] / "samples.parquet"
    pd.read_parquet(path).iloc[:-1].to_parquet(path)
    forget_checksums(folders[1])
    with pytest.raises(ValueError, match=r"number of samples .*: a has 52, b has 51"):
        Traces.from_runs(folders)


def test_a_trace_file_of_another_length_is_refused(tmp_path, folders):
    small = written_run(tmp_path / "small", make_images(n_train=30, n_val=12))
    file = "trace/epoch=001.parquet"
    (folders[0] / file).write_bytes((small / file).read_bytes())
    with pytest.raises(ValueError, match=r"epoch=001.parquet has 42 rows, expected 52"):
        Traces.from_runs(folders)


def test_the_folder_of_a_data_set_may_differ(tmp_path, images, folders):
    moved = written_run(tmp_path / "moved", images)
    header = json.loads((moved / "config.json").read_text())
    header["config"]["dataset"] = "folder:/elsewhere"
    (moved / "config.json").write_text(json.dumps(header))
    assert len(Traces.from_runs([folders[0], moved]).runs) == 2
