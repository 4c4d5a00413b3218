"""Are similar classes the ones that are forgotten, and confused with each other? Permutation tests.

The classes are the units: what is permuted is which row and column of a distance matrix belongs to
which class, so that pairs that share a class move together.
"""

from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from retention_lib.intervals import one_row, permutation_p
from retention_lib.rank_agreement import spearman
from retention_lib.similarity import neighbours, off_diagonal

#: All orders of so many classes are gone through; of more, random ones are drawn.
ALL_ORDERS = 7


def orders(k: int, rng: np.random.Generator, draws: int) -> tuple[np.ndarray, str]:
    """Permutations of k classes, (draw, class), the identity left out; and what they are in words.

    All of them up to `ALL_ORDERS` classes, else `draws` random ones. As the observed order is the
    one that is left out, (b + 1) / (m + 1) is the exact p-value in the first case.
    """
    if k <= ALL_ORDERS:
        return np.array(list(permutations(range(k))))[1:], f"all {factorial(k)} orders of classes"
    return rng.permuted(np.tile(np.arange(k), (draws, 1)), axis=1), f"{draws} orders of classes"


def forgetting_by_distance(
    class_scores: np.ndarray,
    distances: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1999,
    nearest: int = 3,
) -> pd.DataFrame:
    """Are classes with close neighbours forgotten more? Spearman over classes.

    Parameters
    ----------
    class_scores : array, (class,)
        Class means, larger = more forgotten; NaN leaves a class out.
    distances : array, (class, class)
    rng : Generator
    draws : int
        Permutations of the classes, where there are too many for all.
    nearest : int

    Returns
    -------
    DataFrame
        Two rows, `summary` being `nearest_distance` and `mean_of_nearest`. `estimate` is negative
        where similar classes are forgotten most; interval of Bonett & Wright, the classes being
        drawn; `n` classes; `p` two-sided by permuting classes, extra `p_negative` one-sided.
    """
    scores = np.asarray(class_scores, float)
    if scores.shape != np.shape(distances)[:1]:
        raise ValueError(
            f"class_scores must be ({len(distances)},) like the distances, got {scores.shape}"
        )
    table, rows = neighbours(distances, nearest), []
    for summary in ("nearest_distance", "mean_of_nearest"):
        x = table[summary].to_numpy()
        keep = np.isfinite(x) & np.isfinite(scores)
        row = spearman(scores[keep], x[keep])
        a, b = (rankdata(v[keep]) for v in (scores, x))
        p, below, how = np.nan, np.nan, "too few classes"
        if np.isfinite(row["estimate"].iloc[0]):
            order, how = orders(len(a), rng, draws)
            a, b = a - a.mean(), b - b.mean()
            null, found = a[order] @ b, float(a @ b)
            p, below = (permutation_p(found, null, side) for side in ("two-sided", "less"))
        row = row.assign(p=p, p_negative=below, method=f"{row['method'].iloc[0]}; {how}")
        row.insert(0, "summary", summary)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


def mantel(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, draws: int = 1999
) -> pd.DataFrame:
    """Mantel test on ranks: Spearman of two symmetric matrices over the pairs of classes.

    Rows and columns of `b` are permuted together, since pairs that share a class are not
    independent.

    Parameters
    ----------
    a, b : array, (class, class)
        Symmetric; the diagonal is not used.

    Returns
    -------
    DataFrame
        One row; `n` classes, `p` two-sided, no interval (NaN); extras `pairs`, `p_negative`. NaN
        with fewer than 4 classes or where a matrix is constant.

    References
    ----------
    Mantel (1967), Cancer Research 27, 209-220. Legendre & Legendre (2012), Numerical Ecology, 10.5.
    """
    a, b = off_diagonal(a), off_diagonal(b)
    k = len(a)
    upper = np.triu_indices(k, 1)
    for name, m in (("a", a), ("b", b)):
        if m.shape != a.shape or not np.allclose(m[upper], m.T[upper], rtol=1e-9, atol=1e-12):
            raise ValueError(f"{name} must be symmetric, {a.shape}, without NaN; got {m.shape}")
    left, right = (rankdata(m[upper]) for m in (a, b))
    left, right = left - left.mean(), right - right.mean()
    norm = np.sqrt((left**2).sum() * (right**2).sum())
    extras = {"pairs": len(left), "p_negative": np.nan}
    if k < 4 or norm == 0:
        return one_row(np.nan, np.nan, np.nan, k, np.nan, "Mantel on ranks: undefined", **extras)
    square = np.zeros((k, k))
    square[upper] = right
    square += square.T
    order, how = orders(k, rng, draws)
    null = np.array([left @ square[o[upper[0]], o[upper[1]]] for o in order])
    p, extras["p_negative"] = (
        permutation_p(float(left @ right), null, side) for side in ("two-sided", "less")
    )
    return one_row(left @ right / norm, np.nan, np.nan, k, p, f"Mantel on ranks, {how}", **extras)


