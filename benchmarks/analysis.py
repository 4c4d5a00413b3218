"""Findings 1 to 5 at the size of ImageNet: 1.28 M samples x 90 epochs x 6 runs, time and memory.

    python benchmarks/analysis.py [--quick] [--draws B] [--out FILE]

Simulates two architectures x three seeds with 1,000 classes and a known truth, in a process of its
own, whose time and memory do not count; then takes one finding after the other with the functions
that the notebooks call. Prints and writes `build/bench/analysis.json`: wall and processor seconds
and peak memory (the largest so far, traces mapped into memory included) of each, its numbers as
[estimate, low, high], and what was planted. --quick takes a twentieth of the samples.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from retention_lib import (
    agreement,
    class_averages,
    class_forgetting,
    concordance,
    forgetting,
    link_tables,
    missing_agreement,
    paths,
    reliability,
    seed_correlations,
    structure,
)
from retention_lib.intervals import bootstrap
from retention_lib.simulated_study import study

ARCHS, SEEDS, EPOCHS = ("cnn", "vit"), (10, 11, 12), 90
SAMPLES = 1_280_000
#: Simulated at a time, each chunk with classes of its own.
CHUNK, CLASSES_PER_CHUNK = 32_000, 25
#: Of the log decay constants: correlation of two seeds 0.6, of two architectures 0.6 x 0.6.
TRUTH = {"reliability": 0.6, "shared": 0.6, "class_effect": 0.1, "early_loss": 0.4}
#: Four in ten samples are never forgotten; the second architecture forgets twice as fast.
CURVE = {"rate": (0.0005, 0.001), "spread": 2.0, "persistence": 0.5, "model": "exponential"}
#: Orders of the classes drawn for Kendall's W.
ORDERS = 1999
TARGET = {"wall_s": 120, "peak_gib": 8}


class Recorded(NamedTuple):
    """What the findings are computed from."""

    correct: np.ndarray  # bool (run, epoch, sample)
    loss: np.ndarray  # (run, sample) at epoch 0 [nat]
    labels: np.ndarray
    groups: np.ndarray
    runs: pd.DataFrame


def simulate(folder: Path, n: int) -> None:
    """Write a study of n samples chunk by chunk."""
    runs, make = len(ARCHS) * len(SEEDS), np.lib.format.open_memmap
    correct = make(folder / "correct.npy", "w+", bool, (runs, EPOCHS, n))
    loss = make(folder / "loss.npy", "w+", np.float16, (runs, n))
    labels = make(folder / "labels.npy", "w+", np.int64, (n,))
    rng, options = np.random.default_rng(0), {"n_classes": CLASSES_PER_CHUNK} | TRUTH | CURVE
    for chunk, start in enumerate(range(0, n, CHUNK)):
        part = slice(start, min(start + CHUNK, n))
        made = study(part.stop - start, EPOCHS, ARCHS, SEEDS, rng, **options)
        correct[..., part], loss[:, part] = made.correct, made.loss
        labels[part] = made.labels + CLASSES_PER_CHUNK * chunk


def recorded(folder: Path) -> Recorded:
    """The simulated study, its traces mapped into memory."""
    correct = np.load(folder / "correct.npy", mmap_mode="r")
    loss, labels = (np.load(folder / f"{name}.npy") for name in ("loss", "labels"))
    runs = pd.DataFrame([{"arch": a, "seed": s} for a in ARCHS for s in SEEDS])
    return Recorded(correct, loss, labels, np.arange(len(labels)), runs)


def overlap(of: Recorded, score, rng, draws: int) -> dict:
    """Finding 1: overlap of the most forgotten, its chance level, its ceiling, what is missing."""
    where = (of.runs, of.groups, of.labels, rng)
    row = missing_agreement.missing_agreement(score, *where, draws=draws).iloc[0]
    a, b = (score[of.runs["arch"] == name] for name in ARCHS)
    null = agreement.jaccard_chance_stratified(a, b, of.labels, rng=rng, draws=draws).iloc[0]
    out = {name: _ends(row, name) for name in ("cross", "same_a", "same_b")}
    out |= {name: float(row[name]) for name in ("chance", "ceiling")}
    return out | {"permuted": _ends(null, "chance"), "p": float(null["p"]), "missing": _ends(row)}


def stability(of: Recorded, score, rng, draws: int) -> dict:
    """Finding 3, and the Spearman correlation of finding 1: between runs, and ICC(1)."""
    where = (of.groups, of.labels, rng)
    measures = ("spearman", "within_class")
    rows = seed_correlations.seed_to_seed(score, of.runs, *where, measures, draws)
    keys = zip(rows["measure"], rows["arch_a"], rows["arch_b"], strict=True)
    out = {" ".join(key): _ends(rows.iloc[i]) for i, key in enumerate(keys)}
    for arch in ARCHS:
        rows = reliability.icc(score[of.runs["arch"] == arch], *where, draws)
        rows = rows[rows["quantity"] == "ICC(1)"].set_index("scale")
        out |= {f"ICC(1) {scale} {arch}": _ends(row) for scale, row in rows.iterrows()}
    return out


def structured(of: Recorded, r2, rng, draws: int) -> dict:
    """Finding 2: mean R^2 per architecture and their difference."""
    means = structure.r2_means(r2, of.runs["arch"].to_numpy(), list(ARCHS))
    rows = bootstrap(means, of.groups, of.labels, rng, draws)
    return {row["quantity"]: _ends(row) for _, row in rows.iterrows()}


def by_class(of: Recorded, score, rng, draws: int) -> dict:
    """Finding 4: class means of every architecture, shrunken; Kendall's W over all runs."""
    mean, runs = class_forgetting.over_runs(score, of.runs)
    table = class_forgetting.class_means(mean, runs, of.labels, of.groups, rng, draws)
    n_classes = int(of.labels.max()) + 1
    means = class_averages.means_by_class(score, of.labels, n_classes)
    w = concordance.kendall_w(means, rng, ORDERS).iloc[0]
    out = {"classes": n_classes, "W": float(w["estimate"]), "p": float(w["p"])}
    for arch, rows in table.groupby("arch"):
        out[f"mean {arch}"], out[f"sd {arch}"] = rows["estimate"].mean(), rows["shrunk"].std()
        out[f"half-width {arch}"] = float((rows["ci_high"] - rows["ci_low"]).median() / 2)
    return out


