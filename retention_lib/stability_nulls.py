"""Notebook 03: what agreement of seeds is left by permutations, and by redraws within margins.

Pairs of runs are those of `stability.seed_pairs`; `BOTH` is the mean over all architectures' pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib import forgetting
from retention_lib.config import PRIMARY_SCORE
from retention_lib.decay import fit_decay
from retention_lib.decay_result import tied
from retention_lib.findings import score_matrix
from retention_lib.intervals import permutation_p
from retention_lib.nulls import redraws
from retention_lib.resampled import units
from retention_lib.stability import seed_pairs
from retention_lib.traces import Traces

#: Scores that correctness alone decides, and that redraws within its margins can change.
REDRAWABLE = ("forgetting_score", "events", "decay_constant")
#: Entries (draw, run or epoch, sample) of permutations and redraws held at once.
_BATCH = 4_000_000
#: Most redraws of one run that are scored together.
_CHAINS = 64


def shuffled_blocks(
    groups: np.ndarray, labels: np.ndarray, rng: np.random.Generator, draws: int
) -> np.ndarray:
    """Permutations of samples that exchange whole groups of one size within a class.

    A group's samples may depend on each other; moving them together keeps that. The part of a group
    in each of its classes counts by itself. A group that no other of its class equals in size stays
    where it is, which can only make a test conservative.

    Parameters
    ----------
    groups, labels : array, (sample,)
    rng : Generator
    draws : int

    Returns
    -------
    ndarray of int, (draw, sample)

    Examples
    --------
    >>> shuffled_blocks([0, 0, 1, 1, 2], np.zeros(5), np.random.default_rng(0), 2).tolist()
    [[2, 3, 0, 1, 4], [0, 1, 2, 3, 4]]
    """
    _, group = np.unique(groups, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    _, cell = np.unique(group * (label.max() + 1) + label, return_inverse=True)
    size, order = np.bincount(cell), np.argsort(cell, kind="stable")
    start = np.cumsum(size) - size
    kind = label[order[start]] * (size.max() + 1) + size  # (cell,) its class and size
    out = np.tile(np.arange(len(cell)), (draws, 1))
    for same in (np.flatnonzero(kind == k) for k in np.unique(kind)):
        if len(same) > 1:
            at = order[start[same][:, None] + np.arange(size[same[0]])]  # (cell, member)
            turn = rng.permuted(np.tile(np.arange(len(same)), (draws, 1)), axis=1)
            out[:, at] = at[turn]
    return out


def position_controls(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    permutations: int = 1999,
) -> pd.DataFrame:
    """Spearman across seeds beside what is left of it if samples are not matched with themselves.

    Every run's samples are permuted on their own, in three ways. *Within class, whole groups*
    (`shuffled_blocks`): the null "ranks of two seeds are unrelated within classes", hence `p`,
    two-sided. *By position*: what an indexing error gives. *By position within class*: what the
    same error gives if samples are listed class by class.

    Returns
    -------
    DataFrame
        One row per architecture (`BOTH` first): `arch`, `spearman`, `p`, `null`, `misaligned` and
        `class_sorted` (means over permutations), each but `p` with `_low` and `_high` (their
        central 95 %); `moved`, the share of samples that the null can move; `n`, `permutations`.
        NaN where a run is constant.
    """
    ranks, labels = stats.rankdata(score_matrix(traces, score), axis=1), traces.labels
    n, own = len(labels), np.arange(len(labels))
    groups, nothing = units(traces.samples), np.zeros(n, int)
    observed = _mean_spearman(ranks[None], traces.runs)
    ways = {"null": (groups, labels), "misaligned": (own, nothing), "class_sorted": (own, labels)}
    found = {how: _permuted(ranks, traces.runs, *of, rng, permutations) for how, of in ways.items()}
    moved = (shuffled_blocks(groups, labels, rng, 50) != own).any(0).mean()
    rows = []
    for arch, value in observed.items():
        row = {"arch": arch, "spearman": value[0]}
        row["p"] = permutation_p(value[0], found["null"][arch], "two-sided")
        for how, null in found.items():
            low, high = np.quantile(null[arch], [0.025, 0.975])
            row |= {how: null[arch].mean(), f"{how}_low": low, f"{how}_high": high}
        rows.append(row | {"moved": moved, "n": n, "permutations": permutations})
    return pd.DataFrame(rows)


def _permuted(ranks, runs, groups, labels, rng, draws: int) -> dict[str, np.ndarray]:
    """Mean Spearman by architecture after every run was permuted on its own, (draw,)."""
    size, parts = max(1, _BATCH // ranks.size), []
    for begin in range(0, draws, size):
        here = min(size, draws - begin)
        x = [run[shuffled_blocks(groups, labels, rng, here)] for run in ranks]
        parts.append(_mean_spearman(np.stack(x, axis=1), runs))
    return {arch: np.concatenate([part[arch] for part in parts]) for arch in parts[0]}


def _mean_spearman(ranks: np.ndarray, runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Mean Spearman (draw,) over seed pairs, by architecture, of midranks (draw, run, sample)."""
    x = ranks - ranks.mean(2, keepdims=True)
    norm = np.sqrt((x * x).sum(2, keepdims=True))
    x = x / np.where(norm > 0, norm, np.nan)
    rho = x @ x.swapaxes(1, 2)
    return {a: rho[:, p[:, 0], p[:, 1]].mean(1) for a, p in seed_pairs(runs).items()}


