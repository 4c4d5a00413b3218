"""Batched fits against scipy, one trace at a time, and retention traces against a loop."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import curve_fit, minimize_scalar

from retention_lib.config import ORIGINS, POPULATIONS, SIGNALS, TraceConvention
from retention_lib.convention import EMA_WEIGHT, retention_trace
from retention_lib.decay import LAMBDA_BOUNDS, MODELS, DecayFit, Status, _distinct, fit_decay

#: One code path serves both; a machine without a GPU can only check the first.
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
CURVES = ("exponential", "exponential_floor")
#: Days since learning and savings, Ebbinghaus 1885, section 28.
EBBINGHAUS_DAYS = np.array([20 / 1440, 1 / 24, 9 / 24, 1, 2, 6, 31])
EBBINGHAUS = np.array([58.2, 44.2, 35.8, 33.7, 27.8, 25.4, 21.1]) / 100


def traces(kind: str, n: int, n_epochs: int = 31, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    decay = np.exp(-rng.uniform(0.005, 0.5, n) * np.arange(n_epochs)[:, None])
    if kind == "binary":
        return rng.random((n_epochs, n)) < 0.2 + 0.7 * decay
    if kind == "coin":
        return rng.random((n_epochs, n)) < 0.5
    return np.clip(decay + rng.normal(0, 0.1, decay.shape), 0, 1)


def curve(t, rate, floor):
    return floor + (1 - floor) * np.exp(-rate * t)


def slow_sse(y, t, model, bounds=LAMBDA_BOUNDS, starts: int = 13) -> float:
    """The readable twin: scipy's bounded search in every of `starts` intervals of log lambda."""

    def at(u):
        drop = -np.expm1(-np.exp(u) * t)
        lost = 1.0
        if model == "exponential_floor":
            lost = np.clip(drop @ (1 - y) / (drop @ drop), 0, 1)
        return ((y - 1 + lost * drop) ** 2).sum()

    edges = np.linspace(*np.log(bounds), starts)
    found = [at(u) for u in edges]
    for ends in pairwise(edges):
        options = {"xatol": 1e-8}
        found.append(minimize_scalar(at, bounds=ends, method="bounded", options=options).fun)
    return min(found)


@pytest.mark.parametrize("model", CURVES)
@pytest.mark.parametrize("kind", ["binary", "coin", "smooth"])
def test_sse_is_the_global_minimum(kind, model):
    y = traces(kind, 100).astype(float)
    fit = fit_decay(y, model=model)
    slow = [slow_sse(y[:, i], np.arange(31.0), model) for i in range(100)]
    np.testing.assert_allclose(fit.sse, slow, rtol=1e-9)


@pytest.mark.parametrize("kind", ["binary", "smooth"])
def test_sse_is_never_above_curve_fit(kind):
    y, t = traces(kind, 20, seed=5).astype(float), np.arange(31.0)
    fit = fit_decay(y, model="exponential_floor")
    bounds = ([LAMBDA_BOUNDS[0], 0], [LAMBDA_BOUNDS[1], 1])
    for i in range(20):
        for start in (0.01, 0.1, 1.0):
            best, _ = curve_fit(curve, t, y[:, i], p0=(start, 0.5), bounds=bounds)
            assert fit.sse[i] <= ((y[:, i] - curve(t, *best)) ** 2).sum() * (1 + 1e-9)


@pytest.mark.parametrize("model", CURVES)
def test_masked_traces_fit_as_if_cut(model):
    y, rng = traces("binary", 40, seed=1).astype(float), np.random.default_rng(2)
    mask = rng.random(y.shape) < 0.7
    dirty = np.where(mask, y, np.nan)
    fit = fit_decay(dirty, mask=mask, model=model)
    for i in range(40):
        keep, t = mask[:, i], np.arange(31.0)
        alone = fit_decay(y[keep, i : i + 1], t=t[keep], model=model)
        np.testing.assert_allclose(fit.sse[i], slow_sse(y[keep, i], t[keep], model), rtol=1e-9)
        np.testing.assert_allclose(fit.decay_constant[i], alone.decay_constant[0], rtol=1e-6)
        assert fit.n_epochs[i] == keep.sum() and fit.status[i] == alone.status[0]


