"""The grid of runs: found when there, captured when not, the same bytes either way."""

import json
import shutil

import pytest
import torch
from conftest import make_config

from retention_lib import paths, study
from retention_lib.rundir import RunDir

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def configs(*seeds, **changes):
    return [
        make_config(dataset="octdl", seed=s, epochs=1, warmup_epochs=1, **changes) for s in seeds
    ]


def traces(folder) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted((folder / "trace").iterdir())}


def test_runs_are_captured_once_and_then_found(tiny_data, monkeypatch):
    grid, first, second = configs(0, 1), [], []
    folders = study.capture_or_load(grid, CPU, first.append)
    assert folders == [paths.runs() / c.key(tiny_data.identity) for c in grid]
    assert first[-1] == "0 runs found, 2 captured" and len(first) == 1 + 2 * 3
    assert first[0] == f"run 1/2  {folders[0].name}  (not started)"
    assert first[1].startswith("  epoch   0  train ")
    monkeypatch.setattr(study, "capture", None)  # a call would fail
    assert study.capture_or_load(grid, CPU, second.append) == folders
    assert second == ["2 runs found, 0 captured"]


def test_same_settings_same_bytes_other_seed_other_bytes(tiny_data, home, monkeypatch):
    (first,) = study.capture_or_load(configs(0), CPU, print)
    monkeypatch.setenv("RETENTION_HOME", str(home / "elsewhere"))
    second, other = study.capture_or_load(configs(0, 1), CPU, print)
    assert first != second and first.name == second.name
    assert list(traces(first)) == ["epoch=000.parquet", "epoch=001.parquet"]
    assert traces(first) == traces(second)
    assert all(a != b for a, b in zip(traces(second).values(), traces(other).values(), strict=True))
    for name in ("samples.parquet", "config.json", "heldout_logits.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_published_runs_are_used_unless_there_is_an_own_one(tiny_data):
    (config,) = configs(0)
    (own,) = study.capture_or_load([config], CPU, print)
    published = paths.results() / own.name
    shutil.copytree(own, published)
    assert study.find_run(config).folder == own
    shutil.rmtree(own)
    log = []
    assert study.capture_or_load([config], CPU, log.append) == [published]
    assert log == ["1 runs found, 0 captured"] and not paths.runs().joinpath(own.name).exists()
    (published / "done.json").unlink()  # a half-published run is none
    assert study.find_run(config).folder == own


def test_a_done_run_says_how_it_was_made(tiny_data):
    (folder,) = study.capture_or_load(configs(0), CPU, print)
    done = json.loads((folder / "done.json").read_text())
    assert (done["device"], done["dtype"], done["threads"]) == ("cpu", "float32", 1)
    assert done["versions"]["torch"] == torch.__version__.partition("+")[0] and done["seconds"] >= 0
    header = json.loads((folder / "config.json").read_text())
    assert header["weights"] == "random" and header["choices"] == {"amp": False}
    assert header["identity"] == tiny_data.identity and header["schema"] == 1
    assert not (folder / "checkpoint.pt").exists()


def test_an_unfinished_run_with_other_weights_is_refused(tiny_data, monkeypatch):
    (config,) = configs(0)
    (folder,) = study.capture_or_load([config], CPU, print)
    (folder / "done.json").unlink()
    monkeypatch.setattr(study.models, "weights_fingerprint", lambda *args: "blake2b:77")
    with pytest.raises(ValueError, match=r"weights: stored 'random', now 'blake2b:77'"):
        study.capture_or_load([config], CPU, print)


def test_stored_choices_are_reused_on_resume(tiny_data, monkeypatch):
    (config,) = configs(0)
    (folder,) = study.capture_or_load([config], CPU, print)
    (folder / "done.json").unlink()
    used = []
    monkeypatch.setattr(study, "resolve_amp", lambda *args: True)  # another machine's rule
    monkeypatch.setattr(study, "fine_tune", lambda c, i, r, d, amp, on_epoch: used.append(amp))
    study.capture_or_load([config], CPU, print)
    assert used == [False]
    assert json.loads((folder / "done.json").read_text())["dtype"] == "float32"


def test_status_says_which_runs_exist(tiny_data):
    done, published, half, absent = grid = configs(0, 1, 2, 3)
    folders = study.capture_or_load(grid[:3], CPU, print)
    paths.results().mkdir()
    shutil.move(folders[1], paths.results())
    (folders[2] / "done.json").unlink()
    (folders[2] / "trace" / "epoch=001.parquet").unlink()
    table = study.status(grid)
    assert table["progress"].tolist() == ["done", "done", "epoch 0", "not started"]
    assert table["place"].tolist() == ["runs", "results", "runs", "-"]
    assert table["seed"].tolist() == [0, 1, 2, 3]
    assert table["key"].tolist() == [
        c.key(tiny_data.identity) for c in (done, published, half, absent)
    ]
    assert not paths.runs().joinpath(table["key"][3]).exists()  # asking creates nothing


def test_capture_cost_counts_bytes_and_seconds(tiny_data):
    (folder,) = folders = study.capture_or_load(configs(0), CPU, print)
    metrics = RunDir(folder).metrics
    (row,) = study.capture_cost(folders).to_dict("records")
    size = sum(len(b) for b in traces(folder).values())
    assert row["bytes_per_sample_epoch"] == pytest.approx(size / 2 / 96)
    assert row["train_seconds_per_epoch"] == metrics["train_seconds"][1]
    assert row["clean_seconds_per_epoch"] == pytest.approx(metrics["clean_seconds"].mean())
    assert (row["dataset"], row["arch"], row["seed"]) == ("octdl", "phantom_resnet18", 0)


def test_traces_of_one_data_set(tiny_data):
    grid = configs(0, 1)
    traces = study.load_traces(grid, "octdl", log=print)
    assert traces.loss().shape == (2, 2, 72) and traces.runs["seed"].tolist() == [0, 1]
    assert study.load_traces(grid, "octdl", "val", log=print).loss().shape == (2, 2, 24)
    with pytest.raises(ValueError, match=r"no run of 'cub' .* they have \['octdl'\]"):
        study.load_traces(grid, "cub")


def test_deterministic_kernels_are_restored():
    before = torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError), study._deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert torch.are_deterministic_algorithms_enabled() == before
