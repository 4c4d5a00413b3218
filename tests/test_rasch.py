"""The Rasch fit against numerical integration, simulated truth and what must hold for any data."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, stats
from scipy.integrate import quad
from scipy.special import expit

from retention_lib import rasch
from retention_lib.rasch import PSEUDO, SPREAD_BOUNDS, fit_rasch


def simulate(rng, shape, spread=1.5):
    """Correctness of shape (..., epoch, sample), the effects (..., epoch) and difficulties."""
    effect = np.linspace(-0.5, 2, shape[-2]) + rng.normal(0, 0.4, shape[:-1])
    difficulty = rng.normal(0, spread, shape[-1])
    return rng.random(shape) < expit(effect[..., None] - difficulty), effect, difficulty


def likelihood(d, y, mask, effect):
    """P(the entries of one sample | its difficulty), y and mask (epoch,)."""
    p = expit(effect - d)
    return np.prod(np.where(mask, np.where(y, p, 1 - p), 1.0))


def expectation(of, y, mask, effect, spread):
    """Integral of `of`(d) times likelihood times prior, by scipy's adaptive quadrature."""

    def integrand(d):
        prior = np.exp(-0.5 * (d / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        return of(d) * likelihood(d, y, mask, effect) * prior

    edge = 12 * spread
    return quad(integrand, -edge, edge, points=[0], epsabs=1e-13, epsrel=1e-11, limit=200)[0]


def slow_fit(y, mask):
    """The readable twin: Nelder-Mead and BFGS on a sum over a fine grid of d, sample by sample."""
    z = np.linspace(-10, 10, 1001)

    def negative(x):
        effect, spread = x[:-1], abs(x[-1])
        prior = stats.norm.pdf(z) * (z[1] - z[0])
        total = PSEUDO * (effect / 2 - np.logaddexp(0, effect)).sum()
        for i in range(y.shape[1]):
            p = expit(effect[:, None] - spread * z)
            entry = np.where(y[:, i, None], p, 1 - p)[mask[:, i]]
            total += np.log(prior @ entry.prod(0))
        return -total

    start = np.append(np.zeros(len(y)), 1.0)
    return optimize.minimize(negative, start, method="BFGS", options={"gtol": 1e-6}).x


@pytest.mark.parametrize("masked", [False, True])
def test_fit_is_the_optimum_that_brute_force_finds(masked):
    rng = np.random.default_rng(3)
    y, _, _ = simulate(rng, (4, 40))
    mask = rng.random(y.shape) < (0.7 if masked else 1.1)
    fit, slow = fit_rasch(y, mask), slow_fit(y, mask)
    np.testing.assert_allclose(fit.epoch_effect, slow[:-1], atol=2e-4)
    assert fit.prior_sd == pytest.approx(abs(slow[-1]), abs=2e-4)
    assert fit.n_params == 5


@pytest.mark.parametrize("spread", [0.3, 2.0, 8.0])
def test_likelihood_and_posteriors_agree_with_quadrature(spread):
    rng = np.random.default_rng(0)
    y, _, _ = simulate(rng, (9, 20), spread)
    mask = rng.random(y.shape) < 0.8
    mask[:, 0] = False  # nothing known of it
    fit = fit_rasch(y, mask)
    p, total = fit.predict(), 0.0
    for i in range(20):
        of_sample = partial(
            expectation, y=y[:, i], mask=mask[:, i], effect=fit.epoch_effect, spread=fit.prior_sd
        )
        area = of_sample(lambda d: 1.0)
        mean = of_sample(lambda d: d) / area
        total += np.log(area)
        assert fit.difficulty[i] == pytest.approx(mean, abs=1e-7)
        variance = of_sample(lambda d, mean=mean: (d - mean) ** 2) / area
        assert fit.difficulty_sd[i] == pytest.approx(np.sqrt(variance), abs=1e-6)
        right = of_sample(lambda d: expit(fit.epoch_effect[2] - d)) / area
        assert p[2, i] == pytest.approx(right, abs=1e-8)
    assert fit.log_likelihood == pytest.approx(total, abs=1e-7)
    assert (fit.difficulty[0], fit.difficulty_sd[0]) == pytest.approx((0, fit.prior_sd))


@pytest.mark.parametrize("shape", [(13, 4000), (5, 31, 1000)])
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_known_truth_is_recovered_and_posteriors_are_calibrated(shape, spread):
    rng = np.random.default_rng(1)
    y, effect, difficulty = simulate(rng, shape, spread)
    mask = np.ones(shape, bool)
    mask[..., :4, : shape[-1] // 2] = False  # half of the samples enter late
    fit = fit_rasch(y, mask)
    shift = (fit.epoch_effect - effect).mean()  # the mean difficulty of these samples
    assert abs(shift) < 5 * spread / np.sqrt(shape[-1])
    p = expit(effect[..., None] - difficulty)
    precision = np.sqrt((mask * p * (1 - p)).sum(-1))  # about 1 / standard error of an effect
    z = (fit.epoch_effect - shift - effect) * precision
    assert np.abs(z).max() < 4 and 0.6 < np.sqrt((z**2).mean()) < 1.25
    assert fit.prior_sd == pytest.approx(spread, rel=0.1)
    z = (difficulty - fit.difficulty + shift) / fit.difficulty_sd
    assert abs(z.mean()) < 0.1 and z.std() == pytest.approx(1, abs=0.06)
    assert np.mean(np.abs(z) < 1.96) == pytest.approx(0.95, abs=0.02)


def test_joint_estimates_would_be_biased_where_ours_are_not():
    """Two epochs: joint maximum likelihood gives exactly twice the log odds ratio (Andersen)."""
    rng = np.random.default_rng(2)
    effect, difficulty = np.array([0.0, 1.0]), rng.normal(0, 1.0, 20_000)
    y = rng.random((2, 20_000)) < expit(effect[:, None] - difficulty)
    ours = np.diff(fit_rasch(y).epoch_effect)[0]
    conditional = np.log((~y[0] & y[1]).sum() / (y[0] & ~y[1]).sum())  # consistent
    assert ours == pytest.approx(conditional, abs=0.02) and ours == pytest.approx(1.0, abs=0.1)
    assert 2 * conditional > 1.8  # the joint estimate


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 25))))
@settings(max_examples=60, deadline=None)
def test_difficulty_falls_with_the_number_right(y):
    fit, total = fit_rasch(y), y.sum(0)
    rank = np.argsort(total, kind="stable")
    steps, rises = np.diff(fit.difficulty[rank]), np.diff(total[rank])
    assert np.all(np.abs(steps[rises == 0]) < 1e-9)
    assert np.all(steps[rises > 0] < 0) or fit.prior_sd < 1e-3
    assert np.isfinite(fit.epoch_effect).all() and np.isfinite(fit.log_likelihood)
    p = fit.predict()
    assert p.shape == y.shape and (p > 0).all() and (p < 1).all()