def test_known_parameters_are_recovered():
    rng = np.random.default_rng(7)
    rate, floor = np.exp(rng.uniform(np.log(0.02), np.log(2), 200)), rng.uniform(0, 0.8, 200)
    t = np.arange(31.0)[:, None]
    plain = fit_decay(np.exp(-rate * t))
    np.testing.assert_allclose(plain.decay_constant, rate, rtol=1e-8)
    both = fit_decay(curve(t, rate, floor), model="exponential_floor")
    np.testing.assert_allclose(both.decay_constant, rate, rtol=1e-6)
    np.testing.assert_allclose(both.params["floor"], floor, atol=1e-7)
    assert (both.r2 > 1 - 1e-12).all() and both.counts()["ok"] == 200
    np.testing.assert_allclose(both.predict(t[:, 0]), curve(t, rate, floor), atol=1e-7)


def test_ebbinghaus_savings():
    bounds = (1e-4, 1e4)  # per day: the first test came after twenty minutes
    fit = fit_decay(EBBINGHAUS[:, None], EBBINGHAUS_DAYS, model="exponential_floor", bounds=bounds)
    scipys = min(
        ((EBBINGHAUS - curve(EBBINGHAUS_DAYS, *best)) ** 2).sum()
        for best, _ in (
            curve_fit(
                curve, EBBINGHAUS_DAYS, EBBINGHAUS, (start, 0.3), bounds=([1e-4, 0], [1e4, 1])
            )
            for start in (0.01, 1.0, 30.0)
        )
    )
    assert fit.status[0] == Status.OK and fit.sse[0] <= scipys * (1 + 1e-9)
    plain = fit_decay(EBBINGHAUS[:, None], EBBINGHAUS_DAYS, bounds=bounds)
    assert plain.r2[0] < 0 < fit.r2[0]  # no exponential to zero describes what is never lost


def test_statuses_and_their_numbers():
    by_hand = {
        Status.OK: [1, 1, 0, 1, 0],
        Status.AT_BOUND: [1, 0, 0, 0, 0],
        Status.CENSORED: [1, 1, 1, 1, 1],
        Status.NEVER_LEARNED: [0, 0, 0, 0, 0],
        Status.TOO_SHORT: [1, 0, 9, 9, 9],
        Status.EXCLUDED: [9, 9, 9, 9, 9],
        Status.FAILED: [1, np.nan, 0, 1, 0],
    }
    r = np.array(list(by_hand.values())).T
    for model in CURVES:
        fit = fit_decay(r, mask=r != 9, model=model)
        expected = list(by_hand)
        if model == "exponential":
            expected[4] = Status.AT_BOUND  # two epochs are enough for one parameter
        assert fit.status.tolist() == expected
        assert fit.status.dtype == np.int8
        low, high = LAMBDA_BOUNDS
        np.testing.assert_allclose(fit.decay_constant[1:4], [high, low, high], rtol=1e-12)
        assert np.isnan(fit.r2[[2, 3, 5, 6]]).all() and np.isfinite(fit.r2[:2]).all()
        assert np.isnan(fit.decay_constant[5:]).all() and np.isnan(fit.sse[5:]).all()
    assert all(len(status.message) > 10 for status in Status)


def test_constant_traces_between_zero_and_one_have_no_r2():
    fit = fit_decay(np.full((6, 1), 0.4), model="exponential_floor")
    assert fit.status.tolist() == [Status.FLAT] and np.isnan(fit.r2[0])
    np.testing.assert_allclose(fit.sse[0], 0.36, rtol=1e-6)  # epoch 0 alone is missed, by 0.6


def test_constant_model_is_the_mean():
    y = traces("smooth", 10)
    fit = fit_decay(y, model="constant")
    np.testing.assert_allclose(fit.params["level"], y.mean(0), rtol=1e-12)
    np.testing.assert_allclose(fit.sse, y.var(0) * 31, rtol=1e-12)
    assert np.abs(fit.r2).max() < 1e-12 and np.isnan(fit.decay_constant).all()


def test_a_plain_exponential_on_late_learners_is_worse_than_a_constant():
    late = np.array([0, 0, 0, 1, 1, 0, 1, 1, 1, 1])[:, None]
    assert fit_decay(late).r2[0] < 0


@given(arrays(bool, (8, 10)), st.randoms(use_true_random=False), st.sampled_from(CURVES))
@settings(max_examples=20, deadline=None)
def test_order_and_chunks_do_not_matter(correct, random, model):
    order = random.sample(range(10), 10)
    whole = fit_decay(correct, model=model)
    for other, at in (
        (fit_decay(correct[:, order], model=model), order),
        (fit_decay(correct, model=model, chunk=3), range(10)),
    ):
        at = list(at)
        np.testing.assert_allclose(other.sse, whole.sse[at], rtol=1e-12, atol=1e-14)
        assert (other.status == whole.status[at]).all()
        np.testing.assert_allclose(other.decay_constant, whole.decay_constant[at], rtol=1e-6)


