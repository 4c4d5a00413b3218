"""The table of results, from the result files alone, and its place in the README."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from retention_lib.report import check_result
from retention_lib.verdicts import PAPER, paper_value

#: What the README's table stands between.
START, END = "<!-- results:begin -->", "<!-- results:end -->"
_REAL = {"octdl": "OCTDL", "cub": "CUB-200-2011"}
_INSTRUMENT = "Instrument check (phantoms)"
_NOT_RUN, _NOTHING = "not yet run", "–"


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
