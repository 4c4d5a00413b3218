"""How fast the phantoms are drawn: batched against one image at a time, side by side in one run.

    python benchmarks/draw.py [--n 2000] [--size 64]

Prints and writes `build/bench/draw.json`: images/s, the ratio, and minutes for 100,000 images.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time

import torch

from retention_lib import paths
from retention_lib.data import PHANTOMS


def rate(module, table, size: int, batch: int) -> float:
    """Images per second of one pass over a table."""
    start = time.perf_counter()
    module.draw(table, size, batch)
    return len(table) / (time.perf_counter() - start)


def main() -> None:
    """Alternate the two ways three times and quote medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=2000, help="images per pass, batched")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    args = parser.parse_args()
    rows = []
    for name in PHANTOMS:
        module = importlib.import_module(f"retention_lib.data.{name}")
        table = module.sample_table(args.n)
        module.draw(table.head(64), args.size)
        batched, single = [], []
        for _ in range(3):
            batched.append(rate(module, table.head(args.n), args.size, 256))
            single.append(rate(module, table.head(max(50, args.n // 20)), args.size, 1))
        fast, slow = statistics.median(batched), statistics.median(single)
        row = {"phantom": name, "images_per_second": round(fast), "one_by_one": round(slow)}
        row |= {"ratio": round(fast / slow, 2), "minutes_for_100k": round(100_000 / fast / 60, 1)}
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    out = paths.home() / "build" / "bench" / "draw.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
