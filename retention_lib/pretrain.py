"""Pretraining of the phantom-size networks on the source world, and the probe that shows its worth.

    python -m retention_lib pretrain --arch phantom_resnet18    # about 20 minutes on one core
    python -m retention_lib pretrain --arch phantom_deit

One head per question (the class and every factor of `source_world.FACTORS`) sits on the pooled
features; only the backbone is kept, in half precision. A run that was cut off goes on from its
checkpoint and ends with the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .data import source_world
from .models import PHANTOM_ARCHS, PHANTOM_SIZE, build_model, pooled_features

WEIGHTS = Path(__file__).parent / "weights"
#: Peak learning rate of AdamW by architecture: the DeiT diverges at what suits the ResNet.
PEAK_LR = {"phantom_resnet18": 2e-3, "phantom_deit": 1e-3}
HELD_OUT_SEED = 1_000_003  # the source pictures that accuracy is measured on
MAX_BYTES = 3_000_000


def draw_source(n: int, seed: int, cache: Path | None = None) -> tuple[np.ndarray, Tensor]:
    """Pictures and answers of the source world.

    Returns
    -------
    images : ndarray of uint8, (sample, 64, 64, 4)
        RGB and the role of each pixel (an index into `source_world.ROLES`); a memory map when
        `cache` names a folder: two runs then draw them once.
    answers : Tensor of int64, (sample, 1 + factor)
        Class, then the factors; -1 where a factor does not apply.
    """
    table = source_world.sample_table(n, seed)
    answers = torch.tensor(table[["label", *source_world.FACTORS]].to_numpy(np.int64))
    if cache is None:
        return source_world.draw(table, PHANTOM_SIZE, roles=True), answers
    digest = hashlib.blake2b(pd.util.hash_pandas_object(table).to_numpy().tobytes(), digest_size=6)
    source = Path(source_world.__file__)
    for code in (source, source.with_name("source_shapes.py"), source.with_name("draw.py")):
        digest.update(code.read_bytes())
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


def head_sizes() -> list[int]:
    """Number of answers to each question: the class, then every factor."""
    return [len(source_world.CLASSES), *(len(v) for v in source_world.FACTORS.values())]


def loss_of(logits: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of the class plus the mean cross-entropy of the factors that apply [nat]."""
    parts = logits.split(head_sizes(), 1)
    total = F.cross_entropy(parts[0], answers[:, 0], label_smoothing=0.05)
    for k, part in enumerate(parts[1:], start=1):
        applies = (answers[:, k] >= 0).sum()
        if applies:
            error = F.cross_entropy(part, answers[:, k], ignore_index=-1, reduction="sum")
            total = total + error / applies * (2.5 / (len(parts) - 1))
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


