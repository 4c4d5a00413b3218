"""Batched augmentation on the device: every sample gets its own crop and flip, without a loop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def to_float(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise bytes: the clean view.

    Parameters
    ----------
    images : Tensor of uint8, (image, row, column, 3)
    mean, std : Tensor, (1, 3, 1, 1)
        On the 0..1 scale.

    Returns
    -------
    Tensor of float32, (image, 3, row, column), channels last in memory.
    """
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def crop_parameters(
    n: int, scale: float, flip: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw random resized crops: area share in [scale, 1], aspect 3:4 to 4:3, position, flip.

    Always draws five numbers a sample, so that settings do not shift the random stream.

    Returns
    -------
    size, centre : Tensor, (sample, 2)
        In units of the half image, x before y; a negative width mirrors the picture.
    """
    u = torch.rand(n, 5, generator=generator)
    area = scale + (1 - scale) * u[:, 0]
    aspect = (4 / 3) ** (2 * u[:, 1] - 1) if scale < 1 else torch.ones(n)
    size = torch.stack([area * aspect, area / aspect], 1).sqrt().clamp_max(1)
    centre = (2 * u[:, 2:4] - 1) * (1 - size)
    mirror = torch.where((u[:, 4] < 0.5) & flip, -1.0, 1.0)
    return size * torch.stack([mirror, torch.ones(n)], 1), centre


def crop_and_flip(images: Tensor, size: Tensor, centre: Tensor) -> Tensor:
    """Cut and resize every image's own window back to the full size (bilinear).

    Parameters
    ----------
    images : Tensor of float, (image, 3, row, column)
    size, centre : Tensor, (image, 2)
        From `crop_parameters`.
    """
    n = len(images)
    theta = torch.zeros(n, 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0], theta[:, 1, 1] = size[:, 0], size[:, 1]
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
