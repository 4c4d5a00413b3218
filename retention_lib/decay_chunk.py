"""Fit one chunk of traces by the method that suits its model and loss, and judge each fit."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retention_lib import bernoulli, errors, separable, step, uncertainty, weibull
from retention_lib.curves import CURVES, basis, lost
from retention_lib.decay_result import NOT_FITTED, Status

#: Free parameters of each model.
MODELS = {"constant": 1, **{name: c.n_params for name, c in CURVES.items()}, "change_point": 3}
#: Confidence of the upper bound of never-forgotten traces where no level is given.
CENSORED_LEVEL = 0.95
#: A curve that changes by no more than this over all time is level.
LEVEL_CURVE = 1e-9
#: As near to a bound in log lambda counts as at it.
EDGE = 1e-6
#: Fewer traces than this are not worth a thread of their own.
_LEAST = 2048


@dataclass(frozen=True)
class Job:
    """What is asked of every trace."""

    model: str
    loss: str
    bounds: tuple[float, float]
    level: float | None

    @property
    def bernoulli(self) -> bool:
        return self.loss == "bernoulli"


def fit_columns(job: Job, y, w, t, device: torch.device, chunk: int) -> dict[str, np.ndarray]:
    """Fit the columns of `y` (epoch, trace) chunk by chunk; shared `w` and `t` are (epoch,)."""
    if y.shape[1] == 0:  # the names and types of no traces are those of one
        one = fit_columns(job, np.zeros((len(y), 1)), None, np.arange(len(y)), device, 1)
        return {name: values[:0] for name, values in one.items()}
    weights = np.ones(len(y)) if w is None else w

    def fit(start: int) -> dict[str, Tensor]:
        part = (..., slice(start, start + chunk))
        own = [a if a.ndim == 1 else a[part] for a in (weights, t)]
        return _fit_chunk(job, *(_to_device(a, device) for a in (y[part], *own)))

    threads = torch.get_num_threads() if device.type == "cpu" else 1
    chunk = max(1, min(chunk, max(_LEAST, -(-y.shape[1] // threads))))
    starts = range(0, y.shape[1], chunk)
    if device.type == "cpu":
        # Chunks side by side, each on one thread: threads that share every small operation wait
        # for each other, and on a busy machine they wait most of the time.
        try:
            with ThreadPoolExecutor(threads, "fit", torch.set_num_threads, (1,)) as pool:
                parts = list(pool.map(fit, starts))
        finally:
            torch.set_num_threads(threads)  # the number is partly global
    else:
        parts = [fit(start) for start in starts]
    return {k: torch.cat([p[k] for p in parts]).cpu().numpy() for k in parts[0]}


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy in the narrow type it is stored in, widen on the device."""
    return torch.from_numpy(np.array(array, order="C")).to(device).to(torch.float64)


def _fit_chunk(job: Job, y, w, t) -> dict[str, Tensor]:
    """Fit the columns of `y` (epoch, trace) and say what became of each."""
    w = w[:, None] if w.ndim == 1 else w
    y, failed, low, high = _range(y, w)
    n = (w > 0).sum(0).expand(y.shape[1])
    flat = high - low <= 1e-12 * torch.maximum(high.abs(), low.abs())
    if job.model in CURVES:
        found, state, solution = _smooth(job, y, w, t)
    else:
        found, state = _closed_form(job, y, w, t)
    for holds, code in (  # the later, the stronger
        (found["log_likelihood"] == -math.inf, Status.CONTRADICTED),
        (flat, Status.FLAT),
        (flat & (high == 0), Status.NEVER_LEARNED),
        (flat & (high == 1), Status.CENSORED),
        (n <= MODELS[job.model], Status.TOO_SHORT),
        (n == 0, Status.EXCLUDED),
        (failed, Status.FAILED),
    ):
        state = torch.where(holds, int(code), state)
    found |= _goodness(job, y, w, n, flat, found)
    found |= dict.fromkeys(("decay_low", "decay_high"), torch.full_like(found["sse"], math.nan))
    if job.model in CURVES:
        _bound_from_above(job, w, t, state, found)
        if job.level is not None:
            _uncertainty(job, y, w, t, state, solution, found)
    unfit = torch.isin(state, torch.tensor([int(s) for s in NOT_FITTED], device=y.device))
    if bool(unfit.any()):
        found = {name: torch.where(unfit, math.nan, value) for name, value in found.items()}
    return found | {"status": state.to(torch.int8), "n_epochs": n.to(torch.int32)}


