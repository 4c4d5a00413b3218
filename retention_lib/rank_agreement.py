"""Spearman's rho and the AUC on midranks, with intervals that respect ties and groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special, stats

from retention_lib.checks import check_level
from retention_lib.counted import midranks, ties_of
from retention_lib.intervals import one_row
from retention_lib.resampled import count_batches, percentile_interval
from retention_lib.threads import each
from retention_lib.ties import paired


def spearman(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> pd.DataFrame:
    """Spearman's rho on midranks; interval tanh(atanh rho +- z sqrt((1 + rho^2 / 2) / (n - 3))).

    The interval is for continuous scores; with heavy ties bootstrap instead. Samples with NaN in
    either vector are left out. A constant vector, or fewer than 4 samples, gives NaN and keeps n.

    References
    ----------
    Bonett & Wright (2000), Psychometrika 65, 23-28.

    Examples
    --------
    >>> float(spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).estimate[0].round(3))
    0.9
    """
    check_level(level)
    a, b = paired(a, b)
    n, method = len(a), f"Spearman, Bonett-Wright {level:.0%}"
    if n < 4 or np.all(a == a[0]) or np.all(b == b[0]):
        return one_row(np.nan, np.nan, np.nan, n, np.nan, method)
    rho, p = stats.spearmanr(a, b)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    z = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    return one_row(rho, np.tanh(z - half), np.tanh(z + half), n, p, method)


def spearman_grouped(
    a: np.ndarray,
    b: np.ndarray | None,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Spearman's rho on midranks, mean over pairs of runs; interval over groups within class.

    The runs are fixed, images are redrawn; every pair shares the resamples.

    Parameters
    ----------
    a, b : array, (sample,) or (run, sample)
        All pairs (run of a, run of b); with b None, all pairs of runs of a. A sample with NaN in
        any run is left out.
    groups, labels : array, (sample,)
        Whole groups (`resampled.units`) are redrawn within classes.
    rng : Generator

    Returns
    -------
    DataFrame
        One row, `p` NaN; extras `pairs`, `groups`, `draws`, `se` (standard deviation over
        resamples) and `bias` (their mean minus the estimate). NaN where a run is constant or fewer
        than 4 samples are left; no interval where that is so in over 5 % of the resamples.

    Examples
    --------
    >>> a, b = np.array([1, 2, 3, 4, 5, 6.0]), np.array([1, 2, 3, 5, 4, 6.0])
    >>> row = spearman_grouped(a, b, range(6), [0] * 6, np.random.default_rng(0), draws=50)
    >>> round(float(row.estimate[0]), 4), int(row.pairs[0])
    (0.9429, 1)
    """
    check_level(level)
    a = np.atleast_2d(np.asarray(a, float))
    whole = a if b is None else np.vstack([a, np.atleast_2d(np.asarray(b, float))])
    groups, labels = np.asarray(groups), np.asarray(labels)
    if groups.shape != whole.shape[1:] or labels.shape != groups.shape:
        raise ValueError(
            f"a, b, groups and labels must share samples, got {whole.shape[1]} scores, "
            f"{groups.shape} and {labels.shape}"
        )
    known = ~np.isnan(whole).any(0)
    whole, groups, labels = whole[:, known], groups[known], labels[known]
    if b is None:
        first, second = np.triu_indices(len(a), 1)
    else:
        first, second = (i.ravel() for i in np.indices((len(a), len(whole) - len(a))))
        second = second + len(a)
    n, pairs = whole.shape[1], len(first)
    method = f"Spearman, percentile bootstrap over groups within class, {draws} draws, {level:.0%}"
    extras = {"pairs": pairs, "groups": len(np.unique(groups)), "draws": draws}
    if n < 4 or pairs == 0:
        extras |= {"se": np.nan, "bias": np.nan}
        return one_row(np.nan, np.nan, np.nan, n, np.nan, method, **extras)
    ties = [ties_of(score) for score in whole]

    def mean_rho(counts):  # (draw, sample) -> (draw,)
        return _rank_correlations(ties, counts)[:, first, second].mean(1)

    estimate = float(mean_rho(np.ones((1, n)))[0])
    batches = count_batches(groups, labels, rng, draws, 2 * len(whole))
    redrawn = np.concatenate(each(mean_rho, batches, whole.size))
    low, high = percentile_interval(redrawn, level) if np.isfinite(estimate) else (np.nan, np.nan)
    good = redrawn[np.isfinite(redrawn)] if np.isfinite(low) else np.array([np.nan, np.nan])
    extras |= {"se": float(good.std(ddof=1)), "bias": float(good.mean() - estimate)}
    return one_row(estimate, low, high, n, np.nan, method, **extras)


