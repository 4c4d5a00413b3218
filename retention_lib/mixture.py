"""The Bernoulli likelihood of R = a e + b p over the polygon of (a, b), and its global maximum.

A fractional observation y is two rows, right with weight w y and wrong with weight w (1 - y); so
every row has the probability q = R or q = 1 - R, affine in (a, b), and weighs in with w log q.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retention_lib.curves import Curve
from retention_lib.polygon import first_of_best, newton_target, peaks, take

#: Grid spacing in log lambda. Two maxima nearer than that were met on one trace in ten thousand at
#: 0.36 (coin flips, 30 epochs), on none of 36,000 at this.
_SPACING = 0.25
#: Newton's method in (a, b) stops after a step that promised no more than this gain.
ROUGH, FINE = 1e-3, 1e-11
#: Newton's method in log lambda stops after a step as small as this, and bisection at the second.
_NEWTON_STEP, _BISECTION_STEP = 1e-6, 1e-9


def corners_of(curve: Curve, like: Tensor) -> Tensor:
    """The polygon in (a, b) = (c_1, c_1 + c_2), counter-clockwise, (corner, 2, 1)."""
    corners = torch.tensor(curve.vertices, dtype=like.dtype, device=like.device)
    corners[:, 1] += corners[:, 0]
    following = corners.roll(-1, 0)
    area = (corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum()
    return (corners if area >= 0 else corners.flip(0))[..., None]


def mixture(s: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """e = exp(-lambda s) and p = 1 - e, neither of them a difference."""
    x = s * u.exp()
    return torch.exp(-x), -torch.expm1(-x)


def rows(y: Tensor, w: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sign (1 right, -1 wrong), weight and s; a fractional y is two rows, right and wrong."""
    if ((y == 0) | (y == 1)).all():
        return 2 * y - 1, w, s
    sign = torch.ones_like(y)
    return torch.cat([sign, -sign]), torch.cat([w * y, w * (1 - y)]), torch.cat([s, s])


def _odds(ab: Tensor, e: Tensor, p: Tensor, sign: Tensor) -> Tensor:
    """Probability (row, trace) of what was observed: R where right, 1 - R where wrong."""
    if e.shape[1] == 1:
        ep = torch.cat([e, p], 1)
        r, miss = ep @ ab, ep @ (1 - ab)
    else:
        r, miss = ab[0] * e + ab[1] * p, (1 - ab[0]) * e + (1 - ab[1]) * p
    # For weights of 0 and 1 `lerp` is exact, and many times faster than `where`.
    return torch.lerp(miss, r, sign.clamp_min(0)).clamp_min_(1e-300)


def loglik_of(ab: Tensor, e: Tensor, p: Tensor, sign: Tensor, w: Tensor) -> Tensor:
    """Sum of w log q, (trace,)."""
    return (w * _odds(ab, e, p, sign).log_()).sum(0)


def search(sign: Tensor, w: Tensor, s: Tensor, bounds, corners: Tensor):
    """u = log lambda, (a, b) and log-likelihood of the global maximum: grid, polish, choose."""
    n = sign.shape[1]
    n_nodes = max(2, math.ceil(math.log(bounds[1] / bounds[0]) / _SPACING) + 1)
    nodes = torch.linspace(*map(math.log, bounds), n_nodes).to(s)
    ab, grid, value = corners.mean(0).expand(-1, n), [], []
    for u in nodes:
        e, p = mixture(s, u)
        ab = best_mixture(ab, e, p, sign, w, corners, ROUGH)  # starts from the neighbour's best
        grid.append(ab)
        value.append(loglik_of(ab, e, p, sign, w))
    value = torch.stack(value)
    # A constant does not depend on lambda: its many maxima, apart only by rounding, are one.
    mean, constant = _constant(sign, w, corners)
    value = torch.where(value <= constant + 1e-9, constant, value)
    node, trace = peaks(value).nonzero(as_tuple=True)
    data = sign[:, trace], take(w, trace), take(s, trace)
    start = _vertex(nodes, value, node, trace)
    u, ab = _polish(nodes, node, start, torch.stack(grid)[node, :, trace].T, *data, corners)
    e, p = mixture(data[2], u)
    ab = best_mixture(ab, e, p, *data[:2], corners, FINE)  # for the very last u
    loglik = loglik_of(ab, e, p, *data[:2])
    pick = first_of_best(loglik, u, trace, n)
    u, ab, loglik = u[pick], ab[:, pick], loglik[pick]
    flat = constant >= loglik - 1e-12 * (1 + loglik.abs())
    return torch.where(flat, nodes[0], u), torch.where(flat, mean, ab), loglik


