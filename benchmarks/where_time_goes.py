"""Where the time of a training epoch goes, and what the matrix products alone would take.

    python benchmarks/where_time_goes.py [--archs resnet18 vit_tiny_patch16_224] [--size 128]

torch.profiler over one epoch of `train.train_epoch` and one `session.clean_pass`; then every
convolution and linear layer of the network alone, forward and backward on the same shapes, which no
pipeline can beat. Prints a table and writes `build/bench/where_time_goes.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from retention_lib import paths, train
from retention_lib.config import RunConfig
from retention_lib.data.imageset import ImageSet, sample_ids
from retention_lib.session import clean_pass, default_device, open_session, resolve_amp

#: Category -> pattern of the operators in it, the first that fits is taken.
CATEGORIES = {
    "layers": r"conv|addmm|linear|mkldnn|\bmm\b|bmm|attention|matmul",
    "norms and activations": r"norm|relu|gelu|pool|softmax|sigmoid|silu|threshold",
    "optimiser": r"adamw|_foreach|optimizer|zero_grad",
    "augmentation": r"grid|permute|div|sub\b|index",
    "copies": r"copy|contiguous|clone|to\b|cat|fill|zero|empty",
}


def noise_images(n: int, size: int, classes: int = 7) -> ImageSet:
    """Random pictures: what they show does not change the arithmetic."""
    rng = np.random.default_rng(0)
    paths_ = [f"class_{i % classes}/{i:05d}.png" for i in range(n)]
    samples = pd.DataFrame({"sample_id": sample_ids(paths_), "path": paths_})
    samples["label"], samples["split"] = np.arange(n) % classes, "train"
    samples = samples.assign(group=paths_, content_hash=paths_, file_bytes=3 * size * size)
    pictures = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return ImageSet("noise", f"n={n}", tuple("abcdefg"[:classes]), samples, pictures)


def by_category(run) -> tuple[dict[str, float], float]:
    """Share of the operators' own time per category, and wall seconds."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        start = time.perf_counter()
        run()
        wall = time.perf_counter() - start
    total: dict[str, float] = dict.fromkeys([*CATEGORIES, "other"], 0.0)
    for event in found.key_averages():
        fits = [c for c, pattern in CATEGORIES.items() if re.search(pattern, event.key.lower())]
        total[fits[0] if fits else "other"] += event.self_cpu_time_total
    whole = sum(total.values())
    return {name: value / whole for name, value in total.items()}, wall


def layers_alone(model: nn.Module, images: torch.Tensor, amp: bool, repeats: int = 3) -> dict:
    """Seconds of every convolution and linear layer by itself on the shapes it sees in `model`.

    Returns
    -------
    dict
        `forward` and `backward`, summed over layers.
    """
    seen, hooks = [], []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            hooks.append(layer.register_forward_hook(lambda m, x, y: seen.append((m, x[0]))))
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        model(images)
    for hook in hooks:
        hook.remove()
    spent = {"forward": 0.0, "backward": 0.0}
    for layer, given in seen:
        x = given.detach().requires_grad_(layer is not seen[0][0])
        times = {"forward": [], "backward": []}
        for _ in range(repeats + 1):
            start = time.perf_counter()
            with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
                y = layer(x)
            middle = time.perf_counter()
            torch.autograd.backward(y, torch.ones_like(y))
            times["backward"].append(time.perf_counter() - middle)
            times["forward"].append(middle - start)
        for what, values in times.items():
            spent[what] += statistics.median(values[1:])
    return spent


def main() -> None:
    """A table per architecture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--archs", nargs="+", default=["resnet18", "vit_tiny_patch16_224"])
    parser.add_argument("--n", type=int, default=128)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--device", default=str(default_device()))
    args = parser.parse_args()
    device, rows = torch.device(args.device), []
    amp, images = resolve_amp("auto", device), noise_images(args.n, args.size)
    for arch in args.archs:
        config = RunConfig("noise", arch=arch, input_size=args.size, weights="none")
        session = open_session(config, images, device, amp)
        optimiser = train.make_optimiser(config, session.model)
        train.train_epoch(session, optimiser, 1)
        shares, seconds = by_category(lambda s=session, o=optimiser: train.train_epoch(s, o, 2))
        clean_shares, clean_seconds = by_category(lambda s=session: clean_pass(s))
        batch = session.clean_batch(torch.arange(config.batch_size, device=device))
        alone = layers_alone(session.model.train(), batch, amp)
        steps = args.n / config.batch_size
        row = {"arch": arch, "step_seconds": seconds / steps}
        row |= {"layers_alone_seconds": sum(alone.values())}
        row["layers_alone_of_step"] = row["layers_alone_seconds"] / row["step_seconds"]
        rows.append(row | {"train": shares, "clean": clean_shares, "clean_seconds": clean_seconds})
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
        table = pd.DataFrame({"training": shares, "clean pass": clean_shares})
        print(table.map("{:.1%}".format), flush=True)
    out = paths.home() / "build" / "bench" / "where_time_goes.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    header = {"device": str(device), "threads": torch.get_num_threads(), "size": args.size}
    out.write_text(json.dumps(header | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
