"""How much two runs could agree if samples' rates were all they had in common, by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.checks import check_level
from retention_lib.intervals import one_row
from retention_lib.resampled import percentile_interval
from retention_lib.ties import topk_jaccard


def noise_ceiling(
    alpha: float,
    beta: float,
    opportunities: np.ndarray,
    rng: np.random.Generator,
    share: float = 0.10,
    draws: int = 200,
    level: float = 0.95,
    fixed: np.ndarray | None = None,
) -> pd.DataFrame:
    """What two runs agree on if a sample's rate is all they have in common, by simulation.

    Rates are drawn from Beta(alpha, beta), whatever a sample's opportunities are, and the counts of
    two runs independently from binomials with these rates.

    Parameters
    ----------
    alpha, beta : float
        From `beta_binomial`, fit `within_runs` for a ceiling that owes nothing to other runs.
    opportunities : array, (sample,) or (run, sample)
        Of several runs two are drawn for every simulated pair.
    share : float
        Size of the top sets.
    draws : int
        Simulated pairs of runs.
    fixed : array like opportunities, optional
        Where not NaN, what a sample scores instead of a count: of never-learned samples, which
        have no opportunity, what the score's convention gives them. Their agreement is taken as
        it is, not simulated.

    Returns
    -------
    DataFrame
        Rows with `quantity` pearson, spearman and jaccard (expected over ties, top `share`):
        `estimate` is the mean over pairs, `se` its simulation error, and `ci_low, ci_high` hold
        `level` of single pairs. NaN for correlations of counts without variation.
    """
    check_level(level)
    m = np.atleast_2d(np.asarray(opportunities))
    if not (np.isfinite([alpha, beta]).all() and alpha > 0 and beta > 0):
        raise ValueError(f"alpha and beta must be positive, got {alpha!r} and {beta!r}")
    if m.size == 0 or (m != np.round(m)).any() or m.min() < 0:
        raise ValueError(f"opportunities must be whole numbers >= 0, got shape {m.shape}")
    instead = np.full(m.shape, np.nan) if fixed is None else np.atleast_2d(fixed)
    if instead.shape != m.shape:
        raise ValueError(f"fixed must be like opportunities, {m.shape}, got {instead.shape}")
    values = np.full((draws, 3), np.nan)
    for pair in values:
        which = rng.choice(len(m), 2, replace=False) if len(m) > 1 else np.array([0, 0])
        y = rng.binomial(m[which].astype(int), rng.beta(alpha, beta, m.shape[1]))
        y = np.where(np.isnan(instead[which]), y, instead[which])
        if np.ptp(y, axis=1).min() > 0:
            pair[:2] = np.corrcoef(y)[0, 1], np.corrcoef(stats.rankdata(y, axis=1))[0, 1]
        pair[2] = topk_jaccard(*y, share, exact=False)
    rows = []
    for quantity, column in zip(("pearson", "spearman", "jaccard"), values.T, strict=True):
        low, high = percentile_interval(column, level)
        good = column[np.isfinite(column)] if np.isfinite(low) else np.array([np.nan, np.nan])
        extras = {"quantity": quantity, "share": share, "draws": draws}
        extras["se"] = good.std(ddof=1) / np.sqrt(len(good))
        method = f"two binomial runs with beta rates, {draws} simulated pairs, {level:.0%} of them"
        rows.append(one_row(good.mean(), low, high, m.shape[1], np.nan, method, **extras))
    return pd.concat(rows, ignore_index=True)
