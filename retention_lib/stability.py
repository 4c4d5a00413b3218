"""Notebook 03: is what a sample's forgetting comes to the same in another seed?

One function per table; each takes the `Traces` of one data set and returns a tidy DataFrame,
unrounded; `overview.each` puts those of several data sets below each other. Pairs are always two
seeds of one architecture; `BOTH` is the mean over the pairs of all architectures.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from retention_lib import findings_overlap
from retention_lib.config import LITERAL, PRIMARY_SCORE
from retention_lib.findings import SCORES, score_matrix
from retention_lib.resampled import units
from retention_lib.run_correlations import correlation_matrices, recentred
from retention_lib.run_moments import leave_one_seed_out, percentile_row
from retention_lib.traces import Traces

#: What the mean over the pairs of all architectures is called in the column `arch`.
BOTH = "both"
#: Of `run_correlations.MEASURES`; the first carries the finding.
MEASURES = ("spearman", "kendall", "within_class", "between_class")
#: What tables show that cost more than a correlation; the other scores are variants of these.
MAIN_SCORES = (
    "forgetting_score",
    "events",
    "mean_error",
    "learned_epoch",
    "mean_loss",
    "decay_constant",
)
#: The reading that `config` fixes, measured by Spearman's rho over all samples.
PRIMARY = (PRIMARY_SCORE, "n_presentations", LITERAL.view, MEASURES[0])


def seed_pairs(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Pairs of runs (pair, 2) of one architecture: of `BOTH`, that is all of them, then of each.

    Raises
    ------
    ValueError
        If no architecture has two seeds, or a run is there twice.

    Examples
    --------
    >>> table = pd.DataFrame({"arch": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})
    >>> {name: pairs.tolist() for name, pairs in seed_pairs(table).items()}
    {'both': [[0, 1], [2, 3]], 'a': [[0, 1]], 'b': [[2, 3]]}
    """
    if runs.duplicated(["arch", "seed"]).any():
        raise ValueError("each (arch, seed) must be one run; select one configuration first")
    arch = runs["arch"].to_numpy()
    of = {name: np.flatnonzero(arch == name) for name in dict.fromkeys(arch)}
    pairs = {name: np.array(list(combinations(i, 2))) for name, i in of.items() if len(i) > 1}
    if not pairs:
        raise ValueError(f"an architecture must have two seeds, got {runs['arch'].tolist()}")
    return {BOTH: np.concatenate(list(pairs.values()))} | pairs


def main_scores(score: str) -> list[str]:
    """The named score, then `MAIN_SCORES` without it.

    Examples
    --------
    >>> main_scores("events")[:2]
    ['events', 'forgetting_score']
    """
    return list(dict.fromkeys([score, *MAIN_SCORES]))


def seed_agreement(
    traces: Traces,
    rng: np.random.Generator,
    scores: Sequence[str] = tuple(SCORES),
    measures: Sequence[str] = MEASURES,
    draws: int = 2000,
) -> pd.DataFrame:
    """How well a score of one seed agrees with the same score of another, by several measures.

    Parameters
    ----------
    scores : sequence of str
        Keys of `findings.SCORES`.
    measures : sequence of str
        Some of `run_correlations.MEASURES`.
    draws : int
        Of the bootstrap over units (`resampled.units`) within class.

    Returns
    -------
    DataFrame
        One row per score, measure and architecture (`BOTH` first): `score`, `measure`, `arch`, the
        columns of a one-row result (mean over pairs; networks fixed), `seed_low`, `seed_high` by
        leaving out one of `seeds` seeds (NaN with two), `pairs`. NaN where a run is constant.
    """
    groups, rows = units(traces.samples), []
    for score in scores:
        values = score_matrix(traces, score)
        for row in agreement_rows(values, traces.runs, groups, traces.labels, rng, measures, draws):
            row.insert(0, "score", score)
            rows.append(row)
    return pd.concat(rows, ignore_index=True)


