"""The drawing behind `phantom_oct`: from lesion strengths and hashed chance to a photograph.

Lengths are in units of the half image, y points down. Shapes are `(image, 1)` for numbers,
`(image, column)` for surfaces and `(image, row, column)` for pictures. Surfaces are made of
correctly rounded arithmetic only (no exp, no sin): those differ between the body and the tail of a
vectorised loop, and then the bytes of a picture would depend on its place in the batch.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from retention_lib.data.draw import Canvas, ellipse, lattice_noise, row_uniforms

DARK, WHITE = torch.tensor([0.1]), torch.tensor([1.0])


class Chance:
    """Deals one column (image, 1) of hashed uniform numbers after another.

    Parameters
    ----------
    seed : Tensor of int64, (image,)
        Equal seeds are dealt equal numbers.
    """

    def __init__(self, seed: Tensor, columns: int = 96):
        self._columns = iter(row_uniforms(seed, columns).split(1, dim=1))

    def __call__(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * next(self._columns)


def draw_scene(
    size: int,
    found: dict[str, Tensor],
    seed: Tensor,
    eye: Chance,
    shot: Chance,
    speckle: float,
    occlusion: Tensor,
    contrast: Tensor,
    pose: Tensor,
) -> np.ndarray:
    """Draw a batch of eyes.

    Parameters
    ----------
    size : int
        Height and width [pixel].
    found : dict of Tensor, (image, 1)
        Strength of every lesion, 0..1.
    seed : Tensor of int64, (image,)
        Seed of the textures.
    eye, shot : Chance
        What all images of a patient share, and what belongs to one image.
    speckle : float
        Relative amplitude.
    occlusion, contrast, pose : Tensor, (image,)
        Nuisances, as in `phantom_oct.sample_table`.

    Returns
    -------
    ndarray of uint8, (image, size, size, 3)
    """
    canvas = Canvas(shot(0.07, 0.15).expand(-1, 3), size)
    canvas.rgb = canvas.rgb[:, :1].clone()  # one grey channel is enough until the end
    surfaces = _surfaces(canvas.x[0], pose[:, None], found, eye, shot)
    _paint_layers(canvas, surfaces, found, seed, shot)
    _paint_cysts_and_exudates(canvas, surfaces, found, eye, shot)
    _paint_interface(canvas, surfaces, found, eye, shot)
    _photograph(canvas, surfaces, occlusion, contrast, speckle, seed, shot)
    return np.repeat(canvas.to_uint8(), 3, axis=3)


def _bump(t: Tensor) -> Tensor:
    """Smooth bump of height 1 that ends at t = -1 and 1."""
    return (1 - t * t).clamp_min(0) ** 2


def _wave(t: Tensor) -> Tensor:
    """Sine-like wave of period 1 and amplitude 1, made of parabolas."""
    t = t - torch.floor(t) - 0.5
    return 16 * t * (t.abs() - 0.5)


def _surfaces(x: Tensor, pose: Tensor, f: dict, eye: Chance, shot: Chance) -> SimpleNamespace:
    """Heights (image, column) of the surfaces, from Bruch's membrane up to the vitreous."""
    s = SimpleNamespace()
    s.fovea = eye(-0.3, 0.3) + shot(-0.1, 0.1)
    s.side = torch.where(eye() < 0.5, -1.0, 1.0)
    s.centre = s.fovea + 0.5 * s.side * (f["one_side"] > 0)  # of cysts and swelling
    s.d = d = x - s.fovea
    curve = eye(0.0, 0.3) * (x * x - 0.3)
    s.bruch = eye(0.34, 0.44) + shot(-0.08, 0.08) + 0.25 * pose * x - curve
    drusen = torch.zeros(1)
    for k in range(7):
        at = -0.95 + 0.27 * (k + eye() + shot(0, 0.25))
        tall = (eye(0.25, 1.3) * shot(0.8, 1.2) - 0.25).clamp_min(0.0)
        drusen = torch.maximum(drusen, tall * _bump((x - at) / eye(0.09, 0.2)))
    drusen = 0.2 * f["drusen"] * drusen
    s.epithelium = s.bruch - drusen
    lift = 0.3 * f["fluid"] * _bump((d - eye(-0.15, 0.15)) / (0.3 + 0.3 * f["fluid"]))
    s.outer_end = s.epithelium - lift
    s.wasted = f["atrophy"] * _bump((d - eye(-0.2, 0.2)) / eye(0.4, 0.7))
    outer = eye(0.24, 0.29) * (1 + 0.15 * _bump(d / 0.5)) * (1 - 0.55 * s.wasted)
    inner_end = s.bruch - outer - 0.5 * drusen - 0.8 * lift
    s.inner_end = torch.minimum(inner_end, s.outer_end - 0.09)
    s.smooth = s.inner_end - _inner_thickness(x, s, f, eye, shot)
    crease = 0.5 + 0.5 * _wave(x * eye(2.5, 4.5) + eye()) * _bump((d - eye(-0.4, 0.4)) / 1.4)
    s.surface = s.smooth + 0.1 * f["wrinkles"] * crease
    return s


