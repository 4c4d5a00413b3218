"""Rank correlations of many runs as tables: a row per run, or their mean by architecture."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.checks import check_level
from retention_lib.intervals import one_row
from retention_lib.nominal_p import nominal_log10_p
from retention_lib.partial_correlation import Link, redrawn_correlations
from retention_lib.resampled import percentile_interval, units
from retention_lib.run_moments import leave_one_seed_out

QUANTITIES = ("spearman", "given class", "given control", "given class and control")
#: All runs of both architectures.
ALL = "all runs"
_METHOD = "mean over runs, percentile bootstrap over groups within class, 95%"


def correlations(
    predictor: np.ndarray,
    target: np.ndarray,
    runs: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
    control: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rank correlation of a predictor with a target in every run, plain and partial.

    Parameters
    ----------
    predictor, control : array, (sample,) or (run, sample)
        For instance `early_loss`, and the learned epoch as control.
    target : array, (run, sample)
        For instance `decay_constants`. NaN in any of the three leaves a sample out of that run.
    runs : DataFrame
        Columns `arch` and `seed`.

    Returns
    -------
    DataFrame
        One row per run and quantity of `QUANTITIES` (those without control if none is given):
        `arch`, `seed`, `quantity`, then a one-row result with the percentile bootstrap over groups
        within class. `p` is `nominal_log10_p`, also as extra `log10_p`.

    Raises
    ------
    ValueError
        On shapes that do not fit.
    """
    check_level(level)
    target, shape = np.asarray(target, float), np.shape(target)
    if shape != (len(runs), np.size(labels)) or np.shape(groups) != np.shape(labels):
        raise ValueError(
            f"target must be ({len(runs)} runs, {np.size(labels)} samples) with one group each, "
            f"got {shape} and {np.size(groups)} groups"
        )
    given = {"x": predictor, "y": target} | ({} if control is None else {"z": control})
    vectors = {name: np.broadcast_to(np.asarray(v, float), shape) for name, v in given.items()}
    links = {q: Link("x", "y", "z" if "control" in q else None, "class" in q) for q in QUANTITIES}
    links = {q: link for q, link in links.items() if control is not None or not link.control}
    pairs = [(r, r) for r in range(len(runs))]
    found = redrawn_correlations(vectors, links, pairs, groups, labels, rng, draws)
    known = ~np.isnan(np.stack(list(vectors.values()))).any(0)
    method, rows = f"percentile bootstrap over groups within class, {draws} draws, {level:.0%}", []
    for r in range(len(runs)):
        n, classes = int(known[r].sum()), len(np.unique(np.asarray(labels)[known[r]]))
        for q, link in links.items():
            rho = found[q][0, r]
            ends = percentile_interval(found[q][1:, r], level)
            controls = (classes - 1) * link.by_class + (link.control is not None)
            log10_p = nominal_log10_p(rho, n, controls)
            row = one_row(rho, *ends, n, 10**log10_p, method, log10_p=log10_p)
            front = {"arch": runs["arch"].iloc[r], "seed": runs["seed"].iloc[r], "quantity": q}
            rows.append(pd.DataFrame([front]).join(row))
    return pd.concat(rows, ignore_index=True)


def members(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Runs of every architecture and of all, bool (run,)."""
    arch = runs["arch"].to_numpy()
    return {a: arch == a for a in dict.fromkeys(arch)} | {ALL: np.ones(len(arch), bool)}


def summarise(values: np.ndarray, runs: pd.DataFrame, pairs: list, n: int, **front) -> pd.DataFrame:
    """Mean over pairs of runs, by the architecture of the second, and over all.

    Parameters
    ----------
    values : array, (1 + draw, pair)
        Of the data, then of resamples.
    pairs : list of (int, int)
    n : int
        Samples.

    Returns
    -------
    DataFrame
        `front`, `arch` (`ALL` last), a one-row result, `seed_low`, `seed_high` (jackknife over
        seeds) and `seeds`.
    """
    pairs, rows = np.array(pairs), []
    for arch, member in members(runs).items():
        at = np.flatnonzero(member[pairs[:, 1]])
        mean = values[:, at].mean(1)
        ends = percentile_interval(mean[1:]) if np.isfinite(mean[0]) else (np.nan, np.nan)

        def of_pairs(kept, at=at):
            left = at[kept[pairs[at]].all(1)]
            return values[0, left].mean() if len(left) else np.nan

        seeds = leave_one_seed_out(of_pairs, runs, pairs[at]).iloc[0]
        row = one_row(mean[0], *ends, n, np.nan, _METHOD, seed_low=seeds["ci_low"])
        row = row.assign(seed_high=seeds["ci_high"], seeds=seeds["n"])
        rows.append(pd.DataFrame([front | {"arch": arch}]).join(row))
    return pd.concat(rows, ignore_index=True)


def within_runs(vectors, links, traces, rng, draws, what: str) -> pd.DataFrame:
    """`summarise` of every link within runs, named in the column `what`; `n` is the mean number."""
    pairs = [(r, r) for r in range(len(traces.runs))]
    about = (pairs, units(traces.samples), traces.labels, rng, draws)
    found, tables = redrawn_correlations(vectors, links, *about), []
    for name, link in links.items():
        used = [vectors[v] for v in (link.x, link.y, link.control) if v]
        known = ~np.isnan(np.stack(used)).any(0)
        table = summarise(found[name], traces.runs, pairs, 0, **{what: name})
        of = [known[member].sum(1).mean() for member in members(traces.runs).values()]
        tables.append(table.assign(n=np.round(of).astype(int)))
    return pd.concat(tables, ignore_index=True)
