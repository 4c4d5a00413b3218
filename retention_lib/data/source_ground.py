"""Ground of the source world: cross-sections through layered soil with one kind of finding."""

from __future__ import annotations

import torch
from torch import Tensor

from retention_lib.data.draw import Canvas, box, circle, ellipse, lattice_noise, segment
from retention_lib.data.source_paint import lay, numbers, role_canvas, weather

FINDINGS = (
    "layers", "mounds", "pits", "buried_bumps", "caves", "stones", "lens", "film", "cracks",
    "fault", "vein", "thinning", "roots", "specks", "fold", "tunnels",
)  # fmt: skip


def paint_ground(finding: str, t: dict[str, Tensor], size: int) -> Canvas:
    """Paint a cross-section, from the air above to the bedrock, with its finding.

    Parameters
    ----------
    finding : str
        One of `FINDINGS`; "layers" has none.
    t : dict of Tensor of int64, (image,)
        Columns of `source_world.sample_table`.
    """
    seed = t["seed"]
    r = numbers(seed, 24, 5)
    canvas = role_canvas(_tones(r[:, 0:3], r[:, 3] * 0.3, r[:, 4]), size)
    x, thick = canvas.x[None], 0.5 + 0.5 * r[:, 12, None, None]
    relief, wave = _relief(t["relief"], x, r)
    base = relief - 0.55 + 0.35 * r[:, 11, None, None]
    spots = _spots(t, finding)
    first = spots["x"][:, 0, None, None]
    side = torch.where(r[:, 13] < 0.5, -1.0, 1.0)[:, None, None]
    step = torch.where(x * side > first, 0.25, 0.0)
    lift = _bumps(x, spots, reach=1.3)

    def moved(share: Tensor) -> Tensor:
        return _displace(finding, share, lift, step, x, r)

    _paint_layers(canvas, t, base, thick, wave, moved, r)
    surface = base + moved(torch.zeros(1, 1, 1))
    _paint_finding(canvas, finding, spots, surface, base, thick, r)
    return weather(canvas, seed, speckle=0.9)


