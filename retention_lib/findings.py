"""Notebook 01: do two architectures forget the same samples? One function per measurement.

Each takes the `Traces` of one data set and returns a tidy DataFrame, unrounded; `overview.each`
puts those of several data sets below each other.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from retention_lib import agreement, forgetting, ties
from retention_lib.agreement import CROSS, MISALIGNED, SAME
from retention_lib.config import LITERAL, PRIMARY_SCORE, TOP_SHARE
from retention_lib.convention import retention_trace
from retention_lib.decay import fit_decay
from retention_lib.decay_result import tied
from retention_lib.intervals import t_interval
from retention_lib.resampled import units
from retention_lib.scores import scores
from retention_lib.traces import Traces

#: What "forgotten" may mean; larger is always more forgotten. The first carries the finding.
SCORES = {
    "forgetting_score": "forgetting events, never learned highest",
    "events_max": "forgetting events, never learned tied with the most forgotten",
    "events": "forgetting events, never learned 0",
    "mean_error": "share of epochs wrong",
    "learned_epoch": "epoch of the first right answer, never learned last",
    "mean_loss": "mean loss [nat]",
    "mean_margin": "mean margin [logit], sign reversed",
    "decay_constant": "decay constant of exp(-lambda t) [1 / epoch]",
}


def score_matrix(traces: Traces, score: str = PRIMARY_SCORE) -> np.ndarray:
    """One score of every run and sample, larger = more forgotten, (run, sample) without NaN.

    Parameters
    ----------
    score : str
        A key of `SCORES`.

    Raises
    ------
    ValueError
        On an unknown score, listing the known ones.
    """
    if score not in SCORES:
        raise ValueError(f"score must be one of {list(SCORES)}, got {score!r}")
    correct = traces.correct()
    if score == "decay_constant":
        return tied(fit_decay(*_literal(correct)).decay_constant)
    if score == "events_max":
        return forgetting.forgetting_score(correct, "max")
    values = scores(traces)[score].to_numpy(float).reshape(len(traces.runs), -1)
    if score == "learned_epoch":
        return np.where(np.isnan(values), len(traces.epochs), values)
    return -values if score == "mean_margin" else values


def _literal(correct):
    r, mask = retention_trace(correct, LITERAL)
    return r, None, None if mask.all() else mask


def architecture_overlap(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    share: float = TOP_SHARE,
    draws: int = 2000,
) -> pd.DataFrame:
    """Overlap of the most forgotten samples between and within architectures.

    Parameters
    ----------
    traces : Traces
        Runs of at least one seed of at least two architectures.
    share : float
        How many samples count as most forgotten.
    draws : int
        Of the bootstrap and of the permutations.

    Returns
    -------
    DataFrame
        The rows of `agreement.overlap_summary` (interval: samples redrawn, networks fixed), and
        `seed_low`, `seed_high`, `seeds`: the interval over seeds by `over_seeds`; `hypergeometric`
        chance; `misaligned`: mean overlap after the second run's samples were permuted by
        position; `planted_noise`: overlap that shared classes and planted label noise explain
        (NaN where nothing is planted); `ties`: share of a top set that is drawn by lot.
    """
    values, runs = score_matrix(traces, score), traces.runs
    groups, labels = units(traces.samples), traces.labels
    rows = agreement.overlap_summary(values, runs, groups, labels, rng, share, draws)
    pairs = agreement.cross_run_agreement(values, runs, rng, share)
    n = values.shape[1]
    rows["hypergeometric"] = agreement.jaccard_chance(n, agreement.top_count(n, share))
    arch, noisy = runs["arch"].to_numpy(), traces.samples.get("planted_noisy")
    for i, row in rows.iterrows():
        names = {row["arch_a"], row["arch_b"]}
        here = pairs[[{a, b} == names for a, b in zip(pairs.arch_a, pairs.arch_b, strict=True)]]
        aligned = here[here["kind"] != MISALIGNED]
        seeds = over_seeds(aligned) if row["kind"] == CROSS else t_interval([])
        rows.loc[i, ["seed_low", "seed_high"]] = seeds[["ci_low", "ci_high"]].to_numpy()[0]
        rows.loc[i, "seeds"] = runs["seed"].nunique()
        rows.loc[i, "misaligned"] = here.loc[here["kind"] == MISALIGNED, "jaccard"].mean()
        rows.loc[i, "planted_noise"] = np.nan
        if noisy is not None and row["kind"] == CROSS:
            a, b = values[arch == row["arch_a"]], values[arch == row["arch_b"]]
            strata = 2 * labels + noisy.to_numpy()
            null = agreement.jaccard_chance_stratified(a, b, strata, share, rng, draws)
            rows.loc[i, "planted_noise"] = null["chance"].iloc[0]
        rows.loc[i, "ties"] = np.mean([drawn_by_lot(v, share) for v in values[_of(arch, names)]])
    return rows


def _of(arch: np.ndarray, names: set[str]) -> np.ndarray:
    return np.isin(arch, list(names))


def over_seeds(pairs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Interval of a mean over pairs of runs, seeds being drawn: jackknife that leaves out a seed.

    Pairs share runs, so they are not independent; leaving out a seed takes all its runs at once.
    The pseudo-values S theta - (S - 1) theta(without seed s), s = 1..S, go to `t_interval`.

    Parameters
    ----------
    pairs : DataFrame
        Pairs of different architectures: `seed_a`, `seed_b`, `jaccard`.

    Returns
    -------
    DataFrame
        One row; `n` counts seeds. NaN with fewer than two.

    References
    ----------
    Efron & Stein (1981), The jackknife estimate of variance, Annals of Statistics 9, 586-596.
    """
    seeds = np.unique(pairs[["seed_a", "seed_b"]])
    whole = pairs["jaccard"].mean()
    if len(seeds) < 2:
        return t_interval([whole], level)
    kept = [pairs[(pairs["seed_a"] != s) & (pairs["seed_b"] != s)] for s in seeds]
    left = np.array([p["jaccard"].mean() for p in kept])
    return t_interval(len(seeds) * whole - (len(seeds) - 1) * left, level)


