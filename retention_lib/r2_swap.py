"""Is mean R^2 the same under two architectures? Labels are swapped on the samples they share."""

from __future__ import annotations

import numpy as np

from retention_lib.intervals import permutation_p
from retention_lib.risk import BLOCK, group_codes, quotient


def swap_p(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1999,
) -> float:
    """Two-sided p of "mean R^2 does not depend on the architecture".

    The statistic is the difference of the means over seeds of each run's mean over traces that have
    an R^2. Under the null hypothesis the two architectures' fits of a group could as well have been
    each other's: per draw the labels of each group are swapped or not, all of its samples and seeds
    together. Conditional on the runs, like `label_swap.label_swap`.

    Parameters
    ----------
    first, second : ndarray, (run, sample)
        R^2, NaN for constant traces; as many runs of the one as of the other.
    groups : array, (sample,)
    draws : int

    Returns
    -------
    float
        (b + 1) / (draws + 1); NaN if some run has only constant traces.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> a = np.tile([[0.1, 0.2, 0.3, 0.4]], (1, 5))
    >>> swap_p(a, a + 0.1, np.arange(20), np.random.default_rng(0), draws=99)
    0.01
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            "first and second must be (run, sample) of the same shape, got "
            f"{first.shape} and {second.shape}"
        )
    code, n_groups = group_codes(groups, first.shape[1])
    table = np.hstack([_sums(x, code, n_groups) for x in (first, second)])
    half = table.shape[1] // 2
    if not (table.sum(0)[_counts(half)] > 0).all():
        return np.nan
    change = np.roll(table, half, axis=1) - table  # what swapping a group does to its sums
    null = []
    for start in range(0, draws, max(1, BLOCK // n_groups)):
        size = (min(max(1, BLOCK // n_groups), draws - start), n_groups)
        swap = rng.integers(0, 2, size).astype(float)
        null.append(_difference(table.sum(0) + swap @ change))
    return permutation_p(float(_difference(table.sum(0))), np.concatenate(null), "two-sided")


def _sums(r2: np.ndarray, code: np.ndarray, n_groups: int) -> np.ndarray:
    """Total R^2 and number of traces that have one, per group: (group, 2 x run)."""
    known = np.isfinite(r2)
    columns = [np.bincount(code, np.nan_to_num(row), n_groups) for row in r2]
    return np.stack([*columns, *(np.bincount(code, row, n_groups) for row in known)], axis=1)


def _counts(half: int) -> np.ndarray:
    """Columns that hold numbers of traces."""
    return np.r_[half // 2 : half, half + half // 2 : 2 * half]


def _difference(totals: np.ndarray) -> np.ndarray:
    """Second minus first, from totals (..., 4 x run): sums, counts of each in turn."""
    sum_a, n_a, sum_b, n_b = np.split(totals, 4, axis=-1)
    return quotient(sum_b, n_b).mean(-1) - quotient(sum_a, n_a).mean(-1)
