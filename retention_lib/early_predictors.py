"""Notebook 05: early loss, its rivals, and the decay constants that they are to predict."""

from __future__ import annotations

from itertools import product

import numpy as np

from retention_lib.config import LITERAL, LOSSES, RETENTION, TraceConvention
from retention_lib.convention import retention_trace
from retention_lib.decay import fit_decay
from retention_lib.decay_result import tied
from retention_lib.findings import score_matrix
from retention_lib.scores import scores
from retention_lib.shrinkage import shrink
from retention_lib.traces import Traces

#: What "decay constant" may mean.
CONSTANTS = {
    "literal": "exp(-lambda t) by least squares from epoch 0, all samples",
    "retention": "by Bernoulli likelihood from the learned epoch, never learned left out",
    "shrunken": "posterior of the same, shrunk over all samples of a run alike",
    "shrunken_by_class": "posterior of the same, shrunk within class: says what the class says",
}


def decay_constants(traces: Traces, convention: str = "literal") -> np.ndarray:
    """Decay constant of every run and sample [1 / epoch], (run, sample), by a key of `CONSTANTS`.

    NaN for never-learned samples but under `literal`. Never forgotten: the smallest value the
    search allows (`literal`, `retention`), so that they tie, however long they were watched;
    shrunken constants lie the lower the longer.
    """
    if convention not in CONSTANTS:
        raise ValueError(f"convention must be one of {list(CONSTANTS)}, got {convention!r}")
    if convention == "literal":
        return score_matrix(traces, "decay_constant")
    correct = traces.correct(LITERAL.view)
    r, mask = retention_trace(correct, RETENTION)
    r = np.where(mask, r, 1.0)
    if convention == "retention":
        return tied(fit_decay(r, mask=mask, loss="bernoulli").decay_constant)
    labels = traces.labels if convention == "shrunken_by_class" else None
    return np.stack([_shrunken(*pair, labels) for pair in zip(r, mask, strict=True)])


def _shrunken(r: np.ndarray, mask: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    out = shrink(r, mask, labels, bounds=(1e-14, 1e3)).decay_constant
    return np.where(mask.any(0), out, np.nan)


def early_loss(traces: Traces) -> np.ndarray:
    """Cross-entropy at epoch 0, clean view [nat], (run, sample)."""
    if traces.epochs[0] != 0:
        raise ValueError(f"early loss needs epoch 0, traces start at {traces.epochs[0]}")
    return traces.loss()[:, 0]


def input_norm(images: np.ndarray, chunk: int = 256) -> np.ndarray:
    """Root mean square of an image's pixels on the 0..1 scale, (sample,).

    Its Euclidean norm divided by the root of the number of values, so that sizes compare.

    Parameters
    ----------
    images : uint8, (sample, row, column, channel)
        May be a memory map; read `chunk` at a time.

    Examples
    --------
    >>> input_norm(np.full((2, 4, 4, 3), 51, np.uint8)).round(6).tolist()
    [0.2, 0.2]
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 (sample, row, column, 3), got {images.dtype} {images.shape}"
        )
    parts = [images[i : i + chunk].astype(np.float32) for i in range(0, len(images), chunk)]
    return np.sqrt(np.concatenate([(p.astype(float) ** 2).mean((1, 2, 3)) for p in parts])) / 255


def predictors(traces: Traces, images: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Early loss and its rivals, each (sample,) or (run, sample).

    Parameters
    ----------
    traces : Traces
    images : uint8, (sample, row, column, 3), optional
        In the order of `traces.samples`, for the input norm.

    Returns
    -------
    dict
        `early loss`; `early margin` (sign reversed); `learned epoch` (never learned last), which is
        read off the same trace as the decay constant and hence no fair rival; `wrong at epoch 0`;
        `class frequency` (samples of the class, sign reversed: rare is hard); `file size` [byte]
        and `input norm`. What is constant over samples correlates with nothing (NaN).
    """
    labels = traces.labels
    out = {
        "early loss": early_loss(traces),
        "early margin": -traces.margin()[:, 0],
        "learned epoch": score_matrix(traces, "learned_epoch"),
        "wrong at epoch 0": (~traces.correct()[:, 0]).astype(float),
        "class frequency": -np.bincount(labels)[labels].astype(float),
    }
    if "file_bytes" in traces.samples:
        out["file size"] = traces.samples["file_bytes"].to_numpy(float)
    if images is not None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images do not match {len(labels)} samples")
        out["input norm"] = input_norm(images)
    return out


#: Choices of one reading of "decay": what is measured, and for decay constants how.
CHOICES = ("target", "origin", "model", "loss", "never_learned")
#: The reading that `config` fixes: `decay_constants(traces)`.
PRIMARY = ("decay_constant", LITERAL.origin, "exponential", LITERAL.loss, "kept")


def readings(traces: Traces, view: str = "clean") -> dict[tuple, np.ndarray]:
    """What "how fast a sample is forgotten" may mean, larger = faster, each (run, sample).

    Returns
    -------
    dict
        By the values of `CHOICES`: decay constants from epoch 0 or the learned epoch, without and
        with a floor, by least squares or Bernoulli likelihood; `mean_error`, `events` (never
        learned 0) and `forgetting_score` (never learned highest), whose other choices are "none".
        `never_learned`: `kept`, or `left out` (NaN).
    """
    shape = len(traces.runs), len(traces.samples)
    shown = None if view == "clean" else traces.shown(view)
    correct, table = traces.correct(view), scores(traces, view)
    never = table["never_learned"].to_numpy(bool).reshape(shape)
    out = {}
    for origin in ("epoch_0", "first_learned"):
        r, mask = retention_trace(correct, TraceConvention(origin=origin), shown)
        r, mask = np.where(mask, r, 1.0), None if mask.all() else mask
        for model, loss in product(("exponential", "exponential_floor"), LOSSES):
            found = fit_decay(r, mask=mask, model=model, loss=loss).decay_constant
            out["decay_constant", origin, model, loss, "kept"] = tied(found)
    for score in ("mean_error", "events", "forgetting_score"):
        values = table[score].to_numpy(float).reshape(shape)
        out[score, "none", "none", "none", "kept"] = values
    for key in [k for k in out if k[0] != "forgetting_score"]:  # without them the same as events
        out[*key[:-1], "left out"] = np.where(never, np.nan, out[key])
    return out


def early_losses(traces: Traces) -> dict[str, np.ndarray]:
    """Early loss by view (run, sample): `clean` at epoch 0, `online` at epoch 1 if it was recorded.

    The online view has no epoch 0: the head's warm-up runs on cached features.
    """
    out = {"clean": early_loss(traces)}
    if traces.shown("online").any():
        out["online"] = traces.loss("online")[:, 1]
    return out
