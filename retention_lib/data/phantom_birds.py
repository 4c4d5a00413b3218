"""Phantom birds: drawn species in genera, a stand-in for CUB-200-2011 with known ground truth.

Species of one genus share their shape and base colours and differ in small marks (eye ring, wing
bar, cap, ...); genera differ in shape; three species are distinctive. Every picture adds nuisance
that says nothing about the species: backdrop, perch, pose, light, occlusion, individual colour.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from retention_lib.data import draw as pen
from retention_lib.data.bird_parts import Bird, Scene, paint_backdrop, paint_leaves, paint_perch
from retention_lib.data.bird_species import (
    CLASSES,
    GENUS,
    MARKS,
    PARTS,
    SHAPE,
    class_distances,
    parameters,
)
from retention_lib.data.imageset import sample_ids

# The knobs of difficulty. Tune these, never a metric.
NOISE_SHARE = 0.05  # of each split, labelled as another species than the one drawn
NOISE_WITHIN_GENUS = 0.75  # of the noisy samples, mistaken for a species of the same genus
MARK_SIZE = 1.0  # factor on the extent of every small mark; smaller is harder
MARK_STRENGTH = (0.65, 1.0)  # opacity of an individual's marks, uniform; lower is harder
OCCLUDED_SHARE = 0.35  # of the samples, with leaves in front of the bird
OCCLUSION = (0.1, 0.6)  # leaf area / bird area where occluded, uniform
ROTATION = 0.35  # largest tilt of the bird [rad]
SCALE = (0.85, 1.25)  # size of the bird, uniform
SHIFT = 0.12  # largest displacement of the bird [half image]
CONTRAST = (0.5, 1.15)  # of the whole picture, uniform
LIGHT = 0.14  # largest offset of the brightness, and twice that of the colour cast
COLOUR_SPREAD = 0.16  # of an individual's base colours around its species'
SHAPE_SPREAD = 0.06  # relative spread of an individual's proportions

__all__ = ["CLASSES", "GENUS", "class_distances", "draw", "sample_table"]

_PIXELS = 32 * 64 * 64  # drawn at a time at most: more falls out of the processor's cache
_NUISANCE = """cx cy scale flip strength plumage light warm backdrop tone bank girth slope bark
leaf_u leaf_v leaf_turn leaf_kind""".split()


def sample_table(n: int, seed: int = 0) -> pd.DataFrame:
    """Say which samples there are and what is true of each, without drawing any.

    Observed labels are balanced within each split (their counts differ by at most one). Exactly
    `round(NOISE_SHARE * count)` samples of each split carry the label of another species than the
    one drawn, mostly one of the same genus; the path names the folder of the observed label.

    Parameters
    ----------
    n : int
        Training samples, at least one per class; `max(n // 4, 24)` validation samples are added.
    seed : int
        Of the data set. Another seed gives other pictures under the same paths.

    Returns
    -------
    DataFrame
        Training rows, then validation rows, each ordered by path, with the columns of
        `imageset.SAMPLE_COLUMNS` except `content_hash` (there are no files: `file_bytes` is 0), and

        planted_true_label : species drawn
        planted_noisy : bool, `label` is wrong
        planted_occlusion : leaf area over bird area, 0 = nothing in front
        planted_contrast : factor on the contrast of the picture
        planted_pose : tilt of the bird [rad], positive leans forward
        planted_seed : int64, everything else that the drawing draws

    Raises
    ------
    ValueError
        If n is not an integer of at least 24.

    Examples
    --------
    >>> sample_table(48)["split"].value_counts().to_dict()
    {'train': 48, 'val': 24}
    """
    classes = len(CLASSES)
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < classes:
        raise ValueError(f"n must be an integer >= {classes}, one per species, got {n!r}")
    counts = {"train": int(n), "val": max(int(n) // 4, classes)}
    label = np.concatenate([np.arange(c) * classes // c for c in counts.values()])
    split = np.repeat(list(counts), list(counts.values()))
    table = pd.DataFrame({"label": label, "split": split})
    number = table.groupby("label").cumcount().to_numpy() + 1
    path = [f"{CLASSES[c]}/{i:04d}.png" for c, i in zip(label, number, strict=True)]
    table.insert(0, "path", path)
    table.insert(0, "sample_id", sample_ids(path))
    table["group"], table["file_bytes"] = table["sample_id"], 0

    rng = np.random.default_rng([seed, 0xB12D5])
    truth = np.concatenate([_swap_labels(table.label[split == s].to_numpy(), rng) for s in counts])
    table["planted_true_label"], table["planted_noisy"] = truth, truth != label
    size = len(table)
    occlusion = np.where(rng.random(size) < OCCLUDED_SHARE, rng.uniform(*OCCLUSION, size), 0.0)
    table["planted_occlusion"] = occlusion
    table["planted_contrast"] = rng.uniform(*CONTRAST, size)
    table["planted_pose"] = rng.uniform(-ROTATION, ROTATION, size)
    table["planted_seed"] = rng.integers(0, 2**62, size)
    return table


def _swap_labels(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """True species behind observed labels, of which `NOISE_SHARE` are mistakes."""
    truth = label.copy()
    genus = np.array([GENUS[name] for name in CLASSES])
    noisy = rng.choice(len(label), round(NOISE_SHARE * len(label)), replace=False)
    within = np.zeros(len(noisy), bool)
    within[: round(NOISE_WITHIN_GENUS * len(noisy))] = True
    for row, near in zip(noisy, within, strict=True):
        same = genus == genus[label[row]]
        same[label[row]] &= not near  # the label itself is never a candidate
        truth[row] = rng.choice(np.flatnonzero(same if near else ~same))
    return truth


def draw(table: pd.DataFrame, size: int = 64, batch: int = 256) -> np.ndarray:
    """Draw the samples of a table, each from its own row alone.

    Parameters
    ----------
    table : DataFrame
        Rows of `sample_table`; the planted columns may be edited to draw a counterfactual.
    size : int
        Height and width [pixel]; the scene does not depend on it.
    batch : int
        Pictures drawn at a time; bounds the memory, never changes a byte.

    Returns
    -------
    ndarray of uint8, (sample, size, size, 3)

    Raises
    ------
    ValueError
        If size or batch is below 1, or a true label is not one of the species.
    """
    if size < 1 or batch < 1:
        raise ValueError(f"size and batch must be at least 1, got {size} and {batch}")
    truth = table["planted_true_label"].to_numpy(np.int64)
    if len(truth) and not (0 <= truth.min() and truth.max() < len(CLASSES)):
        raise ValueError(
            f"planted_true_label must lie in 0..{len(CLASSES) - 1}, "
            f"got {truth.min()}..{truth.max()}"
        )
    planted = table[["planted_occlusion", "planted_contrast", "planted_pose"]].to_numpy(np.float32)
    seed = table["planted_seed"].to_numpy(np.int64)
    out = np.empty((len(table), size, size, 3), np.uint8)
    step = min(batch, max(1, _PIXELS // size**2))
    for start in range(0, len(table), step):
        rows = slice(start, start + step)
        columns = (torch.from_numpy(x[rows].copy()) for x in (truth, planted, seed))
        out[rows] = _draw_batch(*columns, size)
    return out


def _draw_batch(truth: Tensor, planted: Tensor, seed: Tensor, size: int) -> np.ndarray:
    """Draw species `truth` (image,) with occlusion, contrast and pose `planted` (image, 3)."""
    occlusion, contrast, pose = planted.unbind(1)
    widths = [len(_NUISANCE), len(SHAPE), 3 * len(PARTS)]
    nuisance, shape_u, colour_u = pen.row_uniforms(seed, sum(widths)).split(widths, 1)
    nuisance = dict(zip(_NUISANCE, nuisance.unbind(1), strict=True))

    def between(name: str, low: float, high: float) -> Tensor:
        return low + (high - low) * nuisance[name]

    shape, parts, present, colours = (x[truth] for x in parameters())
    shape = shape * (1 + SHAPE_SPREAD * (2 * shape_u - 1))
    own = colour_u.view(-1, len(PARTS), 3) + nuisance["plumage"][:, None, None] - 1
    part = dict(zip(PARTS, (parts * (1 + COLOUR_SPREAD * own)).unbind(1), strict=True))
    form = {k: v[:, None, None] for k, v in zip(SHAPE, shape.unbind(1), strict=True)}

    scale, flip = between("scale", *SCALE), (between("flip", -1, 1) > 0).float() * 2 - 1
    # Centre the whole bird, not its body, so that long tails, bills and legs stay in the picture.
    ahead = 0.4 * (form["tail_length"] - form["bill_length"])[:, 0, 0] * scale * flip
    above = 0.4 * (form["leg_length"] - 0.15)[:, 0, 0] * scale
    cx, cy = between("cx", -SHIFT, SHIFT) + ahead, between("cy", -SHIFT, SHIFT) - above
    angle = pose * flip
    canvas = Scene(torch.zeros(len(truth), 3), size)
    paint_backdrop(canvas, seed, between("backdrop", 0, 4).long(), nuisance["tone"])
    reach = (form["depth"] * 0.85 + form["leg_length"])[:, 0, 0] * scale
    foot = (cx - torch.sin(angle) * reach, cy + torch.cos(angle) * reach)
    thickness = torch.where(nuisance["bank"] < 0.3, 3.0, between("girth", 0.10, 0.26))
    paint_perch(canvas, seed, foot, between("slope", -0.3, 0.3), thickness, nuisance["bark"])

    bird = Bird(canvas, (cx, cy, angle, scale), flip, form)
    bird.paint_back(part)
    bird.paint_body(part)
    strength = present * between("strength", *MARK_STRENGTH)[:, None]
    for k, mark in enumerate(MARKS):
        if mark == "wing_bar":  # the marks before it may be hidden by the wing
            bird.paint_wing(part)
        if present[:, k].any():
            bird.paint_mark(mark, MARK_SIZE, colours[:, k], strength[:, k])
    bird.paint_face(part)

    bird_area = torch.pi * (shape[:, 0] * shape[:, 1] + shape[:, 3] ** 2) * scale**2
    at = (cx + between("leaf_u", -0.3, 0.3) * scale, cy + between("leaf_v", -0.3, 0.2) * scale)
    turn, kind = between("leaf_turn", 0, 2 * torch.pi), between("leaf_kind", 0, 3).long()
    paint_leaves(canvas, at, turn, bird_area * occlusion, kind)
    light, warm = between("light", -LIGHT, LIGHT), between("warm", -LIGHT, LIGHT) / 2
    canvas.rgb = (canvas.rgb - 0.5) * contrast[:, None, None, None] + 0.5
    canvas.rgb += torch.stack([light + warm, light, light - warm], 1)[:, :, None, None]
    return canvas.to_uint8()