def agreement_rows(values, runs, groups, labels, rng, measures, draws: int) -> list[pd.DataFrame]:
    """Rows of `seed_agreement` for scores (run, sample) whose `runs` name arch and seed."""
    matrices = correlation_matrices(values, groups, labels, rng, draws, measures)
    rows = []
    for measure, matrix in matrices.items():
        matrix = recentred(matrix) if measure == "between_class" else matrix
        for arch, pairs in seed_pairs(runs).items():

            def of_pairs(kept, matrix=matrix[0], pairs=pairs):
                left = pairs[kept[pairs].all(1)]
                return matrix[tuple(left.T)].mean() if len(left) else np.nan

            seeds = leave_one_seed_out(of_pairs, runs, pairs)
            mean = matrix[:, pairs[:, 0], pairs[:, 1]].mean(1)
            row = percentile_row(mean, values.shape[1], measure, 0.95, pairs=len(pairs))
            row.insert(0, "measure", measure)
            row.insert(1, "arch", arch)
            ends = {f"seed_{end}": seeds[f"ci_{end}"].iloc[0] for end in ("low", "high")}
            rows.append(row.assign(**ends, seeds=int(seeds["n"].iloc[0])))
    return rows


def specification_curve(
    traces: Traces,
    rng: np.random.Generator,
    draws: int = 200,
    measures: Sequence[str] = ("spearman", "within_class"),
) -> pd.DataFrame:
    """Agreement of seeds, mean over both architectures, under every convention.

    Parameters
    ----------
    draws : int
        Of the bootstrap over units within class.
    measures : sequence of str

    Returns
    -------
    DataFrame
        One row per `score`, `never_learned` (`findings_overlap.READINGS`), `view` and `measure`,
        with `primary`, the columns of a one-row result, `seed_low`, `seed_high`. Sorted by
        `estimate`. Samples that a convention leaves out of some run are left out of all.
    """
    groups, rows = units(traces.samples), []
    for view in ("clean", "online"):
        if not traces.shown(view).any():
            continue
        for (score, how), values in findings_overlap.readings(traces, view).items():
            known = ~np.isnan(values).any(0)
            if known.sum() < 4:
                continue
            where = groups[known], traces.labels[known]
            for row in agreement_rows(values[:, known], traces.runs, *where, rng, measures, draws):
                key = {"score": score, "never_learned": how, "view": view}
                choice = (score, how, view, row["measure"].iloc[0])
                rows.append(row.assign(**key, primary=choice == PRIMARY))
    table = pd.concat(rows, ignore_index=True)
    return table[table["arch"] == BOTH].sort_values("estimate", ignore_index=True)


def agreement_of_conventions(table: pd.DataFrame, paper: float = 0.01) -> pd.DataFrame:
    """How far the conventions of `specification_curve` agree, one row per data set.

    Returns
    -------
    DataFrame
        `dataset`, `conventions`, `above_0` and `below_0` (shares whose interval over images lies on
        that side), `holds_paper` (share whose interval holds the paper's value), `smallest`,
        `median`, `largest` and `primary`, all of `estimate`.
    """
    rows = []
    for dataset, of in table.groupby("dataset", sort=False):
        known = of.dropna(subset=["estimate"])
        row = {"dataset": dataset, "conventions": len(known)}
        row["above_0"], row["below_0"] = (known["ci_low"] > 0).mean(), (known["ci_high"] < 0).mean()
        row["holds_paper"] = known["ci_low"].le(paper).mul(known["ci_high"].ge(paper)).mean()
        row |= {"smallest": known["estimate"].min(), "median": known["estimate"].median()}
        row |= {"largest": known["estimate"].max()}
        rows.append(row | {"primary": known.loc[known["primary"], "estimate"].mean()})
    return pd.DataFrame(rows)


def by_score(table: pd.DataFrame, arch: str = BOTH) -> pd.DataFrame:
    """Estimates of `seed_agreement` as a table to read: a row per score, a column per measure."""
    if table.empty:
        return table
    of = table[table["arch"] == arch]
    wide = of.pivot_table(
        index=["dataset", "score"], columns="measure", values="estimate", sort=False
    )
    return wide.reindex(columns=list(dict.fromkeys(of["measure"])))
