"""How runs correlate over samples: seed with seed, architecture with architecture, by class.

Everything is a function of how often a resample holds each sample (`resampled.count_batches`), so
that one pass over the resamples serves every pair of runs and every measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.agreement import CROSS, SAME
from retention_lib.counted import ties_of
from retention_lib.intervals import check_level
from retention_lib.kendall import both_below
from retention_lib.run_moments import (
    SCALES,
    Moments,
    centred_ranks,
    check_scores,
    leave_one_seed_out,
    moments,
    observed_and_redrawn,
    percentile_row,
    run_pairs,
)
from retention_lib.simulated_study import misalign
from retention_lib.threads import each

__all__ = [
    "MEASURES",
    "SCALES",
    "Moments",
    "check_scores",
    "correlation_matrices",
    "leave_one_seed_out",
    "moments",
    "observed_and_redrawn",
    "percentile_row",
    "recentred",
    "run_pairs",
    "seed_to_seed",
]

#: Pearson on scores; Spearman; Kendall's tau-b; Pearson of midranks less their class's mean;
#: Pearson of the classes' mean midranks, every class counting once.
MEASURES = ("pearson", "spearman", "kendall", "within_class", "between_class")


def correlation_matrices(
    scores: np.ndarray,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    draws: int,
    measures: Sequence[str] = MEASURES,
) -> dict[str, np.ndarray]:
    """Correlations between all runs, for the data (draw 0) and for resamples that measures share.

    Parameters
    ----------
    scores : array, (run, sample)
    groups, labels : array, (sample,)
    measures : sequence
        Some of `MEASURES`. Tau-b of a resample is linear in the counts (its Hajek projection),
        the others are what the repeated rows would give.

    Returns
    -------
    dict of float64, (draw, run, run)
        NaN where a run is constant.

    Examples
    --------
    >>> x = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    >>> out = correlation_matrices(x, [0, 1, 2], [0, 0, 0], np.random.default_rng(0), 9)
    >>> out["spearman"].shape, out["kendall"][0, 0, 1].round(3)
    ((10, 2, 2), np.float64(0.333))
    """
    scores = check_scores(scores, labels)
    if unknown := [m for m in measures if m not in MEASURES]:
        raise ValueError(f"measures must be among {MEASURES}, got {unknown}")
    by_class = np.argsort(labels, kind="stable")
    scores, groups, labels = scores[:, by_class], np.asarray(groups)[by_class], np.sort(labels)
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    ties = [ties_of(score) for score in scores]
    x = scores - scores.mean(1, keepdims=True)
    projections = _kendall_parts(scores) if "kendall" in measures else None

    def of_counts(counts):
        of = {}
        if "pearson" in measures:
            mean = x @ counts.T / counts.sum(1)
            square = (counts[:, None] * x) @ x.T
            mean = mean.T * np.sqrt(counts.sum(1))[:, None]
            of["pearson"] = _correlation(square - mean[:, :, None] * mean[:, None], square)
        if projections is not None:
            of["kendall"] = _tau(projections, counts, len(scores))
        if {"spearman", "within_class", "between_class"}.intersection(measures):
            of |= _by_rank(centred_ranks(ties, counts), counts, first)
        return of

    batches = observed_and_redrawn(groups, labels, rng, draws, len(scores))
    found = each(of_counts, batches, scores.size)
    return {measure: np.concatenate([of[measure] for of in found]) for measure in measures}


def _by_rank(ranks: np.ndarray, counts: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
    """Spearman's rho, and its parts within and between classes, which begin at `first`."""
    weighted = ranks * counts[:, None]
    total = weighted @ ranks.swapaxes(1, 2)  # (draw, run, run)
    size = np.add.reduceat(counts, first, axis=1)[:, None]  # (draw, 1, class)
    sums = np.add.reduceat(weighted, first, axis=2)
    means = sums / np.maximum(size, 1e-300)
    within = total - means @ sums.swapaxes(1, 2)
    present = size > 0  # a group that spans classes can leave one of them empty
    spread = np.where(present, means, 0)
    spread -= present * spread.sum(2, keepdims=True) / present.sum(2, keepdims=True)
    between = spread @ spread.swapaxes(1, 2)
    return {
        "spearman": _correlation(total, total),
        "within_class": _correlation(within, total),
        "between_class": _correlation(between, total / counts.sum(1)[:, None, None]),
    }


