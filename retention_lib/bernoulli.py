"""Maximum likelihood for 0/1 traces: sum w [y log R + (1 - y) log(1 - R)], batched, global.

In the two probabilities a = R(0) = c_1 and b = R(inf) = c_1 + c_2 a curve is the mixture
R = a e + b p, with p = 1 - exp(-lambda s) and e = 1 - p. For given lambda the log-likelihood is a
sum of logarithms of affine functions of (a, b), hence concave, and Newton's method finds its one
maximum in the polygon of allowed (a, b). What remains is a function of u = log lambda alone, which
is searched on a grid; every local maximum is polished, and the best is kept. The curves without
(a, b) need no grid: their likelihood has one maximum (`weibull`, `_rate`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from retention_lib.curves import Curve
from retention_lib.mixture import FINE, best_mixture, corners_of, loglik_of, mixture, rows, search
from retention_lib.polygon import take
from retention_lib.weibull import SHAPE_BOUNDS, maximise_line, ray, region


class Fit(NamedTuple):
    """Maximum-likelihood curves.

    u = log lambda (trace,); v = log k (trace,), None unless the curve is shaped; c (2, trace);
    loglik (trace,) in nats. A trace that the model contradicts (something was wrong where R = 1)
    has loglik -inf and NaN elsewhere.
    """

    u: Tensor
    v: Tensor | None
    c: Tensor
    loglik: Tensor


def maximise(
    curve: Curve,
    y: Tensor,
    w: Tensor,
    t: Tensor,
    bounds: tuple[float, float],
    shape_bounds: tuple[float, float] = SHAPE_BOUNDS,
) -> Fit:
    """The global maximum of the Bernoulli log-likelihood sum w [y log R + (1 - y) log(1 - R)].

    Parameters
    ----------
    curve : Curve
    y : Tensor, (epoch, trace)
        float64, in 0..1; ignored where `w` is 0.
    w : Tensor, (epoch, trace) or (epoch, 1)
        Weights, not negative; a weight of 2 is the row twice.
    t : Tensor, (epoch,) or (epoch, trace)
        Times since the origin, not negative.
    bounds, shape_bounds : (float, float)
        Search ranges of lambda, and of k if the curve is shaped.

    Returns
    -------
    Fit
        Of equal maxima the one with the smallest lambda; so a curve that is constant in the end
        (amplitude 0) has lambda at its lower bound.

    Raises
    ------
    ValueError
        On y outside 0..1 or NaN where the weight is positive.

    Notes
    -----
    Traces of 0 and 1 that are equal in all rows are fitted once.

    Examples
    --------
    >>> from retention_lib.curves import CURVES
    >>> y = torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)
    >>> t = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)  # R = 2/3 after one epoch
    >>> fit = maximise(CURVES["exponential"], y, torch.ones_like(y), t, (1e-4, 10.0))
    >>> round(float(fit.u.exp()), 6), round(math.log(1.5), 6)
    (0.405465, 0.405465)
    """
    y, w, s, dead = _prepare(curve, y, w, t)
    pick, back = _distinct(y, w, s)
    y, w, s = take(y, pick), take(w, pick), take(s, pick)
    v = None
    if curve.shaped:
        point, loglik = maximise_line(y, w, s, region(bounds, shape_bounds).to(y))
        u, v = point[0] / point[1], point[1].log()
    elif len(curve.vertices) == 1:
        u = _rate(w * y, w * (1 - y), s, bounds)
        loglik = _line_loglik(u, w * y, w * (1 - y), s)
    else:
        u, ab, loglik = search(*rows(y, w, s), bounds, corners_of(curve, y))
    flexible = len(curve.vertices) > 1
    c = torch.stack([ab[0], ab[1] - ab[0]]) if flexible else _point(u)
    u = u.clamp(math.log(bounds[0]), math.log(bounds[1]))
    u, v, c = (None if x is None else torch.where(dead, math.nan, x[..., back]) for x in (u, v, c))
    return Fit(u, v, c, torch.where(dead, -math.inf, loglik[back]))


def profile(
    curve: Curve,
    u: Tensor,
    y: Tensor,
    w: Tensor,
    t: Tensor,
    shape_bounds: tuple[float, float] = SHAPE_BOUNDS,
) -> tuple[Tensor, Tensor]:
    """The best remaining parameters at a given u = log lambda (trace,).

    Returns c (2, trace) and the log-likelihood (trace,); for a shaped curve, whose c is fixed, the
    latter is at the best k. -inf where the model contradicts the trace.
    """
    y, w, s, dead = _prepare(curve, y, w, t)
    if curve.shaped:
        c, loglik = _point(u), maximise_line(y, w, s, ray(u, shape_bounds))[1]
    elif len(curve.vertices) == 1:
        c, loglik = _point(u), _line_loglik(u, w * y, w * (1 - y), s)
    else:
        corners, (sign, w, s) = corners_of(curve, y), rows(y, w, s)
        e, p = mixture(s, u)
        ab = best_mixture(corners.mean(0).expand(-1, y.shape[1]), e, p, sign, w, corners, FINE)
        c, loglik = torch.stack([ab[0], ab[1] - ab[0]]), loglik_of(ab, e, p, sign, w)
    return c, torch.where(dead, -math.inf, loglik)


def _prepare(curve: Curve, y: Tensor, w: Tensor, t: Tensor):
    """y, w, s = clock(t) (epoch, trace or 1), and which traces no parameters can have produced."""
    y = torch.where(w > 0, y, 0.0)
    least, most = (float(x) for x in y.aminmax()) if y.numel() else (0.0, 1.0)
    if not (least >= 0 and most <= 1):
        raise ValueError(f"y must lie in 0..1 where w > 0, got {least} to {most}")
    s = curve.clock(t if t.ndim == 2 else t[:, None]).to(y)
    certain = all(vertex[0] == 1 for vertex in curve.vertices)  # R(0) = 1 by definition
    contradiction = (s == 0) & (w > 0) & (y < 1) & certain
    return torch.where(contradiction, 1.0, y), w, s, contradiction.any(0)


def _distinct(y: Tensor, w: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Columns to fit, and for every trace which of them is its own: equal 0/1 traces share one.

    A trace is read as a number of base three: 0 left out, 1 wrong, 2 right.
    """
    everyone = torch.arange(y.shape[1], device=y.device)
    binary = ((y == 0) | (y == 1)).all() and (w.shape[1] == 1 or ((w == 0) | (w == 1)).all())
    if not binary or s.shape[1] > 1 or len(y) > 39:  # 3^39 < 2^63
        return everyone, everyone
    digit = torch.where(w > 0, 1 + y, 0.0).to(torch.int64)
    code = (digit * (3 ** torch.arange(len(y), device=y.device))[:, None]).sum(0)
    _, back = code.unique(return_inverse=True)
    first = back.new_full((int(back.max()) + 1 if len(back) else 0,), len(back))
    return first.scatter_reduce(0, back, everyone, "amin"), back


