"""Global weighted least squares for curves with one nonlinear parameter, many traces at once.

For y = sum_j c_j phi_j(t; exp u) the best c at a given u follows from the normal equations, which
are linear in the data: b_j(u) = <phi_j, y> and G_ij(u) = <phi_i, phi_j> (variable projection; Golub
& Pereyra 1973, SIAM J. Numer. Anal. 10, 413-432). For a time grid that all traces share they are
therefore products of the data with tables:

1. at the nodes of a grid of u, which shows every local minimum of the profile to be polished;
2. at Chebyshev points of the bracket around each, as polynomials of u that stand for b and G to
   ten digits or more, so that Newton's method needs no further evaluation of the basis;
3. at the best u alone, exactly, for the coefficients and the residuals.

Where times differ between traces the same is done with the basis evaluated for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from retention_lib.chebyshev import PerTrace, Shared, polish
from retention_lib.linear import Corners, best, fewest, least, pairs, weigh

#: Distance of the nodes in u = log lambda. On 30 epochs, retention traces and noise alone, the
#: fits with one free coefficient lost no minimum to it in 160,000 traces, those with two one.
SPACING = 0.3
#: Losses of two minima that differ by no more than this share are equal: rounding.
_EQUAL = 2e-15
#: So is that at the lower bound, a sum taken in another order.
_LEVEL = 4e-14
#: Traces at a time in passes over (epoch, trace) on a CPU, so that they stay in its cache.
_BLOCK = 8192

Basis = Callable[[Tensor, Tensor], Sequence[Tensor]]


class Fit(NamedTuple):
    """u = log of the nonlinear parameter (trace,), coefficients (J, trace), SSE (trace,)."""

    u: Tensor
    c: Tensor
    sse: Tensor


def minimise(
    basis: Basis,
    y: Tensor,
    w: Tensor,
    t: Tensor,
    bounds: tuple[float, float],
    vertices: Corners = None,
    spacing: float = SPACING,
) -> Fit:
    """Least sum_t w (y - sum_j c_j phi_j(t; exp u))^2 over u and c, for every trace.

    Parameters
    ----------
    basis : callable
        (t, u) -> phi_1 ... phi_J, which broadcast; no derivatives are asked for.
    y : Tensor, (epoch, trace)
        Computed in float64. Where w = 0 anything, NaN too.
    w : Tensor, (epoch, trace) or (epoch, 1)
        Weights, not negative; 0 leaves an entry out.
    t : Tensor, (epoch,) or (epoch, trace)
        Times of all traces, or of each (finite also where w = 0; much slower).
    bounds : (float, float)
        Search range of exp(u), positive.
    vertices : sequence of tuple, optional
        Allowed coefficients: for J = 2 the corners in order of a convex polygon, a segment or a
        point, for J = 1 the ends of an interval or a number. By default they are free.
    spacing : float
        Distance of the grid nodes in u. Minima closer to each other than this may be taken for
        one; the cost is inverse to it.

    Returns
    -------
    Fit
        Of minima that are equal up to rounding the one with the smallest u, thus the lower bound
        where u does not matter. A trace without weight has an SSE of 0, one with NaN or infinity
        where w > 0 an SSE of NaN.

    Raises
    ------
    ValueError
        On shapes, bounds or vertices that do not fit together.

    Examples
    --------
    >>> t = torch.arange(9, dtype=torch.float64)
    >>> y = 0.7 * torch.exp(-0.25 * t)[:, None]
    >>> fit = minimise(lambda t, u: [torch.exp(-u.exp() * t)], y, torch.ones(9, 1), t, (0.01, 10))
    >>> round(float(fit.u.exp()), 9), round(float(fit.c), 9)
    (0.25, 0.7)
    """
    w, t = _checked(y, w, t, bounds, spacing)
    ends = [math.log(x) for x in bounds]
    steps = max(2, math.ceil((ends[1] - ends[0]) / spacing))
    nodes = torch.linspace(*ends, steps + 1, dtype=torch.float64, device=y.device)
    family, offset, corners = _reduced(basis, t, nodes, vertices)
    moments = (Shared if t.shape[1] == 1 else PerTrace)(family, w, t, nodes)
    blocks = [(part, *_block(part, y, w, t)) for part in _parts(y)]
    found = [
        _candidates(moments, corners, part.start, _less(q, offset, part), w, t)
        for part, q, w, t in blocks
    ]
    node, trace, vertex, first = (torch.cat(x) for x in zip(*found, strict=True))
    edges = list(accumulate((len(found[0]) for found in found), initial=0))
    coef = nodes.new_empty(moments.quantities, moments.degree + 1, len(node))
    for (part, q, *rest), ends in zip(blocks, pairwise(edges), strict=True):
        here = slice(*ends)
        moments.polynomials(
            _less(q, offset, part), *rest, node[here], trace[here] - part.start, coef[..., here]
        )
    x, loss = polish(coef, node, vertex, steps, corners)
    u = nodes[node.clamp(1, steps - 1)] + x * (nodes[1] - nodes[0])
    u = _best_of_each(u.clamp_(nodes[0], nodes[-1]), loss, trace, first, nodes[0])
    exact = [profile(basis, u[part], q, w, t, vertices) for part, q, w, t in blocks]
    return Fit(u, *(torch.cat(values, -1) for values in zip(*exact, strict=True)))


def profile(
    basis: Basis, u: Tensor, y: Tensor, w: Tensor, t: Tensor, vertices: Corners = None
) -> tuple[Tensor, Tensor]:
    """Best coefficients (J, trace) and their SSE (trace,) at given u (trace,), from residuals.

    The other arguments are those of `minimise`, in float64, with finite `y`.
    """
    form = fewest(vertices)
    phi = _values(basis, t[:, None] if t.ndim == 1 else t, u)
    parts = phi if form.span is None else [weigh(row, phi) for row in form.span]
    rest = y if form.offset is None else y - weigh(form.offset, phi)
    b = [_dot(w, part, rest) for part in parts]
    gram = [_dot(w, parts[i], parts[j]) for i, j in pairs(len(parts))]
    c = torch.stack(best(b, gram, form.corners).c)
    for s, part in zip(c, parts, strict=True):
        rest = torch.addcmul(rest, s, part, value=-1)
    if form.span is not None:
        c = u.new_tensor(form.span).T @ c
    if form.offset is not None:
        c = c + u.new_tensor(form.offset)[:, None]
    return c, _dot(w, rest, rest)


def _checked(y, w, t, bounds, spacing):
    """w and t as columns in float64, or a ValueError."""
    t = t[:, None] if t.ndim == 1 else t
    if y.ndim != 2:
        raise ValueError(f"y must be (epoch, trace), got shape {tuple(y.shape)}")
    for name, x in (("w", w), ("t", t)):
        if x.ndim != 2 or len(x) != len(y) or x.shape[1] not in (1, y.shape[1]):
            raise ValueError(
                f"{name} must have as many epochs as y and one column or one per trace, "
                f"got {tuple(x.shape)} for y of {tuple(y.shape)}"
            )
    if not 0 < bounds[0] < bounds[1] < math.inf:
        raise ValueError(f"bounds must satisfy 0 < low < high < infinity, got {bounds}")
    if not spacing > 0:
        raise ValueError(f"spacing must be positive, got {spacing}")
    return w.to(torch.float64), t.to(torch.float64)


def _parts(y):
    """Slices of traces; a GPU takes all at once."""
    size = _BLOCK if y.device.type == "cpu" else max(1, y.shape[1])
    return [slice(start, start + size) for start in range(0, max(1, y.shape[1]), size)]


def _block(part, y, w, t):
    """The data of some traces in float64, 0 where they have no weight."""
    y, w, t = (x if x.shape[1] == 1 < y.shape[1] else x[:, part] for x in (y, w, t))
    y = y.to(torch.float64)
    return (torch.where(w > 0, y, 0.0) if (w == 0).any() else y), w, t


def _less(q, offset, part):
    """The data less what is known beforehand."""
    return q if offset is None else q - (offset if offset.shape[1] == 1 else offset[:, part])


def _candidates(moments, corners, start, q, w, t):
    """Node, ascending, and trace of every local minimum on the grid; where the parabola through it
    and its neighbours has its vertex, in spacings from the node; the loss at node 0."""
    loss = least(*moments.at_nodes(q, w, t), corners)
    width, flat = loss.shape[1], loss.view(-1)
    at = _minima(loss).view(-1).nonzero().squeeze(1)
    node = at // max(1, width)
    before, here, after = (flat[(at + k * width).clamp(0, len(flat) - 1)] for k in (-1, 0, 1))
    vertex = ((before - after) / (2 * (before - 2 * here + after))).nan_to_num_(0.0, 0.0, 0.0)
    return node, at - node * width + start, vertex.clamp_(-0.5, 0.5), loss[0]


def _dot(w, a, b):
    """sum_t w a b (trace,)."""
    return w[:, 0] @ (a * b) if w.shape[1] == 1 else (w * a * b).sum(0)


def _values(basis, t, u):
    """The basis in full (epoch, trace); constants may come unexpanded."""
    shape = torch.broadcast_shapes(t.shape, u.shape)
    return [part.expand(shape) for part in basis(t, u)]


def _reduced(basis, t, nodes, vertices):
    """The same problem with as few coefficients as are free: basis, offset from y, corners."""
    size = len(_values(basis, t[:, :1], nodes[0]))
    if vertices is not None and (size > 2 or {len(v) for v in vertices} != {size}):
        raise ValueError(
            f"vertices must be points of {size} coordinates, as the basis has {size} functions, "
            f"and are possible for 1 or 2, got {vertices}"
        )
    form = fewest(vertices)
    span, corners, offset = form.span, form.corners, None
    if span is None:
        return lambda t, u: _values(basis, t, u), offset, corners
    if form.offset is not None:
        offset, *others = (
            weigh(form.offset, _values(basis, t, u)) for u in nodes[[0, len(nodes) // 2, -1]]
        )
        if not all(torch.equal(offset, other) for other in others):  # it depends on u: no offset
            corners = [(1.0, *corner) for corner in corners]
            span, offset = [form.offset, *span], None
    return lambda t, u: [weigh(row, _values(basis, t, u)) for row in span], offset, corners


def _minima(loss):
    """Which nodes are local minima, of a level stretch the first: at least one per trace."""
    falls = loss[1:] < loss[:-1]
    minimal = torch.empty(loss.shape, dtype=torch.bool, device=loss.device)
    minimal[0], minimal[-1] = ~falls[0], falls[-1]
    torch.gt(falls[:-1], falls[1:], out=minimal[1:-1])
    return minimal


def _best_of_each(u, loss, trace, first, lowest):
    """The u of the least loss of every trace, the smallest of equals."""
    least = torch.full_like(first, math.inf).scatter_reduce_(0, trace, loss, "amin")
    limit = least + _EQUAL * least.abs()
    last = len(u) - 1  # where no loss is a number
    order = torch.arange(len(u), device=u.device)
    order = torch.where(loss <= limit[trace], order, last)
    pick = torch.full_like(least, last, dtype=order.dtype).scatter_reduce_(0, trace, order, "amin")
    return torch.where(first <= least + _LEVEL * least.abs(), lowest, u[pick])