def _correlation(cov: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Correlations; NaN where a variance is rounding error beside that of `scale`, or 0."""
    variance, floor = (np.diagonal(v, axis1=1, axis2=2) for v in (cov, scale))
    spread = np.sqrt(np.where(variance > 1e-12 * floor, variance, np.nan))
    return cov / (spread[:, :, None] * spread[:, None])


def _kendall_parts(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every sample: agreements less disagreements (pair, sample), untied (run, sample)."""
    ranks = stats.rankdata(scores, "dense", axis=1)
    untied = np.stack([scores.shape[1] - np.bincount(run)[run] for run in ranks])
    agree = [
        sum(sign * both_below(a, sign * b) + sign * both_below(-a, -sign * b) for sign in (1, -1))
        for a, b in combinations(ranks, 2)
    ]
    return np.array(agree, float).reshape(-1, scores.shape[1]), untied.astype(float)


def _tau(parts: tuple[np.ndarray, np.ndarray], counts: np.ndarray, runs: int) -> np.ndarray:
    """Tau-b (draw, run, run) of resamples, its three sums over pairs made linear in the counts."""
    agree, untied = (counts @ (2 * part).T - part.sum(1) for part in parts)
    first, second = np.triu_indices(runs, 1)
    out = np.full((len(counts), runs, runs), np.nan)
    product = untied[:, first] * untied[:, second]
    out[:, first, second] = agree / np.sqrt(np.where(product > 0, product, np.nan))
    out[:, second, first] = out[:, first, second]
    out[:, range(runs), range(runs)] = np.where(untied > 0, 1.0, np.nan)
    return out


def seed_to_seed(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    measures: Sequence[str] = MEASURES,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean correlation over pairs of runs, within every architecture and between every two.

    Parameters
    ----------
    scores : array, (run, sample)
    runs : DataFrame
        One row per run, with `arch` and `seed`.
    groups, labels : array, (sample,)
    rng : Generator
    measures : sequence
        Some of `MEASURES`.
    draws : int
    level : float

    Returns
    -------
    DataFrame
        One row per measure and pair of architectures (an architecture with itself if it has two
        seeds): `measure`, `kind`, `arch_a`, `arch_b`, and the columns of a one-row result. The
        interval redraws groups within class and holds the networks fixed; `seed_low, seed_high`
        leaves out one of `seeds` seeds at a time (`leave_one_seed_out`). Extras `pairs`, `classes`,
        `draws`, `failed` and `control`, the estimate after each run's samples were permuted by
        position: near 0, and what an indexing error would look like.

    Notes
    -----
    Class means of two runs are of the same images: `between_class` says how much of what this data
    set's classes differ by is stable, not how other images of these classes would do. Its resamples
    add the noise of redrawn images once more, which is taken off their mean (`recentred`).
    """
    check_level(level)
    scores = check_scores(scores, labels)
    sets = run_pairs(runs, len(scores))
    found = correlation_matrices(scores, groups, labels, rng, draws, measures)
    wrong = correlation_matrices(misalign(scores, rng), groups, labels, rng, 0, measures)
    rows, classes = [], len(np.unique(labels))
    for measure, matrix in found.items():
        matrix = recentred(matrix) if measure == "between_class" else matrix
        for (a, b), pairs in sets.items():
            first, second = pairs.T
            mean = matrix[:, first, second].mean(1)

            def of_pairs(kept, matrix=matrix[0], pairs=pairs):
                left = pairs[kept[pairs].all(1)]
                return matrix[tuple(left.T)].mean() if len(left) else np.nan

            seeds = leave_one_seed_out(of_pairs, runs, pairs, level)
            extras = {"measure": measure, "kind": SAME if a == b else CROSS}
            extras |= {"arch_a": a, "arch_b": b, "pairs": len(pairs)}
            extras |= {"seed_low": seeds["ci_low"].iloc[0], "seed_high": seeds["ci_high"].iloc[0]}
            extras |= {"seeds": int(seeds["n"].iloc[0]), "classes": classes}
            extras |= {"control": wrong[measure][0, first, second].mean()}
            rows.append(percentile_row(mean, scores.shape[1], measure, level, **extras))
    out = pd.concat(rows, ignore_index=True)
    front = ["measure", "kind", "arch_a", "arch_b"]
    return out[front + [name for name in out if name not in front]]


def recentred(matrix: np.ndarray) -> np.ndarray:
    """Resampled correlations (1 + draw, ...) moved, on the scale of atanh, to have the data's mean.

    Examples
    --------
    >>> recentred(np.array([0.5, 0.3, 0.3])).round(3).tolist()
    [0.5, 0.5, 0.5]
    """
    z = np.arctanh(np.clip(matrix, -1 + 1e-12, 1 - 1e-12))
    bias = z[1:].mean(0) - z[0] if len(z) > 1 else 0.0
    return np.concatenate([matrix[:1], np.tanh(z[1:] - bias)])
