"""Shrunken decay constants against simulations with known truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from shrinkable import simulate

from retention_lib.config import RETENTION
from retention_lib.convention import retention_trace
from retention_lib.shrinkage import shrink

#: One class holds 56 times as many samples as the smallest.
SIZES = (2240, 40, *[200] * 10)


def maximum_likelihood(r, mask, bounds=(1e-4, 10.0)):
    """log lambda of each trace on a fine grid; a never-forgotten one lies at the lower bound."""
    u, t = np.linspace(*np.log(bounds), 1200), np.arange(len(r))[1:, None]
    x = t * np.exp(u)
    right, wrong = (r & mask)[1:].T.astype(float), (~r & mask)[1:].T.astype(float)
    return u[np.argmax(wrong @ np.log(-np.expm1(-x)) - right @ x, 1)]


@pytest.fixture(scope="module")
def study():
    """4,280 traces of 5 to 13 epochs in 12 very unequal classes, and their shrunken fit."""
    rng = np.random.default_rng(0)
    r, labels, u, means = simulate(SIZES, -3, 0.6, 1.0, 13, rng)
    mask = np.arange(13)[:, None] < rng.integers(5, 14, len(u))  # learned late, seen briefly
    return r, mask, labels, u, means, shrink(r, mask, labels, threshold=np.exp(u))


def test_hyperparameters_are_recovered(study):
    *_, means, fit = study
    assert fit.mu == pytest.approx(-3, abs=3 * 0.6 / math.sqrt(12))
    assert fit.mu == pytest.approx(means.mean(), abs=0.1)
    assert fit.omega == pytest.approx(means.std(), rel=0.2)
    assert fit.tau == pytest.approx(1.0, rel=0.06)


def test_credible_intervals_cover(study):
    r, mask, labels, u, _, fit = study
    hit = (np.log(fit.low) < u) & (u < np.log(fit.high))
    assert 0.93 < hit.mean() < 0.97
    assert 0.01 < (u < np.log(fit.low)).mean() < 0.04  # and miss on either side alike
    assert 0.01 < (u > np.log(fit.high)).mean() < 0.04
    half = shrink(r, mask, labels, level=0.5)
    assert 0.47 < ((np.log(half.low) < u) & (u < np.log(half.high))).mean() < 0.53
    assert hit[fit.n_wrong == 0].mean() > 0.9  # never forgotten, hence censored


def test_probability_of_the_truth_is_uniform(study):
    fit = study[-1]
    assert stats.kstest(fit.below, "uniform").pvalue > 0.01
    assert stats.kstest(fit.below[fit.label == 0], "uniform").pvalue > 0.01


def test_posterior_means_are_calibrated_by_decile(study):
    *_, u, _, fit = study
    order = np.argsort(fit.log_mean)
    for part in np.array_split(order, 10):
        error = u[part] - fit.log_mean[part]
        assert abs(error.mean()) < 4 * fit.log_sd[part].mean() / math.sqrt(len(part))
        assert error.std() == pytest.approx(np.sqrt((fit.log_sd[part] ** 2).mean()), rel=0.2)
    lam = np.exp(u)
    assert fit.mean.mean() == pytest.approx(lam.mean(), rel=0.1)


def test_shrinkage_beats_single_traces(study):
    r, mask, _, u, _, fit = study
    single = maximum_likelihood(r, mask)
    rmse = np.sqrt(((fit.log_mean - u) ** 2).mean())
    assert rmse < 0.65
    assert rmse < 0.4 * np.sqrt(((single - u) ** 2).mean())
    forgotten = fit.n_wrong > 0
    error = [np.sqrt(((x - u)[forgotten] ** 2).mean()) for x in (fit.log_mean, single)]
    assert error[0] < 0.9 * error[1]
    rank = [stats.spearmanr(x, u).statistic for x in (fit.log_mean, single)]
    assert rank[0] > rank[1] + 0.01


def test_em_rises_steadily(study):
    fit = study[-1]
    assert np.diff(fit.path).min() > -1e-6
    assert fit.n_iter == len(fit.path) < 50
    assert fit.log_likelihood == fit.path[-1]


def test_small_classes_lean_on_the_others(study):
    *_, means, fit = study
    table = fit.classes
    assert table["n"].tolist() == list(SIZES)
    z = (table["log_mean"] - means) / table["log_se"]
    assert (z.abs() < 3).all()
    assert table["log_se"].idxmax() == 1  # 40 samples
    assert 0.02 < table["log_se"][0] < 0.04  # 2,240: about tau over the root of n
    assert ((np.log(table["low"]) < means) & (means < np.log(table["high"]))).sum() >= 10


@pytest.mark.slow
def test_few_and_unequal_classes_have_honest_intervals():
    rng, sizes = np.random.default_rng(1), (112, 20, 10, 6, 4, 2, 2, 30, 30, 30)
    hits, taus = [], []
    for _ in range(40):
        r, labels, _, means = simulate(sizes, -3, 0.6, 1.0, 13, rng)
        fit = shrink(r, None, labels)
        low, high = np.log(fit.classes["low"]), np.log(fit.classes["high"])
        hits.append((low < means) & (means < high))
        taus.append(fit.tau)
    assert 0.91 < np.mean(hits) < 0.98
    assert np.mean(taus) == pytest.approx(1.0, abs=0.05)


def test_one_class_and_its_mean():
    rng = np.random.default_rng(5)
    r, *_ = simulate([800], -2.5, 0.0, 0.8, 20, rng)
    fit = shrink(r)
    assert fit.mu == pytest.approx(-2.5, abs=0.1) and math.isnan(fit.omega)
    assert fit.tau == pytest.approx(0.8, rel=0.1)
    assert fit.classes.loc[0, "log_se"] == pytest.approx(0.8 / math.sqrt(800), rel=0.3)


def test_never_forgotten_traces_bound_lambda_by_their_length():
    rng = np.random.default_rng(6)
    r, *_ = simulate([300], -3, 0, 1.0, 20, rng)
    mask = np.ones_like(r)
    r[:, :3] = True
    mask[10:, 1] = mask[1:, 2] = mask[:, 3] = False
    fit = shrink(r, mask)
    assert fit.high[0] < fit.high[1] < fit.high[2]  # longer perfect, more surely slow
    assert fit.decay_constant[0] < np.nanmedian(fit.decay_constant)
    # An empty trace has its class's distribution, a sample without any entry has none.
    assert fit.log_mean[2] == pytest.approx(fit.mu, abs=1e-6)
    assert fit.log_sd[2] == pytest.approx(math.hypot(fit.tau, fit.classes["log_se"][0]), rel=1e-6)
    assert np.isnan(fit.log_mean[3]) and np.isnan(fit.high[3]) and fit.n_epochs[3] == 0
    assert fit.classes.loc[0, "n"] == 299


def test_runs_of_a_sample_add_up():
    rng = np.random.default_rng(7)
    t = np.arange(8)
    u = rng.normal(-2, 0.7, 60)
    r = rng.random((3, 8, 60)) < np.exp(-np.exp(u) * t[:, None])
    mask = rng.random(r.shape) < 0.9
    labels = np.arange(60) % 4
    both = shrink(r, mask, labels)
    one = shrink(r.reshape(24, 60), mask.reshape(24, 60), labels, np.tile(t, 3))
    np.testing.assert_allclose(both.log_mean, one.log_mean, atol=1e-9)
    single = shrink(r[0], mask[0], labels)  # resolves less of the spread that it finds
    assert (both.log_sd / both.tau).mean() < 0.8 * (single.log_sd / single.tau).mean()


@given(st.integers(0, 2**32 - 1), st.integers(7, 40))
@settings(max_examples=6, deadline=None)
def test_order_units_and_chunks_do_not_matter(seed, chunk):
    rng = np.random.default_rng(seed)
    r, labels, _, _ = simulate([9, 30, 21], -2, 0.4, 0.8, 12, rng)
    names, order = np.array(["wren", "crow", "tern"])[labels], rng.permutation(60)
    fit = shrink(r, None, names)
    again = shrink(r[:, order], None, names[order], 2.0 * np.arange(12), chunk=chunk)
    np.testing.assert_allclose(again.log_mean, fit.log_mean[order] - math.log(2), atol=2e-3)
    assert (fit.low < fit.decay_constant).all() and (fit.decay_constant < fit.high).all()
    assert (fit.decay_constant < fit.mean).all()  # Jensen
    assert fit.classes["label"].tolist() == ["crow", "tern", "wren"]


def test_works_on_retention_traces_and_as_a_table():
    rng = np.random.default_rng(8)
    correct = rng.random((16, 200)) < 0.85
    correct[:, 0] = False  # never learned: outside the population
    fit = shrink(*retention_trace(correct, RETENTION), np.arange(200) % 5)
    table = fit.to_frame()
    assert table.index.name == "sample" and len(table) == 200
    assert table["decay_constant"].isna().tolist() == [True] + [False] * 199
    assert "below" not in table and "200 samples, 5 classes" in repr(fit)


def test_bad_input_is_named():
    r = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]])
    with pytest.raises(ValueError, match=r"1 samples are wrong at t = 0.*first \[2\]"):
        shrink(np.array([[1, 1, 0], [1, 0, 1]]))
    with pytest.raises(ValueError, match=r"0 or 1 inside the mask, got \[0.5\]"):
        shrink(np.array([[1, 1], [0.5, 1], [1, 0]]))
    with pytest.raises(ValueError, match="got 6 and 0"):
        shrink(np.ones((3, 3)))
    with pytest.raises(ValueError, match="mask must be bool of shape"):
        shrink(r, r)
    with pytest.raises(ValueError, match="labels must be 3, none missing"):
        shrink(r, None, [0, 1])
    with pytest.raises(ValueError, match="labels must be 3, none missing"):
        shrink(r, None, [0, 1, math.nan])
    with pytest.raises(ValueError, match="t must be 3 finite times"):
        shrink(r, t=[0, 1, -1])
    with pytest.raises(ValueError, match="r must be 0/1 of shape"):
        shrink(np.ones(4))
    with pytest.raises(ValueError, match="bounds must be 0 < low < high"):
        shrink(r, bounds=(1, 0.1))
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        shrink(r, level=95)
    with pytest.raises(ValueError, match="reach beyond log bounds"):
        shrink(r, bounds=(0.5, 2.0))
    rng = np.random.default_rng(0)
    with pytest.raises(RuntimeError, match="not converged in 2 steps"):
        shrink(simulate([50], -2, 0, 1, 9, rng)[0], max_iter=2)


def test_prediction_is_the_curve_averaged_over_the_posterior():
    rng = np.random.default_rng(21)
    rate = 0.1 * np.exp(rng.normal(size=400))
    r = (rng.random((13, 400)) < np.exp(-rate * np.arange(13)[:, None])).astype(float)
    r[0] = 1
    found = shrink(r)
    t = np.array([0.0, 1.0, 5.0, 12.0])
    predicted = found.predict(t)
    u = rng.normal(size=(20_000, 1)) * found.log_sd[:20] + found.log_mean[:20]
    drawn = [np.exp(-np.exp(u) * time).mean(0) for time in t]
    np.testing.assert_allclose(predicted[:, :20], drawn, atol=0.01)
    np.testing.assert_allclose(predicted[0], 1, rtol=1e-12)
    assert (np.diff(predicted, axis=0) < 0).all()
    # Calibrated: new answers of the same samples are right as often as is said.
    truth = np.exp(-rate * t[:, None])
    np.testing.assert_allclose(predicted.mean(1), truth.mean(1), atol=0.02)
