"""Pretraining of the phantom-size networks on the source world.

    python -m retention_lib pretrain --arch phantom_resnet18
    python -m retention_lib pretrain --arch phantom_deit
    python -m retention_lib pretrain --arch phantom_deit --seed 1 --steps 4000 \\
           --start-from retention_lib/weights/phantom_deit.safetensors

The transformer learns more slowly and goes a second time, on other pictures. One head per question
(`lessons.QUESTIONS`) sits on the pooled features; only the backbone is kept, in half precision. A
run that was cut off goes on from its checkpoint to the same weights;
`weights/provenance.json` says how the shipped weights were made and what they know.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from retention_lib import paths
from retention_lib.data.source_paint import ROLES
from retention_lib.lessons import (
    QUESTIONS,
    augment,
    draw_source,
    loss_of,
    patch_loss,
    source_accuracy,
)
from retention_lib.lock import is_whole_zip
from retention_lib.models import PHANTOM_ARCHS, PHANTOM_SIZE, build_model
from retention_lib.probe import linear_probe  # noqa: F401 (pretrain.linear_probe is where users look for it)

#: Peak learning rate of AdamW by architecture: transformers diverge at what suits a ResNet.
PEAK_LR = {"phantom_resnet18": 1.5e-3, "phantom_deit": 1e-3}
HELD_OUT_SEED = 1_000_003  # of the source pictures that accuracy is measured on
MAX_BYTES = 3_000_000  # of a shipped file


def run(
    arch: str,
    steps: int = 4500,
    seed: int = 0,
    out: str | Path = paths.PACKAGED_WEIGHTS,
    *,
    n: int = 30_000,
    n_held_out: int = 4_000,
    batch: int = 64,
    lr: float | None = None,
    cache: str | Path | None = None,
    checkpoint_every: int = 200,
    stop_after: int | None = None,
    start_from: str | Path | None = None,
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
    start_from : path, optional
        Weights of an earlier pretraining to go on from, with new heads and a new schedule.

    Returns
    -------
    dict
        What `provenance.json` records: configuration, accuracies on held-out source pictures,
        bytes, sha256, seconds, versions. After `stop_after`, only configuration and state.

    Raises
    ------
    ValueError
        For an unknown architecture, impossible numbers, or weights too large to ship.
    """
    if arch not in PHANTOM_ARCHS:
        raise ValueError(f"arch must be one of {sorted(PHANTOM_ARCHS)}, got {arch!r}")
    if steps < 1 or batch < 2 or n < batch:
        raise ValueError(f"need steps >= 1 and n >= batch >= 2, got {steps=} {n=} {batch=}")
    cache = None if cache is None else Path(cache)
    config = {"arch": arch, "steps": steps, "seed": seed, "n": n, "batch": batch,
              "lr": lr or PEAK_LR.get(arch, 1e-3)}  # fmt: skip
    if start_from is not None:
        config["start_from"] = Path(start_from).name
        config["start_sha256"] = hashlib.sha256(Path(start_from).read_bytes()).hexdigest()
    images, answers = draw_source(n, seed, cache)
    student = Student(config, "none" if start_from is None else str(start_from))
    path = None if cache is None else cache / f"pretrain_{_digest(config)}.pt"
    if path is not None and path.exists():
        student.load(path)
        log(f"{arch}: going on at step {student.step}")
    while student.step < steps:
        rows = _rows(student.step, n, batch, seed)
        student.learn(images[rows], answers[rows])
        stop = stop_after is not None and student.step >= stop_after
        if path is not None and (student.step % checkpoint_every == 0 or stop):
            student.save(path)
            log(f"{arch} step {student.step}/{steps} loss {student.loss:.3f} "
                f"{student.seconds:.0f} s")  # fmt: skip
        if stop:
            return {"config": config, **student.state()}
    accuracy = source_accuracy(student.model, *draw_source(n_held_out, HELD_OUT_SEED, cache))
    record = {"config": config, "accuracy": accuracy, "patch_roles": student.reads_patches}
    record |= student.state()
    record = _publish(student.model, Path(out), record)
    if path is not None:
        path.unlink(missing_ok=True)
    return record


