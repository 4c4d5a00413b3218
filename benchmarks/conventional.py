"""The script that most repositories have, written for comparison: correct, readable, and slow.

ImageFolder, a DataLoader with a worker per core, torchvision's transforms one image at a time, and
a Python dictionary with a list per sample, filled in the loop.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder


class WithIndex(Dataset):
    """An ImageFolder that also says which sample it is."""

    def __init__(self, folder: Path, transform):
        self.images = ImageFolder(folder, transform)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return *self.images[i], i


class Conventional:
    """One network, its loaders and its record of every sample.

    Parameters
    ----------
    folder : Path
        Class folders.
    model : Module
        On the device; mean and std are its normalisation, (1, 3, 1, 1).
    bf16 : bool
        Autocast, so that precision and pipeline are told apart.
    """

    def __init__(self, folder, model, mean, std, size, batch, crop_scale, lr, device, bf16):
        self.model, self.device, self.bf16 = model, device, bf16
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
        normal = transforms.Normalize(mean.flatten().tolist(), std.flatten().tolist())
        crop = transforms.RandomResizedCrop(size, scale=(crop_scale, 1), ratio=(3 / 4, 4 / 3))
        train = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), normal]
        clean = [transforms.Resize((size, size)), transforms.ToTensor(), normal]
        loader = {"num_workers": os.cpu_count() or 1, "persistent_workers": True}
        loader["pin_memory"] = device.type == "cuda"
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.train_loader = DataLoader(
            WithIndex(folder, transforms.Compose(train)), batch, shuffle=True, **loader
        )
        self.clean_loader = DataLoader(
            WithIndex(folder, transforms.Compose(clean)), batch, **loader
        )
        self.record: dict[int, dict[str, list[float]]] = {}

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _note(self, view: str, logits, labels, indices) -> None:
        """Per-sample lists in a dictionary, as in the common repositories."""
        loss = F.cross_entropy(logits, labels, reduction="none")
        right = logits.argmax(1) == labels
        for i in range(len(indices)):
            own = self.record.setdefault(int(indices[i]), {})
            own.setdefault(f"{view}_loss", []).append(loss[i].item())
            own.setdefault(f"{view}_correct", []).append(bool(right[i].item()))

    def train_epoch(self) -> float:
        """Seconds of one training pass."""
        start = time.perf_counter()
        self.model.train()
        for images, labels, indices in self.train_loader:
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            with self._autocast():
                logits = self.model(images).float()
            loss = F.cross_entropy(logits, labels)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self._note("online", logits.detach(), labels, indices)
        return time.perf_counter() - start

    @torch.no_grad()
    def clean_pass(self) -> float:
        """Seconds of one pass in evaluation mode without augmentation."""
        start = time.perf_counter()
        self.model.eval()
        for images, labels, indices in self.clean_loader:
            images, labels = images.to(self.device), labels.to(self.device)
            with self._autocast():
                logits = self.model(images).float()
            self._note("clean", logits, labels, indices)
        return time.perf_counter() - start
