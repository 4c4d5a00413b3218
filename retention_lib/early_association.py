"""Notebook 05: do samples with a large loss at epoch 0 decay faster? The headline and its test.

Numbers are means over runs, by architecture and over all runs; images are redrawn and networks kept
for `ci_low`, `ci_high`, seeds are drawn for `seed_low`, `seed_high`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from retention_lib import early_predictors as early
from retention_lib.intervals import permutation_p
from retention_lib.link_tables import ALL, members, within_runs
from retention_lib.nominal_p import needed_rho, nominal_log10_p
from retention_lib.partial_correlation import Link
from retention_lib.rank_agreement import standard_ranks
from retention_lib.resampled import units
from retention_lib.simulated_study import misalign
from retention_lib.traces import Traces

#: p of the paper, and the samples of one run that it may be about: OCTDL's training split holds
#: 1,444 to 1,651 images by how it is split, that of CUB 5,994.
PAPER_LOG10_P, PAPER_N = -45.0, {"octdl, smaller": 1444, "octdl, larger": 1651, "cub": 5994}


def headline(
    traces: Traces, rng: np.random.Generator, draws: int = 2000, permutations: int = 1999
) -> pd.DataFrame:
    """Spearman of early loss and literal decay constant, with the test of its named null.

    Returns
    -------
    DataFrame
        Per architecture and over all runs: `summarise`, with `p` (two-sided, samples of all runs
        permuted alike by `shuffled_within`), `null_mean`, `null_low`, `null_high` of those
        permutations, `misaligned` (each run's samples in an order of their own), `weakest` and
        `strongest` log10 of the nominal p among the runs.
    """
    loss, constants = early.early_loss(traces), early.decay_constants(traces)
    vectors = {"x": loss, "y": constants}
    table = within_runs(vectors, {"spearman": Link("x", "y")}, traces, rng, draws, "quantity")
    x, y = standard_ranks(loss), standard_ranks(constants)
    own, wrong = (x * y).sum(1), (misalign(x, rng) * y).sum(1)
    order = shuffled_within(traces.labels, units(traces.samples), rng, permutations)
    null = np.array([np.einsum("rs,rs->r", x[:, at], y) for at in order])  # (draw, run)
    nominal = np.array([nominal_log10_p(rho, x.shape[1]) for rho in own])
    for i, member in enumerate(members(traces.runs).values()):
        values = null[:, member].mean(1)
        table.loc[i, "p"] = permutation_p(own[member].mean(), values, "two-sided")
        table.loc[i, "null_mean"] = values.mean()
        ends = np.quantile(values, [0.025, 0.975]) if np.isfinite(values).all() else [np.nan] * 2
        table.loc[i, ["null_low", "null_high"]] = ends
        table.loc[i, "misaligned"] = wrong[member].mean()
        table.loc[i, ["weakest", "strongest"]] = nominal[member].max(), nominal[member].min()
    return table


def shuffled_within(labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int):
    """Permutations of samples within class that keep groups together, each int (sample,).

    Whole groups change places with groups that hold as many samples of every class, and samples
    with those of their own group and class. Where every sample is a group of its own this is any
    permutation within class.
    """
    _, group = np.unique(groups, return_inverse=True)
    _, code = np.unique(labels, return_inverse=True)
    table = np.zeros((group.max() + 1, code.max() + 1), np.int32)
    np.add.at(table, (group, code), 1)
    cell = np.unique(table, axis=0, return_inverse=True)[1].ravel()[group]
    place = np.lexsort((code, group, cell))
    for _ in range(draws):
        moved, own = rng.random(group.max() + 1)[group], rng.random(len(code))
        out = np.empty(len(code), int)
        out[place] = np.lexsort((own, code, moved, cell))
        yield out


def nominal(table: pd.DataFrame, log10_p: float = PAPER_LOG10_P) -> pd.DataFrame:
    """Which rho the paper's p needs: at its numbers of samples, and at those of `headline` here.

    Returns
    -------
    DataFrame
        `samples`, `n`, `needed` (smallest Spearman with p <= 10^log10_p), `found` (all runs) and
        `log10_p` (weakest and strongest run); NaN for the paper's n.
    """
    rows = [{"samples": name, "n": n} for name, n in PAPER_N.items()]
    here = table[table["arch"] == ALL] if len(table) else table
    for _, row in here.iterrows():
        found = {"found": row["estimate"], "weakest": row["weakest"], "strongest": row["strongest"]}
        rows.append({"samples": f"{row['dataset']}, here", "n": row["n"]} | found)
    out = pd.DataFrame(rows)
    out.insert(2, "needed", [needed_rho(log10_p, n) for n in out["n"]])
    return out


def by_decile(traces: Traces, parts: int = 10) -> pd.DataFrame:
    """Mean rank of the decay constant against the rank of the early loss, both in percent.

    Returns
    -------
    DataFrame
        `arch`, `loss` and `decay` (mean percentile of the samples in the part), `low`, `high`
        (smallest and largest run), `n` samples of the part in a run. No relation: 50 everywhere.
    """
    loss, constants = early.early_loss(traces), early.decay_constants(traces)
    n = loss.shape[1]
    rank, decay = (100 * (rankdata(v, axis=1) - 0.5) / n for v in (loss, constants))
    part = np.minimum((rank * parts / 100).astype(int), parts - 1)
    rows = []
    for arch, member in members(traces.runs).items():
        for k in range(parts) if arch != ALL else ():
            inside = part[member] == k
            size = np.maximum(inside.sum(1), 1)
            mean = np.where(inside.any(1), (decay[member] * inside).sum(1) / size, np.nan)
            row = {"arch": arch, "loss": 100 * (k + 0.5) / parts, "decay": np.nanmean(mean)}
            row |= {"low": np.nanmin(mean), "high": np.nanmax(mean)}
            rows.append(row | {"n": size.mean()})
    return pd.DataFrame(rows)
