"""What a decay fit returns: parameters, their uncertainty and a status for every trace."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from retention_lib.curves import CURVES, lost


class Status(enum.IntEnum):
    """What became of one trace; `message` says it in words."""

    OK = 0, "optimum inside the bounds"
    AT_BOUND = 1, "lambda at a bound of its search range: it is at most or at least that"
    FLAT = 2, "constant trace between 0 and 1: nothing to explain, R^2 undefined"
    NEVER_LEARNED = 3, "all zeros: nothing was learned that could be forgotten, R^2 undefined"
    TOO_SHORT = 4, "no more epochs than parameters, not fitted"
    EXCLUDED = 5, "no epoch in the mask: outside the population or never shown, not fitted"
    FAILED = 6, "NaN or infinity inside the mask, not fitted"
    CENSORED = 7, "all ones: never forgotten, lambda is known only to lie below decay_high"
    UNIDENTIFIED = 8, "the best curve is level: lambda does not matter, the smallest is given"
    CONTRADICTED = 9, "wrong where the curve is 1 by construction: likelihood 0, not fitted"

    def __new__(cls, value: int, message: str):
        member = int.__new__(cls, value)
        member._value_, member.message = value, message
        return member


#: Statuses that leave every parameter NaN.
NOT_FITTED = (Status.TOO_SHORT, Status.EXCLUDED, Status.FAILED, Status.CONTRADICTED)


@dataclass(frozen=True, eq=False)
class DecayFit:
    """Fitted curves, one per trace; arrays are `(sample,)` or `(run, sample)`.

    Attributes
    ----------
    model : str
        A key of `decay.MODELS`.
    loss : str
        `least_squares` or `bernoulli`.
    bounds : tuple of float
        Search range of lambda [1 / unit of t].
    params : dict of ndarray
        By model: `decay_constant` [1 / unit of t]; `exponent` of the power law; `floor` = R(inf);
        `amplitude` = R(0) - R(inf), negative for a curve that rises; `shape` k of the Weibull
        curve; `level`; `before`, `after` and `change`, the first time after the change. Also given
        for flat, never-learned and never-forgotten traces, where it is the optimum within the
        bounds; NaN where not fitted.
    se : dict of ndarray
        Standard errors, same names; only with `level`. NaN at a bound and for statuses but `OK`.
    decay_low, decay_high : ndarray
        Profile interval of the decay constant (or exponent), only with `level`: 0 or infinity
        where it is open on a side. For never-forgotten traces 0 and the exact upper bound, always.
    level : float or None
        Confidence of the interval; that of the upper bound is 0.95 where None.
    sse : ndarray
        Sum of squared residuals.
    r2 : ndarray
        1 - SSE / (sum of squares about the mean). Descriptive, negative where a constant would
        fit better, NaN for constant traces.
    log_likelihood : ndarray
        Of 0/1 data [nat] for the Bernoulli loss; for least squares Gaussian, its variance at the
        maximum.
    aicc : ndarray
        Small-sample AIC; the variance counts as a parameter for least squares. NaN if there are
        too few epochs for it.
    status : ndarray of int8
        Values of `Status`.
    n_epochs : ndarray of int32
        Epochs that entered the fit.
    """

    model: str
    loss: str
    bounds: tuple[float, float]
    level: float | None
    params: dict[str, np.ndarray]
    sse: np.ndarray
    r2: np.ndarray
    log_likelihood: np.ndarray
    aicc: np.ndarray
    decay_low: np.ndarray
    decay_high: np.ndarray
    status: np.ndarray
    n_epochs: np.ndarray
    se: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def decay_constant(self) -> np.ndarray:
        """Lambda [1 / unit of t]; NaN throughout for models without one."""
        return self.params.get("decay_constant", np.full_like(self.sse, np.nan))

    @property
    def rises(self) -> np.ndarray:
        """Whether the fitted curve ends higher than it starts: learning, not forgetting."""
        if self.model == "change_point":
            return self.params["after"] > self.params["before"]
        return self.params.get("amplitude", np.zeros_like(self.sse)) < 0

    def counts(self) -> pd.Series:
        """Number of traces per status, all statuses listed, indexed by lower-case name."""
        n = np.bincount(self.status.ravel(), minlength=len(Status))
        return pd.Series(n, index=[s.name.lower() for s in Status], name="traces")

    def to_frame(self) -> pd.DataFrame:
        """One row per trace: `run` (if any), `sample`, all that was fitted, `status`."""
        index = np.indices(self.status.shape, dtype=np.int32).reshape(self.status.ndim, -1)
        names = ("run", "sample")[-self.status.ndim :]
        columns = dict(zip(names, index, strict=True)) | self.params
        columns |= {f"{name}_se": values for name, values in self.se.items()}
        for name in ("decay_low", "decay_high", "sse", "r2", "log_likelihood", "aicc", "n_epochs"):
            columns[name] = getattr(self, name)
        status = pd.Categorical.from_codes(self.status.ravel(), [s.name.lower() for s in Status])
        return pd.DataFrame({k: np.ravel(v) for k, v in columns.items()} | {"status": status})

    def predict(self, t) -> np.ndarray:
        """The fitted curves at times `t` (epoch,), as `(..., epoch, sample)`; NaN if not fitted."""
        t = np.asarray(t, float)[:, None]
        of = {name: values[..., None, :] for name, values in self.params.items()}
        if self.model == "constant":
            return np.repeat(of["level"], len(t), axis=-2)
        if self.model == "change_point":
            return np.where(t < of["change"], of["before"], of["after"])
        curve = CURVES[self.model]
        rate = of["exponent"] if self.model == "power" else of["decay_constant"]
        shape = torch.from_numpy(of["shape"]).log() if curve.shaped else None
        clock = curve.clock(torch.from_numpy(t))
        p = lost(clock, torch.from_numpy(np.asarray(rate)).log(), shape).numpy()
        floor = of.get("floor", 0.0)
        amplitude = of["amplitude"] if "amplitude" in of else 1 - floor
        return floor + amplitude * (1 - p)

    def __repr__(self):
        found = ", ".join(f"{n:,} {name}" for name, n in self.counts().items() if n)
        rising = f", {self.rises.mean():.0%} rise" if self.rises.any() else ""
        traces = f"{self.status.size:,} traces: {found or 'none'}{rising}"
        return f"DecayFit({self.model}, {self.loss}, {traces})"


def tied(constants: np.ndarray) -> np.ndarray:
    """Decay constants to 6 decimals of their logarithm, so that equal ones tie.

    Traces that differ where a curve cannot (all start at R(0) = 1) have the same constant but for
    the solver's rounding, which must not rank them.

    Examples
    --------
    >>> float(np.ptp(tied(np.array([0.2, 0.2 + 1e-12]))))
    0.0
    """
    return np.exp(np.round(np.log(constants), 6))
