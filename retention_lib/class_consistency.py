"""Notebook 04: is class-level forgetting the same in every seed and in both architectures?"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from retention_lib.agreement import CROSS, MISALIGNED, SAME
from retention_lib.checks import check_level
from retention_lib.class_averages import means_by_class, redrawn_means
from retention_lib.concordance import (
    agreement_ceiling,
    concordances,
    icc_of_means,
    kendall_w,
    without_each_seed,
)
from retention_lib.findings import over_seeds
from retention_lib.intervals import permutation_p
from retention_lib.rank_agreement import spearman
from retention_lib.resampled import count_batches, percentile_interval

#: Entries (draw, run, sample) dealt at once.
_BATCH = 4_000_000


def class_pairs(
    values: np.ndarray, runs: pd.DataFrame, labels: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """Spearman of class means for every pair of runs, each with its misaligned control.

    Parameters
    ----------
    values : array, (run, sample)
    runs : DataFrame
        Columns `arch` and `seed`.
    labels : array of int, (sample,)
    rng : Generator

    Returns
    -------
    DataFrame
        One row per pair and alignment, as `agreement.cross_run_agreement`: `kind`
        (`cross_architecture`, `same_architecture`, or `misaligned`: the second run's samples
        permuted by position before its classes are averaged), `arch_a`, `arch_b`, `seed_a`,
        `seed_b`, `spearman`, `n` classes, `smallest` (samples of the smallest class).
    """
    labels = np.asarray(labels)
    names, code = np.unique(labels, return_inverse=True)
    means, size = means_by_class(values, code, len(names)), np.bincount(code).min()
    arch, seed = runs["arch"].to_numpy(), runs["seed"].to_numpy()
    rows = []
    for i, j in combinations(range(len(runs)), 2):
        mixed = means_by_class(values[j][rng.permutation(len(code))], code, len(names))[0]
        aligned = SAME if arch[i] == arch[j] else CROSS
        for kind, other in ((aligned, means[j]), (MISALIGNED, mixed)):
            rho = spearman(means[i], other).iloc[0]
            row = {"kind": kind, "arch_a": arch[i], "arch_b": arch[j], "seed_a": seed[i]}
            row |= {"seed_b": seed[j], "spearman": rho["estimate"], "n": int(rho["n"])}
            rows.append(row | {"smallest": size})
    return pd.DataFrame(rows)


def pair_means(pairs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean Spearman of class means between and within architectures, and its noise ceiling.

    Parameters
    ----------
    pairs : DataFrame
        Of `class_pairs`.

    Returns
    -------
    DataFrame
        One row per pair of architectures, in either order: `arch_a`, `arch_b`, then a one-row
        result whose interval takes the seeds as drawn (jackknife over seeds, NaN with too few),
        `n` seeds; extras `pairs`, `classes`, `misaligned` (mean of the controls) and `ceiling`, the
        root of the product of the two same-architecture means (NaN where a seed is missing).
    """
    names = list(dict.fromkeys([*pairs["arch_a"], *pairs["arch_b"]]))
    rows, within = [], {}
    for i, first in enumerate(names):
        for second in names[i:]:
            here = pairs[_between(pairs, first, second)]
            control = here["kind"] == MISALIGNED
            mean = here.loc[~control, "spearman"].mean()
            if first == second:
                within[first] = mean
            if here.empty:
                continue
            row = over_seeds(here[~control].rename(columns={"spearman": "jaccard"}), level)
            row["method"] = f"mean Spearman of class means, jackknife over seeds, {level:.0%}"
            row["estimate"] = mean
            row["pairs"], row["classes"] = int((~control).sum()), int(here["n"].iloc[0])
            row["misaligned"] = here.loc[control, "spearman"].mean()
            row.insert(0, "arch_a", first)
            row.insert(1, "arch_b", second)
            rows.append(row)
    out = pd.concat(rows, ignore_index=True)
    product = [within[a] * within[b] for a, b in zip(out["arch_a"], out["arch_b"], strict=True)]
    out["ceiling"] = [np.sqrt(p) if p >= 0 else np.nan for p in product]
    return out


def _between(pairs: pd.DataFrame, first: str, second: str) -> np.ndarray:
    a, b = pairs["arch_a"], pairs["arch_b"]
    return ((a == first) & (b == second)) | ((a == second) & (b == first))


