"""Two architectures on the samples they share: is one forgotten sooner? Labels swapped by group."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.intervals import bootstrap, permutation_p, t_interval
from retention_lib.risk import (
    BLOCK,
    as_runs,
    common_horizon,
    group_codes,
    one_of,
    product_limit,
    quotient,
    risk_counts,
)

STATISTICS = ("rmst", "log_hazard_ratio", "log_rank")


def label_swap(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    strata: np.ndarray,
    rng: np.random.Generator,
    statistic: str = "rmst",
    scale: str = "age",
    event: str = "first",
    horizon: int | None = None,
    draws: int = 1999,
    level: float = 0.95,
) -> pd.DataFrame:
    """Second architecture against the first on the samples they share, tested by swapping labels.

    An unpaired log-rank test takes the same sample under two architectures for two samples. Hard
    samples are hard for both, which makes it too cautious; and runs of several seeds repeat each
    architecture's own difficulties, which makes it too bold. Here, under the null hypothesis, the
    two architectures' traces of a group could as well have been each other's: per draw each
    group's labels are swapped or not, all of its samples and seeds together. Conditional on the
    runs: other seeds are not covered by `p` or the interval; `seed_low` and `seed_high` are.

    Parameters
    ----------
    first, second : bool, (run, epoch, sample)
        Runs paired by seed, in the same order.
    groups, strata : array, (sample,)
        Patient or sample; class (for the bootstrap).
    rng : Generator
    statistic : {"rmst", "log_hazard_ratio", "log_rank"}
        Difference of restricted mean times to first forgetting [epoch], positive if the second
        keeps longer (age and first events only); log of the Mantel-Haenszel ratio of hazards, and
        the log-rank z, both positive if the second forgets faster.
    scale, event
        As in `risk.risk_counts`.
    horizon : int, optional
        Last time that is counted. Default for `rmst` that of `survival.restricted_mean`, with
        groups at risk in both; else the last epoch.
    draws : int
        Swaps, and bootstrap resamples.
    level : float

    Returns
    -------
    DataFrame
        One row; `n` counts samples, `p` is two-sided (b + 1) / (draws + 1); besides the extras of
        `intervals.bootstrap`: `statistic`, `horizon`, `seeds`, `seed_low`, `seed_high` (t over
        seeds).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> kept, lost = np.ones((1, 4, 20), bool), rng.random((1, 4, 20)) < 0.5
    >>> kept[:, 0] = lost[:, 0] = True
    >>> row = label_swap(lost, kept, np.arange(20), np.zeros(20), rng, draws=99)
    >>> bool(row["estimate"][0] > 0), float(row["p"][0])
    (True, 0.02)
    """
    one_of("statistic", statistic, STATISTICS)
    first, second = as_runs(first), as_runs(second)
    if first.shape != second.shape:
        raise ValueError(
            f"first and second must have the same shape, got {first.shape} and {second.shape}"
        )
    if statistic == "rmst" and (scale, event) != ("age", "first"):
        raise ValueError(
            f"statistic 'rmst' needs scale 'age' and event 'first', got {scale!r} and {event!r}"
        )
    risks = [risk_counts(x, scale, event, groups) for x in (first, second)]
    default = None if statistic == "rmst" else first.shape[1] - 1
    horizon = common_horizon(default if horizon is None else horizon, *risks)
    table = np.hstack([x[:, :horizon] for risk in risks for x in risk]).astype(float)
    code, n_groups = group_codes(groups, first.shape[2])
    size = np.bincount(code)

    def value(rows) -> float:
        weight = np.bincount(code[rows], minlength=n_groups) / size
        return float(_compare(weight @ table, statistic))

    row = bootstrap(value, groups, strata, rng, draws, level)
    null = _swapped(table, statistic, rng, draws)
    row["p"] = permutation_p(row["estimate"].iloc[0], null, "two-sided")
    row["method"] = f"{statistic}, labels swapped within group; " + row["method"]
    one = np.zeros(first.shape[2])
    per_seed = []
    for pair in zip(first, second, strict=True):
        counts = [x[0, :horizon] for c in pair for x in risk_counts(c, scale, event, one)]
        per_seed.append(float(_compare(np.concatenate(counts).astype(float), statistic)))
    seeds = t_interval(per_seed, level)
    extras = {"statistic": statistic, "horizon": horizon, "seeds": len(per_seed)}
    return row.assign(**extras, seed_low=seeds["ci_low"], seed_high=seeds["ci_high"])


def _compare(totals: np.ndarray, statistic: str) -> np.ndarray:
    """Second architecture against the first from counts (..., 4 x time): n, d of each in turn."""
    n_a, d_a, n_b, d_b = np.split(totals, 4, axis=-1)
    if statistic == "rmst":  # S(0) = 1 in both, and S(horizon) is no part of the sum
        return (product_limit(n_b, d_b) - product_limit(n_a, d_a))[..., :-1].sum(-1)
    n, d = n_a + n_b, d_a + d_b
    if statistic == "log_hazard_ratio":
        of_b, of_a = (quotient(x * y, n) for x, y in ((d_b, n_a), (d_a, n_b)))
        ratio = quotient(np.nansum(of_b, -1), np.nansum(of_a, -1))
        return np.log(ratio, where=ratio > 0, out=np.full(ratio.shape, np.nan))
    variance = quotient(d * n_a * n_b * (n - d), n * n * (n - 1))
    excess = np.nansum(d_b - quotient(d * n_b, n), -1)
    return quotient(excess, np.sqrt(np.nansum(variance, -1)))


def _swapped(table: np.ndarray, statistic: str, rng, draws: int) -> np.ndarray:
    """The statistic after `draws` random swaps; table (group, 4 x time) as in `_compare`."""
    half = table.shape[1] // 2
    change = np.roll(table, half, axis=1) - table  # what swapping a group does to its counts
    block = max(1, BLOCK // len(table))
    null = []
    for start in range(0, draws, block):
        swap = rng.integers(0, 2, (min(block, draws - start), len(table)))
        null.append(_compare(table.sum(0) + swap.astype(float) @ change, statistic))
    return np.concatenate(null)