@given(arrays(bool, (12, 6)), st.sampled_from(CURVES))
@settings(max_examples=20, deadline=None)
def test_no_lambda_on_a_fine_grid_is_better(correct, model):
    fit = fit_decay(correct, model=model)
    t = np.arange(12.0)[:, None]
    for rate in np.geomspace(*LAMBDA_BOUNDS, 200):
        drop = -np.expm1(-rate * t)
        lost = 1.0
        if model == "exponential_floor":
            lost = np.clip((drop * (1 - correct)).sum(0) / (drop**2).sum(), 0, 1)
        sse = ((correct - 1 + lost * drop) ** 2).sum(0)
        assert (fit.sse <= sse + 1e-9).all()
    assert model == "exponential" or ((fit.params["floor"] >= 0) & (fit.params["floor"] <= 1)).all()


def test_more_freedom_never_fits_worse():
    y = traces("binary", 300, seed=9)
    assert (fit_decay(y, model=CURVES[1]).sse <= fit_decay(y).sse + 1e-12).all()


def test_runs_are_fitted_apart():
    y = np.stack([traces("binary", 15, seed=s) for s in range(3)])
    fit = fit_decay(y, model="exponential_floor", chunk=4)
    assert fit.sse.shape == (3, 15) and fit.predict([0, 1]).shape == (3, 2, 15)
    np.testing.assert_allclose(fit.sse[2], fit_decay(y[2], model="exponential_floor").sse)
    table = fit.to_frame()
    assert table.columns.tolist() == [
        *("run", "sample", "decay_constant", "floor", "decay_low", "decay_high", "sse", "r2"),
        *("log_likelihood", "aicc", "n_epochs", "status"),
    ]
    assert table["run"].tolist() == np.repeat(range(3), 15).tolist()
    assert (table["sse"].to_numpy() == fit.sse.ravel()).all()


@pytest.mark.parametrize("n_epochs", [5, 63, 130])
def test_equal_traces_are_found_whatever_their_length(n_epochs):
    rng = np.random.default_rng(0)
    different = rng.random((n_epochs, 8)) < 0.6
    y = different[:, rng.integers(0, 8, 300)].astype(float)
    y[-1, :9] = np.nan
    mask = rng.random((1, 300)) < np.where(np.arange(n_epochs) < 4, 1, 0.5)[:, None] + 0.45
    first, place = _distinct(y, mask)
    expected = np.unique(np.vstack([np.nan_to_num(y, nan=2), mask]), axis=1).shape[1]
    assert len(first) == expected and (np.diff(first) > 0).all()
    np.testing.assert_array_equal(y[:, first][:, place], y)
    assert np.array_equal(mask[:, first][:, place], mask)


def test_repr_and_counts_say_what_happened():
    fit = fit_decay(np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
    assert repr(fit) == (
        "DecayFit(exponential, least_squares, 3 traces: 1 ok, 1 at_bound, 1 censored)"
    )
    assert fit.counts().sum() == 3 and fit.counts()["failed"] == 0
    assert fit.to_frame()["status"].tolist() == ["censored", "ok", "at_bound"]


def test_no_traces_and_no_epochs_are_not_errors():
    assert (
        repr(fit_decay(np.ones((5, 0)))) == "DecayFit(exponential, least_squares, 0 traces: none)"
    )
    assert fit_decay(np.ones((1, 2))).counts()["too_short"] == 2


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32])
def test_narrow_types_are_computed_in_float64(dtype):
    y = traces("binary", 20)
    assert (fit_decay(y.astype(dtype)).sse == fit_decay(y.astype(float)).sse).all()


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_here_gives_the_same_fits(device):
    y = traces("binary", 500)
    for model in MODELS:
        fit, reference = fit_decay(y, model=model, device=device), fit_decay(y, model=model)
        np.testing.assert_allclose(fit.sse, reference.sse, rtol=1e-9)
        assert (fit.status == reference.status).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"r": np.ones(4)}, r"got shape \(4,\)"),
        ({"r": np.array([["a"]])}, "numeric or boolean, got <U1"),
        ({"model": "gompertz"}, "'exponential_floor'.*got 'gompertz'"),
        ({"loss": "hinge"}, "'least_squares', 'bernoulli'.*got 'hinge'"),
        ({"loss": "bernoulli", "r": np.full((3, 2), 1.5)}, "in 0..1, got 1.5 to 1.5"),
        ({"weights": [1, -1, 1]}, "not negative, got"),
        ({"weights": [1, 1]}, r"\(3,\) or \(3, 2\), got \(2,\)"),
        ({"level": 95}, "level must lie between 0 and 1, got 95"),
        ({"t": [0, 1]}, r"shape \(3,\) or \(3, 2\), got \(2,\)"),
        ({"t": [0, 2, 1]}, "strictly increasing, got"),
        ({"t": [-1, 0, 1]}, "not negative"),
        ({"mask": np.ones((3, 3), bool)}, r"shape \(3, 2\), got bool \(3, 3\)"),
        ({"mask": np.ones((3, 2))}, r"mask must be bool.*float64"),
        ({"bounds": (0, 1)}, r"0 < low < high.*got \(0, 1\)"),
        ({"chunk": 0}, "at least 1 trace, got 0"),
    ],
)
def test_broken_input_is_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_decay(**({"r": np.ones((3, 2))} | arguments))


