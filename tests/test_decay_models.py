"""All models and losses of `fit_decay` against scipy, and what it says of each trace."""

import numpy as np
import pytest
from scipy.optimize import minimize

from retention_lib import ebbinghaus
from retention_lib.config import LITERAL, RETENTION
from retention_lib.convention import retention_trace
from retention_lib.decay import LAMBDA_BOUNDS, LOSSES, MODELS, Status, fit_decay
from retention_lib.step import change_point

T = np.arange(31.0)
LOG = np.log(LAMBDA_BOUNDS)
#: R(t) and the limits of its parameters, in a form that a box can hold.
TWINS = {
    "exponential": (lambda p, t: np.exp(-np.exp(p[0]) * t), [LOG]),
    "exponential_floor": (
        lambda p, t: p[1] + (1 - p[1]) * np.exp(-np.exp(p[0]) * t),
        [LOG, (0, 1)],
    ),
    "exponential_amplitude": (  # R(0) = p1, R(inf) = p1 p2
        lambda p, t: p[1] * (p[2] + (1 - p[2]) * np.exp(-np.exp(p[0]) * t)),
        [LOG, (0, 1), (0, 1)],
    ),
    "exponential_signed": (
        lambda p, t: p[2] + (p[1] - p[2]) * np.exp(-np.exp(p[0]) * t),
        [LOG, (0, 1), (0, 1)],
    ),
    "power": (lambda p, t: (1 + t) ** -np.exp(p[0]), [LOG]),
    "weibull": (
        lambda p, t: np.exp(-((np.exp(p[0]) * t) ** np.exp(p[1]))),
        [LOG, np.log([0.1, 10])],
    ),
}


def traces(kind: str, n: int, seed: int = 0) -> np.ndarray:
    """Binary or smooth traces that start right, decay to a floor, and sometimes rise."""
    rng = np.random.default_rng(seed)
    rate, floor = np.exp(rng.uniform(-4, 0.5, n)), rng.uniform(0, 0.9, n)
    p = floor + (1 - floor) * np.exp(-rate * T[:, None])
    p = np.where(rng.random(n) < 0.3, p[::-1], p)
    y = rng.random(p.shape) < p if kind == "binary" else p + rng.normal(0, 0.05, p.shape)
    y = np.clip(y.astype(float), 0, 1)
    y[0] = 1.0  # of a curve with R(0) = 1 anything else has likelihood zero
    return y


