"""Do two score vectors name the same samples? Overlap that respects ties.

Most samples are never forgotten, so the "most forgotten 10 %" is usually decided by ties. The
overlap here is the expected one when each vector breaks its own ties uniformly at random and
independently of the other; nothing is drawn, the expectation is computed.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from retention_lib.checks import check_level
from retention_lib.intervals import bootstrap, one_row, permutation_p
from retention_lib.rank_agreement import spearman
from retention_lib.threads import each
from retention_lib.ties import (
    cross_tables,
    expected_jaccard,
    jaccard_chance,
    levels,
    paired,
    top_count,
    topk_jaccard,
)

__all__ = [
    "CROSS",
    "MISALIGNED",
    "SAME",
    "cross_run_agreement",
    "jaccard_chance",
    "jaccard_chance_stratified",
    "overlap_curve",
    "overlap_summary",
    "top_count",
    "topk_jaccard",
]

CROSS, SAME, MISALIGNED = "cross_architecture", "same_architecture", "misaligned"


def jaccard_chance_stratified(
    a: np.ndarray,
    b: np.ndarray,
    labels: np.ndarray,
    share: float = 0.10,
    rng: np.random.Generator | None = None,
    draws: int = 1999,
    level: float = 0.95,
) -> pd.DataFrame:
    """Overlap against the null that only the class is shared: b permuted within classes.

    Parameters
    ----------
    a, b : array, (sample,) or (run, sample)
        With several runs the statistic is the mean over all pairs (run of a, run of b); the runs
        of b are permuted together, which keeps what they have in common. No NaN.
    labels : array, (sample,)
    share : float
    rng : Generator
        Required.
    draws : int
        At least 1,999 if the p-value enters a Holm family of 16 tests.

    Returns
    -------
    DataFrame
        One row: `estimate` is the observed overlap, without an interval (NaN), `p` one-sided
        (b + 1) / (draws + 1); extras `chance`, `chance_low`, `chance_high`: mean and quantiles of
        the null.
    """
    check_level(level)
    if rng is None:
        raise ValueError("rng must be a numpy Generator, got None")
    a, b, labels = np.atleast_2d(a), np.atleast_2d(b), np.asarray(labels)
    if a.shape[1] != b.shape[1] or labels.shape != a.shape[1:]:
        raise ValueError(
            f"a, b and labels must share samples, got {a.shape, b.shape, labels.shape}"
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("a and b must not hold NaN: leave these samples out of a, b and labels")
    k = top_count(a.shape[1], share)
    top_a, top_b = levels(a, k), levels(b, k)
    label = np.unique(labels, return_inverse=True)[1]
    by_class = top_a[:, np.argsort(label, kind="stable")]

    def shuffled(turn):  # a random order within each class, in place of the class's own order
        return cross_tables(by_class, top_b[:, np.argsort(label + turn)])

    turns = (rng.random(len(label)) for _ in range(draws))
    tables = [cross_tables(top_a, top_b), *each(shuffled, turns, len(label))]
    tables = np.stack(tables)  # (1 + draw, run of a, run of b, 3, 3)
    flat = tables.reshape(-1, 3, 3)
    values = (
        expected_jaccard(flat, np.full(len(flat), k), exact=False).reshape(len(tables), -1).mean(1)
    )
    null = values[1:]
    low, high = np.quantile(null, [(1 - level) / 2, (1 + level) / 2])
    extras = {"chance": null.mean(), "chance_low": low, "chance_high": high}
    p = permutation_p(values[0], null)
    method = f"expected top-{share:.0%} Jaccard, permuted within class, {draws} draws"
    return one_row(values[0], np.nan, np.nan, a.shape[1], p, method, **extras)


def overlap_curve(a: np.ndarray, b: np.ndarray, shares: np.ndarray | None = None) -> pd.DataFrame:
    """Expected overlap as a function of the share called "most forgotten".

    Parameters
    ----------
    a, b : array, (sample,)
    shares : array, (share,), optional
        Default 1, 2, ..., 50 %.

    Returns
    -------
    DataFrame
        `share`, `k`, `n`, `jaccard`, `chance` (hypergeometric).
    """
    shares = np.arange(1, 51) / 100 if shares is None else np.asarray(shares, float)
    a, b = paired(a, b)
    ks = np.array([top_count(len(a), share) for share in shares])
    out = pd.DataFrame({"share": shares, "k": ks, "n": len(a), "jaccard": np.nan, "chance": np.nan})
    if len(a):
        pairs = [cross_tables(levels(a, k)[None], levels(b, k)[None])[0, 0] for k in ks]
        all_tied = np.zeros((len(ks), 3, 3), int)
        all_tied[:, 1, 1] = len(a)
        out["jaccard"] = expected_jaccard(np.stack(pairs), ks, exact=False)
        out["chance"] = expected_jaccard(all_tied, ks, exact=False)
    return out


def cross_run_agreement(
    scores: np.ndarray, runs: pd.DataFrame, rng: np.random.Generator, share: float = 0.10
) -> pd.DataFrame:
    """Agreement of every pair of runs, each with its misaligned control.

    Parameters
    ----------
    scores : array, (run, sample)
        One data set, one sampler, samples in one order.
    runs : DataFrame
        One row per run, with `arch` and `seed`.
    rng : Generator
        Draws the control's permutations.
    share : float

    Returns
    -------
    DataFrame
        One row per pair and alignment: `kind` is `cross_architecture`, `same_architecture` (other
        seed: the noise ceiling) or `misaligned` (the second vector permuted by position: what an
        indexing error looks like); `run_a`, `run_b` (positions), `arch_a`, `arch_b`, `seed_a`,
        `seed_b`, `same_arch`, `same_seed`, `n`, `jaccard`, `chance`, `spearman`.
    """
    scores = _check_runs(scores, runs)
    arch, seed = runs["arch"].to_numpy(), runs["seed"].to_numpy()
    rows = []
    for i, j in combinations(range(len(runs)), 2):
        same_arch = bool(arch[i] == arch[j])
        shuffled = scores[j][rng.permutation(scores.shape[1])]
        for kind, other in ((SAME if same_arch else CROSS, scores[j]), (MISALIGNED, shuffled)):
            rho = spearman(scores[i], other)
            n = int(rho["n"].iloc[0])
            rows.append(
                {
                    **{"kind": kind, "run_a": i, "run_b": j, "arch_a": arch[i], "arch_b": arch[j]},
                    **{"seed_a": seed[i], "seed_b": seed[j], "same_arch": same_arch},
                    **{"same_seed": bool(seed[i] == seed[j]), "n": n},
                    "jaccard": topk_jaccard(scores[i], other, share),
                    "chance": jaccard_chance(n, top_count(n, share)) if n else np.nan,
                    "spearman": float(rho["estimate"].iloc[0]),
                }
            )
    return pd.DataFrame(rows)


def overlap_summary(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    share: float = 0.10,
    draws: int = 1999,
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean overlap within and between architectures, with interval, chance level and ceiling.

    Parameters
    ----------
    scores, runs
        As in `cross_run_agreement`, without NaN.
    groups, labels : array, (sample,)
        The bootstrap redraws groups within classes; permutations stay within classes.

    Returns
    -------
    DataFrame
        One row per pair of architectures (`kind` `cross_architecture`) and per architecture
        (`same_architecture`, mean over pairs of seeds; absent with one seed); the columns of a
        one-row result, then `kind`, `arch_a`, `arch_b`, `pairs`, `chance` and `p` (permutation
        within class) and `ceiling` = sqrt(J_AA J_BB), NaN where a seed is missing.
    """
    scores = _check_runs(scores, runs)
    arch = runs["arch"].to_numpy()
    names = list(dict.fromkeys(arch))
    sets: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for i, j in combinations(range(len(runs)), 2):
        first, second = sorted((arch[i], arch[j]), key=names.index)
        sets.setdefault((first, second), []).append((i, j))
    order = sorted(sets, key=lambda pair: (pair[0] == pair[1], *map(names.index, pair)))

    first, second = np.triu_indices(len(runs), 1)

    def means(rows: np.ndarray) -> dict[str, float]:
        k = top_count(len(rows), share)
        top = levels(scores[:, rows], k)
        overlap = np.full((len(scores), len(scores)), np.nan)
        tables = cross_tables(top, top)[first, second]
        overlap[first, second] = expected_jaccard(tables, np.full(len(first), k), exact=False)
        return {str(pair): overlap[*zip(*sets[pair], strict=True)].mean() for pair in order}

    out = bootstrap(means, groups, labels, rng, draws, level).drop(columns="quantity")
    ceiling = {pair[0]: out["estimate"][i] for i, pair in enumerate(order) if len(set(pair)) == 1}
    for i, (first, second) in enumerate(order):
        a, b = np.flatnonzero(arch == first), np.flatnonzero(arch == second)
        a, b = (a[:1], b[1:]) if first == second else (a, b)
        null = jaccard_chance_stratified(scores[a], scores[b], labels, share, rng, draws)
        top = np.sqrt(ceiling.get(first, np.nan) * ceiling.get(second, np.nan))
        extras = {"kind": SAME if first == second else CROSS, "arch_a": first, "arch_b": second}
        extras |= {"pairs": len(sets[first, second]), "chance": null["chance"].iloc[0]}
        for name, value in (extras | {"ceiling": top, "p": null["p"].iloc[0]}).items():
            out.loc[i, name] = value
    return out


def _check_runs(scores: np.ndarray, runs: pd.DataFrame) -> np.ndarray:
    """Refuse scores that do not match the runs, and runs that a pair must not mix."""
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or len(scores) != len(runs):
        raise ValueError(f"scores must be ({len(runs)} runs, sample), got shape {scores.shape}")
    for column in ("dataset", "sampler"):
        if column in runs and runs[column].nunique() > 1:
            raise ValueError(f"runs must share one {column}, got {sorted(runs[column].unique())}")
    if runs.duplicated(["arch", "seed"]).any():
        raise ValueError("each (arch, seed) must be one run; select one configuration first")
    return scores
