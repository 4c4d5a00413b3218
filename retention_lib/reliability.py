"""How well one run's scores stand for another's: ICC, Spearman-Brown, seeds needed, split halves.

A score is one number per run and sample; the runs are seeds of one architecture. All quantities
follow from the runs' means and covariances over samples (`run_moments.moments`).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.checks import check_level
from retention_lib.intervals import one_row
from retention_lib.run_moments import SCALES, Moments, check_scores, moments, percentile_row
from retention_lib.simulated_study import misalign

_MOST_RUNS = 12  # 12 runs split in halves in 462 ways, 20 in 92,378


def _icc(m: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ICC(1), ICC(k) and F of every draw; NaN with one run or one sample, or if nothing varies."""
    k = m.mean.shape[1]
    common = m.cov.sum((1, 2)) / k  # k times the variance of a sample's mean over runs
    shift = ((m.mean - m.mean.mean(1, keepdims=True)) ** 2).sum(1)
    whole = np.trace(m.cov, axis1=1, axis2=2)
    inside = whole - common + shift  # k - 1 times the mean square within samples
    with np.errstate(divide="ignore", invalid="ignore"):
        between = common * m.n / (m.n - 1)
        within = np.where(inside > 1e-14 * (whole + shift), inside, 0) / (k - 1)
        one = (between - within) / (between + (k - 1) * within)
        return one, (between - within) / between, between / within


