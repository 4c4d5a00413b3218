"""Normal equations as polynomials of u around a grid node, and Newton's method on these.

Around every inner node of a grid, up to its neighbours, u = node + spacing x with x in -1..1. There
b(u) and G(u) of a separable problem are interpolated in Chebyshev points, once for all traces where
times are shared: the profile of a trace and its derivatives then cost a few Horner schemes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retention_lib.linear import Corners, best, pairs

#: Degrees to choose from, even so that x = 0 is a Chebyshev point. Curves that decay in t exp(u)
#: need the first at a spacing of 0.3: each degree gains a digit. Curves that grow need more, up to
#: where powers of x cost as many digits as they gain.
_DEGREES = (10, 14, 18)
#: Interpolation error that is enough, relative to the largest value of a bracket.
_ERROR = 1e-10
#: Newton stops after a step in x as small as this: it leaves about its square.
_STEP = 1e-5
#: Where Newton fails the bracket is closed to this width.
_CLOSED = 1e-9
#: A slope below this share of the loss is rounding.
_ROUNDING = 1e-14


class Shared:
    """b and G of traces on one time grid `t` (epoch, 1), by tables of the basis.

    Weights `w` (epoch, 1) that are shared as well go into the tables; others are (epoch, trace).
    """

    def __init__(self, basis, w: Tensor, t: Tensor, nodes: Tensor):
        grid = [x.T.contiguous() for x in basis(t, nodes)]  # (node, epoch)
        self.degree = _degree(basis, t, nodes)
        points, to_powers = _points(self.degree, t.device)
        near = _around(basis, t, nodes, points)  # (node, point, epoch)
        packed = pairs(len(near))
        self.first, self.second = grid, [grid[i] * grid[j] for i, j in packed]
        self.near_first = torch.cat([_powers(to_powers, x) for x in near], 1)
        self.near_second = torch.cat([_powers(to_powers, near[i] * near[j]) for i, j in packed], 1)
        self.quantities = len(near) + len(packed)
        self.shared = w.shape[1] == 1
        if self.shared:  # then G belongs to no trace
            self.first, self.near_first = [x * w.T for x in self.first], self.near_first * w.T
            self.second = [x @ w for x in self.second]
            self.near_second = (self.near_second @ w).squeeze(2).T.contiguous()  # (power, node)

    def at_nodes(self, q: Tensor, w: Tensor, t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """b, each (node, trace), and G, each (node, trace) or (node, 1), for q (epoch, trace)."""
        if self.shared:
            return [x @ q for x in self.first], self.second
        wq = w * q
        return [x @ wq for x in self.first], [x @ w for x in self.second]

    def polynomials(self, q, w, t, node: Tensor, trace: Tensor, out: Tensor) -> None:
        """Coefficients (quantity, power, candidate) of b and G around ascending nodes."""
        size = self.near_first.shape[1]
        inner = torch.arange(1, len(self.near_first), device=node.device)
        cuts = torch.searchsorted(node, inner + 1).tolist()  # the first bracket has two nodes
        groups = list(zip([0, *cuts], [*cuts, len(node)], strict=True))
        out = out.flatten(0, 1)
        if self.shared:
            _multiply(self.near_first, q, trace, groups, out[:size])
            out[size:] = self.near_second[:, node.clamp(1, len(self.near_first)) - 1]
        else:
            _multiply(self.near_first, w * q, trace, groups, out[:size])
            _multiply(self.near_second, w, trace, groups, out[size:])


class PerTrace:
    """The same for times `t` (epoch, trace) of each trace, by evaluating the basis for each."""

    def __init__(self, basis, w, t, nodes):
        self.basis, self.nodes = basis, nodes
        some = t[:, :: max(1, t.shape[1] // 16)]
        self.degree = _degree(basis, some.reshape(-1, 1), nodes)
        size = len(basis(t[:, :1], nodes[0]))
        self.quantities = size + len(pairs(size))

    def at_nodes(self, q, w, t):
        """As in `Shared`."""
        return self._moments(q, w, t, self.nodes)

    def polynomials(self, q, w, t, node, trace, out):
        """As in `Shared`."""
        points, to_powers = _points(self.degree, t.device)
        middle = self.nodes[node.clamp(1, len(self.nodes) - 2)]
        values = middle + (self.nodes[1] - self.nodes[0]) * points[:, None]
        w = w if w.shape[1] == 1 else w[:, trace]
        first, second = self._moments(q[:, trace], w, t[:, trace], values)
        for into, quantity in zip(out, (*first, *second), strict=True):
            into.copy_(_powers(to_powers, quantity))

    def _moments(self, q, w, t, values):
        """b and G at every u of `values`, each (u, trace)."""
        rows = []
        for u in values:
            phi = self.basis(t, u)
            weighted = [w * x for x in phi]
            second = [(weighted[i] * phi[j]).sum(0) for i, j in pairs(len(phi))]
            rows.append([*((x * q).sum(0) for x in weighted), *second])
        columns = [torch.stack(x) for x in zip(*rows, strict=True)]
        return columns[: len(phi)], columns[len(phi) :]


def _points(degree, device):
    """Chebyshev points in -1..1 and the matrix from values there to coefficients of powers."""
    x = (math.pi * (torch.arange(degree + 1, dtype=torch.float64) + 0.5) / (degree + 1)).cos()
    return x.to(device), torch.linalg.inv(torch.vander(x, increasing=True)).to(device)


def _around(basis, t, nodes, x):
    """The basis at all points `x` around all inner nodes, each (node, point, epoch)."""
    u = nodes[1:-1, None] + (nodes[1] - nodes[0]) * x
    return [phi.T.reshape(*u.shape, len(t)) for phi in basis(t, u.view(-1))]


def _degree(basis, t, nodes):
    """The least degree that meets the basis and its products where interpolation errs most."""
    errors = {}
    for degree in _DEGREES:
        points, to_powers = _points(degree, t.device)
        angle = math.pi * torch.arange(degree + 2, dtype=t.dtype, device=t.device) / (degree + 1)
        matrix = torch.vander(angle.cos(), degree + 1, increasing=True) @ to_powers
        at, exact = (_around(basis, t, nodes, x) for x in (points, angle.cos()))
        at, exact = (v + [v[i] * v[j] for i, j in pairs(len(v))] for v in (at, exact))
        off, scale = torch.cat(
            [
                torch.stack([matrix @ a - e, e]).abs().amax((2, 3))
                for a, e in zip(at, exact, strict=True)
            ],
            1,
        )
        errors[degree] = float((off / scale.clamp_min(1e-300)).amax())
        if errors[degree] <= _ERROR:
            return degree
    return min(errors, key=errors.get)


def _powers(to_powers, values):
    """Coefficients (..., power, column) of values (..., point, column).

    The value at x = 0, the middle point, is taken out first: what is constant stays exactly so.
    """
    middle = values[..., values.shape[-2] // 2, None, :]
    out = to_powers @ (values - middle)
    out[..., :1, :] += middle
    return out


def _multiply(tables, y, trace, groups, out):
    """One matrix product per bracket, with the rows of `y` that belong to it."""
    rows = y.T.contiguous().index_select(0, trace)
    for table, (start, end) in zip(tables, groups, strict=True):
        if end > start:
            torch.mm(table, rows[start:end].T, out=out[:, start:end])


def polish(
    coef: Tensor, node: Tensor, vertex: Tensor, last: int, corners: Corners
) -> tuple[Tensor, Tensor]:
    """Minimise the profile of every candidate in its bracket.

    Parameters
    ----------
    coef : Tensor, (quantity, power, candidate)
        Polynomials of b and of G, packed, around the inner node next to `node`.
    node : Tensor, (candidate,)
        Grid node with a loss below its neighbours; 0 and `last` are the bounds of u.
    vertex : Tensor, (candidate,)
        Where to start, in grid spacings from the node; inner nodes only.
    corners : see `linear.best`

    Returns
    -------
    x, loss : Tensor, (candidate,)
        Distance from the inner node in grid spacings, and c'Gc - 2 c'b.
    """
    x = torch.where(node == 0, -1.0, torch.where(node == last, 1.0, vertex))
    low, high = torch.where(node == last, 0.0, -1.0).to(x), torch.where(node == 0, 0.0, 1.0).to(x)
    found = least = x
    active = torch.arange(len(x), device=x.device)
    for step in range(60):
        loss, slope, bend = _derivatives(*_horner(coef, x), corners)
        falling = slope < 0
        low, high = torch.where(falling, x, low), torch.where(falling, high, x)
        new = x - slope / bend
        newton = (new >= low) & (new <= high) & (step < 20)
        new = torch.where(newton, new, (low + high) / 2)  # where a limit of c puts a kink
        if step < 2:  # hardly any is done yet
            x = new
            continue
        value = loss + 0.5 * slope * (new - x) * newton
        if len(active) == len(found):
            found, least = new, value
        else:
            found[active], least[active] = new, value
        enough = torch.where(newton, (new - x).abs() <= _STEP, high - low <= _CLOSED)
        going = (~enough & (slope.abs() > _ROUNDING * loss.abs())).nonzero().squeeze(1)
        x = new
        if len(going) == 0:
            break
        if 2 * len(going) < len(x):
            active, coef = active[going], coef.index_select(2, going)
            x, low, high = x[going], low[going], high[going]
    return found, least


def _horner(coef, x):
    """Values and first two derivatives of the polynomials at `x`, each (quantity, candidate)."""
    value = coef[:, -1].clone()
    first, second = torch.zeros_like(value), torch.zeros_like(value)
    for power in range(coef.shape[1] - 2, -1, -1):
        torch.addcmul(first, second, x, out=second)
        torch.addcmul(value, first, x, out=first)
        torch.addcmul(coef[:, power], value, x, out=value)
    return value, first, second.mul_(2)


def _derivatives(value, first, second, corners):
    """Profile loss and its first two derivatives in x, c kept to the face that it lies on.

    With r = G'c - b' they are c'(r - b') by the envelope theorem and c'G''c - 2 c'b'' - 2 r'Hr, H
    the inverse of G within the face.
    """
    size = (math.isqrt(8 * len(value) + 9) - 3) // 2
    c, loss, inverse = best(value[:size], value[size:], corners)
    r = list(-first[:size])
    bend = 0.0
    for (i, j), g1, g2 in zip(pairs(size), first[size:], second[size:], strict=True):
        r[i] = torch.addcmul(r[i], g1, c[j])
        if i != j:
            r[j] = torch.addcmul(r[j], g1, c[i])
        bend = bend + (1 if i == j else 2) * (c[i] * c[j] * g2)
    slope = sum(c[i] * (r[i] - first[i]) for i in range(size))
    bend = bend - 2 * sum(c[i] * second[i] for i in range(size))
    for (i, j), h in zip(pairs(size), inverse, strict=True):
        bend = bend - (2 if i == j else 4) * (h * r[i] * r[j])
    return loss, slope, bend
