"""The source world: what the phantom-size networks are pretrained on.

Two kinds of pictures, drawn without limit: *things* (33 silhouettes from `source_shapes`, with a
surface pattern, two colours and a small mark) and *ground* (cross-sections through layered soil
with one kind of finding: mounds, caves, a film above the surface, ...). Every picture has a class
and, as further lessons, factors that a class alone would not teach: which pattern, which mark,
where, which colour, how many layers. Colour alone decides no class. No class is a bird or a retina.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from retention_lib.data.draw import Canvas, box, circle, lattice_noise
from retention_lib.data.source_ground import FINDINGS, paint_ground
from retention_lib.data.source_paint import HUES, colour_of, lay, mix, numbers, role_canvas, weather
from retention_lib.data.source_shapes import SHAPES

THINGS = tuple(SHAPES)
CLASSES = THINGS + tuple(f"ground_{name}" for name in FINDINGS)
PATTERNS = ("plain", "bars", "bands", "dots", "checks", "shade", "rings", "mottled")
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
        The fourth channel is each pixel's index into `source_paint.ROLES`. Row i depends only on
        row i of the table.
    """
    out = np.empty((len(table), size, size, 4 if roles else 3), np.uint8)
    label = table["label"].to_numpy()
    columns = {name: torch.tensor(table[name].to_numpy(np.int64)) for name in table.columns}
    for k in np.unique(label):  # one class at a time: its recipe is then one batched call
        rows = np.flatnonzero(label == k)
        for start in range(0, len(rows), batch):
            chosen = rows[start : start + batch]
            part = {name: column[chosen] for name, column in columns.items()}
            if k < len(THINGS):
                canvas = _paint_thing(CLASSES[k], part, size)
            else:
                canvas = paint_ground(FINDINGS[k - len(THINGS)], part, size)
            out[chosen, ..., :3] = canvas.to_uint8()
            if roles:
                out[chosen, ..., 3] = canvas.roles.numpy()
    return out


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
    r = numbers(seed, 12, 1)
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
    return mix(first, second, share * (0.6 * r[:, 8])[:, None, None])


def _paint_thing(name: str, t: dict[str, Tensor], size: int) -> Canvas:
    """One thing on a background, with its pattern, colours and mark."""
    seed = t["seed"]
    r = numbers(seed, 16, 2)
    body, other = colour_of(t["body_hue"], r[:, 0]), r[:, 1:4]
    other = torch.where(((other - body).abs().sum(1) < 0.7)[:, None], 1 - body, other)
    canvas = role_canvas(_backdrop(seed, body, size), size)
    flip = torch.where(r[:, 4] < 0.5, -1.0, 1.0)[:, None, None]
    scale = 0.5 + 0.4 * r[:, 5]
    centre = (r[:, 6:8] - 0.5) * (1.5 * (1 - scale) + 0.25)[:, None]
    u, v = canvas.local(centre[:, 0], centre[:, 1], (r[:, 8] - 0.5) * 1.2, scale)
    u = u * flip / (0.85 + 0.3 * r[:, 9, None, None])
    skin = mix(body, other, _pattern(t["pattern"], u, v, r[:, 10:13], seed))
    colours = {"body": skin, "part": colour_of(t["part_hue"], r[:, 13]), "dark": body * 0.25}
    for role, distance in SHAPES[name](u, v, numbers(seed, 3, 3)):
        lay(canvas, role, distance * scale[:, None, None], colours[role])
    _mark(canvas, t, u, v, scale)
    return weather(canvas, seed, speckle=0.35)


def _mark(canvas: Canvas, t: dict[str, Tensor], u: Tensor, v: Tensor, scale: Tensor):
    """A small mark at one of four places; an outline lets most be seen on any surface."""
    r = numbers(t["seed"], 5, 4)
    place = torch.tensor([[0.0, -0.42], [0.0, 0.0], [0.0, 0.42], [0.4, 0.0]])[t["mark_place"]]
    u = u - place[:, 0, None, None] - (0.16 * r[:, 0, None, None] - 0.08)
    v = v - place[:, 1, None, None] - (0.16 * r[:, 1, None, None] - 0.08)
    radius = (0.12 + 0.08 * r[:, 2]) / scale.clamp_min(0.6) * 0.8
    wide = radius[:, None, None]
    shapes = [
        circle(u, v, radius),
        (circle(u, v, radius)).abs() - 0.3 * wide,
        box(u, v, 1.9 * radius, 0.42 * radius),
        torch.minimum(
            box(u, v, 1.4 * radius, 0.35 * radius), box(u, v, 0.35 * radius, 1.4 * radius)
        ),
    ]
    colour = colour_of(t["mark_hue"], 0.3 + 0.4 * r[:, 3])
    for k, distance in enumerate(shapes, start=1):
        shown = (t["mark"] == k).float()
        distance = distance * scale[:, None, None]
        canvas.paint(distance - 0.03, colour * 0.3, shown * (r[:, 4] < 0.6))
        lay(canvas, "mark", distance, colour, shown)
