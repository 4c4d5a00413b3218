"""Newton's method inside a convex polygon of two parameters, for many traces at once.

The quadratic model of every step is maximised over the polygon itself, in closed form: in the
interior, along an edge or at a corner. A limit that holds is so met exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Newton's method stops after a step that promised a gain as small as this, relative to 1 + |f|.
_GAIN = 1e-13


def climb(
    function: Callable, data: list[Tensor], start: Tensor, corners: Tensor
) -> tuple[Tensor, Tensor]:
    """A local maximum of `function` in a convex polygon, by Newton's method with Levenberg's shift.

    `function(point, *data)` gives value (trace,), gradient (2, trace) and negative Hessian
    (3, trace). Returns the point (2, trace) and its value, which never falls below the start's.
    """
    point, best = start.clone(), start.new_empty(start.shape[1])
    active = torch.arange(start.shape[1], device=start.device)
    value, gradient, bend = function(start, *data)
    here, shift = start, torch.zeros_like(value)
    for _ in range(200):
        spread = (bend[0] + bend[2]).abs() + 1e-300
        bowl = (bend[0] + bend[2]) / 2 - (((bend[0] - bend[2]) / 2) ** 2 + bend[1] ** 2).sqrt()
        lift = shift * spread + (1e-6 * spread - bowl).clamp_min(0.0) * (bowl <= 0)
        lifted = torch.stack([bend[0] + lift, bend[1], bend[2] + lift])
        target, _ = newton_target(here, gradient, lifted, corners)
        gain = (gradient * (target - here)).sum(0)
        trial = function(target, *data)
        better = trial[0] >= value - 1e-15 * value.abs()
        here = torch.where(better, target, here)
        value, gradient, bend = (
            torch.where(better, a, b) for a, b in zip(trial, (value, gradient, bend), strict=True)
        )
        shift = torch.where(better, (shift / 10) * (shift > 1e-4), (shift * 10).clamp_min(1e-3))
        point[:, active], best[active] = here, value
        going = (gain > _GAIN * (1 + value.abs())) & (shift < 1e12)
        if not going.any():
            break
        active, here, value, shift = active[going], here[:, going], value[going], shift[going]
        gradient, bend = gradient[:, going], bend[:, going]
        data, corners = [take(x, going) for x in data], take(corners, going)
    return point, best


def newton_target(
    point: Tensor, gradient: Tensor, bend: Tensor, corners: Tensor
) -> tuple[Tensor, Tensor]:
    """The maximum over a convex polygon of g'd - d'Md / 2, d = x - point, in closed form.

    Parameters
    ----------
    point, gradient : Tensor, (2, trace)
    bend : Tensor, (3, trace)
        M11, M12 and M22 of a positive definite M.
    corners : Tensor, (corner, 2, trace or 1)
        Counter-clockwise; two corners are a segment.

    Returns
    -------
    target : Tensor, (2, trace)
    along : Tensor, (2, trace)
        Direction of the edge the target lies on, zero at a corner, NaN in the interior.
    """
    ridge = 1e-14 * (bend[0] + bend[2]) + 1e-300
    m11, m12, m22 = bend[0] + ridge, bend[1], bend[2] + ridge
    ends = corners.roll(-1, 0)
    edges = (ends - corners)[: 1 if len(corners) == 2 else None]
    corners = corners[: len(edges)]
    offset = corners - point  # (edge, 2, trace)
    force_1 = gradient[0] - m11 * offset[:, 0] - m12 * offset[:, 1]
    force_2 = gradient[1] - m12 * offset[:, 0] - m22 * offset[:, 1]
    dx, dy = edges[:, 0], edges[:, 1]
    slope = force_1 * dx + force_2 * dy
    stiff = m11 * dx**2 + 2 * m12 * dx * dy + m22 * dy**2
    share = (slope / stiff).clamp(0.0, 1.0)
    if len(edges) == 1:
        edge = torch.zeros_like(share[0], dtype=torch.long)
    else:
        x, y = offset[:, 0] + share * dx, offset[:, 1] + share * dy
        gain = gradient[0] * x + gradient[1] * y
        gain = gain - (m11 * x**2 + 2 * m12 * x * y + m22 * y**2) / 2
        edge = gain.argmax(0)
    full = torch.where((share == 1)[:, None], ends[: len(edges)], corners + share[:, None] * edges)
    pick = edge[None, None].expand(1, 2, -1)
    target = full.gather(0, pick)[0]
    at_corner = ((share == 0) | (share == 1)).gather(0, edge[None])[0]
    along = edges.expand(-1, -1, len(at_corner)).gather(0, pick)[0]
    along = torch.where(at_corner, 0.0, along)
    if len(edges) == 1:
        return target, along
    det = m11 * m22 - m12**2
    x = point[0] + (m22 * gradient[0] - m12 * gradient[1]) / det
    y = point[1] + (m11 * gradient[1] - m12 * gradient[0]) / det
    left = dx * (y - corners[:, 1]) - dy * (x - corners[:, 0])
    inside = (left >= 0).all(0) & (det > 0)
    free = torch.stack([x, y])
    return torch.where(inside, free, target), torch.where(inside, math.nan, along)


def take(x: Tensor, columns: Tensor) -> Tensor:
    return x[..., columns] if x.shape[-1] > 1 else x


def peaks(value: Tensor) -> Tensor:
    """Local maxima along the first axis; of equal neighbours the first."""
    edge = torch.full_like(value[:1], -math.inf)
    return (value > torch.cat([edge, value[:-1]])) & (value >= torch.cat([value[1:], edge]))


def first_of_best(value: Tensor, u: Tensor, trace: Tensor, n: int) -> Tensor:
    """Index (n,) into candidates: per trace the highest `value`, of equal ones the smallest `u`."""
    best = value.new_full((n,), -math.inf).scatter_reduce(0, trace, value, "amax")[trace]
    good = value >= best - 1e-12 * (1 + best.abs())
    least = u.new_full((n,), math.inf).scatter_reduce(
        0, trace, torch.where(good, u, math.inf), "amin"
    )
    order = torch.arange(len(u), device=u.device)
    order = torch.where(good & (u <= least[trace]), order, len(u))
    return order.new_full((n,), len(u)).scatter_reduce(0, trace, order, "amin")