def _constant(sign: Tensor, w: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """The best constant, a = b = mean, and its log-likelihood; -inf where it is not allowed."""
    right, wrong = (w * sign.clamp_min(0)).sum(0), (w * (-sign).clamp_min(0)).sum(0)
    mean = (right / (right + wrong)).nan_to_num()
    loglik = torch.xlogy(right, mean) + torch.xlogy(wrong, 1 - mean)
    edge = corners.roll(-1, 0) - corners  # a segment is a polygon that goes there and back
    left = edge[:, 0] * (mean - corners[:, 1]) - edge[:, 1] * (mean - corners[:, 0])
    return mean, torch.where((left >= 0).all(0), loglik, -math.inf)


def _vertex(nodes: Tensor, value: Tensor, node: Tensor, trace: Tensor) -> Tensor:
    """Top of the parabola through a grid maximum and its neighbours; at the ends the node."""
    before, after = (node - 1).clamp_min(0), (node + 1).clamp_max(len(nodes) - 1)
    left, top, right = (value[at, trace] for at in (before, node, after))
    shift = ((right - left) / (2 * (2 * top - left - right))).nan_to_num().clamp(-1.0, 1.0)
    return nodes[node] + (nodes[1] - nodes[0]) * torch.where(before + 2 == after, shift, 0.0)


def best_mixture(ab, e, p, sign, w, corners, tolerance: float) -> Tensor:
    """The best (a, b) (2, trace) in the polygon at given e and p, by damped Newton steps.

    Where a step would change the probability of some observation by a share r, a part 1 / (1 + r)
    of it is sure to raise a sum of logarithms, and the whole step if r < 0.68.
    """
    result, active = ab.clone(), torch.arange(ab.shape[1], device=ab.device)
    unit = bool(((w == 0) | (w >= 1)).all())
    for _ in range(100):
        q, _, _, gradient, moments = _slopes(ab, e, p, sign, w)
        target, _ = newton_target(ab, gradient, moments, corners)
        step = target - ab
        gain = (gradient * step).sum(0)
        if unit:  # r^2 <= sum w (change / q)^2, which is no more than the gain
            share = gain.clamp_min(0.0).sqrt()
        else:
            change = (step[0] * e + step[1] * p) / q
            share = torch.where(w > 0, change, 0.0).abs().amax(0)
        whole = share <= 0.5
        ab = torch.where(whole, target, ab + step / (1 + share))
        result[:, active] = ab
        going = ~(whole & (gain <= tolerance))
        n_going = int(going.sum())
        if n_going == 0:
            break
        if n_going < 0.9 * len(going):
            active, ab, sign, w = active[going], ab[:, going], sign[:, going], take(w, going)
            e, p = take(e, going), take(p, going)
    return result


def _slopes(ab, e, p, sign, w):
    """q, its derivatives of the summands in R, gradient and negative Hessian in (a, b)."""
    q = _odds(ab, e, p, sign)
    pull = w / q
    bend = pull / q
    pull = pull * sign
    if e.shape[1] == 1:
        ep = torch.cat([e, p], 1).T
        squares = torch.cat([e * e, e * p, p * p], 1).T
        return q, pull, bend, ep @ pull, squares @ bend
    gradient = torch.stack([(e * pull).sum(0), (p * pull).sum(0)])
    along_e, along_p = e * bend, p * bend
    moments = [(along_e * e).sum(0), (along_e * p).sum(0), (along_p * p).sum(0)]
    return q, pull, bend, gradient, torch.stack(moments)


def _ridge(u, ab, sign, w, s, corners):
    """Slope and curvature in u of the log-likelihood at its best (a, b), which follow u."""
    x, (e, p) = s * u.exp(), mixture(s, u)
    _, pull, bend, gradient, m = _slopes(ab, e, p, sign, w)
    fall, height = x * e, ab[1] - ab[0]  # dp / du, and what it moves
    slope = (pull * fall).sum(0)
    curvature = height * (pull * fall * (1 - x)).sum(0) - height**2 * (bend * fall**2).sum(0)
    bent = height * bend * fall
    cross_a, cross_b = -slope - (bent * e).sum(0), slope - (bent * p).sum(0)
    _, (dx, dy) = newton_target(ab, gradient, m, corners)
    stiffness = m[0] * dx**2 + 2 * m[1] * dx * dy + m[2] * dy**2
    on_edge = (cross_a * dx + cross_b * dy) ** 2 / stiffness
    inside = m[2] * cross_a**2 - 2 * m[1] * cross_a * cross_b + m[0] * cross_b**2
    inside = inside / (m[0] * m[2] - m[1] ** 2)
    return height * slope, curvature + torch.where(dx.isnan(), inside, on_edge.nan_to_num())


def _polish(nodes, node, u, ab, sign, w, s, corners):
    """Newton in u, kept by bisection between the neighbours of grid node `node` (candidate,)."""
    low, high = nodes[(node - 1).clamp_min(0)], nodes[(node + 1).clamp_max(len(nodes) - 1)]
    result, active = torch.cat([u[None], ab]), torch.arange(len(u), device=u.device)
    for attempt in range(60):  # 40 bisections alone shrink a bracket below the tolerance
        ab = best_mixture(ab, *mixture(s, u), sign, w, corners, FINE)
        slope, curvature = _ridge(u, ab, sign, w, s, corners)
        low, high = torch.where(slope > 0, u, low), torch.where(slope > 0, high, u)
        newton = u - slope / curvature
        inside = (curvature < 0) & (newton >= low) & (newton <= high) & (attempt < 20)
        new = torch.where(inside, newton, (low + high) / 2)
        result[:, active] = torch.cat([new[None], ab])
        going = (new - u).abs() > torch.where(inside, _NEWTON_STEP, _BISECTION_STEP)
        if not going.any():
            break
        active, u, low, high, ab = active[going], new[going], low[going], high[going], ab[:, going]
        sign, w, s = sign[:, going], take(w, going), take(s, going)
    return result[0], result[1:]
