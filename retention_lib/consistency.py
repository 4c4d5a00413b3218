"""Notebook 99: do the findings fit together, and which of them survive a common error rate?

Works on result files alone. What a file must hold for it is recorded by notebook 05.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from retention_lib.config import HEADLINE_TESTS
from retention_lib.early_predictors import decay_constants, early_loss
from retention_lib.headlines import kind_of
from retention_lib.implied import INGREDIENTS, implied_by, implied_seed_correlation, ingredients
from retention_lib.intervals import bootstrap, holm, one_row
from retention_lib.resampled import units
from retention_lib.traces import Traces
from retention_lib.verdicts import PAPER, record

_FINDING = "consistency"
#: The paper's seed correlation is given to two digits.
_ROUNDED = 0.005


def study_ingredients(traces: Traces) -> pd.DataFrame:
    """`implied.ingredients` of early loss and `literal` decay constants, per architecture."""
    measured = (early_loss(traces), decay_constants(traces))
    return ingredients(*measured, traces.runs, traces.labels)


def study_excess(traces: Traces, rng: np.random.Generator, draws: int = 100) -> pd.DataFrame:
    """By how much implied correlations exceed the largest measured one, with intervals.

    A top tenth of a few hundred images is few images: what overlaps there by luck is no
    contradiction. Groups are redrawn within classes, for both sides at once.

    Returns
    -------
    DataFrame
        `intervals.bootstrap` per `arch` and `finding` (of `implied.implied_seed_correlation`).
    """
    loss, constants, labels = early_loss(traces), decay_constants(traces), traces.labels

    def statistic(rows):
        given = loss[:, rows], constants[:, rows], traces.runs, labels[rows]
        found = implied_by(ingredients(*given))
        excess = found["implied_low"] - found["measured_high"]
        return dict(zip(found["arch"] + "|" + found["finding"].astype(str), excess, strict=True))

    table = bootstrap(statistic, units(traces.samples), labels, rng, draws)
    parts = table.pop("quantity").str.split("|", expand=True)
    table.insert(0, "arch", parts[0])
    table.insert(1, "finding", parts[1])
    return table


def ingredient_records(
    table: pd.DataFrame, excess: pd.DataFrame, scales: dict[str, str], n: dict[str, int]
) -> list:
    """Records that carry `study_ingredients` and `study_excess` to notebook 99.

    Parameters
    ----------
    table, excess : DataFrame
        Rows of `study_ingredients` and of `study_excess` with `dataset`.
    scales : dict
        Data set -> scale, None where nothing was run.
    n : dict
        Data set -> number of samples.
    """
    found = []
    for dataset, scale in scales.items():
        if scale is None:
            continue
        for _, row in table[table["dataset"] == dataset].iterrows():
            kind = kind_of(row["arch"])
            for name in INGREDIENTS:
                one = one_row(row[name], math.nan, math.nan, n[dataset], math.nan, "mean over runs")
                found.append(record(_FINDING, dataset, f"{name}_{kind}", one, scale=scale))
            ends = (row["measured_low"], row["measured_high"])
            middle = one_row(np.mean(ends), *ends, n[dataset], math.nan, "least and largest pair")
            found.append(record(_FINDING, dataset, f"measured_{kind}", middle, scale=scale))
        for _, row in excess[excess["dataset"] == dataset].iterrows():
            quantity = _excess_of(row["finding"], kind_of(row["arch"]))
            found.append(record(_FINDING, dataset, quantity, row, scale=scale))
    return found


def _excess_of(finding, kind: str) -> str:
    """Name of the record that says by how much a finding implies more than was measured."""
    return f"excess_of_{finding}_{kind}".replace(" ", "_")


def implied_table(findings: pd.DataFrame) -> pd.DataFrame:
    """The correlation across seeds that findings 1, 4 and 5 imply, from recorded ingredients.

    Parameters
    ----------
    findings : DataFrame
        Of `audit.findings_of`.

    Returns
    -------
    DataFrame
        Rows of `implied.implied_seed_correlation` with `profile`, `dataset` and `network` in front,
        and `excess_low`, `excess_high` (of `study_excess`) at the end; here a row `contradicts`
        only if that interval lies above 0. Empty without the records.
    """
    of, rows = findings[findings["finding"] == _FINDING], []
    for (profile, dataset), here in of.groupby(["profile", "dataset"], sort=False):
        value = here.set_index("quantity")
        for kind in ("cnn", "vit"):
            if f"measured_{kind}" not in value.index:
                continue
            row = {"profile": profile, "dataset": dataset, "network": kind}
            row |= {k: _number(value.loc[f"{k}_{kind}", "estimate"]) for k in INGREDIENTS}
            row["measured_low"] = _number(value.loc[f"measured_{kind}", "ci_low"])
            row["measured_high"] = _number(value.loc[f"measured_{kind}", "ci_high"])
            rows.append(row)
    if not rows:
        return pd.DataFrame()
    table = implied_by(pd.DataFrame(rows))
    value = of.set_index(["profile", "dataset", "quantity"])
    at = [
        (row["profile"], row["dataset"], _excess_of(row["finding"], row["network"]))
        for _, row in table.iterrows()
    ]
    for end in ("low", "high"):
        table[f"excess_{end}"] = [_number(value[f"ci_{end}"].get(one)) for one in at]
    known = table["contradicts"].notna() & table["excess_low"].notna()
    table["contradicts"] = (table["excess_low"] > 0).astype(object).where(known, None)
    return table


def implied_by_paper() -> pd.DataFrame:
    """The same from the paper's abstract, whose early loss is taken as equal in every seed."""
    early = PAPER["early_loss", "*", "spearman"].value
    rho, tables = PAPER["seed_stability", "*", "spearman"].value, []
    for dataset in ("octdl", "cub"):
        overlap = PAPER["architecture_overlap", dataset, "jaccard"].value
        ends = (rho - _ROUNDED, rho + _ROUNDED)
        table = implied_seed_correlation(rho_early=early, jaccard=overlap, measured=ends)
        table.insert(0, "dataset", dataset)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def holm_table(findings: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """The five tests of `config.HEADLINE_TESTS`, Holm-adjusted within each data set.

    Parameters
    ----------
    findings : DataFrame
        Of `audit.findings_of`.

    Returns
    -------
    DataFrame
        `profile`, `dataset`, `finding`, `quantity`, `null`, `estimate`, `p`, `p_holm`, `rejected`
        (at `alpha`, None without p) and `tests`, how many of the family have a p. A family that is
        not whole is adjusted for all five, as if the missing ones were still to come.
    """
    rows = []
    for (profile, dataset), of in findings.groupby(["profile", "dataset"], sort=False):
        family = []
        for (finding, quantity), null in HEADLINE_TESTS.items():
            one = of[(of["finding"] == finding) & (of["quantity"] == quantity)]
            if len(one):
                row = {"profile": profile, "dataset": dataset, "finding": finding}
                row |= {"quantity": quantity, "null": null}
                family.append(row | {k: _number(one[k].iloc[0]) for k in ("estimate", "p")})
        known = [row["p"] for row in family if not math.isnan(row["p"])]
        padded = np.array([*known, *[1.0] * (len(HEADLINE_TESTS) - len(known))])
        adjusted = iter(holm(padded))
        for row in family:
            row["p_holm"] = math.nan if math.isnan(row["p"]) else float(next(adjusted))
            row["rejected"] = None if math.isnan(row["p"]) else bool(row["p_holm"] <= alpha)
            rows.append(row | {"tests": len(known)})
    return pd.DataFrame(rows)


def _number(value) -> float:
    return math.nan if value is None else float(value)


def audit_records(implied: pd.DataFrame) -> list[dict]:
    """Per data set: how many implied correlations exceed the measured ones by more than resampled
    images explain; `n` counts them all."""
    found = []
    if implied.empty:
        return found
    for (profile, dataset), of in implied.groupby(["profile", "dataset"], sort=False):
        share = float(of["contradicts"].dropna().astype(float).mean())
        row = one_row(
            share, math.nan, math.nan, len(of), math.nan, "share of implied above measured"
        )
        scale = "phantom" if dataset.startswith("phantom") else "reduced"
        found.append(record("summary", dataset, f"contradictions_{profile}", row, scale=scale))
    return found
