"""How much two runs could agree, given the noise of each: beta-binomial counts, disattenuation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize, sparse, special, stats

from retention_lib.intervals import check_level, one_row
from retention_lib.resampled import percentile_interval
from retention_lib.run_correlations import (
    check_scores,
    correlation_matrices,
    leave_one_seed_out,
    observed_and_redrawn,
    percentile_row,
    recentred,
    run_pairs,
)
from retention_lib.ties import topk_jaccard

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


def noise_ceiling(
    alpha: float,
    beta: float,
    opportunities: np.ndarray,
    rng: np.random.Generator,
    share: float = 0.10,
    draws: int = 200,
    level: float = 0.95,
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
    values = np.full((draws, 3), np.nan)
    for pair in values:
        which = rng.choice(len(m), 2, replace=False) if len(m) > 1 else np.array([0, 0])
        y = rng.binomial(m[which].astype(int), rng.beta(alpha, beta, m.shape[1]))
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
