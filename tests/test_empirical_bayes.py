"""The EM engine and the posteriors against brute-force integration and scipy's optimum."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize
from shrinkable import simulate

from retention_lib.shrinkage import shrink


def log_likelihood(y, t, u):
    """Bernoulli log-likelihood of one trace at every u; t = 0 says nothing."""
    y, t = y[t > 0], t[t > 0]
    x = t * np.exp(u)[:, None]
    return np.where(y, -x, np.log(-np.expm1(-x))).sum(1)


def slow_marginals(likelihoods, m, u, tau):
    """Readable twin: log A_i(m), one sample after another, by trapezoids."""
    prior = stats.norm.pdf(u, m[:, None], tau)  # (mean, node)
    return np.array([np.log(np.trapezoid(prior * one, u, axis=1)) for one in likelihoods])


def slow_evidence(likelihoods, labels, mu, omega, tau, m, u):
    """Readable twin of the marginal likelihood: class after class, nested trapezoids."""
    logs, total = slow_marginals(likelihoods, m, u, tau), 0.0
    for k in np.unique(labels):
        joint = np.exp(logs[labels == k].sum(0)) * stats.norm.pdf(m, mu, omega)
        total += np.log(np.trapezoid(joint, m))
    return total


@pytest.fixture(scope="module")
def tiny():
    means = [-4.0, -3.2, -2.6, -1.8, -1.2]
    return simulate([8] * 5, 0, 0, 0.9, 12, np.random.default_rng(4), means)[:2]


M, U = np.linspace(-9, 4, 261), np.linspace(-14, 6, 401)


def test_em_finds_the_optimum_that_scipy_finds(tiny):
    r, labels = tiny
    fit = shrink(r, None, labels)
    ours = np.array([fit.mu, math.log(fit.omega), math.log(fit.tau)])
    m, u = M[::4], U[::2]
    likelihoods = np.exp([log_likelihood(y, np.arange(12), u) for y in r.T])

    def loss(x):
        return -slow_evidence(likelihoods, labels, x[0], *np.exp(x[1:]), m, u)

    assert fit.log_likelihood == pytest.approx(-loss(ours), abs=1e-6)
    best = minimize(loss, [-2.5, 0, 0], method="Nelder-Mead", options={"fatol": 1e-7})
    assert fit.log_likelihood >= -best.fun - 1e-6
    np.testing.assert_allclose(ours, best.x, atol=2e-3)


def test_posteriors_agree_with_brute_force(tiny):
    """mu, omega, class means and every log lambda integrated on grids, tau as fitted."""
    r, labels = tiny
    fit = shrink(r, None, labels, threshold=0.05)
    likelihoods = np.exp([log_likelihood(y, np.arange(12), U) for y in r.T])
    logs = slow_marginals(likelihoods, M, U, fit.tau)
    by_class = np.array([np.exp(logs[labels == k].sum(0)) for k in range(5)])  # (class, mean)
    post = np.zeros_like(by_class)
    for mu in np.linspace(-8, 3, 56):
        for omega in np.linspace(0.05, 4, 80):
            joint = by_class * stats.norm.pdf(M, mu, omega)
            total = joint.sum(1)
            post += total.prod() * math.exp(-(omega**2) / 2) * joint / total[:, None]
    post /= post.sum(1, keepdims=True)
    mean = post @ M
    np.testing.assert_allclose(fit.classes["log_mean"], mean, atol=2e-3)
    sd = np.sqrt((post * (M - mean[:, None]) ** 2).sum(1))
    np.testing.assert_allclose(fit.classes["log_se"], sd, rtol=5e-3)
    for i in range(0, 40, 3):
        weights = post[labels[i]] / np.exp(logs[i])
        p = likelihoods[i] * (weights @ stats.norm.pdf(U, M[:, None], fit.tau))
        p /= p.sum()
        assert fit.log_mean[i] == pytest.approx(p @ U, abs=2e-3)
        assert fit.log_sd[i] == pytest.approx(math.sqrt(p @ (U - p @ U) ** 2), rel=5e-3)
        assert fit.mean[i] == pytest.approx(p @ np.exp(U), rel=5e-3)
        cdf = np.concatenate([[0], np.cumsum((p[1:] + p[:-1]) / 2)])
        for found, q in ((fit.low, 0.025), (fit.high, 0.975)):
            assert np.log(found[i]) == pytest.approx(np.interp(q, cdf, U), abs=0.01)
        assert fit.below[i] == pytest.approx(np.interp(math.log(0.05), U, cdf), abs=2e-3)


def test_interval_ends_have_their_probability(tiny):
    r, mask, labels = tiny[0], None, tiny[1]
    fit = shrink(r, mask, labels)
    for end, q in ((fit.low, 0.025), (fit.high, 0.975)):
        again = shrink(r, mask, labels, threshold=end)
        np.testing.assert_allclose(again.below, q, atol=1e-9)


def test_no_spread_between_or_within_classes_converges():
    rng = np.random.default_rng(3)
    r, labels, *_ = simulate([100] * 6, -2, 0.0, 0.0, 20, rng)
    fit = shrink(r, None, labels)
    assert fit.omega < 0.15 and fit.tau < 0.25
    assert np.abs(fit.log_mean + 2).max() < 0.3
    assert np.diff(fit.path).min() > -1e-6
