"""The source world: what the phantom-size networks are pretrained on.

Two kinds of pictures, drawn without limit: *things* (33 silhouettes from `source_shapes`, with a
surface pattern, two colours and a small mark) and *ground* (cross-sections through layered soil with
one kind of finding: mounds, caves, a film above the surface, ...). Every picture has a class and,
as further lessons, factors that a class alone would not teach: which pattern, which mark, where,
which colour, how many layers. Colour alone decides no class. No class is a bird or a retina.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .draw import Canvas, _hash01, box, circle, ellipse, lattice_noise, segment
from .source_shapes import SHAPES

THINGS = tuple(SHAPES)
GROUNDS = (
    "layers", "mounds", "pits", "buried_bumps", "caves", "stones", "lens", "film", "cracks",
    "fault", "vein", "thinning", "roots", "specks", "fold", "tunnels",
)  # fmt: skip
CLASSES = THINGS + tuple(f"ground_{name}" for name in GROUNDS)
PATTERNS = ("plain", "bars", "bands", "dots", "checks", "shade", "rings", "mottled")
HUES = ("grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple")
#: What else is known of a picture: factor -> its values; -1 in the table means "does not apply".
#: All survive a left-right flip.
FACTORS = {
    "pattern": PATTERNS,
    "body_hue": HUES,
    "part_hue": HUES,
    "mark": ("none", "dot", "ring", "bar", "cross"),
    "mark_place": ("top", "middle", "bottom", "side"),
    "mark_hue": HUES,
    "layers": ("2", "3", "4", "5", "6", "7"),
    "relief": ("flat", "wavy", "hill", "valley"),
    "extent": ("small", "medium", "large"),
    "count": ("one", "two", "three", "four"),
}
#: What a pixel belongs to: a lesson for networks that read patches.
ROLES = ("backdrop", "body", "part", "dark", "mark", "blocked", "layer_even", "layer_odd", "finding")
_HUE_RGB = torch.tensor([
    [0.75, 0.75, 0.75], [0.95, 0.15, 0.15], [0.98, 0.55, 0.10], [0.95, 0.90, 0.15],
    [0.20, 0.75, 0.20], [0.15, 0.80, 0.85], [0.20, 0.30, 0.95], [0.70, 0.20, 0.80],
])  # fmt: skip


def sample_table(n: int, seed: int = 0) -> pd.DataFrame:
    """Draw what `n` pictures shall show; cheap, nothing is painted yet.

    Parameters
    ----------
    n : int
        Number of pictures; the first k rows are the same for every n >= k.
    seed : int
        Another seed is another sample of the world: use one to train on, one to test on.

    Returns
    -------
    DataFrame
        `label` (index into `CLASSES`), one integer column per factor of `FACTORS` (-1: does not
        apply) and `seed`, from which every other property of the picture follows.

    Examples
    --------
    >>> draw(sample_table(4)).shape
    (4, 64, 64, 3)
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    u = np.random.default_rng(seed).random((n, len(FACTORS) + 2))
    table = pd.DataFrame({"label": (u[:, 0] * len(CLASSES)).astype(np.int64)})
    thing = table["label"].to_numpy() < len(THINGS)
    for k, (name, values) in enumerate(FACTORS.items()):
        drawn = (u[:, 2 + k] * len(values)).astype(np.int64)
        on_ground = name in ("layers", "relief", "extent", "count")
        table[name] = np.where(thing != on_ground, drawn, -1)
    bare = table["mark"] == 0
    table.loc[bare, ["mark_place", "mark_hue"]] = -1
    quiet = table["label"] == CLASSES.index("ground_layers")
    table.loc[quiet, ["extent", "count"]] = -1
    table["seed"] = (u[:, 1] * 2**40).astype(np.int64)
    return table


