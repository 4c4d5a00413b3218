"""Batched least-squares fits of forgetting curves: all samples at once, one path for CPU and CUDA.

The curves share one form, with g the part that can be lost and lambda the decay constant,

    R(t) = 1 - g (1 - exp(-lambda t)),

where g = 1 is the plain exponential and g = 1 - floor the exponential with floor.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from retention_lib.separable import TOLERANCE, best_fit

#: Free parameters of each model.
MODELS = {"constant": 1, "exponential": 1, "exponential_floor": 2}
#: Search range of lambda [1 / unit of t]: a half-life from 0.07 to 7,000 epochs.
LAMBDA_BOUNDS = (1e-4, 10.0)
#: Grid spacing in log lambda; minima of sums of exponentials lie much farther apart.
_SPACING = 0.18


class Status(enum.IntEnum):
    """What became of one trace; `message` says it in words."""

    OK = 0, "optimum inside the bounds"
    AT_BOUND = 1, "lambda at a bound of its search range: it is at most or at least that"
    FLAT = 2, "constant trace, R^2 undefined; if all ones, never forgotten and lambda censored"
    NEVER_LEARNED = 3, "all zeros: nothing was learned that could be forgotten, R^2 undefined"
    TOO_SHORT = 4, "no more epochs than parameters, not fitted"
    EXCLUDED = 5, "no epoch in the mask: outside the population or never shown, not fitted"
    FAILED = 6, "NaN or infinity inside the mask, not fitted"

    def __new__(cls, value: int, message: str):
        member = int.__new__(cls, value)
        member._value_, member.message = value, message
        return member


@dataclass(frozen=True, eq=False)
class DecayFit:
    """Fitted curves, one per trace; arrays are `(sample,)` or `(run, sample)`.

    Attributes
    ----------
    model : str
        `constant`, `exponential` or `exponential_floor`.
    bounds : tuple of float
        Search range of lambda [1 / unit of t].
    params : dict of ndarray
        `decay_constant` [1 / unit of t] and, by model, `floor` or `level`. Also given for flat
        and never-learned traces, where it is the optimum within the bounds (lambda at the lower
        bound for a trace of ones); NaN where not fitted.
    sse : ndarray
        Sum of squared residuals.
    r2 : ndarray
        1 - SSE / (sum of squares about the mean). Descriptive, negative where a constant would
        fit better, NaN for constant traces.
    status : ndarray of int8
        Values of `Status`.
    n_epochs : ndarray of int32
        Epochs that entered the fit.
    """

    model: str
    bounds: tuple[float, float]
    params: dict[str, np.ndarray]
    sse: np.ndarray
    r2: np.ndarray
    status: np.ndarray
    n_epochs: np.ndarray

    @property
    def decay_constant(self) -> np.ndarray:
        """Lambda [1 / unit of t]; NaN throughout for the constant model."""
        return self.params["decay_constant"]

    def counts(self) -> pd.Series:
        """Number of traces per status, all statuses listed, indexed by lower-case name."""
        n = np.bincount(self.status.ravel(), minlength=len(Status))
        return pd.Series(n, index=[s.name.lower() for s in Status], name="traces")

    def to_frame(self) -> pd.DataFrame:
        """One row per trace: `run` (if any), `sample`, parameters, sse, r2, n_epochs, status."""
        index = np.indices(self.status.shape, dtype=np.int32).reshape(self.status.ndim, -1)
        names = ("run", "sample")[-self.status.ndim :]
        columns = dict(zip(names, index, strict=True)) | {
            name: values.ravel()
            for name, values in (*self.params.items(), ("sse", self.sse), ("r2", self.r2))
        }
        status = pd.Categorical.from_codes(self.status.ravel(), [s.name.lower() for s in Status])
        return pd.DataFrame(columns | {"n_epochs": self.n_epochs.ravel(), "status": status})

    def predict(self, t) -> np.ndarray:
        """The fitted curves at times `t` (epoch,), as `(..., epoch, sample)`; NaN if not fitted."""
        t = np.asarray(t, float)[:, None]
        if self.model == "constant":
            return np.repeat(self.params["level"][..., None, :], len(t), axis=-2)
        floor = self.params.get("floor", np.zeros_like(self.sse))[..., None, :]
        return floor + (1 - floor) * np.exp(-self.decay_constant[..., None, :] * t)

    def __repr__(self):
        found = ", ".join(f"{n:,} {name}" for name, n in self.counts().items() if n)
        return f"DecayFit({self.model}, {self.status.size:,} traces: {found or 'none'})"


def fit_decay(
    r,
    t=None,
    mask=None,
    model: str = "exponential",
    *,
    bounds: tuple[float, float] = LAMBDA_BOUNDS,
    device: str | torch.device = "cpu",
    chunk: int | None = None,
) -> DecayFit:
    """Fit one forgetting curve to every retention trace by least squares, to its global optimum.

    `constant`: R = c. `exponential`: R = exp(-lambda t). `exponential_floor`:
    R = f + (1 - f) exp(-lambda t) with 0 <= f <= 1.

    Parameters
    ----------
    r : array, (epoch, sample) or (run, epoch, sample)
        Retention traces, any numeric or boolean type; computed in float64.
    t : array, (epoch,), optional
        Times since the origin, increasing and not negative; 0, 1, 2, ... epochs by default.
    mask : bool, same shape as `r`, optional
        Entries to fit; all by default. A NaN inside the mask makes the trace `FAILED`.
    model : str
    bounds : (float, float)
        Search range of lambda, per unit of `t`.
    device : str or torch.device
    chunk : int, optional
        Traces at a time, which bounds the memory: about 3 kB each at 30 epochs.

    Returns
    -------
    DecayFit

    Raises
    ------
    ValueError
        On an unknown model, shapes that do not fit together, or impossible times or bounds.

    References
    ----------
    Ebbinghaus 1885, Über das Gedächtnis (the curve). Golub & Pereyra 1973, SIAM J. Numer. Anal.
    10, 413-432 (variable projection).

    Examples
    --------
    >>> r = np.exp(-0.2 * np.arange(10))[:, None]
    >>> float(fit_decay(r).decay_constant[0].round(6))
    0.2
    """
    r, t, mask = _check(r, t, mask, model, bounds)
    device = torch.device(device)
    if chunk is None:  # a CPU's cache; a GPU wants to be filled
        chunk = 4096 if device.type == "cpu" else 1 << 18
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 trace, got {chunk}")
    n_nodes = max(2, math.ceil(math.log(bounds[1] / bounds[0]) / _SPACING) + 1)
    nodes = torch.linspace(*map(math.log, bounds), n_nodes, dtype=torch.float64, device=device)
    times = torch.as_tensor(t, device=device)
    shape = r.shape[:-2] + r.shape[-1:]
    out = {name: np.full(shape, np.nan) for name in ("decay_constant", "lost", "mean", "sse", "r2")}
    out |= {"status": np.zeros(shape, np.int8), "n_epochs": np.zeros(shape, np.int32)}
    for run in np.ndindex(r.shape[:-2]):
        for start in range(0, shape[-1], chunk):
            part = (..., slice(start, start + chunk))
            y = _to_device(r[run][part], device)
            w = None if mask is None else _to_device(mask[run][part], device)
            for name, values in _fit_chunk(y, w, times, model, nodes).items():
                out[name][run][part] = values.cpu().numpy()
    params = {"decay_constant": out["decay_constant"]}
    if model == "constant":
        params["level"] = out["mean"]
    elif model == "exponential_floor":
        params["floor"] = 1 - out["lost"]
    kept = {name: out[name] for name in ("sse", "r2", "status", "n_epochs")}
    return DecayFit(model, tuple(map(float, bounds)), params, **kept)


def _check(r, t, mask, model, bounds):
    """The arguments as arrays, or a ValueError that quotes what came and what was expected."""
    r = np.asanyarray(r)
    if model not in MODELS:
        raise ValueError(f"model must be one of {list(MODELS)}, got {model!r}")
    if r.ndim not in (2, 3):
        raise ValueError(f"r must be (epoch, sample) or (run, epoch, sample), got shape {r.shape}")
    if r.dtype.kind not in "biuf":
        raise ValueError(f"r must be numeric or boolean, got {r.dtype}")
    t = np.arange(r.shape[-2], dtype=float) if t is None else np.array(t, dtype=float)
    if t.shape != (r.shape[-2],):
        raise ValueError(f"t must have shape ({r.shape[-2]},) for r of {r.shape}, got {t.shape}")
    if not (np.isfinite(t).all() and (t >= 0).all() and (np.diff(t) > 0).all()):
        raise ValueError(f"t must be finite, not negative and strictly increasing, got {t}")
    if mask is not None:
        mask = np.asanyarray(mask)
        if mask.shape != r.shape or mask.dtype != bool:
            raise ValueError(f"mask must be bool of shape {r.shape}, got {mask.dtype} {mask.shape}")
    if not 0 < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must satisfy 0 < low < high < infinity, got {bounds}")
    return r, t, mask


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy in the narrow type it is stored in, widen on the device."""
    return torch.from_numpy(np.array(array, order="C")).to(device).to(torch.float64)


