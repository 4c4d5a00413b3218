"""The command line: options become studies, requests that cannot be met end with status 2."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from retention_lib.__main__ import build_parser, main, parse_settings, study_from
from retention_lib.config import profile


def _study(*words):
    return study_from(build_parser().parse_args(["status", *words]))


def test_settings_get_the_types_of_their_fields():
    fields = parse_settings(["lr=1e-3", "epochs=5", "flip=False", "n_train=None", "weights=none"])
    assert fields == {"lr": 1e-3, "epochs": 5, "flip": False, "n_train": None, "weights": "none"}
    assert [type(v) for v in fields.values()] == [float, int, bool, type(None), str]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epochs", "needs NAME=VALUE, got 'epochs'"),
        ("epoch=3", "did you mean 'epochs'"),
        ("epochs=three", "must be int, got 'three'"),
        ("flip=yes", "must be True or False, got 'yes'"),
    ],
)
def test_wrong_settings_say_what_is_wrong(word, message):
    with pytest.raises(ValueError, match=message):
        parse_settings([word])


def test_a_profile_can_be_narrowed():
    study = _study("--profile", "phantom", "--datasets", "phantom_oct", "--seeds", "1", "2")
    assert [(c.dataset, c.arch, c.seed) for c in study.configs()] == [
        ("phantom_oct", arch, seed)
        for arch in ("phantom_resnet18", "phantom_deit")
        for seed in (1, 2)
    ]
    assert {c.n_train for c in study.configs()} == {profile("phantom").study.base["n_train"]}


def test_a_study_without_a_profile_needs_data_and_models(capsys):
    assert main(["status", "--archs", "resnet18"]) == 2
    assert "--datasets" in capsys.readouterr().err


def test_errors_are_one_line_and_status_two(capsys):
    words = ["status", "--profile", "phantom", "--datasets", "octdl", "--set", "n_train=5"]
    assert main([*words[:-1], "lr=-1"]) == 2
    told = capsys.readouterr().err.strip()
    assert told.endswith("RunConfig.lr must be between 0 and 10, got -1.0")


def test_capture_of_a_folder_from_the_command_line(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(level - 30, level + 30, (24, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    monkeypatch.setenv("RETENTION_HOME", str(tmp_path))
    words = ["--datasets", f"folder:{tmp_path / 'images'}", "--archs", "phantom_resnet18"]
    words += ["--set", "input_size=32", "epochs=2", "weights=none", "warmup_epochs=3"]
    assert main(["capture", *words]) == 0
    out = capsys.readouterr().out
    assert out.count("epoch ") == 3 and "0 runs found, 1 captured" in out
    assert main(["capture", *words]) == 0
    assert "1 runs found, 0 captured" in capsys.readouterr().out
    assert main(["status", *words]) == 0
    assert "done" in capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("folder-phantom_resnet18-s0-")
    assert len(list((run / "trace").glob("epoch=*.parquet"))) == 3


@pytest.mark.parametrize("command", ["capture", "status", "reproduce", "report", "pretrain"])
def test_every_command_has_help(command):
    done = subprocess.run(
        [sys.executable, "-m", "retention_lib", command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and f"usage: retention {command}" in done.stdout
