"""Forgetting events and what follows from them, counted in one pass over the epochs.

All functions take `correct` as `(..., epoch, sample)` and return `(..., sample)`. `shown` says
which entries were observed (the online view lacks epoch 0 and whatever a sampler left out): a
forgetting event is then a 1 -> 0 transition between two consecutive *presentations* of a sample.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: What a sample that was never learned scores, and who does so. The choice changes rankings.
NEVER_LEARNED = {
    "n_presentations": "the run's number of presentations (code of Toneva et al. 2019)",
    "max": "the run's largest count, at least 1: tied with the most forgotten learned sample",
    "inf": "infinity (code of data_diet, Paul et al. 2021)",
    "cartography": "1000 (code of Dataset Cartography, Swayamdipta et al. 2020)",
    "zero": "0: it had nothing to forget and counts as the easiest (code of DeepCore, dPrune)",
    "nan": "NaN: left out of rankings",
}

#: Samples at a time, so that what is counted stays in a processor's cache over the epochs.
_BLOCK = 1 << 15


class Tally(NamedTuple):
    """What one pass over the epochs finds; indices are -1 where there is none."""

    events: np.ndarray  # 1 -> 0 transitions between consecutive presentations
    presentations: np.ndarray
    errors: np.ndarray  # wrong presentations
    lapsed: np.ndarray  # wrong presentations after the first correct one
    first_correct: np.ndarray  # row of the epoch axis
    first_event: np.ndarray
    last: np.ndarray  # state at the last presentation


def _check(correct, shown) -> tuple[np.ndarray, np.ndarray | None]:
    correct = np.asarray(correct)
    if correct.ndim < 2:
        raise ValueError(f"correct must be (..., epoch, sample), got shape {correct.shape}")
    if correct.dtype.kind not in "biu":
        raise ValueError(
            f"correct must be boolean or 0/1 integers, got {correct.dtype}; "
            "pass missing presentations as shown=False, not as NaN"
        )
    if correct.dtype.kind != "b" and correct.size and not {correct.min(), correct.max()} <= {0, 1}:
        raise ValueError(f"correct must be 0 or 1, got {correct.min()}..{correct.max()}")
    if shown is not None:
        shown = np.asarray(shown)
        if shown.shape != correct.shape or shown.dtype != bool:
            raise ValueError(
                f"shown must be bool of shape {correct.shape}, got {shown.dtype} {shown.shape}"
            )
    return correct, shown


def tally_of(correct, shown=None) -> Tally:
    """Walk the epochs once, holding a few vectors per sample and no copy of the trace."""
    correct, shown = _check(correct, shown)
    shape = correct.shape[:-2] + correct.shape[-1:]
    out = Tally(*(np.empty(shape, np.int32) for _ in range(6)), np.empty(shape, bool))
    for run in np.ndindex(correct.shape[:-2]):
        for start in range(0, shape[-1], _BLOCK):
            part = slice(start, start + _BLOCK)
            found = _walk(correct[run][:, part], None if shown is None else shown[run][:, part])
            for whole, values in zip(out, found, strict=True):
                whole[run][part] = values
    return out


def _walk(correct: np.ndarray, shown: np.ndarray | None) -> Tally:
    """`tally_of` a few traces, (epoch, sample)."""
    n = correct.shape[1]
    events, presentations, errors, lapsed = (np.zeros(n, np.int32) for _ in range(4))
    first_correct, first_event = (np.full(n, -1, np.int32) for _ in range(2))
    last, seen = np.zeros(n, bool), np.ones(n, bool)  # wrong so far: a first mistake is no event
    for t in range(len(correct)):
        right = correct[t].astype(bool)
        wrong = ~right
        if shown is not None:
            seen = shown[t]
            wrong &= seen
            right &= seen
        event = last & wrong
        first_correct[right & (first_correct < 0)] = t
        first_event[event & (first_event < 0)] = t
        events += event
        presentations += seen
        errors += wrong
        lapsed += wrong & (first_correct >= 0)
        last = right if shown is None else np.where(seen, right, last)
    return Tally(events, presentations, errors, lapsed, first_correct, first_event, last)


def epoch_at(index: np.ndarray, epochs, n_epochs: int) -> np.ndarray:
    """Epoch numbers of rows, NaN where the row is -1."""
    epochs = np.arange(n_epochs) if epochs is None else np.asarray(epochs)
    if epochs.shape != (n_epochs,):
        raise ValueError(f"epochs must have shape ({n_epochs},), got {epochs.shape}")
    if n_epochs == 0:
        return np.full(index.shape, np.nan)
    return np.where(index >= 0, epochs[index].astype(float), np.nan)


def forgetting_events(correct, shown=None) -> np.ndarray:
    """Count forgetting events: correct goes 1 -> 0 between consecutive presentations.

    An initial mistake is no event: nothing had been learned yet.

    Parameters
    ----------
    correct : bool or 0/1 integers, (..., epoch, sample)
    shown : bool, same shape, optional
        False where a sample was not presented; all True by default.

    Returns
    -------
    ndarray of int32, (..., sample)
        0 for never-learned samples; `forgetting_score` has the published alternatives.

    Raises
    ------
    ValueError
        On floating-point `correct`, on values other than 0 and 1, on shapes that differ.

    References
    ----------
    Toneva et al. 2019, An Empirical Study of Example Forgetting, arXiv 1812.05159.

    Examples
    --------
    >>> forgetting_events(np.array([[0, 1], [1, 0], [0, 0], [1, 1], [0, 1]])).tolist()
    [2, 1]
    """
    return tally_of(correct, shown).events


def learned_epoch(correct, shown=None, epochs=None) -> np.ndarray:
    """First epoch with correct = 1, `(..., sample)`; NaN for never-learned samples.

    `epochs` (epoch,) numbers the rows, 0, 1, ... by default.

    Examples
    --------
    >>> learned_epoch(np.array([[0, 0], [1, 0]])).tolist()
    [1.0, nan]
    """
    return epoch_at(tally_of(correct, shown).first_correct, epochs, np.shape(correct)[-2])


def first_forgetting(correct, shown=None, epochs=None) -> np.ndarray:
    """Epoch of the first forgetting event (the 0 of the 1 -> 0), `(..., sample)`; NaN if none."""
    return epoch_at(tally_of(correct, shown).first_event, epochs, np.shape(correct)[-2])


def never_learned(correct, shown=None) -> np.ndarray:
    """True for samples presented at least once and never correct, bool `(..., sample)`."""
    tally = tally_of(correct, shown)
    return (tally.first_correct < 0) & (tally.presentations > 0)


def mean_error(correct, shown=None) -> np.ndarray:
    """Share of presentations that were wrong, float `(..., sample)`; NaN if never presented."""
    tally = tally_of(correct, shown)
    return ratio(tally.errors, tally.presentations)


def lapse_length(correct, shown=None) -> np.ndarray:
    """Mean number of presentations that a forgotten sample stayed wrong, float `(..., sample)`.

    Wrong presentations since learning over forgetting events. A lapse that the last epoch cuts
    short counts with its observed length; NaN for samples that were never forgotten.
    """
    tally = tally_of(correct, shown)
    return ratio(tally.lapsed, tally.events)


def ratio(count: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.where(of > 0, count / np.maximum(of, 1), np.nan)


def forgetting_score(correct, never_learned: str = "n_presentations", shown=None) -> np.ndarray:
    """Forgetting events, with a stated value for samples that were never learned.

    Parameters
    ----------
    correct : bool or 0/1 integers, (..., epoch, sample)
    never_learned : str
        A key of `NEVER_LEARNED`: `n_presentations` (the default, as in Toneva's code), `max`,
        `inf`, `cartography` (1000), `zero`, `nan`.
    shown : bool, same shape, optional

    Returns
    -------
    ndarray of float64, (..., sample)
        Per run; sum over runs for Toneva's score of several. NaN where never presented.

    Raises
    ------
    ValueError
        On an unknown convention, quoting the known ones.

    Examples
    --------
    >>> correct = np.array([[1, 0], [0, 0], [1, 0]])
    >>> {how: forgetting_score(correct, how).tolist() for how in ("n_presentations", "zero")}
    {'n_presentations': [1.0, 3.0], 'zero': [1.0, 0.0]}
    """
    return score_of(tally_of(correct, shown), never_learned)


def score_of(tally: Tally, never_learned: str) -> np.ndarray:
    if never_learned not in NEVER_LEARNED:
        raise ValueError(
            f"never_learned must be one of {list(NEVER_LEARNED)}, got {never_learned!r}"
        )
    score = tally.events.astype(float)
    top = {  # (..., 1): presentations are the run's, or few presentations would look easy
        "n_presentations": tally.presentations.max(-1, keepdims=True, initial=0),
        "max": tally.events.max(-1, keepdims=True, initial=1),
        "inf": np.inf,
        "cartography": 1000.0,
        "zero": 0.0,
        "nan": np.nan,
    }[never_learned]
    score = np.where(tally.first_correct < 0, top, score)
    return np.where(tally.presentations > 0, score, np.nan)