class Student:
    """A network in pretraining: its heads, optimiser and progress.

    The heads are the network's own classifier, split by question. A transformer learns to look from
    few pictures only if every patch is asked what it shows, so it gets one more head for the roles
    of its pixels (as in token labelling, Jiang et al. 2021); a convolution does not need it.
    """

    def __init__(self, config: dict, weights: str = "none"):
        self.config, self.step, self.seconds = config, 0, 0.0
        self.first_loss = self.loss = math.nan
        arch, seed = config["arch"], config["seed"]
        self.model = build_model(arch, sum(QUESTIONS.values()), PHANTOM_SIZE, weights, seed)
        self.model.train()
        self.reads_patches = hasattr(self.model, "patch_embed")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            reader = nn.Linear(self.model.num_features, len(ROLES) if self.reads_patches else 1)
        self.modules = nn.ModuleDict({"model": self.model, "reader": reader})
        decayed = [p for p in self.modules.parameters() if p.ndim >= 2]
        others = [p for p in self.modules.parameters() if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": 0.05},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config["lr"])

    def learn(self, images: np.ndarray, answers: torch.Tensor) -> None:
        """One optimiser step; its augmentation depends on the seed and the step alone."""
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(self.config["seed"] * 1_000_003 + self.step)
        x, roles = augment(images, generator)
        seen = self.model.forward_features(x)
        loss = loss_of(self.model.forward_head(seen), answers)
        if self.reads_patches:
            patches = seen[:, self.model.num_prefix_tokens :]
            loss = loss + patch_loss(self.modules["reader"](patches), roles)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config["lr"] * _schedule(self.step, self.config["steps"])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        value = float(loss.detach())
        if self.step == 0:
            self.first_loss = self.loss = value
        self.loss = 0.98 * self.loss + 0.02 * value
        self.step += 1
        self.seconds += time.perf_counter() - started

    def state(self) -> dict:
        """Progress as plain numbers; `loss` is a running mean over about 50 steps [nat]."""
        names = ("step", "seconds", "first_loss", "loss")
        return {name: round(getattr(self, name), 4) for name in names}

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".tmp")
        names = ("step", "seconds", "first_loss", "loss")
        state = {name: getattr(self, name) for name in names}
        payload = {"model": self.modules.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(payload | {"state": state}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        if not is_whole_zip(path):  # torch itself does not look
            raise ValueError(f"{path} is damaged; delete it to start this pretraining again")
        saved = torch.load(path, weights_only=True)  # tensors and plain values, never code
        self.modules.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        for name, value in saved["state"].items():
            setattr(self, name, value)


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


def _digest(config: dict) -> str:
    text = json.dumps(config, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


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
    # One entry only: safetensors writes several in any order, and the file's hash would vary.
    save_file(tensors, path, metadata={"producer": f"retention_lib pretrain --arch {arch}"})
    path.chmod(0o644)  # safetensors leaves it readable to its writer alone
    data = path.read_bytes()
    if len(data) >= MAX_BYTES:
        raise ValueError(
            f"{path.name} has {len(data)} bytes, shipped weights stay below {MAX_BYTES}"
        )
    c = record["config"]
    record |= {
        "command": f"python -m retention_lib pretrain --arch {arch} --steps {c['steps']} "
        f"--images {c['n']} --batch {c['batch']} --lr {c['lr']} --seed {c['seed']} "
        f"--threads {torch.get_num_threads()}"
        + (f" --start-from {c['start_from']}" if "start_from" in c else ""),
        "classes": QUESTIONS["class"],
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "torch": str(torch.__version__),
        "date": date.today().isoformat(),
    }
    book = out / "provenance.json"
    known = json.loads(book.read_text()) if book.exists() else {}
    if "start_from" in c:  # what came before stays on record
        record["started_from"] = known.get(arch)
    known[arch] = record
    book.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return record


def main(argv: list[str] | None = None) -> int:
    """Command line of `python -m retention_lib pretrain`."""
    form = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        "retention pretrain", description=__doc__, formatter_class=form
    )
    add = parser.add_argument
    add("--arch", choices=sorted(PHANTOM_ARCHS), help="one only; without it all, one by one")
    add("--steps", type=int, default=4500, help="optimiser steps")
    add("--images", type=int, default=30_000, help="source pictures drawn")
    add("--batch", type=int, default=64, help="pictures per step")
    add("--lr", type=float, help="peak learning rate; without it the architecture's own")
    add("--seed", type=int, default=0, help="of pictures, weights, order and augmentation")
    add("--out", type=Path, default=paths.PACKAGED_WEIGHTS, help="folder of the weights")
    add("--cache", type=Path, default=paths.cache(), help="folder of pictures and checkpoints")
    add("--start-from", type=Path, help="weights of an earlier pretraining to go on from")
    add("--threads", type=int, help="processor threads; another number gives other last bits")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    for arch in [args.arch] if args.arch else sorted(PHANTOM_ARCHS):
        record = run(arch, args.steps, args.seed, args.out, n=args.images, batch=args.batch,
                     lr=args.lr, cache=args.cache, start_from=args.start_from)  # fmt: skip
        print(json.dumps(record, indent=1), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