def drawn_by_lot(score: np.ndarray, share: float = TOP_SHARE) -> float:
    """Share of a top set that ties leave open, 0..1: its members at the threshold, drawn by lot.

    Examples
    --------
    >>> drawn_by_lot(np.array([2.0, 1.0, 1.0, 0.0]), share=0.5)
    0.5
    """
    k = agreement.top_count(len(score), share)
    level = ties.levels(np.asarray(score, float), k)
    needed, tied = k - (level == 2).sum(), (level == 1).sum()
    return 0.0 if needed == tied else float(needed / k)


def overlap_curves(
    traces: Traces, score: str = PRIMARY_SCORE, shares: np.ndarray | None = None
) -> pd.DataFrame:
    """Overlap as a function of the share called most forgotten, over all pairs of runs.

    Returns
    -------
    DataFrame
        `kind`, `arch_a`, `arch_b`, `share`, `jaccard` (mean over pairs), `low`, `high` (smallest
        and largest pair), `chance` (hypergeometric).
    """
    values, arch = score_matrix(traces, score), traces.runs["arch"].to_numpy()
    names = list(dict.fromkeys(arch))
    curves = []
    for i, j in combinations(range(len(arch)), 2):
        first, second = sorted((arch[i], arch[j]), key=names.index)
        kind = SAME if first == second else CROSS
        curve = agreement.overlap_curve(values[i], values[j], shares)
        curves.append(curve.assign(kind=kind, arch_a=first, arch_b=second))
    grouped = pd.concat(curves).groupby(["kind", "arch_a", "arch_b", "share"], sort=False)
    return grouped.agg(
        jaccard=("jaccard", "mean"),
        low=("jaccard", "min"),
        high=("jaccard", "max"),
        chance=("chance", "first"),
    ).reset_index()


def overlap_by_score(traces: Traces, share: float = TOP_SHARE) -> pd.DataFrame:
    """The overlap under every score of `SCORES`: how much rests on what "forgotten" means.

    Returns
    -------
    DataFrame
        `score`, `meaning`, `cross` and `same` (mean overlap between architectures, and between
        seeds of one), `spearman` (mean between architectures; NaN if a score is constant), `ties`
        (share of a top set drawn by lot) and `chance`.
    """
    arch = traces.runs["arch"].to_numpy()
    pairs = list(combinations(range(len(arch)), 2))
    cross = np.array([arch[i] != arch[j] for i, j in pairs])
    n, rows = len(traces.samples), []
    for score, meaning in SCORES.items():
        values = score_matrix(traces, score)
        overlap = np.array(
            [agreement.topk_jaccard(values[i], values[j], share, exact=False) for i, j in pairs]
        )
        ranks = rankdata(values, axis=1)
        varied = np.ptp(values, axis=1).min() > 0
        rho = np.corrcoef(ranks) if varied else np.full((len(arch), len(arch)), np.nan)
        rows.append(
            {
                "score": score,
                "meaning": meaning,
                "cross": _mean(overlap[cross]),
                "same": _mean(overlap[~cross]),
                "spearman": _mean(np.array([rho[ij] for ij in pairs])[cross]),
                "ties": np.mean([drawn_by_lot(v, share) for v in values]),
                "chance": agreement.jaccard_chance(n, agreement.top_count(n, share)),
            }
        )
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
