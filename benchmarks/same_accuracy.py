"""Does the fast path change the science? Held-out accuracy against a plain float32 loop.

    python benchmarks/same_accuracy.py [--seeds 5] [--n 400] [--size 48] [--epochs 8] [--bf16]

Same data, initial weights, head warm-up, learning rates and number of steps; the plain loop takes
one image after another through torchvision's transforms and has nothing else in common with the
fast path. Prints and writes `build/bench/same_accuracy.json`: accuracy of both over seeds, their
difference with its interval, the spread between seeds, and an equivalence test.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from retention_lib import data, paths, train
from retention_lib.config import EQUIVALENCE_MARGIN, RunConfig
from retention_lib.equivalence import tost_paired
from retention_lib.intervals import t_interval
from retention_lib.session import clean_pass, generator, open_session

CPU = torch.device("cpu")


def held_out_accuracy(session, images) -> float:
    """Share of held-out samples that are right in the clean view."""
    rows = images.rows("val")
    clean, _ = clean_pass(session)
    return float((clean["predicted"][rows] == images.samples["label"].to_numpy()[rows]).mean())


def fast(config: RunConfig, images, amp: bool) -> float:
    """The library's own epochs."""
    session = open_session(config, images, CPU, amp)
    optimiser = train.make_optimiser(config, session.model)
    train.warm_up(session)
    for epoch in range(1, config.epochs + 1):
        train.train_epoch(session, optimiser, epoch)
    return held_out_accuracy(session, images)


def plain(config: RunConfig, images) -> float:
    """The same fine-tuning as it is usually written: no batched crop, no fused step, float32."""
    session = open_session(config, images, CPU, False)
    train.warm_up(session)
    model, rows = session.model.to(memory_format=torch.contiguous_format), images.rows("train")
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}]
    optimiser = torch.optim.AdamW([*groups, {"params": others, "weight_decay": 0.0}], config.lr)
    crop = transforms.RandomResizedCrop(config.input_size, (config.crop_scale, 1), (3 / 4, 4 / 3))
    normal = transforms.Normalize(session.mean.flatten().tolist(), session.std.flatten().tolist())
    steps = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), normal]
    prepare, label = transforms.Compose(steps), images.samples["label"].to_numpy()
    torch.manual_seed(10_000 + config.seed)
    step, per_epoch = 0, len(train.split_batches(torch.arange(len(rows)), config.batch_size))
    for epoch in range(1, config.epochs + 1):
        model.train()
        order = torch.randperm(len(rows), generator=generator(config.order_seed + 7, epoch))
        for batch in train.split_batches(order, config.batch_size):
            of = rows[batch.numpy()]
            pictures = torch.stack([prepare(Image.fromarray(images.images[i])) for i in of])
            for group in optimiser.param_groups:
                group["lr"] = train.learning_rate(config, step, config.epochs * per_epoch)
            loss = F.cross_entropy(model(pictures), torch.from_numpy(label[of].astype(np.int64)))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimiser.step()
            step += 1
    return held_out_accuracy(session, images)


def compare(name: str, ours: list[float], twin: list[float]) -> dict:
    """Both accuracies, and their difference over seeds with its equivalence test."""
    test = tost_paired(np.array(ours), np.array(twin), EQUIVALENCE_MARGIN).iloc[0]
    difference = t_interval(np.array(ours) - np.array(twin)).iloc[0]
    row = {"arm": name, "accuracy": np.mean(ours), "plain": np.mean(twin), "seeds": len(ours)}
    row |= {"difference": difference["estimate"]}
    row |= {"ci_low": difference["ci_low"], "ci_high": difference["ci_high"]}
    row |= {"sd_between_seeds": float(np.std(twin, ddof=1)), "p_equivalence": test["p"]}
    return {k: float(v) if isinstance(v, float | np.floating) else v for k, v in row.items()}


def main() -> None:
    """Both phantoms, both small networks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n", type=int, default=400, help="training images")
    parser.add_argument("--size", type=int, default=48, help="pixels")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--archs", nargs="+", default=["phantom_resnet18", "phantom_deit"])
    parser.add_argument("--bf16", action="store_true", help="also autocast, slow on most CPUs")
    args = parser.parse_args()
    fields = {"n_train": args.n, "input_size": args.size, "epochs": args.epochs}
    fields |= {"lr": 1e-3, "crop_scale": 0.9, "warmup_epochs": 5}
    rows = []
    for dataset in data.PHANTOMS:
        for arch in args.archs:
            found = {"float32": [], "bf16": [], "plain": []}
            for seed in range(args.seeds):
                config = RunConfig(dataset, arch=arch, seed=seed, **fields)
                images = data.load(config)
                found["float32"].append(fast(config, images, False))
                found["plain"].append(plain(config, images))
                if args.bf16:
                    found["bf16"].append(fast(config, images, True))
            for arm in ("float32", "bf16"):
                if found[arm]:
                    row = {"dataset": dataset, "arch": arch}
                    rows.append(row | compare(arm, found[arm], found["plain"]))
                    shown = {
                        k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()
                    }
                    print(shown, flush=True)
    out = paths.home() / "build" / "bench" / "same_accuracy.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"settings": fields, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
