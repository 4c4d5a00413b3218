"""What the training pass saw of every sample, recorded without slowing the loop down.

A step only puts its logits aside; they are looked at in blocks, many batches at once, because a
few small tensor operations on every batch cost more than the arithmetic in them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from retention_lib.session import observe

#: Logits put aside before they are looked at: 1 MiB of float32, which a core's cache holds.
BLOCK = 2**18


class Recorder:
    """The online view of one epoch.

    Parameters
    ----------
    n : int
        Samples, both splits.
    device : torch.device

    Examples
    --------
    >>> recorder = Recorder(3, torch.device("cpu"))
    >>> recorder.add(torch.tensor([2]), torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
    >>> seen, shown = recorder.finish()
    >>> seen["margin"].tolist(), shown.tolist()
    ([0.0, 0.0, 2.0], [0, 0, 1])
    """

    def __init__(self, n: int, device: torch.device):
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self._size = 0
        self._shown = torch.zeros(n, dtype=torch.int64, device=device)
        self._seen = {
            "predicted": torch.zeros(n, dtype=torch.int64, device=device),
            "loss": torch.zeros(n, device=device),
            "margin": torch.zeros(n, device=device),
        }

    def add(self, rows: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Note one batch: which samples (image,), their logits (image, class) and labels."""
        self._kept.append((rows, logits.detach(), labels))
        self._size += logits.numel()
        if self._size >= BLOCK:
            self._look()

    def finish(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What was seen of every sample at its last presentation, and how often it was shown.

        Returns
        -------
        dict of ndarray, (sample,)
            `predicted`, `loss` [nat], `margin` [logit]; zero for samples that were not shown.
        ndarray of int64, (sample,)
        """
        self._look()
        seen = {name: value.cpu().numpy() for name, value in self._seen.items()}
        return seen, self._shown.cpu().numpy()

    def _look(self) -> None:
        if not self._kept:
            return
        rows, logits, labels = map(torch.cat, zip(*self._kept, strict=True))
        self._kept, self._size = [], 0
        self._shown.index_add_(0, rows, torch.ones_like(rows))
        # Of several presentations the last counts; assignment to repeated places has no order.
        ordered, by = rows.sort(stable=True)
        ends = torch.ones_like(ordered, dtype=torch.bool)
        ends[:-1] = ordered[1:] != ordered[:-1]
        if not ends.all():
            last = by[ends]
            rows, logits, labels = rows[last], logits[last], labels[last]
        for name, value in observe(logits, labels).items():
            self._seen[name][rows] = value
