"""What all pictures of the source world share: seeded numbers, colours, pixel roles, weather."""

from __future__ import annotations

import torch
from torch import Tensor

from retention_lib.data.draw import Canvas, _hash01, box, lattice_noise

HUES = ("grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple")
_HUE_RGB = torch.tensor([
    [0.75, 0.75, 0.75], [0.95, 0.15, 0.15], [0.98, 0.55, 0.10], [0.95, 0.90, 0.15],
    [0.20, 0.75, 0.20], [0.15, 0.80, 0.85], [0.20, 0.30, 0.95], [0.70, 0.20, 0.80],
])  # fmt: skip
#: What a pixel belongs to: a lesson for networks that read patches.
ROLES = (
    "backdrop",
    "body",
    "part",
    "dark",
    "mark",
    "blocked",
    "layer_even",
    "layer_odd",
    "finding",
)


def numbers(seed: Tensor, n: int, stream: int) -> Tensor:
    """Uniform numbers (image, n) that depend on each picture's own seed."""
    return _hash01((seed * 1_000_003 + stream * 7919)[:, None] * 1009 + torch.arange(n)[None])


def colour_of(hue: Tensor, light: Tensor) -> Tensor:
    """Colour (image, 3) of a hue index and a lightness in 0..1."""
    rgb = _HUE_RGB[hue.clamp_min(0)]
    dark, pale = rgb * (0.35 + 1.3 * light[:, None]), rgb + (1 - rgb) * (light[:, None] - 0.5)
    return torch.where(light[:, None] < 0.5, dark, pale).clamp(0, 1)


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Texture (image, 3, row, column) between two colours by a map (image, row, column)."""
    return a[:, :, None, None] + share[:, None] * (b - a)[:, :, None, None]


def role_canvas(background: Tensor, size: int) -> Canvas:
    """A canvas that also knows what each pixel belongs to."""
    canvas = Canvas(background, size)
    canvas.roles = torch.zeros(len(background), size, size, dtype=torch.uint8)
    return canvas


def lay(canvas: Canvas, role: str, distance: Tensor, colour: Tensor, alpha=None, blur=0.0):
    """Paint a shape and note its role."""
    inside = distance < 0
    if alpha is None:
        alpha = 1.0
    else:
        inside = inside & (alpha > 0.3)[:, None, None]
    canvas.paint(distance, colour, alpha, blur)
    canvas.roles.masked_fill_(inside.expand(canvas.roles.shape), ROLES.index(role))


def weather(canvas: Canvas, seed: Tensor, speckle: float) -> Canvas:
    """Occlusion, light, contrast and noise: what a picture may suffer and keep its class."""
    r = numbers(seed, 12, 9)
    u, v = canvas.local(1.8 * r[:, 0] - 0.9, 1.8 * r[:, 1] - 0.9, 3 * r[:, 2])
    blocked = (r[:, 3] < 0.25).float()
    block = box(u, v, 0.1 + 0.25 * r[:, 4], 0.08 + 0.15 * r[:, 5], 0.05)
    lay(canvas, "blocked", block, r[:, 6:9], blocked)
    rough = lattice_noise(seed + 5, canvas.size, canvas.size)[:, None] - 0.5
    amount = (speckle * r[:, 9] ** 2)[:, None, None, None]
    contrast = (0.45 + 0.65 * r[:, 10])[:, None, None, None]
    light = (r[:, 11] - 0.5)[:, None, None, None] * 0.25
    rgb = canvas.rgb * (1 + amount * rough) + 0.15 * amount * rough
    canvas.rgb = (rgb - 0.5) * contrast + 0.5 + light
    return canvas
