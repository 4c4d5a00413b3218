"""Notebook 05: does the loss in one run tell of the decay in another?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.agreement import CROSS, MISALIGNED, SAME
from retention_lib.early_predictors import decay_constants, early_loss
from retention_lib.findings import over_seeds
from retention_lib.link_tables import summarise
from retention_lib.normal_copula import chain
from retention_lib.partial_correlation import Link, redrawn_correlations
from retention_lib.rank_agreement import spearman
from retention_lib.resampled import units
from retention_lib.simulated_study import misalign
from retention_lib.traces import Traces

WITHIN = "same_run"
KINDS = (WITHIN, SAME, CROSS, MISALIGNED)


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

        o multiplying on the scale of a normal copula (`normal_copula.chain`). Noise in the
        constants enters `via_decay` twice, which makes it too low. Every pair of different runs
        also has a `misaligned` row, samples permuted by position.
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


def mean_transfer(traces: Traces, rng: np.random.Generator) -> pd.DataFrame:
    """`transfer_means` of one data set's early losses and literal decay constants."""
    pairs = transfer_pairs(early_loss(traces), decay_constants(traces), traces.runs, rng)
    return transfer_means(pairs)


def transfer_table(traces: Traces, rng: np.random.Generator, draws: int = 500) -> pd.DataFrame:
    """Spearman of the early loss in one run with the decay constant in another, by `kind`.

    Returns
    -------
    DataFrame
        A row per key of `KINDS` and architecture whose decay it is (`summarise`), `misaligned`
        being a run with itself after its samples were permuted; kinds
        without a pair of runs are absent.
    """
    loss, constants = early_loss(traces), decay_constants(traces)
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
