"""Counts behind every survival analysis: steps at risk and forgetting events by group and time.

Time is discrete. A sample is at risk in the step from epoch t to t + 1 if it is right at t, and
the event is that it is wrong at t + 1. Two clocks: `age`, epochs since the sample was (re)learned,
and `epoch`, on which samples enter late, when they are learned (left truncation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

SCALES = ("age", "epoch")
EVENTS = ("first", "recurrent")
#: A default horizon ends where fewer groups than this are at risk.
MIN_GROUPS = 10
#: Numbers in one block of redrawn counts (64 MiB).
BLOCK = 2**23


class Risk(NamedTuple):
    """Counts, int32 (group, time); column j is time j + 1."""

    at_risk: np.ndarray
    events: np.ndarray


def risk_counts(
    correct: np.ndarray, scale: str = "age", event: str = "first", groups: np.ndarray | None = None
) -> Risk:
    """Steps at risk and forgetting events of every group at every time, summed over runs.

    Parameters
    ----------
    correct : bool or 0/1 integers, (run, epoch, sample), or (epoch, sample) for one run
    scale : {"age", "epoch"}
        Age k: from k - 1 to k epochs after the sample was learned (`recurrent`: last became
        right). Epoch k: from epoch k - 1 to k.
    event : {"first", "recurrent"}
        `first` leaves a sample out after its first forgetting event; with `recurrent` it is at
        risk again whenever it is right again.
    groups : array, (sample,), optional
        What belongs together; default every sample by itself.

    Returns
    -------
    Risk
        Groups in the order of `np.unique(groups)`; times 1 to the last epoch.

    Raises
    ------
    ValueError
        On values that are not correctness, fewer than two epochs, or an unknown scale or event.

    Examples
    --------
    >>> risk = risk_counts(np.array([[1], [1], [0], [1], [0]]), event="recurrent")
    >>> risk.at_risk.tolist(), risk.events.tolist()
    ([[2, 1, 0, 0]], [[1, 1, 0, 0]])
    """
    cube = as_runs(correct)
    one_of("scale", scale, SCALES)
    one_of("event", event, EVENTS)
    code, n_groups = group_codes(groups, cube.shape[2])
    steps = cube.shape[1] - 1
    at_risk, events = (np.zeros(n_groups * steps, np.int32) for _ in range(2))
    for run in cube:
        for who, age, epoch, lost in steps_at_risk(run, event):
            cell = code[who] * steps + (age if scale == "age" else epoch) - 1
            np.add.at(at_risk, cell, 1)
            np.add.at(events, cell[lost], 1)
    return Risk(at_risk.reshape(n_groups, steps), events.reshape(n_groups, steps))


def steps_at_risk(correct: np.ndarray, event: str) -> Iterator[tuple]:
    """Steps of one run (epoch, sample): samples at risk, their age and epoch after, who is lost."""
    since = np.zeros(correct.shape[1], np.int64)  # epoch at which it last became right
    right, fresh = np.zeros(correct.shape[1], bool), np.ones(correct.shape[1], bool)
    for t in range(len(correct) - 1):
        since[correct[t] & ~right] = t
        right = correct[t]
        who = np.flatnonzero(right & fresh)
        lost = ~correct[t + 1, who]
        yield who, t + 1 - since[who], t + 1, lost
        if event == "first":
            fresh[who[lost]] = False


def as_runs(correct) -> np.ndarray:
    """Correctness as bool (run, epoch, sample), checked; (epoch, sample) is one run."""
    correct = np.asanyarray(correct)
    if correct.ndim == 2:
        correct = correct[None]
    if correct.ndim != 3 or correct.shape[1] < 2:
        raise ValueError(
            "correct must be (run, epoch, sample) or (epoch, sample) with at least 2 epochs, "
            f"got shape {correct.shape}"
        )
    if correct.dtype == bool:
        return correct
    if correct.dtype.kind not in "iu" or (correct.size and not np.isin(correct, (0, 1)).all()):
        raise ValueError(f"correct must be boolean or 0/1 integers, got {correct.dtype}")
    return correct.astype(bool)


def group_codes(groups, n: int) -> tuple[np.ndarray, int]:
    """Groups as numbers 0, 1, ... and how many there are."""
    if groups is None:
        return np.arange(n), n
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"groups must be one per sample, shape ({n},), got {groups.shape}")
    names, code = np.unique(groups, return_inverse=True)
    return code, len(names)


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """A ValueError unless `value` is among the known."""
    if value not in known:
        raise ValueError(f"{name} must be one of {known}, got {value!r}")


def quotient(a, b) -> np.ndarray:
    """a / b, NaN where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, float), b)
    return np.divide(a, b, out=np.full(b.shape, np.nan), where=b != 0)


