"""Notebook 05: does the loss in one run tell of the decay in another?

And how correlations of many runs become one number: `summarise`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.agreement import CROSS, MISALIGNED, SAME
from retention_lib.early_loss import Link, redrawn_correlations
from retention_lib.findings import over_seeds
from retention_lib.implied import chain
from retention_lib.intervals import one_row
from retention_lib.rank_agreement import spearman
from retention_lib.resampled import percentile_interval, units
from retention_lib.run_correlations import leave_one_seed_out
from retention_lib.simulated_study import misalign
from retention_lib.traces import Traces

WITHIN = "same_run"
KINDS = (WITHIN, SAME, CROSS, MISALIGNED)
#: All runs of both architectures.
ALL = "all runs"
_METHOD = "mean over runs, percentile bootstrap over groups within class, 95%"


def transfer_pairs(
    loss: np.ndarray, constants: np.ndarray, runs: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Spearman of the early loss in run a with the decay constant in run b, for every (a, b).

    Parameters
    ----------
    loss, constants : array, (run, sample)
        NaN leaves a sample out of the pairs concerned.
    runs : DataFrame
        Columns `arch` and `seed`.
    rng : Generator

    Returns
    -------
    DataFrame
        One row per ordered pair: `kind` (`same_run`, `same_architecture` with another seed,
        `cross_architecture`), `arch_loss`, `seed_loss`, `arch_decay`, `seed_decay`, `spearman`,
        `n`, and what two assumptions make of the correlations within runs:

        `via_loss` = rho(L_a, L_b) o rho(L_b, c_b): loss a tells of decay b only through loss b;
        `via_decay` = rho(L_a, c_a) o rho(c_a, c_b): only through what the two decays share,

        o multiplying on the scale of a normal copula (`implied.chain`). Noise in the constants
        enters `via_decay` twice, which makes it too low. Every pair of different runs also has a
        `misaligned` row, samples permuted by position.
    """
    loss, constants = np.asarray(loss, float), np.asarray(constants, float)
    if loss.shape != constants.shape or len(loss) != len(runs):
        raise ValueError(
            f"loss and constants must be ({len(runs)} runs, sample), "
            f"got {loss.shape} and {constants.shape}"
        )

    def rho(a, b):
        row = spearman(a, b).iloc[0]
        return float(row["estimate"]), int(row["n"])

    m, arch, seed = len(runs), runs["arch"].to_numpy(), runs["seed"].to_numpy()
    direct = np.array([[rho(loss[a], constants[b])[0] for b in range(m)] for a in range(m)])
    losses, decays = (
        np.array([[rho(x[a], x[b])[0] for b in range(m)] for a in range(m)])
        for x in (loss, constants)
    )
    rows = []
    for a, b in np.ndindex(m, m):
        kind = WITHIN if a == b else SAME if arch[a] == arch[b] else CROSS
        row = {"kind": kind, "arch_loss": arch[a], "seed_loss": seed[a], "arch_decay": arch[b]}
        row |= {"seed_decay": seed[b], "spearman": direct[a, b]}
        row["n"] = rho(loss[a], constants[b])[1]
        row["via_loss"] = chain(losses[a, b], direct[b, b]) if a != b else np.nan
        row["via_decay"] = chain(direct[a, a], decays[a, b]) if a != b else np.nan
        rows.append(row | {"loss_with_loss": losses[a, b], "decay_with_decay": decays[a, b]})
        if a != b:
            wrong = rho(loss[a][rng.permutation(loss.shape[1])], constants[b])
            nothing = dict.fromkeys(("via_loss", "via_decay"), np.nan)
            rows.append(row | nothing | {"kind": MISALIGNED, "spearman": wrong[0]})
    return pd.DataFrame(rows)


def transfer_means(pairs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Means of `transfer_pairs` by kind and architectures, with the disattenuated correlation.

    Returns
    -------
    DataFrame
        `kind`, `arch_loss`, `arch_decay`, a one-row result (jackknife over seeds: `n` seeds, NaN
        with too few), extras `pairs`, `via_loss`, `via_decay`, `retained` (share of the mean within
        runs of the architecture whose decay it is) and `disattenuated`, the mean over
        sqrt(rho(L, L') rho(c, c')) of other seeds of the same architectures: what the stable parts
        of loss and decay have in common (NaN with one seed, or where a reliability is not
        positive; above 1 by chance).
    """
    same = pairs[pairs["kind"] == SAME]
    stable = {
        name: same.groupby(f"arch_{side}")[column].mean()
        for name, side, column in (
            ("loss", "loss", "loss_with_loss"),
            ("decay", "decay", "decay_with_decay"),
        )
    }
    within = pairs[pairs["kind"] == WITHIN].groupby("arch_decay")["spearman"].mean()
    rows = []
    for (kind, first, second), of in pairs.groupby(["kind", "arch_loss", "arch_decay"], sort=False):
        names = {"seed_loss": "seed_a", "seed_decay": "seed_b", "spearman": "jaccard"}
        row = over_seeds(of.rename(columns=names), level)
        row["estimate"] = mean = of["spearman"].mean()
        row["method"] = f"mean Spearman, jackknife over seeds, {level:.0%}"
        row = row.assign(kind=kind, arch_loss=first, arch_decay=second, pairs=len(of))
        row = row.assign(via_loss=of["via_loss"].mean(), via_decay=of["via_decay"].mean())
        row["retained"] = mean / within.get(second, np.nan)
        product = stable["loss"].get(first, np.nan) * stable["decay"].get(second, np.nan)
        usable = kind in (SAME, CROSS) and product > 0
        row["disattenuated"] = mean / np.sqrt(product) if usable else np.nan
        rows.append(row)
    out = pd.concat(rows, ignore_index=True)
    front = ["kind", "arch_loss", "arch_decay"]
    order = out["kind"].map({k: i for i, k in enumerate(KINDS)})
    out = out.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
    return out[[*front, *[c for c in out if c not in front]]]


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


def transfer_table(
    loss: np.ndarray,
    constants: np.ndarray,
    traces: Traces,
    rng: np.random.Generator,
    draws: int = 1000,
) -> pd.DataFrame:
    """Spearman of the early loss in one run with the decay constant in another, by `kind`.

    Returns
    -------
    DataFrame
        A row per key of `KINDS` and architecture whose decay it is (`summarise`), `misaligned`
        being a run with itself after its samples were permuted; kinds
        without a pair of runs are absent.
    """
    runs, everyone = traces.runs, np.arange(len(traces.runs))
    arch = runs["arch"].to_numpy()
    every = {WITHIN: [(r, r) for r in everyone], SAME: [], CROSS: []}
    for a, b in ((a, b) for a in everyone for b in everyone if a != b):
        every[SAME if arch[a] == arch[b] else CROSS].append((a, b))
    every[MISALIGNED] = every[WITHIN]
    vectors = {"x": loss, "y": constants, "wrong": misalign(loss, rng)}
    about, tables = (units(traces.samples), traces.labels, rng, draws), []
    for kind, pairs in every.items():
        if pairs:
            link = Link("wrong" if kind == MISALIGNED else "x", "y")
            found = redrawn_correlations(vectors, {kind: link}, pairs, *about)[kind]
            tables.append(summarise(found, runs, pairs, loss.shape[1], kind=kind))
    return pd.concat(tables, ignore_index=True)
