"""What was found, in files: figure, plotted numbers and result JSON, written and checked."""

from __future__ import annotations

import json
import math
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from retention_lib.verdicts import FINDING, check

_PACKAGES = ("numpy", "pandas", "scipy", "matplotlib", "torch", "timm")


def save_result(
    notebook: str,
    profile: str,
    findings: list[dict] | pd.DataFrame,
    figure,
    data: pd.DataFrame | None,
    configs: list,
    folder: Path | str,
) -> Path:
    """Write `<folder>/<profile>/<notebook>.{png,csv,json}` and return the JSON's path.

    Parameters
    ----------
    notebook : str
        Number and slug, `01_architecture_overlap`.
    profile : str
    findings : list of dict
        Made by `record`.
    figure : matplotlib Figure or None
    data : DataFrame or None
        The plotted numbers.
    configs : list
        Run keys or `RunConfig`s (their `key()` is taken).
    folder : path
        The folder of all profiles' figures.

    Notes
    -----
    No times are written, and numbers have 10 significant digits, so that running again gives the
    same files. `commit` is the last one that touched the library or the notebooks, with `+` if they
    have changed since.
    """
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", notebook):
        raise ValueError(f"notebook must look like '01_architecture_overlap', got {notebook!r}")
    if isinstance(findings, pd.DataFrame):
        findings = findings.to_dict("records")
    result = {
        "notebook": notebook,
        "profile": profile,
        "producer": f"notebooks/{notebook}.ipynb",
        "commit": _commit(),
        "runs": sorted(c if isinstance(c, str) else c.key() for c in configs),
        "versions": {"python": platform.python_version()}
        | {p: metadata.version(p) for p in _PACKAGES},
        "findings": [_plain(f) for f in findings],
    }
    stem = Path(folder) / profile / notebook
    check(result, stem.with_suffix(".json"))
    stem.parent.mkdir(parents=True, exist_ok=True)
    if figure is not None:
        # Software would name the matplotlib version, and nothing else in the file depends on it.
        about = {"Software": None, "Source": result["producer"]}
        figure.savefig(stem.with_suffix(".png"), dpi=200, metadata=about)
    if data is not None:
        data.to_csv(
            stem.with_suffix(".csv"), index=False, float_format="%.10g", lineterminator="\n"
        )
    path = stem.with_suffix(".json")
    path.write_text(json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return path


def check_result(path: Path | str) -> dict:
    """Read a result file and raise a ValueError that names the key which breaks the schema."""
    path = Path(path)
    try:
        result = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    check(result, path)
    return result


def _plain(found: dict) -> dict:
    """Keys in their order, NumPy scalars as Python's, 10 significant digits, NaN as None."""
    return {k: _plain_value(found[k]) for k in sorted(found, key=_place)}


def _place(key: str) -> int:
    return FINDING.index(key) if key in FINDING else len(FINDING)


def _plain_value(value):
    if isinstance(value, tuple | list):
        return [_plain_value(v) for v in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.10g}")
    return value


def _commit() -> str | None:
    """Last commit of library and notebooks, `+` if they have changed since; None without git."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words, "--", "retention_lib", "notebooks"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        last = git("log", "-1", "--format=%H")
        return (last + ("+" if git("status", "--porcelain") else "")) or None
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone
        return None
