"""Correctness of which the best model is known, and predictors, for the tests of rivals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from retention_lib.skill import Losses, skill_table


def own_rate(r, mask, t):
    """A predictor that is the rival `constant`."""
    return np.broadcast_to((np.where(mask, r, 0).sum(0) + 0.5) / (mask.sum(0) + 1), np.shape(t))


def simulate(kind: str, rng, runs=2, epochs=16, samples=1200) -> np.ndarray:
    """Correctness (run, epoch, sample) of which the best model is known."""
    t, shape = np.arange(epochs)[:, None], (runs, epochs, samples)
    if kind == "rasch":
        effect = np.linspace(0, 2, epochs) + 0.6 * np.sin(np.arange(epochs) / 2)
        return rng.random(shape) < expit(effect[:, None] - rng.normal(0, 1.5, samples))
    if kind == "rate":
        return rng.random(shape) < rng.beta(0.5, 0.5, samples)
    if kind == "one rate":
        return rng.random(shape) < 0.8
    own = 1 if kind == "decay" else runs  # else "unshared decay"
    return rng.random(shape) < np.exp(-np.exp(rng.uniform(-6, 0, (own, 1, samples))) * t)


def table_of(losses: Losses, draws=100) -> pd.DataFrame:
    n = losses.count.shape[1]
    rng = np.random.default_rng(0)
    return skill_table(losses, np.arange(n), np.zeros(n), rng, draws).set_index("model")
