"""Standard errors and profile intervals against slow twins, scipy and simulations."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from retention_lib import bernoulli
from retention_lib.curves import CURVES
from retention_lib.errors import standard_errors
from retention_lib.uncertainty import (
    likelihood_drop,
    never_forgotten_bound,
    profile_interval,
    squares_drop,
    t_quantile,
)
from retention_lib.weibull import minimise_weibull, profile_weibull

BOUNDS = (1e-4, 10.0)
LOG_BOUNDS = tuple(map(math.log, BOUNDS))


def tensor(x):
    return torch.as_tensor(np.asarray(x, float))


def draw(r, n, seed=0):
    rng = np.random.default_rng(seed)
    y = tensor(rng.random((len(r), n)) < np.asarray(r)[:, None])
    return y, torch.ones(len(r), 1, dtype=torch.float64)


def interval_of(curve, y, w, t, level=0.95):
    fit = bernoulli.maximise(curve, y, w, t, BOUNDS)
    return fit, profile_interval(
        lambda u: bernoulli.profile(curve, u, y, w, t)[1],
        fit.u,
        fit.loglik,
        likelihood_drop(level),
        BOUNDS,
    )


def slow_floor_sse(u, y, t):
    """Least squares for 1 - g p at given log lambda (trace,), g clipped to 0..1."""
    p = -torch.expm1(-t[:, None] * u.exp())
    g = ((p * (1 - y)).sum(0) / (p * p).sum(0)).clamp(0, 1)
    return ((y - 1 + g * p) ** 2).sum(0), g


def test_quantiles_agree_with_scipy():
    for level in (0.5, 0.9, 0.95, 0.999):
        assert likelihood_drop(level) == pytest.approx(stats.chi2.ppf(level, 1) / 2, rel=1e-12)
        for m in (1, 2, 3, 4, 9, 28, 29, 120, 500):
            expected = stats.t.ppf((1 + level) / 2, m)
            assert t_quantile(level, m) == pytest.approx(expected, rel=1e-9)
    sse, n = tensor([2.0, 2.0, 2.0]), torch.tensor([12, 3, 2])
    drop = squares_drop(sse, n, 2, 0.9)
    assert drop[0] == pytest.approx(2 * stats.f.ppf(0.9, 1, 10) / 10)
    assert drop[1] == pytest.approx(2 * stats.f.ppf(0.9, 1, 1)) and drop[2].isnan()
    for call in (likelihood_drop, lambda x: t_quantile(x, 3)):
        with pytest.raises(ValueError, match="between 0 and 1, got 95"):
            call(95)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        t_quantile(0.9, 0)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["exponential", "exponential_floor", "exponential_amplitude"])
def test_intervals_agree_with_a_dense_grid(model):
    t, n = torch.arange(25, dtype=torch.float64), 25
    y, w = draw(0.2 + 0.7 * np.exp(-0.15 * t.numpy()), n, seed=1)
    y[0] = 1
    curve = CURVES[model]
    fit, (low, high) = interval_of(curve, y, w, t)
    grid = np.linspace(*LOG_BOUNDS, 1500)
    loglik = bernoulli.profile(curve, tensor(np.repeat(grid, n)), y.repeat(1, len(grid)), w, t)[1]
    inside = (loglik.reshape(-1, n) >= fit.loglik - stats.chi2.ppf(0.95, 1) / 2).numpy()
    for i in range(n):
        first, last = np.flatnonzero(inside[:, i])[[0, -1]]
        if first == 0:
            assert low[i] == 0
        else:
            assert grid[first - 1] - 1e-7 <= math.log(low[i]) <= grid[first] + 1e-7
        if last == len(grid) - 1:
            assert high[i] == math.inf
        else:
            assert grid[last] - 1e-7 <= math.log(high[i]) <= grid[last + 1] + 1e-7
    assert (low > 0).any() and high.isfinite().any()


def test_the_interval_of_a_profile_with_two_peaks_is_the_hull():
    def profile(u):  # peaks of 0 at -1 and of -0.5 at 2, a valley of about -5 between them
        return torch.maximum(-10 * (u + 1) ** 2, -0.5 - 10 * (u - 2) ** 2).clamp_min(-5)

    u, best = tensor([-1.0]), tensor([0.0])
    low, high = profile_interval(profile, u, best, 1.0, BOUNDS)
    assert float(low.log()) == pytest.approx(-1 - math.sqrt(0.1), abs=1e-6)
    assert float(high.log()) == pytest.approx(2 + math.sqrt(0.05), abs=1e-6)
    alone = profile_interval(profile, u, best, 0.4, BOUNDS)
    assert float(alone[1].log()) == pytest.approx(-1 + math.sqrt(0.04), abs=1e-6)


def test_open_ends_steps_and_missing_estimates():
    u = tensor([LOG_BOUNDS[0], 0.0, LOG_BOUNDS[1], math.nan])
    low, high = profile_interval(lambda x: -((x - u) ** 2), u, 0 * u, 0.01, BOUNDS)
    np.testing.assert_allclose(low, [0, math.exp(-0.1), 10 * math.exp(-0.1), math.nan], rtol=1e-6)
    np.testing.assert_allclose(high, [1e-4 * math.exp(0.1), math.exp(0.1), math.inf, math.nan])
    cliff = profile_interval(
        lambda x: torch.where(x.abs() < 0.123, 0.0, -math.inf),
        tensor([0.0]),
        tensor([0.0]),
        1,
        BOUNDS,
    )
    assert [float(x.log()) for x in cliff] == pytest.approx([-0.123, 0.123], abs=1e-6)
    narrow = profile_interval(lambda x: -(1e6 * x**2), tensor([0.0]), tensor([0.0]), 1, BOUNDS)
    assert [float(x.log()) for x in narrow] == pytest.approx([-1e-3, 1e-3], abs=1e-7)


def test_coverage_of_the_likelihood_interval():
    """30 epochs, lambda 0.1, exponential: 95 % within three binomial standard errors."""
    n, t = 4000, torch.arange(1, 31, dtype=torch.float64)
    y, w = draw(np.exp(-0.1 * t.numpy()), n, seed=2)
    _, (low, high) = interval_of(CURVES["exponential"], y, w, t)
    covered = ((low <= 0.1) & (high >= 0.1)).double().mean()
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / n) + 0.01
    narrow, wide = interval_of(CURVES["exponential"], y[:, :50], w, t, 0.5)[1]
    assert (low[:50] < narrow).all() and (wide < high[:50]).all()


@pytest.mark.slow
def test_coverage_of_the_least_squares_interval():
    """Normal noise, floor to be estimated: the F interval covers as it says."""
    rng, n, t = np.random.default_rng(3), 2000, torch.arange(30, dtype=torch.float64)
    truth = 0.3 + 0.7 * np.exp(-0.1 * t.numpy())
    y = tensor(truth[:, None] + rng.normal(0, 0.1, (30, n)))
    grid = torch.linspace(*LOG_BOUNDS, 400, dtype=torch.float64)
    u = torch.stack([slow_floor_sse(x.expand(n), y, t)[0] for x in grid]).argmin(0)
    u = grid[u]
    for _ in range(60):  # a coordinate search is enough for a twin
        step = tensor(0.03 * 0.8**_)
        candidates = torch.stack([u - step, u, u + step])
        sse = torch.stack([slow_floor_sse(x, y, t)[0] for x in candidates])
        u = candidates.gather(0, sse.argmin(0)[None])[0]
    best, g = slow_floor_sse(u, y, t)
    drop = squares_drop(best, torch.tensor(30), 2, 0.95)
    low, high = profile_interval(lambda x: -slow_floor_sse(x, y, t)[0], u, -best, drop, BOUNDS)
    covered = ((low <= 0.1) & (high >= 0.1)).double().mean()
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / n)
    # The standard errors agree with the spread of the estimates.
    c, w = torch.stack([torch.ones_like(g), -g]), torch.ones(30, 1, dtype=torch.float64)
    se = standard_errors(CURVES["exponential_floor"], u, None, c, w, t, BOUNDS, sse=best)
    assert float(se["decay_constant"].median()) == pytest.approx(float(u.exp().std()), rel=0.1)
    assert float(se["floor"].nanmedian()) == pytest.approx(float(g.std()), rel=0.15)


def test_the_never_forgotten_bound_is_exact():
    t = torch.arange(12, dtype=torch.float64)[:, None]
    w = torch.ones(12, 2, dtype=torch.float64)
    w[6:, 1] = 0
    for level in (0.5, 0.95):
        bound = never_forgotten_bound(w, t, level)
        all_right = torch.exp(-bound * (w * t).sum(0))
        np.testing.assert_allclose(all_right, 1 - level, rtol=1e-12)
    assert never_forgotten_bound(0 * w, t, 0.9).isinf().all()
    # A slightly larger lambda leaves more than 95 % of traces with an error.
    rng = np.random.default_rng(4)
    rate = float(never_forgotten_bound(w, t, 0.95)[0])
    clean = (rng.random((12, 40000)) < np.exp(-rate * t.numpy())).all(0).mean()
    assert abs(clean - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 40000)


CASES = [
    ("exponential", (1.0, 0.0), {}),
    ("power", (1.0, 0.0), {}),
    ("exponential_floor", (1.0, 0.3), {}),
    ("exponential_amplitude", (0.8, 0.2), {}),
    ("exponential_signed", (0.2, 0.8), {}),
    ("weibull", (1.0, 0.0), {"shape": 1.5}),
]


@pytest.mark.slow
@pytest.mark.parametrize("model, ab, extra", CASES, ids=[case[0] for case in CASES])
def test_bias_and_standard_errors_over_replicates(model, ab, extra):
    """Little bias, and the errors say how estimates vary: one or two parameters from 200 epochs.

    Three from 200 are not yet normal: the spread of lambda is then 1.4 times the error.
    """
    curve, rate = CURVES[model], 0.1
    n, n_epochs = (400, 200) if curve.n_params < 3 else (150, 3000)
    t = torch.linspace(0, 40, n_epochs, dtype=torch.float64)
    x = (rate * curve.clock(t)) ** extra.get("shape", 1.0)
    y, w = draw(ab[0] * torch.exp(-x) - ab[1] * torch.expm1(-x), n, seed=5)
    if ab[0] == 1:
        y[0] = 1  # R(0) = 1 exactly
    fit = bernoulli.maximise(curve, y, w, t, BOUNDS)
    se = standard_errors(curve, fit.u, fit.v, fit.c, w, t, BOUNDS)
    found = {"decay_constant": fit.u.exp(), "floor": fit.c.sum(0), "amplitude": -fit.c[1]}
    truth = {"decay_constant": rate, "floor": ab[1], "amplitude": ab[0] - ab[1]} | extra
    if model == "weibull":
        found["shape"] = fit.v.exp()
    assert len(se) == curve.n_params
    for name, error in se.items():
        known = ~error.isnan()
        assert known.double().mean() > 0.97
        value, spread = found[name][known], float(found[name][known].std())
        assert abs(float(value.median()) - truth[name]) < 0.35 * spread
        assert float(error.nanmedian()) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("model, ab, extra", CASES, ids=[case[0] for case in CASES])
def test_standard_errors_agree_with_numerical_derivatives(model, ab, extra):
    """The information in (lambda, floor, amplitude) or (lambda, shape), by finite differences."""
    curve, t = CURVES[model], np.arange(1.0, 40)
    names = {1: [], 2: ["floor"], 3: ["floor", "amplitude"]}[curve.n_params]
    theta = [0.13, *({"floor": ab[1], "amplitude": ab[0] - ab[1]}[k] for k in names)]
    if extra:
        names, theta = ["shape"], [0.13, 1.5]

    def r(theta):
        x = theta[0] * curve.clock(tensor(t)).numpy()
        if curve.shaped:
            return np.exp(-(x ** theta[1]))
        floor = theta[1] if len(theta) > 1 else 0.0
        return floor + (theta[2] if len(theta) > 2 else 1 - floor) * np.exp(-x)

    step = 1e-6 * np.eye(len(theta))
    jacobian = np.stack([(r(theta + h) - r(theta - h)) / 2e-6 for h in step])
    weight = np.arange(len(t)) % 3
    info = jacobian * (weight / (r(theta) * (1 - r(theta)))) @ jacobian.T
    v = tensor([math.log(1.5)]) if curve.shaped else None
    c = tensor([[1.0], [-1.0]] if curve.shaped else [[ab[0]], [ab[1] - ab[0]]])
    args = curve, tensor([math.log(0.13)]), v, c, tensor(weight)[:, None], tensor(t), BOUNDS
    for sse, expected in (
        (None, np.linalg.inv(info)),
        (tensor([1.7]), np.linalg.inv(jacobian * weight @ jacobian.T) * 1.7 / (26 - len(theta))),
    ):
        se = standard_errors(*args, sse=sse)
        assert list(se) == ["decay_constant", *names]
        ours = [float(x[0]) for x in se.values()]
        np.testing.assert_allclose(ours, np.sqrt(np.diag(expected)), rtol=1e-5)


def test_parameters_at_a_limit_have_no_standard_error():
    t, w = torch.arange(10, dtype=torch.float64), torch.ones(10, 1, dtype=torch.float64)

    def se(model, lam, a, b):
        c = tensor([a, np.subtract(b, a)])
        u = tensor(np.log(lam))
        out = standard_errors(CURVES[model], u, None, c, w, t, BOUNDS)
        return {k: x.isnan().tolist() for k, x in out.items()} | {"values": out}

    plain = se("exponential", [1e-4, 0.2, 10], [1, 1, 1], [0, 0, 0])
    assert plain["decay_constant"] == [True, False, True]
    floor = se("exponential_floor", [0.2, 0.2, 1e-4], [1, 1, 1], [0, 1, 0.3])
    assert floor["floor"] == [True, True, False]
    assert floor["decay_constant"] == [False, True, True]  # with nothing to lose, lambda is free
    held = floor["values"]["decay_constant"][0]  # floor held at 0: as if it were not there
    np.testing.assert_allclose(held, plain["values"]["decay_constant"][1])
    # Corners: R(0) = 1; R(inf) = 0; both; a constant.
    three = se("exponential_amplitude", [0.2] * 4, [1, 0.8, 1, 0.5], [0.3, 0, 0, 0.5])
    assert three["floor"] == [False, True, True, False]
    assert three["amplitude"] == [False, False, True, True]
    assert three["decay_constant"] == [False, False, False, True]
    segment = se("exponential_floor", [0.2], [1], [0.3])["values"]
    for name in ("floor", "decay_constant"):  # R(0) held at 1: as for the curve with a floor
        np.testing.assert_allclose(three["values"][name][0], segment[name][0])
    mean = three["values"]["floor"][3]  # of ten coin flips
    np.testing.assert_allclose(mean, math.sqrt(0.25 / 10))


def test_too_few_epochs_have_no_least_squares_error():
    args = CURVES["exponential"], tensor([-1.0]), None, tensor([[1.0], [-1.0]])
    t = torch.arange(2, dtype=torch.float64)
    for w, known in (([1.0, 1.0], True), ([0.0, 1.0], False)):
        w = tensor(w)[:, None]
        se = standard_errors(*args, w, t, BOUNDS, sse=tensor([0.1]))["decay_constant"]
        assert bool(se.isfinite()) == known
    one = CURVES["exponential_floor"], tensor([-1.0]), None, tensor([[1.0], [-0.5]])
    se = standard_errors(*one, tensor([[1.0]]), t[1:], BOUNDS)
    assert se["decay_constant"].isnan() and se["floor"].isnan()  # one observation, two parameters


@pytest.mark.slow
def test_weibull_least_squares_interval_holds_the_truth():
    rng, t, n = np.random.default_rng(6), torch.arange(20, dtype=torch.float64), 120
    truth = torch.exp(-((0.12 * t) ** 1.6))
    y = truth[:, None] + tensor(rng.normal(0, 0.08, (20, n)))
    w = torch.ones(20, 1, dtype=torch.float64)
    fit = minimise_weibull(y, w, t, BOUNDS)
    low, high = profile_interval(
        lambda u: -profile_weibull(u, y, w, t)[1],
        fit.u,
        -fit.sse,
        squares_drop(fit.sse, torch.tensor(20), 2, 0.95),
        BOUNDS,
    )
    covered = ((low <= 0.12) & (high >= 0.12)).double().mean()
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / n)
    se = standard_errors(CURVES["weibull"], fit.u, fit.v, fit.c, w, t, BOUNDS, sse=fit.sse)
    assert float(se["shape"].median()) == pytest.approx(float(fit.v.exp().std()), rel=0.2)
