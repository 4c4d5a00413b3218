"""Do several raters put items in the same order? Kendall's W and ICC of class means.

Ratings are (rater, item): a run is a rater, a class an item.
"""

from __future__ import annotations

from math import factorial

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.checks import check_level
from retention_lib.intervals import one_row, permutation_p, t_interval
from retention_lib.semantics import ALL_ORDERS, orders

#: Up to so many combinations of orders all are gone through.
_ALL = 50_000


def kendall_w(
    ratings: np.ndarray, rng: np.random.Generator | None = None, draws: int = 1999
) -> pd.DataFrame:
    r"""Kendall's coefficient of concordance of m raters over n items, corrected for ties.

    With R_i the sum of item i's midranks and t the sizes of a rater's groups of ties,

    .. math:: W = \frac{12 \sum_i (R_i - \bar R)^2}{m^2 (n^3 - n) - m \sum_j \sum_t (t^3 - t)}.

    Parameters
    ----------
    ratings : array, (rater, item)
        No NaN.
    rng : Generator, optional
        Without it `p` is the chi-square one.
    draws : int

    Returns
    -------
    DataFrame
        One row without an interval (NaN), W in 0..1, `n` items; extras `raters`, `p_chi2` from
        m (n - 1) W with n - 1 degrees of freedom (too large for few raters or items), `p` by
        permuting every rater's items on their own: all combinations of orders up to 50,000, else
        `draws` random ones. NaN with one rater, with fewer than 2 items or if all is tied.

    References
    ----------
    Kendall & Gibbons (1990), Rank Correlation Methods, 5th ed., ch. 6.

    Examples
    --------
    >>> round(float(kendall_w([[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]])
    ...             .estimate[0]), 3)  # Siegel (1956), table 9.7
    0.162
    """
    ranks = _ranks(ratings)
    (m, n), w = ranks.shape, float(concordance(ranks.sum(0), ranks))
    extras = {"raters": m, "p_chi2": np.nan}
    if not np.isfinite(w):
        return one_row(np.nan, np.nan, np.nan, n, np.nan, "Kendall's W: undefined", **extras)
    extras["p_chi2"] = p = float(stats.chi2.sf(m * (n - 1) * w, n - 1))
    how = "chi-square"
    if rng is not None:
        if n <= ALL_ORDERS and factorial(n) ** (m - 1) <= _ALL:
            every, how = _all_sums(ranks), f"all {factorial(n)}^{m - 1} combinations of orders"
            null = concordance(every[1:], ranks)  # the first is the observed one
        else:
            how, sums = f"{draws} random orders", np.zeros((draws, n))
            for row in ranks:
                sums += rng.permuted(np.tile(row, (draws, 1)), axis=1)
            null = concordance(sums, ranks)
        p = permutation_p(w, null)
    return one_row(w, np.nan, np.nan, n, p, f"Kendall's W with ties, {how}", **extras)


def _ranks(ratings) -> np.ndarray:
    ratings = np.asarray(ratings, float)
    if ratings.ndim != 2 or np.isnan(ratings).any():
        raise ValueError(
            f"ratings must be (rater, item) without NaN, got shape {ratings.shape} with "
            f"{np.isnan(ratings).sum()} NaN"
        )
    return stats.rankdata(ratings, axis=1)


