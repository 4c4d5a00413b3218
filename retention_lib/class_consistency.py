"""Notebook 04: is class-level forgetting the same in every seed and in both architectures?"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.agreement import CROSS, MISALIGNED, SAME
from retention_lib.checks import check_level
from retention_lib.concordance import concordance, icc_of_means, kendall_w, means_by_class
from retention_lib.findings import over_seeds
from retention_lib.intervals import bootstrap, permutation_p
from retention_lib.rank_agreement import spearman


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
) -> pd.DataFrame:
    """Kendall's W of class means over runs, all of them and each architecture's, with a placebo.

    The runs share their images, so that *any* fixed partition of the images into sets is ordered
    alike by runs that agree on single images. The placebo deals the images to sets of the same
    sizes at random, whole groups as far as sizes allow: what W exceeds it by is due to classes.

    Parameters
    ----------
    values : array, (run, sample)
        A score, larger = more forgotten.
    runs : DataFrame
        Columns `arch` and `seed`.
    labels, groups : array, (sample,)
    rng : Generator
    draws : int
        Of the bootstrap, of the permutations and of the placebo.

    Returns
    -------
    DataFrame
        One row per scope (`all`, then each architecture with at least 2 seeds): the columns of a
        one-row result, `estimate` W with its bootstrap interval over groups within class (runs
        fixed; redrawing adds the images' noise a second time and lowers W by `bias`, which is taken
        off the percentiles: the interval is for the mean W of as many other images, not of
        infinitely many), `n` classes, `p` of `kendall_w`; extras `scope`, `raters`, `p_chi2`,
        `icc`, `icc_low`, `icc_high` (`icc_of_means`; over `all` runs each is divided by its own
        standard deviation over classes), `placebo` (mean W), `placebo_high` (upper end of its
        central interval), `p_placebo`, and `smallest`, `largest` (samples of a class).
    """
    check_level(level)
    names, code = np.unique(np.asarray(labels), return_inverse=True)
    values, arch, k = np.asarray(values, float), runs["arch"].to_numpy(), len(names)
    scopes = {"all": np.arange(len(arch))}
    scopes |= {a: np.flatnonzero(arch == a) for a in dict.fromkeys(arch)}
    scopes = {name: rows for name, rows in scopes.items() if len(rows) > 1}
    if not scopes:
        raise ValueError(f"consistency needs at least 2 runs, got {len(arch)}")

    def by_scope(means) -> dict[str, float]:
        if np.isnan(means).any():  # a class of one or two groups may vanish from a resample
            return dict.fromkeys(scopes, np.nan)
        ranks = stats.rankdata(means, axis=1)
        return {s: float(concordance(ranks[r].sum(0), ranks[r])) for s, r in scopes.items()}

    def resampled(rows):
        return by_scope(means_by_class(values[:, rows], code[rows], k))

    means = means_by_class(values, code, k)
    placebo = [by_scope(means_by_class(values, deal(code, groups, rng), k)) for _ in range(draws)]
    out, size = bootstrap(resampled, groups, code, rng, draws, level), np.bincount(code)
    out = out.rename(columns={"quantity": "scope"})
    ends = out[["ci_low", "ci_high"]].sub(out["bias"], axis=0)
    out[["ci_low", "ci_high"]] = ends.clip(0, 1)
    for i, (scope, rows) in enumerate(scopes.items()):
        found = kendall_w(means[rows], rng, draws).iloc[0]
        spread = means[rows].std(1, keepdims=True) if scope == "all" else 1.0
        icc = icc_of_means(means[rows] / np.where(spread == 0, 1.0, spread), level).iloc[0]
        null = np.array([draw[scope] for draw in placebo])
        row = {"n": k, "p": found["p"], "method": f"{found['method']}; {out['method'].iloc[i]}"}
        row |= {"raters": len(rows), "p_chi2": found["p_chi2"], "icc": icc["estimate"]}
        row |= {"icc_low": icc["ci_low"], "icc_high": icc["ci_high"], "placebo": null.mean()}
        row["placebo_high"] = np.quantile(null, (1 + level) / 2)
        row["p_placebo"] = permutation_p(found["estimate"], null)
        for name, value in (row | {"smallest": size.min(), "largest": size.max()}).items():
            out.loc[i, name] = value
    return out


def deal(code: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels (sample,) dealt anew: sets of the same sizes, filled with groups in random order.

    A group is torn only where one set ends and the next begins.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    size = np.bincount(code)
    turn = rng.permutation(len(size))  # which set is filled first is random as well
    order = np.argsort(rng.permutation(group.max() + 1)[group], kind="stable")
    out = np.empty(len(code), code.dtype)
    out[order] = np.repeat(turn, size[turn])
    return out
