"""Notebook 01, continued: rank correlations, and what is missing of the attainable agreement."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from retention_lib.agreement import CROSS
from retention_lib.attainable import measured, summarise
from retention_lib.config import LITERAL, PRIMARY_SCORE, TOP_SHARE
from retention_lib.convention import retention_trace
from retention_lib.decay import fit_decay
from retention_lib.decay_result import tied
from retention_lib.findings import score_matrix
from retention_lib.missing_agreement import missing_agreement, overlap_of_pairs
from retention_lib.resampled import count_batches, units
from retention_lib.scores import scores
from retention_lib.seed_correlations import seed_to_seed
from retention_lib.ties import top_count
from retention_lib.traces import Traces

#: What becomes of never-learned samples, by score. `n_presentations` ranks like `inf` and
#: `cartography`: above all others, tied. `kept`: at what the score itself gives them (an error of
#: 1, the last epoch, lambda at its bound ...); `nan`: samples that some run never learned are left
#: out of all runs, which compares fewer samples.
READINGS = {
    "forgetting_score": ("n_presentations", "max", "zero", "nan"),
    "mean_error": ("kept", "nan"),
    "learned_epoch": ("kept", "nan"),
    "mean_loss": ("kept", "nan"),
    "mean_margin": ("kept", "nan"),
    "decay_constant": ("kept", "nan"),
}
#: Shares called most forgotten: the primary one, half of it and twice as much. What becomes of the
#: overlap between 1 and 50 % is shown by `findings.overlap_curves`.
SHARES = (0.05, 0.10, 0.20)
#: Scores whose ranks are compared, and what a figure calls them.
CORRELATED = {
    "forgetting_score": "forgetting score",
    "events": "events",
    "mean_error": "mean error",
    "learned_epoch": "learned epoch",
    "decay_constant": "decay constant λ",
}
#: The reading that `config` fixes.
PRIMARY = (PRIMARY_SCORE, "n_presentations", LITERAL.view, TOP_SHARE)


def missing_share(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    share: float = TOP_SHARE,
    draws: int = 2000,
) -> pd.DataFrame:
    """`missing_agreement` of one data set: is what each architecture forgets its own?

    Groups are `resampled.units`. No value where an architecture's seeds agree no better than
    classes make them: what is not reproducible cannot be missing.
    """
    return missing_agreement(*_study(traces, score), rng, share, draws)


def pair_table(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    share: float = TOP_SHARE,
    draws: int = 2000,
) -> pd.DataFrame:
    """`overlap_of_pairs` of one data set: every pair of runs, same architecture first."""
    return overlap_of_pairs(*_study(traces, score), rng, share, draws)


def rank_correlations(
    traces: Traces,
    rng: np.random.Generator,
    scores: Iterable[str] = tuple(CORRELATED),
    draws: int = 2000,
) -> pd.DataFrame:
    """Spearman's rho and Kendall's tau-b over samples, between architectures and between seeds.

    No share has to be chosen for these, and all samples count.

    Parameters
    ----------
    traces : Traces
    rng : Generator
    scores : iterable of str
        Keys of `findings.SCORES`.
    draws : int
        Of the bootstrap over units within class, networks fixed.

    Returns
    -------
    DataFrame
        `score`, then the rows of `seed_correlations.seed_to_seed`, and `ceiling` of a pair of
        architectures: the geometric mean of their values between seeds. NaN where a run is
        constant, where there is one seed, and where two seeds disagree.
    """
    tables = []
    for score in scores:
        found = seed_to_seed(*_study(traces, score), rng, ("spearman", "kendall"), draws)
        found.insert(0, "score", score)
        same = found.set_index(["measure", "arch_a", "arch_b"])["estimate"]
        found["ceiling"] = np.nan
        for i, row in found[found["kind"] == CROSS].iterrows():
            a, b = (same.get((row["measure"], x, x), np.nan) for x in row[["arch_a", "arch_b"]])
            found.loc[i, "ceiling"] = np.sqrt(a * b) if min(a, b) >= 0 else np.nan
        tables.append(found)
    return pd.concat(tables, ignore_index=True)


def _study(traces: Traces, score: str):
    return score_matrix(traces, score), traces.runs, units(traces.samples), traces.labels


def reading(traces: Traces, score: str, never_learned: str, view: str) -> np.ndarray:
    """One score under one convention, larger = more forgotten, (run, sample).

    Parameters
    ----------
    score, never_learned : str
        A key of `READINGS` and one of its values.
    view : {"clean", "online"}

    Returns
    -------
    ndarray
        NaN for never-learned samples under `nan`, and where a sample was never shown.

    Raises
    ------
    ValueError
        On an unknown score or convention, listing the known ones.
    """
    if never_learned not in READINGS.get(score, ()):
        known = [(s, c) for s, conventions in READINGS.items() for c in conventions]
        raise ValueError(f"reading must be one of {known}, got {(score, never_learned)!r}")
    return readings(traces, view)[score, never_learned]


def readings(traces: Traces, view: str) -> dict[tuple[str, str], np.ndarray]:
    """Every reading of one view."""
    shape = len(traces.runs), len(traces.samples)
    shown = None if view == "clean" else traces.shown(view)
    table = scores(traces, view)
    never = table["never_learned"].to_numpy().reshape(shape)
    r, mask = retention_trace(traces.correct(view), LITERAL, shown)
    found = tied(fit_decay(r, mask=None if mask.all() else mask).decay_constant)
    out = {}
    for score, conventions in READINGS.items():
        values = found if score == "decay_constant" else table[score].to_numpy(float)
        values = values.reshape(shape)
        if score == "learned_epoch":
            values = np.where(never, len(traces.epochs), values)
        if score == "mean_margin":
            values = -values
        most = np.where(never, -np.inf, values).max(1, initial=1, keepdims=True)
        instead = {"max": most, "zero": 0.0, "nan": np.nan}
        for how in conventions:
            kept = how in ("kept", "n_presentations")
            out[score, how] = values if kept else np.where(never, instead[how], values)
    return out


def overlap_specification(
    traces: Traces,
    rng: np.random.Generator,
    draws: int = 200,
    shares: tuple[float, ...] = SHARES,
    level: float = 0.95,
) -> pd.DataFrame:
    """Overlap and missing share of every two architectures, one row per convention.

    Parameters
    ----------
    traces : Traces
    rng : Generator
    draws : int
        Of the bootstrap over units within class; the same resamples serve every convention.
    shares : tuple of float

    Returns
    -------
    DataFrame
        `score`, `never_learned`, `view`, `share`, `primary`, `arch_a`, `arch_b`, `n` (samples
        compared), `k`, `excess` = cross - chance with `ci_low` and `ci_high`, `cross`, `chance`,
        `same_a`, `same_b`, `ceiling`, `room` = ceiling - chance, `missing` with `missing_low` and
        `missing_high` (NaN where `why_not` says so). Sorted by `excess`. A view that was not
        recorded has no rows; a share too small for one sample neither.

    References
    ----------
    Simonsohn, Simmons & Nelson 2020, Specification curve analysis, Nature Human Behaviour 4.
    """
    arch = traces.runs["arch"].to_numpy()
    groups, labels = units(traces.samples), traces.labels
    counts = list(count_batches(groups, labels, rng, draws, 2 * len(arch)))
    rows = []
    for view in ("clean", "online"):
        if not traces.shown(view).any():
            continue
        for (score, how), values in readings(traces, view).items():
            known = ~np.isnan(values).any(0)
            n = int(known.sum())
            for share in shares:
                if n * share < 1:
                    continue
                kept = values[:, known], groups[known], labels[known], share
                parts = measured(*kept, (batch[:, known] for batch in counts))
                key = {"score": score, "never_learned": how, "view": view, "share": share}
                key |= {"primary": (score, how, view, share) == PRIMARY}
                size = {"n": n, "k": top_count(n, share)}
                for a, b in combinations(dict.fromkeys(arch), 2):
                    found = summarise(*parts, arch, a, b, level)
                    rows.append(key | {"arch_a": a, "arch_b": b} | size | _columns(found))
    return pd.DataFrame(rows).sort_values("excess", ignore_index=True) if rows else pd.DataFrame()


def _columns(found: dict) -> dict:
    """What the specification table shows of `attainable.summarise`."""
    row = {"excess": found["excess"]}
    row |= {"ci_low": found["excess_low"], "ci_high": found["excess_high"]}
    names = ("cross", "chance", "same_a", "same_b", "ceiling", "missing")
    row |= {name: found[name] for name in names} | {"room": found["ceiling"] - found["chance"]}
    row |= {"missing_low": found["low"], "missing_high": found["high"]}
    return row | {"why_not": found["why_not"]}
