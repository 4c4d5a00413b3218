"""A whole study with known truth: positive controls for what is measured across recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from retention_lib.simulate import decay_traces
from retention_lib.traces import Traces


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
        `floor`, `amplitude`, `persistence`, `model` ... of `simulate.decay_traces`.

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