def product_limit(at_risk: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Product-limit S at times 1, 2, ..., over the last axis; NaN once nobody is left to watch."""
    kept = 1 - quotient(events, at_risk)
    ever = at_risk.sum(-1, keepdims=True) > 0
    kept = np.where((np.cumsum(at_risk, -1) == 0) & ever, 1.0, kept)  # before the first entry
    gone = np.logical_or.accumulate(kept == 0, axis=-1)  # all are forgotten: none is missed later
    return np.where(gone, 0.0, np.cumprod(kept, -1))


def influence(risk: Risk) -> np.ndarray:
    """What each group contributes to log S(t), (group, time); squares sum to the variance."""
    n, d = risk.at_risk.sum(0, dtype=np.int64), risk.events.sum(0, dtype=np.int64)
    excess = risk.events - np.nan_to_num(quotient(d, n)) * risk.at_risk
    return -np.cumsum(np.where(n > 0, quotient(excess, n - d), 0.0), axis=1)


def survival_of(risk: Risk, level: float = 0.95, greenwood: bool = False) -> pd.DataFrame:
    """Product-limit curve of the pooled counts with its log-log interval, times 0, 1, ...

    Parameters
    ----------
    greenwood : bool
        Greenwood's variance instead of the sum of squared influences: the same for independent
        groups without late entry; with it the influences are noisier and as large on average.

    Returns
    -------
    DataFrame
        `time`, `at_risk`, `events`, `survival`, `se`, `ci_low`, `ci_high`, `method`, as
        `survival.kaplan_meier` explains them.
    """
    n, d = (np.r_[0, x.sum(0, dtype=np.int64)] for x in risk)
    survival = np.r_[1.0 if n.any() else np.nan, product_limit(n[1:], d[1:])]
    variance = np.r_[0.0, (influence(risk) ** 2).sum(0)]
    if greenwood:
        variance = np.cumsum(np.where(n > 0, quotient(d, n * (n - d)), 0.0))
    se_log = np.sqrt(variance)
    se_log[~(survival > 0)] = np.nan
    between = (survival > 0) & (survival < 1)
    log_s = np.log(survival, where=between, out=np.full(len(n), np.nan))
    factor = np.exp(stats.norm.ppf((1 + level) / 2) * se_log / log_s)  # log_s < 0: below 1
    columns = {"time": np.arange(len(n)), "at_risk": n, "events": d}
    columns |= {"survival": survival, "se": survival * se_log}
    columns |= {"ci_low": np.exp(log_s / factor), "ci_high": np.exp(log_s * factor)}
    method = f"Kaplan-Meier, log-log, Greenwood over groups, {level:.0%}"
    return pd.DataFrame(columns | {"method": method})


def common_horizon(horizon: int | None, *risks: Risk) -> int:
    """The given horizon, checked, or one to which enough groups were watched in each of `risks`.

    S(horizon - 1) is the last term of the sum. Which groups were watched does not change when
    labels are swapped within groups: `label_swap` stays exact, and under any swap somebody is at
    risk.
    """
    steps = risks[0].at_risk.shape[1]
    if horizon is not None:
        if not 1 <= horizon <= steps:
            raise ValueError(f"horizon must lie in 1..{steps} epochs, got {horizon!r}")
        return int(horizon)
    groups = np.all([r.at_risk > 0 for r in risks], axis=0).sum(0)
    if not (groups >= MIN_GROUPS).any():
        raise ValueError(
            f"a default horizon needs at least {MIN_GROUPS} groups at risk at age 1 in everything "
            f"compared, got {groups[0]}; give horizon="
        )
    return min(int(np.flatnonzero(groups >= MIN_GROUPS)[-1]) + 2, steps)
