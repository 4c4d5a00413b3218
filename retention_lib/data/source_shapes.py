"""Recipes for the things of the source world: each composes a few signed distances.

A recipe takes local coordinates `u` (right) and `v` (down), (image, row, column), and shape numbers
`p`, (image, 3) in 0..1, and returns (role, distance) pairs in painting order. `body` carries the
surface pattern, `part` has a second colour, `dark` is a detail. None of them is a bird or an eye.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retention_lib.data.draw import box, circle, ellipse, polygon, segment, star

Parts = list[tuple[str, Tensor]]


def _poly(u: Tensor, v: Tensor, *corners: tuple[float, float]) -> Tensor:
    return polygon(u, v, torch.tensor(corners))


def _regular(u: Tensor, v: Tensor, sides: int, radius: float) -> Tensor:
    turn = torch.arange(sides) * (2 * math.pi / sides) - math.pi / 2
    return polygon(u, v, radius * torch.stack([torch.cos(turn), torch.sin(turn)], 1))


def disc(u, v, p) -> Parts:
    return [("body", ellipse(u, v, 0.75, 0.6 + 0.15 * p[:, 0])), ("part", circle(u, v, 0.25))]


def square(u, v, p) -> Parts:
    return [("body", box(u, v, 0.62, 0.45 + 0.2 * p[:, 0], 0.05))]


def triangle(u, v, p) -> Parts:
    return [("body", _regular(u, v, 3, 0.8))]


def pentagon(u, v, p) -> Parts:
    return [("body", _regular(u, v, 5, 0.75))]


def spiky(u, v, p) -> Parts:
    return [("body", star(u, v, 0.85, 5.0, 0.5 + 0.2 * p[:, 0]))]


def flower(u, v, p) -> Parts:
    petals = 6 + (p[:, 0] * 3).floor()
    return [("body", star(u, v, 0.8, petals, 0.35)), ("part", circle(u, v, 0.15 + 0.1 * p[:, 1]))]


def ring(u, v, p) -> Parts:
    return [("body", circle(u, v, 0.6).abs() - 0.12 - 0.08 * p[:, 0, None, None])]


def crescent(u, v, p) -> Parts:
    bite = circle(u - 0.25 - 0.15 * p[:, 0, None, None], v, 0.6)
    return [("body", torch.maximum(circle(u, v, 0.75), -bite))]


def cross(u, v, p) -> Parts:
    width = 0.16 + 0.1 * p[:, 0]
    return [("body", torch.minimum(box(u, v, 0.75, width), box(u, v, width, 0.75)))]


def arrow(u, v, p) -> Parts:
    head = _poly(u, v, (0.1, -0.5), (0.85, 0.0), (0.1, 0.5))
    return [("body", torch.minimum(head, box(u + 0.3, v, 0.5, 0.12 + 0.1 * p[:, 0])))]


def fish(u, v, p) -> Parts:
    tail = _poly(u, v, (0.4, 0.0), (0.9, -0.4), (0.9, 0.4))
    fin = _poly(u, v, (-0.1, -0.2), (0.1, -0.65), (0.3, -0.2))
    body = ellipse(u + 0.12, v, 0.66, 0.3 + 0.12 * p[:, 0])
    return [
        ("part", tail),
        ("part", fin),
        ("body", body),
        ("dark", circle(u + 0.5, v + 0.06, 0.06)),
    ]


def mushroom(u, v, p) -> Parts:
    cap = torch.maximum(ellipse(u, v, 0.78, 0.62 + 0.2 * p[:, 0]), v - 0.05)
    return [("part", box(u, v - 0.35, 0.12 + 0.1 * p[:, 1], 0.42, 0.05)), ("body", cap)]


def house(u, v, p) -> Parts:
    roof = _poly(u, v, (0.0, -0.85), (0.75, -0.1), (-0.75, -0.1))
    door = box(u - 0.5 * p[:, 0, None, None] + 0.25, v - 0.5, 0.12, 0.25)
    return [("body", box(u, v - 0.32, 0.6, 0.44)), ("part", roof), ("dark", door)]


def mug(u, v, p) -> Parts:
    handle = ellipse(u - 0.5, v, 0.28, 0.3).abs() - 0.07
    return [("part", handle), ("body", box(u + 0.12, v, 0.45, 0.5 + 0.15 * p[:, 0], 0.08))]


def tree(u, v, p) -> Parts:
    crown = star(u, v + 0.25, 0.55, 7.0, 0.15 + 0.1 * p[:, 0])
    return [("part", box(u, v - 0.5, 0.08 + 0.06 * p[:, 1], 0.4)), ("body", crown)]


def fir(u, v, p) -> Parts:
    tiers = [
        _poly(u, v, (0.0, top), (0.3 + 0.15 * k, top + 0.6), (-0.3 - 0.15 * k, top + 0.6))
        for k, top in enumerate((-0.9, -0.55, -0.15))
    ]
    crown = torch.minimum(torch.minimum(tiers[0], tiers[1]), tiers[2])
    return [("part", box(u, v - 0.65, 0.1, 0.25)), ("body", crown)]


def car(u, v, p) -> Parts:
    cabin = _poly(u, v, (-0.3, -0.5), (0.25, -0.5), (0.5, 0.0), (-0.5, 0.0))
    wheel = 0.16 + 0.06 * p[:, 0]
    wheels = torch.minimum(circle(u + 0.45, v - 0.4, wheel), circle(u - 0.45, v - 0.4, wheel))
    return [("part", cabin), ("body", box(u, v - 0.15, 0.85, 0.24, 0.08)), ("dark", wheels)]


def boat(u, v, p) -> Parts:
    hull = _poly(u, v, (-0.8, 0.3), (0.8, 0.3), (0.5, 0.75), (-0.5, 0.75))
    sail = _poly(u, v, (-0.05, -0.85), (0.65, 0.15), (-0.05, 0.15))
    mast = segment(u, v, -0.12, -0.85, -0.12, 0.35, 0.04)
    return [("dark", mast), ("part", sail), ("body", hull)]


def leaf(u, v, p) -> Parts:
    offset = 0.55 - 0.2 * p[:, 0, None, None]
    blade = torch.maximum(circle(u, v - offset, 0.95), circle(u, v + offset, 0.95))
    return [("part", segment(u, v, 0.5, 0.0, 0.95, 0.05, 0.05)), ("body", blade)]


def key(u, v, p) -> Parts:
    teeth = torch.minimum(box(u - 0.6, v - 0.18, 0.06, 0.14), box(u - 0.35, v - 0.15, 0.06, 0.12))
    shaft = torch.minimum(box(u - 0.2, v, 0.6, 0.07), teeth)
    bow = circle(u + 0.5, v, 0.28 + 0.06 * p[:, 0]).abs() - 0.1
    return [("part", shaft), ("body", bow)]


def snail(u, v, p) -> Parts:
    foot = segment(u, v, -0.75, 0.5, 0.7, 0.55, 0.15)
    horn = segment(u, v, -0.75, 0.4, -0.85, -0.05, 0.05)
    shell = circle(u - 0.1, v, 0.5 + 0.08 * p[:, 0])
    whorl = circle(u - 0.1, v, 0.25).abs() - 0.04
    return [("part", foot), ("part", horn), ("body", shell), ("dark", whorl)]


def butterfly(u, v, p) -> Parts:
    a = u.abs()
    upper = ellipse(a - 0.42, v + 0.28, 0.42, 0.3 + 0.1 * p[:, 0])
    lower = ellipse(a - 0.34, v - 0.36, 0.32, 0.26)
    return [("part", lower), ("body", upper), ("dark", ellipse(u, v, 0.08, 0.6))]


def cat(u, v, p) -> Parts:
    a = u.abs()
    ears = _poly(a, v, (0.2, -0.45), (0.6, -0.9), (0.68, -0.1))
    eyes = circle(a - 0.25, v + 0.05, 0.09)
    return [("part", ears), ("body", ellipse(u, v, 0.72, 0.55 + 0.1 * p[:, 0])), ("dark", eyes)]


def beetle(u, v, p) -> Parts:
    a = u.abs()
    legs = torch.minimum(
        segment(a, v, 0.2, 0.0, 0.8, -0.25, 0.04), segment(a, v, 0.2, 0.2, 0.75, 0.6, 0.04)
    )
    body = ellipse(u, v - 0.12, 0.42 + 0.1 * p[:, 0], 0.62)
    seam = segment(u, v, 0.0, -0.4, 0.0, 0.7, 0.025)
    return [("dark", legs), ("part", circle(u, v + 0.55, 0.25)), ("body", body), ("dark", seam)]


def dog(u, v, p) -> Parts:
    legs = torch.minimum(box(u + 0.35, v - 0.55, 0.08, 0.3), box(u - 0.4, v - 0.55, 0.08, 0.3))
    tail = segment(u, v, 0.5, -0.05, 0.85, -0.5, 0.06)
    head = ellipse(u + 0.65, v + 0.35, 0.26, 0.22)
    body = ellipse(u, v - 0.05, 0.6, 0.26 + 0.1 * p[:, 0])
    eye = circle(u + 0.7, v + 0.4, 0.05)
    return [("part", legs), ("part", tail), ("body", body), ("part", head), ("dark", eye)]


def umbrella(u, v, p) -> Parts:
    canopy = torch.maximum(circle(u, v - 0.05, 0.8), v - 0.02)
    stick = segment(u, v, 0.0, 0.0, 0.0, 0.75, 0.045)
    hook = torch.maximum(circle(u - 0.15, v - 0.7, 0.15).abs() - 0.045, 0.7 - v)
    return [("part", torch.minimum(stick, hook)), ("body", canopy)]


def bottle(u, v, p) -> Parts:
    neck = box(u, v + 0.5, 0.11, 0.35)
    label = box(u, v - 0.3, 0.3, 0.14)
    return [("body", box(u, v - 0.25, 0.26 + 0.08 * p[:, 0], 0.55, 0.1)), ("body", neck),
            ("part", label)]  # fmt: skip


def apple(u, v, p) -> Parts:
    fruit = torch.minimum(circle(u.abs() - 0.22, v - 0.1, 0.5), ellipse(u, v - 0.25, 0.5, 0.5))
    blade = ellipse(u - 0.22, v + 0.62, 0.22, 0.1)
    return [("dark", segment(u, v, 0.0, -0.3, 0.06, -0.75, 0.04)), ("body", fruit), ("part", blade)]


def rocket(u, v, p) -> Parts:
    hull = torch.maximum(circle(u - 0.55, v, 0.85), circle(u + 0.55, v, 0.85))
    fins = _poly(u.abs(), v, (0.1, 0.2), (0.55, 0.75), (0.1, 0.6))
    return [("part", fins), ("body", hull), ("dark", circle(u, v + 0.15, 0.11))]


def turtle(u, v, p) -> Parts:
    shell = torch.maximum(ellipse(u, v - 0.2, 0.65, 0.6 + 0.15 * p[:, 0]), v - 0.25)
    legs = box(u.abs() - 0.38, v - 0.35, 0.11, 0.18, 0.05)
    head = ellipse(u + 0.78, v - 0.05, 0.18, 0.14)
    return [("part", legs), ("part", head), ("body", shell)]


def cactus(u, v, p) -> Parts:
    arm = torch.minimum(
        segment(u, v, 0.0, 0.2, 0.45, 0.1, 0.1), segment(u, v, 0.45, 0.1, 0.45, -0.3, 0.1)
    )
    twin = segment(u, v, 0.0, 0.0, -0.42, -0.25, 0.1)
    stem = box(u, v, 0.17, 0.75, 0.15)
    return [("body", torch.minimum(torch.minimum(stem, arm), twin)),
            ("part", box(u, v - 0.75, 0.35, 0.15))]  # fmt: skip


def face(u, v, p) -> Parts:
    mouth = torch.maximum(ellipse(u, v - 0.1, 0.4, 0.35).abs() - 0.05, 0.2 - v)
    eyes = circle(u.abs() - 0.28, v + 0.2, 0.1)
    return [("body", circle(u, v, 0.78)), ("part", eyes), ("dark", mouth)]


def chain(u, v, p) -> Parts:
    links = circle(u.abs() - 0.42, v, 0.36).abs() - 0.08 - 0.05 * p[:, 0, None, None]
    return [("body", links), ("part", circle(u, v, 0.16))]


SHAPES = {f.__name__: f for f in (
    disc, square, triangle, pentagon, spiky, flower, ring, crescent, cross, arrow, fish, mushroom,
    house, mug, tree, fir, car, boat, leaf, key, snail, butterfly, cat, beetle, dog, umbrella,
    bottle, apple, rocket, turtle, cactus, face, chain,
)}  # fmt: skip
