"""How runs correlate over samples: seed with seed, architecture with architecture, by class.

Everything is a function of how often a resample holds each sample (`resampled.count_batches`), so
that one pass over the resamples serves every pair of runs and every measure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.agreement import CROSS, SAME
from retention_lib.counted import midranks, ties_of
from retention_lib.intervals import check_level, one_row, t_interval
from retention_lib.kendall import both_below
from retention_lib.resampled import count_batches, percentile_interval
from retention_lib.simulated_study import misalign

SCALES = ("score", "midranks")
#: Pearson on scores; Spearman; Kendall's tau-b; Pearson of midranks less their class's mean;
#: Pearson of the classes' mean midranks, every class counting once.
MEASURES = ("pearson", "spearman", "kendall", "within_class", "between_class")


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
    parts = []
    for counts in observed_and_redrawn(groups, labels, rng, draws, len(scores)):
        x = scores[None] if ties is None else _ranks(ties, counts)
        n = counts.sum(1)
        mean = (x @ counts[:, :, None])[..., 0] / n[:, None]
        square = (x * counts[:, None]) @ x.swapaxes(1, 2) / n[:, None, None]
        parts.append((n, mean + centre, square - mean[:, :, None] * mean[:, None]))
    return Moments(*map(np.concatenate, zip(*parts, strict=True)))


def observed_and_redrawn(groups, labels, rng, draws: int, runs: int = 1) -> Iterator[np.ndarray]:
    """A block of ones, the data as they are, then the blocks of `resampled.count_batches`."""
    yield np.ones((1, len(groups)))
    if draws:
        yield from count_batches(groups, labels, rng, draws, 4 * runs)


def _ranks(ties: list, counts: np.ndarray) -> np.ndarray:
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


def correlation_matrices(
    scores: np.ndarray,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    draws: int,
    measures: Sequence[str] = MEASURES,
) -> dict[str, np.ndarray]:
    """Correlations between all runs, for the data (draw 0) and for resamples that measures share.

    Parameters
    ----------
    scores : array, (run, sample)
    groups, labels : array, (sample,)
    measures : sequence
        Some of `MEASURES`. Tau-b of a resample is linear in the counts (its Hajek projection),
        the others are what the repeated rows would give.

    Returns
    -------
    dict of float64, (draw, run, run)
        NaN where a run is constant.

    Examples
    --------
    >>> x = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    >>> out = correlation_matrices(x, [0, 1, 2], [0, 0, 0], np.random.default_rng(0), 9)
    >>> out["spearman"].shape, out["kendall"][0, 0, 1].round(3)
    ((10, 2, 2), np.float64(0.333))
    """
    scores = check_scores(scores, labels)
    if unknown := [m for m in measures if m not in MEASURES]:
        raise ValueError(f"measures must be among {MEASURES}, got {unknown}")
    by_class = np.argsort(labels, kind="stable")
    scores, groups, labels = scores[:, by_class], np.asarray(groups)[by_class], np.sort(labels)
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    ties = [ties_of(score) for score in scores]
    x = scores - scores.mean(1, keepdims=True)
    projections = _kendall_parts(scores) if "kendall" in measures else None
    found: dict[str, list] = {measure: [] for measure in measures}
    for counts in observed_and_redrawn(groups, labels, rng, draws, len(scores)):
        of = {}
        if "pearson" in found:
            mean = x @ counts.T / counts.sum(1)
            square = (counts[:, None] * x) @ x.T
            mean = mean.T * np.sqrt(counts.sum(1))[:, None]
            of["pearson"] = _correlation(square - mean[:, :, None] * mean[:, None], square)
        if projections is not None:
            of["kendall"] = _tau(projections, counts, len(scores))
        if {"spearman", "within_class", "between_class"} & found.keys():
            of |= _by_rank(_ranks(ties, counts), counts, first)
        for measure in measures:
            found[measure].append(of[measure])
    return {measure: np.concatenate(parts) for measure, parts in found.items()}


def _by_rank(ranks: np.ndarray, counts: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
    """Spearman's rho, and its parts within and between classes, which begin at `first`."""
    weighted = ranks * counts[:, None]
    total = weighted @ ranks.swapaxes(1, 2)  # (draw, run, run)
    size = np.add.reduceat(counts, first, axis=1)[:, None]  # (draw, 1, class)
    sums = np.add.reduceat(weighted, first, axis=2)
    means = sums / np.maximum(size, 1e-300)
    within = total - means @ sums.swapaxes(1, 2)
    present = size > 0  # a group that spans classes can leave one of them empty
    spread = np.where(present, means, 0)
    spread -= present * spread.sum(2, keepdims=True) / present.sum(2, keepdims=True)
    between = spread @ spread.swapaxes(1, 2)
    return {
        "spearman": _correlation(total, total),
        "within_class": _correlation(within, total),
        "between_class": _correlation(between, total / counts.sum(1)[:, None, None]),
    }


