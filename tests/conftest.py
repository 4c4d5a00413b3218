"""Shared fixtures: a tiny learnable image set, a home of its own, one thread for byte identity."""

from __future__ import annotations

import os

# One thread in each worker, before torch counts the cores: two workers share two of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from retention_lib import data, style, train
from retention_lib.config import RunConfig
from retention_lib.data.imageset import ImageSet, sample_ids
from retention_lib.rundir import RunDir
from retention_lib.session import Session, open_session

CPU = torch.device("cpu")


def make_images(n_train=72, n_val=24, classes=4, size=32, seed=0) -> ImageSet:
    """Coloured noise: the hue says the class, a tenth of the labels is swapped."""
    rng = np.random.default_rng(seed)
    n = n_train + n_val
    true = np.arange(n) % classes
    noisy = rng.random(n) < 0.1
    label = np.where(noisy, (true + 1) % classes, true)
    colour = 128 + 40 * np.cos(2 * np.pi * (true[:, None] / classes + np.arange(3) / 3))
    pixels = colour[:, None, None, :] + rng.normal(0, 45, (n, size, size, 3))
    split = np.array(["train"] * n_train + ["val"] * n_val)[rng.permutation(n)]
    paths = [f"class_{true[i]}/image_{i:04d}.png" for i in range(n)]
    samples = pd.DataFrame(
        {
            "sample_id": sample_ids(paths),
            "path": paths,
            "label": label.astype(np.int64),
            "split": split,
            "group": [f"patient_{i // 3}" for i in range(n)],
            "content_hash": [f"{i:016x}" for i in range(n)],
            "file_bytes": np.full(n, 3 * size * size),
            "planted_noisy": noisy,
        }
    )
    names = tuple(f"class_{c}" for c in range(classes))
    return ImageSet("tiny", f"n={n_train}", names, samples, pixels.clip(0, 255).astype(np.uint8))


def make_config(**changes) -> RunConfig:
    """A run of a second or two: a narrow ResNet-18 from random weights at 32 px, float32."""
    fields = {
        "dataset": "folder:tiny",
        "arch": "phantom_resnet18",
        "input_size": 32,
        "weights": "none",
        "warmup_epochs": 3,
        "epochs": 2,
        "batch_size": 16,
        "amp": "off",
    }
    return RunConfig.from_dict({**fields, **changes})


def make_session(config: RunConfig, images: ImageSet) -> Session:
    return open_session(config, images, CPU, amp=False)


def start_run(folder, config: RunConfig, images: ImageSet) -> RunDir:
    """A run directory with its header, as `study.capture` starts it."""
    run = RunDir(folder)
    header = {"config": config.to_dict(), "identity": images.identity}
    run.create({**header, "classes": list(images.classes), "choices": {}}, images.samples)
    return run


def train_run(folder, config: RunConfig, images: ImageSet) -> RunDir:
    """A finished run."""
    run = start_run(folder, config, images)
    train.fine_tune(config, images, run, CPU, amp=False)
    run.finish({"seconds": 1.0})
    return run


@pytest.fixture(scope="session")
def tiny() -> ImageSet:
    """72 training and 24 held-out images of 32 px in 4 classes."""
    return make_images()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A RETENTION_HOME of its own, without runs, results or cache."""
    monkeypatch.setenv("RETENTION_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def tiny_data(home, tiny, monkeypatch):
    """Every configuration's data set is the tiny one."""
    monkeypatch.setattr(data, "load", lambda config: tiny)
    monkeypatch.setattr(data, "identity", lambda config: tiny.identity)
    return tiny


@pytest.fixture
def one_thread():
    """Byte identity holds for one thread count; one is the quickest here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ax():
    """Axes in the house style, drawn at the end: some mistakes fail only then."""
    figure, axes = style.new_figure()
    yield axes[0, 0]
    figure.canvas.draw()
    plt.close(figure)