def draw(table: pd.DataFrame, size: int = 64, batch: int = 64, roles: bool = False) -> np.ndarray:
    """Paint the pictures of a table.

    Returns
    -------
    ndarray of uint8, (sample, size, size, 3), or 4 with `roles`
        The fourth channel is each pixel's index into `ROLES`. Row i depends only on row i of the
        table.
    """
    out = np.empty((len(table), size, size, 4 if roles else 3), np.uint8)
    label = table["label"].to_numpy()
    columns = {name: torch.tensor(table[name].to_numpy(np.int64)) for name in table.columns}
    for k in np.unique(label):  # one class at a time: its recipe is then one batched call
        rows = np.flatnonzero(label == k)
        for start in range(0, len(rows), batch):
            chosen = rows[start : start + batch]
            part = {name: column[chosen] for name, column in columns.items()}
            paint = _thing if k < len(THINGS) else _ground
            canvas = paint(CLASSES[k], part, size)
            out[chosen, ..., :3] = canvas.to_uint8()
            if roles:
                out[chosen, ..., 3] = canvas.roles.numpy()
    return out


def _canvas(background: Tensor, size: int) -> Canvas:
    """A canvas that also knows what each pixel belongs to."""
    canvas = Canvas(background, size)
    canvas.roles = torch.zeros(len(background), size, size, dtype=torch.uint8)
    return canvas


def _lay(canvas: Canvas, role: str, distance: Tensor, colour: Tensor, alpha=None, blur=0.0):
    """Paint a shape and note its role."""
    inside = distance < 0
    if alpha is None:
        alpha = 1.0
    else:
        inside = inside & (alpha > 0.3)[:, None, None]
    canvas.paint(distance, colour, alpha, blur)
    canvas.roles.masked_fill_(inside.expand(canvas.roles.shape), ROLES.index(role))


def _numbers(seed: Tensor, n: int, stream: int) -> Tensor:
    """Uniform numbers (image, n) that depend on each picture's own seed."""
    return _hash01((seed * 1_000_003 + stream * 7919)[:, None] * 1009 + torch.arange(n)[None])


def _colour(hue: Tensor, light: Tensor) -> Tensor:
    """Colour (image, 3) of a hue index and a lightness in 0..1."""
    rgb = _HUE_RGB[hue.clamp_min(0)]
    dark, pale = rgb * (0.35 + 1.3 * light[:, None]), rgb + (1 - rgb) * (light[:, None] - 0.5)
    return torch.where(light[:, None] < 0.5, dark, pale).clamp(0, 1)


def _mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Texture (image, 3, row, column) between two colours by a map (image, row, column)."""
    return a[:, :, None, None] + share[:, None] * (b - a)[:, :, None, None]


def _pattern(kind: Tensor, u: Tensor, v: Tensor, r: Tensor, seed: Tensor) -> Tensor:
    """Map (image, row, column) in 0..1 of the surface pattern, in the thing's own frame."""
    out = torch.zeros_like(u)
    for k in range(1, len(PATTERNS)):
        i = kind == k
        if not i.any():
            continue
        a, b, f = u[i], v[i], (6 + 7 * r[i, 0])[:, None, None]
        p, q = f * a + 6 * r[i, 1, None, None], f * b + 6 * r[i, 2, None, None]
        if PATTERNS[k] == "bars":
            m = 0.5 + 3 * torch.sin(p)
        elif PATTERNS[k] == "bands":
            m = 0.5 + 3 * torch.sin(q)
        elif PATTERNS[k] == "dots":
            m = 3 * (torch.sin(p) + torch.sin(q) - 0.9)
        elif PATTERNS[k] == "checks":
            m = 0.5 + 4 * torch.sin(p) * torch.sin(q)
        elif PATTERNS[k] == "shade":
            m = 0.5 + 0.7 * b
        elif PATTERNS[k] == "rings":
            m = 0.5 + 3 * torch.sin(1.5 * f * torch.hypot(a, b))
        else:
            m = 0.5 + 4 * (lattice_noise(seed[i], 14, u.shape[-1]) - 0.5)
        out[i] = m.clamp(0, 1)
    return out