def _fit_chunk(y, w, t, model: str, nodes) -> dict[str, torch.Tensor]:
    """Fit the columns of `y` (epoch, sample), with weights `w` of 0 and 1 or None for all ones."""
    broken = ~y.isfinite()
    if w is not None:
        broken &= w > 0
    failed = broken.any(0)
    w = torch.ones_like(y[:, :1]) if w is None else w
    y = torch.where(y.isfinite() & (w > 0), y, 0.0)
    n = w.sum(0).expand(y.shape[1])
    mean = (w * y).sum(0) / n
    sst = (w * (y - mean) ** 2).sum(0)
    high = torch.where(w > 0, y, -math.inf).amax(0)
    low = torch.where(w > 0, y, math.inf).amin(0)
    flat = high - low <= 1e-12 * torch.maximum(high.abs(), low.abs())
    if model == "constant":
        lam, lost, sse = torch.full_like(mean, math.nan), torch.full_like(mean, math.nan), sst
    else:
        lam, lost, sse = best_fit(1 - y, w, t, nodes, 0.0 if model == "exponential_floor" else 1.0)
    at_bound = (lam.log() - nodes[0] <= TOLERANCE) | (nodes[-1] - lam.log() <= TOLERANCE)
    status = torch.where(at_bound, int(Status.AT_BOUND), int(Status.OK))
    for holds, code in (  # the later, the stronger
        (flat, Status.FLAT),
        (flat & (high == 0), Status.NEVER_LEARNED),
        (n <= MODELS[model], Status.TOO_SHORT),
        (n == 0, Status.EXCLUDED),
        (failed, Status.FAILED),
    ):
        status = torch.where(holds, int(code), status)
    fitted = {"decay_constant": lam, "lost": lost, "mean": mean, "sse": sse}
    fitted["r2"] = torch.where(flat, math.nan, 1 - sse / sst)
    out = {k: torch.where(status >= Status.TOO_SHORT, math.nan, v) for k, v in fitted.items()}
    return out | {"status": status.to(torch.int8), "n_epochs": n.to(torch.int32)}
