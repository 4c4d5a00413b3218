"""Maximum likelihood against scipy, one trace at a time, and against known truth."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from retention_lib.bernoulli import maximise, profile
from retention_lib.curves import CURVES
from retention_lib.weibull import SHAPE_BOUNDS, minimise_weibull, profile_weibull

BOUNDS = (1e-4, 10.0)
LOG_BOUNDS = tuple(map(math.log, BOUNDS))
#: The curves as functions of lambda and two numbers in 0..1 (Weibull: of log k, rescaled).
SLOW = {
    "exponential": lambda t, lam, a, b: np.exp(-lam * t),
    "exponential_floor": lambda t, lam, a, b: b + (1 - b) * np.exp(-lam * t),
    "exponential_amplitude": lambda t, lam, a, b: a * (b + (1 - b) * np.exp(-lam * t)),
    "exponential_signed": lambda t, lam, a, b: b + (a - b) * np.exp(-lam * t),
    "power": lambda t, lam, a, b: (1 + t) ** -lam,
    "weibull": lambda t, lam, a, b: np.exp(-((lam * t) ** np.exp((2 * a - 1) * math.log(10)))),
}
MODELS = list(SLOW)


def tensor(x):
    return torch.as_tensor(np.asarray(x, float))


def ones(y):
    return torch.ones(len(y), 1, dtype=torch.float64)


def traces(model, n, n_epochs=30, seed=0):
    """Binary traces of decaying samples; epoch 0 right where the model says so."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.uniform(np.log(0.01), np.log(1.0), n))
    r = 0.15 + 0.75 * np.exp(-rate * np.arange(n_epochs)[:, None])
    y = (rng.random(r.shape) < r).astype(float)
    if model not in ("exponential_amplitude", "exponential_signed"):
        y[0] = 1
    return y


def slow_loglik(x, y, t, model, w=1.0):
    r = np.clip(SLOW[model](t, np.exp(x[0]), x[1], x[2]), 1e-300, 1)
    miss = np.clip(1 - r, 1e-300, 1)
    return float(np.sum(w * (y * np.log(r) + (1 - y) * np.log(miss))))


def slow_best(y, t, model, starts=(-4.0, -2.0, 0.0)) -> float:
    """The readable twin: scipy's bounded search from several starts."""
    found = [
        minimize(
            lambda x: -slow_loglik(x, y, t, model),
            (u, 0.6, 0.4),
            bounds=[LOG_BOUNDS, (0, 1), (0, 1)],
            method="L-BFGS-B",
        ).fun
        for u in starts
    ]
    return -min(found)


def by_hand(fit, model, t):
    """R (epoch, trace) from fitted parameters, through the formulas of `SLOW`."""
    a, b = (fit.c[0], fit.c[0] + fit.c[1])
    if model == "weibull":
        a = (fit.v / math.log(10) + 1) / 2
    if model == "exponential_amplitude":
        b = b / a
    return SLOW[model](t[:, None], *(x.numpy() for x in (fit.u.exp(), a, b)))


@pytest.mark.parametrize("model", MODELS)
def test_no_search_by_scipy_finds_better(model):
    y, t = traces(model, 100), np.arange(30.0)
    fit = maximise(CURVES[model], tensor(y), ones(y), tensor(t), BOUNDS)
    n = 100 if model in ("exponential", "power") else 30
    slow = [slow_best(y[:, i], t, model) for i in range(n)]
    assert (fit.loglik[:n].numpy() >= np.array(slow) - 1e-8).all()
    assert np.abs(fit.loglik[:n].numpy() - slow).max() < 0.5  # else the twin is no test
    r = by_hand(fit, model, t)
    direct = (np.log(np.where(y == 1, r, 1 - r).clip(1e-300))).sum(0)
    np.testing.assert_allclose(fit.loglik, direct, atol=1e-9)
    assert (fit.v is None) == (model != "weibull")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_no_search_by_scipy_finds_better_on_coin_flips(model):
    rng, t = np.random.default_rng(3), np.arange(30.0)
    y = (rng.random((30, 100)) < 0.5).astype(float)
    y[0] = 1
    fit = maximise(CURVES[model], tensor(y), ones(y), tensor(t), BOUNDS)
    starts = (-8.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.5)
    slow = [slow_best(y[:, i], t, model, starts) for i in range(100)]
    assert (fit.loglik.numpy() >= np.array(slow) - 1e-8).all()