def _backdrop(seed: Tensor, avoid: Tensor, size: int) -> Tensor:
    """Background (image, 3, size, size) that differs in lightness from the colour to avoid."""
    r = _numbers(seed, 12, 1)
    first, second = r[:, 0:3], r[:, 3:6]
    for _ in range(2):
        close = (first.mean(1) - avoid.mean(1)).abs() < 0.22
        pushed = torch.where(avoid.mean(1)[:, None] > 0.5, first * 0.35, 0.65 + first * 0.35)
        first = torch.where(close[:, None], pushed, first)
    coarse = lattice_noise(seed + 1, 4, size)
    fine = lattice_noise(seed + 2, 20, size)
    kind = (r[:, 6] * 4).long()[:, None, None]
    axis = torch.linspace(0, 1, size)[None, :, None].expand_as(coarse)
    stripes = 0.5 + 0.5 * torch.sin(axis * (15 + 30 * r[:, 7, None, None]))
    share = torch.where(kind == 0, axis, torch.where(kind == 1, coarse, fine))
    share = torch.where(kind == 3, stripes, share)
    return _mix(first, second, share * (0.6 * r[:, 8])[:, None, None])


def _thing(name: str, t: dict[str, Tensor], size: int) -> Canvas:
    """One thing on a background, with its pattern, colours and mark."""
    seed = t["seed"]
    r = _numbers(seed, 16, 2)
    body, other = _colour(t["body_hue"], r[:, 0]), r[:, 1:4]
    other = torch.where(((other - body).abs().sum(1) < 0.7)[:, None], 1 - body, other)
    canvas = _canvas(_backdrop(seed, body, size), size)
    flip = torch.where(r[:, 4] < 0.5, -1.0, 1.0)[:, None, None]
    scale = 0.5 + 0.4 * r[:, 5]
    centre = (r[:, 6:8] - 0.5) * (1.5 * (1 - scale) + 0.25)[:, None]
    u, v = canvas.local(centre[:, 0], centre[:, 1], (r[:, 8] - 0.5) * 1.2, scale)
    u = u * flip / (0.85 + 0.3 * r[:, 9, None, None])
    skin = _mix(body, other, _pattern(t["pattern"], u, v, r[:, 10:13], seed))
    colours = {"body": skin, "part": _colour(t["part_hue"], r[:, 13]), "dark": body * 0.25}
    for role, distance in SHAPES[name](u, v, _numbers(seed, 3, 3)):
        _lay(canvas, role, distance * scale[:, None, None], colours[role])
    _mark(canvas, t, u, v, scale)
    return _weather(canvas, seed, speckle=0.35)


def _mark(canvas: Canvas, t: dict[str, Tensor], u: Tensor, v: Tensor, scale: Tensor):
    """A small mark at one of four places; an outline lets most be seen on any surface."""
    r = _numbers(t["seed"], 5, 4)
    place = torch.tensor([[0.0, -0.42], [0.0, 0.0], [0.0, 0.42], [0.4, 0.0]])[t["mark_place"]]
    u = u - place[:, 0, None, None] - (0.16 * r[:, 0, None, None] - 0.08)
    v = v - place[:, 1, None, None] - (0.16 * r[:, 1, None, None] - 0.08)
    radius = (0.12 + 0.08 * r[:, 2]) / scale.clamp_min(0.6) * 0.8
    wide = radius[:, None, None]
    shapes = [
        circle(u, v, radius),
        (circle(u, v, radius)).abs() - 0.3 * wide,
        box(u, v, 1.9 * radius, 0.42 * radius),
        torch.minimum(box(u, v, 1.4 * radius, 0.35 * radius), box(u, v, 0.35 * radius, 1.4 * radius)),
    ]
    colour = _colour(t["mark_hue"], 0.3 + 0.4 * r[:, 3])
    for k, distance in enumerate(shapes, start=1):
        shown = (t["mark"] == k).float()
        distance = distance * scale[:, None, None]
        canvas.paint(distance - 0.03, colour * 0.3, shown * (r[:, 4] < 0.6))
        _lay(canvas, "mark", distance, colour, shown)


