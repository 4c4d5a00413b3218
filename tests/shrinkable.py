"""Traces drawn from the model of `shrinkage`, for its tests."""

from __future__ import annotations

import numpy as np


def simulate(sizes, mu, omega, tau, n_epochs, rng, means=None):
    """Traces (epoch, sample), labels, log lambda and class means, all drawn from the model."""
    means = rng.normal(mu, omega, len(sizes)) if means is None else np.array(means)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    u = rng.normal(means[labels], tau)
    t = np.arange(n_epochs)[:, None]
    return rng.random((n_epochs, len(u))) < np.exp(-np.exp(u) * t), labels, u, means