def early(of: Recorded, constants, rng, draws: int) -> dict:
    """Finding 5: Spearman of early loss with decay constant in every run, also within class."""
    where = (of.runs, of.labels, of.groups, rng, draws)
    rows = link_tables.correlations(of.loss, constants, *where)
    keys = zip(rows["quantity"], rows["arch"], rows["seed"].astype(str), strict=True)
    return {" ".join(key): _ends(rows.iloc[i]) for i, key in enumerate(keys)}


def _ends(row, name: str = "") -> list[float]:
    """A number and the ends of its interval."""
    names = (name, f"{name}_low", f"{name}_high") if name else ("estimate", "ci_low", "ci_high")
    return [float(row[n]) for n in names]


def measure(of: Recorded, draws: int, tell: Callable = print) -> list[dict]:
    """Every finding with its seconds, its peak memory and its numbers."""
    rng, rows = np.random.default_rng(1), []

    def timed(step: str, function, *args):
        start, used = time.perf_counter(), time.process_time()
        found = function(*args)
        row = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - used}
        row["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        tell(f"{step:18}", *(f"{name}={value:.2f}" for name, value in row.items()), flush=True)
        rows.append({"step": step} | row | {"found": found if isinstance(found, dict) else {}})
        return found

    score = timed("forgetting events", forgetting.forgetting_score, of.correct)
    fit = timed("decay fits", structure.fit, of.correct)
    timed("1 overlap", overlap, of, score, rng, draws)
    timed("2 structure", structured, of, fit.r2, rng, draws)
    timed("3 stability", stability, of, score, rng, draws)
    timed("4 classes", by_class, of, score, rng, draws)
    timed("5 early loss", early, of, fit.decay_constant, rng, draws)
    return rows


def distinct(correct: np.ndarray) -> float:
    """Share of the traces of one run, (epoch, sample), that are not equal to an earlier one."""
    packed = np.ascontiguousarray(np.packbits(correct, axis=0).T)
    return len({row.tobytes() for row in packed}) / len(packed)


def main() -> None:
    """Simulate elsewhere, measure here, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the samples")
    parser.add_argument("--draws", type=int, default=20, help="of bootstraps and permutations")
    parser.add_argument("--out", type=Path, help="build/bench/analysis.json by default")
    parser.add_argument("--simulate", type=Path, help="only simulate, into this folder")
    args = parser.parse_args()
    n = SAMPLES // 20 if args.quick else SAMPLES
    if args.simulate:
        return simulate(args.simulate, n)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with tempfile.TemporaryDirectory() as folder:
        same = ["--quick"] if args.quick else []
        subprocess.run([sys.executable, __file__, "--simulate", folder, *same], check=True)
        of = recorded(Path(folder))
        rows = measure(of, args.draws)
        share = distinct(of.correct[0])
    total = {name: sum(row[name] for row in rows) for name in ("wall_s", "cpu_s")}
    total["peak_gib"] = rows[-1]["peak_gib"]
    for row in rows:
        for name, value in row["found"].items():
            print(row["step"], name, np.round(value, 4), sep="  ")
    print("all", *(f"{name}={value:.2f}" for name, value in total.items()), "target", TARGET)
    machine = {"threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}
    size = {"samples": n, "epochs": EPOCHS, "runs": len(of.runs), "distinct_traces": share}
    found = {"machine": machine, "size": size, "draws": args.draws, "orders": ORDERS}
    found |= {"planted": TRUTH | CURVE, "target": TARGET, "total": total, "before_gib": base}
    out = args.out or paths.home() / "build/bench/analysis.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