def confusion_excess(counts: np.ndarray) -> np.ndarray:
    r"""How much more often two classes are taken for each other than their totals imply.

    .. math:: x_{ab} = \log \frac{n_{ab} + n_{ba} + 1/2}{e_{ab} + e_{ba} + 1/2},

    e being the counts under quasi-independence: the same row and column totals, an empty diagonal,
    and no preference otherwise. Without this a large class seems similar to all.

    Parameters
    ----------
    counts : array, (label, predicted)
        Epochs in which a sample of one class was taken for another; the diagonal is not used.

    Returns
    -------
    ndarray, (class, class)
        Symmetric, 0 where nothing is known, NaN on the diagonal.

    References
    ----------
    Goodman (1968), The analysis of cross-classified data, JASA 63, 1091-1131.

    Examples
    --------
    >>> confusion_excess(np.ones((3, 3)))[0, 1].round(6)
    np.float64(0.0)
    """
    n = np.nan_to_num(off_diagonal(counts))
    expected = 1 - np.eye(len(n))
    for _ in range(1000):  # iterative proportional fitting
        before = expected
        for axis in (1, 0):
            total = expected.sum(axis, keepdims=True)
            expected = expected * n.sum(axis, keepdims=True) / np.where(total > 0, total, 1)
        if np.abs(expected - before).max() <= 1e-10 * max(1.0, n.sum()):
            break
    out = np.log((n + n.T + 0.5) / (expected + expected.T + 0.5))
    return off_diagonal(out)


def nearest_share(
    counts: np.ndarray, distances: np.ndarray, rng: np.random.Generator, draws: int = 1999
) -> pd.DataFrame:
    """What share of the mistakes takes a class for its nearest neighbour?

    Parameters
    ----------
    counts : array, (label, predicted)
    distances : array, (class, class)
    rng : Generator
    draws : int

    Returns
    -------
    DataFrame
        One row without an interval (NaN); `n` counts mistakes, `p` one-sided by permuting the
        classes of the distances, extras `chance` (mean of these permutations) and `classes`.
    """
    n, near = np.nan_to_num(off_diagonal(counts)), off_diagonal(distances)
    if n.shape != near.shape:
        raise ValueError(f"counts and distances must be of one shape, got {n.shape}, {near.shape}")
    total, k = n.sum(), len(n)
    method = "share of mistakes that name the nearest class"
    extras = {"chance": np.nan, "classes": k}
    if total == 0:
        return one_row(np.nan, np.nan, np.nan, 0, np.nan, method, **extras)
    nearest = neighbours(distances, 1)["nearest"].to_numpy()
    order, how = orders(k, rng, draws)
    found = n[np.arange(k), nearest][nearest >= 0].sum() / total
    null = np.empty(len(order))
    for i, o in enumerate(order):  # class c takes the place of class o[c]
        place = np.argsort(o)
        of = nearest[o]
        null[i] = n[np.arange(k), place[of]][of >= 0].sum() / total
    extras["chance"] = (null.sum() + found) / (len(null) + 1)
    p = permutation_p(found, null)
    return one_row(found, np.nan, np.nan, total, p, f"{method}, {how}", **extras)
