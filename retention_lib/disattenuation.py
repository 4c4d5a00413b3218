"""Correlation of architectures without the noise of their seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from retention_lib.checks import check_level
from retention_lib.resampled import percentile_interval
from retention_lib.run_correlations import correlation_matrices, recentred
from retention_lib.run_moments import check_scores, leave_one_seed_out, percentile_row, run_pairs


def disattenuated(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    measure: str = "spearman",
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Correlation of two architectures without seed noise, r_AB / sqrt(r_AA r_BB).

    Each r is the mean over pairs of runs, within an architecture over different seeds: r_AA is
    what one run of A tells about another, its reliability.

    Parameters
    ----------
    scores : array, (run, sample)
    runs : DataFrame
        `arch` and `seed` of every run, two seeds or more of each architecture.
    measure : str
        One of `run_correlations.MEASURES`. The formula is exact for pearson and a usual
        approximation for ranks: at r_AB = 0.3, r_AA = 0.6 on normal scores, Spearman gives 0.495.

    Returns
    -------
    DataFrame
        One row per two architectures: `arch_a`, `arch_b`, the columns of a one-row result
        (bootstrap over groups within class; values above 1 stay as they are, as chance gives them
        where the truth is near 1), `seed_low`, `seed_high` by leaving out a seed, and `cross`,
        `same_a`, `same_b`, `same_a_low`, `same_b_low`. Where the interval of a reliability reaches
        0 the quotient means nothing: it is NaN and `method` says so; also NaN with one seed.

    References
    ----------
    Spearman (1904), American Journal of Psychology 15, 72-101.
    """
    check_level(level)
    scores = check_scores(scores, labels)
    sets = run_pairs(runs, len(scores))
    matrix = correlation_matrices(scores, groups, labels, rng, draws, [measure])[measure]
    matrix = recentred(matrix) if measure == "between_class" else matrix
    rows = []
    for (a, b), pairs in sets.items():
        if a == b:
            continue
        three = [pairs, *(sets.get((name, name), np.empty((0, 2), int)) for name in (a, b))]
        cross, same_a, same_b = (_mean_of(matrix, p) for p in three)
        ends = [percentile_interval(same[1:], level)[0] for same in (same_a, same_b)]
        with np.errstate(invalid="ignore", divide="ignore"):
            values = cross / np.sqrt(np.where((same_a > 0) & (same_b > 0), same_a * same_b, np.nan))

        def of_seeds(kept, three=three):
            r = [_mean_of(matrix[:1], p[kept[p].all(1)])[0] for p in three]
            return r[0] / np.sqrt(r[1] * r[2]) if min(r[1:]) > 0 else np.nan

        seeds = leave_one_seed_out(of_seeds, runs, pairs, level)
        what = f"{measure}, disattenuated"
        usable = min(ends) > 0
        if not usable:
            what = f"not estimable: the interval of a reliability reaches 0; {what}"
        extras = {"arch_a": a, "arch_b": b}
        for end in ("low", "high"):
            extras[f"seed_{end}"] = seeds[f"ci_{end}"].iloc[0] if usable else np.nan
        extras |= {"seeds": int(seeds["n"].iloc[0]), "cross": cross[0]}
        extras |= {"same_a": same_a[0], "same_b": same_b[0]}
        extras |= {"same_a_low": ends[0], "same_b_low": ends[1]}
        values = values if usable else np.full_like(values, np.nan)
        rows.append(percentile_row(values, scores.shape[1], what, level, **extras))
    if not rows:
        raise ValueError(f"runs must be of two architectures or more, got {set(runs['arch'])}")
    return pd.concat(rows, ignore_index=True)


def _mean_of(matrix: np.ndarray, pairs: Sequence) -> np.ndarray:
    """Mean over pairs (pair, 2) of correlations (draw, run, run); NaN without any."""
    if len(pairs) == 0:
        return np.full(len(matrix), np.nan)
    return matrix[:, pairs[:, 0], pairs[:, 1]].mean(1)
