"""Maximum likelihood of binomial hazards in cells of (architecture, age, epoch), many at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse, special


class Cells(NamedTuple):
    """Non-empty cells of (architecture, age, epoch) and the columns of their effects."""

    used: np.ndarray  # (cell,) numbers among all cells
    at_risk: np.ndarray  # (cell,)
    events: np.ndarray  # (cell,)
    columns: np.ndarray  # (cell, 3): age level, epoch level, architecture
    labels: list  # (term, level) of every column
    kept: np.ndarray  # bool, columns that are no reference


def maximise(
    cells: Cells, n: np.ndarray, d: np.ndarray, start: np.ndarray, link: str
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method with halved steps, for all rows of counts (draw, cell) at once.

    Both likelihoods are concave, so that this leads to the maximum from anywhere. The unguarded
    iteration of common GLM routines does not: where most samples are learned at epoch 0, age and
    epoch are nearly the same, and it runs off.

    Returns the coefficients (draw, coefficient), NaN where one does not settle because it is
    infinite, and the observed information (draw, coefficient, coefficient).
    """
    width, kept = len(cells.labels), np.flatnonzero(cells.kept)
    pairs = (cells.columns[:, :, None] * width + cells.columns[:, None, :]).reshape(-1, 9)
    outer, each = _indicators(pairs, width * width), _indicators(cells.columns, width)
    beta = np.zeros((len(n), width))
    beta[:, kept] = start
    value = _likelihood(beta, cells, n, d, link)
    for _ in range(40):
        slope, weight = _working(beta[:, cells.columns].sum(2), n, d, link)
        information = (weight @ outer).reshape(-1, width, width)[:, kept[:, None], kept]
        score = (slope @ each)[:, kept]
        # A level that lost all its events drifts away; the others must still be solvable.
        ridge = information + 1e-10 * np.eye(len(kept))
        step = np.zeros_like(beta)
        step[:, kept] = np.linalg.solve(ridge, score[:, :, None])[:, :, 0]
        for _ in range(20):
            trial = _likelihood(beta + step, cells, n, d, link)
            worse = trial < value - 1e-12 * np.abs(value)
            if not worse.any():
                break
            step[worse] /= 2
        beta, value = beta + step, trial
        if np.abs(step).max() < 1e-7:
            break
    return np.where(np.abs(step) < 1e-5, beta, np.nan)[:, kept], information


def _indicators(columns: np.ndarray, width: int) -> sparse.csr_array:
    """Ones at the given columns of every row, (row, width)."""
    rows = np.repeat(np.arange(len(columns)), columns.shape[1])
    return sparse.csr_array((np.ones(columns.size), (rows, columns.ravel())), (len(columns), width))


def _likelihood(beta, cells: Cells, n, d, link: str) -> np.ndarray:
    eta = beta[:, cells.columns].sum(2)
    if link == "logit":
        return (d * eta - n * np.logaddexp(0, eta)).sum(1)
    rate = np.exp(np.clip(eta, -30, 5))
    return (d * np.log(-np.expm1(-rate)) - (n - d) * rate).sum(1)


def _working(eta, n, d, link: str) -> tuple[np.ndarray, np.ndarray]:
    """First and negative second derivative of the log-likelihood in the linear predictor."""
    if link == "logit":
        mean = special.expit(eta)
        return d - n * mean, n * mean * (1 - mean)
    rate = np.exp(np.clip(eta, -30, 5))
    mean = -np.expm1(-rate)
    slope = rate * (1 - mean) / mean
    return d * slope - (n - d) * rate, (n - d) * rate + d * slope * (rate / mean - 1)


def link_of(hazard: float, link: str) -> float:
    """The linear predictor that gives this hazard."""
    return special.logit(hazard) if link == "logit" else np.log(-np.log1p(-hazard))