def run(
    arch: str,
    steps: int = 5000,
    seed: int = 0,
    out: str | Path = WEIGHTS,
    *,
    n: int = 60_000,
    n_held_out: int = 4_000,
    batch: int = 96,
    lr: float | None = None,
    cache: str | Path | None = None,
    checkpoint_every: int = 200,
    stop_after: int | None = None,
    log=print,
) -> dict:
    """Pretrain one architecture on the source world and write its backbone.

    Parameters
    ----------
    arch : str
        A key of `models.PHANTOM_ARCHS`.
    steps, batch, n, seed
        Optimiser steps, pictures per step, pictures drawn (shown in a new order and newly augmented
        each time), and the seed of all of it.
    out : path
        Folder for `<arch>.safetensors` (half precision, no head) and `provenance.json`.
    lr : float, optional
        Peak learning rate; default `PEAK_LR`. Warm-up over 5 % of the steps, then cosine.
    cache : path, optional
        Folder for the drawn pictures and the checkpoint; without it nothing can be resumed.
    stop_after : int, optional
        Leave after this many steps with a checkpoint and no weights (tests use it).

    Returns
    -------
    dict
        What `provenance.json` records: configuration, accuracies on held-out source pictures,
        bytes, sha256, seconds, versions.
    """
    if arch not in PHANTOM_ARCHS:
        raise ValueError(f"arch must be one of {sorted(PHANTOM_ARCHS)}, got {arch!r}")
    if steps < 1 or batch < 2 or n < batch:
        raise ValueError(f"need steps >= 1 and n >= batch >= 2, got {steps=} {n=} {batch=}")
    cache = None if cache is None else Path(cache)
    config = {"arch": arch, "steps": steps, "seed": seed, "n": n, "batch": batch,
              "lr": lr or PEAK_LR.get(arch, 1e-3)}  # fmt: skip
    started = time.perf_counter()
    images, answers = draw_source(n, seed, cache)
    model = build_model(arch, sum(head_sizes()), PHANTOM_SIZE, weights="none", seed=seed)
    # A transformer learns to look from few pictures only if every patch is asked what it shows
    # (as in token labelling, Jiang et al. 2021); a convolution does not need it.
    patches = hasattr(model, "patch_embed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = nn.Linear(model.num_features, len(source_world.ROLES) if patches else 1)
    learner = nn.ModuleDict({"model": model, "reader": reader})
    optimiser = _optimiser(learner, config["lr"])
    state = {"step": 0, "seconds": 0.0, "loss": float("nan")}
    path = None if cache is None else cache / f"pretrain_{_digest(config)}.pt"
    if path is not None and path.exists():
        saved = torch.load(path, weights_only=True)
        learner.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        state = saved["state"]
        log(f"{arch}: going on at step {state['step']}")
    before = state["seconds"]
    first_loss = last_loss = None
    model.train()
    while state["step"] < steps:
        step = state["step"]
        rows = _rows(step, n, batch, seed)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        x, roles = augment(images[rows], generator)
        seen = model.forward_features(x)
        loss = loss_of(model.forward_head(seen), answers[rows])
        if patches:
            loss = loss + patch_loss(reader(seen[:, model.num_prefix_tokens :]), roles)
        for group in optimiser.param_groups:
            group["lr"] = config["lr"] * _schedule(step, steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        last_loss = float(loss.detach())
        first_loss = last_loss if first_loss is None else first_loss
        state = {
            "step": step + 1,
            "seconds": before + time.perf_counter() - started,
            "loss": last_loss if step == 0 else 0.98 * state["loss"] + 0.02 * last_loss,
        }
        stop = stop_after is not None and state["step"] >= stop_after
        if path is not None and (state["step"] % checkpoint_every == 0 or stop):
            _save(path, learner, optimiser, state)
            log(f"{arch} step {step + 1}/{steps} loss {state['loss']:.3f} {state['seconds']:.0f} s")
        if stop:
            return {"config": config, "step": state["step"], "loss": state["loss"]}
    accuracy = source_accuracy(model, *draw_source(n_held_out, HELD_OUT_SEED, cache))
    record = {"config": config, "accuracy": accuracy, "first_loss": first_loss,
              "last_loss": last_loss, "seconds": round(state["seconds"], 1)}  # fmt: skip
    return _publish(model, Path(out), record)


def _optimiser(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW; biases, norms and embeddings (fewer than two dimensions) do not decay."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _rows(step: int, n: int, batch: int, seed: int) -> np.ndarray:
    """Positions shown at a step: every picture once per round, each round in its own order."""
    per_round = n // batch
    order = np.random.default_rng((seed, step // per_round)).permutation(n)
    at = step % per_round * batch
    return np.sort(order[at : at + batch])


def _save(path: Path, model: nn.Module, optimiser, state: dict) -> None:
    partial = path.with_suffix(".tmp")
    payload = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state}
    torch.save(payload, partial)
    partial.replace(path)


def _digest(config: dict) -> str:
    text = json.dumps(config, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@torch.inference_mode()
def source_accuracy(model: nn.Module, images: np.ndarray, answers: Tensor) -> dict[str, float]:
    """Share of right answers per question on source pictures; NaN where none applies."""
    model.eval()
    logits = torch.cat([model(normalise(images[i : i + 256])) for i in range(0, len(images), 256)])
    out = {}
    names = ["class", *source_world.FACTORS]
    for k, (name, part) in enumerate(zip(names, logits.split(head_sizes(), 1), strict=True)):
        applies = answers[:, k] >= 0
        right = part.argmax(1)[applies] == answers[applies, k]
        out[name] = round(float(right.float().mean()), 4)
    return out


def _publish(model: nn.Module, out: Path, record: dict) -> dict:
    """Write the backbone in half precision and its line in provenance.json."""
    arch = record["config"]["arch"]
    model.reset_classifier(0)
    tensors = {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in model.state_dict().items()
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{arch}.safetensors"
    save_file(tensors, path, metadata={"arch": arch, "producer": "retention_lib pretrain"})
    data = path.read_bytes()
    if len(data) >= MAX_BYTES:
        raise ValueError(
            f"{path.name} has {len(data)} bytes, shipped weights stay below {MAX_BYTES}"
        )
    c = record["config"]
    record |= {
        "command": f"python -m retention_lib pretrain --arch {arch} --steps {c['steps']} "
        f"--images {c['n']} --batch {c['batch']} --lr {c['lr']} --seed {c['seed']}",
        "classes": len(source_world.CLASSES),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "torch": str(torch.__version__),
        "date": date.today().isoformat(),
    }
    book = out / "provenance.json"
    known = json.loads(book.read_text()) if book.exists() else {}
    known[arch] = record
    book.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return record


@torch.inference_mode()
def features(model: nn.Module, images: np.ndarray) -> Tensor:
    """Pooled features (sample, feature) of the frozen backbone in evaluation mode, float64."""
    training = model.training
    model.eval()
    parts = []
    for start in range(0, len(images), 256):
        parts.append(pooled_features(model, normalise(images[start : start + 256])).double())
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

    .. math:: W = (X^T w X + \alpha n I)^{-1} X^T w Y.

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


def main(argv: list[str] | None = None) -> int:
    """Command line of `python -m retention_lib pretrain`."""
    parser = argparse.ArgumentParser(prog="retention pretrain", description=__doc__.split("\n")[0])
    parser.add_argument("--arch", choices=sorted(PHANTOM_ARCHS), help="default: all, one by one")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--images", type=int, default=60_000, help="pictures drawn")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="pictures, checkpoints")
    parser.add_argument("--threads", type=int, help="processor threads")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    for arch in [args.arch] if args.arch else sorted(PHANTOM_ARCHS):
        record = run(arch, args.steps, args.seed, args.out, n=args.images, batch=args.batch,
                     lr=args.lr, cache=args.cache)  # fmt: skip
        print(json.dumps(record, indent=1), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