def curveball_table(
    traces: Traces,
    rng: np.random.Generator,
    scores: Sequence[str] = REDRAWABLE,
    draws: int = 499,
) -> pd.DataFrame:
    """Spearman across seeds beside redraws that keep every epoch's accuracy and sample's total.

    If the redraws agree as well as the real runs do, then how often a sample is right is all that
    the agreement rests on: *when* it was right or wrong adds nothing that another seed repeats.
    The share of epochs wrong is the total itself and cannot change; losses and margins are not
    redrawn. Hence `REDRAWABLE` alone.

    Returns
    -------
    DataFrame
        One row per score and architecture (`BOTH` first): `score`, `arch`, `spearman`, `curveball`
        (mean of the redraws) with `curveball_low`, `curveball_high` (their central 95 %), `p`
        (two-sided) and `draws`. NaN where a run, or a redraw of it, is constant.

    Raises
    ------
    ValueError
        On a score that is not in `REDRAWABLE`.
    """
    if unknown := [s for s in scores if s not in REDRAWABLE]:
        raise ValueError(f"scores must be among {REDRAWABLE}, got {unknown}")
    correct = traces.correct()
    kept = {s: _score_of(correct, s) for s in scores}
    found: dict[tuple, list] = {(s, a): [] for s in scores for a in seed_pairs(traces.runs)}
    # More at once than `redraws` would take: a fit of a few traces costs as much as one of many.
    chains = max(1, min(_CHAINS, _BATCH // correct[0].size))
    walks = [redraws(run, rng, draws, chains=chains) for run in correct]
    for batch in chain([[run[None] for run in correct]], zip(*walks, strict=True)):
        for s in scores:
            ranks = [_redrawn_ranks(*of, s) for of in zip(batch, kept[s], strict=True)]
            for a, values in _mean_spearman(np.stack(ranks, axis=1), traces.runs).items():
                found[s, a].append(values)
    rows = []
    for (score, arch), parts in found.items():
        real, values = float(parts[0][0]), np.concatenate(parts[1:])
        low, high = np.quantile(values, [0.025, 0.975])
        row = {"score": score, "arch": arch, "spearman": real, "curveball": values.mean()}
        row |= {"curveball_low": low, "curveball_high": high}
        rows.append(row | {"p": permutation_p(real, values, "two-sided"), "draws": draws})
    return pd.DataFrame(rows)


def _redrawn_ranks(correct: np.ndarray, kept: np.ndarray, score: str) -> np.ndarray:
    """Midranks (draw, sample) of a score of redraws (draw, epoch, sample) of one run.

    No redraw changes a sample that is right always or never: it has its score of `kept`, (sample,).
    """
    free = correct[0].any(0) & ~correct[0].all(0)
    values = np.tile(kept.astype(float), (len(correct), 1))
    values[:, free] = _score_of(np.ascontiguousarray(correct[:, :, free]), score)
    return stats.rankdata(values, axis=1)


def _score_of(correct: np.ndarray, score: str) -> np.ndarray:
    """A score of `REDRAWABLE` for correctness (draw, epoch, sample), as `score_matrix` has it."""
    if score == "forgetting_score":
        return forgetting.forgetting_score(correct)
    if score == "events":
        return forgetting.forgetting_events(correct)
    draws, epochs, n = correct.shape
    together = correct.transpose(1, 0, 2).reshape(epochs, -1)
    if not n:
        return np.zeros((draws, 0))
    return tied(fit_decay(together).decay_constant).reshape(draws, n)
