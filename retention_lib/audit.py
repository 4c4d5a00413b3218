"""Notebook 99: what the result files say together, and whether they agree with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from retention_lib.intervals import one_row
from retention_lib.report import check_result
from retention_lib.verdicts import PAPER, record

_EMPTY = ["notebook", "profile", "finding", "dataset", "quantity", "estimate", "n", "planted"]


def read_results(folder: Path | str, profiles: list[str]) -> dict[str, list[dict]]:
    """Every valid result file but this notebook's own, profile by profile.

    Raises
    ------
    ValueError
        If a file breaks the schema; names the file and the key.
    """
    return {
        name: [
            check_result(path)
            for path in sorted((Path(folder) / name).glob("[0-9][0-9]_*.json"))
            if not path.stem.startswith("99")
        ]
        for name in dict.fromkeys(profiles)
    }


def findings_of(results: dict[str, list[dict]]) -> pd.DataFrame:
    """All findings of `read_results` below each other, with `notebook` and `profile`."""
    rows = [
        {"notebook": result["notebook"], "profile": profile, **found}
        for profile, of in results.items()
        for result in of
        for found in result["findings"]
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=_EMPTY)


def paper_rows(findings: pd.DataFrame) -> pd.DataFrame:
    """The paper's numbers beside those of the profile `real`, as rows of `plots.interval_rows`.

    Numbers that no result has yet are NaN with n = 0.
    """
    real = findings[findings["profile"] == "real"]
    rows = []
    for (finding, dataset, quantity), known in PAPER.items():
        low, high = known.value if isinstance(known.value, tuple) else (known.value, known.value)
        for name in ("octdl", "cub") if dataset == "*" else (dataset,):
            same = (real[["finding", "dataset", "quantity"]] == [finding, name, quantity]).all(
                axis=1
            )
            row = {"label": f"{known.text}, {name}", "paper": (low + high) / 2, "colour_of": name}
            row |= {"estimate": np.nan, "ci_low": np.nan, "ci_high": np.nan, "n": 0}
            if same.any():
                row |= real.loc[same, ["estimate", "ci_low", "ci_high", "n"]].iloc[0].to_dict()
            rows.append(row)
    table, numbers = pd.DataFrame(rows), ["estimate", "ci_low", "ci_high", "paper"]
    return table.assign(**table[numbers].astype(float))  # JSON's null is None, not NaN


def planted_rows(findings: pd.DataFrame) -> pd.DataFrame:
    """Every finding that has a planted truth beside it, as rows of `plots.interval_rows`."""
    rows = findings[findings["planted"].notna()].copy()
    rows["label"] = [
        f"{quantity}, {dataset}".replace("_", " ")
        for quantity, dataset in zip(rows["quantity"], rows["dataset"], strict=True)
    ]
    rows["colour_of"] = rows["dataset"]
    wanted = ["label", "estimate", "ci_low", "ci_high", "n", "planted", "colour_of"]
    rows = rows.reindex(columns=wanted)
    numbers = ["estimate", "ci_low", "ci_high", "planted"]
    return rows.assign(**rows[numbers].astype(float))


def audit(results: dict[str, list[dict]]) -> pd.DataFrame:
    """Do the result files agree with each other? One row per profile and check.

    Returns
    -------
    DataFrame
        `profile`, `check`, `holds` (bool), `detail`.
    """
    rows = []
    for profile, of in results.items():
        if not of:
            continue
        table = findings_of({profile: of})
        for check, (holds, detail) in {
            "same commit in every result": _one_value(of, "commit"),
            "same package versions": _one_value(of, "versions"),
            "same runs behind notebooks 00 to 05": _same_runs(of),
            "every estimate lies in its own interval": _inside(table),
            "overlap between architectures below its noise ceiling": _below_ceiling(table),
            "misaligned overlap within 0.05 of chance": _misaligned(table),
            "R² of ViT minus R² of CNN is the difference reported": _difference(table),
        }.items():
            rows.append({"profile": profile, "check": check, "holds": holds, "detail": detail})
    return pd.DataFrame(rows, columns=["profile", "check", "holds", "detail"])


def records(checks: pd.DataFrame, is_phantom: bool) -> list[dict]:
    """The share of checks that hold, as the one record of notebook 99."""
    n = len(checks)
    share = checks["holds"].mean() if n else np.nan
    row = one_row(share, np.nan, np.nan, n, np.nan, "share of consistency checks that hold")
    return [record("summary", "phantom" if is_phantom else "real", "consistency", row)]


def _one_value(of: list[dict], key: str) -> tuple[bool, str]:
    values = {str(result[key]) for result in of}
    return len(values) == 1, f"{len(values)} among {len(of)} results"


def _same_runs(of: list[dict]) -> tuple[bool, str]:
    # Notebook 06 compares samplers on runs of its own; a data set not yet run has none.
    shared = [result for result in of if result["notebook"] < "06"]
    sets = {tuple(result["runs"]) for result in shared if result["runs"]}
    return len(sets) <= 1, f"{len(sets)} sets of runs"


def _inside(table: pd.DataFrame) -> tuple[bool, str]:
    known = table.dropna(subset=["estimate", "ci_low"])
    wrong = known[(known["estimate"] < known["ci_low"]) | (known["estimate"] > known["ci_high"])]
    return wrong.empty, _named(wrong, len(known))


def _below_ceiling(table: pd.DataFrame) -> tuple[bool, str]:
    known = table[table["quantity"] == "jaccard"].dropna(subset=["estimate", "ceiling"])
    wrong = known[known["ci_low"] > known["ceiling"]]
    return wrong.empty, _named(wrong, len(known))


def _misaligned(table: pd.DataFrame) -> tuple[bool, str]:
    known = table[table["quantity"] == "jaccard_misaligned"].dropna(subset=["estimate"])
    wrong = known[(known["estimate"] - known["chance"]).abs() > 0.05]
    return wrong.empty, _named(wrong, len(known))


def _difference(table: pd.DataFrame) -> tuple[bool, str]:
    wide = table[table["finding"] == "decay_structure"].pivot_table(
        index="dataset", columns="quantity", values="estimate", aggfunc="first", dropna=False
    )
    if not {"r2_vit", "r2_cnn", "r2_difference"} <= set(wide):
        return True, "not reported"
    gap = wide["r2_vit"].astype(float) - wide["r2_cnn"].astype(float) - wide["r2_difference"]
    worst = gap.astype(float).abs().max()
    return not worst > 1e-8, f"largest deviation {worst:.1g}"


def _named(wrong: pd.DataFrame, n: int) -> str:
    names = ", ".join(f"{d}/{q}" for d, q in zip(wrong.dataset, wrong.quantity, strict=True))
    return names or f"{n} looked at"