def _relief(kind: Tensor, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Shape of the surface (image, 1 or row, column), and its ripple."""
    one = [r[:, k, None, None] for k in range(11)]
    wave = (0.02 + 0.05 * one[5]) * torch.sin(x * (2 + 4 * one[6]) + 6 * one[7])
    bend = (0.1 + 0.2 * one[8]) * (x - one[9] + 0.5) ** 2
    kinds = torch.stack([torch.zeros_like(wave), 2 * wave, bend, -bend])
    return kinds[kind, torch.arange(len(kind))] + (one[10] - 0.5) * 0.4 * x, wave


def _paint_layers(canvas: Canvas, t: dict[str, Tensor], base, thick, wave, moved, r: Tensor):
    """Two to seven layers over bedrock, from the top down, each over all that lies below it."""
    seed, layers = t["seed"], t["layers"] + 2
    cuts = (numbers(seed, 7, 6) + 0.5) * (torch.arange(7)[None] < layers[:, None])
    cuts = torch.cumsum(cuts, 1) / cuts.sum(1, keepdim=True)  # (image, 7): lower edges
    tones = numbers(seed, 8, 7)
    for k in range(8):
        share = (cuts[:, k - 1] if k else torch.zeros(len(seed)))[:, None, None]
        edge = base + thick * share + 0.25 * wave * share + moved(share)
        light = torch.where(tones[:, k] < 0.5, tones[:, k] * 0.5, 0.4 + 0.6 * tones[:, k])
        light = (light + 0.35 * (-1) ** k * (tones[:, 7] - 0.2)).clamp(0.05, 1)
        streak = lattice_noise(seed + 11 * k, 24, canvas.size, (1, 4))[:, None] - 0.5
        colour = _tones(r[:, 14:17], light, r[:, 4])[:, :, None, None] * (1 + 0.4 * streak)
        role = "layer_odd" if k % 2 else "layer_even"
        lay(canvas, role, edge - canvas.y, colour, (layers >= k).float(), blur=0.03)


def _tones(rgb: Tensor, light: Tensor, grey: Tensor) -> Tensor:
    """Colour (image, 3) of a lightness; six of ten pictures are grey."""
    tint = torch.where(grey[:, None] < 0.6, torch.ones_like(rgb), 0.55 + 0.45 * rgb)
    return light[:, None] * tint


def _spots(t: dict[str, Tensor], finding: str) -> dict[str, Tensor]:
    """Where the findings lie and how large they are: (image, 4) each; `on` is 0 for absent ones."""
    r = numbers(t["seed"], 16, 8)
    number = t["count"].clamp_min(0) + 1
    slot = torch.arange(4)[None] + 0.25 + 0.5 * r[:, 0:4]
    x = slot / number[:, None].clamp_min(2) * 1.7 - 0.85 + 0.3 * (r[:, 12:13] - 0.5)
    size = torch.tensor([0.09, 0.15, 0.24])[t["extent"].clamp_min(0)][:, None]
    size = size * (0.8 + 0.4 * r[:, 4:8])
    on = (torch.arange(4)[None] < number[:, None]).float()
    on = on * (0.0 if finding == "layers" else 1.0)
    return {"x": x.clamp(-0.9, 0.9), "size": size, "depth": 0.25 + 0.5 * r[:, 8:12], "on": on}


def _bumps(x: Tensor, spots: dict[str, Tensor], reach: float) -> Tensor:
    """Sum of bell curves (image, 1 or row, column), as high as the spots are large."""
    out = torch.zeros(1)
    for k in range(4):
        at, size = spots["x"][:, k, None, None], spots["size"][:, k, None, None]
        bell = torch.exp(-(((x - at) / (reach * size)) ** 2))
        out = out + spots["on"][:, k, None, None] * size * bell
    return out


def _displace(finding: str, share, lift: Tensor, step: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """How far a layer's edge at a relative depth `share` is moved down by the finding."""
    if finding == "mounds":
        return -lift * (1 - share).clamp_min(0) * 1.1
    if finding == "pits":
        return lift * (1 - share).clamp_min(0) * 1.1
    if finding == "buried_bumps":
        return -1.1 * lift * (share - 0.3).clamp(0, 0.5) * 2 * (share < 0.97)
    if finding == "fault":
        return step
    if finding == "thinning":
        return 2 * lift * (0.5 - share).clamp_min(0) * 2 * (share < 0.6)
    if finding == "fold":
        amount = 0.08 + 0.25 * lift.amax((1, 2), keepdim=True)
        return amount * torch.sin(x * (5 + 5 * r[:, 17, None, None])) * share.clamp(0.15, 1)
    if finding == "lens":
        return -1.2 * lift * (share < 0.55)
    return torch.zeros(1)


def _paint_finding(canvas: Canvas, finding: str, spots, surface, base, thick, r: Tensor):
    """Paint what lies in or above the layers."""
    dark = r[:, 18:21] * 0.12
    bright = 0.8 + 0.2 * r[:, 18:21]
    x, y = canvas.x[None], canvas.y[None]
    if finding == "film":
        gap = 0.06 + 0.2 * _bumps(x, spots, reach=2.0) / 0.24 + 0.05 * r[:, 21, None, None]
        lay(canvas, "finding", (y - surface + gap).abs() - 0.028, bright)
        return
    if finding == "lens":
        lift = 1.2 * _bumps(x, spots, reach=1.3)
        edge = base + 0.62 * thick
        lay(canvas, "finding", torch.maximum(edge - lift - y, y - edge) + 0.02, dark)
        return
    for k in range(4):
        at, size, on = spots["x"][:, k], spots["size"][:, k], spots["on"][:, k]
        column = ((at + 1) * canvas.size / 2).long().clamp(0, canvas.size - 1)
        floor = base.expand(len(at), canvas.size, canvas.size)[torch.arange(len(at)), 0, column]
        u, v = canvas.local(at, floor + spots["depth"][:, k] * thick[:, 0, 0])
        shape = _spot_shape(finding, u, v, size, r[:, 22])
        if finding == "roots":
            shape = torch.maximum(shape, floor[:, None, None] - y)
            lay(canvas, "finding", shape, dark, on * 0.55, blur=0.08)
        elif shape is not None:
            pale = finding in ("stones", "vein", "specks")
            lay(canvas, "finding", shape, bright if pale else dark, on)


def _spot_shape(finding: str, u: Tensor, v: Tensor, size: Tensor, lean: Tensor) -> Tensor | None:
    """Distance to one spot of a finding, around its centre; None where it is not made of spots."""
    wide = size[:, None, None]
    if finding == "caves":
        return ellipse(u, v, size, 0.7 * size)
    if finding == "stones":
        return box(u, v, size, 0.6 * size, 0.05)
    if finding == "cracks":
        lean = (lean - 0.5) * 0.4
        return segment(u, v, -lean, -2 * size, lean, 2 * size, 0.035)
    if finding == "vein":
        return segment(u, v, -2.5 * size, size, 2.5 * size, -size, 0.03)
    if finding == "roots":
        return u.abs() - 0.6 * wide
    if finding == "specks":
        grain = circle(u.remainder(0.11) - 0.055, v.remainder(0.13) - 0.065, 0.026)
        return torch.maximum(grain, circle(u, v, 1.7 * size))
    if finding == "tunnels":
        hole = circle((u + wide).remainder(0.16) - 0.08, v, 0.05)
        return torch.maximum(hole, u.abs() - 1.8 * wide)
    return None
