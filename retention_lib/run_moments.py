"""Runs over samples: means and covariances, of the data and of resamples; pairs of runs; seeds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from retention_lib.counted import midranks, ties_of
from retention_lib.intervals import one_row, t_interval
from retention_lib.resampled import count_batches, percentile_interval
from retention_lib.threads import each

SCALES = ("score", "midranks")


class Moments(NamedTuple):
    """Of the data (draw 0) and of resamples of it."""

    n: np.ndarray  # (draw,)
    mean: np.ndarray  # (draw, run)
    cov: np.ndarray  # (draw, run, run), divisor n


def check_scores(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores as floats, (run, sample), or a ValueError that says what is wrong with them."""
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or scores.shape[1:] != np.shape(labels) or scores.size == 0:
        raise ValueError(
            f"scores must be (run, {np.size(labels)} samples) like labels, got {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, {np.sum(~np.isfinite(scores))} are not")
    return scores


def moments(scores, groups, labels, rng, draws: int, scale: str = "score") -> Moments:
    """Means and covariances of runs over samples, for the data and for resamples of groups.

    Parameters
    ----------
    scores : array, (run, sample)
        Finite.
    groups, labels : array, (sample,)
        Groups are redrawn within classes.
    rng : Generator
    draws : int
        0: the data only.
    scale : {"score", "midranks"}
        Midranks (1 for the largest score) are taken anew within every resample.
    """
    scores = check_scores(scores, labels)
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale!r}")
    centre = scores.mean(1) if scale == "score" else np.zeros(len(scores))
    scores = scores - centre[:, None]  # about the mean: sums of squares keep their digits
    ties = [ties_of(score) for score in scores] if scale == "midranks" else None

    def of_counts(counts):
        x = scores[None] if ties is None else centred_ranks(ties, counts)
        n = counts.sum(1)
        mean = (x @ counts[:, :, None])[..., 0] / n[:, None]
        square = (x * counts[:, None]) @ x.swapaxes(1, 2) / n[:, None, None]
        return n, mean + centre, square - mean[:, :, None] * mean[:, None]

    batches = observed_and_redrawn(groups, labels, rng, draws, len(scores))
    parts = each(of_counts, batches, scores.size)
    return Moments(*map(np.concatenate, zip(*parts, strict=True)))


def observed_and_redrawn(groups, labels, rng, draws: int, runs: int = 1) -> Iterator[np.ndarray]:
    """A block of ones, the data as they are, then the blocks of `resampled.count_batches`."""
    yield np.ones((1, len(groups)))
    if draws:
        yield from count_batches(groups, labels, rng, draws, 4 * runs)


def centred_ranks(ties: list, counts: np.ndarray) -> np.ndarray:
    """Midranks less their mean, which no ties can move, (draw, run, sample)."""
    ranks = np.stack([midranks(t, counts) for t in ties], axis=1)
    return ranks - (counts.sum(1)[:, None, None] + 1) / 2


def percentile_row(values: np.ndarray, n: int, what: str, level: float, p=np.nan, **extras):
    """One row from a statistic of the data, `values[0]`, and of resamples, `values[1:]`."""
    estimate, redrawn = float(values[0]), values[1:]
    low, high = percentile_interval(redrawn, level) if np.isfinite(estimate) else (np.nan, np.nan)
    extras |= {"draws": len(redrawn), "failed": int(np.sum(~np.isfinite(redrawn)))}
    method = f"{what}, percentile bootstrap over groups within class, {level:.0%}"
    return one_row(estimate, low, high, n, p, method, **extras)


def run_pairs(runs: pd.DataFrame, n_runs: int) -> dict[tuple[str, str], np.ndarray]:
    """Pairs of runs (pair, 2) of every architecture and of every two, the latter first."""
    if len(runs) != n_runs:
        raise ValueError(f"runs must have one row for each of {n_runs} runs, got {len(runs)}")
    if runs.duplicated(["arch", "seed"]).any():
        raise ValueError("each (arch, seed) must be one run; select one configuration first")
    arch = runs["arch"].to_numpy()
    names = list(dict.fromkeys(arch))
    sets = {}
    for a, b in [*combinations(names, 2), *zip(names, names, strict=True)]:
        i, j = np.flatnonzero(arch == a), np.flatnonzero(arch == b)
        pairs = list(combinations(i, 2)) if a == b else [(x, y) for x in i for y in j]
        if pairs:
            sets[a, b] = np.array(pairs)
    return sets


def leave_one_seed_out(statistic, runs: pd.DataFrame, pairs: np.ndarray, level: float = 0.95):
    """Interval of a statistic of several seeds' runs, seeds being drawn: a jackknife over seeds.

    Pairs share runs, so they are not independent; leaving out a seed takes all its runs at once.
    The pseudo-values S theta - (S - 1) theta(without seed s), s = 1..S, go to `t_interval`.

    Parameters
    ----------
    statistic : callable
        Takes which runs to keep, bool (run,); NaN where none are left to pair.
    runs : DataFrame
    pairs : int array, (pair, 2)
        Whose seeds are left out.

    Returns
    -------
    DataFrame
        One row; `n` counts seeds. NaN if the statistic is NaN without some seed, as a correlation
        within an architecture is with two seeds.

    References
    ----------
    Efron & Stein (1981), The jackknife estimate of variance, Annals of Statistics 9, 586-596.
    """
    seed = runs["seed"].to_numpy()
    seeds = np.unique(seed[pairs])
    whole = statistic(np.ones(len(seed), bool))
    left = np.array([statistic(seed != s) for s in seeds])
    pseudo = len(seeds) * whole - (len(seeds) - 1) * left
    if len(seeds) < 2 or not np.isfinite(pseudo).all():
        nothing = t_interval([whole], level)
        return nothing.assign(n=len(seeds))
    return t_interval(pseudo, level)
