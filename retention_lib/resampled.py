"""Resamples as counts: how often each of them holds each sample, and which samples go together.

Many resamples are then rows of one array, and a statistic of all of them a few sums over it
(`counted`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from retention_lib.data.folder import components

#: Entries (draw, run, sample) held at once, 8 bytes each.
_BATCH = 4_000_000


def units(samples: pd.DataFrame) -> np.ndarray:
    """What is redrawn as one: groups (patients), merged where they hold byte-identical files.

    Parameters
    ----------
    samples : DataFrame
        With `group` and, where files exist, `content_hash`. Simulated samples have no files and
        keep their groups.

    Returns
    -------
    ndarray of str, (sample,)
        Connected components of samples that share a group or a content hash, named by the
        smallest group in them.

    Raises
    ------
    ValueError
        If `group` is no column, or a group or hash is missing (all missing ones would be one).

    Examples
    --------
    >>> table = pd.DataFrame({"group": ["a", "b", "c"], "content_hash": ["1", "1", "2"]})
    >>> units(table).tolist()
    ['a', 'a', 'c']
    """
    if "group" not in samples:
        raise ValueError(f"samples must have the column 'group', got {list(samples)}")
    keys = [samples[name] for name in ("group", "content_hash") if name in samples]
    for key in keys:
        if key.isna().any():
            raise ValueError(f"{key.name!r} must be known for all samples, {key.isna().sum()} lack")
    return components(*keys)


def count_batches(
    groups: np.ndarray, strata: np.ndarray, rng: np.random.Generator, draws: int, runs: int = 1
) -> Iterator[np.ndarray]:
    """How often each resample holds each sample, whole groups being redrawn within strata.

    Of the m groups of a stratum m - 1 are drawn, with replacement, and each counts m / (m - 1)
    times: every group's count then has mean 1 and variance 1. Drawing m of m has variance
    (m - 1) / m, and intervals too short by 5 % at 10 groups per class.

    Parameters
    ----------
    groups, strata : array, (sample,)
        As in `intervals.resamples`: a group in several strata counts with its most frequent one.
    rng : Generator
    draws : int
    runs : int
        How many vectors of scores will be held beside the counts, which sets the batch.

    Yields
    ------
    float64, (draw, sample)
        Their first axes sum to `draws`. A stratum's only group is always there, once.

    References
    ----------
    Rao & Wu (1988), Resampling inference with complex survey data, JASA 83, 231-241.

    Examples
    --------
    >>> batch = next(count_batches([0, 0, 1], [5, 5, 5], np.random.default_rng(0), 4))
    >>> batch.shape, np.unique(batch).tolist()  # one of two groups, counting twice
    ((4, 3), [0.0, 2.0])
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws!r}")
    group, home = homes(groups, strata)
    m = np.bincount(home)
    first = np.cumsum(m) - m
    drawn = np.repeat(np.arange(len(m)), np.where(m == 1, 1, m - 1))  # strata to draw from
    first, pool = first[drawn], m[drawn]
    # Groups are counted stratum after stratum, where each lies near those it is drawn with.
    place = np.empty(len(home), int)
    place[np.argsort(home, kind="stable")] = np.arange(len(home))
    factor, of_sample = np.repeat(np.where(m > 1, m / np.maximum(m - 1, 1), 1.0), m), place[group]
    size = max(1, _BATCH // (len(groups) * max(1, runs)))
    for start in range(0, draws, size):
        here = min(size, draws - start)
        picked = rng.integers(pool, size=(here, len(drawn)))
        picked += first + len(home) * np.arange(here)[:, None]
        times = np.bincount(picked.ravel(), minlength=here * len(home)).reshape(here, -1)
        yield (times * factor)[:, of_sample]


def homes(groups: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of each sample's group (sample,), and of the stratum each group counts with (group,).

    The stratum is the group's most frequent one, the smaller at a tie.

    Raises
    ------
    ValueError
        Unless both are vectors of one length, not empty.
    """
    groups, strata = np.asarray(groups), np.asarray(strata)
    if groups.ndim != 1 or groups.shape != strata.shape or len(groups) == 0:
        raise ValueError(
            f"groups and strata must be equally long and not empty, "
            f"got shapes {groups.shape} and {strata.shape}"
        )
    _, group = np.unique(groups, return_inverse=True)
    _, stratum = np.unique(strata, return_inverse=True)
    # A table of all groups by all strata would not fit at a million groups: only what occurs.
    cells, votes = np.unique(group * (stratum.max() + 1) + stratum, return_counts=True)
    of, home = np.divmod(cells, stratum.max() + 1)
    if len(cells) > of[-1] + 1:  # some group spans strata
        best = np.lexsort((-votes, of))  # stable, so the smaller stratum comes first at a tie
        home = home[best[np.append(True, np.diff(of) > 0)]]
    return group, np.unique(home, return_inverse=True)[1]


def percentile_interval(redrawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Central `level` of a statistic's values over resamples, (draw,).

    Values that are not finite are left out; more than 5 % of them, and there is no interval (NaN),
    as in `intervals.bootstrap`.
    """
    good = redrawn[np.isfinite(redrawn)]
    if len(good) < max(2, 0.95 * len(redrawn)):
        return np.nan, np.nan
    low, high = np.quantile(good, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
