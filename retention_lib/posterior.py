"""What posteriors on a grid of log lambda say of each sample and of each class."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from retention_lib.empirical_bayes import TINY, Data, State


def summaries(
    data: Data, states: list[State], theta, order, level, limit, n_samples
) -> dict[str, np.ndarray]:
    """Posterior of each sample, its class mean integrated out; traces are samples `order`."""
    u, h, tau = data.u, data.u[1] - data.u[0], math.exp(theta[1])
    names = ("log_mean", "log_sd", "mean", "low", "high", "below")
    out = {name: np.full(n_samples, np.nan) for name in names}
    for k, state in enumerate(states):
        density, _ = data.kernel(state.means, tau)
        for part in data.parts(k):
            at, (likelihood, _) = order[part], data.likelihood(part)
            weights = state.post / np.maximum(likelihood @ density, TINY)
            p = likelihood * (weights @ density.T)
            p /= p.sum(1, keepdims=True)
            mean, cdf = p @ u, _cdf(p)
            out["log_mean"][at] = mean
            out["log_sd"][at] = np.sqrt((p * (u - mean[:, None]) ** 2).sum(1))
            out["mean"][at] = p @ np.exp(u)
            for name, q in (("low", (1 - level) / 2), ("high", (1 + level) / 2)):
                out[name][at] = np.exp(u[0] + h * _quantile(p, cdf, q))
            if limit is not None:
                out["below"][at] = _probability(p, cdf, (np.log(limit[at]) - u[0]) / h)
    return out if limit is not None else out | {"below": None}


def class_table(names, data: Data, states: list[State], level: float) -> pd.DataFrame:
    """One row per class, from the posterior of its mean."""
    rows = []
    for k, (name, state) in enumerate(zip(names, states, strict=True)):
        first, last = data.edges[k : k + 2]
        p, mean = state.post[None], float(state.post @ state.means)
        ends = (_quantile(p, _cdf(p), q)[0] for q in ((1 - level) / 2, (1 + level) / 2))
        low, high = (np.interp(end, np.arange(len(state.means)), state.means) for end in ends)
        se = math.sqrt(state.post @ (state.means - mean) ** 2)
        n_forgotten = int(data.wrong[first:last].any(1).sum())
        rows.append((name, last - first, n_forgotten, *np.exp([mean, low, high]), mean, se))
    columns = ["label", "n", "n_forgotten", "decay_constant", "low", "high", "log_mean", "log_se"]
    return pd.DataFrame(rows, columns=columns)


def _cdf(p: np.ndarray) -> np.ndarray:
    """Distribution function at the nodes of densities p (trace, node) that sum to 1.

    Trapezoids with their first Euler-Maclaurin correction: error of fourth order in the spacing.
    """
    return np.cumsum(p, 1) - p / 2 - np.gradient(p, axis=1) / 12


def _probability(p, cdf, x) -> np.ndarray:
    """Probability up to `x` (trace,), in nodes from the first; densities are linear in a cell."""
    x = np.clip(x, 0, p.shape[1] - 1)
    g, rows = np.minimum(x.astype(int), p.shape[1] - 2), np.arange(len(p))
    left, right, s = p[rows, g], p[rows, g + 1], x - g
    return cdf[rows, g] + left * s + (right - left) * s**2 / 2


def _quantile(p, cdf, q: float) -> np.ndarray:
    """Where each row of `cdf` reaches q: the inverse of `_probability`."""
    g, rows = np.clip((cdf < q).sum(1) - 1, 0, p.shape[1] - 2), np.arange(len(p))
    left, slope, rest = p[rows, g], p[rows, g + 1] - p[rows, g], q - cdf[rows, g]
    root = np.sqrt(np.maximum(left**2 + 2 * slope * rest, 0))
    return g + np.clip(2 * rest / np.maximum(left + root, TINY), 0, 1)
