"""Fine-tuning with capture against a conventional script, side by side in one run.

    python benchmarks/train.py [--data FOLDER] [--n 384] [--size 128] [--device cuda] [--bf16]

Prints and writes `build/bench/train.json`: images/s of training, of the clean pass and of a whole
epoch with capture; ratios to the conventional float32 script, precision and pipeline apart; the
clean pass as a share of bare forward throughput. Without a folder of class folders, phantom birds
are drawn and saved as JPEG.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from conventional import Conventional
from PIL import Image

from retention_lib import data, models, paths, train
from retention_lib.config import RunConfig
from retention_lib.rundir import RunDir
from retention_lib.session import clean_pass, default_device, open_session, resolve_amp

ARCHS = ("resnet18", "vit_tiny_patch16_224", "deit_small_patch16_224")


def image_folder(source: Path | None, n: int, to: Path) -> Path:
    """A folder of n JPEGs below class folders: the source's first, else drawn birds."""
    if source is None:
        images = data.load(RunConfig("phantom_birds", n_train=n, input_size=224))
        for row, picture in zip(images.samples[:n].itertuples(), images.images[:n], strict=True):
            path = to / images.classes[row.label] / f"{row.Index:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).resize((340, 256)).save(path, quality=92)
        return to
    files = sorted(source.glob("*/*.jp*g"))
    for file in files[:n]:
        path = to / file.parent.name / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, path)
    return to


class Ours:
    """The library's own functions on the same files: what `study.capture` calls every epoch."""

    def __init__(self, config: RunConfig, images, run: RunDir, device, amp: bool):
        self.config, self.run, self.n = config, run, len(images.images)
        self.session = open_session(config, images, device, amp)
        # Every sample trains and is evaluated: the conventional script has no held-out folder.
        self.session.train_rows = torch.arange(self.n, device=device)
        self.optimiser, self.epoch = train.make_optimiser(config, self.session.model), 0

    def train_epoch(self) -> float:
        """Seconds of one training pass, online view included."""
        start, self.epoch = time.perf_counter(), self.epoch + 1
        self.online = train.train_epoch(self.session, self.optimiser, self.epoch)
        return time.perf_counter() - start

    def clean_pass(self) -> float:
        """Seconds of one clean pass, the epoch's trace written to disk included."""
        start = time.perf_counter()
        clean, _ = clean_pass(self.session)
        self.run.write_epoch(self.epoch, clean, *self.online)
        return time.perf_counter() - start

    @torch.inference_mode()
    def bare_forward(self) -> float:
        """Seconds that the network alone takes for as many images already on the device."""
        self.session.model.eval()
        batch = self.session.clean_batch(torch.arange(min(self.session.eval_batch, self.n)))
        start, done = time.perf_counter(), 0
        while done < self.n:
            with self.session.autocast():
                self.session.model(batch[: self.n - done]).sum().item()
            done += len(batch)
        return time.perf_counter() - start


def contenders(config: RunConfig, images, folder: Path, work: Path, device, precisions) -> dict:
    """Name -> contender, each with a network of its own from the same initial weights."""
    found = {}
    for amp in precisions:
        name = "bf16" if amp else "float32"
        run = RunDir(work / f"{config.arch}-{name}")
        (run.folder / "trace").mkdir(parents=True, exist_ok=True)
        found[f"ours {name}"] = Ours(config, images, run, device, amp)
        shape = (config.arch, len(images.classes), config.input_size, config.weights)
        model = models.build_model(*shape, config.model_seed)
        mean, std = models.normalisation(model)
        found[f"conventional {name}"] = Conventional(
            folder, model.to(device), mean, std, config.input_size, config.batch_size,
            config.crop_scale, config.lr, device, amp,
        )  # fmt: skip
    return found


def measure(found: dict, n: int, rounds: int) -> list[dict]:
    """Alternate the contenders; medians over rounds, after one round that is not counted."""
    seconds = {name: {"train": [], "clean": [], "bare": []} for name in found}
    for number in range(rounds + 1):
        for name, one in found.items():
            spent = {"train": one.train_epoch(), "clean": one.clean_pass()}
            spent["bare"] = one.bare_forward() if hasattr(one, "bare_forward") else np.nan
            for what, value in spent.items():
                if number:
                    seconds[name][what].append(value)
    rows = []
    for name, spent in seconds.items():
        middle = {what: statistics.median(values) for what, values in spent.items()}
        row = {"contender": name, "train": n / middle["train"], "clean": n / middle["clean"]}
        row["epoch"] = n / (middle["train"] + middle["clean"])
        row["clean_of_bare"] = middle["bare"] / middle["clean"]
        rows.append(row)
    return rows


def ratios(rows: list[dict], chosen: str) -> dict:
    """How much faster a whole epoch is, in all and by precision and pipeline."""
    rate = {row["contender"]: row["epoch"] for row in rows}
    base, own = rate["conventional float32"], rate[f"ours {chosen}"]
    found = {"chosen": chosen, "epoch": own / base, "pipeline": rate["ours float32"] / base}
    return found | {"precision": own / rate["ours float32"]}


def main() -> None:
    """Every architecture in turn."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of class folders with JPEGs")
    parser.add_argument("--n", type=int, default=384, help="images")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--archs", nargs="+", default=list(ARCHS))
    parser.add_argument("--device", default=str(default_device()))
    parser.add_argument("--bf16", action="store_true", help="also where the rule says float32")
    args = parser.parse_args()
    device, rows, summary = torch.device(args.device), [], []
    auto = resolve_amp("auto", device)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = image_folder(args.data, args.n, work / "images")
        for arch in args.archs:
            config = RunConfig(f"folder:{folder}", arch=arch, input_size=args.size, weights="none")
            start = time.perf_counter()
            images = data.load(config)
            decode = time.perf_counter() - start
            precisions = (False, True) if auto or args.bf16 else (False,)
            found = contenders(config, images, folder, work, device, precisions)
            of = measure(found, len(images.images), args.rounds)
            chosen = ratios(of, "bf16" if auto else "float32")
            for row in of:
                rows.append({"arch": arch, **row})
                print(arch, {k: round(v, 2) if k != "contender" else v for k, v in row.items()})
            summary.append({"arch": arch, **chosen, "decode_once_seconds": decode})
            print(arch, summary[-1], flush=True)
    out = paths.home() / "build" / "bench" / "train.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    header = {"device": str(device), "threads": torch.get_num_threads(), "n": args.n}
    header |= {"size": args.size, "torch": torch.__version__, "rounds": args.rounds}
    out.write_text(json.dumps(header | {"ratios": summary, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