def _ground(name: str, t: dict[str, Tensor], size: int) -> Canvas:
    """A cross-section through layers, from the air above to the bedrock, with its finding."""
    seed, finding = t["seed"], name.removeprefix("ground_")
    r = _numbers(seed, 24, 5)
    canvas = _canvas(_tones(r[:, 0:3], r[:, 3] * 0.3, r[:, 4]), size)
    x, y = canvas.x[None], canvas.y[None]
    one = lambda k: r[:, k, None, None]  # noqa: E731
    wave = (0.02 + 0.05 * one(5)) * torch.sin(x * (2 + 4 * one(6)) + 6 * one(7))
    bend = (0.1 + 0.2 * one(8)) * (x - one(9) + 0.5) ** 2
    zero = torch.zeros_like(wave)
    relief = torch.stack([zero, 2 * wave, bend, -bend])[t["relief"], torch.arange(len(seed))]
    relief = relief + (one(10) - 0.5) * 0.4 * x
    top = -0.55 + 0.35 * one(11)
    layers = t["layers"] + 2
    bottom = top + 0.5 + 0.5 * one(12)
    spots = _spots(t, finding)
    lift = _bumps(x, spots, reach=1.3)
    cuts = _numbers(seed, 7, 6) + 0.5
    cuts = cuts * (torch.arange(7)[None] < layers[:, None])
    cuts = torch.cumsum(cuts, 1) / cuts.sum(1, keepdim=True)  # (image, 7): lower edge of each layer
    step = torch.where(x * flip_sign(r[:, 13]) > spots["x"][:, 0, None, None], 0.25, 0.0)
    tones = _numbers(seed, 8, 7)
    for k in range(8):
        share = (cuts[:, k - 1] if k else torch.zeros(len(seed)))[:, None, None]
        edge = top + relief + (bottom - top) * share + 0.25 * wave * share
        edge = edge + _displace(finding, share, lift, step, x, r)
        light = torch.where(tones[:, k] < 0.5, tones[:, k] * 0.5, 0.4 + 0.6 * tones[:, k])
        light = (light + 0.35 * (-1) ** k * (tones[:, 7] - 0.2)).clamp(0.05, 1)
        streak = lattice_noise(seed + 11 * k, 24, size, (1, 4)) - 0.5
        colour = _tones(r[:, 14:17], light, r[:, 4])[:, :, None, None] * (1 + 0.4 * streak[:, None])
        role = "layer_odd" if k % 2 else "layer_even"
        _lay(canvas, role, edge - y, colour, (layers >= k).float(), blur=0.03)
    surface = top + relief + _displace(finding, zero[:, :1, :1], lift, step, x, r)
    _finding(canvas, finding, spots, surface, top + relief, bottom - top, r)
    return _weather(canvas, seed, speckle=0.9)


def flip_sign(r: Tensor) -> Tensor:
    """-1 or 1, (image, 1, 1), by a uniform number."""
    return torch.where(r < 0.5, -1.0, 1.0)[:, None, None]


def _tones(rgb: Tensor, light: Tensor, grey: Tensor) -> Tensor:
    """Colour (image, 3) of a lightness; six of ten pictures are grey."""
    tint = torch.where(grey[:, None] < 0.6, torch.ones_like(rgb), 0.55 + 0.45 * rgb)
    return light[:, None] * tint


def _spots(t: dict[str, Tensor], finding: str) -> dict[str, Tensor]:
    """Where the findings lie and how large they are: (image, 4) each; `on` is 0 for absent ones."""
    r = _numbers(t["seed"], 16, 8)
    number = t["count"].clamp_min(0) + 1
    slot = torch.arange(4)[None] + 0.25 + 0.5 * r[:, 0:4]
    x = (slot / number[:, None].clamp_min(2) * 1.7 - 0.85 + 0.3 * (r[:, 12:13] - 0.5)).clamp(-0.9, 0.9)
    size = torch.tensor([0.09, 0.15, 0.24])[t["extent"].clamp_min(0)][:, None]
    size = size * (0.8 + 0.4 * r[:, 4:8])
    on = (torch.arange(4)[None] < number[:, None]).float()
    on = on * (0.0 if finding == "layers" else 1.0)
    return {"x": x, "size": size, "depth": 0.25 + 0.5 * r[:, 8:12], "on": on}


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


