"""SIGKILL at random times: runs are killed, started again, and compared byte for byte.

    python tests/faults/kills.py --trials 30 --seed 0

Every trial trains one small run in a process of its own, kills it once or twice at a time drawn
uniformly over the length of an uninterrupted run, and lets a last process finish it. Every other
trial keeps a checkpoint of every epoch, the others keep none. Ends with status 1 if any Parquet
file differs from the uninterrupted run's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import torch
from conftest import make_config, make_images

from retention_lib import data, study, train
from retention_lib.rundir import RunDir

EPOCHS = 4
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["retention_lib.study"])  # torch is imported once


def attempt(home: Path, checkpoint_seconds: float) -> None:
    """One process: capture the run, or what is left of it."""
    torch.set_num_threads(1)
    os.environ["RETENTION_HOME"] = str(home)
    images = make_images()
    data.load, data.identity = lambda config: images, lambda config: images.identity
    train.CHECKPOINT_SECONDS = checkpoint_seconds
    config = make_config(dataset="octdl", epochs=EPOCHS, lr=1e-3)
    study.capture_or_load([config], torch.device("cpu"), _note(home))


def _note(home: Path):
    def note(line):
        with open(home / "log.txt", "a") as file:
            print(line, file=file, flush=True)

    return note


def start(home: Path, checkpoint_seconds: float):
    """Start an attempt; returns its process once its work has begun."""
    home.mkdir(exist_ok=True)
    (home / "log.txt").unlink(missing_ok=True)
    process = SERVER.Process(target=attempt, args=(home, checkpoint_seconds))
    process.start()
    while process.is_alive() and not (home / "log.txt").is_file():
        time.sleep(0.002)
    return process


def files(home: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: every Parquet file, and the settings."""
    (folder,) = (home / "runs").iterdir()
    found = [*sorted(folder.rglob("*.parquet")), folder / "config.json"]
    return {str(f.relative_to(folder)): f.read_bytes() for f in found}


def state(home: Path) -> dict:
    """What a kill left behind."""
    folders = list((home / "runs").glob("*"))
    if not folders:
        return {"left": "nothing", "half": "", "checkpoint": "-"}
    run = RunDir(folders[0])
    checkpoint = run.load_checkpoint() if (run.folder / "config.json").is_file() else None
    half = [f.name for f in run.folder.rglob("*.tmp")]
    at = "-" if checkpoint is None else str(checkpoint["epoch"])
    return {"left": run.progress(), "half": ", ".join(half), "checkpoint": at}


def finish(home: Path, checkpoint_seconds: float) -> list[int]:
    """Let a process finish the run; returns the epochs that it computed."""
    process = start(home, checkpoint_seconds)
    process.join(timeout=300)
    if process.exitcode != 0:
        raise RuntimeError(f"the last attempt in {home} ended with {process.exitcode}, expected 0")
    lines = (home / "log.txt").read_text().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("  epoch")]


def kill(home: Path, checkpoint_seconds: float, delay_s: float) -> bool:
    """Start an attempt and kill it after a while; False if it was done before."""
    process = start(home, checkpoint_seconds)
    process.join(timeout=delay_s)
    if process.exitcode is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def trials(n: int, seed: int, folder: Path, log=None) -> pd.DataFrame:
    """Kill n runs; one row per trial, `same` tells whether every byte came out right."""
    rng, rows = np.random.default_rng(seed), []
    finish(folder / "warm", 60.0)  # the first process also starts the server
    began = time.monotonic()
    finish(folder / "whole", 0.0)
    length = time.monotonic() - began
    whole = files(folder / "whole")
    while len(rows) < n:
        home, checkpoint_seconds = folder / f"trial{len(rows)}", (0.0, 60.0)[len(rows) % 2]
        delays = rng.uniform(0, 0.95 * length, rng.integers(1, 3))
        killed = [d for d in delays if kill(home, checkpoint_seconds, d)]
        if len(killed) < len(delays):  # done before it was killed: another draw
            for file in sorted(home.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            length *= 0.97
            continue
        row = {"trial": len(rows) + 1, "kills_at_s": " ".join(f"{d:.2f}" for d in delays)}
        row |= state(home)
        computed = finish(home, checkpoint_seconds)
        row["went_on_at"] = computed[0] if computed else "done"
        run = RunDir(next((home / "runs").iterdir()))
        names = {file.name for file in run.folder.iterdir()}
        clean = not names & {"lock", "checkpoint.pt"} and not [*run.folder.rglob("*.tmp")]
        row["same"] = files(home) == whole and run.is_done and clean
        rows.append(row)
        if log is not None:
            log(" ".join(f"{key}={value}" for key, value in row.items()))
    return pd.DataFrame(rows)


def main() -> int:
    """Run the trials and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = trials(args.trials, args.seed, Path(folder), log=None)
    print(table.to_string(index=False))
    print(f"{table['same'].sum()} of {len(table)} killed runs came out byte for byte the same")
    return int(not table["same"].all())


if __name__ == "__main__":
    raise SystemExit(main())
