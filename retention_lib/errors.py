"""Standard errors of fitted curves, for both losses, with limits that hold taken into account."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retention_lib.curves import Curve
from retention_lib.mixture import corners_of, mixture
from retention_lib.weibull import SHAPE_BOUNDS

#: A parameter this near to a limit (in log units, or as a probability) is held at it.
_AT_LIMIT = 1e-8


def standard_errors(
    curve: Curve,
    u: Tensor,
    v: Tensor | None,
    c: Tensor,
    w: Tensor,
    t: Tensor,
    bounds: tuple[float, float],
    sse: Tensor | None = None,
    shape_bounds: tuple[float, float] = SHAPE_BOUNDS,
) -> dict[str, Tensor]:
    """Standard errors of the parameters of fitted curves, from the curvature at the optimum.

    With J = dR / dtheta at the fit, the covariance of theta is sigma^2 (J' W J)^-1, where

    * least squares (`sse` given): W = w and sigma^2 = sse / (n - p), n epochs of positive weight;
    * Bernoulli likelihood (`sse` None): W = w / (R (1 - R)) and sigma^2 = 1. This is the expected
      information; unlike the observed one it is never indefinite, and needs no data beyond the fit.

    Parameters
    ----------
    curve : Curve
    u, v, c : Tensor
        The fit: log lambda (trace,), log k (trace,) or None, (c_1, c_2) (2, trace).
    w : Tensor, (epoch, trace) or (epoch, 1)
    t : Tensor, (epoch,) or (epoch, trace)
    bounds, shape_bounds : (float, float)
        Search ranges of lambda and k of the fit.
    sse : Tensor, (trace,), optional

    Returns
    -------
    dict of Tensor, (trace,)
        `decay_constant` [1 / unit of t] and, by curve, `floor` = R(inf), `amplitude` =
        R(0) - R(inf), `shape`. NaN for a parameter held at a limit (the others are then given with
        it held there), where the data cannot tell parameters apart, and for n <= p.

    Notes
    -----
    On simulated 0/1 traces of 200 epochs with lambda 0.1 the median error is the spread of lambda
    for one parameter, 0.85 of it with a floor, and 0.8 or less for the curves with three.

    Examples
    --------
    >>> from retention_lib.curves import CURVES
    >>> u, c = torch.tensor([0.1]).double().log(), torch.tensor([[1.0], [-1.0]]).double()
    >>> w, t = torch.ones(1, 1).double(), torch.tensor([5.0]).double()  # R = exp(-0.5), once
    >>> se = standard_errors(CURVES["exponential"], u, None, c, w, t, (1e-4, 10.0))
    >>> round(float(se["decay_constant"]), 4)  # sqrt(R (1 - R)) / (5 R)
    0.1611
    """
    s = curve.clock(t if t.ndim == 2 else t[:, None])
    if curve.shaped:
        jacobian, right, wrong = _shaped_jacobian(s, u, v)
        free = torch.stack([_between(u, bounds), _between(v, shape_bounds)])
        directions = torch.diag_embed(free.T.to(u))  # (trace, parameter, direction)
    else:
        ab = torch.stack([c[0], c[0] + c[1]])
        jacobian, right, wrong = _mixture_jacobian(s, u, ab)
        directions = _directions(curve, _between(u, bounds) & (ab[0] != ab[1]), ab)
    variance = right * wrong
    weight = w.expand(-1, len(u)) if sse is not None else w / variance
    weight = torch.where(variance > 0, weight, 0.0 if sse is None else weight)
    information = torch.einsum("iet,et,jet->tij", jacobian, weight, jacobian)
    covariance = _inverse(information, directions)
    if sse is not None:
        left = (w > 0).sum(0) - curve.n_params
        covariance = covariance * torch.where(left > 0, sse / left, math.nan)[:, None, None]
    return _named(curve, u, v, covariance)


def _between(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = map(math.log, bounds)
    return (x - low > _AT_LIMIT) & (high - x > _AT_LIMIT)


def _shaped_jacobian(s: Tensor, u: Tensor, v: Tensor):
    """dR / d(u, v) (2, epoch, trace), R and 1 - R of R = exp(-x), x = (lambda s)^k."""
    zeta = v.exp() * (u + torch.where(s > 0, s, 1.0).log())
    x = torch.where(s > 0, zeta.exp(), 0.0)
    right = torch.exp(-x)
    fall = torch.where(right > 0, x * right, 0.0)
    return -torch.stack([v.exp() * fall, zeta * fall]), right, -torch.expm1(-x)


def _mixture_jacobian(s: Tensor, u: Tensor, ab: Tensor):
    """dR / d(u, a, b) (3, epoch, trace), R and 1 - R of R = a e + b p."""
    e, p = mixture(s, u)
    rise = (ab[1] - ab[0]) * s * u.exp() * e
    right, wrong = ab[0] * e + ab[1] * p, (1 - ab[0]) * e + (1 - ab[1]) * p
    return torch.stack([rise, e.expand_as(rise), p.expand_as(rise)]), right, wrong


def _directions(curve: Curve, u_free: Tensor, ab: Tensor) -> Tensor:
    """Directions (trace, 3, 3) in which (u, a, b) may move without leaving a limit that holds."""
    out = ab.new_zeros(ab.shape[1], 3, 3)
    out[:, 0, 0] = u_free.to(ab)
    corners = corners_of(curve, ab)
    if len(corners) == 1:
        return out
    edges = (corners.roll(-1, 0) - corners)[: 1 if len(corners) == 2 else None]
    start = corners[: len(edges)]
    distance = edges[:, 0] * (ab[1] - start[:, 1]) - edges[:, 1] * (ab[0] - start[:, 0])
    held = distance.abs() <= _AT_LIMIT  # (edge, trace)
    along = (edges * held[:, None]).sum(0)  # the one edge held, if it is one
    at_end = ((ab - corners).abs() <= _AT_LIMIT).all(1).any(0)
    n_held = torch.where(at_end, 2, held.sum(0))
    out[:, 1:, 1] = torch.where(n_held == 1, along, 0.0).T
    inside = (n_held == 0).to(ab)
    out[:, 1, 1] += inside
    out[:, 2, 2] += inside
    return out


def _inverse(information: Tensor, directions: Tensor) -> Tensor:
    """Covariance (trace, parameter, parameter) within the directions; NaN where singular."""
    inner = directions.mT @ information @ directions
    scale = inner.diagonal(dim1=1, dim2=2).sqrt()
    unused = (directions == 0).all(1)
    scale = torch.where(unused, 1.0, scale)
    inner = inner / (scale[:, :, None] * scale[:, None]) + torch.diag_embed(unused.to(inner))
    singular = ~(torch.linalg.det(inner) > 1e-12)  # of a correlation matrix
    eye = torch.eye(inner.shape[1], dtype=inner.dtype, device=inner.device)
    inner = torch.where(singular[:, None, None], eye, inner)
    covariance = torch.linalg.inv(inner) / (scale[:, :, None] * scale[:, None])
    covariance = directions @ covariance @ directions.mT
    return torch.where(singular[:, None, None], math.nan, covariance)


def _named(curve: Curve, u: Tensor, v: Tensor | None, covariance: Tensor) -> dict[str, Tensor]:
    def error(*combination: float) -> Tensor:
        k = covariance.new_tensor(combination)
        variance = torch.einsum("i,tij,j->t", k, covariance, k)
        return torch.where(variance > 0, variance, math.nan).sqrt()

    if curve.shaped:
        return {"decay_constant": u.exp() * error(1, 0), "shape": v.exp() * error(0, 1)}
    errors = {"decay_constant": u.exp() * error(1, 0, 0)}
    if len(curve.vertices) > 1:
        errors["floor"] = error(0, 0, 1)
    if len(curve.vertices) > 2:
        errors["amplitude"] = error(0, 1, -1)
    return errors