def icc(
    scores: np.ndarray,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Intraclass correlation of one run, ICC(1), and of the mean of k, on scores and on midranks.

    One-way random effects: with mean squares B between and W within samples,

        ICC(1) = (B - W) / (B + (k - 1) W),    ICC(k) = (B - W) / B,    F = B / W.

    ICC(1) is the share of variance that a sample has in common with itself in another run; what
    runs differ by as a whole counts as error on the score and is absent from midranks.

    Parameters
    ----------
    scores : array, (run, sample)
        Runs (seeds) of one architecture.
    groups, labels : array, (sample,)
    rng : Generator
    draws : int
    level : float

    Returns
    -------
    DataFrame
        Four rows, `quantity` ICC(1) and ICC(k) by `scale` score and midranks. The interval is the
        percentile bootstrap over groups within class; `f_low, f_high` is the exact one for normal
        scores of independent samples, which zero-inflated counts are not; `p` is that of F on
        `df1, df2`. Extras `runs`, `groups`, `draws`, `failed`, and `control`: the estimate after
        each run's samples were permuted by position, near 0. NaN with one run, or if nothing
        varies.

    References
    ----------
    Shrout & Fleiss (1979), Psychological Bulletin 86, 420-428.

    Examples
    --------
    >>> x = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 5.0]])
    >>> rows = icc(x, range(4), np.zeros(4), np.random.default_rng(0), draws=50)
    >>> float(rows.estimate[0].round(3))  # B = 4.458, W = 0.125
    0.945
    """
    check_level(level)
    scores = check_scores(scores, labels)
    (k, n), wrong = scores.shape, misalign(scores, rng)
    df1, df2, n_groups = n - 1, n * (k - 1), len(np.unique(groups))
    rows = []
    for scale in SCALES:
        values = _icc(moments(scores, groups, labels, rng, draws, scale))
        controls = _icc(moments(wrong, groups, labels, rng, 0, scale))
        f = values[2][0]
        low, high, p = np.nan, np.nan, np.nan
        if np.isfinite(values[0][0]):
            low = f / stats.f.ppf((1 + level) / 2, df1, df2)
            high = f * stats.f.ppf((1 + level) / 2, df2, df1)
            p = stats.f.sf(f, df1, df2)
        exact = {"ICC(1)": lambda x: 1 - k / (x + k - 1), "ICC(k)": lambda x: 1 - 1 / x}
        for (name, of), value, control in zip(exact.items(), values[:2], controls[:2], strict=True):
            extras = {"quantity": name, "scale": scale, "runs": k, "f": f, "df1": df1, "df2": df2}
            extras |= {"f_low": of(low), "f_high": of(high), "control": float(control[0])}
            extras["groups"] = n_groups
            rows.append(percentile_row(value, n, f"{name} of {scale}", level, p, **extras))
    return pd.concat(rows, ignore_index=True)


def spearman_brown(r, k) -> np.ndarray:
    """Reliability of the mean of k runs, k r / (1 + (k - 1) r), from that of one; k may be < 1.

    NaN where r is so negative that the denominator is not positive.

    References
    ----------
    Spearman (1910), British Journal of Psychology 3, 271-295; Brown (1910), the same, 296-322.

    Examples
    --------
    >>> float(spearman_brown(0.5, 4))
    0.8
    """
    r, k = np.asarray(r, float), np.asarray(k, float)
    below = 1 + (k - 1) * r
    return np.where(below > 0, k * r / np.where(below > 0, below, 1), np.nan)


def spearman_brown_curve(row: pd.DataFrame | pd.Series, seeds=range(1, 31)) -> pd.DataFrame:
    """Reliability of the mean over 1, 2, ... seeds, from a row of ICC(1).

    Returns
    -------
    DataFrame
        `seeds`, `reliability`, `low`, `high`: the row's interval taken through the same formula,
        its ends cut off at 0, the least a reliability can be.
    """
    row, seeds = _one(row), np.asarray(list(seeds))
    ends = [spearman_brown(np.maximum(row[end], 0), seeds) for end in ("ci_low", "ci_high")]
    names = ("seeds", "reliability", "low", "high")
    curve = (seeds, spearman_brown(row["estimate"], seeds), *ends)
    return pd.DataFrame(dict(zip(names, curve, strict=True)))


def seeds_needed(row: pd.DataFrame | pd.Series, target: float = 0.8) -> pd.DataFrame:
    """Seeds to average for a reliability of `target`: target (1 - r) / ((1 - target) r).

    Parameters
    ----------
    row : one-row DataFrame or Series
        Of ICC(1), or of another reliability of one run: `estimate, ci_low, ci_high, n`.
    target : float
        In (0, 1).

    Returns
    -------
    DataFrame
        One row, not rounded; extra `seeds`, the estimate rounded up (NaN, or at least 1). If the
        interval of r includes 0 any number of seeds may be too few: everything is NaN and `method`
        says "not estimable".

    Examples
    --------
    >>> row = one_row(0.5, 0.4, 0.6, 100, np.nan, "ICC(1)")
    >>> seeds_needed(row)[["estimate", "seeds"]].values.round(9).tolist()
    [[4.0, 4.0]]
    """
    if not 0 < target < 1:
        raise ValueError(f"target must lie between 0 and 1, got {target!r}")
    row = _one(row)
    method = f"Spearman-Brown, for a reliability of {target:g}"
    if not row["ci_low"] > 0:
        method = f"not estimable: the interval of the reliability includes 0; {method}"
        return one_row(np.nan, np.nan, np.nan, row["n"], np.nan, method, seeds=np.nan)
    r = row[["estimate", "ci_high", "ci_low"]].to_numpy(float)
    k, low, high = np.maximum(target * (1 - r) / ((1 - target) * r), 0)
    seeds = max(1.0, np.ceil(k - 1e-9))  # 4.000000001 is 4
    return one_row(k, low, high, row["n"], np.nan, method, seeds=seeds)


def _one(row: pd.DataFrame | pd.Series) -> pd.Series:
    if isinstance(row, pd.DataFrame):
        if len(row) != 1:
            raise ValueError(f"row must be one row, got {len(row)}")
        row = row.iloc[0]
    return row


def split_half(
    scores: np.ndarray,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    scale: str = "midranks",
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Reliability of the mean of all k runs, from the correlation of two halves of them.

    r is the mean, over all ways to choose two disjoint sets of h = floor(k / 2) runs, of the
    correlation of the sets' mean scores; `spearman_brown` takes it from h runs to k. No model of
    equal variances or means of runs is behind it, unlike ICC.

    Parameters
    ----------
    scores : array, (run, sample)
        2 to 12 runs of one architecture.
    scale : {"score", "midranks"}

    Returns
    -------
    DataFrame
        One row, bootstrap over groups within class; extras `scale`, `runs`, `splits`, `half` (r),
        `one_run` (r taken to a single run) and `control` (the estimate after runs were misaligned).

    Examples
    --------
    >>> x = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 5.0]])
    >>> row = split_half(x, range(4), np.zeros(4), np.random.default_rng(0), "midranks", 50)
    >>> float(row.estimate[0])
    1.0
    """
    check_level(level)
    scores = check_scores(scores, labels)
    k = len(scores)
    if not 2 <= k <= _MOST_RUNS:
        raise ValueError(f"split halves need 2 to {_MOST_RUNS} runs, got {k}")
    wrong, h = misalign(scores, rng), k // 2
    half = _half_correlation(moments(scores, groups, labels, rng, draws, scale).cov)
    control = _half_correlation(moments(wrong, groups, labels, rng, 0, scale).cov)
    extras = {"scale": scale, "runs": k, "splits": len(_halves(k)[0]), "half": half[0]}
    extras |= {"one_run": float(spearman_brown(half[0], 1 / h))}
    extras |= {"control": float(spearman_brown(control[0], k / h))}
    name = f"split halves of {scale}, Spearman-Brown"
    return percentile_row(spearman_brown(half, k / h), len(labels), name, level, **extras)


def _halves(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indicators (split, run) of two disjoint sets of floor(k / 2) runs, each pair once."""
    first, second = [], []
    for a in combinations(range(k), k // 2):
        rest = [run for run in range(k) if run not in a]
        for b in combinations(rest, k // 2):
            if a < b:
                first.append(np.isin(np.arange(k), a))
                second.append(np.isin(np.arange(k), b))
    return np.array(first, float), np.array(second, float)


def _half_correlation(cov: np.ndarray) -> np.ndarray:
    """Mean correlation of the halves' sums for covariances (draw, run, run); NaN if constant."""
    first, second = _halves(cov.shape[1])
    a, b = first @ cov, second @ cov  # (draw, split, run)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (a * second).sum(2) / np.sqrt((a * first).sum(2) * (b * second).sum(2))
    return r.mean(1)