def _inner_thickness(x: Tensor, s: SimpleNamespace, f: dict, eye: Chance, shot: Chance) -> Tensor:
    """Thickness of the inner layers: the pit, and what fills or pulls it."""
    d = s.d
    filled = (1 - 0.7 * f["wrinkles"]) * (1 - f["hole"]) * (1 - 0.6 * f["thickening"])
    depth = eye(0.75, 0.92) * shot(0.75, 1) * filled * (1 - 0.6 * f["traction"])
    inner = eye(0.24, 0.32) * (1 - depth * _bump(d / eye(0.4, 0.55))) * (1 + 0.25 * f["glow"])
    swelling = _bump((x - s.centre) / (0.9 - 0.2 * f["one_side"]))
    rim = _bump((d.abs() - 0.25) / 0.3)
    peak = (1 - d.abs() / 0.32).clamp_min(0) ** 2
    return (
        inner
        + 0.34 * f["thickening"] * swelling
        + 0.1 * f["hole"] * rim
        + peak * (0.32 * f["traction"])
    )


def _paint_layers(c: Canvas, s: SimpleNamespace, f: dict, seed: Tensor, shot: Chance):
    """Paint the layers, each from its upper surface all the way down."""

    def below(surface, grey):  # grey: a number or (image, column)
        flat = torch.tensor([grey]) if isinstance(grey, float) else grey[:, None, None]
        c.paint(surface[:, None] - c.y, flat, blur=0.012)

    vitreous = c.rgb[:, 0, :1, 0]
    branch = (0.5 + 40 * (s.side * s.d + 0.06)).clamp(0, 1)  # what one branch of an artery feeds
    glow = f["glow"] * torch.where(shot() < 0.5, 1.0, branch)
    lit = 1 - 0.7 * glow  # the light that passes through swollen inner layers
    thick, bright = (s.inner_end - s.surface).clamp_min(0), shot(0.9, 1.1)
    for depth, grey in ((0.0, 0.72), (0.16, 0.46), (0.34, 0.54), (0.62, 0.30), (0.84, 0.52)):
        grey = bright * grey
        below(s.surface + depth * thick, grey + glow * (0.85 - 0.2 * depth - grey))
    below(s.inner_end, 0.23 * lit)  # outer nuclear layer
    below(s.outer_end - 0.085, (0.75 - 0.5 * s.wasted) * lit)  # ellipsoid zone
    below(s.outer_end - 0.045, 0.45 * lit)
    below(s.outer_end, 0.8 * vitreous.expand(-1, c.size))  # fluid, where the retina is lifted
    below(s.epithelium - 0.03 * (1 - 0.6 * s.wasted), lit)  # pigment epithelium
    below(s.epithelium + 0.025, 0.55 * lit)  # inside of drusen
    vessels = lattice_noise(seed + (1 << 57), 18, c.size)
    streaks = lattice_noise(seed + (2 << 57), 40, c.size, (10, 1))
    sink = (1 - (c.y - s.bruch[:, None]) / shot(0.4, 0.75)[:, None]).clamp(0, 1)
    choroid = (0.15 + 0.45 * vessels + 0.2 * streaks) * sink * (1 + 1.2 * s.wasted[:, None])
    choroid = vitreous[:, None] + choroid * lit[:, None]
    c.paint(s.bruch[:, None] + 0.025 - c.y, choroid[:, None], blur=0.012)


def _height_at(surface: Tensor, x: Tensor) -> Tensor:
    """Height (image, 1) of a surface at a place (image, 1)."""
    size = surface.shape[1]
    column = ((x + 1) * (size / 2) - 0.5).clamp(0, size - 1)
    left = column.floor().clamp_max(size - 2).long()
    a, b = surface.gather(1, left), surface.gather(1, left + 1)
    return a + (b - a) * (column - left)


