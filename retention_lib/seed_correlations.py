"""Mean correlation over pairs of runs: seed with seed, architecture with architecture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from retention_lib.agreement import CROSS, SAME
from retention_lib.checks import check_level
from retention_lib.run_correlations import MEASURES, correlation_matrices, recentred
from retention_lib.run_moments import check_scores, leave_one_seed_out, percentile_row, run_pairs
from retention_lib.simulated_study import misalign


def seed_to_seed(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    measures: Sequence[str] = MEASURES,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean correlation over pairs of runs, within every architecture and between every two.

    Parameters
    ----------
    scores : array, (run, sample)
    runs : DataFrame
        One row per run, with `arch` and `seed`.
    groups, labels : array, (sample,)
    rng : Generator
    measures : sequence
        Some of `MEASURES`.
    draws : int
    level : float

    Returns
    -------
    DataFrame
        One row per measure and pair of architectures (an architecture with itself if it has two
        seeds): `measure`, `kind`, `arch_a`, `arch_b`, and the columns of a one-row result. The
        interval redraws groups within class and holds the networks fixed; `seed_low, seed_high`
        leaves out one of `seeds` seeds at a time (`leave_one_seed_out`). Extras `pairs`, `classes`,
        `draws`, `failed` and `control`, the estimate after each run's samples were permuted by
        position: near 0, and what an indexing error would look like.

    Notes
    -----
    Class means of two runs are of the same images: `between_class` says how much of what this data
    set's classes differ by is stable, not how other images of these classes would do. Its resamples
    add the noise of redrawn images once more, which is taken off their mean (`recentred`).
    """
    check_level(level)
    scores = check_scores(scores, labels)
    sets = run_pairs(runs, len(scores))
    found = correlation_matrices(scores, groups, labels, rng, draws, measures)
    wrong = correlation_matrices(misalign(scores, rng), groups, labels, rng, 0, measures)
    rows, classes = [], len(np.unique(labels))
    for measure, matrix in found.items():
        matrix = recentred(matrix) if measure == "between_class" else matrix
        for (a, b), pairs in sets.items():
            first, second = pairs.T
            mean = matrix[:, first, second].mean(1)

            def of_pairs(kept, matrix=matrix[0], pairs=pairs):
                left = pairs[kept[pairs].all(1)]
                return matrix[tuple(left.T)].mean() if len(left) else np.nan

            seeds = leave_one_seed_out(of_pairs, runs, pairs, level)
            extras = {"measure": measure, "kind": SAME if a == b else CROSS}
            extras |= {"arch_a": a, "arch_b": b, "pairs": len(pairs)}
            extras |= {"seed_low": seeds["ci_low"].iloc[0], "seed_high": seeds["ci_high"].iloc[0]}
            extras |= {"seeds": int(seeds["n"].iloc[0]), "classes": classes}
            extras |= {"control": wrong[measure][0, first, second].mean()}
            rows.append(percentile_row(mean, scores.shape[1], measure, level, **extras))
    out = pd.concat(rows, ignore_index=True)
    front = ["measure", "kind", "arch_a", "arch_b"]
    return out[front + [name for name in out if name not in front]]