def _rank_correlations(ties: list, counts: np.ndarray) -> np.ndarray:
    """Pearson correlations of midranks (draw, run, run), NaN where a run is constant."""
    total = counts.sum(1)[:, None, None]
    ranks = np.stack([midranks(t, counts) for t in ties], axis=1)  # (draw, run, sample)
    ranks -= (total + 1) / 2  # the mean of midranks, whatever the ties
    moments = (ranks * counts[:, None]) @ ranks.transpose(0, 2, 1)
    spread = np.sqrt(np.maximum(np.diagonal(moments, axis1=1, axis2=2), 0))
    spread = np.where(spread > 1e-9 * total[:, 0], spread, np.nan)
    return moments / (spread[:, :, None] * spread[:, None, :])


def standard_ranks(values: np.ndarray) -> np.ndarray:
    """Midranks with mean 0 and sum of squares 1, (run, sample); NaN for a constant run.

    The product of two such rows, summed over samples, is their Spearman correlation.
    """
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(1, keepdims=True))
    return ranks / np.where(norm > 0, norm, np.nan)


def auc(score: np.ndarray, truth: np.ndarray, level: float = 0.95) -> pd.DataFrame:
    """P(score of a true one > score of another) + P(equal) / 2, with DeLong's interval on logits.

    Parameters
    ----------
    score : array, (sample,)
        NaN is left out.
    truth : array of bool, (sample,)
        For instance planted label noise.

    Returns
    -------
    DataFrame
        One row; `p` two-sided against 0.5 (Mann-Whitney); extra `positives`. Perfect separation
        has no DeLong variance: its bound is then (alpha / 2)^(1 / m), m the smaller group, as for
        m successes in m trials. One group empty: NaN.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44, 837-845.

    Examples
    --------
    >>> float(auc([1, 2, 3, 4], [False, True, False, True]).estimate[0])
    0.75
    """
    check_level(level)
    score, truth = np.asarray(score, float), np.asarray(truth)
    if truth.dtype != bool or truth.shape != score.shape:
        raise ValueError(f"truth must be bool, {score.shape}; got {truth.dtype}, {truth.shape}")
    truth, score = truth[~np.isnan(score)], score[~np.isnan(score)]
    n, n1 = len(score), int(truth.sum())
    n0, method = n - n1, f"AUC on midranks, DeLong (logit) {level:.0%}"
    if min(n0, n1) == 0:
        return one_row(np.nan, np.nan, np.nan, n, np.nan, method, positives=n1)
    rank = stats.rankdata(score)
    above = (rank[truth] - stats.rankdata(score[truth])) / n0  # (positive,) share of others beaten
    below = 1 - (rank[~truth] - stats.rankdata(score[~truth])) / n1  # (negative,)
    value = float(above.mean())
    p = stats.mannwhitneyu(score[truth], score[~truth]).pvalue if np.ptp(rank) else 1.0
    edge = ((1 - level) / 2) ** (1 / min(n0, n1))
    if value in (0.0, 1.0):
        low, high = (edge, 1.0) if value else (0.0, 1 - edge)
    elif min(n0, n1) == 1:
        low = high = np.nan
    else:
        se = np.sqrt(above.var(ddof=1) / n1 + below.var(ddof=1) / n0)
        half = stats.norm.ppf((1 + level) / 2) * se / (value * (1 - value))
        low, high = special.expit(special.logit(value) + np.array([-half, half]))
    return one_row(value, low, high, n, p, method, positives=n1)
