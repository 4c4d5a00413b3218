"""Decay traces with known curve, noise and persistence: positive controls for fitted curves."""

from __future__ import annotations

import numpy as np
import torch

from retention_lib.curves import CURVES, lost


def retention(t, rate, floor=0.0, amplitude=None, shape=None, model="exponential_floor"):
    """R(t) = floor + amplitude exp(-(rate s(t))^shape), the clock s and the limits by the model.

    Parameters
    ----------
    t : array
        Epochs since the origin; broadcasts with the parameters, as in (epoch, 1) and (sample,).
    rate : array
        Decay constant lambda >= 0 [1 / epoch], or the exponent b of `power`: (1 + t)^-b.
    floor, amplitude : array
        R(inf) and R(0) - R(inf). The amplitude is 1 - floor unless given.
    shape : array, optional
        k > 0 of `weibull`, which needs it; 1 elsewhere.
    model : str
        A key of `curves.CURVES`; it says which floors and amplitudes are allowed.

    Returns
    -------
    float64, broadcast shape

    Examples
    --------
    >>> retention(np.array([0.0, 10.0]), 0.1, floor=0.5).round(3).tolist()
    [1.0, 0.684]
    """
    if model not in CURVES:
        raise ValueError(f"model must be one of {tuple(CURVES)}, got {model!r}")
    if (shape is not None) != CURVES[model].shaped:
        raise ValueError(f"shape belongs to the model 'weibull' alone, got {shape!r} for {model!r}")
    rate, floor = np.asarray(rate, float), np.asarray(floor, float)
    amplitude = 1 - floor if amplitude is None else np.asarray(amplitude, float)
    start, corners = floor + amplitude, len(CURVES[model].vertices)
    limits = {
        "rate >= 0": rate >= 0,
        "floor and floor + amplitude in 0..1": (abs(floor - 0.5) <= 0.5)
        & (abs(start - 0.5) <= 0.5 + 1e-12),
        "amplitude >= 0": (amplitude >= 0) | (corners == 4),
        "floor + amplitude = 1": (abs(start - 1) < 1e-12) | (corners > 2),
        "floor = 0": (floor == 0) | (corners > 1),
        "shape > 0": True if shape is None else np.asarray(shape) > 0,
    }
    for rule, holds in limits.items():
        if not np.all(holds):
            raise ValueError(f"{model} needs {rule}, got {rate=}, {floor=}, {amplitude=}, {shape=}")
    with np.errstate(divide="ignore"):  # rate 0 has u = -inf and never loses anything
        u = torch.as_tensor(np.log(rate))
    v = None if shape is None else torch.as_tensor(np.log(np.asarray(shape, float)))
    clock = CURVES[model].clock(torch.as_tensor(np.asarray(t, float)))
    return np.clip(floor + amplitude * (1 - lost(clock, u, v).numpy()), 0, 1)


def decay_traces(
    n: int,
    n_epochs: int,
    rate,
    rng: np.random.Generator,
    floor=0.0,
    amplitude=None,
    shape=None,
    kind: str = "bernoulli",
    noise: float = 0.1,
    persistence: float = 0.0,
    model: str = "exponential_floor",
) -> np.ndarray:
    """Traces whose expectation at epochs 0, 1, ... is exactly a `retention` curve.

    `bernoulli`: a Markov chain of 0 and 1. With p and q the curve at two consecutive epochs,

        P(1, 1) = p q + persistence (min(p, q) - p q),

    so that `persistence` is the share of the largest covariance that these marginals allow (Cole's
    coefficient); it is the lag-1 autocorrelation wherever the curve is level. 0 is independence,
    at 1 a forgotten sample stays forgotten; every value in 0..1 is feasible with every curve, as
    the joint probabilities lie between those of independent and of comonotone epochs.
    `gaussian`: the curve plus a stationary first-order autoregression with standard deviation
    `noise` and lag-1 autocorrelation `persistence`, in (-1, 1).

    Parameters
    ----------
    n, n_epochs : int
    rate, floor, amplitude, shape : number or array, (sample,)
    rng : Generator
    kind : {"bernoulli", "gaussian"}
    noise, persistence : float
    model : str
        As in `retention`.

    Returns
    -------
    bool or float64, (epoch, sample)

    References
    ----------
    Cole (1949), The measurement of interspecific association, Ecology 30, 411-424.

    Examples
    --------
    >>> decay_traces(4, 12, 0.2, np.random.default_rng(0)).shape
    (12, 4)
    """
    if kind not in ("bernoulli", "gaussian"):
        raise ValueError(f"kind must be 'bernoulli' or 'gaussian', got {kind!r}")
    low = 0 if kind == "bernoulli" else -1
    if not (low <= persistence <= 1) or (kind == "gaussian" and abs(persistence) == 1):
        raise ValueError(f"persistence must lie in {low}..1 for {kind}, got {persistence!r}")
    if n < 1 or n_epochs < 1:
        raise ValueError(f"n and n_epochs must be at least 1, got {n!r} and {n_epochs!r}")
    t = np.arange(n_epochs, dtype=float)[:, None]
    p = np.broadcast_to(retention(t, rate, floor, amplitude, shape, model), (n_epochs, n))
    if kind == "bernoulli":
        return _markov(p, persistence, rng)
    error = rng.standard_normal((n_epochs, n))
    for k in range(1, n_epochs):
        error[k] = persistence * error[k - 1] + np.sqrt(1 - persistence**2) * error[k]
    return p + noise * error


