"""Global least squares for curves with one linear and one nonlinear parameter, batched.

For a given lambda the best g of q = g p(t; lambda) is a clipped quotient (variable projection), so
that the sum of squares is a function of lambda alone. It is evaluated on a logarithmic grid by
matrix products; every local minimum on the grid is then polished by Newton's method inside its
bracket, and the best is kept.
"""

from __future__ import annotations

import math

import torch

#: Bisection stops at this step in log lambda: its square is lost in the rounding of the SSE.
TOLERANCE = 1e-9
#: Newton stops after a step as small as this: the error it leaves is about its square.
NEWTON_TOLERANCE = 1e-6


def best_fit(q, w, t, nodes, least: float):
    """Minimise sum w (q - g p)^2, p = 1 - exp(-lambda t), over lambda and least <= g <= 1."""
    p = -torch.expm1(-nodes.exp()[:, None] * t)  # (node, epoch)
    pp, pq = (p * p) @ w, p @ (w * q)  # (node, sample)
    g = _project(pq, pp, least)
    sse = g * (g * pp - 2 * pq)  # without sum w q^2
    edge = torch.full_like(sse[:1], math.inf)
    before, after = torch.cat([edge, sse[:-1]]), torch.cat([sse[1:], edge])
    minimal = (sse < before) & (sse <= after)
    k, sample = minimal.nonzero(as_tuple=True)  # at least one a sample, ascending in k
    bend = (before - 2 * sse + after)[minimal]  # vertex of the parabola through three nodes
    start = nodes[k] + (nodes[1] - nodes[0]) * ((before - after)[minimal] / (2 * bend)).nan_to_num()
    q = q[:, sample]
    w = w[:, sample] if w.shape[1] > 1 else w
    u = _polish(start, q, w, t, nodes, k, least)
    g, sse, _, _ = _derivatives(u, q, w, t, least)
    u = torch.where(g == 0, nodes[0], u)  # nothing lost: lambda is free, the smallest is meant
    # Of several local minima the best; of equals the first, which has the smallest lambda.
    best = sse.new_full((pq.shape[1],), math.inf).scatter_reduce(0, sample, sse, "amin")
    order = torch.arange(len(sample), device=q.device)
    order = torch.where(sse <= best[sample], order, len(sample))
    pick = order.new_full(best.shape, len(sample)).scatter_reduce(0, sample, order, "amin")
    return u[pick].exp(), g[pick], sse[pick]


def _project(pq, pp, least: float):
    """Best g for given lambda: the unconstrained optimum, clipped, which is exact for one g."""
    return (pq / pp.clamp_min(torch.finfo(pp.dtype).tiny)).clamp(least, 1.0)


def _derivatives(u, q, w, t, least: float):
    """Best g, profile SSE and its first two derivatives in u = log lambda, each (sample,)."""
    x = t[:, None] * u.exp()
    p = -torch.expm1(-x)
    slope = x * (1 - p)  # dp / du
    wp, ws = w * p, w * slope
    pp, pq = (wp * p).sum(0), (wp * q).sum(0)
    g = _project(pq, pp, least)
    rest = q - g * p
    descent = (ws * rest).sum(0)
    curvature = g * (g * (ws * slope).sum(0) - (ws * (1 - x) * rest).sum(0))
    free = (g > least) & (g < 1)  # then g follows lambda and lowers the curvature
    cross = g * (ws * p).sum(0) - descent
    curvature = curvature - torch.where(free, cross**2 / pp.clamp_min(1e-300), 0.0)
    return g, (w * rest**2).sum(0), -2 * g * descent, 2 * curvature


def _polish(u, q, w, t, nodes, k, least: float):
    """Newton in log lambda from `u` (trace,), kept between the neighbours of grid node `k`."""
    low, high = nodes[(k - 1).clamp_min(0)], nodes[(k + 1).clamp_max(len(nodes) - 1)]
    u = u.clamp(low, high)
    result, active = u.clone(), torch.arange(len(u), device=u.device)
    for step in range(60):  # 40 bisections alone shrink a bracket of 0.36 below the tolerance
        if len(active) == 0:
            break
        _, _, gradient, curvature = _derivatives(u, q, w, t, least)
        falling = gradient < 0
        low, high = torch.where(falling, u, low), torch.where(falling, high, u)
        newton = u - gradient / curvature
        inside = (curvature > 0) & (newton >= low) & (newton <= high) & (step < 20)
        new = torch.where(inside, newton, (low + high) / 2)
        result[active] = new
        enough = torch.where(inside, NEWTON_TOLERANCE, TOLERANCE)
        going = (new - u).abs() > enough
        active, u, low, high = active[going], new[going], low[going], high[going]
        q, w = q[:, going], w[:, going] if w.shape[1] > 1 else w
    return result