@given(arrays(float, (9, 6), elements=st.sampled_from([0, 0.2, 0.5, 1])), st.sampled_from(MODELS))
@settings(max_examples=25, deadline=None)
def test_no_lambda_on_a_fine_grid_is_better(y, model):
    y[0] = 1
    curve, t = CURVES[model], tensor(np.arange(9.0))
    fit = maximise(curve, tensor(y), ones(y), t, BOUNDS)
    u = np.repeat(np.linspace(*LOG_BOUNDS, 120), 6)
    c, loglik = profile(curve, tensor(u), tensor(np.tile(y, 120)), ones(y), t)
    best = loglik.reshape(120, 6).amax(0)
    assert c.shape == (2, 720) and (best <= fit.loglik + 1e-9).all()
    assert (best > fit.loglik - 0.2).all()
    at = profile(curve, fit.u, tensor(y), ones(y), t)[1]
    np.testing.assert_allclose(at, fit.loglik, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_profile_is_the_best_of_the_rest(model):
    y, t = traces(model, 8, seed=2), np.arange(30.0)
    u = tensor(np.linspace(-5, 1, 8))
    _, loglik = profile(CURVES[model], u, tensor(y), ones(y), tensor(t))
    grid = np.linspace(0, 1, 41)
    for i in range(8):
        slow = max(slow_loglik((float(u[i]), a, b), y[:, i], t, model) for a in grid for b in grid)
        assert slow <= loglik[i] + 1e-9 and loglik[i] - slow < 0.3


def test_the_likelihood_of_one_rate_has_one_maximum():
    """L is concave in lambda, and so is the Weibull's in (k log lambda, k)."""
    y, t = tensor(traces("exponential", 50, seed=4)), tensor(np.arange(30.0))
    for rates in (np.linspace(1e-3, 3, 300), np.linspace(1e-3, 0.05, 300)):
        u = tensor(np.log(rates))[:, None].expand(-1, 50)
        curve = torch.stack([profile(CURVES["exponential"], x, y, ones(y), t)[1] for x in u])
        assert (curve[:-2] - 2 * curve[1:-1] + curve[2:] < 1e-9).all()
    u = np.linspace(*LOG_BOUNDS, 200)
    best = torch.stack(
        [profile(CURVES["weibull"], tensor(np.full(50, x)), y, ones(y), t)[1] for x in u]
    )
    falling = best[1:] < best[:-1] - 1e-9
    assert (falling.int().diff(dim=0) >= 0).all()  # up, then down: the profile has one peak


@pytest.mark.parametrize("model", MODELS)
def test_known_parameters_are_recovered(model):
    """Two thousand epochs: the truth lies within four standard deviations of the estimate."""
    rng, t, n = np.random.default_rng(5), np.linspace(0, 40, 2001), 60
    a, b = {"exponential_amplitude": (0.9, 0.3), "weibull": (0.65, 0.0)}.get(model, (0.85, 0.25))
    r = SLOW[model](t, 0.15, a, b)
    y = (rng.random((len(t), n)) < r[:, None]).astype(float)
    fit = maximise(CURVES[model], tensor(y), ones(y), tensor(t), BOUNDS)
    mean, sd = fit.u.mean(), fit.u.std()
    assert abs(mean - math.log(0.15)) < 4 * sd / math.sqrt(n) + 0.01 and sd < 0.25
    if model == "weibull":
        assert fit.v.mean() == pytest.approx(0.3 * math.log(10), abs=0.02)
    if model in ("exponential_floor", "exponential_signed"):
        assert (fit.c[0] + fit.c[1]).mean() == pytest.approx(b, abs=0.01)
    if model == "exponential_amplitude":
        assert fit.c.mean(1).tolist() == pytest.approx([0.9, -0.63], abs=0.02)


@pytest.mark.parametrize("model", MODELS)
def test_expected_outcomes_return_the_curve_itself(model):
    """With y = R the likelihood is highest at R; fractional successes are allowed."""
    t = np.arange(0.0, 25)
    r = SLOW[model](t, 0.2, 0.7, 0.3)
    fit = maximise(CURVES[model], tensor(r)[:, None], ones(r), tensor(t), BOUNDS)
    np.testing.assert_allclose(fit.u.exp(), 0.2, rtol=1e-6)
    np.testing.assert_allclose(by_hand(fit, model, t)[:, 0], r, atol=1e-7)


@pytest.mark.parametrize("model", MODELS)
def test_own_times_weights_and_order(model):
    rng, t = np.random.default_rng(6), np.arange(12.0)
    y = tensor(traces(model, 30, 12, seed=6))
    curve = CURVES[model]
    w = tensor(rng.integers(0, 4, y.shape))
    shared = maximise(curve, y, w, tensor(t), BOUNDS)
    own = maximise(curve, y, w, tensor(t)[:, None].expand(-1, 30), BOUNDS)
    order = torch.as_tensor(rng.permutation(30))
    moved = maximise(curve, y[:, order], w[:, order], tensor(t), BOUNDS)
    np.testing.assert_allclose(own.loglik, shared.loglik, atol=1e-10)
    np.testing.assert_allclose(own.u, shared.u, atol=1e-6)
    np.testing.assert_allclose(moved.loglik, shared.loglik[order], atol=1e-10)
    for i in range(5):  # a weight is that many rows; a row of weight 0 may hold anything
        rows = np.repeat(np.arange(12), w[:, i].numpy().astype(int))
        alone = maximise(curve, y[rows, i : i + 1], ones(rows), tensor(t[rows]), BOUNDS)
        np.testing.assert_allclose(alone.loglik[0], shared.loglik[i], atol=1e-9)
    holes = torch.where(w > 0, y, math.nan)
    np.testing.assert_array_equal(maximise(curve, holes, w, tensor(t), BOUNDS).u, shared.u)


def test_equal_traces_are_equal_and_share_a_fit():
    y = tensor(traces("exponential", 40, 6, seed=7))
    twice = maximise(CURVES["exponential_floor"], torch.cat([y, y], 1), ones(y), _times(6), BOUNDS)
    assert (twice.u[:40] == twice.u[40:]).all() and (twice.c[:, :40] == twice.c[:, 40:]).all()
    nudged = torch.cat([y[:1], y[1:] * (1 - 1e-14)])  # not quite 0/1: each is fitted by itself
    apart = maximise(CURVES["exponential_floor"], nudged, ones(y), _times(6), BOUNDS)
    np.testing.assert_allclose(apart.loglik, twice.loglik[:40], atol=1e-6)


def _times(n):
    return torch.arange(n, dtype=torch.float64)


def test_special_traces():
    y = tensor([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 1, 1]]).T
    low, high = LOG_BOUNDS
    for model in MODELS:
        fit = maximise(CURVES[model], y, ones(y), _times(5), BOUNDS)
        certain = model not in ("exponential_amplitude", "exponential_signed")
        # Wrong at t = 0, where R = 1: impossible, and said so.
        assert (fit.loglik[[1, 3]].isneginf() == certain).all()
        assert (fit.u[[1, 3]].isnan() == certain).all() and not fit.u[[0, 2]].isnan().any()
        assert fit.loglik[0] == pytest.approx(0, abs=2e-3)  # never wrong: nothing is forgotten
        assert fit.u[0] == pytest.approx(low)
        assert fit.loglik[2] == pytest.approx(0, abs=1e-3)
        assert fit.u[2] == pytest.approx(high) or model in ("weibull", "exponential_amplitude")
    fit = maximise(CURVES["exponential_amplitude"], y, ones(y), _times(5), BOUNDS)
    assert fit.c[:, 1].tolist() == [0, 0] and fit.u[1] == low  # a constant: lambda is free
    assert fit.c[:, 3].tolist() == pytest.approx([0.8, 0]) and fit.u[3] == low
    signed = maximise(CURVES["exponential_signed"], y, ones(y), _times(5), BOUNDS)
    assert signed.loglik[3] > -1e-2 and signed.c[1, 3] == pytest.approx(1)


