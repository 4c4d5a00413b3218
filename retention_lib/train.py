"""The training loop: head warm-up on frozen features, then fine-tuning, with every sample recorded.

The randomness of an epoch is a function of (seed, epoch) alone: generators are made anew for each
epoch, so a checkpoint needs no generator state and a resumed run repeats the interrupted one byte
for byte.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from retention_lib import augment, models
from retention_lib.config import RunConfig
from retention_lib.data.imageset import ImageSet
from retention_lib.recorder import Recorder
from retention_lib.rundir import RunDir
from retention_lib.session import EVAL_BATCH, Session, clean_pass, generator, open_session

CHECKPOINT_SECONDS = 60.0


def warm_up(session: Session) -> None:
    """Fit the head alone on cached features of the frozen backbone (clean view)."""
    config, model, rows = session.config, session.model.eval(), session.train_rows
    with torch.inference_mode(), session.autocast():
        parts = [
            models.pooled_features(model, session.clean_batch(r)) for r in rows.split(EVAL_BATCH)
        ]
    features, labels = torch.cat(parts).float().clone(), session.labels[rows]
    head = model.get_classifier()
    optimiser = torch.optim.AdamW(head.parameters(), config.warmup_lr, weight_decay=0.0)
    for epoch in range(config.warmup_epochs):
        order = torch.randperm(len(rows), generator=generator(config.order_seed, -1 - epoch))
        for batch in order.to(rows.device).split(config.batch_size):
            loss = F.cross_entropy(head(features[batch]).float(), labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()


def learning_rate(config: RunConfig, step: int, steps: int) -> float:
    """Rate of a step: linear over the first 5 % of all steps, then by the schedule."""
    ramp = max(1, round(0.05 * steps))
    if step < ramp:
        return config.lr * (step + 1) / ramp
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def make_optimiser(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW; biases, norms and embeddings of one dimension are not decayed, as usual."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def split_batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Cut an epoch's order into batches.

    A last batch of one sample joins the batch before it: batch norm over one value per channel is
    undefined, and every sample is to be shown.
    """
    batches = list(order.split(batch_size))
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def train_epoch(
    session: Session, optimiser, epoch: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Show every training sample once, augmented, and record what the training pass saw.

    Returns
    -------
    dict of ndarray (sample,) over both splits (zero for held-out samples), and how often each
    sample was shown.
    """
    config, model, device = session.config, session.model.train(), session.images.device
    n = len(session.train_rows)
    order = torch.randperm(n, generator=generator(config.order_seed, epoch)).to(device)
    size, centre = augment.crop_parameters(
        n, config.crop_scale, config.flip, generator(config.augment_seed, epoch)
    )
    size, centre = size.to(device), centre.to(device)  # row i belongs to training sample i
    batches = split_batches(order, config.batch_size)
    recorder = Recorder(len(session.images), device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.model_seed * 100_003 + epoch)  # dropout and stochastic depth
        for i, batch in enumerate(batches):
            step = (epoch - 1) * len(batches) + i
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, step, config.epochs * len(batches))
            rows = session.train_rows[batch]
            images = augment.crop_and_flip(session.clean_batch(rows), size[batch], centre[batch])
            images = images.contiguous(memory_format=torch.channels_last)
            with session.autocast():
                logits = model(images).float()
            loss = F.cross_entropy(logits, session.labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimiser.step()
            recorder.add(rows, logits, session.labels[rows])
    return recorder.finish()


def fine_tune(
    config: RunConfig, data: ImageSet, run: RunDir, device: torch.device, amp: bool, on_epoch=None
) -> None:
    """Train one run from its last checkpoint, or its start, to the last epoch.

    Parameters
    ----------
    on_epoch : callable, optional
        Called with a dict of metrics after each recorded epoch.

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite; names the epoch and what to change.
    SystemExit
        With status 143 after a SIGTERM, once the epoch is recorded and a checkpoint written.
    """
    session = open_session(config, data, device, amp)
    optimiser, first = _restore(session, run)
    saved_at, logits = time.monotonic(), None
    with sigterm_noted() as stopped:
        for epoch in range(first, config.epochs + 1):
            start = time.monotonic()
            online, shown = None, np.zeros(len(session.images), np.int64)
            if epoch == 0:
                warm_up(session)
            else:
                online, shown = train_epoch(session, optimiser, epoch)
            trained = time.monotonic()
            clean, logits = clean_pass(session)
            _require_finite(clean["loss"], epoch, config, run)
            run.write_epoch(epoch, clean, online, shown)
            row = _metrics(epoch, clean, data, trained - start, time.monotonic() - trained)
            run.write_metrics(row)
            if on_epoch is not None:
                on_epoch(row)
            due = time.monotonic() - saved_at >= CHECKPOINT_SECONDS and epoch < config.epochs
            if due or stopped:
                model, state = session.model.state_dict(), optimiser.state_dict()
                run.save_checkpoint({"epoch": epoch, "model": model, "optimiser": state})
                saved_at = time.monotonic()
            if stopped:
                raise SystemExit(128 + signal.SIGTERM)
    if logits is None:  # stopped after the last epoch: all is recorded but this
        _, logits = clean_pass(session)
    run.write_heldout_logits(logits[data.rows("val")])


@contextmanager
def sigterm_noted():
    """Yield a list that a SIGTERM makes non-empty, so that an epoch can be finished first.

    A second one does what it would have done without us, and the handler found is put back. Off
    the main thread, where Python allows no handlers, nothing changes.
    """
    received = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number, frame):
        received.append(number)
        signal.signal(signal.SIGTERM, before)

    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL  # None: not set from Python
    signal.signal(signal.SIGTERM, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _restore(session: Session, run: RunDir) -> tuple[torch.optim.Optimizer, int]:
    """Load the run's checkpoint, if there is one; return the optimiser and the next epoch."""
    optimiser = make_optimiser(session.config, session.model)
    state = run.load_checkpoint()
    if state is None:
        return optimiser, 0
    session.model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return optimiser, state["epoch"] + 1


def _require_finite(loss: np.ndarray, epoch: int, config: RunConfig, run: RunDir) -> None:
    if not np.isfinite(loss).all():
        rate = "warmup_lr" if epoch == 0 else "lr"
        raise FloatingPointError(
            f"loss is not finite at epoch {epoch} of {run.folder.name}: lower {rate} "
            f"({getattr(config, rate)}) or set amp='off'"
        )


def _metrics(epoch: int, clean: dict, data: ImageSet, train_s: float, clean_s: float) -> dict:
    """Accuracy, balanced accuracy and mean loss of both splits after one epoch."""
    row = {"epoch": epoch}
    labels = data.samples["label"].to_numpy()
    for split in ("train", "val"):
        rows = data.rows(split)
        hit = clean["predicted"][rows] == labels[rows]
        present = np.unique(labels[rows])
        per_class = [hit[labels[rows] == c].mean() for c in present]
        row[f"{split}_accuracy"] = float(hit.mean())
        row[f"{split}_balanced_accuracy"] = float(np.mean(per_class))
        row[f"{split}_loss"] = float(clean["loss"][rows].mean())
    return {**row, "train_seconds": round(train_s, 3), "clean_seconds": round(clean_s, 3)}