def _paint_cysts_and_exudates(c: Canvas, s: SimpleNamespace, f: dict, eye: Chance, shot: Chance):
    """Paint dark ovals in the inner and middle layers, and bright dots that throw shadows."""
    for k in range(6):
        away = (1 if k % 2 else -1) * (0.12 + 0.1 * k)
        x = s.centre + away * eye(0.5, 1.1) + shot(-0.04, 0.04)
        top, end = _height_at(s.surface, x), _height_at(s.outer_end, x)
        y = top + (end - top) * eye(0.38, 0.62)
        tall = 0.01 + f["cysts"] * eye(0.18, 0.38) * (end - top)
        wide = 0.01 + f["cysts"] * eye(0.06, 0.14)
        oval = ellipse(c.x - x[:, None], c.y - y[:, None], wide[:, :, None], tall[:, :, None])
        c.paint(oval, DARK, (6 * f["cysts"][:, 0]).clamp_max(1) * (0.9 - 0.05 * k))
    for _ in range(6):
        x = s.centre + eye(-0.6, 0.6) + shot(-0.05, 0.05)
        top, end = _height_at(s.surface, x), _height_at(s.inner_end, x)
        y = end - eye(0.0, 0.35) * (end - top)
        u, v = c.x - x[:, None], c.y - y[:, None]
        radius = (0.02 + 0.035 * eye() * f["exudates"])[:, :, None]
        c.paint(torch.maximum(u.abs() - radius, -v), DARK, 0.35 * f["exudates"][:, 0])
        opacity = (2.5 * f["exudates"][:, 0]).clamp_max(0.95)
        c.paint(ellipse(u, v, radius, 0.8 * radius), WHITE, opacity)


def _paint_interface(c: Canvas, s: SimpleNamespace, f: dict, eye: Chance, shot: Chance):
    """Paint the hole or the cavity of a pulled fovea, the membrane, and the hyaloid."""
    d, hole, pulled = s.d[:, None], f["hole"], f["traction"]
    middle = 0.5 * (s.surface + s.epithelium)[:, None]
    waist = (c.y - middle) / (s.epithelium - s.surface)[:, None].clamp_min(0.05)
    gap = d.abs() - hole[:, :, None] * (0.08 + 0.25 * waist * waist)
    gap = torch.maximum(gap, c.y - (s.epithelium - 0.03)[:, None])
    c.paint(gap, DARK, (4 * hole[:, 0]).clamp_max(1))
    top, end = _height_at(s.surface, s.fovea), _height_at(s.outer_end, s.fovea)
    y = (top + (0.5 * (end - top)))[:, None]
    tall = (0.01 + 0.3 * pulled * (end - top))[:, :, None]
    oval = ellipse(d, c.y - y, (0.01 + 0.09 * pulled)[:, :, None], tall)
    c.paint(oval, DARK, (3 * pulled[:, 0]).clamp_max(0.9))
    membrane = f["membrane"][:, :, None]
    line = (c.y - s.smooth[:, None] + 0.02).abs() - 0.012 - 0.014 * membrane
    patch = _bump((s.d - eye(-0.3, 0.3)) / 1.5)[:, None]
    c.paint(line, WHITE, patch * (0.9 * membrane).clamp_max(0.9))
    attached = f["hyaloid"] > 0
    rise = eye(0.2, 0.45) * s.d.abs() / (0.25 + s.d.abs())
    rise = torch.where(attached, rise + 0.1 * hole, shot(0.15, 0.35) + shot(-0.15, 0.15) * c.x[0])
    film = torch.minimum(_height_at(s.smooth, s.fovea) - rise, s.smooth) - 0.02
    strength = torch.maximum(f["hyaloid"], f["loose"])[:, 0]
    c.paint((c.y - film[:, None]).abs() - 0.011, WHITE, (0.15 + 0.6 * strength) * (strength > 0))


def _photograph(c, s, occlusion, contrast, speckle, seed, shot):
    """Apply vessel shadows, occlusion, contrast and speckle: the same in every class."""
    x, lit = c.x[0], 1.0
    for _ in range(3):
        lit = lit * (1 - shot(0, 0.5) * _bump((x - shot(-1, 1)) / shot(0.02, 0.06)))
    gain = 1 - (1 - lit[:, None]) * ((c.y - s.surface[:, None]) / 0.12).clamp(0, 1)
    blink = shot() < 0.35  # dark columns with sharp edges; otherwise a soft shadow
    t = (x - shot(-0.7, 0.7)) / (shot(0.15, 0.35) * (0.5 + 0.5 * occlusion[:, None]))
    band = torch.where(blink, 20 * (1 - t.abs()), 1.5 * _bump(t / 1.5)).clamp(0, 1)
    gain = gain * (1 - 0.92 * occlusion[:, None, None] * band[:, None])
    base = shot(0.07, 0.12)[:, :, None]
    grey = base + (c.rgb[:, 0] - base) * gain * contrast[:, None, None]
    grain = lattice_noise(seed + (3 << 57), 64, c.size, (1, 2)) - 0.5
    if c.size > 64:  # finer grain where there are pixels to show it
        fine = lattice_noise(seed + (4 << 57), c.size, c.size) - 0.5
        grain = 0.7 * grain + 0.8 * fine
    c.rgb = (grey * (1 + 2 * speckle * grain) + 0.06 * grain)[:, None]
