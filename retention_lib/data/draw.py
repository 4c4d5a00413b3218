"""Batched, anti-aliased drawing with signed distances: the pencil that phantoms are drawn with.

Everything is a tensor over (image, row, column). A shape is a signed distance in units of the half
image (negative inside); `Canvas.paint` turns it into coverage with an edge one pixel wide, so that
a picture means the same at any resolution. Randomness enters only as numbers passed in:
`row_uniforms` hashes them from each image's own seed, so a picture is the same however many are
drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Canvas:
    """A batch of RGB pictures with coordinates x (right) and y (down), each from -1 to 1.

    Parameters
    ----------
    background : Tensor, (image, 3) or (image, 3, size, size)
        Colours in 0..1.
    size : int
        Height and width [pixel].
    """

    def __init__(self, background: Tensor, size: int):
        axis = (torch.arange(size, dtype=torch.float32) + 0.5) * (2 / size) - 1
        self.size, self.pixel = size, 2 / size
        self.y, self.x = torch.meshgrid(axis, axis, indexing="ij")  # (row, column)
        if background.ndim == 2:
            background = background[:, :, None, None]
        self.rgb = background.float().expand(-1, 3, size, size).clone()

    def paint(self, distance: Tensor, colour: Tensor, alpha: Tensor | float = 1.0, blur=0.0):
        """Blend a colour in where the distance is negative.

        Parameters
        ----------
        distance : Tensor, (image, row, column)
        colour : Tensor, (3,), (image, 3) or (image, 3, row, column)
            A texture may be painted as well as a flat colour.
        alpha : float or Tensor (image,) or (image, row, column)
            Opacity; 0 leaves an image as it is, so one call can draw on some images only.
        blur : float
            Extra softness of the edge, in units of the half image.
        """
        cover = (0.5 - distance / (self.pixel + blur)).clamp(0, 1)
        self.blend(cover, colour, alpha)

    def blend(self, cover: Tensor, colour: Tensor, alpha: Tensor | float = 1.0):
        """Blend a colour in by a coverage map (image, row, column) in 0..1."""
        if isinstance(alpha, Tensor) and alpha.ndim == 1:
            alpha = alpha[:, None, None]
        cover = (cover * alpha)[:, None]
        if colour.ndim == 1:
            colour = colour[None]
        if colour.ndim == 2:
            colour = colour[:, :, None, None]
        self.rgb += cover * (colour - self.rgb)

    def local(self, cx: Tensor, cy: Tensor, angle: Tensor | float = 0.0, scale=1.0):
        """Coordinates (u, v), each (image, row, column), around a centre, rotated and scaled."""
        cx, cy, angle, scale = (_per_image(p) for p in (cx, cy, angle, scale))
        dx, dy = self.x - cx, self.y - cy
        cos, sin = torch.cos(angle), torch.sin(angle)
        return (cos * dx + sin * dy) / scale, (-sin * dx + cos * dy) / scale

    def to_uint8(self) -> np.ndarray:
        """Pictures as (image, row, column, 3) bytes."""
        out = (self.rgb.clamp(0, 1) * 255).round().to(torch.uint8)
        return out.permute(0, 2, 3, 1).contiguous().numpy()


def _per_image(value) -> Tensor:
    """Shape a number or an (image,) tensor so that it broadcasts over (image, row, column)."""
    value = torch.as_tensor(value, dtype=torch.float32)
    return value[:, None, None] if value.ndim == 1 else value


# Signed distances: u, v are (image, row, column); lengths are numbers or (image,) tensors.


def circle(u: Tensor, v: Tensor, radius) -> Tensor:
    """Exact distance to a disc."""
    return torch.hypot(u, v) - _per_image(radius)


def ellipse(u: Tensor, v: Tensor, a, b) -> Tensor:
    """First-order distance to an ellipse with half axes a and b."""
    a, b = _per_image(a), _per_image(b)
    k = torch.hypot(u / a, v / b)
    gradient = torch.hypot(u / a**2, v / b**2).clamp_min(1e-6)
    return k * (k - 1) / gradient


def box(u: Tensor, v: Tensor, a, b, corner=0.0) -> Tensor:
    """Exact distance to a rectangle with half sides a and b and rounded corners."""
    a, b, corner = _per_image(a), _per_image(b), _per_image(corner)
    du, dv = u.abs() - a + corner, v.abs() - b + corner
    outside = torch.hypot(du.clamp_min(0), dv.clamp_min(0))
    return outside + torch.maximum(du, dv).clamp_max(0) - corner


def segment(u: Tensor, v: Tensor, u0, v0, u1, v1, radius) -> Tensor:
    """Exact distance to a stroke with round ends."""
    u0, v0, u1, v1, radius = (_per_image(p) for p in (u0, v0, u1, v1, radius))
    du, dv = u1 - u0, v1 - v0
    along = ((u - u0) * du + (v - v0) * dv) / (du**2 + dv**2).clamp_min(1e-9)
    along = along.clamp(0, 1)
    return torch.hypot(u - u0 - along * du, v - v0 - along * dv) - radius


def polygon(u: Tensor, v: Tensor, corners: Tensor) -> Tensor:
    """Distance to a convex polygon.

    Parameters
    ----------
    corners : Tensor, (corner, 2) or (image, corner, 2)
        Clockwise on the screen (x right, y down).
    """
    if corners.ndim == 2:
        corners = corners[None]
    distance = None
    for k in range(corners.shape[1]):
        a, b = corners[:, k], corners[:, (k + 1) % corners.shape[1]]
        edge = b - a
        normal = torch.stack([edge[:, 1], -edge[:, 0]], 1) / edge.norm(dim=1, keepdim=True)
        side = (u - a[:, 0, None, None]) * normal[:, 0, None, None] + (
            v - a[:, 1, None, None]
        ) * normal[:, 1, None, None]
        distance = side if distance is None else torch.maximum(distance, side)
    return distance


def star(u: Tensor, v: Tensor, radius, arms, depth=0.5) -> Tensor:
    """Approximate distance to a star or flower with `arms` rounded arms; depth 0 is a disc."""
    radius, arms, depth = (_per_image(p) for p in (radius, arms, depth))
    r, phi = torch.hypot(u, v), torch.atan2(v, u)
    return r - radius * (1 - depth * (0.5 - 0.5 * torch.cos(arms * phi)))


def lattice_noise(seed: Tensor, cells: int, size: int, stretch: tuple[int, int] = (1, 1)) -> Tensor:
    """Smooth noise in 0..1, (image, size, size), from hashed lattice values.

    Parameters
    ----------
    seed : Tensor of int64, (image,)
    cells : int
        Lattice cells over the picture; the pattern does not depend on `size`.
    stretch : (int, int)
        Divides the cells along rows and columns: (1, 4) draws horizontal streaks.
    """
    rows, cols = max(1, cells // stretch[0]) + 1, max(1, cells // stretch[1]) + 1
    index = torch.arange(rows * cols, dtype=torch.int64)
    value = _hash01(seed[:, None] * 1_000_003 + index[None]).view(-1, 1, rows, cols)
    mode = {"mode": "bilinear", "align_corners": True}
    return torch.nn.functional.interpolate(value, size=(size, size), **mode)[:, 0]


def row_uniforms(seed: Tensor, columns: int) -> Tensor:
    """Uniform numbers (image, columns) in [0, 1), each row from that image's own int64 seed."""
    return _hash01(seed[:, None] * 1_000_003 - 1 - torch.arange(columns))


def _hash01(x: Tensor) -> Tensor:
    """Map int64 to uniform float32 in [0, 1) (splitmix64; multiplication wraps around)."""
    x = x + -7046029254386353131
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    x = x ^ ((x >> 31) & 0x1FFFFFFFF)
    return ((x >> 40) & 0xFFFFFF).float() / 2**24
