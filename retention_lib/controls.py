"""Positive controls: inputs whose truth is planted, measured by the same functions as the study."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib import agreement
from retention_lib.config import PRIMARY_SCORE, TOP_SHARE
from retention_lib.decay import fit_decay
from retention_lib.findings import score_matrix
from retention_lib.intervals import one_row, t_interval
from retention_lib.traces import Traces


def known_overlap(
    traces: Traces,
    rng: np.random.Generator,
    planted: float,
    score: str = PRIMARY_SCORE,
    share: float = TOP_SHARE,
    draws: int = 50,
) -> pd.DataFrame:
    """Positive control: two score vectors whose top sets share exactly what was planted.

    One run's scores are copied, its ties broken once at random, and m = k (1 - J) / (1 + J) members
    of the top set exchange their scores with m others. The instrument, which does not know how
    the ties were broken, then measures the overlap of the copy with the original.

    Parameters
    ----------
    planted : float
        Jaccard index J of the two top sets, 0..1 (rounded to what k allows).

    Returns
    -------
    DataFrame
        One row: `estimate` is the mean over all runs and draws, with its 2.5 and 97.5 % quantiles;
        extra `planted`. An estimate below the planted value is what the ties cost.
    """
    if not 0 <= planted <= 1:
        raise ValueError(f"planted must lie in 0..1, got {planted!r}")
    values = score_matrix(traces, score)
    n, k = values.shape[1], agreement.top_count(values.shape[1], share)
    m = min(round(k * (1 - planted) / (1 + planted)), k, n - k)
    found = []
    for own in values:
        for _ in range(max(1, draws // len(values))):
            order = np.lexsort((rng.random(n), -own))
            out, into = rng.permutation(order[:k])[:m], rng.permutation(order[k:])[:m]
            twin = own.copy()
            twin[out], twin[into] = own[into], own[out]
            found.append(agreement.topk_jaccard(own, twin, share, exact=False))
    low, high = np.quantile(found, [0.025, 0.975])
    method = f"known overlap through the ties of {len(values)} runs"
    return one_row(np.mean(found), low, high, n, np.nan, method, planted=(k - m) / (k + m))


def both(tied: pd.DataFrame, untied: pd.DataFrame) -> pd.DataFrame:
    """Two results of `known_overlap` below each other, told apart by `ties`."""
    return pd.concat([untied.assign(ties="none"), tied.assign(ties="of the score")])


def known_structure(
    n_epochs: int, n: int, rng: np.random.Generator, planted: tuple[float, float] = (0.52, 0.74)
) -> pd.DataFrame:
    """Positive control: traces that decay by construction, with a known share of noise.

    r(t) = exp(-lambda t) + noise, log lambda normal around 0.2 per epoch, and noise of variance
    var(exp(-lambda t)) (1 - R^2) / R^2, so that the true curve explains `planted` on average.

    Returns
    -------
    DataFrame
        Rows "less structured", "more structured" and "difference": `estimate` is the measured mean
        R^2 with its t interval over traces; extras `planted`, `lambda_ratio` (median of fitted over
        true decay constant).
    """
    rows, t = [], np.arange(n_epochs)[:, None]
    for name, r2 in zip(("less structured", "more structured"), planted, strict=True):
        rate = 0.2 * np.exp(0.5 * rng.standard_normal(n))
        curve = np.exp(-rate * t)
        noise = rng.standard_normal(curve.shape) * np.sqrt(curve.var(0) * (1 - r2) / r2)
        found = fit_decay(curve + noise)
        row = t_interval(found.r2).assign(quantity=name, planted=r2, method="t over traces, 95%")
        row["lambda_ratio"] = np.median(found.decay_constant / rate)
        rows.append(row)
    low, high = rows
    gap = float(high["estimate"].iloc[0] - low["estimate"].iloc[0])
    half = np.hypot(*(float((r["ci_high"] - r["estimate"]).iloc[0]) for r in rows))
    difference = one_row(gap, gap - half, gap + half, 2 * n, np.nan, "t over traces, 95%")
    difference = difference.assign(quantity="difference", planted=planted[1] - planted[0])
    return pd.concat([low, high, difference], ignore_index=True)


def known_structure_like(traces: Traces, rng: np.random.Generator) -> pd.DataFrame:
    """`known_structure` with as many and as long traces as one run has."""
    return known_structure(len(traces.epochs), len(traces.samples), rng)
