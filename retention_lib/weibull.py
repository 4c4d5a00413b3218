"""Curves that never level off, R = exp(-(lambda s)^k): a line on the complementary log-log scale.

    log(-log R) = zeta = m + k log s,   m = k log lambda,

so a fit is a search in the plane (m, k), inside the polygon that the limits of lambda and k cut
out. k = 1 is the plain exponential (or, with s = log(1 + t), the power law). The Bernoulli
log-likelihood is concave in (m, k), because exp(-exp(zeta)) and 1 - exp(-exp(zeta)) both have
concave logarithms: Newton's method finds its one maximum. The sum of squares is not, and needs a
grid of starting points.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from retention_lib.polygon import climb, first_of_best, peaks, take

#: Search range of the shape k of a Weibull curve: from nearly a power law to a sudden drop.
SHAPE_BOUNDS = (0.1, 10.0)
#: Grid spacing in log k and in k log lambda: what a curve looks like depends on these alone.
_SPACING = 0.36
#: Grid minima that are polished; the best was among the first four on every trace tried.
_STARTS = 5


class Fit(NamedTuple):
    """u = log lambda, v = log k (trace,), c = (1, -1) (2, trace), sum of squares (trace,)."""

    u: Tensor
    v: Tensor
    c: Tensor
    sse: Tensor


def minimise_weibull(
    y: Tensor, w: Tensor, t: Tensor, bounds: tuple[float, float], shape_bounds=SHAPE_BOUNDS
) -> Fit:
    """Least squares for R = exp(-(lambda t)^k), to the global minimum of sum w (y - R)^2.

    Parameters
    ----------
    y : Tensor, (epoch, trace)
        float64; ignored where `w` is 0.
    w : Tensor, (epoch, trace) or (epoch, 1)
        Weights, not negative.
    t : Tensor, (epoch,) or (epoch, trace)
        Times since the origin, not negative.
    bounds, shape_bounds : (float, float)
        Search ranges of lambda and k.

    Returns
    -------
    Fit
        Of several minima of equal height the one with the smallest lambda.

    Notes
    -----
    A grid over (k log lambda, log k) gives up to five starts, every one a minimum along its row
    of equal k, which Newton's method with Levenberg's shift then polishes inside the limits.

    Examples
    --------
    >>> t = torch.arange(12, dtype=torch.float64)
    >>> y = torch.exp(-((0.2 * t) ** 1.5))[:, None]
    >>> fit = minimise_weibull(y, torch.ones_like(y), t, (1e-4, 10.0))
    >>> round(float(fit.u.exp()), 6), round(float(fit.v.exp()), 6)
    (0.2, 1.5)
    """
    certain = _certain(y, w, t)
    y, w, log_s = prepare(y, w, t)
    rows = []
    n_rows = max(2, math.ceil(math.log(shape_bounds[1] / shape_bounds[0]) / _SPACING) + 1)
    for k in torch.linspace(*map(math.log, shape_bounds), n_rows, dtype=y.dtype).exp().tolist():
        width = math.log(bounds[1] / bounds[0]) * max(k, 1.0)  # at least as fine as for k = 1
        m = torch.linspace(*map(math.log, bounds), max(2, math.ceil(width / _SPACING) + 1))
        m = (m.to(log_s) * k)[:, None]
        rows.append(_row_minima(m, k, y, w, log_s))
    m, k, sse = (torch.cat(parts) for parts in zip(*rows, strict=True))
    sse, order = sse.topk(min(_STARTS, len(sse)), 0, largest=False)
    start = torch.stack([m.gather(0, order), k.gather(0, order)])  # (2, start, trace)
    found, trace = sse.isfinite().nonzero(as_tuple=True)
    corners = region(bounds, shape_bounds).to(y)
    data = [take(x, trace) for x in (y, w, log_s)]
    point, value = climb(_squares, data, start[:, found, trace], corners)
    u = (point[0] / point[1]).clamp(math.log(bounds[0]), math.log(bounds[1]))
    pick = first_of_best(value, u, trace, y.shape[1])
    return Fit(u[pick], point[1, pick].log(), _point(u[pick]), certain - value[pick])


def profile_weibull(
    u: Tensor, y: Tensor, w: Tensor, t: Tensor, shape_bounds=SHAPE_BOUNDS
) -> tuple[Tensor, Tensor]:
    """Best v = log k at a given u = log lambda (trace,), and its sum of squares (trace,)."""
    certain = _certain(y, w, t)
    y, w, log_s = prepare(y, w, t)
    corners = ray(u, shape_bounds)
    n_nodes = max(2, math.ceil(math.log(shape_bounds[1] / shape_bounds[0]) / (_SPACING / 2)) + 1)
    k = torch.linspace(*map(math.log, shape_bounds), n_nodes, dtype=y.dtype, device=y.device).exp()
    value = torch.stack([_squares(torch.stack([x * u, x.expand_as(u)]), y, w, log_s)[0] for x in k])
    node, trace = peaks(value).nonzero(as_tuple=True)
    start = torch.stack([k[node] * u[trace], k[node]])
    data = [take(x, trace) for x in (y, w, log_s)]
    point, value = climb(_squares, data, start, corners[..., trace])
    pick = first_of_best(value, point[1], trace, y.shape[1])
    return point[1, pick].log(), certain - value[pick]


def maximise_line(y: Tensor, w: Tensor, s: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum over a polygon of (m, k) of the Bernoulli log-likelihood, which is concave there.

    `s` is the clock, (epoch,) or (epoch, trace); `corners` (corner, 2, trace or 1) as `region` and
    `ray` give them. Returns the point (2, trace) and its log-likelihood. Entries with s = 0, where
    R = 1 whatever the parameters, are left out.
    """
    y, w, log_s = prepare(y, w, s)
    zeros, time = w * (1 - y), log_s.exp()
    # log R = -x and log(1 - R) = log x - x / 2 + ...: a first guess of lambda for k = 1.
    rate = zeros.sum(0) / ((w - zeros / 2) * time).sum(0).clamp_min(1e-300)
    k = corners[:, 1].amax(0).clamp_max(1.0).expand_as(rate)
    ends = corners[:, 0] / corners[:, 1]
    u = torch.minimum(torch.maximum(rate.clamp_min(1e-300).log(), ends.amin(0)), ends.amax(0))
    return climb(_bernoulli, [y, w, log_s], torch.stack([k * u, k]), corners)