def class_consistency(
    values: np.ndarray,
    runs: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1999,
    level: float = 0.95,
    permutations: int | None = None,
) -> pd.DataFrame:
    """Kendall's W of class means over runs, all of them and each architecture's, with two controls.

    The runs share their images, so that *any* fixed partition of the images into sets is ordered
    alike by runs that agree on single images. The placebo deals the images to sets of the same
    sizes at random, whole groups as far as sizes allow: what W exceeds it by is due to classes.
    The misaligned control deals them anew for every run: nothing is left but the sizes, and what
    these do to the ranks of means of skewed scores.

    Parameters
    ----------
    values : array, (run, sample)
        A score, larger = more forgotten.
    runs : DataFrame
        Columns `arch` and `seed`.
    labels, groups : array, (sample,)
    rng : Generator
    draws : int
        Of the bootstrap.
    level : float
    permutations : int, optional
        Of the classes, the placebo and the misaligned control; by default as many as `draws`.

    Returns
    -------
    DataFrame
        One row per scope (`all`, then each architecture with at least 2 seeds): `scope` and the
        columns of a one-row result, `estimate` W with its bootstrap interval over groups within
        class (runs fixed; redrawing adds the images' noise a second time and lowers W by `bias`,
        which is taken off the percentiles: the interval is for the mean W of as many other images,
        not of infinitely many), `n` classes, `p` of `kendall_w`; extras `raters`, `p_chi2`, `se`,
        `bias`, `icc`, `icc_low`, `icc_high` (`icc_of_means`; over `all` runs each is divided by its
        own standard deviation over classes); for `placebo` and `misaligned` the mean W, the ends of
        its central interval `_low`, `_high`, and `p_placebo`, `p_misaligned`; `smallest`, `largest`
        (samples of a class); `chance` = 1 / raters, the mean under unrelated ranks; `ceiling`
        (`agreement_ceiling`); `seed_low`, `seed_high`, `seeds` of `without_each_seed`, with the
        smallest and largest W without one seed, `left_low` and `left_high`.
    """
    check_level(level)
    names, code = np.unique(np.asarray(labels), return_inverse=True)
    groups = np.unique(np.asarray(groups), return_inverse=True)[1]  # numbers sort faster than names
    values, arch, k = np.asarray(values, float), runs["arch"].to_numpy(), len(names)
    scopes = {"all": np.arange(len(arch))}
    scopes |= {a: np.flatnonzero(arch == a) for a in dict.fromkeys(arch)}
    scopes = {name: rows for name, rows in scopes.items() if len(rows) > 1}
    if not scopes:
        raise ValueError(f"consistency needs at least 2 runs, got {len(arch)}")

    def by_scope(means) -> dict[str, np.ndarray]:  # NaN: a class vanished from a resample
        return {s: concordances(means[..., r, :]) for s, r in scopes.items()}

    means, permutations = means_by_class(values, code, k), permutations or draws
    batches = count_batches(groups, code, rng, draws, len(values))
    redrawn = by_scope(np.concatenate([redrawn_means(values, code, b) for b in batches]))
    dealt = _dealt_means(values, code, groups, rng, permutations)
    # A deal of its own for every run: run r takes the deal r places further on.
    anew = np.stack([np.roll(dealt[:, r], r, axis=0) for r in range(len(values))], axis=1)
    nulls = {"placebo": by_scope(dealt), "misaligned": by_scope(anew)}
    size, out = np.bincount(code), []
    for scope, rows in scopes.items():
        found = kendall_w(means[rows], rng, permutations)
        low, high, extras = _unbiased(redrawn[scope], found["estimate"].iloc[0], level)
        how = f"{found['method'].iloc[0]}; bootstrap over groups within class, {draws} draws"
        row = found.assign(ci_low=low, ci_high=high, method=how, **extras)
        row.insert(0, "scope", scope)
        spread = means[rows].std(1, keepdims=True) if scope == "all" else 1.0
        icc = icc_of_means(means[rows] / np.where(spread == 0, 1.0, spread), level).iloc[0]
        row = row.assign(icc=icc["estimate"], icc_low=icc["ci_low"], icc_high=icc["ci_high"])
        for control, drawn in nulls.items():
            null = drawn[scope]
            row[control] = null.mean()
            ends = np.quantile(null, [(1 - level) / 2, (1 + level) / 2])
            row[f"{control}_low"], row[f"{control}_high"] = ends
            row[f"p_{control}"] = permutation_p(found["estimate"].iloc[0], null)
        ceiling = agreement_ceiling(means[rows], arch[rows])
        row = row.assign(smallest=size.min(), largest=size.max(), chance=1 / len(rows))
        seeds = without_each_seed(means[rows], runs["seed"].to_numpy()[rows], level)
        out.append(row.assign(ceiling=ceiling, **seeds))
    return pd.concat(out, ignore_index=True)


def _unbiased(redrawn: np.ndarray, found: float, level: float) -> tuple[float, float, dict]:
    """Percentile interval less the bias of the resamples, in 0..1; and `se`, `bias`."""
    low, high = percentile_interval(redrawn, level)
    if not np.isfinite([low, found]).all():
        return np.nan, np.nan, {"se": np.nan, "bias": np.nan}
    bias = np.nanmean(redrawn) - found
    ends = np.clip([low - bias, high - bias], 0, 1)
    return *ends, {"se": np.nanstd(redrawn, ddof=1), "bias": bias}


def deal(code: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels (sample,) dealt anew: sets of the same sizes, filled with groups in random order.

    A group is torn only where one set ends and the next begins.
    """
    return deals(code, groups, rng, 1)[0]


def deals(code: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """`deal` over and over, (draw, sample)."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    size = np.bincount(code)
    turn = rng.permuted(np.tile(np.arange(len(size)), (draws, 1)), axis=1)  # which set comes first
    order = np.argsort(rng.random((draws, group.max() + 1))[:, group], axis=1, kind="stable")
    out = np.empty((draws, len(code)), np.asarray(code).dtype)
    filled = np.stack([np.repeat(row, size[row]) for row in turn])
    np.put_along_axis(out, order, filled.astype(out.dtype), axis=1)
    return out


def _dealt_means(values, code, groups, rng, draws: int) -> np.ndarray:
    """Class means (draw, run, class) of images dealt to classes, all runs alike."""
    (m, n), parts = values.shape, []
    for start in range(0, draws, batch := max(1, _BATCH // (m * n))):
        here = min(batch, draws - start)
        dealt = deals(code, groups, rng, here)
        cell = dealt + len(np.bincount(code)) * np.arange(here)[:, None]
        sums = [np.bincount(cell.ravel(), np.tile(v, here)) for v in values]
        parts.append(np.stack(sums, 1).reshape(here, -1, m).swapaxes(1, 2) / np.bincount(code))
    return np.concatenate(parts)
