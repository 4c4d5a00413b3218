"""Event counts whose samples have rates of their own: the beta-binomial model and its fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import optimize, sparse, special, stats

from retention_lib.checks import check_level
from retention_lib.intervals import one_row
from retention_lib.run_moments import check_scores, observed_and_redrawn, percentile_row

#: Range of log(alpha + beta). At its ends rates are 0 or 1, or all the same (reliability < 1e-4).
_LOG_CONCENTRATION = (-9.0, 14.0)


def beta_binomial(
    counts: np.ndarray,
    opportunities: np.ndarray | int,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Reliability of event counts if every sample has a rate of its own and runs add only chance.

        p(i) ~ Beta(alpha, beta),    count(r, i) ~ Binomial(m(r, i), p(i)),

    independent over runs given p (Jordan 2023). The correlation of two runs' shares of events is

        1 / (1 + (alpha + beta) mean(1 / m)),    for equal m the known m / (m + alpha + beta).

    Parameters
    ----------
    counts : array, (run, sample)
        Whole numbers, such as forgetting events or wrong epochs.
    opportunities : int, or array, (run, sample)
        How many events there could have been, m. A 0 says nothing and is left out of mean(1 / m).
    groups, labels : array, (sample,)

    Returns
    -------
    DataFrame
        Two rows, alpha and beta at their maximum likelihood; the interval refits resamples of
        groups. `fit` = `within_runs` takes every run's counts for themselves, so it knows nothing
        of other runs: its reliability is the ceiling that agreement between seeds could reach.
        `across_runs` adds up a sample's counts over runs. Where the model holds the two agree with
        each other and with `observed`, the mean correlation of two runs' shares of events; rates
        that are partly the run's own make `within_runs` largest, `observed` smallest, and
        `across_runs`, which presumes common rates, is then no estimate of agreement either.
        Extras `alpha`, `beta`, `rate` = alpha / (alpha + beta), `runs`, `log_likelihood`, `draws`,
        `failed`. NaN if no event or nothing but events was seen.

    References
    ----------
    Skellam (1948), JRSS B 10, 257-261. Jordan (2023), arXiv 2304.01910.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.binomial(12, rng.beta(1, 5, 3000), (2, 3000))
    >>> rows = beta_binomial(counts, 12, range(3000), np.zeros(3000), rng, draws=50)
    >>> bool(abs(rows.estimate - 12 / 18).max() < 0.05)
    True
    """
    check_level(level)
    counts = check_scores(counts, labels)
    m = np.broadcast_to(np.asarray(opportunities, float), counts.shape)
    if ((counts < 0) | (counts > m) | (counts != counts.round()) | (m != m.round())).any():
        raise ValueError(
            f"counts must be whole numbers in 0..opportunities, got {counts.min():g}.."
            f"{counts.max():g} of {m.min():g}..{m.max():g}"
        )
    inverse = (1 / m[m > 0]).mean() if (m > 0).any() else np.nan
    share = counts / np.where(m > 0, m, np.nan)
    known = np.isfinite(share).all(0)
    observed = np.nan
    if len(counts) > 1 and known.sum() > 1 and np.ptp(share[:, known], axis=1).min() > 0:
        observed = np.corrcoef(share[:, known])[np.triu_indices(len(counts), 1)].mean()
    rows = []
    for fit, y, total in (
        ("within_runs", counts, m),
        ("across_runs", counts.sum(0, keepdims=True), m.sum(0, keepdims=True)),
    ):
        cells, of_sample = _cells(y, total)
        extras = {"fit": fit, "runs": len(counts), "observed": observed}
        if not 0 < counts.sum() < m.sum():
            extras |= dict.fromkeys(("alpha", "beta", "rate", "log_likelihood"), np.nan)
            extras |= {"draws": draws, "failed": draws}
            method = "beta-binomial, not estimable: no event, or nothing but events"
            rows.append(one_row(np.nan, np.nan, np.nan, y.shape[1], np.nan, method, **extras))
            continue
        tails = np.concatenate(
            [_tails(c @ of_sample, cells) for c in observed_and_redrawn(groups, labels, rng, draws)]
        )
        eta, theta = _refit(_fit(tails[:1]), tails)
        rate, concentration = special.expit(eta), np.exp(theta)
        alpha, beta = rate[0] * concentration[0], (1 - rate[0]) * concentration[0]
        extras |= {"alpha": alpha, "beta": beta, "rate": rate[0]}
        log_p = stats.betabinom.logpmf(*cells, alpha, beta)
        extras["log_likelihood"] = float(of_sample.sum(0) @ log_p)
        values = 1 / (1 + concentration * inverse)
        rows.append(percentile_row(values, y.shape[1], f"beta-binomial {fit}", level, **extras))
    return pd.concat(rows, ignore_index=True)


