"""What the source world asks of a network in pretraining: its pictures, questions and losses."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retention_lib.data import source_world
from retention_lib.models import PHANTOM_SIZE

#: The questions, each with its own head, and how many answers each has.
QUESTIONS = {
    "class": len(source_world.CLASSES),
    **{name: len(values) for name, values in source_world.FACTORS.items()},
}
FACTOR_WEIGHT = 2.5  # of the mean loss of the factors, beside 1 for the class
LABEL_SMOOTHING = 0.05  # of the class


def draw_source(n: int, seed: int, cache: Path | None = None) -> tuple[np.ndarray, Tensor]:
    """Pictures and answers of the source world.

    Returns
    -------
    images : ndarray of uint8, (sample, 64, 64, 4)
        RGB and the role of each pixel (an index into `source_paint.ROLES`); a memory map when
        `cache` names a folder: two runs then draw them once.
    answers : Tensor of int64, (sample, 1 + factor)
        Class, then the factors; -1 where a factor does not apply.
    """
    table = source_world.sample_table(n, seed)
    answers = torch.tensor(table[["label", *source_world.FACTORS]].to_numpy(np.int64))
    if cache is None:
        return source_world.draw(table, PHANTOM_SIZE, roles=True), answers
    digest = hashlib.blake2b(pd.util.hash_pandas_object(table).to_numpy().tobytes(), digest_size=6)
    folder = Path(source_world.__file__).parent
    for code in ("draw", "source_world", "source_shapes", "source_ground", "source_paint"):
        digest.update((folder / f"{code}.py").read_bytes())
    path = cache / f"source_{n}_{seed}_{digest.hexdigest()}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        with open(partial, "wb") as file:
            np.save(file, source_world.draw(table, PHANTOM_SIZE, roles=True))
        partial.replace(path)
    return np.load(path, mmap_mode="r"), answers


def normalise(images: np.ndarray | Tensor) -> Tensor:
    """uint8 (sample, size, size, 3 or more) to float32 (sample, 3, ...): (x / 255 - 0.5) / 0.25."""
    pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    return pixels[..., :3].permute(0, 3, 1, 2).float().div_(63.75).sub_(2.0).contiguous()


def augment(images: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, shift by up to 6 pixels, vary contrast and brightness, sometimes take the colour away.

    No answer changes under these (factors survive a flip), except that grey pictures have no hue:
    only one in ten loses its colour.

    Returns
    -------
    x : Tensor of float32, (sample, 3, size, size)
    roles : Tensor of uint8, (sample, size, size), moved along with the picture
    """
    n, size = images.shape[:2]
    r = torch.rand(n, 6, generator=generator)
    axis = torch.arange(size)[None]
    column = torch.where(r[:, :1] < 0.5, axis, size - 1 - axis)
    column = (column + (r[:, 1:2] * 13).long() - 6).abs()
    row = (axis + (r[:, 2:3] * 13).long() - 6).abs()
    column, row = (torch.where(i >= size, 2 * size - 2 - i, i) for i in (column, row))
    image = torch.arange(n)[:, None, None]
    moved = torch.from_numpy(np.array(images))[image, row[:, :, None], column[:, None, :]]
    x = normalise(moved)
    x = x * (0.7 + 0.6 * r[:, 3])[:, None, None, None] + (r[:, 4] - 0.5)[:, None, None, None]
    grey = (r[:, 5] < 0.1)[:, None, None, None]
    return torch.where(grey, x.mean(1, keepdim=True), x), moved[..., 3]


def loss_of(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of the class plus the mean cross-entropy of the factors that apply [nat]."""
    parts = logits.split(list(QUESTIONS.values()), 1)
    total = F.cross_entropy(parts[0], answers[:, 0], label_smoothing=LABEL_SMOOTHING)
    for k, part in enumerate(parts[1:], start=1):
        applies = (answers[:, k] >= 0).sum()
        if applies:
            error = F.cross_entropy(part, answers[:, k], ignore_index=-1, reduction="sum")
            total = total + error / applies * (FACTOR_WEIGHT / (len(parts) - 1))
    return total


def patch_loss(logits: Tensor, roles: Tensor) -> Tensor:
    """Cross-entropy [nat] between what each patch is said to show and the roles of its pixels.

    Parameters
    ----------
    logits : Tensor, (sample, patch, role)
        Patches row by row, as a vision transformer orders them.
    roles : Tensor of uint8, (sample, size, size)
    """
    grid = math.isqrt(logits.shape[1])
    share = F.one_hot(roles.long(), logits.shape[2]).permute(0, 3, 1, 2).float()
    share = F.avg_pool2d(share, roles.shape[-1] // grid).flatten(2).transpose(1, 2)
    return -(share * logits.log_softmax(2)).sum(2).mean()


@torch.inference_mode()
def source_accuracy(model: nn.Module, images: np.ndarray, answers: Tensor) -> dict[str, float]:
    """Share of right answers per question on source pictures; NaN where none applies."""
    model.eval()
    logits = torch.cat([model(normalise(images[i : i + 256])) for i in range(0, len(images), 256)])
    out = {}
    parts = logits.split(list(QUESTIONS.values()), 1)
    for k, (name, part) in enumerate(zip(QUESTIONS, parts, strict=True)):
        applies = answers[:, k] >= 0
        right = part.argmax(1)[applies] == answers[applies, k]
        out[name] = round(float(right.float().mean()), 4)
    return out
