"""How runs correlate over samples: seed with seed, architecture with architecture, by class.

Everything is a function of how often a resample holds each sample (`resampled.count_batches`), so
that one pass over the resamples serves every pair of runs and every measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from retention_lib.counted import class_starts, ties_of
from retention_lib.kendall import both_below
from retention_lib.run_moments import centred_ranks, check_scores, observed_and_redrawn
from retention_lib.threads import each

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
    first = class_starts(labels)
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
