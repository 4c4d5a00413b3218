"""Simulated traces have the truth they claim, found by formulas of their own."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retention_lib.findings import score_matrix
from retention_lib.forgetting import forgetting_events
from retention_lib.scores import scores
from retention_lib.simulate import decay_traces, estimate_persistence, retention
from retention_lib.simulated_study import as_traces, misalign, study

N = 40_000


def slow_chain(p, persistence, rng):
    """The readable twin for one trace: keep the latent uniform, or draw a new one."""
    states = [rng.random() < p[0]]
    for before, now in pairwise(p):
        kept = before * now + persistence * (min(before, now) - before * now)
        both = {True: kept / before if before else 0, False: (now - kept) / (1 - before or 1)}
        states.append(rng.random() < both[states[-1]])
    return states


def test_retention_is_what_the_models_say():
    t, rate = np.arange(7.0)[:, None], np.array([0.05, 0.3, 0.0])
    np.testing.assert_allclose(retention(t, rate, model="exponential"), np.exp(-rate * t))
    np.testing.assert_allclose(retention(t, rate, 0.2), 0.2 + 0.8 * np.exp(-rate * t))
    np.testing.assert_allclose(retention(t, rate, model="power"), (1 + t) ** -rate)
    weibull = retention(t, rate, shape=[2, 0.5, 1], model="weibull")
    np.testing.assert_allclose(weibull, np.exp(-((rate * t) ** np.array([2, 0.5, 1]))))
    rising = retention(t, 0.5, 0.9, -0.6, model="exponential_signed")[:, 0]
    np.testing.assert_allclose(rising, 0.9 - 0.6 * np.exp(-0.5 * t[:, 0]))


@pytest.mark.parametrize("persistence", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("rising", [False, True])
def test_marginals_and_covariances_are_exact(persistence, rising):
    model, amplitude = ("exponential_signed", -0.8) if rising else ("exponential_floor", None)
    p = retention(np.arange(10.0), 0.25, 0.9 if rising else 0.2, amplitude, model=model)
    x = decay_traces(
        N,
        10,
        0.25,
        np.random.default_rng(0),
        floor=0.9 if rising else 0.2,
        amplitude=amplitude,
        model=model,
        persistence=persistence,
    )
    assert x.dtype == bool and x.shape == (10, N)
    se = np.sqrt(p * (1 - p) / N)
    assert (abs(x.mean(1) - p) <= 4 * se + 1e-12).all()
    together = (x[:-1] & x[1:]).mean(1)
    exact = p[:-1] * p[1:] * (1 - persistence) + persistence * np.minimum(p[:-1], p[1:])
    np.testing.assert_allclose(together, exact, atol=4 * 0.5 / np.sqrt(N))
    if persistence == 1:  # nothing returns on a falling curve, nothing is lost on a rising one
        assert not ((x[1:] & ~x[:-1]) if not rising else (x[:-1] & ~x[1:])).any()


def test_the_chain_agrees_with_its_slow_twin():
    p = np.array([1.0, 0.7, 0.7, 0.9, 0.2, 0.0])
    rng = np.random.default_rng(1)
    slow = np.array([slow_chain(p, 0.6, rng) for _ in range(8000)])
    assert (abs(slow.mean(0) - p) < 0.025).all()
    q = retention(np.arange(6.0), 0.3)  # the same curve through both
    slow = np.array([slow_chain(q, 0.6, rng) for _ in range(8000)])
    fast = decay_traces(8000, 6, 0.3, rng, persistence=0.6)
    patterns = [np.bincount(c @ (1 << np.arange(6)), minlength=64) for c in (slow, fast.T)]
    kept = np.array(patterns)[:, np.sum(patterns, axis=0) >= 20]
    assert stats.chi2_contingency(kept).pvalue > 0.01


def test_on_a_level_curve_persistence_is_the_autocorrelation():
    x = decay_traces(N, 4, 0.0, np.random.default_rng(2), 0.3, 0.4, persistence=0.5,
                     model="exponential_amplitude").astype(float)  # fmt: skip
    lagged = [np.corrcoef(x[0], x[k])[0, 1] for k in (1, 2, 3)]
    np.testing.assert_allclose(lagged, [0.5, 0.25, 0.125], atol=0.02)


def test_gaussian_traces_have_the_curve_noise_and_autocorrelation():
    rate = np.repeat([0.1, 0.5], N // 2)
    x = decay_traces(
        N, 8, rate, np.random.default_rng(3), kind="gaussian", noise=0.2, persistence=-0.4
    )
    error = x - retention(np.arange(8.0)[:, None], rate)
    np.testing.assert_allclose(error.mean(1), 0, atol=0.005)
    np.testing.assert_allclose(error.std(1), 0.2, rtol=0.02)
    lagged = [np.corrcoef(a, b)[0, 1] for a, b in pairwise(error)]
    np.testing.assert_allclose(lagged, -0.4, atol=0.02)


@given(st.floats(0, 3), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_every_persistence_is_feasible_with_every_curve(rate, floor, start, persistence, epochs):
    model = "exponential_signed"
    args = (rate, np.random.default_rng(0), floor, start - floor)
    x = decay_traces(50, epochs, *args, persistence=persistence, model=model)
    p = retention(np.arange(epochs, dtype=float), rate, floor, start - floor, model=model)
    assert x[p >= 1].all() and not x[p <= 0].any() and (p >= 0).all() and (p <= 1).all()


@pytest.mark.parametrize("n_epochs", [13, 31])
@pytest.mark.parametrize("persistence", [0.0, 0.2, 0.4, 0.6])
def test_persistence_is_recovered_whatever_the_curves(n_epochs, persistence):
    rng = np.random.default_rng(4)
    rate, floor = 0.1 * np.exp(rng.normal(0, 1, 8000)), rng.uniform(0, 0.8, 8000)
    signed, level = {"model": "exponential_signed"}, {"model": "exponential_amplitude"}
    for low, curve in (  # on a curve that moves the autocorrelation is less than the persistence
        (0.90, {"rate": rate, "floor": floor}),
        (0.88, {"rate": rate}),
        (0.88, {"rate": rate, "floor": 0.9, "amplitude": -0.8 * floor} | signed),
        (0.78, {"rate": 0.3, "floor": 0.99, "amplitude": -0.7 * floor} | signed),
        (1.00, {"rate": 0.0, "floor": floor, "amplitude": 0.0} | level),
    ):
        x = decay_traces(8000, n_epochs, rng=rng, persistence=persistence, **curve)
        assert low * persistence - 0.04 <= estimate_persistence(x) <= persistence + 0.04


def test_persistence_ignores_epochs_that_hit_everyone_and_pools_runs():
    rng = np.random.default_rng(5)
    p = 0.7 + 0.25 * rng.uniform(-1, 1, (20, 1))
    x = rng.random((3, 20, 5000)) < p  # independent, but every second epoch is another
    assert estimate_persistence(x) == pytest.approx(0, abs=0.03)
    runs = [decay_traces(4000, 20, 0.02, rng, persistence=v) for v in (0.5, 0.5)]
    assert estimate_persistence(np.stack(runs)) == pytest.approx(0.48, abs=0.04)


def test_persistence_without_information_is_nan_or_its_limit():
    assert np.isnan(estimate_persistence(np.ones((10, 5))))
    assert np.isnan(estimate_persistence(np.eye(3)))
    assert np.isnan(estimate_persistence(np.eye(5)[:, :1]))
    steps = np.arange(30)[:, None] < np.arange(2, 28)  # one change each, for good
    assert estimate_persistence(steps) == pytest.approx(1, abs=0.1)


def icc1(z):
    """One-way ICC(1) of (seed, sample), by mean squares."""
    k, n = z.shape
    between = k * z.mean(0).var(ddof=1)
    within = ((z - z.mean(0)) ** 2).sum() / (n * (k - 1))
    return (between - within) / (between + (k - 1) * within)


def test_a_study_has_the_planted_components():
    made = study(
        20_000, 4, ["cnn", "vit"], [10, 11, 12], np.random.default_rng(6), reliability=0.7,
        shared=0.6, class_effect=0.2, group_effect=0.1, n_classes=6, group_size=4,
        rate=(0.1, 0.3), spread=0.8,
    )  # fmt: skip
    truth, z = made.truth, made.truth.latent
    assert truth.cross_architecture == pytest.approx(0.42) and truth.disattenuated == 0.6
    assert sum(truth.shares.values()) == pytest.approx(1)
    for runs, rate in ((slice(0, 3), 0.1), (slice(3, 6), 0.3)):
        assert icc1(z[runs]) == pytest.approx(truth.reliability, abs=0.01)
        np.testing.assert_allclose(np.median(z[runs], axis=1), np.log(rate), atol=0.03)
        np.testing.assert_allclose(z[runs].std(1), 0.8, rtol=0.02)
    cross = np.corrcoef(z)[:3, 3:]
    np.testing.assert_allclose(cross, truth.cross_architecture, atol=0.03)
    for unit, share in ((made.labels, 0.2), (made.groups, 0.3)):
        size = np.bincount(unit)
        means = np.array([np.bincount(unit, run) / size for run in z])
        by_unit = np.cov(means[:3])[np.triu_indices(3, 1)] if len(size) > 6 else means.var(1)
        # group means share the groups' class and own terms, and a quarter of the reliable rest
        expected = share + (0.7 - 0.3) / 4 if len(size) > 6 else share
        np.testing.assert_allclose(by_unit / 0.64, expected, atol=0.02)
    assert (made.labels == made.labels[made.groups * 4]).all()  # a group lies within one class


def test_early_loss_correlates_as_planted():
    made = study(
        30_000, 2, ["cnn"], [1, 2], np.random.default_rng(7), early_loss=0.4, class_effect=0.0
    )
    for u, loss in zip(made.truth.latent, made.loss, strict=True):
        assert (loss > 0).all()
        assert np.corrcoef(u, np.log(loss))[0, 1] == pytest.approx(0.4, abs=0.015)
        rho = stats.spearmanr(u, loss).statistic
        assert rho == pytest.approx(made.truth.early_loss_spearman, abs=0.015)


def test_correctness_follows_the_latent_and_loses_it_when_misaligned():
    rng = np.random.default_rng(8)
    made = study(
        6000, 13, ["cnn"], [1, 2], rng, reliability=0.9, shared=1.0, floor=0.1, persistence=0.2
    )
    errors = 1 - made.correct.mean(1)
    for u, error in zip(made.truth.latent, errors, strict=True):
        assert stats.spearmanr(u, error).statistic > 0.6
    aligned = np.corrcoef(errors)[0, 1]
    shuffled = misalign(made.correct, rng)
    assert aligned > 0.5 and abs(np.corrcoef(shuffled.mean(1))[0, 1]) < 0.05
    assert (np.sort(shuffled.mean(1)) == np.sort(made.correct.mean(1))).all()  # traces stay whole
    none = study(6000, 13, ["cnn"], [1, 2], rng, reliability=0.0, class_effect=0.0)
    assert abs(np.corrcoef(none.correct.mean(1))[0, 1]) < 0.05


def test_a_study_goes_through_the_analysis_as_recorded_runs_do():
    made = study(60, 5, ["cnn", "vit"], [10, 11], np.random.default_rng(9), group_size=3)
    traces = as_traces(made)
    assert (traces.correct() == made.correct).all() and (traces.labels == made.labels).all()
    assert traces.runs[["arch", "seed"]].equals(made.runs) and traces.runs["key"].is_unique
    assert not traces.shown("online").any() and traces.shown().all()
    table = scores(traces)
    assert (table["events"] == forgetting_events(made.correct).ravel()).all()
    np.testing.assert_allclose(table["early_loss"], made.loss.ravel(), rtol=1e-3)
    assert score_matrix(traces.select(arch="vit"), "events").shape == (2, 60)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda r: decay_traces(3, 4, 0.1, r, kind="poisson"), "got 'poisson'"),
        (lambda r: decay_traces(3, 4, 0.1, r, persistence=1.2), r"0\.\.1 .*got 1\.2"),
        (lambda r: decay_traces(3, 4, 0.1, r, persistence=-0.1), "got -0.1"),
        (lambda r: decay_traces(3, 4, 0.1, r, kind="gaussian", persistence=1), "got 1"),
        (lambda r: decay_traces(0, 4, 0.1, r), "got 0 and 4"),
        (lambda r: retention(1, -1), "rate >= 0, got rate=array"),
        (lambda r: retention(1, np.nan), "rate >= 0"),
        (lambda r: retention(1, 1, 0.2, model="exponential"), "needs floor = 0"),
        (lambda r: retention(1, 1, 0.2, 0.5), r"needs floor \+ amplitude = 1"),
        (lambda r: retention(1, 1, 1.2, -0.2), r"in 0\.\.1"),
        (lambda r: retention(1, 1, 0.9, -0.2, model="exponential_amplitude"), "amplitude >= 0"),
        (lambda r: retention(1, 1, model="weibull"), "shape belongs.*got None for 'weibull'"),
        (lambda r: retention(1, 1, model="logistic"), "one of .*got 'logistic'"),
        (lambda r: estimate_persistence(np.ones(4)), r"got shape \(4,\)"),
        (lambda r: study(9, 4, "ab", [1], r, class_effect=0.5), "at most.*'sample': -0.2"),
        (lambda r: study(9, 4, "ab", [1], r, reliability=1.5), "reliability=1.5"),
        (lambda r: study(9, 4, "ab", [1], r, early_loss=2), "early_loss.*got 2"),
        (lambda r: study(3, 4, "ab", [1], r, group_size=3), "too few samples: n=3"),
        (lambda r: misalign(np.ones(3), r), r"got shape \(3,\)"),
    ],
)
def test_broken_input_is_quoted(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
