"""One run in memory: model and images on the device, and what is observed of a forward pass."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retention_lib import augment, models
from retention_lib.config import RunConfig
from retention_lib.data.imageset import ImageSet

#: Images at a time in evaluation: many fill a GPU; on a CPU activations of more than these leave
#: the cache (two cores, four networks in one comparison: 8 to 23 % slower with 256).
EVAL_BATCH = {"cuda": 256, "cpu": 32}


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_amp(amp: str, device: torch.device) -> bool:
    """Whether to train in bf16 autocast.

    `auto` is a fixed rule: on CUDA where bf16 is supported, on a CPU only where its instruction set
    has bf16 arithmetic. Measured on a CPU without it (2 cores, AVX2), autocast was 6 (ResNet-18)
    to 20 times (DeiT) slower than float32.
    """
    if amp != "auto":
        return amp == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@dataclass
class Session:
    """What the steps of one run share. The order of `images` is that of the sample table."""

    config: RunConfig
    model: nn.Module
    images: Tensor  # uint8 (sample, row, column, 3), on the device
    labels: Tensor  # int64 (sample,), on the device
    train_rows: Tensor  # positions of the training samples
    mean: Tensor
    std: Tensor
    amp: bool

    def autocast(self):
        """bf16 autocast, or nothing."""
        if not self.amp:
            return nullcontext()
        return torch.autocast(self.images.device.type, dtype=torch.bfloat16)

    @property
    def eval_batch(self) -> int:
        """Images at a time where no gradient is wanted."""
        return EVAL_BATCH.get(self.images.device.type, 256)

    def clean_batch(self, rows: Tensor) -> Tensor:
        """Normalised images (image, 3, row, column) without augmentation."""
        return augment.to_float(self.images[rows], self.mean, self.std)


def open_session(config: RunConfig, data: ImageSet, device: torch.device, amp: bool) -> Session:
    """Put the model and the images on the device."""
    if data.size != config.input_size:
        raise ValueError(f"images have {data.size} px, the run expects {config.input_size} px")
    model = models.build_model(
        config.arch, len(data.classes), config.input_size, config.weights, config.model_seed
    )
    mean, std = models.normalisation(model)
    return Session(
        config=config,
        model=model.to(device, memory_format=torch.channels_last),
        images=torch.from_numpy(np.array(data.images)).to(device),
        labels=torch.from_numpy(data.samples["label"].to_numpy().astype(np.int64)).to(device),
        train_rows=torch.from_numpy(data.rows("train")).to(device),
        mean=mean.to(device),
        std=std.to(device),
        amp=amp,
    )


def generator(seed: int, epoch: int) -> torch.Generator:
    """The CPU generator of one consumer in one epoch (same numbers whatever the device)."""
    return torch.Generator().manual_seed(seed * 100_003 + epoch)


def observe(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What is recorded of a forward pass, each (sample,).

    predicted: argmax; loss = -log softmax(logits)[label] [nat]; margin = logit of the label minus
    the best other logit.
    """
    logits = logits.detach().float()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = logits.scatter(1, labels[:, None], -math.inf).amax(1)
    # The same first maximum; on the CPU NumPy finds it several times faster than torch.
    best = logits.argmax(1) if logits.is_cuda else torch.from_numpy(logits.numpy().argmax(1))
    return {
        "predicted": best,
        "loss": F.cross_entropy(logits, labels, reduction="none"),
        "margin": own - other,
    }


@torch.inference_mode()
def clean_pass(session: Session) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Evaluate every sample of both splits without augmentation.

    Returns
    -------
    dict of ndarray (sample,), and logits (sample, class) in float32.
    """
    session.model.eval()
    logits = []
    for rows in torch.arange(len(session.images)).split(session.eval_batch):
        with session.autocast():
            logits.append(session.model(session.clean_batch(rows)).float())
    logits = torch.cat(logits)
    seen = observe(logits, session.labels)
    return {name: value.cpu().numpy() for name, value in seen.items()}, logits.cpu().numpy()
