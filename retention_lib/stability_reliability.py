"""Notebook 03: reliability of a score, seeds needed, what architectures share, what it varies with.

One function per table; each takes the `Traces` of one data set and returns a tidy DataFrame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.disattenuation import disattenuated
from retention_lib.findings import SCORES, score_matrix
from retention_lib.reliability import icc, seeds_needed, spearman_brown_curve, split_half
from retention_lib.resampled import units
from retention_lib.stability import seed_pairs
from retention_lib.traces import Traces
from retention_lib.variance import variance_components

#: Reliability that is asked for.
TARGET = 0.8
#: What `reliability_rows` calls the number of seeds.
SEEDS = f"seeds for {TARGET:g}"


def _by_arch(traces: Traces) -> dict[str, np.ndarray]:
    """Which runs are of each architecture that has two seeds, bool (run,)."""
    arch = traces.runs["arch"].to_numpy()
    return {name: arch == name for name in list(seed_pairs(traces.runs))[1:]}


def reliability_rows(
    traces: Traces,
    rng: np.random.Generator,
    scores: Sequence[str] = tuple(SCORES),
    draws: int = 2000,
) -> pd.DataFrame:
    """ICC(1), ICC(k), split halves and seeds needed, per score and architecture.

    Parameters
    ----------
    scores : sequence of str
        Keys of `findings.SCORES`.
    draws : int
        Of the bootstrap over units within class.

    Returns
    -------
    DataFrame
        `score`, `arch`, `quantity` (ICC(1), ICC(k), split half, `SEEDS`), `scale` (score or
        midranks), then the columns of a one-row result. Split halves and seeds are of midranks;
        seeds follow from ICC(1) and are NaN, "not estimable", where its interval includes 0.
    """
    groups, rows = units(traces.samples), []
    for score in scores:
        values = score_matrix(traces, score)
        for arch, own in _by_arch(traces).items():
            where = values[own], groups, traces.labels, rng
            found = icc(*where, draws)
            one = (found["quantity"] == "ICC(1)") & (found["scale"] == "midranks")
            halves = split_half(*where, draws=draws).assign(quantity="split half")
            needed = seeds_needed(found[one], TARGET).assign(quantity=SEEDS, scale="midranks")
            part = pd.concat([found, halves, needed], ignore_index=True)
            rows.append(part.assign(score=score, arch=arch))
    out = pd.concat(rows, ignore_index=True)
    front = ["score", "arch", "quantity", "scale", "estimate", "ci_low", "ci_high", "n", "p"]
    return out[[*front, "method", "runs", "f", "f_low", "f_high", "control"]]


def brown_curves(rows: pd.DataFrame, score: str, seeds: Sequence[int] = range(1, 31)):
    """Reliability of the mean of 1, 2, ... seeds per data set and architecture, from midranks.

    Parameters
    ----------
    rows : DataFrame
        `reliability_rows` with `dataset`.

    Returns
    -------
    DataFrame
        `dataset`, `arch`, `seeds`, `reliability`, `low`, `high` (`spearman_brown_curve`); without
        rows where there are none.
    """
    if rows.empty:
        return rows
    chosen = rows[(rows["quantity"] == "ICC(1)") & (rows["scale"] == "midranks")]
    parts = [
        spearman_brown_curve(row, seeds).assign(dataset=row["dataset"], arch=row["arch"])
        for _, row in chosen[chosen["score"] == score].iterrows()
    ]
    columns = ["dataset", "arch", "seeds", "reliability", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns]


def disattenuation(
    traces: Traces,
    rng: np.random.Generator,
    scores: Sequence[str] = tuple(SCORES),
    draws: int = 2000,
) -> pd.DataFrame:
    """Spearman between architectures as measured, and without seed noise, per score.

    Returns
    -------
    DataFrame
        `score`, then a row of `disattenuation.disattenuated`; no rows with one architecture.
    """
    if len(_by_arch(traces)) < 2:
        return pd.DataFrame()
    groups, rows = units(traces.samples), []
    for score in scores:
        values = score_matrix(traces, score)
        row = disattenuated(values, traces.runs, groups, traces.labels, rng, draws=draws)
        row.insert(0, "score", score)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


def variance_rows(
    traces: Traces,
    rng: np.random.Generator,
    scores: Sequence[str] = tuple(SCORES),
    draws: int = 2000,
) -> pd.DataFrame:
    """What the midranks of a score vary with, as `variance.variance_components`.

    Ranks, because counts of which most are 0 and a few are the largest possible have a variance
    that a handful of samples decide. Runs cannot differ as a whole in ranks: architecture and seed
    come out at or just below 0.

    Returns
    -------
    DataFrame
        `score`, then the columns of `variance_components`: one row per component.
    """
    groups, rows = units(traces.samples), []
    for score in scores:
        ranks = stats.rankdata(score_matrix(traces, score), axis=1)
        part = variance_components(ranks, traces.runs, groups, traces.labels, rng, draws)
        part.insert(0, "score", score)
        rows.append(part)
    return pd.concat(rows, ignore_index=True)


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of `variance_rows` as a table to read: a row per score, a column per component.

    Returns
    -------
    DataFrame
        Shares of the sum of all components, negative ones as they are, and `negative`: which
        components came out below 0.
    """
    if rows.empty:
        return rows
    order = list(dict.fromkeys(rows["component"]))
    wide = rows.pivot_table(
        index=["dataset", "score"], columns="component", values="share", sort=False
    )
    wide = wide.reindex(columns=order)
    wide["negative"] = [", ".join(c for c in order if row[c] < 0) for _, row in wide.iterrows()]
    return wide
