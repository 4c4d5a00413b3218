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
from retention_lib.samplers import Sampler, make_sampler
from retention_lib.session import Session, clean_pass, generator, open_session

CHECKPOINT_SECONDS = 60.0


def warm_up(session: Session) -> None:
    """Fit the head alone on cached features of the frozen backbone (clean view)."""
    config, model, rows = session.config, session.model.eval(), session.train_rows
    with torch.inference_mode(), session.autocast():
        parts = [
            models.pooled_features(model, session.clean_batch(part))
            for part in rows.split(session.eval_batch)
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


def shown_before(order: np.ndarray, n: int) -> np.ndarray:
    """How often each presentation's sample was shown before in the epoch, (presentation,).

    Parameters
    ----------
    order : ndarray of int, (presentation,)
        Samples, each in 0..n - 1.

    Examples
    --------
    >>> shown_before(np.array([2, 0, 2, 2]), n=3).tolist()
    [0, 0, 1, 2]
    """
    count, by_sample = np.bincount(order, minlength=n), np.argsort(order, kind="stable")
    before = np.empty(len(order), np.int64)
    before[by_sample] = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    return before


def train_epoch(
    session: Session, optimiser, epoch: int, sampler: Sampler | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Show what the sampler chose, augmented, and record what the training pass saw.

    Parameters
    ----------
    sampler : Sampler, optional
        Needed where the configuration's sampler remembers anything; default a new one.

    Returns
    -------
    dict of ndarray (sample,) over both splits (zero where not shown), and how often each sample
    was shown.
    """
    config, model, device = session.config, session.model.train(), session.images.device
    n = len(session.train_rows)
    order = (sampler or Sampler(config, n)).next_epoch(epoch)
    before, draw = shown_before(order.numpy(), n), generator(config.augment_seed, epoch)
    windows = [  # row i belongs to training sample i; shown again in an epoch, it gets another
        augment.crop_parameters(n, config.crop_scale, config.flip, draw)
        for _ in range(before.max() + 1)
    ]
    size, centre = (torch.stack(w)[before, order].to(device) for w in zip(*windows, strict=True))
    batches, done = split_batches(order.to(device), config.batch_size), 0
    recorder = Recorder(len(session.images), device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.model_seed * 100_003 + epoch)  # dropout and stochastic depth
        for i, batch in enumerate(batches):
            step = (epoch - 1) * len(batches) + i
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, step, config.epochs * len(batches))
            rows = session.train_rows[batch]
            here, done = slice(done, done + len(batch)), done + len(batch)
            images = augment.crop_and_flip(session.clean_batch(rows), size[here], centre[here])
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


def tell(sampler: Sampler, epoch: int, seen: dict, shown: np.ndarray, data: ImageSet) -> None:
    """Pass on to the sampler what was seen of the training samples that were shown.

    Parameters
    ----------
    seen : dict of ndarray (sample,), shown : ndarray of int, (sample,)
        Over both splits.
    """
    rows, labels = data.rows("train"), data.samples["label"].to_numpy()
    at = np.flatnonzero(shown[rows])
    rows = rows[at]
    right, loss = seen["predicted"][rows] == labels[rows], seen["loss"][rows]
    sampler.observe(epoch, *map(torch.from_numpy, (at, right, loss)))


def fine_tune(
    config: RunConfig,
    data: ImageSet,
    run: RunDir,
    device: torch.device,
    amp: bool,
    on_epoch=None,
    constants: np.ndarray | None = None,
) -> None:
    """Train one run from its last checkpoint, or its start, to the last epoch.

    Parameters
    ----------
    on_epoch : callable, optional
        Called with a dict of metrics after each recorded epoch.
    constants : ndarray, (training sample,), optional
        Decay constants of the pilot [1 / epoch], for the samplers that read one.

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite; names the epoch and what to change.
    SystemExit
        With status 143 after a SIGTERM, once the epoch is recorded and a checkpoint written.
    """
    session = open_session(config, data, device, amp)
    sampler = make_sampler(config, data.samples, constants)
    optimiser, first = _restore(session, run, sampler)
    saved_at, logits = time.monotonic(), None
    with sigterm_noted() as stopped:
        for epoch in range(first, config.epochs + 1):
            start = time.monotonic()
            online, shown = None, np.zeros(len(session.images), np.int64)
            if epoch == 0:
                warm_up(session)
            else:
                online, shown = train_epoch(session, optimiser, epoch, sampler)
            trained = time.monotonic()
            clean, logits = clean_pass(session)
            for seen in (clean, online) if online else (clean,):
                _require_finite(seen["loss"], epoch, config, run)
            # After the warm-up the clean pass is the first that is known of every sample.
            tell(sampler, epoch, online or clean, shown if epoch else np.ones_like(shown), data)
            run.write_epoch(epoch, clean, online, shown)
            row = _metrics(epoch, clean, data, trained - start, time.monotonic() - trained)
            run.write_metrics(row)
            if on_epoch is not None:
                on_epoch(row)
            due = time.monotonic() - saved_at >= CHECKPOINT_SECONDS and epoch < config.epochs
            if due or stopped:
                parts = {"model": session.model, "optimiser": optimiser, "sampler": sampler}
                states = {name: part.state_dict() for name, part in parts.items()}
                run.save_checkpoint({"epoch": epoch, **states})
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


def _restore(session: Session, run: RunDir, sampler: Sampler) -> tuple[torch.optim.Optimizer, int]:
    """Load the run's checkpoint, if there is one; return the optimiser and the next epoch."""
    optimiser = make_optimiser(session.config, session.model)
    state = run.resumable()
    if state is None:
        return optimiser, 0
    session.model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    if "sampler" in state:  # checkpoints from before there were samplers are of uniform runs
        sampler.load_state_dict(state["sampler"])
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
