"""Is a difference small enough not to matter? Two one-sided t tests, and what they could have seen.

"Does not outperform" is not what a large p-value shows; it takes an interval that lies within a
margin stated beforehand (`config.EQUIVALENCE_MARGIN`).

    p = max(P(T > (d + margin) / se), P(T < (d - margin) / se))

with T Student's t; p < 0.05 exactly where the 90 % interval of the difference d lies within
-margin .. margin. Every result says with which power the study would have shown equivalence of
two methods that do not differ at all, and which difference it would have found.

References
----------
Schuirmann (1987), J. Pharmacokinetics and Biopharmaceutics 15, 657-680 (the two tests). Lakens
(2017), Social Psychological and Personality Science 8, 355-362.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import optimize, stats

from retention_lib.intervals import one_row

#: Level of each one-sided test and of the two-sided one.
ALPHA = 0.05
#: Power that `smallest_detectable` stands for.
POWER = 0.80
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
EQUIVALENT, BETTER, WORSE, OPEN = "equivalent", "better", "worse", "undecided"


def tost_paired(
    a: np.ndarray, b: np.ndarray, margin: float, larger_is_better: bool = True
) -> pd.DataFrame:
    """Is the mean of paired differences a - b within the margin?

    Parameters
    ----------
    a, b : array, (pair,)
        For instance held-out accuracies by seed. A pair with NaN is left out.
    margin : float
        > 0, in the unit of a and b.
    larger_is_better : bool
        Whether a > b means that a is better.

    Returns
    -------
    DataFrame
        One row: `estimate`, mean of a - b; `ci_low`, `ci_high`, 95 %; `n` pairs; `p`, the larger
        one of both one-sided tests; extras `low_90`, `high_90`, `margin`, `verdict`, `sd` and `se`
        of the difference, `df`, `power` (chance to conclude equivalence if the true difference is
        0 and the standard deviation is `sd`) and `smallest_detectable` (true difference that a
        two-sided t test at 5 % finds with 80 % power). `power` and `smallest_detectable` say what
        the design can do; they are no evidence for or against a difference.

        `verdict` is `equivalent` where p < 0.05; else `better` or `worse` (a than b) where the 95 %
        interval excludes 0; else `undecided`. A difference may be both non-zero and within the
        margin: it is then equivalent. NaN and `undecided` with fewer than two pairs, or where all
        differences are equal and there is no spread to go by.

    Raises
    ------
    ValueError
        On a margin that is not positive, or vectors of different length.

    Examples
    --------
    >>> row = tost_paired([0.80, 0.81, 0.79], [0.80, 0.80, 0.80], margin=0.05).iloc[0]
    >>> row.verdict, round(float(row.p), 4)
    ('equivalent', 0.0065)
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a and b must be vectors of equal length, got {a.shape} and {b.shape}")
    d = (a - b)[~np.isnan(a - b)]
    n = len(d)
    sd = d.std(ddof=1) if n > 1 else np.nan
    mean = d.mean() if n else np.nan
    se = sd / np.sqrt(n) if n else np.nan
    return _row(mean, se, n - 1, n, margin, larger_is_better, "paired", sd=float(sd))


