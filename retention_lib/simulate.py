"""Traces with known truth: positive controls for everything that is measured on recorded ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from retention_lib.curves import CURVES, lost
from retention_lib.traces import Traces


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


@dataclass(frozen=True)
class Truth:
    """What `study` planted; correlations and shares are those of the latent log decay constants.

    Attributes
    ----------
    latent : float64, (run, sample)
        log lambda [log 1 / epoch].
    shares : dict
        Share of the latent's variance due to `class`, `group`, `sample`, `sample_x_architecture`
        and `residual` (sample x architecture x seed); they sum to 1.
    reliability : float
        Correlation of two seeds of one architecture, ICC(1) = 1 - residual.
    cross_architecture : float
        Correlation of two runs of different architectures, class + group + sample.
    disattenuated : float
        cross_architecture / reliability, the correlation without seed noise.
    early_loss_rho, early_loss_spearman : float
        Pearson correlation of a run's log loss at epoch 0 with its own latent, and Spearman's of
        the loss, (6 / pi) arcsin(rho / 2), exact without class effects (the latent is normal then).
    """

    latent: np.ndarray
    shares: dict[str, float]
    reliability: float
    cross_architecture: float
    disattenuated: float
    early_loss_rho: float
    early_loss_spearman: float


@dataclass(frozen=True)
class Study:
    """Simulated runs: `correct` bool (run, epoch, sample), `loss` at epoch 0 [nat] (run, sample),
    `labels` and `groups` (sample,), `runs` with the columns arch and seed, and the `truth`."""

    correct: np.ndarray
    loss: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    runs: pd.DataFrame
    truth: Truth


def study(
    n: int,
    n_epochs: int,
    archs: Sequence[str],
    seeds: Sequence[int],
    rng: np.random.Generator,
    *,
    reliability: float = 0.6,
    shared: float = 0.5,
    class_effect: float = 0.1,
    group_effect: float = 0.0,
    n_classes: int = 8,
    group_size: int = 1,
    early_loss: float = 0.4,
    rate: float | Sequence[float] = 0.1,
    spread: float = 1.0,
    **curve,
) -> Study:
    """Runs of several architectures and seeds whose samples agree as much as is asked for.

        log lambda(i, a, s) = log rate(a) + spread z,    z = the sum of

        sqrt(class) C + sqrt(group) G + sqrt(sample) S(i) + sqrt(sample_x_architecture) A(i, a)
        + sqrt(residual) E(i, a, s),

    all terms standard normal, but C, which is scaled to mean 0 and variance 1 over the samples at
    hand, so that the class share is met exactly and not only on average over classes.

    Parameters
    ----------
    n, n_epochs : int
    archs, seeds : sequence
        Every architecture is run with every seed.
    rng : Generator
    reliability : float
        ICC(1) of z over seeds of one architecture, 1 - residual.
    shared : float
        Part of the reliable variance that architectures have in common, 0..1.
    class_effect, group_effect : float
        Shares of the whole variance, together at most reliability x shared; the rest of that is the
        sample's own.
    n_classes, group_size : int
        Classes take turns; groups (patients) of so many consecutive samples lie within a class.
    early_loss : float
        Correlation of log loss at epoch 0 with z of the same run, -1..1.
    rate : float, or one per architecture
        Median decay constant [1 / epoch].
    spread : float
        Standard deviation of log lambda.
    **curve
        `floor`, `amplitude`, `persistence`, `model` ... of `decay_traces`.

    Raises
    ------
    ValueError
        If the shares do not fit together; the message names them.

    Examples
    --------
    >>> made = study(100, 13, ["cnn", "vit"], [10, 11], np.random.default_rng(0))
    >>> made.correct.shape, round(made.truth.cross_architecture, 3)
    ((4, 13, 100), 0.3)
    """
    shares = _shares(reliability, shared, class_effect, group_effect)
    if not -1 <= early_loss <= 1:
        raise ValueError(f"early_loss must lie in -1..1, got {early_loss!r}")
    if min(n, n_classes, group_size) < 1 or (class_effect > 0 and n <= group_size):
        raise ValueError(f"too few samples: {n=}, {n_classes=}, {group_size=}, {class_effect=}")
    groups = np.arange(n) // group_size
    labels = groups % n_classes
    runs = pd.DataFrame([{"arch": a, "seed": s} for a in archs for s in seeds])
    of = np.repeat(np.arange(len(archs)), len(seeds))
    by_class = rng.standard_normal(n_classes)[labels]
    by_class = (by_class - by_class.mean()) / max(by_class.std(), 1e-300)
    z = (
        np.sqrt(shares["class"]) * by_class
        + np.sqrt(shares["group"]) * rng.standard_normal(groups[-1] + 1)[groups]
        + np.sqrt(shares["sample"]) * rng.standard_normal(n)
        + np.sqrt(shares["sample_x_architecture"]) * rng.standard_normal((len(archs), n))[of]
        + np.sqrt(shares["residual"]) * rng.standard_normal((len(runs), n))
    )
    latent = np.log(np.broadcast_to(rate, len(archs)))[of, None] + spread * z
    early = early_loss * z + np.sqrt(1 - early_loss**2) * rng.standard_normal(z.shape)
    correct = np.stack([decay_traces(n, n_epochs, np.exp(u), rng, **curve) for u in latent])
    spearman = 6 / np.pi * np.arcsin(early_loss / 2)
    truth = Truth(latent, shares, reliability, reliability * shared, shared, early_loss, spearman)
    return Study(correct, np.exp(early - 1), labels, groups, runs, truth)


def _shares(reliability, shared, class_effect, group_effect) -> dict[str, float]:
    """Variance shares that sum to 1, or a ValueError that lists them."""
    shares = {
        "class": class_effect,
        "group": group_effect,
        "sample": reliability * shared - class_effect - group_effect,
        "sample_x_architecture": reliability - reliability * shared,
        "residual": 1 - reliability,
    }
    if not min(shares.values()) >= -1e-12:
        raise ValueError(
            "reliability and shared must lie in 0..1 and class_effect + group_effect be at most "
            f"reliability x shared, got {reliability=} and {shared=}, hence the shares {shares}"
        )
    return {name: max(0.0, share) for name, share in shares.items()}


def as_traces(made: Study) -> Traces:
    """A `Study` as the `Traces` that recorded runs give, so that every analysis takes it.

    Wrong predictions are the next class. Margins, losses after epoch 0 and the whole online view
    are NaN or -1, "not shown": nothing was planted there.
    """
    shape, n_classes = made.correct.shape, max(2, int(made.labels.max()) + 1)
    nothing = {
        "predicted": np.full(shape, -1, np.int32),
        "loss": np.full(shape, np.nan, np.float16),
        "margin": np.full(shape, np.nan, np.float16),
    }
    clean = nothing | {"loss": nothing["loss"].copy()}
    wrong = (made.labels + 1) % n_classes
    clean["predicted"] = np.where(made.correct, made.labels, wrong).astype(np.int32)
    clean["loss"][:, 0] = made.loss
    names = [f"simulated_{i:06d}" for i in range(shape[2])]
    samples = pd.DataFrame({"sample_id": names, "path": names, "label": made.labels})
    samples["group"] = [f"group_{g}" for g in made.groups]
    samples = samples.assign(split="train", planted_noisy=False)
    key = [f"simulated-{a}-s{s}" for a, s in zip(made.runs["arch"], made.runs["seed"], strict=True)]
    runs = made.runs.assign(dataset="simulated", sampler="random", key=key)
    runs = runs[["dataset", "arch", "seed", "sampler", "key"]]
    classes = tuple(f"class_{c}" for c in range(n_classes))
    return Traces(samples, runs, np.arange(shape[1]), clean, nothing, classes)


def misalign(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What an indexing error looks like: each run's samples in an order of its own.

    Parameters
    ----------
    array : (run, ..., sample)
        A run keeps one order over its other axes, so its traces stay whole; labels are left alone.

    Examples
    --------
    >>> a = misalign(np.tile(np.arange(5), (2, 3, 1)), np.random.default_rng(0))
    >>> bool((a[:, 0] == a[:, 2]).all()), np.sort(a[1, 0]).tolist()
    (True, [0, 1, 2, 3, 4])
    """
    array = np.asarray(array)
    if array.ndim < 2:
        raise ValueError(f"array must be (run, ..., sample), got shape {array.shape}")
    return np.stack([run[..., rng.permutation(array.shape[-1])] for run in array])
