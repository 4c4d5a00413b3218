"""The README is true: its commands exist, its table is the result files', its example runs."""

import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from retention_lib import config, paths, results_table

README = (paths.ROOT / "README.md").read_text()


def test_make_targets_named_in_the_readme_exist():
    named = set(re.findall(r"make ([a-z][a-z-]*)", README)) - {"and"}
    makefile = (paths.ROOT / "Makefile").read_text()
    assert {"reproduce", "test", "help", "lab"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


def test_make_help_lists_every_target_with_a_comment():
    # Under `make test` a nested make would announce the folder it enters.
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True).stdout
    targets = re.findall(r"^([a-z-]+):.*##", (paths.ROOT / "Makefile").read_text(), re.M)
    assert [line.split()[0] for line in shown.splitlines()] == targets


def test_linked_files_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (paths.ROOT / link).is_file()] == []


def test_the_table_is_what_the_result_files_say(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README)
    (tmp_path / "figures").symlink_to(paths.ROOT / "figures")
    results_table.update_readme(copy)
    assert copy.read_text() == README


def test_profiles_and_commands_are_those_of_the_code():
    assert all(f"`{name}`" in README for name in config.PROFILES)
    commands = set(re.findall(r"python -m retention_lib ([a-z]+)", README))
    assert commands <= {"capture", "status", "reproduce", "report", "pretrain"}


def test_the_example_of_a_fit_runs(capsys):
    _, example = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(example, {})
    shown = capsys.readouterr().out
    assert shown.startswith("DecayFit(exponential_floor, bernoulli, 500 traces: ")
    assert "censored" in shown and "decay_high" in shown


@pytest.mark.slow
def test_the_example_on_your_own_data_runs(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        (tmp_path / "my_images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_images" / name / f"{i}.png")
    monkeypatch.setenv("RETENTION_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    example, _ = re.findall(r"```python\n(.*?)```", README, re.S)
    assert '"resnet18", "input_size": 128, "epochs": 10' in example
    small = '"phantom_resnet18", "input_size": 32, "epochs": 2, "weights": "none"'
    exec(example.replace('"resnet18", "input_size": 128, "epochs": 10', small), {})
    shown = capsys.readouterr().out
    assert "2 captured" in shown and "events" in shown and "my_images" not in shown