def test_values_outside_the_unit_interval_are_quoted():
    for bad, said in ((1.5, "got 0.0 to 1.5"), (-1.0, "got -1.0 to 1.0"), (math.nan, "nan")):
        y = tensor([[1.0, bad, 0.0]]).T
        with pytest.raises(ValueError, match=said):
            maximise(CURVES["power"], y, ones(y), _times(3), BOUNDS)


# Weibull by least squares: two nonlinear parameters, no concavity to lean on.


def slow_weibull(y, t) -> float:
    """A dense grid of starts, each polished by scipy."""

    def sse(x):
        return ((y - np.exp(-((np.exp(x[0]) * t) ** np.exp(x[1])))) ** 2).sum()

    limits = [LOG_BOUNDS, tuple(map(math.log, SHAPE_BOUNDS))]
    u, v = np.meshgrid(np.linspace(*limits[0], 60), np.linspace(*limits[1], 15), indexing="ij")
    with np.errstate(over="ignore"):
        r = np.exp(-((np.exp(u)[..., None] * t) ** np.exp(v)[..., None]))
    order = np.argsort(((y - r) ** 2).sum(-1), axis=None)[[0, 1, 2, 5, 9]]
    starts = np.stack([u.ravel()[order], v.ravel()[order]], 1)
    return min(minimize(sse, x, bounds=limits, method="L-BFGS-B").fun for x in starts)


