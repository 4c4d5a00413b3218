"""The best linear coefficients of a weighted least-squares problem, from its normal equations.

With b_i = <phi_i, y> and G_ij = <phi_i, phi_j> the sum of squares is <y, y> + c'Gc - 2 c'b. It is
least over all c, or over an interval or a convex polygon, by closed formulas that work element by
element on tensors of any shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

#: A Gram determinant below this share of its diagonal's product is rounding alone.
_COLLINEAR = 1e-13
_TINY = 1e-300

Corners = Sequence[tuple[float, ...]] | None


class Best(NamedTuple):
    """Coefficients `c`, the quadratic c'Gc - 2 c'b there, and G^-1 within the face that c lies on.

    `inverse` is packed as in `pairs`: zero at a corner, of rank one on an edge, and left empty
    unless asked for.
    """

    c: list[Tensor]
    loss: Tensor
    inverse: list[Tensor]


class Form(NamedTuple):
    """The same curves with as few coefficients s as are free: y - offset = sum_i s_i (span_i phi).

    `offset` and the rows of `span` weigh the basis functions; None leaves them as they are.
    `corners` limits s.
    """

    offset: tuple[float, ...] | None
    span: list[tuple[float, ...]] | None
    corners: Corners


def fewest(corners: Corners) -> Form:
    """Write a point as one fixed coefficient and a segment as one in 0..1 beside an offset."""
    if corners is None or len(corners[0]) == 1 or len(corners) > 2:
        return Form(None, None, corners)
    if len(corners) == 1:
        return Form(None, [tuple(corners[0])], [(1.0,)])
    step = tuple(b - a for a, b in zip(*corners, strict=True))
    return Form(tuple(corners[0]), [step], [(0.0,), (1.0,)])


def weigh(weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    """sum_i weights_i parts_i without a pass over what is weighed by 0 or 1."""
    total = None
    for weight, part in zip(weights, parts, strict=True):
        if weight:
            term = part if weight == 1 else weight * part
            total = term if total is None else total + term
    return torch.zeros_like(parts[0]) if total is None else total


def pairs(size: int) -> list[tuple[int, int]]:
    """Index pairs i <= j, in which symmetric matrices are packed."""
    return [(i, j) for i in range(size) for j in range(i, size)]


def best(b: Sequence[Tensor], gram: Sequence[Tensor], corners: Corners, face: bool = False) -> Best:
    """Minimise c'Gc - 2 c'b over the convex hull of `corners`, or over all c for None.

    Parameters
    ----------
    b : sequence of Tensor
        One per coefficient, all of one shape.
    gram : sequence of Tensor
        G packed as in `pairs`; broadcasts against `b`.
    corners : None or sequence of tuple
        One or two of one coordinate (a number, an interval), two or more of two (a segment, a
        convex polygon in order).
    face : bool
        Also give `inverse`, by which c follows when b and G change and the face does not.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> [float(c) for c in best([3 * one], [2 * one], [(0.0,), (1.0,)]).c]
    [1.0]
    """
    if len(b) == 1:
        return _interval(b[0], gram[0], corners, face)
    if len(b) == 2:
        return _inside_or_edges(b, gram, corners, face)
    return _free(b, gram)


def _interval(b, g, corners, face):
    low, high = (corners[0][0], corners[-1][0]) if corners else (-torch.inf, torch.inf)
    low, high = min(low, high), max(low, high)
    inverse = g.clamp_min(_TINY).reciprocal()
    c = (b * inverse).clamp_(low, high)  # exact for one coefficient: the loss is a parabola
    loss = (c * g).sub_(b, alpha=2).mul_(c)
    return Best([c], loss, [_within(c, low, high, inverse)] if face else [])


def _within(s, low, high, inverse):
    """`inverse` where s is free to move, else 0."""
    if low == -torch.inf:
        return inverse
    return torch.where((s > low) & (s < high), inverse, 0.0)


def _inside_or_edges(b, gram, corners, face):
    """For two coefficients: the optimum over the plane if it is allowed, else on the best edge."""
    edges = _edges(corners)
    found = None
    for start, step in edges or [((0.0, 0.0), (1.0, 0.0))]:  # collinear columns: the first alone
        limits = (0.0, 1.0) if edges else (-torch.inf, torch.inf)
        edge = _edge(b, gram, start, step, limits, face)
        found = edge if found is None else _either(edge, found, edge.loss < found.loss)
    if len(edges) == 1:
        return found
    (b1, b2), (g11, g12, g22) = b, gram
    det = g11 * g22 - g12 * g12
    sound = det > _COLLINEAR * (g11 * g22)
    scale = torch.where(sound, det, 1.0).reciprocal()
    inverse = [g22 * scale, -g12 * scale, g11 * scale]
    c1, c2 = inverse[0] * b1 + inverse[1] * b2, inverse[1] * b1 + inverse[2] * b2
    for (x, y), (dx, dy) in edges:
        sound = sound & (dx * (c2 - y) >= dy * (c1 - x))
    inside = Best([c1, c2], -(c1 * b1 + c2 * b2), inverse if face else [])
    return _either(inside, found, sound)


def _edges(corners):
    """(start, step) of every edge, counter-clockwise; a segment has one."""
    if not corners:
        return []
    around = [*corners, corners[0]]
    area = sum(a[0] * b[1] - a[1] * b[0] for a, b in pairwise(around))
    around = around[:2] if len(corners) == 2 else around if area >= 0 else around[::-1]
    return [(a, (b[0] - a[0], b[1] - a[1])) for a, b in pairwise(around)]


def _edge(b, gram, start, step, limits, face):
    """Best c = start + s step with s within `limits`."""
    g11, g12, g22 = gram
    gx, gy = weigh(step, (g11, g12)), weigh(step, (g12, g22))  # G step
    inverse = weigh(step, (gx, gy)).clamp_min(_TINY).reciprocal()
    s = ((weigh(step, b) - weigh(start, (gx, gy))) * inverse).clamp_(*limits)
    c1, c2 = start[0] + s * step[0], start[1] + s * step[1]
    loss = c1 * (c1 * g11 + 2 * (c2 * g12 - b[0])) + c2 * (c2 * g22 - 2 * b[1])
    if not face:
        return Best([c1, c2], loss, [])
    free = _within(s, *limits, inverse)
    return Best([c1, c2], loss, [free * (step[i] * step[j]) for i, j in pairs(2)])


def _either(a: Best, b: Best, first: Tensor) -> Best:
    """`a` where `first`, else `b`."""

    def pick(x, y):
        return [torch.where(first, *both) for both in zip(x, y, strict=True)]

    return Best(pick(a.c, b.c), torch.where(first, a.loss, b.loss), pick(a.inverse, b.inverse))


def _free(b, gram):
    """Any number of coefficients; of a collinear basis, scaled to unit length, the shortest c."""
    size, shape, packed = len(b), b[0].shape, pairs(len(b))
    scale = [gram[packed.index((i, i))].clamp_min(_TINY).rsqrt() for i in range(size)]
    matrix = b[0].new_empty(*shape, size, size)
    for (i, j), g in zip(packed, gram, strict=True):
        matrix[..., i, j] = matrix[..., j, i] = g * scale[i] * scale[j]
    inverse = torch.linalg.pinv(matrix, hermitian=True, rtol=_COLLINEAR)
    scale = torch.stack([s.expand(shape) for s in scale], -1)
    inverse = inverse * scale[..., None] * scale[..., None, :]
    stacked = torch.stack(list(b), -1)
    c = (inverse @ stacked[..., None]).squeeze(-1)
    return Best(list(c.unbind(-1)), -(c * stacked).sum(-1), [inverse[..., i, j] for i, j in packed])
