"""Notebook 04: how far runs, and the two architectures, put the classes in the same order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib import semantics
from retention_lib.class_averages import means_by_class, redrawn_means
from retention_lib.class_consistency import class_consistency, class_pairs, pair_means
from retention_lib.class_tables import scores_by_class
from retention_lib.concordance import rank_correlations
from retention_lib.config import PRIMARY_SCORE
from retention_lib.findings import score_matrix
from retention_lib.intervals import permutation_p
from retention_lib.rank_agreement import standard_ranks
from retention_lib.resampled import count_batches, percentile_interval, units
from retention_lib.traces import Traces


def consistency(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    draws: int = 2000,
    permutations: int = 1999,
) -> pd.DataFrame:
    """`class_consistency` of one data set; groups are `units`. No rows with a single run."""
    if len(traces.runs) < 2:
        return pd.DataFrame()
    given = score_matrix(traces, score), traces.runs, traces.labels, units(traces.samples)
    return class_consistency(*given, rng, draws, permutations=permutations)


def between_architectures(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    draws: int = 2000,
    permutations: int = 1999,
    level: float = 0.95,
) -> pd.DataFrame:
    """`pair_means`, with a p-value and an interval over images for pairs of architectures.

    Returns
    -------
    DataFrame
        As `pair_means`, its interval renamed `seed_low`, `seed_high` and its `n` to `seeds`;
        `ci_low`, `ci_high` over groups within class (runs fixed, `bias` taken off), `n` classes
        and, between two architectures, `p` two-sided by permuting the classes of one of them in
        all its runs alike.
    """
    values, runs, labels = score_matrix(traces, score), traces.runs, traces.labels
    out = pair_means(class_pairs(values, runs, labels, rng))
    ends = {"ci_low": "seed_low", "ci_high": "seed_high", "n": "seeds"}
    out = out.rename(columns=ends).assign(n=out["classes"], ci_low=np.nan, ci_high=np.nan)
    counts = list(count_batches(units(traces.samples), labels, rng, draws, len(values)))
    arch, means = runs["arch"].to_numpy(), scores_by_class(traces, score)[0]
    found = class_correlations(values, labels, counts)
    for i, (a, b) in enumerate(zip(out["arch_a"], out["arch_b"], strict=True)):
        pairs = pairs_between(arch, a, b)
        out.loc[i, ["ci_low", "ci_high"]] = interval_of_mean(*found, pairs, level)
        if a != b:
            out.loc[i, "p"] = permuted_p(means[arch == a], means[arch == b], rng, permutations)
    return out.drop(columns="classes")


def permuted_p(a: np.ndarray, b: np.ndarray, rng, draws: int) -> float:
    """p of the mean rank correlation of runs (run, class) of two architectures."""
    left, right = (standard_ranks(means).sum(0) for means in (a, b))
    if not np.isfinite([*left, *right]).all():
        return np.nan
    order, _ = semantics.orders(len(left), rng, draws)
    return permutation_p(float(left @ right), right[order] @ left, "two-sided")


def class_correlations(
    values: np.ndarray, labels: np.ndarray, counts
) -> tuple[np.ndarray, np.ndarray]:
    """Rank correlations of class means, (run, run), and of resamples, (draw, run, run)."""
    code = np.unique(labels, return_inverse=True)[1]
    whole = rank_correlations(means_by_class(values, code, code.max() + 1))
    redrawn = [rank_correlations(redrawn_means(values, code, batch)) for batch in counts]
    return whole, np.concatenate(redrawn)


def pairs_between(arch: np.ndarray, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of two architectures, or within one; of all runs if both are `all`."""
    first, second = np.triu_indices(len(arch), 1)
    if a == b == "all":
        return first, second
    keep = (arch[first] == a) & (arch[second] == b) | (arch[first] == b) & (arch[second] == a)
    return first[keep], second[keep]


def interval_of_mean(whole, redrawn, pairs, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean correlation over pairs, the bootstrap's bias taken off, in -1..1."""
    if len(pairs[0]) == 0 or not np.isfinite(estimate := whole[pairs].mean()):
        return np.nan, np.nan
    drawn = redrawn[:, *pairs].mean(1)
    ends = percentile_interval(drawn, level)
    if not np.isfinite(ends).all():
        return np.nan, np.nan
    return tuple(np.clip(ends - (np.nanmean(drawn) - estimate), -1, 1))
