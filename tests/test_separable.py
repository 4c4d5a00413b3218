"""The separable solver against certified values, scipy, a readable twin and sampled curves."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares, minimize_scalar

from retention_lib.curves import CURVES, basis
from retention_lib.separable import SPACING, minimise, profile

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
MODELS = ("exponential", "exponential_floor", "exponential_amplitude", "exponential_signed")
BOUNDS = (1e-4, 10.0)
T = np.arange(30.0)

#: NIST Statistical Reference Datasets, nonlinear regression: y, x.
MISRA1 = (
    "10.07 14.73 17.94 23.93 29.61 35.18 40.02 44.82 50.76 55.05 61.01 66.40 75.47 81.78",
    "77.6 114.9 141.1 190.8 239.9 289.0 332.8 378.4 434.8 477.3 536.8 593.1 689.1 760.0",
)
BOXBOD = ("109 149 149 191 213 224", "1 2 3 5 7 10")
DANWOOD = ("2.138 3.421 3.597 4.340 4.882 5.660", "1.309 1.471 1.490 1.565 1.611 1.680")
#: Data, y / b1 for b2 = exp(u), search range of b2, certified b1, b2 and residual sum of squares.
NIST = {
    "Misra1a": (
        MISRA1,
        lambda x, u: [-torch.expm1(-u.exp() * x)],
        (1e-6, 1.0),
        (2.3894212918e02, 5.5015643181e-04, 1.2455138894e-01),
    ),
    "Misra1b": (
        MISRA1,
        lambda x, u: [1 - (1 + u.exp() * x / 2) ** -2],
        (1e-6, 1.0),
        (3.3799746163e02, 3.9039091287e-04, 7.5464681533e-02),
    ),
    "Misra1c": (
        MISRA1,
        lambda x, u: [1 - (1 + 2 * u.exp() * x) ** -0.5],
        (1e-6, 1.0),
        (6.3642725809e02, 2.0813627256e-04, 4.0966836971e-02),
    ),
    "Misra1d": (
        MISRA1,
        lambda x, u: [u.exp() * x / (1 + u.exp() * x)],
        (1e-6, 1.0),
        (4.3736970754e02, 3.0227324449e-04, 5.6419295283e-02),
    ),
    "BoxBOD": (
        BOXBOD,
        lambda x, u: [-torch.expm1(-u.exp() * x)],
        (1e-3, 1e2),
        (2.1380940889e02, 5.4723748542e-01, 1.1680088766e03),
    ),
    "DanWood": (
        DANWOOD,
        lambda x, u: [x ** u.exp()],
        (0.1, 20.0),
        (7.6886226176e-01, 3.8604055871e00, 4.3173084083e-03),
    ),
}


def traces(kind: str, n: int, seed: int = 0) -> np.ndarray:
    """Retention traces (epoch, trace) from known curves, or noise alone."""
    rng = np.random.default_rng(seed)
    floor, rate = rng.uniform(0, 0.8, n), np.exp(rng.uniform(np.log(0.005), np.log(2), n))
    r = floor + (1 - floor) * np.exp(-rate * T[:, None])
    if kind == "binary":
        return (rng.random(r.shape) < r).astype(float)
    return r + rng.normal(0, 0.1, r.shape) if kind == "smooth" else rng.normal(0, 1, r.shape)


def fit(y, vertices=None, w=None, t=T, bounds=BOUNDS, device="cpu", **more):
    """`minimise` on arrays: u, c, sse as arrays."""
    w = np.ones((len(y), 1)) if w is None else w
    y, w, t = (torch.as_tensor(x, device=device) for x in (y, w, t))
    found = minimise(more.pop("basis", basis), y, w, t, bounds, vertices, **more)
    return tuple(x.cpu().numpy() for x in found)


def slow_linear(y, columns, vertices):
    """Least squares for one trace over a polygon: its inside if allowed, else the best edge."""

    def sse(c):
        return ((y - columns @ c) ** 2).sum()

    points = [np.array(v) for v in vertices]
    found = [sse(p) for p in points]
    for a, b in pairwise([*points, points[0]]):
        along = columns @ (b - a)
        if along @ along > 0:
            s = np.clip(along @ (y - columns @ a) / (along @ along), 0, 1)
            found.append(sse(a + s * (b - a)))
    free = np.linalg.lstsq(columns, y)[0]
    sides = [np.linalg.det([b - a, free - a]) for a, b in pairwise([*points, points[0]])]
    if len(points) > 2 and (min(sides) >= 0 or max(sides) <= 0):
        found.append(sse(free))
    return min(found)


def slow_sse(y, vertices, t=T, bounds=BOUNDS, n_grid=120):
    """The readable twin: a dense grid of log lambda, every dip of it refined by scipy."""

    def at(u):
        p = -np.expm1(-np.exp(u) * t)
        return slow_linear(y, np.stack([np.ones_like(p), p], 1), vertices)

    grid = np.linspace(*np.log(bounds), n_grid)
    values = [at(u) for u in grid]
    found = [min(values)]
    for k in range(1, n_grid - 1):
        if values[k] <= min(values[k - 1], values[k + 1]) < values[k] + 0.1:
            ends, options = (grid[k - 1], grid[k + 1]), {"xatol": 1e-8}
            found.append(minimize_scalar(at, bounds=ends, method="bounded", options=options).fun)
    return min(found)


@pytest.mark.parametrize("name", NIST)
def test_nist_certified_values(name):
    data, curve, bounds, (b1, b2, rss) = NIST[name]
    y, x = (np.array([float(v) for v in row.split()]) for row in data)
    u, c, sse = fit(y[:, None], t=x, bounds=bounds, basis=curve)
    np.testing.assert_allclose([c[0, 0], np.exp(u[0])], [b1, b2], rtol=1e-8)
    np.testing.assert_allclose(sse[0], rss, rtol=1e-9)


@pytest.mark.parametrize("kind", ["binary", "smooth", "noise"])
@pytest.mark.parametrize("model", MODELS)
def test_sse_agrees_with_the_slow_twin(model, kind):
    y, vertices = traces(kind, 3, seed=3), CURVES[model].vertices
    slow = [slow_sse(y[:, i], vertices) for i in range(y.shape[1])]
    np.testing.assert_allclose(fit(y, vertices)[2], slow, rtol=1e-9, atol=1e-12)


#: (R(0), R(inf)) from what scipy searches in a unit box beside log lambda.
ENDS = {
    "exponential": lambda: (1.0, 0.0),
    "exponential_floor": lambda floor: (1.0, floor),
    "exponential_amplitude": lambda start, kept: (start, start * kept),
    "exponential_signed": lambda start, end: (start, end),
}


def scipy_sse(y, model, starts=(0.02, 0.3)):
    """Best of several bounded searches by scipy."""

    def rest(x):
        start, end = ENDS[model](*x[1:])
        return end + (start - end) * np.exp(-np.exp(x[0]) * T) - y

    n = CURVES[model].n_params - 1
    box = ([math.log(BOUNDS[0]), *[0] * n], [math.log(BOUNDS[1]), *[1] * n])
    x0 = [[math.log(s), *[0.5] * n] for s in starts]
    return min(2 * least_squares(rest, x, bounds=box, method="trf").cost for x in x0)


@pytest.mark.parametrize("model", MODELS)
def test_sse_is_never_above_scipy(model):
    y = np.concatenate([traces("binary", 50, seed=5), traces("smooth", 50, seed=6)], 1)
    sse = fit(y, CURVES[model].vertices)[2]
    theirs = np.array([scipy_sse(y[:, i], model) for i in range(100)])
    assert (sse <= theirs * (1 + 1e-6) + 1e-12).all()


@pytest.mark.parametrize("kind", ["binary", "smooth", "noise"])
def test_a_finer_grid_finds_nothing_better(kind):
    y = traces(kind, 3000, seed=7)
    for model in MODELS:
        vertices = CURVES[model].vertices
        coarse, fine = (fit(y, vertices, spacing=s)[2] for s in (SPACING, SPACING / 6))
        assert (coarse <= fine * (1 + 1e-6) + 1e-12).mean() > 0.9995


@given(
    y=st.lists(st.floats(-2, 2), min_size=5, max_size=5),
    corners=st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=3, max_size=3),
    size=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_no_allowed_curve_is_better(y, corners, size):
    y, t, corners = np.array(y), np.array([0.0, 1, 2, 5, 9]), corners[:size]
    u, c, sse = fit(y[:, None], corners, t=t)
    rng = np.random.default_rng(0)
    rates = np.exp(rng.uniform(*np.log(BOUNDS), 300))
    weights = rng.dirichlet(np.full(size, 0.5), 300)
    p = -np.expm1(-rates[:, None] * t)
    a = weights @ np.array(corners)
    sampled = ((y - a[:, :1] - a[:, 1:] * p) ** 2).sum(1)
    assert sse[0] <= sampled.min() + 1e-9
    fitted = c[0, 0] - c[1, 0] * np.expm1(-np.exp(u[0]) * t)
    assert sse[0] == pytest.approx(((y - fitted) ** 2).sum(), abs=1e-12)
    low, high = np.min(corners, 0) - 1e-9, np.max(corners, 0) + 1e-9
    assert (low <= c[:, 0]).all() and (c[:, 0] <= high).all()


@pytest.mark.parametrize("model", MODELS)
def test_known_curves_are_recovered(model):
    rng = np.random.default_rng(8)
    vertices, n = np.array(CURVES[model].vertices), 200
    c = vertices.T @ rng.dirichlet(np.ones(len(vertices)), n).T
    rate = np.exp(rng.uniform(np.log(0.02), np.log(2), n))
    y = c[0] - c[1] * np.expm1(-rate * T[:, None])
    u, found, sse = fit(y, CURVES[model].vertices)
    clear = np.abs(c[1]) > 0.01
    np.testing.assert_allclose(np.exp(u[clear]), rate[clear], rtol=1e-7)
    np.testing.assert_allclose(found[:, clear], c[:, clear], atol=1e-7)
    assert (sse < 1e-14).all()


@pytest.mark.parametrize("model", MODELS)
def test_weights_and_times_of_each_trace(model):
    y, vertices = traces("binary", 40, seed=9), CURVES[model].vertices
    w = np.random.default_rng(10).integers(0, 3, y.shape).astype(float)
    dirty = np.where(w > 0, y, np.nan)
    own = np.repeat(T[:, None], 40, 1)
    together = fit(dirty, vertices, w)
    for got, wanted in zip(fit(dirty, vertices, w, own), together, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-7)
    for i in range(0, 40, 5):
        rows = np.repeat(np.arange(30), w[:, i].astype(int))  # a weight of 2 is seen twice
        alone = fit(y[rows, i : i + 1], vertices, t=T[rows])
        np.testing.assert_allclose(together[2][i], alone[2][0], rtol=1e-9, atol=1e-12)
    stretched = fit(y, vertices, t=own * np.linspace(0.5, 2, 40))
    alone = fit(y[:, -1:], vertices, t=2 * T)
    np.testing.assert_allclose([x[..., -1] for x in stretched[::2]], [x[0] for x in alone[::2]])


@pytest.mark.parametrize("n_functions", [2, 3])
def test_free_coefficients(n_functions):
    t = torch.as_tensor(T)[:, None]
    y = traces("smooth", 6)

    def family(t, u):
        return (torch.exp(-u.exp() * t), torch.ones_like(t), t / 30)[:n_functions]

    def columns(u):
        return torch.cat([x.expand(t.shape) for x in family(t, torch.tensor(u))], 1).numpy()

    u, c, sse = fit(y, basis=family, bounds=(0.01, 3.0))
    tables = [columns(v) for v in np.linspace(math.log(0.01), math.log(3), 1000)]
    for i in range(6):
        least = min(np.linalg.lstsq(table, y[:, i])[1][0] for table in tables)
        assert sse[i] <= least * (1 + 1e-12)
        assert sse[i] == pytest.approx(least, rel=1e-4)
        alone = np.linalg.lstsq(columns(u[i]), y[:, i])[0]
        np.testing.assert_allclose(c[:, i], alone, rtol=1e-6, atol=1e-8)


def test_intervals_of_one_coefficient():
    y, grid = traces("smooth", 6), np.linspace(math.log(0.01), math.log(3), 1000)
    for low, high in ((0.3, 0.5), (-1.0, 0.2), (0.7, 0.7)):
        *_, sse = fit(
            y, [(low,), (high,)], basis=lambda t, u: [torch.exp(-u.exp() * t)], bounds=(0.01, 3.0)
        )
        for i in range(6):
            curves = np.exp(-np.exp(grid)[:, None] * T)
            a = np.clip(curves @ y[:, i] / (curves**2).sum(1), low, high)
            least = ((y[:, i] - a[:, None] * curves) ** 2).sum(1).min()
            assert sse[i] <= least * (1 + 1e-12) and sse[i] == pytest.approx(least, rel=1e-4)


def test_a_segment_whose_fixed_part_depends_on_lambda():
    y = 0.8 * np.exp(-0.3 * T[:, None]) + 0.1
    ends = ((1.0, -1.0), (0.5, 0.5))  # exp(-lambda t) at one end, a rising curve at the other
    assert fit(y, ends)[2][0] == pytest.approx(slow_sse(y[:, 0], ends), rel=1e-9)


def test_where_lambda_does_not_matter_the_lower_bound_is_meant():
    level = np.linspace(0, 1, 11) * np.ones((30, 1))
    for model in MODELS[2:]:
        u, c, sse = fit(level, CURVES[model].vertices)
        np.testing.assert_allclose(u, math.log(BOUNDS[0]), rtol=1e-12)
        np.testing.assert_allclose(c[0], level[0], atol=1e-9)
        assert (sse < 1e-12).all()
    u, c, _ = fit(np.full((30, 1), 1.0), CURVES["exponential_floor"].vertices)
    assert u[0] == pytest.approx(math.log(BOUNDS[0])) and c[:, 0].tolist() == [1, 0]


def test_bounds_are_met():
    y = np.stack([T == 0, T < 29, 1 - T / 1e6], 1).astype(float)
    u, _, _ = fit(y, CURVES["exponential"].vertices)
    np.testing.assert_allclose(u[[0, 2]], np.log(BOUNDS)[::-1], rtol=1e-12)
    assert np.log(BOUNDS[0]) < u[1] < np.log(BOUNDS[1])


def test_traces_do_not_touch_each_other():
    y = traces("binary", 20_000)[:12]  # several blocks
    y[3, 5] = np.nan
    vertices = CURVES["exponential_floor"].vertices
    whole = fit(y, vertices, t=T[:12])
    assert np.isnan(whole[2][5]) and np.isfinite(np.delete(whole[2], 5)).all()
    for at in (slice(0, 3), slice(8190, 8194), slice(19_999, None)):
        for got, wanted in zip(fit(y[:, at], vertices, t=T[:12]), whole, strict=True):
            np.testing.assert_allclose(got, wanted[..., at], atol=1e-8)


def test_nothing_to_fit_is_not_an_error():
    vertices = CURVES["exponential_floor"].vertices
    assert [x.shape for x in fit(np.ones((4, 0)), vertices, t=T[:4])] == [(0,), (2, 0), (0,)]
    assert fit(np.ones((4, 2)), vertices, np.zeros((4, 2)), T[:4])[2].tolist() == [0, 0]


@pytest.mark.parametrize("model", MODELS)
def test_profile_is_least_at_the_fit(model):
    y, vertices = torch.as_tensor(traces("smooth", 30)), CURVES[model].vertices
    w, t = torch.ones(30, 1, dtype=torch.float64), torch.as_tensor(T)
    found = minimise(basis, y, w, t, BOUNDS, vertices)
    c, sse = profile(basis, found.u, y, w, t, vertices)
    assert torch.equal(c, found.c) and torch.equal(sse, found.sse)
    for shift in (-0.01, 0.01):
        u = (found.u + shift).clamp(*map(math.log, BOUNDS))
        assert (profile(basis, u, y, w, t, vertices)[1] >= sse * (1 - 1e-12)).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_devices_and_types_agree(device, dtype):
    y = traces("binary", 500).astype(dtype)
    for model in MODELS:
        vertices = CURVES[model].vertices
        got, wanted = fit(y, vertices, device=device), fit(y.astype(float), vertices)
        np.testing.assert_allclose(got[2], wanted[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"y": np.ones(3)}, r"\(epoch, trace\), got shape \(3,\)"),
        ({"w": np.ones((2, 1))}, r"w must have as many epochs.*got \(2, 1\) for y of \(3, 2\)"),
        ({"t": np.ones((3, 4))}, r"t must have.*got \(3, 4\)"),
        ({"bounds": (0.0, 1.0)}, r"0 < low < high.*got \(0.0, 1.0\)"),
        ({"spacing": 0.0}, "positive, got 0.0"),
        ({"vertices": [(0.0,), (1.0,)]}, r"points of 2 coordinates.*got \[\(0.0,\), \(1.0,\)\]"),
    ],
)
def test_broken_input_is_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(**({"y": np.ones((3, 2)), "t": np.arange(3.0)} | arguments))
