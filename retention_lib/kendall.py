"""Kendall's tau-b in O(n log^2 n), with an interval that holds under ties and grouped samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.checks import check_level
from retention_lib.intervals import one_row
from retention_lib.resampled import homes
from retention_lib.ties import paired


def kendall(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Kendall's tau-b with an asymptotic interval that holds under ties and dependence.

        tau_b = S / sqrt(T_a T_b),

    S the sum over ordered pairs of samples of sign(a_i - a_j) sign(b_i - b_j), T_a and T_b the
    numbers of ordered pairs not tied in a and in b.

    Parameters
    ----------
    a, b : array, (sample,)
        Samples with NaN in either are left out.
    groups : array, (sample,), optional
        Samples of one group are dependent: their contributions are summed before they are squared.
    labels : array, (sample,), optional
        Classes: variance is taken between groups within a class, as by a bootstrap within classes.

    Returns
    -------
    DataFrame
        One row; `p` two-sided for independence, with scipy's correction for ties (NaN with
        groups or labels, for which it does not hold); extras `se`, `groups`. NaN if a vector is
        constant or fewer than 4 samples are left.

    Notes
    -----
    Every sample's contribution is the derivative of tau_b by its weight (Hajek projection of the
    three sums); their sum of squares estimates the variance, and the interval is
    tanh(atanh tau +- z se / (1 - tau^2)). Contributions need every sample's number of concordant
    pairs, counted in O(n log^2 n) by merging sorted blocks. At tau_b = +-1 the interval is a point.

    References
    ----------
    Brown & Benedetti (1977), JASA 72, 309-315 (the asymptotic variance without groups).

    Examples
    --------
    >>> row = kendall([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])
    >>> round(float(row.estimate[0]), 6)
    0.8
    """
    check_level(level)
    keep = ~(np.isnan(np.asarray(a, float)) | np.isnan(np.asarray(b, float)))
    a, b = paired(a, b)
    n, plain = len(a), groups is None and labels is None
    groups = np.arange(n) if groups is None else _kept(groups, keep, "groups")
    labels = np.zeros(n, int) if labels is None else _kept(labels, keep, "labels")
    n_groups = len(np.unique(groups))
    method = f"Kendall tau-b, asymptotic over {'samples' if plain else 'groups'}, {level:.0%}"
    if n < 4 or np.all(a == a[0]) or np.all(b == b[0]):
        extras = {"se": np.nan, "groups": n_groups}
        return one_row(np.nan, np.nan, np.nan, n, np.nan, method, **extras)
    tau, p = stats.kendalltau(a, b)
    a, b = (stats.rankdata(x, "dense") for x in (a, b))
    concordant = both_below(a, b) + both_below(-a, -b)
    discordant = both_below(a, -b) + both_below(-a, b)
    untied = [n - np.bincount(x)[x] for x in (a, b)]  # (sample,) others not tied with it
    relative = [x / x.mean() - 1 for x in untied]
    scale = np.sqrt(untied[0].mean() * untied[1].mean())
    part = 2 * ((concordant - discordant) / scale - tau) - tau * (relative[0] + relative[1])
    se = np.sqrt(_variance_of_sum(part / n, groups, labels))
    half = stats.norm.ppf((1 + level) / 2) * se / max(1 - tau**2, 1e-300)
    z = np.arctanh(np.clip(tau, -1 + 1e-15, 1 - 1e-15))
    low, high = (np.tanh(z - half), np.tanh(z + half)) if abs(tau) < 1 - 1e-12 else (tau, tau)
    return one_row(tau, low, high, n, p if plain else np.nan, method, se=float(se), groups=n_groups)


def _kept(values, keep: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != keep.shape:
        raise ValueError(f"{name} must have shape {keep.shape}, got {values.shape}")
    return values[keep]


def _variance_of_sum(parts: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> float:
    """Variance of the sum over redrawn groups: sum over classes of m / (m - 1) times squares.

    A group in several classes counts with its most frequent one, as in `intervals.resamples`; a
    class with one group adds nothing, for it is always redrawn as it is.
    """
    group, home = homes(groups, labels)
    total = np.bincount(group, parts)  # (group,)
    m = np.bincount(home)
    mean = np.bincount(home, total) / m
    square = np.bincount(home, (total - mean[home]) ** 2)
    return float(np.sum(square * m / np.maximum(m - 1, 1)))


def both_below(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For every sample, how many others are smaller in a and in b, (sample,).

    Samples in rising order of a (falling b among ties) are merged in blocks of 2, 4, 8, ...: a
    sample of a right half gains the number of smaller b in the left half.
    """
    n = len(a)
    order = np.lexsort((-b, a))
    value, below = b[order], np.zeros(n, int)
    place, width = np.arange(n), 1
    while width < n:
        block, right = place // (2 * width), place // width % 2
        merged = np.lexsort((-right, value, block))  # right first among equal b: not smaller
        left_so_far = np.cumsum(1 - right[merged])
        start = np.searchsorted(block[merged], np.arange(block[-1] + 1))
        before = np.append(0, left_so_far)[start][block[merged]]
        here = right[merged] == 1
        below[merged[here]] += (left_so_far - before)[here]
        width *= 2
    out = np.empty(n, int)
    out[order] = below
    return out
