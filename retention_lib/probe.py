"""How much a frozen backbone knows already: a linear probe in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retention_lib.models import normalisation, pooled_features


@torch.inference_mode()
def features(model: nn.Module, images: np.ndarray) -> Tensor:
    """Pooled features (sample, feature), float64, of the frozen backbone in evaluation mode."""
    training = model.training
    model.eval()
    mean, std = normalisation(model)
    parts = []
    for start in range(0, len(images), 256):
        x = torch.from_numpy(np.array(images[start : start + 256])).permute(0, 3, 1, 2)
        parts.append(pooled_features(model, (x / 255 - mean) / std).double())
    model.train(training)
    return torch.cat(parts)


def linear_probe(
    model: nn.Module,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    val_images: np.ndarray,
    val_labels: np.ndarray,
    ridge: float = 1e-2,
) -> dict[str, float]:
    r"""Held-out accuracy of a ridge classifier on frozen features: what the backbone knows already.

    With standardised features X (and a constant), one-hot targets Y and the weights w that give
    every class the same total,

    .. math:: W = (X^T w X + \alpha I)^{-1} X^T w Y, \qquad \textstyle\sum w = 1.

    Parameters
    ----------
    model : Module
        A timm model; only `forward_features` and `forward_head(pre_logits=True)` are used.
    train_images, val_images : ndarray of uint8, (sample, size, size, 3)
    train_labels, val_labels : ndarray of int, (sample,)
    ridge : float
        Alpha, relative to the mean variance of a feature (which is 1).

    Returns
    -------
    dict
        `accuracy` and `balanced_accuracy` (mean recall over the classes present) in 0..1, `n`.
        Deterministic: nothing is drawn.

    Examples
    --------
    >>> probe = linear_probe(model, images, labels, val_images, val_labels)  # doctest: +SKIP
    >>> probe["balanced_accuracy"]  # doctest: +SKIP
    0.71
    """
    y, truth = (torch.as_tensor(np.asarray(v, dtype=np.int64)) for v in (train_labels, val_labels))
    for images, labels, name in ((train_images, y, "training"), (val_images, truth, "held-out")):
        if len(images) != len(labels) or len(labels) == 0:
            raise ValueError(f"{len(images)} {name} images do not match {len(labels)} labels")
    x = features(model, train_images)
    mean, spread = x.mean(0), x.std(0, unbiased=False).clamp_min(1e-6)
    design = _with_constant((x - mean) / spread)
    target = F.one_hot(y, int(y.max()) + 1).double()
    weight = 1 / target.sum(0).clamp_min(1)[y]
    weight = (weight / weight.sum())[:, None]
    penalty = ridge * torch.eye(design.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 1e-9  # the constant is free
    solution = torch.linalg.solve(
        design.T @ (weight * design) + penalty, design.T @ (weight * target)
    )
    guess = (_with_constant((features(model, val_images) - mean) / spread) @ solution).argmax(1)
    right = (guess == truth).double()
    recalls = [float(right[truth == k].mean()) for k in truth.unique()]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "n": len(truth),
    }


def _with_constant(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