def slow_signal(c: list[float], signal: str) -> list[float]:
    """The readable twin of the four signals, for correctness since the origin."""
    out = []
    for t in range(len(c)):
        if signal == "raw":
            out.append(c[t])
        elif signal == "cumulative_mean":
            out.append(sum(c[: t + 1]) / (t + 1))
        elif signal == "ema":
            out.append(c[0] if t == 0 else (1 - EMA_WEIGHT) * out[-1] + EMA_WEIGHT * c[t])
        else:
            out.append(1 - sum(1 - x for x in c[: t + 1]) / len(c))
    return out


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("online", [False, True])
def test_retention_trace_agrees_with_the_loop(origin, signal, online):
    rng = np.random.default_rng(11)
    correct, shown = rng.random((2, 9, 40)) < 0.4, rng.random((2, 9, 40)) < 0.8
    shown = shown if online else None
    for population in POPULATIONS:
        convention = TraceConvention(origin=origin, signal=signal, population=population)
        r, mask = retention_trace(correct, convention, shown)
        assert r.dtype == np.float32 and (np.isnan(r) == ~mask).all()
        for run, s in np.ndindex(2, 40):
            seen = [t for t in range(9) if shown is None or shown[run, t, s]]
            c = [float(correct[run, t, s]) for t in seen]
            wanted = slow_trace(seen, c, convention)
            got = {int(k): r[run, k, s] for k in np.flatnonzero(mask[run, :, s])}
            assert got.keys() == wanted.keys()
            np.testing.assert_allclose(list(got.values()), list(wanted.values()), atol=1e-6)


def slow_trace(seen, c, convention) -> dict[int, float]:
    """Epochs since the origin and values of one sample; empty outside the population."""
    events = sum(a > b for a, b in pairwise(c))
    if not c or (convention.population == "ever_learned" and not any(c)):
        return {}
    if convention.population == "ever_forgotten" and not events:
        return {}
    start, values = 0, slow_signal(c, convention.signal)
    origin = 0
    if convention.origin == "first_learned" and any(c):
        start = c.index(1.0)
        origin, values = seen[start], slow_signal(c[start:], convention.signal)
    elif convention.origin == "peak":
        rounded = [np.float32(v).round(5) for v in values]
        start = rounded.index(max(rounded))
        origin, values = seen[start], values[start:]
    if convention.population == "not_flat" and max(values) - min(values) < 1e-6:
        return {}
    return {t - origin: v for t, v in zip(seen[start:], values, strict=True)}


def test_the_two_named_conventions_differ_where_it_matters():
    correct = np.array([[0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool).T
    literal = fit_decay(*_with_mask(correct, TraceConvention()))
    own = TraceConvention(origin="first_learned", population="ever_learned")
    retention = fit_decay(*_with_mask(correct, own))
    names = [[Status(s).name for s in fit.status] for fit in (literal, retention)]
    assert names[0][1:] == ["NEVER_LEARNED", "CENSORED"]
    assert names[1][1:] == ["EXCLUDED", "CENSORED"]
    assert literal.n_epochs.tolist() == [5, 5, 5] and retention.n_epochs.tolist() == [3, 0, 5]
    assert isinstance(retention, DecayFit) and retention.r2[0] > 0 > literal.r2[0]


def _with_mask(correct, convention):
    r, mask = retention_trace(correct, convention)
    return r, None, mask