def objective(model: str, loss: str, y: np.ndarray):
    curve = TWINS[model][0]

    def value(p) -> float:
        r = curve(p, T)
        if loss == "least_squares":
            return float(((y - r) ** 2).sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(y > 0, y * np.log(r), 0) + np.where(y < 1, (1 - y) * np.log1p(-r), 0)
        return float(min(-found.sum(), 1e6)) if not np.isnan(found.sum()) else 1e6

    return value


def scipys(model: str, loss: str, y: np.ndarray, rng, starts: int = 6) -> float:
    """The slow twin: the best of several bounded searches."""
    limits = np.array(TWINS[model][1], float)
    value = objective(model, loss, y)
    found = []
    for _ in range(starts):
        first = rng.uniform(*limits.T) * 0.98 + 0.01 * limits.sum(1)
        found.append(minimize(value, first, bounds=limits, method="L-BFGS-B").fun)
    return min(found)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", list(TWINS))
def test_no_scipy_search_finds_a_better_curve(model, loss):
    rng = np.random.default_rng(3)
    for kind in ("binary", "smooth"):
        y = traces(kind, 12, seed=5)
        fit = fit_decay(y, model=model, loss=loss)
        ours = fit.sse if loss == "least_squares" else -fit.log_likelihood
        slow = np.array([scipys(model, loss, y[:, i], rng) for i in range(12)])
        assert (ours <= slow * (1 + 1e-6) + 1e-9).all()
        own = [objective(model, loss, y[:, i])(packed(fit, i)) for i in range(12)]
        np.testing.assert_allclose(own, ours, rtol=1e-6, atol=1e-9)


def packed(fit, i: int) -> list[float]:
    """The parameters of one fit in the form of its twin."""
    p = {name: values[i] for name, values in fit.params.items()}
    u = np.log(p["exponent"] if fit.model == "power" else p["decay_constant"])
    if fit.model == "weibull":
        return [u, np.log(p["shape"])]
    if "amplitude" in p:
        start, floor = p["floor"] + p["amplitude"], p["floor"]
        share = floor / start if start > 0 else 0.0
        return [u, start, floor if fit.model == "exponential_signed" else share]
    return [u, p["floor"]] if "floor" in p else [u]


@pytest.mark.parametrize("loss", LOSSES)
def test_change_point_tries_every_place(loss):
    y = traces("binary", 40, seed=8)
    fit = fit_decay(y, model="change_point", loss=loss)
    for i in range(40):
        best = np.inf
        for k in range(1, 31):
            parts = y[:k, i], y[k:, i]
            if loss == "least_squares":
                value = sum(((x - x.mean()) ** 2).sum() for x in parts)
            else:
                rates = [np.where(x == 1, x.mean(), 1 - x.mean()) for x in parts]
                value = -sum(np.log(rate).sum() for rate in rates)
            if value < best - 1e-9:
                best, place = value, k
        ours = fit.sse if loss == "least_squares" else -fit.log_likelihood
        np.testing.assert_allclose(ours[i], best, atol=1e-9)
        np.testing.assert_allclose(fit.params["change"][i], place)
        np.testing.assert_allclose(
            fit.predict(T)[:, i], np.where(T < place, y[:place, i].mean(), y[place:, i].mean())
        )


def test_change_point_needs_weight_on_both_sides():
    import torch

    y = torch.tensor([[1.0], [1.0], [0.0], [0.0]], dtype=torch.float64)
    t = torch.arange(4, dtype=torch.float64)
    w = torch.tensor([[1.0], [0.0], [0.0], [1.0]], dtype=torch.float64)
    change, before, after, loss = change_point(y, w, t, "least_squares")
    assert [float(x) for x in (change, before, after, loss)] == [3, 1, 0, 0]
    nothing = change_point(y, torch.tensor([[1.0], [0], [0], [0]]).double(), t, "least_squares")
    assert all(bool(x.isnan()) for x in nothing)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", list(MODELS))
def test_weights_of_two_are_rows_twice_and_of_zero_none(model, loss):
    y = traces("binary", 20, seed=2)
    weights = np.ones_like(y)
    weights[5:9] = 2
    weights[20:] = 0
    found = fit_decay(y, model=model, loss=loss, weights=weights)
    rows = [*range(5), *np.repeat(range(5, 9), 2), *range(9, 20)]
    # Equal times are not allowed in a grid; the same number is reached by the weights alone.
    shared = fit_decay(y, model=model, loss=loss, weights=weights[:, 0])
    np.testing.assert_allclose(found.sse, shared.sse, rtol=1e-9)
    residual = y[rows] - found.predict(np.array(rows, float))
    np.testing.assert_allclose(found.sse, (residual**2).sum(0), rtol=1e-9, atol=1e-12)
    cut = fit_decay(y[:20], model=model, loss=loss, weights=weights[:20])
    np.testing.assert_allclose(cut.sse, found.sse, rtol=1e-9)
    assert (found.n_epochs == 20).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", list(MODELS))
def test_times_per_trace_are_times_shared_where_they_coincide(model, loss):
    y = traces("binary", 15, seed=4)
    grid = np.sort(np.random.default_rng(0).uniform(0, 20, 31))
    grid[0] = 0
    shared = fit_decay(y, grid, model=model, loss=loss)
    own = fit_decay(y, np.repeat(grid[:, None], 15, 1), model=model, loss=loss)
    np.testing.assert_allclose(own.sse, shared.sse, rtol=1e-7)
    np.testing.assert_allclose(own.log_likelihood, shared.log_likelihood, rtol=1e-7)
    assert (own.status == shared.status).all()
    stretched = fit_decay(y, 2 * np.repeat(grid[:, None], 15, 1), model="exponential", loss=loss)
    half = fit_decay(y, grid, model="exponential", loss=loss).decay_constant / 2
    free = stretched.status == Status.OK
    np.testing.assert_allclose(stretched.decay_constant[free], half[free], rtol=1e-5)


def test_equal_binary_traces_share_one_fit_and_nothing_else_changes():
    rng = np.random.default_rng(6)
    kinds = rng.random((9, 12)) < 0.7
    kinds[0] = True
    y = kinds[:, rng.integers(12, size=300)]
    mask = np.ones_like(y)
    mask[6:, ::2] = False
    for loss in LOSSES:
        whole = fit_decay(y, mask=mask, model="exponential_floor", loss=loss, level=0.9)
        alone = [
            fit_decay(y[:, [i]], mask=mask[:, [i]], model="exponential_floor", loss=loss, level=0.9)
            for i in range(10)
        ]
        for name in ("sse", "decay_low", "decay_high", "status", "n_epochs", "decay_constant"):
            parts = np.concatenate([getattr(f, name) for f in alone])
            np.testing.assert_allclose(getattr(whole, name)[:10], parts, rtol=1e-7, err_msg=name)


def test_never_forgotten_is_an_upper_bound_and_wrong_at_the_origin_a_contradiction():
    y = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]).T
    fit = fit_decay(y, loss="bernoulli", level=0.9)
    names = [Status(s).name for s in fit.status]
    assert names == ["CENSORED", "OK", "CONTRADICTED", "NEVER_LEARNED"]
    assert fit.decay_low[0] == 0
    np.testing.assert_allclose(fit.decay_high[0], -np.log(0.1) / 6, rtol=1e-12)
    assert 0 < fit.decay_low[1] < fit.decay_constant[1] < fit.decay_high[1] < 10
    assert np.isnan(fit.decay_constant[2]) and np.isnan(fit.log_likelihood[2])
    assert fit_decay(y, model="exponential_floor", loss="bernoulli").decay_high[0] == np.inf
    power = fit_decay(y, model="power", loss="bernoulli").decay_high[0]
    np.testing.assert_allclose(power, -np.log(0.05) / np.log([1, 2, 3, 4]).sum(), rtol=1e-12)