def region(bounds: tuple[float, float], shape_bounds: tuple[float, float]) -> Tensor:
    """Corners (4, 2, 1), counter-clockwise, of the (m, k) with lambda and k inside their limits."""
    (low, high), (least, most) = map(math.log, bounds), shape_bounds
    corners = [(least * low, least), (least * high, least), (most * high, most), (most * low, most)]
    return torch.tensor(corners, dtype=torch.float64)[..., None]


def ray(u: Tensor, shape_bounds: tuple[float, float]) -> Tensor:
    """Ends (2, 2, trace) of the segment of (m, k) on which log lambda is `u` (trace,)."""
    return torch.stack([torch.stack([k * u, torch.full_like(u, k)]) for k in shape_bounds])


def prepare(y: Tensor, w: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, w and log s (epoch, trace or 1), with what says nothing about (m, k) taken out."""
    s = s[:, None] if s.ndim == 1 else s
    w = torch.where(s > 0, w, 0.0)
    return torch.where(w > 0, y, 0.0), w, torch.where(s > 0, s, 1.0).log()


def _certain(y: Tensor, w: Tensor, s: Tensor) -> Tensor:
    """Sum of squares (trace,) of the entries that `prepare` takes out, where R = 1."""
    s = s[:, None] if s.ndim == 1 else s
    return torch.where((s == 0) & (w > 0), w * (y - 1) ** 2, 0.0).sum(0)


def _point(u: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(u), -torch.ones_like(u)])


def _row_minima(m: Tensor, k: float, y: Tensor, w: Tensor, log_s: Tensor):
    """The three lowest local minima over `m` (node, 1) at one k: m, k and sum of squares."""
    if log_s.shape[1] == 1:  # shared times: two matrix products
        curve = torch.exp(-torch.exp(m + k * log_s[:, 0]))  # (node, epoch)
        sse = (curve**2 @ w).expand(-1, y.shape[1]) - 2 * curve @ (w * y)
    else:
        sse = torch.cat([-_squares_at(x + k * log_s, y, w)[0][None] for x in m])
    sse = torch.where(peaks(-sse), sse, math.inf)
    sse, node = sse.topk(min(3, len(m)), 0, largest=False)
    return m[:, 0][node], torch.full_like(sse, k), sse


def _moments(slope: Tensor, bend: Tensor, log_s: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (2, trace) and curvature (3, trace) in (m, k) from derivatives in zeta."""
    bent = bend * log_s
    gradient = torch.stack([slope.sum(0), (slope * log_s).sum(0)])
    return gradient, torch.stack([bend.sum(0), bent.sum(0), (bent * log_s).sum(0)])


def _squares_at(zeta: Tensor, y: Tensor, w: Tensor):
    x = zeta.exp()
    curve = torch.exp(-x)
    rest = y - curve
    return -(w * rest**2).sum(0), x, curve, rest


def _squares(point: Tensor, y: Tensor, w: Tensor, log_s: Tensor):
    """-SSE, its gradient and its negative second derivatives in (m, k)."""
    value, x, curve, rest = _squares_at(point[0] + point[1] * log_s, y, w)
    fall = torch.where(curve > 0, x * curve, 0.0)  # -dR / dzeta; x may have overflowed
    turn = torch.where(curve > 0, fall * (1 - x), 0.0)
    return value, *_moments(-2 * w * rest * fall, 2 * w * (fall**2 + rest * turn), log_s)


def _bernoulli(point: Tensor, y: Tensor, w: Tensor, log_s: Tensor):
    """Log-likelihood, its gradient and its negative second derivatives in (m, k)."""
    x = (point[0] + point[1] * log_s).exp()
    right, wrong = w * y, w * (1 - y)
    value = -(right * x).sum(0) + torch.xlogy(wrong, -torch.expm1(-x)).sum(0)
    odds = x / torch.expm1(x).clamp_min(1e-300)  # d log(1 - R) / dzeta
    odds = torch.where(odds > 0, odds, 0.0)
    right = right * x
    turn = wrong * odds
    return value, *_moments(turn - right, right + turn * (x + odds - 1).clamp_min(0.0), log_s)