def _range(y, w) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The traces with 0 where nothing is weighed, which of them fail, and their smallest and
    largest value."""
    if w.shape[1] == 1 and bool((w > 0).all()):
        low, high = y.amin(0), y.amax(0)  # NaN and infinity show in one of them
        if bool((high - low).isfinite().all()):
            return y, torch.zeros_like(low, dtype=torch.bool), low, high
    weighed = w > 0
    failed = (~y.isfinite() & weighed).any(0)
    y = torch.where(y.isfinite() & weighed, y, 0.0)
    low = torch.where(weighed, y, math.inf).amin(0)
    return y, failed, low, torch.where(weighed, y, -math.inf).amax(0)


def _closed_form(job: Job, y, w, t) -> tuple[dict[str, Tensor], Tensor]:
    """A constant or one change."""
    found = {}
    if job.model == "constant":
        found["level"], loss = step.constant(y, w, job.loss)
        predicted = found["level"]
    else:
        found["change"], found["before"], found["after"], loss = step.change_point(
            y, w, t, job.loss
        )
        times = t if t.ndim == 2 else t[:, None]
        predicted = torch.where(times < found["change"], found["before"], found["after"])
    found["sse"] = (w * (y - predicted) ** 2).sum(0)
    found["log_likelihood"] = -loss
    return found, torch.full_like(loss, int(Status.OK), dtype=torch.int64)


def _smooth(job: Job, y, w, t) -> tuple[dict[str, Tensor], Tensor, tuple]:
    """One of `CURVES`, by the solver for its loss."""
    curve = CURVES[job.model]
    s = curve.clock(t)
    v = None
    if job.bernoulli:
        u, v, c, log_likelihood = bernoulli.maximise(curve, y, w, t, job.bounds)
    elif curve.shaped:
        u, v, c, sse = weibull.minimise_weibull(y, w, s, job.bounds)
    else:
        u, c, sse = separable.minimise(basis, y, w, s, job.bounds, curve.vertices)
    if job.bernoulli:
        clock = s if s.ndim == 2 else s[:, None]
        sse = (w * (y - c[0] - c[1] * lost(clock, u, v)) ** 2).sum(0)
    else:
        log_likelihood = torch.zeros_like(sse)
    found = natural(job.model, u, v, c) | {"sse": sse, "log_likelihood": log_likelihood}
    edge = (u - math.log(job.bounds[0]) <= EDGE) | (math.log(job.bounds[1]) - u <= EDGE)
    state = torch.where(edge, int(Status.AT_BOUND), int(Status.OK))
    return found, torch.where(c[1].abs() <= LEVEL_CURVE, int(Status.UNIDENTIFIED), state), (u, v, c)


def natural(model: str, u: Tensor, v: Tensor | None, c: Tensor) -> dict[str, Tensor]:
    """The parameters by their names, from log lambda, log k and (c_1, c_2)."""
    found = {"exponent" if model == "power" else "decay_constant": u.exp()}
    if v is not None:
        found["shape"] = v.exp()
    if MODELS[model] > 1 and v is None:
        found["floor"] = c[0] + c[1]
    if MODELS[model] > 2:
        found["amplitude"] = -c[1]
    return found


def _goodness(job: Job, y, w, n, flat, found) -> dict[str, Tensor]:
    """Log-likelihood, AICc and R^2."""
    k, log_likelihood = MODELS[job.model], found["log_likelihood"]
    if not job.bernoulli:  # Gaussian, the variance at its maximum being one more parameter
        k = k + 1
        log_likelihood = -0.5 * n * ((2 * math.pi * found["sse"] / n).log() + 1)
    left = n - k - 1
    small = torch.where(left > 0, 2 * k * (k + 1) / left.clamp_min(1), math.nan)
    sst = step.constant(y, w, "least_squares")[1]
    return {
        "log_likelihood": log_likelihood,
        "aicc": 2 * k - 2 * log_likelihood + small,
        "r2": torch.where(flat, math.nan, 1 - found["sse"] / sst),
    }


def _bound_from_above(job: Job, w, t, state, found) -> None:
    """What never-forgotten traces say of lambda: all of it below `decay_high`."""
    curve, censored = CURVES[job.model], state == Status.CENSORED
    high = torch.full_like(found["sse"], math.inf)  # a floor or a shape leaves lambda open
    if curve.n_params == 1:
        clock = curve.clock(t if t.ndim == 2 else t[:, None])
        high = uncertainty.never_forgotten_bound(w, clock, job.level or CENSORED_LEVEL)
    found["decay_low"] = torch.where(censored, 0.0, found["decay_low"])
    found["decay_high"] = torch.where(censored, high, found["decay_high"])


def _uncertainty(job: Job, y, w, t, state, solution, found) -> None:
    """Profile intervals of lambda and standard errors, where there is a fit that varies."""
    curve, rest = CURVES[job.model], state <= Status.AT_BOUND
    rest = (rest | (state == Status.UNIDENTIFIED)).nonzero().squeeze(1)
    y, w, t = y[:, rest], _columns(w, rest), t if t.ndim == 1 else t[:, rest]
    u, v, c = (None if x is None else x[..., rest] for x in solution)
    sse, s = found["sse"][rest], curve.clock(t)
    if job.bernoulli:
        drop, best = uncertainty.likelihood_drop(job.level), found["log_likelihood"][rest]
    else:
        n = (w > 0).sum(0).expand(len(rest))
        drop, best = uncertainty.squares_drop(sse, n, curve.n_params, job.level), -sse

    def profile(at: Tensor) -> Tensor:
        if job.bernoulli:
            return bernoulli.profile(curve, at, y, w, t)[1]
        if curve.shaped:
            return -weibull.profile_weibull(at, y, w, t)[1]
        return -separable.profile(basis, at, y, w, s, curve.vertices)[1]

    ends = uncertainty.profile_interval(profile, u, best, drop, job.bounds)
    found["decay_low"][rest], found["decay_high"][rest] = ends
    own = errors.standard_errors(curve, u, v, c, w, t, job.bounds, None if job.bernoulli else sse)
    ok = state[rest] == Status.OK
    for name, value in own.items():
        name = "exponent" if job.model == "power" and name == "decay_constant" else name
        se = torch.full_like(found["sse"], math.nan)
        se[rest] = torch.where(ok, value, math.nan)
        found[f"{name}_se"] = se


def _columns(w: Tensor, columns: Tensor) -> Tensor:
    """The weights of some traces; (epoch, 1) serves all."""
    return w if w.shape[1] == 1 else w[:, columns]