def test_retention_convention_end_to_end():
    correct = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]], bool)
    r, mask = retention_trace(correct.T, RETENTION)
    fit = fit_decay(r, mask=mask, loss=RETENTION.loss)
    assert [Status(s).name for s in fit.status] == ["OK", "CENSORED", "EXCLUDED", "TOO_SHORT"]
    # Right at t = 0, 1 and 3, wrong at 2: 4 lambda = 2 lambda / (1 - exp(-2 lambda)) - 2 lambda...
    lam = np.linspace(0.01, 3, 300_000)
    by_hand = lam[np.argmax(-lam - 3 * lam + np.log(-np.expm1(-2 * lam)))]
    np.testing.assert_allclose(fit.decay_constant[0], by_hand, rtol=1e-4)
    assert LITERAL.loss == "least_squares"


def test_level_curves_leave_lambda_unidentified():
    y = np.array([0.6, 0.4, 0.6, 0.4, 0.6, 0.4])[:, None]
    rising = fit_decay(np.linspace(0, 1, 12)[:, None], model="exponential_amplitude")
    assert rising.status[0] == Status.UNIDENTIFIED and rising.params["amplitude"][0] == 0
    signed = fit_decay(np.linspace(0, 1, 12)[:, None], model="exponential_signed")
    assert signed.rises[0] and signed.params["amplitude"][0] < 0
    assert "100% rise" in repr(signed)
    assert fit_decay(y, model="exponential_signed").sse[0] <= 0.06 + 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_information_criterion_by_hand(loss):
    y = traces("binary", 10, seed=11)
    fit = fit_decay(y, model="exponential_floor", loss=loss)
    if loss == "least_squares":
        log_likelihood, k = -0.5 * 31 * (np.log(2 * np.pi * fit.sse / 31) + 1), 3
    else:
        r = fit.predict(T)
        log_likelihood, k = np.where(y == 1, np.log(r), np.log1p(-np.minimum(r, 1 - 1e-12))), 2
        log_likelihood = log_likelihood.sum(0)
    np.testing.assert_allclose(fit.log_likelihood, log_likelihood, rtol=1e-6)
    aicc = 2 * k - 2 * log_likelihood + 2 * k * (k + 1) / (31 - k - 1)
    np.testing.assert_allclose(fit.aicc, aicc, rtol=1e-6)


def test_intervals_hold_the_estimate_and_standard_errors_their_place():
    y = traces("binary", 60, seed=12)
    for loss in LOSSES:
        fit = fit_decay(y, model="exponential_floor", loss=loss, level=0.95)
        ok = fit.status == Status.OK
        assert ok.sum() > 20
        assert (fit.decay_low[ok] <= fit.decay_constant[ok]).all()
        assert (fit.decay_high[ok] >= fit.decay_constant[ok]).all()
        assert set(fit.se) == {"decay_constant", "floor"}
        assert np.isnan(fit.se["decay_constant"][~ok]).all()
        assert "decay_constant_se" in fit.to_frame()
    assert fit_decay(y).se == {}


def test_ebbinghaus_by_every_model():
    table = ebbinghaus.compare().set_index("model")
    assert set(table.index) == {*MODELS, "own formula of 1885"}
    value = ((ebbinghaus.SAVINGS - ebbinghaus.own_formula(ebbinghaus.HOURS)) ** 2).sum()
    np.testing.assert_allclose(table.loc["own formula of 1885", "sse"], value)
    minutes = np.array([20, 64, 526, 1440, 2880, 8640, 44640])  # as he gives them himself
    calculated = [0.570, 0.467, 0.345, 0.304, 0.281, 0.249, 0.212]
    np.testing.assert_allclose(ebbinghaus.own_formula(minutes / 60), calculated, atol=0.001)
    bounds = np.log(ebbinghaus.BOUNDS)
    for model in ("exponential", "exponential_floor", "exponential_amplitude", "power", "weibull"):
        curve, limits = TWINS[model]
        limits = np.array([bounds, *limits[1:]], float)
        rng, best = np.random.default_rng(1), np.inf
        for _ in range(60):

            def loss(p, curve=curve):
                return ((ebbinghaus.SAVINGS - curve(p, ebbinghaus.HOURS)) ** 2).sum()

            found = minimize(loss, rng.uniform(*limits.T), bounds=limits, method="L-BFGS-B")
            best = min(best, found.fun)
        np.testing.assert_allclose(table.loc[model, "sse"], best, rtol=1e-5)
    assert table.loc["exponential", "r2"] < 0 < table.loc["weibull", "r2"]
    hours = fit_decay(ebbinghaus.SAVINGS[:, None], ebbinghaus.HOURS, model="power")
    minutes = fit_decay(ebbinghaus.SAVINGS[:, None], 60 * ebbinghaus.HOURS, model="power")
    assert hours.r2[0] < 0 < minutes.r2[0]  # (1 + t)^-b hides a unit of time