def tost_independent(
    a: np.ndarray,
    b: np.ndarray,
    margin: float,
    larger_is_better: bool = True,
    pooled: bool = False,
) -> pd.DataFrame:
    """Is the difference of two independent means, of a minus of b, within the margin?

    Parameters
    ----------
    a, b : array, (value,)
        NaN is left out.
    margin, larger_is_better
        As in `tost_paired`.
    pooled : bool
        One variance for both; otherwise Welch's test with Satterthwaite's degrees of freedom.

    Returns
    -------
    DataFrame
        As `tost_paired`, with `n_a` and `n_b` in place of `sd`; `n` is their sum.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"a and b must be vectors, got shapes {a.shape} and {b.shape}")
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    n, sizes = len(a) + len(b), np.array([len(a), len(b)])
    method = "independent, " + ("pooled variance" if pooled else "Welch")
    extras = {"n_a": len(a), "n_b": len(b)}
    if sizes.min() < 2:
        mean = a.mean() - b.mean() if sizes.min() else np.nan
        return _row(mean, np.nan, np.nan, n, margin, larger_is_better, method, **extras)
    parts = np.array([a.var(ddof=1), b.var(ddof=1)]) / sizes
    if pooled:
        df = n - 2
        se = np.sqrt(np.sum(parts * sizes * (sizes - 1)) / df * np.sum(1 / sizes))
    else:
        se = np.sqrt(parts.sum())
        df = se**4 / np.sum(parts**2 / (sizes - 1)) if se > 0 else np.nan
    return _row(a.mean() - b.mean(), se, df, n, margin, larger_is_better, method, **extras)


def _row(estimate, se, df, n, margin, larger_is_better, kind: str, **extras) -> pd.DataFrame:
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin!r}")
    method = f"two one-sided t tests, {kind}, {1 - ALPHA:.0%} interval"
    names = ("low_90", "high_90", "power", "smallest_detectable")
    # Equal values may differ in the last bits, which would pass for an excellent measurement.
    if not se > 1e-12 * max(abs(estimate), margin):
        extras |= dict.fromkeys(names, np.nan)
        extras |= {"margin": float(margin), "se": float(se), "df": float(df), "verdict": OPEN}
        return one_row(estimate, np.nan, np.nan, n, np.nan, f"{method}, no spread", **extras)
    above = stats.t.sf((estimate + margin) / se, df)
    below = stats.t.cdf((estimate - margin) / se, df)
    p = max(above, below)
    half, narrow = (se * stats.t.ppf(1 - tail, df) for tail in (ALPHA / 2, ALPHA))
    if p < ALPHA:
        verdict = EQUIVALENT
    elif abs(estimate) <= half:
        verdict = OPEN
    else:
        verdict = BETTER if (estimate > 0) == larger_is_better else WORSE
    extras |= {"low_90": estimate - narrow, "high_90": estimate + narrow, "margin": float(margin)}
    extras |= {"verdict": verdict, "se": float(se), "df": float(df)}
    extras["power"] = equivalence_power(margin, se, df)
    extras["smallest_detectable"] = smallest_detectable(se, df)
    return one_row(estimate, estimate - half, estimate + half, n, p, method, **extras)


def equivalence_power(
    margin: float, se: float, df: float, difference: float = 0.0, alpha: float = ALPHA
) -> float:
    """Chance that both one-sided tests reject, for a true difference and standard error `se`.

    With s the estimated over the true standard error, s^2 = chi^2(df) / df, the tests reject where
    the estimate lies within +-(margin - t s se); integrated over s.

    References
    ----------
    Phillips (1990), J. Pharmacokinetics and Biopharmaceutics 18, 137-144 (Owen's integral).

    Examples
    --------
    >>> round(equivalence_power(margin=0.01, se=0.002, df=4), 3)  # five pairs
    0.982
    """
    t = stats.t.ppf(1 - alpha, df)
    shift = difference / se

    s, weight = _spread(df, margin / (t * se))  # beyond, no estimate suffices
    reach = margin / se - t * s
    inside = stats.norm.cdf(reach - shift) - stats.norm.cdf(-reach - shift)
    return float(np.sum(weight * inside))


@lru_cache(maxsize=64)
def _spread(df: float, highest: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """Values of estimated over true standard error up to `highest`, and weights of an integral.

    The integrand is smooth between the ends: 200 nodes give ten digits.
    """
    spread = stats.chi(df, scale=1 / np.sqrt(df))
    low, high = spread.ppf([1e-13, 1 - 1e-13])
    high = max(low, min(high, highest))
    s = (high + low) / 2 + (high - low) / 2 * _NODES
    return s, (high - low) / 2 * _WEIGHTS * spread.pdf(s)


def smallest_detectable(se: float, df: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """True difference that a two-sided t test finds with the given power.

    Examples
    --------
    >>> round(smallest_detectable(se=1.0, df=1e6), 3)  # 1.960 + 0.842
    2.802
    """
    t = stats.t.ppf(1 - alpha / 2, df)

    s, weight = _spread(df)  # by integration: scipy's noncentral t is NaN far out

    def lacking(effect):
        found = stats.norm.cdf(effect - t * s) + stats.norm.cdf(-effect - t * s)
        return np.sum(weight * found) - power

    return float(se * optimize.brentq(lacking, 0.0, 10 * (t + 1), xtol=1e-10))