def _cells(y: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
    """Distinct (count, opportunities), (2, cell), and how often each sample shows each of them."""
    cells, at = np.unique(np.stack([y.ravel(), m.ravel()]), axis=1, return_inverse=True)
    sample = np.tile(np.arange(y.shape[1]), len(y))
    ones = np.ones(y.size)
    shape = (y.shape[1], cells.shape[1])
    return cells, sparse.coo_array((ones, (sample, at.ravel())), shape=shape).tocsr()


def _tails(weights: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """How many counts, non-events and opportunities exceed j = 0, 1, ..., (draw, 3, j)."""
    y, m = cells
    above = np.arange(m.max())
    return np.stack([weights @ (x[:, None] > above) for x in (y, m - y, m)], axis=1)


def _derivatives(eta, theta, tails: np.ndarray) -> tuple[np.ndarray, ...]:
    """Log likelihood, slopes by eta = logit(rate) and theta = log(alpha + beta), and curvatures.

    Gamma(y + a) / Gamma(a) = a (a + 1) ... (a + y - 1), so that the likelihood is a sum over j of
    N(y > j) log(a + j) + N(m - y > j) log(b + j) - N(m > j) log(a + b + j); all are (draw,).
    """
    rate, k = special.expit(eta), np.exp(theta)
    a, b, j = rate * k, (1 - rate) * k, np.arange(tails.shape[2])
    base = np.stack([a, b, k], axis=1)[:, :, None] + j
    signed = tails * np.array([1, 1, -1])[:, None]
    to_a, to_b, to_k = (signed / base).sum(2).T
    to_aa, to_bb, to_kk = -(signed / base**2).sum(2).T
    by_a, by_b, by_aa, by_bb = to_a + to_k, to_b + to_k, to_aa + to_kk, to_bb + to_kk
    turn = k * rate * (1 - rate)  # d a / d eta = -d b / d eta
    slope = turn * (by_a - by_b)
    return (
        (signed * np.log(base)).sum((1, 2)),
        slope,
        a * by_a + b * by_b,
        turn**2 * (by_aa - 2 * to_kk + by_bb) + (1 - 2 * rate) * slope,
        turn * (a * (by_aa - to_kk) - b * (by_bb - to_kk)) + slope,
        a * a * by_aa + 2 * a * b * to_kk + b * b * by_bb + a * by_a + b * by_b,
    )


def _fit(tails: np.ndarray) -> np.ndarray:
    """(eta, theta) of largest likelihood for `tails` (1, 3, j); theta may stop at its range's end.

    Two starts: the likelihood can have a slope towards each end of theta's range.
    """
    events, scale = tails[0].sum(1), tails[0, 2].sum()

    def loss(x):
        value, *slopes = _derivatives(*np.asarray(x)[:, None], tails)[:3]
        return -value[0] / scale, -np.concatenate(slopes) / scale

    start = special.logit(events[0] / events[2])
    bounds = [(-30.0, 30.0), _LOG_CONCENTRATION]
    tries = [
        optimize.minimize(loss, (start, at), jac=True, bounds=bounds, method="L-BFGS-B")
        for at in (0.0, 4.0)
    ]
    return min(tries, key=lambda found: found.fun).x


def _refit(start: np.ndarray, tails: np.ndarray, steps: int = 8) -> np.ndarray:
    """(eta, theta), (2, draw), by Newton's method from `start` for tails (draw, 3, j)."""
    x = np.repeat(start[:, None], len(tails), axis=1)
    low, high = np.array([(-30.0, _LOG_CONCENTRATION[0]), (30.0, _LOG_CONCENTRATION[1])])[..., None]
    for _ in range(steps):
        g1, g2, h11, h12, h22 = _derivatives(*x, tails)[1:]
        det = h11 * h22 - h12**2
        concave = (det > 0) & (h11 < 0)
        newton = np.array([h12 * g2 - h22 * g1, h12 * g1 - h11 * g2]) / np.where(concave, det, 1)
        uphill = np.stack([g1 / np.maximum(-h11, 1e-9), np.sign(g2)])
        x = np.clip(x + np.clip(np.where(concave, newton, uphill), -1, 1), low, high)
    return x
