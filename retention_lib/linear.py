"""The best linear coefficients of a weighted least-squares problem, from its normal equations.

With b_i = <phi_i, y> and G_ij = <phi_i, phi_j> the sum of squares is <y, y> + c'Gc - 2 c'b. It is
least over all c, or over an interval or a convex polygon, by closed formulas that work element by
element on tensors of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

#: A Gram determinant below this share of its diagonal's product is rounding alone.
_COLLINEAR = 1e-13
_TINY, _HUGE = 1e-300, 1e300

Corners = Sequence[tuple[float, ...]] | None


class Best(NamedTuple):
    """Coefficients `c`, the quadratic c'Gc - 2 c'b there, and G^-1 within the face that c lies on.

    `inverse`, packed as in `pairs`, is zero at a corner and of rank one on an edge.
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
    """Write a point as one fixed coefficient and a segment as one of length 1 beside an offset."""
    if corners is None or len(corners[0]) == 1 or len(corners) > 2:
        return Form(None, None, corners)
    if len(corners) == 1:
        return Form(None, [tuple(corners[0])], [(1.0,)])
    step = tuple(b - a for a, b in zip(*corners, strict=True))
    if sum(step) < 0:  # weights of 1 cost no pass over the data, those of -1 do
        return Form(tuple(corners[0]), [tuple(-x for x in step)], [(-1.0,), (0.0,)])
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


def least(b: Sequence[Tensor], gram: Sequence[Tensor], corners: Corners) -> Tensor:
    """The loss of `best` alone, in fewer passes and without a slow torch.where."""
    if len(b) == 1:
        return _clipped(b[0], gram[0], corners)[1]
    if len(b) > 2:
        return _free(b, gram).loss
    loss, *others = (_edge(b, gram, *edge)[1] for edge in _edges(corners))
    for other in others:
        loss = torch.minimum(loss, other)
    if not _has_inside(corners):
        return loss
    c, _, slack = _plane(b, gram, corners)
    inside = (c[0] * b[0]).addcmul_(c[1], b[1]).neg_()
    return torch.minimum(loss, inside.sub_(slack.clamp_max(0.0), alpha=_HUGE))


def best(b: Sequence[Tensor], gram: Sequence[Tensor], corners: Corners) -> Best:
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

    Examples
    --------
    >>> one = torch.ones(1)
    >>> [float(c) for c in best([3 * one], [2 * one], [(0.0,), (1.0,)]).c]
    [1.0]
    """
    if len(b) == 1:
        return _interval(b[0], gram[0], corners)
    if len(b) == 2:
        return _polygon(b, gram, corners)
    return _free(b, gram)


def _clipped(b, g, corners):
    """One coefficient: the lowest point of a parabola, clipped; its loss, 1 / g and the limits."""
    low, high = sorted((corners[0][0], corners[-1][0])) if corners else (-math.inf, math.inf)
    inverse = g.clamp_min(_TINY).reciprocal()
    c = (b * inverse).clamp_(low, high)
    return c, (c * g).sub_(b, alpha=2).mul_(c), inverse, (low, high)


def _interval(b, g, corners):
    c, loss, inverse, (low, high) = _clipped(b, g, corners)
    return Best([c], loss, [inverse * ((c > low) & (c < high)) if corners else inverse])


def _polygon(b, gram, corners):
    """Two coefficients: the lowest point of the plane if it is allowed, else of all edges."""
    edges = _edges(corners)
    s, loss, inverse = _edge(b, gram, *edges[0])
    which = torch.zeros_like(loss, dtype=torch.int64)
    for k, edge in enumerate(edges[1:], 1):
        other = _edge(b, gram, *edge)
        better = other[1] < loss
        s, loss, inverse = (
            torch.where(better, x, y) for x, y in zip(other, (s, loss, inverse), strict=True)
        )
        which = torch.where(better, k, which)
    table = loss.new_tensor([(*start, *step) for start, step, _ in edges])
    x, y, dx, dy = (column[which] for column in table.T)
    c = [x + s * dx, y + s * dy]
    face = [inverse * (dx * dx), inverse * (dx * dy), inverse * (dy * dy)]
    if not _has_inside(corners):
        return Best(c, loss, face)
    inner, full, slack = _plane(b, gram, corners)
    allowed = slack >= 0
    pick = lambda x, y: [torch.where(allowed, *both) for both in zip(x, y, strict=True)]  # noqa: E731
    inside = -(inner[0] * b[0] + inner[1] * b[1])
    return Best(pick(inner, c), torch.where(allowed, inside, loss), pick(full, face))


def _plane(b, gram, corners):
    """Unconstrained c, G^-1, and by how much c keeps to the corners; negative if G is singular."""
    g11, g12, g22 = gram
    det = g11 * g22 - g12 * g12
    sound = det > _COLLINEAR * (g11 * g22)
    scale = torch.where(sound, det, 1.0).reciprocal()
    inverse = [g22 * scale, -g12 * scale, g11 * scale]
    c = [inverse[i] * b[0] + inverse[i + 1] * b[1] for i in (0, 1)]
    slack = (sound.to(det.dtype) - 1.0).expand(c[0].shape)
    for start, step, _ in _edges(corners) if corners else ():
        edge = weigh((-step[1], step[0]), c)
        offset = start[1] * step[0] - start[0] * step[1]
        edge = edge - offset if offset else edge
        slack = torch.minimum(slack, edge)
    return c, inverse, slack


def _edges(corners):
    """(start, step, limits of s) of every edge start + s step, counter-clockwise.

    A segment has one; without corners it is the axis of c_1, for columns that are collinear.
    """
    if not corners:
        return [((0.0, 0.0), (1.0, 0.0), (-math.inf, math.inf))]
    around = [*corners, corners[0]]
    around = around[:2] if len(corners) == 2 else around if _area(corners) >= 0 else around[::-1]
    return [(a, (b[0] - a[0], b[1] - a[1]), (0.0, 1.0)) for a, b in pairwise(around)]


def _area(corners):
    """Twice the area of a polygon, positive if its corners go counter-clockwise."""
    return sum(a[0] * b[1] - a[1] * b[0] for a, b in pairwise([*corners, corners[0]]))


def _has_inside(corners):
    """Whether c may be elsewhere than on an edge."""
    if not corners:
        return True
    size = max(abs(a - b) for x in zip(*corners, strict=True) for a in x for b in x)
    return abs(_area(corners)) > 1e-12 * size**2


def _edge(b, gram, start, step, limits):
    """Best s, the loss at start + s step, and 1 / step'G step if s is free to move, else 0."""
    rows = gram[:2], gram[1:]
    g_step = [weigh(step, row) for row in rows]
    length = weigh(step, g_step)
    inverse = length.clamp_min(_TINY).reciprocal()
    offset, level = weigh(start, g_step), weigh(start, [weigh(start, row) for row in rows])
    along = weigh(step, b) - offset
    s = (along * inverse).clamp_(*limits)
    loss = (s * length).sub_(along, alpha=2).mul_(s).add_(level)
    if any(start):
        loss = loss.sub_(weigh(start, b), alpha=2)
    free = (s > limits[0]) & (s < limits[1])
    return s, loss, inverse * free


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
