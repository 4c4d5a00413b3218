"""Batched fits of forgetting curves: all samples at once, one path for CPU and CUDA."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from retention_lib.checks import check_level
from retention_lib.config import LOSSES
from retention_lib.decay_chunk import MODELS, Job, fit_columns
from retention_lib.decay_result import DecayFit, Status

__all__ = ["LAMBDA_BOUNDS", "LOSSES", "MODELS", "DecayFit", "Status", "fit_decay"]

#: Search range of lambda [1 / unit of t]: a half-life from 0.07 to 7,000 epochs.
LAMBDA_BOUNDS = (1e-4, 10.0)
#: Traces of small runs are fitted together: calling the solver costs as much as some thousand.
TOGETHER = 1 << 17
#: What every fit has besides parameters and their standard errors.
_PER_TRACE = (
    *("sse", "r2", "log_likelihood", "aicc", "decay_low", "decay_high"),
    *("status", "n_epochs"),
)


def fit_decay(
    r,
    t=None,
    mask=None,
    model: str = "exponential",
    loss: str = "least_squares",
    *,
    weights=None,
    bounds: tuple[float, float] = LAMBDA_BOUNDS,
    level: float | None = None,
    device: str | torch.device = "cpu",
    chunk: int | None = None,
) -> DecayFit:
    """Fit one forgetting curve to every retention trace, to its global optimum.

    ====================== ======================================= =====================
    model                  R(t)                                    limits
    ====================== ======================================= =====================
    constant               level
    exponential            exp(-lambda t)
    exponential_floor      f + (1 - f) exp(-lambda t)              0 <= f <= 1
    exponential_amplitude  f + a exp(-lambda t)                    a, f >= 0, a + f <= 1
    exponential_signed     the same, a of either sign: may rise    0 <= f, a + f <= 1
    power                  (1 + t)^-b
    weibull                exp(-(lambda t)^k), lambda = 1 / tau    0.1 <= k <= 10
    change_point           before, then after, from one epoch on
    ====================== ======================================= =====================

    Parameters
    ----------
    r : array, (epoch, sample) or (run, epoch, sample)
        Retention traces, any numeric or boolean type; computed in float64. In 0..1 for the
        Bernoulli loss.
    t : array, (epoch,) or the shape of `r`, optional
        Times since the origin, increasing and not negative; 0, 1, 2, ... epochs by default.
    mask : bool, same shape as `r`, optional
        Entries to fit; all by default. A NaN inside the mask makes the trace `FAILED`.
    model : str
        A key of `MODELS`.
    loss : {"least_squares", "bernoulli"}
    weights : array, (epoch,) or the shape of `r`, optional
        Factor of each entry's loss, not negative; 0 leaves it out.
    bounds : (float, float)
        Search range of lambda, or of b for the power law, per unit of `t`.
    level : float, optional
        Confidence of profile intervals, with standard errors; without it there are neither, which
        is faster.
    device : str or torch.device
    chunk : int, optional
        Traces at a time, which bounds the memory: a few kB each at 30 epochs.

    Returns
    -------
    DecayFit

    Raises
    ------
    ValueError
        On an unknown model or loss, shapes that do not fit together, impossible times, weights,
        bounds or level, or values outside 0..1 for the Bernoulli loss.

    Notes
    -----
    Binary traces that are equal, mask and all, are fitted once and share the result.

    References
    ----------
    Ebbinghaus 1885, Über das Gedächtnis (the curve). Golub & Pereyra 1973, SIAM J. Numer. Anal.
    10, 413-432 (variable projection).

    Examples
    --------
    >>> r = np.exp(-0.2 * np.arange(10))[:, None]
    >>> float(fit_decay(r).decay_constant[0].round(6))
    0.2
    """
    r, t, w = _check(r, t, mask, weights, model, loss, bounds, level)
    device = torch.device(device)
    if chunk is None:  # the solver works in the cache by itself; a GPU wants to be filled
        chunk = 1 << 16 if device.type == "cpu" else 1 << 18
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 trace, got {chunk}")
    job = Job(model, loss, tuple(map(float, bounds)), level)
    shape, out = r.shape[:-2] + r.shape[-1:], {}
    several = max(1, TOGETHER // max(1, r.shape[-1]))
    for start in range(0, 1 if r.ndim == 2 else len(r), several):
        runs = ... if r.ndim == 2 else slice(start, start + several)
        y, own_w, own_t = (_columns(a, runs) for a in (r, w, t))
        first, place = _distinct(y, own_w) if own_t.ndim == 1 else (None, None)
        if first is not None:
            y, own_w = y[:, first], own_w if own_w is None or own_w.ndim == 1 else own_w[:, first]
        for name, values in fit_columns(job, y, own_w, own_t, device, chunk).items():
            if name not in out:
                out[name] = np.empty(shape, values.dtype)
            values = values if place is None else values[place]
            out[name][runs] = values.reshape(out[name][runs].shape)
    return _result(job, out)


def _columns(array: np.ndarray | None, runs) -> np.ndarray | None:
    """The traces of some runs side by side, (epoch, trace); None and (epoch,) serve all."""
    if array is None or array.ndim == 1:
        return array
    part = array[runs]
    return part if part.ndim == 2 else part.swapaxes(0, 1).reshape(part.shape[1], -1)


def _check(r, t, mask, weights, model, loss, bounds, level):
    """The arguments as arrays, or a ValueError that quotes what came and what was expected."""
    r = np.asarray(r)
    if model not in MODELS:
        raise ValueError(f"model must be one of {list(MODELS)}, got {model!r}")
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {LOSSES}, got {loss!r}")
    if r.ndim not in (2, 3):
        raise ValueError(f"r must be (epoch, sample) or (run, epoch, sample), got shape {r.shape}")
    if r.dtype.kind not in "biuf":
        raise ValueError(f"r must be numeric or boolean, got {r.dtype}")
    t = np.arange(r.shape[-2], dtype=float) if t is None else np.array(t, dtype=float)
    if t.shape not in (r.shape[-2:-1], r.shape):
        raise ValueError(f"t must have shape ({r.shape[-2]},) or {r.shape}, got {t.shape}")
    steps = np.diff(t, axis=-1 if t.ndim == 1 else -2)
    if not (np.isfinite(t).all() and (t >= 0).all() and (steps > 0).all()):
        raise ValueError(f"t must be finite, not negative and strictly increasing, got {t}")
    w = _weights(r, mask, weights)
    if not 0 < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must satisfy 0 < low < high < infinity, got {bounds}")
    if level is not None:
        check_level(level)
    if loss == "bernoulli" and not (np.nanmin(r, initial=0) >= 0 and np.nanmax(r, initial=1) <= 1):
        raise ValueError(
            f"the Bernoulli loss takes r in 0..1, got {np.nanmin(r)} to {np.nanmax(r)}"
        )
    return r, t, w


def _weights(r, mask, weights):
    """Mask and weights as one array, or None if both are absent."""
    if mask is not None:
        mask = np.asanyarray(mask)
        if mask.shape != r.shape or mask.dtype != bool:
            raise ValueError(f"mask must be bool of shape {r.shape}, got {mask.dtype} {mask.shape}")
    if weights is None:
        return mask
    weights = np.asarray(weights, float)
    if weights.shape not in (r.shape[-2:-1], r.shape):
        raise ValueError(
            f"weights must have shape ({r.shape[-2]},) or {r.shape}, got {weights.shape}"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"weights must be finite and not negative, got {weights}")
    if mask is None:
        return weights
    return mask * (weights[:, None] if weights.ndim == 1 else weights)


def _distinct(y, w):
    """Rows of the first of each set of equal binary columns, and every column's place among them.

    (None, None) where values or weights are not binary, or where next to nothing would be saved.
    """
    shared = w is None or w.ndim == 1
    planes = [y] if shared else [y, w]
    if y.shape[1] < 2 or not all(_binary(p[:, :256]) and _binary(p) for p in planes):
        return None, None
    if y.dtype.kind == "f" and any(np.isnan(row).any() for row in y):
        planes.append(np.isnan(y))  # within the mask they make a trace fail
    place = np.zeros(y.shape[1], np.int64)
    for plane in planes:
        for start in range(0, len(plane), 63):  # an epoch is a bit of an integer
            bits = np.zeros(y.shape[1], np.int64)
            for row in plane[start : start + 63]:
                bits = 2 * bits + (row == 1)
            bits, values = pd.factorize(bits)
            place = pd.factorize(place * len(values) + bits)[0]  # less than n^2: no overflow
    first = np.flatnonzero(np.diff(np.maximum.accumulate(place), prepend=-1))
    return (first, place) if len(first) < 0.9 * y.shape[1] else (None, None)


def _binary(values) -> bool:
    if values.dtype == bool:
        return True
    # NaN passes. Row by row: a table of all comparisons is as large as the traces.
    return all(bool(((row == 0) | (row == 1) | (row != row)).all()) for row in values)


def _result(job: Job, out: dict[str, np.ndarray]) -> DecayFit:
    """Sort the arrays of a fit into a `DecayFit`."""
    se = {name.removesuffix("_se"): out.pop(name) for name in list(out) if name.endswith("_se")}
    own = {name: out.pop(name) for name in _PER_TRACE}
    return DecayFit(job.model, job.loss, job.bounds, job.level, params=out, se=se, **own)