@pytest.mark.parametrize("kind", ["binary", "coin", "smooth"])
def test_weibull_by_least_squares_is_the_global_minimum(kind):
    rng, t, n = np.random.default_rng(8), np.arange(20.0), 40
    r = np.exp(-((rng.uniform(0.03, 0.4, n) * t[:, None]) ** rng.uniform(0.5, 4, n)))
    y = {
        "binary": (rng.random(r.shape) < r).astype(float),
        "coin": (rng.random(r.shape) < 0.5).astype(float),
        "smooth": np.clip(r + rng.normal(0, 0.1, r.shape), 0, 1),
    }[kind]
    fit = minimise_weibull(tensor(y), ones(y), tensor(t), BOUNDS)
    slow = np.array([slow_weibull(y[:, i], t) for i in range(n)])
    assert (fit.sse.numpy() <= slow * (1 + 1e-9)).all()
    x = (fit.u.exp().numpy() * t[:, None]) ** fit.v.exp().numpy()
    np.testing.assert_allclose(fit.sse, ((y - np.exp(-x)) ** 2).sum(0), rtol=1e-9)
    own = minimise_weibull(tensor(y), ones(y), tensor(t)[:, None].expand(-1, n), BOUNDS)
    np.testing.assert_allclose(own.sse, fit.sse, rtol=1e-10)
    v, sse = profile_weibull(fit.u, tensor(y), ones(y), tensor(t))
    np.testing.assert_allclose(sse, fit.sse, rtol=1e-9)
    assert v.shape == (n,)


def test_weibull_recovers_what_it_drew():
    t, rate, shape = np.arange(25.0), np.array([0.05, 0.2, 0.1]), np.array([0.5, 1.5, 6.0])
    y = np.exp(-((rate * t[:, None]) ** shape))
    fit = minimise_weibull(tensor(y), ones(y), tensor(t), BOUNDS)
    np.testing.assert_allclose(fit.u.exp(), rate, rtol=1e-6)
    np.testing.assert_allclose(fit.v.exp(), shape, rtol=1e-6)
    assert fit.c.tolist() == [[1, 1, 1], [-1, -1, -1]] and (fit.sse < 1e-15).all()
    weights = tensor(np.random.default_rng(0).integers(1, 3, y.shape))
    noisy = np.clip(y + np.random.default_rng(1).normal(0, 0.1, y.shape), 0, 1)
    fit = minimise_weibull(tensor(noisy), weights, tensor(t), BOUNDS)
    for i in range(3):
        rows = np.repeat(np.arange(25), weights[:, i].numpy().astype(int))
        alone = minimise_weibull(
            tensor(noisy[rows, i : i + 1]), ones(rows), tensor(t[rows]), BOUNDS
        )
        np.testing.assert_allclose(alone.sse[0], fit.sse[i], rtol=1e-9)
