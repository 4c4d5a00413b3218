"""What recording every sample costs in the training loop: ours, Toneva's way, and AUM's way.

    python benchmarks/capture.py [--n 8192] [--batch 32] [--device cuda]

Prints and writes `build/bench/capture.json`: microseconds a sample for 7 and 200 classes, and what
share of a training step that is (`resnet18`, `vit_tiny_patch16_224`, at `--size` pixels).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional as F

from retention_lib import models, paths, train
from retention_lib.config import RunConfig
from retention_lib.recorder import Recorder
from retention_lib.session import default_device, resolve_amp


def ours(batches, n: int, device) -> None:
    """The library's recorder over one epoch, the copy to the host included."""
    recorder = Recorder(n, device)
    for logits, labels, rows in batches:
        recorder.add(rows, logits, labels)
    recorder.finish()


def toneva(batches, n: int, device) -> None:
    """Per-sample lists in a dictionary, as scripts that count forgetting events do."""
    record: dict[int, tuple[list, list, list]] = {}
    for logits, labels, rows in batches:
        loss = F.cross_entropy(logits, labels, reduction="none")
        best = logits.argmax(1)
        for j in range(len(rows)):
            of = record.setdefault(int(rows[j]), ([], [], []))
            own = logits[j, labels[j]].item()
            others = torch.cat((logits[j, : labels[j]], logits[j, labels[j] + 1 :]))
            of[0].append(loss[j].item())
            of[1].append(int(best[j].item() == labels[j].item()))
            of[2].append(own - others.max().item())


def aum(batches, n: int, device) -> None:
    """Margins of a batch at once, then a running mean per sample in a dictionary."""
    count: dict[int, int] = {}
    mean: dict[int, float] = {}
    for logits, labels, rows in batches:
        own = logits.gather(1, labels[:, None]).squeeze(1)
        other = logits.clone().scatter_(1, labels[:, None], float("-inf")).amax(1)
        for name, margin in zip(rows.tolist(), (own - other).tolist(), strict=True):
            count[name] = count.get(name, 0) + 1
            mean[name] = mean.get(name, 0.0) + (margin - mean.get(name, 0.0)) / count[name]


WAYS = {"ours": ours, "Toneva-style": toneva, "AUM-style": aum}


def microseconds(n: int, classes: int, batch: int, device, rounds: int) -> dict[str, float]:
    """Median time a sample of every way, timed in turn."""
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(n, classes, generator=source).to(device)
    labels = torch.randint(classes, (n,), generator=source).to(device)
    order = torch.randperm(n, generator=source).to(device)
    batches = [(logits[b], labels[b], b) for b in order.split(batch)]
    spent = {name: [] for name in WAYS}
    for _ in range(rounds + 1):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(batches, n, device)
            spent[name].append((time.perf_counter() - start) / n * 1e6)
    return {name: statistics.median(values[1:]) for name, values in spent.items()}


def step_microseconds(arch: str, size: int, batch: int, device, steps: int = 4) -> float:
    """A training step of one network [microseconds a sample]: forward, backward, optimiser."""
    config = RunConfig("phantom_oct", arch=arch, input_size=size, weights="none", n_train=batch)
    model = models.build_model(arch, 7, size, "none", 0)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimiser, spent = train.make_optimiser(config, model), []
    images = torch.randn(batch, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % 7
    for _ in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=resolve_amp("auto", device)):
            loss = F.cross_entropy(model(images).float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the device
        spent.append((time.perf_counter() - start) / batch * 1e6)
    return statistics.median(spent[1:])


def main() -> None:
    """Two numbers of classes, two networks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=8192, help="samples in the epoch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128, help="pixels, of the step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=str(default_device()))
    args = parser.parse_args()
    device, rows = torch.device(args.device), []
    for classes in (7, 200):
        row = microseconds(args.n, classes, args.batch, device, args.rounds)
        rows.append({"classes": classes, **row})
        print({k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    steps = {}
    for arch in ("resnet18", "vit_tiny_patch16_224"):
        steps[arch] = step_microseconds(arch, args.size, args.batch, device)
        share = {name: rows[-1][name] / steps[arch] for name in WAYS}
        shown = {name: f"{value:.3%}" for name, value in share.items()}
        print(f"{arch}: step {steps[arch]:.0f} us a sample; capture is", shown, flush=True)
    out = paths.home() / "build" / "bench" / "capture.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    header = {"device": str(device), "n": args.n, "batch": args.batch, "size": args.size}
    header |= {"threads": torch.get_num_threads(), "step_microseconds": steps}
    out.write_text(json.dumps(header | {"microseconds_a_sample": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