def _point(u: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(u), -torch.ones_like(u)])


def _rate(right: Tensor, wrong: Tensor, s: Tensor, bounds: tuple[float, float]) -> Tensor:
    """u = log lambda of R = exp(-lambda s), where the derivative of the log-likelihood,

        sum wrong s / (exp(lambda s) - 1) - sum right s,

    is 0. It falls in lambda, so that there is one maximum, and is convex, so that Newton's method
    from below climbs to the root without ever passing it.
    """
    kept = (right * s).sum(0)
    lost = wrong * s
    low, high = bounds
    # 1 / (e^x - 1) > 1 / x - 1 / 2 makes this a lower limit of the root.
    rate = torch.where(s > 0, wrong, 0.0).sum(0) / (kept + lost.sum(0) / 2)
    rate = torch.where(kept > 0, rate, torch.where(lost.sum(0) > 0, high, low)).clamp(low, high)
    result, active = rate.clone(), torch.arange(len(rate), device=s.device)
    s = torch.where(s > 0, s, 1.0)  # there nothing is lost: lost = 0
    for _ in range(100):
        odds = 1 / torch.expm1(rate * s)
        falls = lost * odds
        excess, steepness = falls.sum(0) - kept, (falls * s * (1 + odds)).sum(0)
        new = (rate + (excess / steepness).nan_to_num()).clamp(low, high)
        result[active] = new
        going = (new - rate).abs() > 1e-8 * rate
        if not going.any():
            break
        active, rate, kept, lost = active[going], new[going], kept[going], lost[:, going]
        s = take(s, going)
    return result.log()


def _line_loglik(u: Tensor, right: Tensor, wrong: Tensor, s: Tensor) -> Tensor:
    x = s * u.exp()
    return torch.xlogy(wrong, -torch.expm1(-x)).sum(0) - (right * x).sum(0)
