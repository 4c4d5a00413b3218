"""How much of the agreement that seed noise allows do two architectures lack?

    missing = 1 - (J_cross - J_chance) / (sqrt(J_AA J_BB) - J_chance)

J is the expected Jaccard index of the most forgotten samples, averaged over all pairs of runs: of A
with B, and of different seeds of A and of B. J_chance is the level that shared classes alone give,
A's sample beside B's from another group of the same class. 0: the architectures agree as well as
two seeds of one; 1: no better than classes make them. Sampling may take it below 0 or above 1. If
one architecture is noisier than the other, a common difficulty gives more than 0: compare with
`attainable.same_difficulty`, the column `same_difficulty`.

*Interval.* Groups are redrawn within classes, the networks fixed. Resampling with replacement sets
copies of a sample beside each other. Ranked as rows, copies are ties that get broken apart, and a
permutation within a class of 30 takes 1 / 30 of the agreement for chance, 2 / 30 in a resample:
with 10 samples per class, intervals held the truth in 86 % of simulations. So a resample is a row
of counts here (`counted.overlaps`): copies share one membership of the top set, and the chance
level leaves out pairs within a group. Counts have variance 1 also in small classes
(`resampled.count_batches`). What remains is continuous in the counts, and percentiles hold: see
`COVERAGE`. A jackknife over groups would not do, for without ties the threshold is a quantile,
whose jackknife variance is inconsistent (Efron 1982, The Jackknife, the Bootstrap, section 3.4).

*Seeds.* Over few seeds: jackknife that leaves out a seed, said separately (`seed_low`,
`seed_high`).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from retention_lib.agreement import CROSS, SAME
from retention_lib.attainable import measured, quantities, same_difficulty, summarise
from retention_lib.checks import check_level
from retention_lib.config import TOP_SHARE
from retention_lib.intervals import one_row, t_interval
from retention_lib.resampled import count_batches, percentile_interval
from retention_lib.specification import spread

#: How often 95 % intervals (300 draws, top 10 %) held the truth of the population in 2,000
#: simulated studies of two architectures with two seeds and `n` samples: of the missing share
#: (where it has a value), the overlap between architectures and the overlap of two seeds.
#: `no_value` is the share of studies without one. Without ties intervals are a little too wide,
#: with many zeros those of the overlaps a little too short.
COVERAGE = tuple(
    dict(zip(("case", "n", "truth", "missing", "cross", "same_a", "no_value"), row, strict=True))
    for row in (
        ("no ties", 400, 0.6316, 0.971, 0.958, 0.976, 0.005),
        ("77 % zeros", 400, 0.6027, 0.942, 0.932, 0.944, 0.029),
        ("89 % zeros", 800, 0.5833, 0.956, 0.949, 0.935, 0.228),
        ("patients of 3 samples", 400, 0.6336, 0.940, 0.939, 0.946, 0.008),
        ("10 samples per class", 400, 0.6244, 0.954, 0.935, 0.940, 0.008),
    )
)


def missing_agreement(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    share: float = TOP_SHARE,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Share of the attainable agreement that is missing, for every two architectures.

    Parameters
    ----------
    scores : array, (run, sample)
        Larger = more forgotten; no NaN.
    runs : DataFrame
        `arch` and `seed` of every run.
    groups, labels : array, (sample,)
        Whole groups (`resampled.units`) are redrawn within classes.
    rng : Generator
    share : float
        How many samples count as most forgotten.

    Returns
    -------
    DataFrame
        One row per pair of architectures, A before B in `runs`: the columns of a one-row result
        (`estimate` is the missing share, `p` NaN), `arch_a`, `arch_b`, the quantities it is made
        of (`cross`, `same_a`, `same_b` and `excess` = cross - chance, each with `_low` and `_high`;
        `chance` of A with B, `chance_a`, `chance_b` of two seeds; `ceiling` =
        sqrt(same_a same_b)), `same_difficulty`
        (the missing share that unequal noise alone would give), `seed_low`, `seed_high`, `seeds`
        (leave-one-seed-out; NaN with fewer than 3 seeds per architecture), `groups`, `draws`.
        **No estimate** (NaN, the reason in `method`) where the interval between seeds of A or of B
        reaches its chance level, where there is one seed only, and where the ceiling is no higher
        than the chance level.

    Raises
    ------
    ValueError
        If scores hold NaN, shapes differ or a (arch, seed) comes twice.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=400)
    >>> runs = pd.DataFrame({"arch": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})
    >>> row = missing_agreement(hard + rng.normal(size=(4, 400)), runs, range(400), [0] * 400, rng)
    >>> bool(row.ci_low[0] < 0 < row.ci_high[0])  # both rank by the same difficulty
    True
    """
    scores, arch, labels = _checked(scores, runs, groups, labels, level)
    batches = count_batches(groups, labels, rng, draws, 2 * len(scores))
    whole, redrawn = measured(scores, groups, labels, share, batches)
    extras = {"groups": len(np.unique(np.asarray(groups))), "draws": draws}
    rows = []
    for a, b in combinations(dict.fromkeys(arch), 2):
        found = summarise(whole, redrawn, arch, a, b, level)
        seeds = _over_seeds(whole, arch, runs["seed"].to_numpy(), a, b, found, level)
        unequal = same_difficulty(found["same_a"], found["same_b"], found["chance"], share)
        text = f"top-{share:.0%}, percentile bootstrap over groups within class, {draws} draws, "
        estimate, low, high, why = (found.pop(k) for k in ("missing", "low", "high", "why_not"))
        method = f"no value: {why}" if why else f"{text}{level:.0%}"
        row = one_row(estimate, low, high, scores.shape[1], np.nan, method)
        rows.append(
            row.assign(arch_a=a, arch_b=b, **found, same_difficulty=unequal, **seeds, **extras)
        )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def overlap_of_pairs(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    share: float = TOP_SHARE,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Overlap of every pair of runs with interval and chance level: what the means are made of.

    Parameters
    ----------
    scores, runs, groups, labels, rng, share
        As in `missing_agreement`.

    Returns
    -------
    DataFrame
        One row per pair, same architecture first: the columns of a one-row result, then `kind`,
        `arch_a`, `arch_b`, `seed_a`, `seed_b`, `chance` (class-stratified) and `reaches_chance`
        (the interval's lower end is not above it).
    """
    scores, arch, labels = _checked(scores, runs, groups, labels, level)
    batches = count_batches(groups, labels, rng, draws, 2 * len(scores))
    (jaccard, chance), (redrawn, _) = measured(scores, groups, labels, share, batches)
    seed = runs["seed"].to_numpy()
    method = f"expected top-{share:.0%} Jaccard, percentile bootstrap over groups, {draws} draws"
    pairs = sorted(combinations(range(len(arch)), 2), key=lambda ij: arch[ij[0]] != arch[ij[1]])
    rows = []
    for i, j in pairs:
        low, high = percentile_interval(redrawn[:, i, j], level)
        row = one_row(jaccard[i, j], low, high, scores.shape[1], np.nan, method)
        kind = SAME if arch[i] == arch[j] else CROSS
        extras = {"kind": kind, "arch_a": arch[i], "arch_b": arch[j], "seed_a": seed[i]}
        extras |= {"seed_b": seed[j], "chance": chance[i, j], "reaches_chance": low <= chance[i, j]}
        rows.append(row.assign(**extras))
    return pd.concat(rows, ignore_index=True)


def agreement_of_conventions(table: pd.DataFrame) -> pd.DataFrame:
    """How far conventions agree (`findings_overlap.overlap_specification`): a row per data set.

    Returns
    -------
    DataFrame
        Per `dataset` (if named), `arch_a` and `arch_b`: `conventions`; `above_chance`,
        `below_chance` (share whose interval of the excess lies on that side of 0); `smallest`,
        `median`, `largest` and `primary` excess; `with_value` (conventions that have a missing
        share); `some_missing`, `none_missing` (of these, the share whose interval lies above 0, and
        below or around it); and the missing share's `missing_smallest`, `missing_median`,
        `missing_largest` and `missing_primary` (NaN where it has no value).
    """
    if table.empty:
        return table
    by = [name for name in ("dataset", "arch_a", "arch_b") if name in table]
    rows = []
    for keys, of in table.groupby(by, sort=False):
        known = of[of["missing"].notna()]
        row = dict(zip(by, keys, strict=True)) | {"conventions": len(of)}
        row["above_chance"] = (of["ci_low"] > 0).mean()
        row["below_chance"] = (of["ci_high"] < 0).mean()
        row |= spread(of["excess"], of["primary"]) | {"with_value": len(known)}
        row["some_missing"] = (known["missing_low"] > 0).mean()
        row["none_missing"] = (known["missing_low"] <= 0).mean()
        values = spread(known["missing"], known["primary"])
        rows.append(row | {f"missing_{name}": value for name, value in values.items()})
    return pd.DataFrame(rows)


def _over_seeds(whole, arch, seed, a: str, b: str, found: dict, level: float) -> dict:
    """Leave-one-seed-out jackknife: pseudo-values S x - (S - 1) x(without s), then Student's t."""
    seeds = np.unique(seed[np.isin(arch, [a, b])])
    out = {"seed_low": np.nan, "seed_high": np.nan, "seeds": len(seeds)}
    left = []
    for s in seeds:
        keep = np.flatnonzero(seed != s)
        parts = (matrix[np.ix_(keep, keep)] for matrix in whole)
        left.append(float(quantities(*parts, arch[keep], a, b)["missing"]))
    if np.isnan([found["missing"], *left]).any():
        return out
    pseudo = len(seeds) * found["missing"] - (len(seeds) - 1) * np.array(left)
    row = t_interval(pseudo, level)
    return out | {"seed_low": row["ci_low"].iloc[0], "seed_high": row["ci_high"].iloc[0]}


def _checked(scores, runs, groups, labels, level) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    check_level(level)
    scores, labels = np.asarray(scores, float), np.asarray(labels)
    if scores.ndim != 2 or len(scores) != len(runs):
        raise ValueError(f"scores must be ({len(runs)} runs, sample), got shape {scores.shape}")
    if labels.shape != scores.shape[1:] or np.shape(groups) != labels.shape:
        raise ValueError(
            f"groups and labels must have one value per sample ({scores.shape[1]}), "
            f"got {np.shape(groups)} and {labels.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError("scores must not hold NaN: leave these samples out of all arrays")
    if runs.duplicated(["arch", "seed"]).any():
        raise ValueError("each (arch, seed) must be one run; select one configuration first")
    return scores, runs["arch"].to_numpy(), labels
