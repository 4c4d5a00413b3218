"""From correctness to retention traces, what a curve is fitted to, by a `TraceConvention`."""

from __future__ import annotations

import numpy as np

from retention_lib.config import TraceConvention
from retention_lib.forgetting import tally_of

#: Weight of the newest epoch in the signal `ema`: about three epochs of memory.
EMA_WEIGHT = 0.3


def retention_trace(
    correct, convention: TraceConvention, shown=None
) -> tuple[np.ndarray, np.ndarray]:
    """Retention traces r(t) with t counted from each sample's own origin.

    Row k holds the value k epochs after the origin, so that one grid t = 0, 1, ... fits all.
    With c the correctness since the origin:

    * `raw`: r(t) = c(t);
    * `cumulative_mean`: mean of c up to t;
    * `ema`: r(0) = c(0), r(t) = 0.7 r(t-1) + 0.3 c(t);
    * `cumulative_error`: 1 - (mistakes up to t) / (epochs in the trace).

    Parameters
    ----------
    correct : bool or 0/1 integers, (..., epoch, sample)
    convention : TraceConvention
        Origin `epoch_0`; `first_learned`, where a never-learned sample keeps epoch 0 and hence a
        trace of zeros; `peak`, the first epoch at which the signal since epoch 0 is largest. Of
        `raw` correctness the peak is the learned epoch. Its population is judged on all epochs:
        `ever_learned`, `ever_forgotten` (at least one forgetting event), `not_flat` (the trace
        is not constant). Its view is the caller's business: `correct` is already one view.
    shown : bool, (..., epoch, sample), optional
        Presentations; unshown epochs are masked, and a smoothed signal passes over them.

    Returns
    -------
    r : float32, (..., epoch, sample)
        NaN outside the mask.
    mask : bool, (..., epoch, sample)
        False after the trace's end, where unshown, and for samples outside the population.

    Raises
    ------
    ValueError
        On shapes or values that are not correctness (see `forgetting_events`).

    Examples
    --------
    >>> correct = np.array([[0], [1], [0]])
    >>> r, mask = retention_trace(correct, TraceConvention(origin="first_learned"))
    >>> r[:, 0].tolist()
    [1.0, 0.0, nan]
    """
    correct = np.asanyarray(correct)
    tally = tally_of(correct, shown)  # checks the input as well
    if shown is None and is_correctness(convention):
        return correct.astype(np.float32), np.ones(correct.shape, bool)
    r = np.full(correct.shape, np.nan, np.float32)
    keep = {
        "all": np.ones(tally.events.shape, bool),
        "ever_learned": tally.first_correct >= 0,
        "ever_forgotten": tally.events > 0,
        "not_flat": np.ones(tally.events.shape, bool),
    }[convention.population]
    for run in np.ndindex(correct.shape[:-2]):
        seen = None if shown is None else np.asanyarray(shown)[run]
        if convention.origin == "first_learned":
            origin = np.maximum(tally.first_correct[run], 0)
            _follow(r[run], correct[run], seen, origin, convention.signal)
        else:
            zero = np.zeros(correct.shape[-1], np.int32)
            _follow(r[run], correct[run], seen, zero, convention.signal)
            if convention.origin == "peak":
                _start_at_peak(r[run])
        if convention.population == "not_flat":
            keep[run] = np.fmax.reduce(r[run]) > np.fmin.reduce(r[run])
        r[run][:, ~keep[run]] = np.nan
    return r, ~np.isnan(r)


def is_correctness(convention: TraceConvention) -> bool:
    """Whether traces are the correctness itself, whole, if every epoch is shown."""
    plain = ("epoch_0", "raw", "all")
    return plain == (convention.origin, convention.signal, convention.population)


def _follow(r, correct, shown, origin, signal) -> None:
    """Write the signal since `origin` (sample,) into `r` (epoch, sample), aligned to the origin."""
    n_epochs, samples = len(correct), np.arange(correct.shape[1])
    hits, seen_so_far, average = (np.zeros(len(samples), np.float32) for _ in range(3))
    length = _length(shown, origin, n_epochs) if signal == "cumulative_error" else None
    for k in range(n_epochs):
        row = np.minimum(origin + k, n_epochs - 1)
        c = correct[row, samples].astype(np.float32)
        seen = origin + k < n_epochs
        if shown is not None:
            seen &= shown[row, samples]
        first = seen & (seen_so_far == 0)
        hits += np.where(seen, c, 0)
        seen_so_far += seen
        if signal == "raw":
            value = c
        elif signal == "cumulative_mean":
            value = hits / np.maximum(seen_so_far, 1)
        elif signal == "ema":
            step = np.where(first, c, average + np.float32(EMA_WEIGHT) * (c - average))
            value = average = np.where(seen, step, average)
        else:
            value = 1 - (seen_so_far - hits) / length
        r[k] = np.where(seen, value, np.nan)


def _length(shown, origin, n_epochs) -> np.ndarray:
    """Presentations from the origin on, at least 1 to divide by."""
    if shown is None:
        return (n_epochs - origin).astype(np.float32)
    since = np.arange(n_epochs)[:, None] >= origin
    return np.maximum((np.asanyarray(shown) & since).sum(0), 1).astype(np.float32)


def _start_at_peak(r) -> None:
    """Shift each column of `r` (epoch, sample) in place so that its first maximum comes first."""
    n_epochs, samples = len(r), np.arange(r.shape[1])
    peak = np.zeros(len(samples), np.int32)
    best = np.full(len(samples), -np.inf, np.float32)
    for t in range(n_epochs):
        higher = r[t] > best  # False for NaN
        peak, best = np.where(higher, t, peak), np.where(higher, r[t], best)
    for k in range(n_epochs):  # rows below k are read no more: peak + k >= k
        row = np.minimum(peak + k, n_epochs - 1)
        r[k] = np.where(peak + k < n_epochs, r[row, samples], np.nan)
