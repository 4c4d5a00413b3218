"""How sure a number is: bootstrap over groups, t over seeds, permutation p-values, Holm.

Two sources of uncertainty are kept apart. `bootstrap` redraws images and holds the trained networks
fixed; `t_interval` takes a few seeds as draws from all seeds. Neither covers the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from retention_lib.checks import check_level
from retention_lib.resampled import homes
from retention_lib.threads import each

#: Columns that every one-row result starts with.
RESULT_COLUMNS = ("estimate", "ci_low", "ci_high", "n", "p", "method")


def one_row(estimate, ci_low, ci_high, n, p, method: str, **extras) -> pd.DataFrame:
    """One tidy row `estimate, ci_low, ci_high, n, p, method, ...extras`, unrounded.

    NaN means that the quantity cannot be had from these data; `n` is then still the n received.

    Examples
    --------
    >>> one_row(0.3, 0.1, 0.5, 40, np.nan, "t", seeds=3).shape
    (1, 7)
    """
    values = (float(estimate), float(ci_low), float(ci_high), int(n), float(p), method)
    return pd.DataFrame([dict(zip(RESULT_COLUMNS, values, strict=True)) | extras])


def resamples(
    groups: np.ndarray, strata: np.ndarray, rng: np.random.Generator, draws: int
) -> Iterator[np.ndarray]:
    """Index sets of a bootstrap that redraws whole groups within each stratum.

    Parameters
    ----------
    groups : array, (sample,)
        What belongs together: the patient where there is one, else the sample itself.
    strata : array, (sample,)
        The class. A group that spans classes counts, as a whole, with its most frequent one (the
        smaller at a tie), so that a patient is never torn apart.
    rng : Generator
    draws : int

    Yields
    ------
    ndarray of int
        Rows of one resample. Every stratum gives as many groups as it has; the number of rows
        varies when groups differ in size.

    Examples
    --------
    >>> rows = next(resamples([0, 0, 1], [5, 5, 5], np.random.default_rng(0), 1))
    >>> set(rows.tolist()) <= {0, 1, 2}
    True
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws!r}")
    group, home = homes(groups, strata)
    by_group = np.argsort(group, kind="stable")  # rows, group after group
    size, pool = np.bincount(group), np.bincount(home)
    start = np.cumsum(size) - size
    by_home = np.argsort(home, kind="stable")  # groups, stratum after stratum
    first = (np.cumsum(pool) - pool)[home[by_home]]
    pool, alone = pool[home[by_home]], len(size) == len(group)  # every group is one sample
    groups = by_group[by_home] if alone else by_home
    for _ in range(draws):
        rows = groups[first + rng.integers(pool)]
        if not alone:
            length, begin = size[rows], start[rows]
            begin -= np.cumsum(length) - length  # place in the group + 0, 1, ... of all rows
            rows = by_group[np.repeat(begin, length) + np.arange(length.sum())]
        yield rows