@given(arrays(bool, (5, 12)), arrays(bool, (5, 12)), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_of_samples_and_values_outside_the_mask_do_not_matter(y, mask, random):
    order = random.sample(range(12), 12)
    fit = fit_rasch(y, mask)
    other = fit_rasch((y ^ ~mask)[:, order], mask[:, order])
    np.testing.assert_allclose(other.difficulty, fit.difficulty[order], atol=1e-5)
    np.testing.assert_allclose(other.predict(), fit.predict()[:, order], atol=1e-5)


def test_runs_share_difficulties_and_have_their_own_epochs():
    y, _, _ = simulate(np.random.default_rng(4), (3, 6, 200))
    fit, flat = fit_rasch(y), fit_rasch(y.reshape(18, 200))
    assert fit.epoch_effect.shape == (3, 6) and fit.predict().shape == (3, 6, 200)
    np.testing.assert_array_equal(fit.epoch_effect.ravel(), flat.epoch_effect)
    np.testing.assert_array_equal(fit.difficulty, flat.difficulty)
    assert "18 epoch effects, 200 samples" in repr(fit)


def test_equal_epochs_shrink_rates_and_nothing_else():
    rng = np.random.default_rng(5)
    y = rng.random((12, 3000)) < rng.beta(3, 2, 3000)
    free, equal = fit_rasch(y), fit_rasch(y, equal_epochs=True)
    assert np.ptp(equal.epoch_effect) == 0 and equal.n_params == 2
    # twice the difference is chi-squared on 11 degrees of freedom where epochs are equal
    assert 0 <= 2 * (free.log_likelihood - equal.log_likelihood) < 31
    rate, own = equal.predict(equal.epoch_effect[0]), y.mean(0)
    assert rate.shape == (3000,)
    assert np.all(np.abs(rate - y.mean()) <= np.abs(own - y.mean()) + 0.01)
    assert np.polyfit(own, rate, 1)[0] == pytest.approx(12 / (12 + 5), abs=0.05)  # beta prior


def test_extreme_data_stay_finite():
    ones = fit_rasch(np.ones((5, 40), bool))
    assert ones.prior_sd < 0.01 and ones.predict().min() > 0.97
    np.testing.assert_allclose(ones.epoch_effect, np.log(40.5 / 0.5), rtol=1e-4)  # s = 0
    split = fit_rasch(np.tile(np.arange(50) % 2 == 0, (6, 1)))  # always or never right
    assert 10 < split.prior_sd <= SPREAD_BOUNDS[1]
    assert split.predict()[:, ::2].min() > 0.9 and split.predict()[:, 1::2].max() < 0.1
    empty = fit_rasch(np.ones((3, 4), bool), np.zeros((3, 4), bool))
    assert empty.epoch_effect.tolist() == [0, 0, 0] and empty.log_likelihood == pytest.approx(0)


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(6)
    y, _, _ = simulate(rng, (8, 60))
    mask = rng.random(y.shape) < 0.6
    whole = fit_rasch(y, mask)
    monkeypatch.setattr(rasch, "_BLOCK", 7)
    parts = fit_rasch(y, mask)
    np.testing.assert_allclose(parts.predict(), whole.predict(), atol=1e-6)


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"got shape \(4,\)"):
        fit_rasch(np.ones(4, bool))
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(2, 3\), got int64"):
        fit_rasch(np.ones((2, 3)), np.ones((2, 3), int))
    with pytest.raises(ValueError, match=r"only 0 and 1 inside the mask, got \[0.5\]"):
        fit_rasch(np.full((2, 3), 0.5))
    stop = partial(optimize.minimize, method="L-BFGS-B")
    monkeypatch.setattr(
        rasch,
        "minimize",
        lambda f, x, jac, method, bounds, options: stop(
            f, x, jac=jac, bounds=bounds, options={"maxiter": 1}
        ),
    )
    with pytest.raises(RuntimeError, match="has not converged: gradient"):
        fit_rasch(simulate(np.random.default_rng(0), (6, 50))[0])