def _markov(p: np.ndarray, persistence: float, rng: np.random.Generator) -> np.ndarray:
    """Binary chain with marginals p (epoch, sample); see `decay_traces`."""
    draw = rng.random(p.shape)
    x = np.empty(p.shape, bool)
    x[0] = draw[0] < p[0]
    tiny = np.finfo(float).tiny  # where the division would be by 0 the state does not occur
    for k in range(1, len(p)):
        before, now = p[k - 1], p[k]
        kept = persistence * (np.minimum(before, now) - before * now)
        after_right = now + kept / np.maximum(before, tiny)
        after_wrong = now - kept / np.maximum(1 - before, tiny)
        x[k] = draw[k] < np.where(x[k - 1], after_right, after_wrong)
    return x


def estimate_persistence(correct: np.ndarray) -> float:
    """Persistence of binary traces about smooth curves of their own, none of which is estimated.

    The variance over samples of x(t + k) - x(t) is, over the lags k = 1, 2, 3,

        d(k) = V (1 - persistence^k) + b k^2,

    V standing for the chance variation and b for the samples' different trends, whatever their
    rates and floors are; what an epoch does to all samples drops out of a variance. The three
    equations are solved for `persistence`. d(k) is averaged over all windows of four epochs, so
    that the lags see the same part of the curves.

    Parameters
    ----------
    correct : bool or 0/1 integers, (..., epoch, sample)
        Runs are pooled.

    Returns
    -------
    float
        Not cut off at 0, so that it is centred there; 1 where d grows as if no state was ever
        drawn anew; NaN with fewer than 4 epochs or 2 samples, or without any change. On curves that
        fall or rise it is too low, since what `decay_traces` calls persistence is the
        autocorrelation of level curves only: by 2 to 10 % of its value (found: 0.36 to 0.39 for
        0.4), by 20 % where all curves near 0 or 1 at a rate of 0.3. For its
        sampling error use `intervals.bootstrap` over samples.

    Examples
    --------
    >>> x = decay_traces(5000, 20, 0.05, np.random.default_rng(0), floor=0.4, persistence=0.3)
    >>> abs(estimate_persistence(x) - 0.3) < 0.05
    True
    """
    x = np.asarray(correct)
    if x.ndim < 2:
        raise ValueError(f"correct must be (..., epoch, sample), got shape {x.shape}")
    n_epochs, n = x.shape[-2:]
    if n_epochs < 4 or n < 2:
        return float("nan")
    d = np.zeros(3)
    for lag in (1, 2, 3):
        # A pair that starts at epoch s lies in every window [w, w + 3] that holds both its ends.
        start = np.arange(n_epochs - lag)
        windows = np.minimum(start, n_epochs - 4) - np.maximum(start + lag - 3, 0) + 1
        for s, weight in zip(start, windows, strict=True):
            step = x[..., s + lag, :].astype(np.float32) - x[..., s, :]
            d[lag - 1] += weight * step.var(-1, ddof=1, dtype=float).mean() / (4 - lag)
    if d[0] == 0 and d[1] == 0:
        return float("nan")
    # d = g (1, 1 + r, 1 + r + r^2) + b (1, 4, 9) with g = V (1 - r); eliminating b and g leaves
    ratio = (d[2] - 9 * d[0]) / (d[1] - 4 * d[0])  # = (r^2 + r - 8) / (r - 3), from 8/3 to 3
    return float((ratio - 1 - np.sqrt((3 - ratio) * (11 - ratio))) / 2) if ratio < 3 else 1.0
