"""Expected overlap of two tied top-k sets, from a 3 x 3 table of below, at and above thresholds.

Each vector of scores has samples above its k-th largest value, which are in its top set for sure, and
samples at it, of which the set draws as many as it still needs, uniformly. How two such sets overlap
depends on nothing but the cross table of the two vectors' three levels.
"""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
from scipy import special

#: The distribution of the overlap is summed up to this k; the expansion errs below 1e-10 from there.
LARGEST_SUM = 2000
#: Below this k the sum is as fast as the expansion, which would err by up to 1e-3.
SMALLEST_EXPANSION = 50


def levels(scores: np.ndarray, k: int) -> np.ndarray:
    """0 below, 1 at, 2 above the k-th largest score; over the last axis."""
    edge = np.partition(scores, scores.shape[-1] - k, axis=-1)[..., -k, None]
    return (scores >= edge).astype(np.int8) + (scores > edge)


def cross_tables(top_a: np.ndarray, top_b: np.ndarray) -> np.ndarray:
    """Cross tables (pair, 3, 3) of every row of top_a with every row of top_b."""
    cells = [np.bincount(3 * a + b, minlength=9) for a, b in product(top_a, top_b)]
    return np.stack(cells).reshape(-1, 3, 3)


def expected_jaccard(tables: np.ndarray, k: np.ndarray, exact: bool) -> np.ndarray:
    """Expected Jaccard of each table (item, 3, 3) for each k (item,)."""
    out = _by_moments(tables, k)
    small = k <= (LARGEST_SUM if exact else SMALLEST_EXPANSION)
    if small.any():
        keys = np.column_stack([tables[small].reshape(-1, 9), k[small]])
        unique, back = np.unique(keys, axis=0, return_inverse=True)
        sums = np.array([_by_sum(row[:9].reshape(3, 3), int(row[9])) for row in unique])
        out[small] = sums[back.ravel()]
    return out


def _by_sum(table: np.ndarray, k: int) -> float:
    """Sum of o / (2k - o) over the distribution of the overlap o."""
    tied_a, tied_b = table[1].sum(), table[:, 1].sum()
    need_a, need_b = k - table[2].sum(), k - table[:, 2].sum()
    log_factorial = special.gammaln(np.arange(table.sum() + 2) + 1.0)

    def pmf(total, good, drawn):  # arrays (row,), or numbers -> values (1, x), pmf (row, x)
        total, good, drawn = (np.atleast_1d(v)[:, None] for v in (total, good, drawn))
        mean = drawn * good / np.maximum(total, 1)
        var = mean * (total - good) * (total - drawn) / np.maximum(total * (total - 1.0), 1)
        reach = 8.5 * np.sqrt(var) + 40  # what lies beyond is below double precision
        low = np.maximum(np.floor(mean - reach), np.maximum(0, drawn - total + good)).min()
        high = np.minimum(np.ceil(mean + reach), np.minimum(good, drawn)).max()
        x = np.arange(int(low), int(high) + 1)[None]
        possible = (x <= good) & (x <= drawn) & (drawn - x <= total - good)

        def choose(n, r):
            r = np.clip(r, 0, n)
            return log_factorial[n] - log_factorial[r] - log_factorial[n - r]

        log_p = choose(good, x) + choose(total - good, drawn - x) - choose(total, drawn)
        p = np.where(possible, np.exp(log_p), 0)
        return x, p / p.sum(1, keepdims=True)

    x, p = pmf(tied_a, table[1, 1], need_a)  # of A's draw, how many are ties of B
    x, p = x[0, p[0] > 0], p[0, p[0] > 0]
    y, p_y = pmf(tied_a - table[1, 1], table[1, 2], need_a - x)  # ... and how many B has for sure
    z, p_z = pmf(tied_b, table[2, 1] + x, need_b)  # of B's draw, how many A has
    overlap = table[2, 2] + y.T + z
    jaccard = overlap / np.maximum(2 * k - overlap, 1)
    return float(p @ np.sum((p_y @ jaccard) * p_z, axis=1))


def _by_moments(tables: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Fourth-order expansion of E[2k / (2k - o)] - 1 around the mean overlap.

    The factorial moment E[o (o-1) ... (o-r+1)] counts ordered r-tuples of distinct samples, each
    with the chance that A and B both hold all of it.
    """
    tables, k = np.asarray(tables, float), np.asarray(k, float)
    tied = tables[:, 1].sum(1), tables[:, :, 1].sum(1)
    need = k - tables[:, 2].sum(1), k - tables[:, :, 2].sum(1)

    def falling(n):  # n (n-1) ... (n-i+1) for i = 0..4
        return np.cumprod([np.ones_like(n), *(np.maximum(n - i, 0) for i in range(4))], axis=0)

    both, only_a, only_b, neither = (
        falling(tables[:, i, j]) for i, j in ((2, 2), (2, 1), (1, 2), (1, 1))
    )
    held_a, held_b = (
        falling(m) / np.maximum(falling(t), 1) for m, t in zip(need, tied, strict=True)
    )
    factorial = np.zeros((5, len(k)))
    for c, i, j, l in product(range(5), repeat=4):
        r = c + i + j + l
        if r <= 4:
            ways = comb(r, c) * comb(r - c, i) * comb(r - c - i, j)
            chance = held_b[i + l] * held_a[j + l]
            factorial[r] += ways * both[c] * only_a[i] * only_b[j] * neither[l] * chance
    mean = factorial[1]
    raw = [factorial[0], mean, factorial[2] + mean, factorial[3] + 3 * factorial[2] + mean]
    raw.append(factorial[4] + 6 * factorial[3] + 7 * factorial[2] + mean)
    rest = 2 * k - mean
    out = 2 * k / np.maximum(rest, 1)
    for r in (2, 3, 4):
        central = sum(comb(r, s) * raw[s] * (-mean) ** (r - s) for s in range(r + 1))
        out += 2 * k * central / np.maximum(rest, 1) ** (r + 1)
    return out - 1
