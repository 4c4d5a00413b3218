"""Short runs on the real data with real weights: they run, and start far above chance."""

import os

import pytest

from retention_lib import paths, study
from retention_lib.config import RunConfig
from retention_lib.rundir import RunDir
from retention_lib.traces import Traces

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not os.environ.get("RETENTION_DATA"),
        reason="RETENTION_DATA does not name a folder with octdl/, CUB_200_2011/ and weights/",
    ),
]


# Chance is 1/7 for the balanced accuracy of OCTDL and 1/50 (or 1/200) for CUB.
@pytest.mark.parametrize(
    ("dataset", "arch", "floor"),
    [("octdl", "resnet18", 0.35), ("cub", "vit_tiny_patch16_224", 0.15)],
)
def test_one_epoch_at_64_pixels(dataset, arch, floor, tmp_path, monkeypatch):
    if not (paths.data_root() / "weights" / f"{arch}.safetensors").is_file():
        pytest.skip(f"{paths.data_root()}/weights has no {arch}.safetensors")
    monkeypatch.setenv("RETENTION_HOME", str(tmp_path))
    config = RunConfig(dataset, arch=arch, input_size=64, epochs=1)
    (folder,) = study.capture_or_load([config])
    metrics = RunDir(folder).metrics
    assert metrics["val_balanced_accuracy"].iloc[0] > floor
    held_out = Traces.from_runs([folder], "val")
    assert held_out.correct().shape == (1, 2, len(held_out.samples))
    assert held_out.correct()[0, 0].mean() == pytest.approx(metrics["val_accuracy"].iloc[0])
    assert study.capture_cost([folder])["bytes_per_sample_epoch"].iloc[0] < 12
