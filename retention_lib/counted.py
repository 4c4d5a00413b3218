"""Ranks and top sets of many resamples at once, each resample being a row of counts.

A statistic of repeated rows costs a sort per resample. Here every vector of scores is sorted once;
ranks and top sets follow from sums of counts over ties.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Ties(NamedTuple):
    """A vector of scores as blocks of equal values, the largest value first."""

    block: np.ndarray  # (sample,) block of every sample
    blocks: int


def ties_of(score: np.ndarray) -> Ties:
    """Blocks of equal scores, the largest first; infinities are values like others.

    Examples
    --------
    >>> ties_of(np.array([0.0, 3.0, 0.0])).block.tolist()
    [1, 0, 1]
    """
    score = np.asarray(score, float)
    if score.ndim != 1 or len(score) == 0 or np.isnan(score).any():
        raise ValueError(f"score must be a vector without NaN, not empty, got {score.shape}")
    order = np.argsort(-score)  # not stable, which is faster: equal scores share a block
    falling = score[order]
    block = np.empty(len(score), int)
    block[order] = np.cumsum(np.append(True, falling[1:] != falling[:-1])) - 1
    return Ties(block, int(block[order[-1]]) + 1)


def class_starts(labels: np.ndarray) -> np.ndarray:
    """Where each class begins among samples sorted by class, (class,)."""
    return np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))


def _sizes(ties: Ties, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Size of every block and how many samples come before it, both (draw, block)."""
    size = np.stack([np.bincount(ties.block, row, ties.blocks) for row in counts])
    return size, np.cumsum(size, axis=1) - size


def midranks(ties: Ties, counts: np.ndarray) -> np.ndarray:
    """Midrank of every sample in every resample, 1 for the largest score, (draw, sample).

    Equal to ranking the repeated rows, all copies of a sample being ties. A sample that a resample
    does not hold has the rank between its neighbours; its count of 0 keeps it out of any sum.

    Examples
    --------
    >>> midranks(ties_of(np.array([5.0, 7.0, 5.0])), np.ones((1, 3))).tolist()
    [[2.5, 1.0, 2.5]]
    """
    size, before = _sizes(ties, counts)
    return (before + (size + 1) / 2)[:, ties.block]


def top_sizes(counts: np.ndarray, share: float) -> np.ndarray:
    """`ties.top_count` of every resample, (draw,)."""
    return np.maximum(1.0, np.floor(counts.sum(1) * share + 0.5))


def memberships(ties: Ties, counts: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Chance of each copy of a sample to be among the k largest, (draw, sample).

    1 above the threshold, 0 below; at it, (k - samples above) / (samples at it).

    Parameters
    ----------
    ties : Ties
    counts : array, (draw, sample)
    k : array, (draw,)

    Examples
    --------
    >>> memberships(ties_of(np.array([5.0, 7.0, 5.0])), np.ones((1, 3)), np.array([2.0])).tolist()
    [[0.5, 1.0, 0.5]]
    """
    return _block_memberships(ties, counts, k)[:, ties.block]


def _block_memberships(ties: Ties, counts: np.ndarray, k: np.ndarray) -> np.ndarray:
    size, before = _sizes(ties, counts)
    wanted = np.clip(k[:, None] - before, 0, size)
    return wanted / np.where(size > 0, size, 1)


def overlaps(
    scores: np.ndarray, groups: np.ndarray, labels: np.ndarray, share: float, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Jaccard of the expected overlap of every two runs' top sets, and its level by class alone.

    With m(i) the `memberships`, w(i) the counts and o = sum w m_a m_b, the Jaccard index is
    o / (2k - o). By class alone, o is the sum over classes of the size W of the class times the
    mean of m_a(i) m_b(j) over pairs of samples i, j of different groups. A permutation within
    the class would set some samples beside themselves, in a resample beside copies of themselves,
    and so take part of the agreement for chance: 1 / W of it, twice that in a resample. A class
    with one group has no other pairs and is left with these.

    Parameters
    ----------
    scores : array, (run, sample)
    groups, labels : array, (sample,)
    share : float
    counts : array, (draw, sample)

    Returns
    -------
    jaccard, chance : array, (draw, run, run)
        The diagonals are a run with itself, ties broken twice.
    """
    return overlap_statistic(scores, groups, labels, share)(counts)


def overlap_statistic(
    scores: np.ndarray, groups: np.ndarray, labels: np.ndarray, share: float
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """`overlaps` as a function of the counts alone: scores, groups and classes are sorted once."""
    _, group = np.unique(groups, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    by_cell = np.lexsort((group, label))
    group, label = group[by_cell], label[by_cell]
    ties = [ties_of(score[by_cell]) for score in scores]

    def statistic(counts):
        counts = counts[:, by_cell]
        factor, alone = _pair_weights(group, label, counts)
        k = top_sizes(counts, share)
        by_block = [_block_memberships(t, counts, k) for t in ties]
        # Most samples are in no top set of any resample, and add nothing to any sum.
        alive = [(b > 0).any(0)[t.block] for b, t in zip(by_block, ties, strict=True)]
        alive = np.flatnonzero(np.any(alive, axis=0))
        held = [b[:, t.block[alive]] for b, t in zip(by_block, ties, strict=True)]
        held = np.stack(held, axis=1)
        weighted = held * counts[:, None, alive]
        overlap = weighted @ held.transpose(0, 2, 1)  # (draw, run, run)
        cell, first = _starts(group[alive], label[alive])
        in_cell = weighted if len(cell) == len(alive) else np.add.reduceat(weighted, cell, axis=2)
        in_class = np.add.reduceat(weighted, cell[first], axis=2)
        of_class, of_cell = label[alive][cell[first]], label[alive][cell]
        by_chance = (in_class * factor[:, None, of_class]) @ in_class.transpose(0, 2, 1)
        own = (factor * ~alone)[:, None, of_cell]
        by_chance -= (in_cell * own) @ in_cell.transpose(0, 2, 1)
        twice = 2 * k[:, None, None]
        return overlap / (twice - overlap), by_chance / (twice - by_chance)

    return statistic


def _starts(group: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where cells (class and group) begin among samples sorted by both, and classes among cells."""
    new_class = np.append(True, label[1:] != label[:-1])
    cell = np.flatnonzero(new_class | np.append(True, group[1:] != group[:-1]))
    return cell, np.flatnonzero(new_class[cell])


def _pair_weights(group, label, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W / (number of ordered pairs of samples of different groups), (draw, class); where none are.

    There, the factor is 1 / W, for all pairs. Samples are sorted by class, then by group.
    """
    cell, first = _starts(group, label)
    size = counts if len(cell) == len(group) else np.add.reduceat(counts, cell, axis=1)
    total = np.add.reduceat(size, first, axis=1)
    pairs = total**2 - np.add.reduceat(size**2, first, axis=1)
    alone = pairs < 0.5
    return np.where(alone, 1 / np.maximum(total, 1), total / np.where(alone, 1, pairs)), alone
