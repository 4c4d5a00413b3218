"""What was found, in files: figure, plotted numbers, result JSON, and the README table of them."""

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

from retention_lib.verdicts import FINDING, PAPER, check, paper_value, record, verdict

__all__ = [
    "END",
    "PAPER",
    "START",
    "check_result",
    "paper_value",
    "record",
    "save_result",
    "summary_table",
    "to_markdown",
    "update_readme",
    "verdict",
]

#: What the README's table stands between.
START, END = "<!-- results:begin -->", "<!-- results:end -->"
_PACKAGES = ("numpy", "pandas", "scipy", "matplotlib", "torch", "timm")
_REAL = {"octdl": "OCTDL", "cub": "CUB-200-2011"}
_INSTRUMENT = "Instrument check (phantoms)"
_NOT_RUN, _NOTHING = "not yet run", "–"


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
    have changed since; a file that would differ in nothing else is left as it is.
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
    if path.exists():
        old = json.loads(path.read_text())
        if {**old, "commit": None} == {**result, "commit": None}:
            return path
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


def summary_table(folder: Path | str) -> pd.DataFrame:
    """The paper beside the real data sets and the phantoms, from the JSON files alone.

    Parameters
    ----------
    folder : path
        The folder of all profiles' figures; `real` and `phantom` are read.

    Returns
    -------
    DataFrame of str
        One row per number of the paper, then one per planted truth. Real columns say `not yet run`
        where there is no result; the phantoms' column sets the estimate beside what was planted.
    """
    found = {}
    for profile in ("real", "phantom"):
        for path in sorted((Path(folder) / profile).glob("[0-9][0-9]_*.json")):
            for item in check_result(path)["findings"]:
                key = (item["finding"], item["quantity"], item["dataset"])
                if found.setdefault(key, item) is not item and path.stem[:2] != "99":
                    raise ValueError(f"{path}: {key} was already reported by another notebook")
    rows = {(finding, quantity): value.text for (finding, _, quantity), value in PAPER.items()}
    for (finding, quantity, _), item in found.items():
        if item["planted"] is not None:
            rows.setdefault((finding, quantity), f"{finding}: {quantity}".replace("_", " "))
    table = []
    for (finding, quantity), text in rows.items():
        row = {"Finding": text, "Paper": _paper_cell(finding, quantity)}
        for dataset, name in _REAL.items():
            absent = _NOT_RUN if paper_value(finding, dataset, quantity) else _NOTHING
            item = found.get((finding, quantity, dataset))
            row[name] = _real_cell(item) if item else absent
        phantoms = [
            _phantom_cell(item)
            for (f, q, d), item in found.items()
            if (f, q) == (finding, quantity) and d.startswith("phantom")
        ]
        table.append(row | {_INSTRUMENT: "; ".join(phantoms) or _NOT_RUN})
    return pd.DataFrame(table)


def to_markdown(table: pd.DataFrame) -> str:
    """A table of text in GitHub's notation.

    Examples
    --------
    >>> print(to_markdown(pd.DataFrame({"a": ["1"], "b": ["2"]})))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    rows = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(table.columns) + "|", *lines[1:]])


def update_readme(readme: Path | str, folder: Path | str | None = None) -> Path:
    """Render `summary_table` between the two markers of a README; all else is left alone.

    Parameters
    ----------
    readme : path
    folder : path, optional
        The folder of all profiles' figures; default `figures` beside the README.

    Raises
    ------
    ValueError
        Unless each marker is there once, in order.
    """
    readme = Path(readme)
    text = readme.read_text()
    if (text.count(START), text.count(END)) != (1, 1) or text.index(START) > text.index(END):
        raise ValueError(
            f"{readme}: expected {START} and then {END}, once each, "
            f"got {text.count(START)} and {text.count(END)}"
        )
    table = to_markdown(summary_table(readme.parent / "figures" if folder is None else folder))
    before, after = text.partition(START)[0], text.partition(END)[2]
    readme.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}")
    return readme


def _paper_cell(finding: str, quantity: str) -> str:
    """The paper's value for each data set, or for both at once."""
    cells = []
    for dataset, name in {**_REAL, "*": ""}.items():
        if known := PAPER.get((finding, dataset, quantity)):
            ranged = isinstance(known.value, tuple)
            value = " to ".join(f"{v:.2f}" for v in (known.value if ranged else (known.value,)))
            cells.append(f"{value} ({name})" if name else value)
    return ", ".join(cells) or _NOTHING


def _estimate(item: dict) -> str:
    if item["estimate"] is None:
        return f"not estimable (n = {item['n']:,})"
    text = f"{item['estimate']:.2f}"
    if item["ci_low"] is not None:
        text += f" [{item['ci_low']:.2f}, {item['ci_high']:.2f}]"
    return text


def _real_cell(item: dict) -> str:
    if item["n"] == 0:
        return _NOT_RUN
    parts = [f"{_estimate(item)}, n = {item['n']:,}"]
    parts += [f"{k} {item[k]:.2f}" for k in ("chance", "ceiling") if item[k] is not None]
    return ", ".join(parts) + (f": **{item['verdict']}**" if item["verdict"] else "")


def _phantom_cell(item: dict) -> str:
    """Estimate and planted truth of one phantom."""
    planted = "nothing planted" if item["planted"] is None else f"planted {item['planted']:.2f}"
    return f"{item['dataset'].removeprefix('phantom_')} {_estimate(item)} ({planted})"


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
