"""Expected overlap of two tied top-k sets, from a 3 x 3 table of below, at and above thresholds.

Each vector of scores has samples above its k-th largest value, which are in its top set for sure,
and samples at it, of which the set draws as many as it still needs, uniformly. How two such sets
overlap depends on nothing but the cross table of the two vectors' three levels.
"""

from __future__ import annotations

from itertools import product
from math import comb, factorial, prod

import numpy as np
from scipy import special

#: The distribution of the overlap is summed up to this k; beyond, the expansion errs below 1e-10.
LARGEST_SUM = 2000
#: Up to this k the sum is used in any case; beyond, the expansion errs below 1e-5 (found: 7e-7).
SMALLEST_EXPANSION = 20

# Ways to split r = 0..4 draws over the four cells where an overlap can arise: parts (4, split) and
# their multinomial coefficients (r, split).
_PARTS = np.array([s for s in product(range(5), repeat=4) if sum(s) <= 4]).T
_WAYS = np.array(
    [
        [factorial(r) // prod(map(factorial, s)) if sum(s) == r else 0 for s in _PARTS.T.tolist()]
        for r in range(5)
    ]
)


def top_count(n: int, share: float) -> int:
    """Size of the top `share` of n samples: n * share rounded half up, at least 1.

    Examples
    --------
    >>> top_count(5994, 0.10)
    599
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}")
    return max(1, int(np.floor(n * share + 0.5)))


def topk_jaccard(a: np.ndarray, b: np.ndarray, share: float = 0.10, exact: bool = True) -> float:
    """Expected Jaccard E[|A n B| / |A u B|] of two top-`share` sets under random tie-breaking.

    Parameters
    ----------
    a, b : array, (sample,)
        Scores; larger = more forgotten. Equal values are ties; infinities are values like others.
        A sample with NaN in either vector is left out of both.
    share : float
        k = `top_count` of the samples left.
    exact : bool
        False allows a fourth-order expansion for k > 20 (error below 1e-5), for use in a
        bootstrap. True sums the distribution of the overlap up to k = 2,000.

    Returns
    -------
    float
        NaN if no sample is left.

    Notes
    -----
    Each vector has k' samples above its threshold and draws the other k - k' from those at it.
    With A's draw given, the number of B's drawn samples that lie in A is hypergeometric; A's draw
    splits into the part among B's ties and the part above B's threshold, hypergeometric again.

    Examples
    --------
    >>> topk_jaccard([3, 2, 1, 0], [3, 2, 0, 1], share=0.5)
    1.0
    >>> round(topk_jaccard([0, 0, 0], [0, 0, 0], share=0.3), 4)  # 1 of 3, twice, at random
    0.3333
    """
    a, b = paired(a, b)
    if len(a) == 0:
        return float("nan")
    k = top_count(len(a), share)
    table = cross_tables(levels(a, k)[None], levels(b, k)[None])[0]
    return float(expected_jaccard(table, np.array([k]), exact)[0])


def jaccard_chance(n: int, k: int) -> float:
    """Expected Jaccard of two independent random k-subsets of n: about s / (2 - s) for s = k / n.

    Examples
    --------
    >>> round(jaccard_chance(5994, 599), 3)
    0.053
    """
    if not 1 <= k <= n:
        raise ValueError(f"k must lie in 1..n = {n}, got {k!r}")
    table = np.zeros((1, 3, 3), int)
    table[0, 1, 1] = n  # all tied with all
    return float(expected_jaccard(table, np.array([k]), exact=True)[0])


def levels(scores: np.ndarray, k: int) -> np.ndarray:
    """Level of every score, over the last axis: 0 below, 1 at, 2 above the k-th largest.

    Examples
    --------
    >>> levels(np.array([5, 1, 1, 0]), k=2).tolist()
    [2, 1, 1, 0]
    """
    edge = np.partition(scores, scores.shape[-1] - k, axis=-1)[..., -k, None]
    return (scores >= edge).astype(np.int8) + (scores > edge)


def cross_tables(levels_a: np.ndarray, levels_b: np.ndarray) -> np.ndarray:
    """Cross tables (run of a, run of b, 3, 3) of two arrays of levels (run, sample).

    Examples
    --------
    >>> cross_tables(np.array([[2, 1, 1, 0]]), np.array([[2, 2, 0, 0]]))[0, 0].tolist()
    [[1, 0, 0], [1, 0, 1], [0, 0, 1]]
    """
    a, b = (_at_least(x) for x in (levels_a, levels_b))
    # One matrix product counts "at least i in a and at least j in b" (float32: exact up to 2^24).
    counts = (a.reshape(-1, a.shape[2]) @ b.reshape(-1, b.shape[2]).T).round().astype(np.int64)
    counts = counts.reshape(3, a.shape[1], 3, b.shape[1]).transpose(1, 3, 0, 2)
    counts[..., :2, :] -= counts[..., 1:, :].copy()
    counts[..., :2] -= counts[..., 1:].copy()
    return counts


def _at_least(level: np.ndarray) -> np.ndarray:
    """Indicators (3, run, sample) of level >= 0, 1, 2."""
    return (level[None] >= np.arange(3)[:, None, None]).astype(np.float32)


def expected_jaccard(tables: np.ndarray, k: np.ndarray, exact: bool) -> np.ndarray:
    """Expected Jaccard (item,) of cross tables (item, 3, 3) for top sets of k (item,) samples.

    `exact` sums the distribution of the overlap for every k up to `LARGEST_SUM`, else only for k
    up to `SMALLEST_EXPANSION`; the rest is a fourth-order expansion.
    """
    out = np.empty(len(k))
    small = k <= (LARGEST_SUM if exact else SMALLEST_EXPANSION)
    if small.any():
        keys = np.column_stack([tables[small].reshape(-1, 9), k[small]])
        unique, back = np.unique(keys, axis=0, return_inverse=True)
        sums = np.array([_by_sum(row[:9].reshape(3, 3), int(row[9])) for row in unique])
        out[small] = sums[back.ravel()]
    if not small.all():
        out[~small] = _by_moments(tables[~small], k[~small])
    return out


def paired(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors as floats, without the samples where either is NaN."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a and b must be vectors over the same samples, got {a.shape, b.shape}")
    keep = ~(np.isnan(a) | np.isnan(b))
    return a[keep], b[keep]


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
    c, i, j, l = _PARTS
    chance = held_b[i + l] * held_a[j + l]
    moment = _WAYS @ (both[c] * only_a[i] * only_b[j] * neither[l] * chance)
    mean = moment[1]
    raw = [moment[0], mean, moment[2] + mean, moment[3] + 3 * moment[2] + mean]
    raw.append(moment[4] + 6 * moment[3] + 7 * moment[2] + mean)
    rest = 2 * k - mean
    out = 2 * k / np.maximum(rest, 1)
    for r in (2, 3, 4):
        central = sum(comb(r, s) * raw[s] * (-mean) ** (r - s) for s in range(r + 1))
        out += 2 * k * central / np.maximum(rest, 1) ** (r + 1)
    return out - 1