def _correlation(cov: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Correlations; NaN where a variance is rounding error beside that of `scale`, or 0."""
    variance, floor = (np.diagonal(v, axis1=1, axis2=2) for v in (cov, scale))
    spread = np.sqrt(np.where(variance > 1e-12 * floor, variance, np.nan))
    return cov / (spread[:, :, None] * spread[:, None])


def _kendall_parts(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every sample: agreements less disagreements (pair, sample), untied (run, sample)."""
    ranks = stats.rankdata(scores, "dense", axis=1)
    untied = np.stack([scores.shape[1] - np.bincount(run)[run] for run in ranks])
    agree = [
        sum(sign * both_below(a, sign * b) + sign * both_below(-a, -sign * b) for sign in (1, -1))
        for a, b in combinations(ranks, 2)
    ]
    return np.array(agree, float).reshape(-1, scores.shape[1]), untied.astype(float)


def _tau(parts: tuple[np.ndarray, np.ndarray], counts: np.ndarray, runs: int) -> np.ndarray:
    """Tau-b (draw, run, run) of resamples, its three sums over pairs made linear in the counts."""
    agree, untied = (counts @ (2 * part).T - part.sum(1) for part in parts)
    first, second = np.triu_indices(runs, 1)
    out = np.full((len(counts), runs, runs), np.nan)
    product = untied[:, first] * untied[:, second]
    out[:, first, second] = agree / np.sqrt(np.where(product > 0, product, np.nan))
    out[:, second, first] = out[:, first, second]
    out[:, range(runs), range(runs)] = np.where(untied > 0, 1.0, np.nan)
    return out


def seed_to_seed(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    measures: Sequence[str] = MEASURES,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean correlation over pairs of runs, within every architecture and between every two.

    Parameters
    ----------
    scores : array, (run, sample)
    runs : DataFrame
        One row per run, with `arch` and `seed`.
    groups, labels : array, (sample,)
    rng : Generator
    measures : sequence
        Some of `MEASURES`.
    draws : int
    level : float

    Returns
    -------
    DataFrame
        One row per measure and pair of architectures (an architecture with itself if it has two
        seeds): `measure`, `kind`, `arch_a`, `arch_b`, and the columns of a one-row result. The
        interval redraws groups within class and holds the networks fixed; `seed_low, seed_high`
        leaves out one of `seeds` seeds at a time (`leave_one_seed_out`). Extras `pairs`, `classes`,
        `draws`, `failed` and `control`, the estimate after each run's samples were permuted by
        position: near 0, and what an indexing error would look like.

    Notes
    -----
    Class means of two runs are of the same images: `between_class` says how much of what this data
    set's classes differ by is stable, not how other images of these classes would do. Its resamples
    add the noise of redrawn images once more, which is taken off their mean (`recentred`).
    """
    check_level(level)
    scores = check_scores(scores, labels)
    sets = run_pairs(runs, len(scores))
    found = correlation_matrices(scores, groups, labels, rng, draws, measures)
    wrong = correlation_matrices(misalign(scores, rng), groups, labels, rng, 0, measures)
    rows = []
    for measure, matrix in found.items():
        matrix = recentred(matrix) if measure == "between_class" else matrix
        for (a, b), pairs in sets.items():
            first, second = pairs.T
            mean = matrix[:, first, second].mean(1)

            def of_pairs(kept, matrix=matrix[0], pairs=pairs):
                left = pairs[kept[pairs].all(1)]
                return matrix[tuple(left.T)].mean() if len(left) else np.nan

            seeds = leave_one_seed_out(of_pairs, runs, pairs, level)
            extras = {"measure": measure, "kind": SAME if a == b else CROSS}
            extras |= {"arch_a": a, "arch_b": b, "pairs": len(pairs)}
            extras |= {"seed_low": seeds["ci_low"].iloc[0], "seed_high": seeds["ci_high"].iloc[0]}
            extras |= {"seeds": int(seeds["n"].iloc[0]), "classes": len(np.unique(labels))}
            extras |= {"control": wrong[measure][0, first, second].mean()}
            rows.append(percentile_row(mean, scores.shape[1], measure, level, **extras))
    out = pd.concat(rows, ignore_index=True)
    front = ["measure", "kind", "arch_a", "arch_b"]
    return out[front + [name for name in out if name not in front]]


def recentred(matrix: np.ndarray) -> np.ndarray:
    """Resampled correlations (1 + draw, ...) moved, on the scale of atanh, to have the data's mean.

    Examples
    --------
    >>> recentred(np.array([0.5, 0.3, 0.3])).round(3).tolist()
    [0.5, 0.5, 0.5]
    """
    z = np.arctanh(np.clip(matrix, -1 + 1e-12, 1 - 1e-12))
    bias = z[1:].mean(0) - z[0] if len(z) > 1 else 0.0
    return np.concatenate([matrix[:1], np.tanh(z[1:] - bias)])


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