def concordance(sums: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """W of rank sums (..., item) of raters with midranks (rater, item); NaN if undefined."""
    m, n = ranks.shape
    # sum of squared deviations of a rater's midranks = (n^3 - n - sum(t^3 - t)) / 12
    largest = m * ((ranks - (n + 1) / 2) ** 2).sum()
    if m < 2 or largest == 0:
        return np.full(sums.shape[:-1], np.nan)
    return ((sums - m * (n + 1) / 2) ** 2).sum(-1) / largest


def concordances(means: np.ndarray) -> np.ndarray:
    """W of the ratings (..., rater, item), each with its own ties; NaN if undefined or NaN in it.

    Examples
    --------
    >>> concordances([[[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]]]).tolist()
    [1.0, 0.0]
    """
    means = np.asarray(means, float)
    m, n = means.shape[-2:]
    ranks = stats.rankdata(means, axis=-1, nan_policy="propagate") - (n + 1) / 2
    largest = m * (ranks**2).sum((-1, -2))
    largest = np.where((largest > 0) & (m > 1), largest, np.nan)
    return (ranks.sum(-2) ** 2).sum(-1) / largest


def rounded_concordances(means: np.ndarray) -> np.ndarray:
    """`concordances` of class means: sums taken in another order are no other rank."""
    return concordances(np.round(means, 9))


def _all_sums(ranks: np.ndarray) -> np.ndarray:
    """Rank sums of every combination of orders, (combination, item), the observed one first."""
    n = ranks.shape[1]
    order = np.vstack([np.arange(n), orders(n, np.random.default_rng(0), 1)[0]])  # all, no draw
    sums = ranks[:1]
    for row in ranks[1:]:
        sums = (sums[:, None] + row[order][None]).reshape(-1, n)
    return sums


def icc_of_means(ratings: np.ndarray, level: float = 0.95) -> pd.DataFrame:
    """ICC(C, 1), consistency of single raters: two-way, a rater's own level does not count.

        (MS_item - MS_error) / (MS_item + (m - 1) MS_error)

    Parameters
    ----------
    ratings : array, (rater, item)
        For instance class means of a score, (run, class). No NaN.

    Returns
    -------
    DataFrame
        One row with the F interval and the F test of 0; `n` items, extra `raters`. NaN where there
        are fewer than 2 of either or nothing varies.

    References
    ----------
    McGraw & Wong (1996), Psychological Methods 1, 30-46.

    Examples
    --------
    >>> float(icc_of_means([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0]]).estimate[0].round(6))
    1.0
    """
    check_level(level)
    x = np.asarray(ratings, float)
    _ranks(x)
    m, n = x.shape
    method, extras = f"ICC(C,1) of class means, F {level:.0%}", {"raters": m}
    if m < 2 or n < 2 or np.ptp(x) == 0:
        return one_row(np.nan, np.nan, np.nan, n, np.nan, method, **extras)
    rest = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    items, error = m * x.mean(0).var(ddof=1), (rest**2).sum() / ((n - 1) * (m - 1))
    value = (items - error) / (items + (m - 1) * error)
    f, dof = items / error if error > 0 else np.inf, (n - 1, (n - 1) * (m - 1))
    low = f / stats.f.ppf((1 + level) / 2, *dof)
    high = f * stats.f.ppf((1 + level) / 2, *dof[::-1])
    ends = [1.0 if np.isinf(v) else (v - 1) / (v + m - 1) for v in (low, high)]
    return one_row(value, *ends, n, stats.f.sf(f, *dof), method, **extras)


def rank_correlations(means: np.ndarray) -> np.ndarray:
    """Spearman's rho of every two runs, (..., run, run), of class means (..., run, class).

    NaN in the rows and columns of a run whose classes are all tied, or that lacks a class.

    Examples
    --------
    >>> rank_correlations(np.array([[1.0, 2.0, 5.0], [3.0, 2.0, 1.0]]))[0, 1].round(6)
    np.float64(-1.0)
    """
    means = np.asarray(means, float)
    ranks = stats.rankdata(means, axis=-1, nan_policy="propagate")
    ranks = ranks - ranks.mean(-1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(-1, keepdims=True))
    ranks = ranks / np.where(norm > 0, norm, np.nan)
    return ranks @ np.swapaxes(ranks, -1, -2)


def as_w(rho: float, raters: int) -> float:
    """Kendall's W of raters whose rank correlations have this mean: (1 + (m - 1) rho) / m."""
    return float((1 + (raters - 1) * rho) / raters)


def agreement_ceiling(means: np.ndarray, arch: np.ndarray) -> float:
    r"""W if architectures ordered the classes alike, but for what seeds differ in; NaN for one.

    With mean rank correlations r_a within architectures, those between two become
    :math:`\sqrt{r_a r_b}`; W = (1 + (m - 1) mean r) / m. NaN where some r_a is negative or has a
    single seed.

    Parameters
    ----------
    means : array, (run, class)
    arch : array, (run,)
    """
    rho, names = rank_correlations(means), list(dict.fromkeys(arch))
    first, second = np.triu_indices(len(arch), 1)
    within = {}
    for name in names:
        of = rho[first, second][(arch[first] == name) & (arch[second] == name)]
        within[name] = of.mean() if len(of) else np.nan
    if len(names) < 2 or not min(within.values()) >= 0 or np.isnan(list(within.values())).any():
        return np.nan
    same = arch[first] == arch[second]
    root = np.sqrt([within[a] * within[b] for a, b in zip(arch[first], arch[second], strict=True)])
    return as_w(np.where(same, rho[first, second], root).mean(), len(arch))


def without_each_seed(means: np.ndarray, seeds: np.ndarray, level: float = 0.95) -> dict:
    """How far W rests on single seeds: jackknife that leaves out all runs of one seed.

    W depends on how many raters there are, (1 + (m - 1) r) / m, so that the mean rank correlation r
    is jackknifed and brought back to W of all m runs.

    Returns
    -------
    dict
        `seed_low`, `seed_high` (t over pseudo-values, cut at 0 and 1; NaN with fewer than two seeds
        or two runs left), `seeds`, and the smallest and largest W without one seed, at all m runs,
        `left_low`, `left_high`.
    """
    m, names = len(means), np.unique(seeds)
    left = np.array([_mean_rho(means[seeds != s]) for s in names])
    out = {"seed_low": np.nan, "seed_high": np.nan, "seeds": len(names)}
    if len(names) < 2 or np.isnan(left).any():
        return out | {"left_low": np.nan, "left_high": np.nan}
    row = t_interval(len(names) * _mean_rho(means) - (len(names) - 1) * left, level).iloc[0]
    ends = [min(1.0, max(0.0, as_w(v, m))) for v in (row["ci_low"], row["ci_high"])]
    out["seed_low"], out["seed_high"] = ends
    return out | {"left_low": as_w(left.min(), m), "left_high": as_w(left.max(), m)}


def _mean_rho(means: np.ndarray) -> float:
    upper = np.triu_indices(len(means), 1)
    return float(rank_correlations(means)[upper].mean()) if len(means) > 1 else np.nan