def _finding(canvas: Canvas, finding: str, spots, surface, base, thick, r: Tensor):
    """Paint what lies in or above the layers."""
    dark = r[:, 18:21] * 0.12
    bright = 0.8 + 0.2 * r[:, 18:21]
    x, y = canvas.x[None], canvas.y[None]
    if finding == "film":
        gap = 0.06 + 0.2 * _bumps(x, spots, reach=2.0) / 0.24 + 0.05 * r[:, 21, None, None]
        _lay(canvas, "finding", (y - surface + gap).abs() - 0.028, bright)
        return
    if finding == "lens":
        lift = 1.2 * _bumps(x, spots, reach=1.3)
        edge = base + 0.62 * thick
        _lay(canvas, "finding", torch.maximum(edge - lift - y, y - edge) + 0.02, dark)
        return
    for k in range(4):
        at, size, on = spots["x"][:, k], spots["size"][:, k], spots["on"][:, k]
        depth = spots["depth"][:, k, None, None] * thick
        column = ((at + 1) * canvas.size / 2).long().clamp(0, canvas.size - 1)
        floor = base.expand(len(at), canvas.size, canvas.size)[torch.arange(len(at)), 0, column]
        cy = floor + depth[:, 0, 0]
        u, v = canvas.local(at, cy)
        if finding == "caves":
            _lay(canvas, "finding", ellipse(u, v, size, 0.7 * size), dark, on)
        elif finding == "stones":
            _lay(canvas, "finding", box(u, v, size, 0.6 * size, 0.05), bright, on)
        elif finding == "cracks":
            lean = (r[:, 22] - 0.5) * 0.4
            _lay(canvas, "finding", segment(u, v, -lean, -2 * size, lean, 2 * size, 0.035), dark, on)
        elif finding == "vein":
            _lay(canvas, "finding", segment(u, v, -2.5 * size, size, 2.5 * size, -size, 0.03), bright, on)
        elif finding == "roots":
            shade = torch.maximum(u.abs() - 0.6 * size[:, None, None], floor[:, None, None] - y)
            _lay(canvas, "finding", shade, dark, on * 0.55, blur=0.08)
        elif finding == "specks":
            wu, wv = u.remainder(0.11) - 0.055, v.remainder(0.13) - 0.065
            near = circle(u, v, 1.7 * size)
            _lay(canvas, "finding", torch.maximum(circle(wu, wv, 0.026), near), bright, on)
        elif finding == "tunnels":
            w = (u + size[:, None, None]).remainder(0.16) - 0.08
            row = torch.maximum(circle(w, v, 0.05), u.abs() - 1.8 * size[:, None, None])
            _lay(canvas, "finding", row, dark, on)


def _weather(canvas: Canvas, seed: Tensor, speckle: float) -> Canvas:
    """Occlusion, light, contrast and noise: what a picture may suffer without changing its class."""
    r = _numbers(seed, 12, 9)
    u, v = canvas.local(1.8 * r[:, 0] - 0.9, 1.8 * r[:, 1] - 0.9, 3 * r[:, 2])
    blocked = (r[:, 3] < 0.25).float()
    block = box(u, v, 0.1 + 0.25 * r[:, 4], 0.08 + 0.15 * r[:, 5], 0.05)
    _lay(canvas, "blocked", block, r[:, 6:9], blocked)
    rough = lattice_noise(seed + 5, canvas.size, canvas.size)[:, None] - 0.5
    amount = (speckle * r[:, 9] ** 2)[:, None, None, None]
    contrast = (0.45 + 0.65 * r[:, 10])[:, None, None, None]
    light = (r[:, 11] - 0.5)[:, None, None, None] * 0.25
    rgb = canvas.rgb * (1 + amount * rough) + 0.15 * amount * rough
    canvas.rgb = (rgb - 0.5) * contrast + 0.5 + light
    return canvas
