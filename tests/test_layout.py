"""The repository's own rules: what lies at the top, reasons for dependencies, sizes, imports."""

import re
import subprocess
import sys

import yaml

from retention_lib import paths

ROOT = paths.ROOT


def _tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split()]


def test_every_dependency_has_its_reason():
    lines = [x for x in (ROOT / "requirements.txt").read_text().splitlines() if x[:1] not in "# "]
    assert len(lines) >= 15
    assert [x for x in lines if not re.fullmatch(r"[a-z0-9-]+[=<>][^#]+# \S.{3,}", x)] == []


def test_conda_environment_installs_the_same_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    assert any(str(d).startswith("python=3.1") for d in environment["dependencies"])


def test_no_tracked_file_is_large_and_weights_are_small():
    assert [f.name for f in _tracked() if f.is_file() and f.stat().st_size > 5e6] == []
    weights = list(paths.PACKAGED_WEIGHTS.glob("*.safetensors"))
    assert len(weights) == 2 and all(f.stat().st_size < 3_000_000 for f in weights)


def test_capturing_and_fitting_import_no_analysis_package():
    code = (
        "import sys, retention_lib.study, retention_lib.decay, retention_lib.forgetting;"
        "print([m for m in ('seaborn', 'matplotlib', 'statsmodels', 'pingouin', 'papermill',"
        " 'nbformat') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