def bootstrap(
    statistic: Callable[[np.ndarray], float | dict[str, float]],
    groups: np.ndarray,
    strata: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Percentile interval of a statistic over groups redrawn within classes (`resamples`).

    Conditional on the runs: says nothing of what other seeds would have given.

    Parameters
    ----------
    statistic : callable
        Takes row indices, returns a number, or a dict of numbers that share the resamples. It must
        accept repeated rows.
    groups, strata : array, (sample,)
    rng : Generator
    draws : int
    level : float

    Returns
    -------
    DataFrame
        One row, or one per key with the column `quantity`. `estimate` is the statistic of the
        rows as they are; `n` counts samples; extras: `groups`, `draws`, `se` (standard deviation
        over resamples), `bias` (mean over resamples minus estimate) and `failed` (resamples where
        the statistic was NaN; they are left out, and the interval is NaN if they exceed 5 %). `p`
        is NaN: an interval is not a test.

    References
    ----------
    Davison & Hinkley (1997), Bootstrap Methods and their Application, 3.2 and 3.8.

    Examples
    --------
    >>> x = np.arange(50.0)
    >>> row = bootstrap(lambda rows: x[rows].mean(), np.arange(50), np.zeros(50),
    ...                 np.random.default_rng(0), draws=200)
    >>> bool(row.ci_low[0] < row.estimate[0] == 24.5 < row.ci_high[0])
    True
    """
    check_level(level)
    observed = statistic(np.arange(len(groups)))
    many = isinstance(observed, dict)
    keys = list(observed) if many else [""]
    values = each(statistic, resamples(groups, strata, rng, draws), len(groups))
    redrawn = np.array([[v[k] for k in keys] if many else [v] for v in values], float)
    n_groups = len(np.unique(np.asarray(groups)))
    method = f"percentile bootstrap over groups within class, {draws} draws, {level:.0%}"
    tail = 50 * (1 - level)
    rows = []
    for column, key in zip(redrawn.T, keys, strict=True):
        estimate = float(observed[key] if many else observed)
        good = column[np.isfinite(column)]
        usable = np.isfinite(estimate) and len(good) >= max(2, 0.95 * draws)
        low, high = np.percentile(good, [tail, 100 - tail]) if usable else (np.nan, np.nan)
        extras = {
            "groups": n_groups,
            "draws": draws,
            "se": float(good.std(ddof=1)) if usable else np.nan,
            "bias": float(good.mean() - estimate) if usable else np.nan,
            "failed": draws - len(good),
        }
        row = one_row(estimate, low, high, len(groups), np.nan, method, **extras)
        if many:
            row.insert(0, "quantity", key)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


def t_interval(values: np.ndarray, level: float = 0.95, null: float | None = None) -> pd.DataFrame:
    """Mean over a few seeds with Student's interval: mean +- t(n - 1) s / sqrt(n).

    Parameters
    ----------
    values : array, (seed,)
        One number per seed; NaN is left out.
    level : float
    null : float, optional
        Mean to be tested against, two-sided; without it `p` is NaN.

    Returns
    -------
    DataFrame
        One row; `n` counts seeds; extra `sd`. Fewer than two seeds have no interval (NaN).

    Examples
    --------
    >>> row = t_interval([1.0, 2.0, 3.0])
    >>> round(float(row.ci_high[0]), 3)  # 2 + 4.3027 / sqrt(3)
    4.484
    """
    check_level(level)
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    n, method = len(values), f"t over seeds, {level:.0%}"
    if n < 2:
        return one_row(values[0] if n else np.nan, np.nan, np.nan, n, np.nan, method, sd=np.nan)
    mean, sd = values.mean(), values.std(ddof=1)
    half = stats.t.ppf((1 + level) / 2, n - 1) * sd / np.sqrt(n)
    p = np.nan
    if null is not None and sd > 0:
        p = 2 * stats.t.sf(abs(mean - null) / (sd / np.sqrt(n)), n - 1)
    return one_row(mean, mean - half, mean + half, n, p, method, sd=float(sd))


def permutation_p(observed: float, null: np.ndarray, alternative: str = "greater") -> float:
    """p = (b + 1) / (m + 1), b of m null values being at least as extreme as the observed one.

    Values within 1e-12 (relative) count as equal. NaN if `observed` or any null value is NaN.

    Parameters
    ----------
    observed : float
    null : array, (draw,)
    alternative : {"greater", "less", "two-sided"}
        Two-sided doubles the smaller tail, at most 1.

    References
    ----------
    Phipson & Smyth (2010), Permutation p-values should never be zero.

    Examples
    --------
    >>> permutation_p(3.0, [0.0, 1.0, 2.0])
    0.25
    """
    null = np.asarray(null, float)
    if null.ndim != 1 or len(null) == 0:
        raise ValueError(f"null must hold at least one draw, got shape {null.shape}")
    if alternative not in ("greater", "less", "two-sided"):
        raise ValueError(
            f"alternative must be 'greater', 'less' or 'two-sided', got {alternative!r}"
        )
    if not np.isfinite(observed) or not np.isfinite(null).all():
        return float("nan")
    slack = 1e-12 * max(1.0, abs(observed))  # equal values may differ in the last bit
    upper = (np.sum(null >= observed - slack) + 1) / (len(null) + 1)
    lower = (np.sum(null <= observed + slack) + 1) / (len(null) + 1)
    both = min(1.0, 2 * min(upper, lower))
    return float({"greater": upper, "less": lower, "two-sided": both}[alternative])


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values of one family of tests; NaN stays NaN and is not counted.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    known = np.isfinite(p)
    if p.ndim != 1 or np.any((p[known] < 0) | (p[known] > 1)):
        raise ValueError(f"p must be a list of numbers in 0..1, got {p!r}")
    adjusted = np.full(len(p), np.nan)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted
