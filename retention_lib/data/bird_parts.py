"""The parts of a drawn bird and of the scene around it; `phantom_birds` says which bird and where.

All lengths are in half images before the bird's own scale. The bird's frame has u towards its bill
and v down; a `Bird` holds what its parts share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retention_lib.data import draw as pen

BLACK, WHITE = torch.tensor([0.05, 0.05, 0.07]), torch.tensor([1.0, 1.0, 0.98])
# Backdrops: sky, foliage, water, reeds. Colours above, below and of the pattern.
BACKDROPS = torch.tensor(
    [
        [[0.50, 0.70, 0.90], [0.80, 0.88, 0.94], [0.97, 0.97, 0.97]],
        [[0.36, 0.52, 0.26], [0.17, 0.31, 0.16], [0.62, 0.72, 0.36]],
        [[0.55, 0.70, 0.74], [0.22, 0.43, 0.52], [0.78, 0.87, 0.87]],
        [[0.80, 0.76, 0.58], [0.52, 0.46, 0.28], [0.90, 0.84, 0.62]],
    ]
)
LEAVES = torch.tensor([[0.24, 0.46, 0.14], [0.45, 0.58, 0.18], [0.74, 0.45, 0.13]])


class Scene(pen.Canvas):
    """A canvas that blends in one pass over the pixels, which draws the same bytes faster."""

    def blend(self, cover: Tensor, colour: Tensor, alpha: Tensor | float = 1.0):
        """As `Canvas.blend`, by an in-place interpolation without temporary pictures."""
        if isinstance(alpha, Tensor) and alpha.ndim == 1:
            alpha = alpha[:, None, None]
        colour = colour.view(-1, 3, 1, 1) if colour.ndim <= 2 else colour
        self.rgb.lerp_(colour.expand_as(self.rgb), (cover * alpha)[:, None].expand_as(self.rgb))


def blended(a: Tensor, b: Tensor, softness: float) -> Tensor:
    """Union of two distances with a smooth joint (quadratic smooth minimum)."""
    h = (0.5 + (b - a) * (0.5 / softness)).clamp(0, 1)
    return b + (a - b) * h - softness * h * (1 - h)


def taper(u: Tensor, v: Tensor, length, start, end, fork=0.0, curve=0.0) -> Tensor:
    """Distance to a strip along u > 0 with half widths `start` and `end`; fork > 0 notches it."""
    v = (v - curve * u * u).abs()
    width = start + (end - start) * (u / length).clamp(0, 1)
    tip = length * (1 - fork * (1 - v / torch.maximum(start, end)))
    return torch.maximum(torch.maximum(v - width, u - tip), -u)


def paint_backdrop(canvas: pen.Canvas, seed: Tensor, kind: Tensor, tone: Tensor) -> None:
    """Fill the canvas with one of `BACKDROPS` (image,), its tone (image,) in 0..1."""
    colour = BACKDROPS[kind] * (0.8 + 0.35 * tone)[:, None, None]
    blotches = 0.65 * pen.lattice_noise(seed, 5, canvas.size)
    blotches += 0.35 * pen.lattice_noise(seed + 1, 13, canvas.size)
    across = pen.lattice_noise(seed + 2, 20, canvas.size, (1, 5))
    upright = pen.lattice_noise(seed + 3, 20, canvas.size, (5, 1))
    weight = torch.eye(4)[kind][..., None, None]  # (image, kind, 1, 1)
    pattern = blotches * weight[:, :2].sum(1) + across * weight[:, 2] + upright * weight[:, 3]
    below = (canvas.y * 0.5 + 0.5)[None]
    canvas.rgb += colour[:, 0, :, None, None]
    canvas.blend(below.expand_as(pattern), colour[:, 1])
    canvas.blend(((pattern - 0.45) * 3.5).clamp(0, 1), colour[:, 2], 0.65)


def paint_perch(canvas: pen.Canvas, seed: Tensor, foot, slope, thickness, tone) -> None:
    """A branch (or a bank, where it is thick) whose upper edge passes through the foot."""
    along, below = canvas.local(*foot, slope)
    below = below + 0.03 * torch.sin(along * 5 + seed[:, None, None] % 7)
    grain = pen.lattice_noise(seed + 4, 24, canvas.size, (1, 3))
    colour = torch.stack([0.24 + 0.22 * tone, 0.20 + 0.15 * tone, 0.15 + 0.10 * tone], 1)
    edge = torch.maximum(-below, below - thickness[:, None, None])
    canvas.paint(edge, colour)
    canvas.paint(edge, colour * 1.5, 0.5 * grain)
    canvas.paint(torch.maximum(edge, below - 0.025), WHITE, 0.25)


class Bird:
    """Frames and outlines of a batch of birds, from which their parts are painted.

    Parameters
    ----------
    canvas : Canvas
    at : (cx, cy, angle, scale), each (image,)
    flip : Tensor (image,) of -1 and 1
        -1 looks left.
    shape : dict of (image, 1, 1)
        The numbers of `bird_species.SHAPE`.
    """

    def __init__(self, canvas: pen.Canvas, at: tuple, flip: Tensor, shape: dict[str, Tensor]):
        self.canvas, self.shape, self.scale = canvas, shape, at[3][:, None, None]
        u, v = canvas.local(*at)
        u = u * flip[:, None, None]
        length, depth, head = shape["length"], shape["depth"], shape["head"]
        cos, sin = torch.cos(shape["tilt"]), torch.sin(shape["tilt"])
        self.u, self.v = u, v
        self.s, self.t = cos * u - sin * v, sin * u + cos * v  # along the body, across it
        x, y = 0.74 * length * cos, -0.74 * length * sin
        self.x = x + 0.4 * shape["neck"]
        self.y = y - 0.42 * head - 0.95 * shape["neck"]
        self.p, self.q = (u - self.x) / head, (v - self.y) / head  # head frame, in head radii
        self.head = pen.circle(u - self.x, v - self.y, head)
        belly = pen.ellipse(self.s, self.t * (1 - 0.35 * self.s), length, depth)
        neck = pen.segment(u, v, 0.6 * x, 0.6 * y, self.x, self.y, 0.8 * head)
        self.body = blended(blended(belly, neck, 0.07), self.head, 0.05)

    def paint(self, distance: Tensor, colour: Tensor, alpha=1.0, blur: float = 0.0) -> None:
        """Paint a distance given in the bird's own units."""
        self.canvas.paint(distance * self.scale, colour, alpha, blur)

    def paint_mark(self, mark: str, size: float, colour: Tensor, alpha: Tensor) -> None:
        """Paint one of `bird_species.MARKS` on the bird, `size` a factor on its extent."""
        outline = self.tail if mark == "tail_band" else self.body
        self.paint(torch.maximum(self._distance_of(mark, size), outline), colour, alpha)

    def paint_back(self, part: dict[str, Tensor]) -> None:
        """What lies behind the body: legs, tail and crest."""
        shape, u, v = self.shape, self.u, self.v
        foot = shape["depth"] * 0.85 + shape["leg_length"]
        legs = [pen.segment(u, v, x, 0.05, x + 0.02, foot - 0.015, 0.016) for x in (-0.05, 0.06)]
        toes = pen.segment(u, v, -0.07, foot, 0.14, foot, 0.016)
        self.paint(torch.minimum(torch.minimum(*legs), toes), part["leg"])
        tilt = -shape["lift"]
        cos, sin = torch.cos(tilt), torch.sin(tilt)
        back, across = -self.s - 0.72 * shape["length"], self.t + 0.1 * shape["depth"]
        self.tail_s, self.tail_t = cos * back + sin * across, -sin * back + cos * across
        start = 0.75 * shape["spread"]
        self.tail = taper(
            self.tail_s, self.tail_t, shape["tail_length"], start, shape["spread"], shape["fork"]
        )
        self.paint(self.tail, part["tail"])
        rib = (self.tail_t * 60).cos() * 0.5 + 0.5
        self.paint(self.tail, BLACK, 0.28 * rib)
        du, dv = u - self.x + 0.25 * shape["head"], v - self.y + 0.55 * shape["head"]
        along, side = -0.80 * du - 0.60 * dv, 0.60 * du - 0.80 * dv
        crest = taper(along, side, shape["crest"].clamp_min(1e-3), 0.5 * shape["head"], 0 * start)
        self.paint(crest, part["back"], (shape["crest"] > 0)[:, 0, 0].float())

    def paint_body(self, part: dict[str, Tensor]) -> None:
        """Back, belly, shade and wing."""
        length, depth = self.shape["length"], self.shape["depth"]
        self.paint(self.body - 0.016, BLACK, 0.30)
        self.paint(self.body, part["back"])
        line = 0.10 * depth - 0.42 * (self.s - 0.55 * length).clamp_min(0)
        belly = torch.maximum(line - self.t, self.body)
        self.paint(belly, part["belly"], blur=0.05)
        lit = (0.5 - 0.5 * self.t / depth).clamp(0, 1)
        self.paint(self.body, WHITE, 0.16 * lit)
        self.paint(self.body, BLACK, 0.26 * (1 - lit) ** 2)
        self.wing_s = -self.s + 0.02
        self.wing_t = self.t - 0.02 - 0.06 * self.wing_s
        narrow = self.wing_t * (1 + 0.75 * (self.wing_s / length).clamp(-0.5, 1))
        self.wing = pen.ellipse(self.wing_s - 0.2 * length, narrow, 0.78 * length, 0.52 * depth)

    def paint_wing(self, part: dict[str, Tensor]) -> None:
        """The folded wing with its feathers, over the marks that it hides."""
        length = self.shape["length"]
        self.paint(self.wing - 0.012, BLACK, 0.30)
        self.paint(self.wing, part["wing"])
        feather = (self.wing_t * 55 + self.wing_s * 10).cos() * 0.5 + 0.5
        self.paint(self.wing, BLACK, feather * (0.15 + 0.5 * self.wing_s / length).clamp(0, 0.42))

    def paint_face(self, part: dict[str, Tensor]) -> None:
        """Bill and eye."""
        shape = self.shape
        u, v = self.u - self.x - 0.82 * shape["head"], self.v - self.y - 0.08 * shape["head"]
        depth = shape["bill_depth"]
        bill = taper(
            u, v, shape["bill_length"], depth, 0 * depth + 0.006, curve=shape["bill_curve"]
        )
        self.paint(bill - 0.010, BLACK, 0.25)
        self.paint(bill, part["bill"])
        self.paint(torch.maximum(bill, 0.2 * depth - v), BLACK, 0.25)
        p, q, head = self.p - 0.36, self.q + 0.14, shape["head"]
        self.paint(pen.circle(p, q, 0.20) * head, BLACK)
        self.paint(pen.circle(p - 0.06, q + 0.07, 0.075) * head, WHITE)

    def _distance_of(self, mark: str, size: float) -> Tensor:
        p, q, s, t = self.p, self.q, self.s, self.t
        length, depth, head = self.shape["length"], self.shape["depth"], self.shape["head"]
        match mark:
            case "cap":
                return torch.maximum(self.head, (q + 1 - 0.58 * size + 0.12 * p) * head)
            case "brow":
                return pen.segment(p, q, -0.85, -0.30, 0.60, -0.42, 0.13 * size) * head
            case "eye_line":
                return pen.segment(p, q, -0.80, -0.02, 1.0, -0.1, 0.17 * size) * head
            case "eye_ring":
                return pen.circle(p - 0.36, q + 0.14, 0.22 + 0.15 * size) * head
            case "cheek":
                return pen.ellipse(p + 0.1, q - 0.38, 0.48 * size, 0.28 * size) * head
            case "bib":
                return pen.circle(p - 0.50, q - 0.85, 0.58 * size) * head
            case "moustache":
                return pen.segment(p, q, 0.72, 0.30, 0.15, 0.85, 0.12 * size) * head
            case "nape":
                return pen.circle(p + 0.85, q - 0.05, 0.48 * size) * head
            case "band":
                return torch.maximum((s - 0.62 * length + 0.15 * t).abs() - 0.045 * size, -0.08 - t)
            case "spots":
                return self._spots(0.022 * size)
            case "vent":
                return pen.ellipse(s + 0.6 * length, t - 0.7 * depth, 0.2 * size, 0.12 * size)
            case "wing_bar":
                near = torch.minimum((self.wing_s - 0.04).abs(), (self.wing_s - 0.13).abs())
                return torch.maximum(near - 0.020 * size, self.wing)
            case "shoulder":
                spot = pen.ellipse(self.wing_s + 0.12, self.wing_t + 0.03, 0.10 * size, 0.07 * size)
                return torch.maximum(spot, self.wing)
            case "wing_tip":
                spot = pen.ellipse(
                    self.wing_s - 0.62 * length, self.wing_t, 0.11 * size, 0.05 * size
                )
                return torch.maximum(spot, self.wing)
            case "tail_band":
                return (self.tail_s - 0.74 * self.shape["tail_length"]).abs() - 0.045 * size
        raise ValueError(f"mark must be one of bird_species.MARKS, got {mark!r}")

    def _spots(self, radius: float) -> Tensor:
        step = 0.10
        row = torch.floor(self.t / step)
        u = (self.s / step + 0.5 * row) % 1 - 0.5
        v = (self.t / step) % 1 - 0.5
        inside = torch.maximum(-self.t, -0.1 - self.s)
        return torch.maximum(torch.hypot(u, v) * step - radius, inside)


def paint_leaves(canvas: pen.Canvas, at, turn: Tensor, area: Tensor, kind: Tensor) -> None:
    """Two leaves on a stalk; `area` (image,) of both [half image squared], 0 for no leaves."""
    shown = (area > 0).float()
    length = (area.clamp_min(1e-4) / 2 / 1.4).sqrt()  # half length of a leaf: 1.4 is its area at 1
    u, v = canvas.local(*at, turn, length)
    scale = length[:, None, None]
    stalk = pen.segment(u, v, -1.6, 1.3, 0.9, -0.35, 0.05)
    canvas.paint(stalk * scale, LEAVES[kind] * 0.55, shown)
    for k, (cx, cy, angle) in enumerate(((-0.3, -0.45, 0.35), (0.25, 0.5, -0.45))):
        cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
        a, b = cos * (u - cx) + sin * (v - cy), -sin * (u - cx) + cos * (v - cy)
        leaf = torch.hypot(a, b.abs() + 0.75) - 1.25  # two arcs that meet in points
        colour = LEAVES[kind] * (1.0 - 0.15 * k)
        canvas.paint((leaf - 0.05) * scale, BLACK, 0.25 * shown)
        canvas.paint(leaf * scale, colour, shown)
        vein = torch.minimum(b.abs(), (((a - b.abs()) * 3.2) % 1 - 0.5).abs() / 4.5) - 0.025
        canvas.paint(torch.maximum(vein, leaf) * scale, WHITE, 0.22 * shown)
