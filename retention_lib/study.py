"""The grid of runs: find what is captured, capture what is not."""

from __future__ import annotations

import json
import platform
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from retention_lib import data, models, parallel, paths
from retention_lib.config import RunConfig
from retention_lib.rundir import RunDir
from retention_lib.session import default_device, resolve_amp
from retention_lib.traces import Traces
from retention_lib.train import fine_tune


def find_run(config: RunConfig, identity: str | None = None) -> RunDir:
    """The run's directory: in `runs/` if it was started there, else in `results/` if published.

    A directory in `runs/` that does not exist yet is returned when neither has it.
    """
    key = config.key(identity or data.identity(config))
    own, published = RunDir(paths.runs() / key), RunDir(paths.results() / key)
    return published if published.is_done and not own.is_done else own


def capture_or_load(
    configs, device: torch.device | None = None, log=print, on_epoch=None, workers: int = 1
) -> list[Path]:
    """Return the run directory of every configuration, training those that are missing.

    Parameters
    ----------
    configs : sequence of RunConfig
        For instance `config.profile("phantom").study.configs()`.
    log : callable
        Receives one line per run, and one per epoch unless `on_epoch` takes those.
    on_epoch : callable, optional
        Called with each epoch's dict of metrics instead, for instance by a progress bar.
    workers : int
        Runs trained at the same time, each in a process of its own (`parallel.default_workers`
        knows how many). Traces depend on the number of threads, not on the order of the runs.

    Returns
    -------
    list of Path
        In the order of `configs`, every run finished.

    Raises
    ------
    ValueError
        If a directory holds a run with the same key and other settings.
    """
    device, on_epoch = device or default_device(), on_epoch or epoch_logger(log)
    runs = [find_run(config) for config in configs]
    for run, config in zip(runs, configs, strict=True):
        if run.is_done:
            _require_weights(run, config)
    missing = [(c, device) for run, c in zip(runs, configs, strict=True) if not run.is_done]
    for i, (config, _) in enumerate(missing):
        run = find_run(config)
        log(f"run {i + 1}/{len(missing)}  {run.folder.name}  ({run.progress()})")
        if workers == 1:
            capture(config, run, device, on_epoch)
        else:
            data.load(config)  # draws or decodes once, before the processes look for it
    if missing and workers > 1:
        parallel.in_processes(_capture_job, missing, min(workers, len(missing)), on_epoch)
    log(f"{len(runs) - len(missing)} runs found, {len(missing)} captured")
    return [run.folder for run in runs]


def _capture_job(job: tuple[RunConfig, torch.device], send) -> None:
    """One run in a process of its own; its epochs are told apart by the run's name."""
    config, device = job
    run = find_run(config)
    capture(config, run, device, lambda row: send({**row, "run": run.folder.name}))


def capture(config: RunConfig, run: RunDir, device: torch.device, on_epoch=None) -> None:
    """Train one run into its directory, from wherever it stopped."""
    start = time.monotonic()
    images = data.load(config)
    choices = {"amp": resolve_amp(config.amp, device)}
    header = {
        "config": config.to_dict(),
        "identity": images.identity,
        "classes": list(images.classes),
        "weights": models.weights_fingerprint(config.arch, config.weights),
        "choices": choices,
    }
    choices = run.create(header, images.samples)["choices"]
    with _deterministic(config.deterministic and device.type == "cuda"):
        fine_tune(config, images, run, device, choices["amp"], on_epoch)
    names = ("retention_lib", "torch", "timm", "numpy", "pandas", "pyarrow")
    run.finish(
        {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "dtype": "bfloat16 autocast" if choices["amp"] else "float32",
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in names},
            "seconds": round(time.monotonic() - start, 1),
        }
    )


def epoch_logger(log):
    """Turn a logger of lines into one of epochs: one line each, short enough for a notebook."""
    return lambda row: log(
        f"  {row['run'] + '  ' if 'run' in row else ''}"
        f"epoch {row['epoch']:3d}  train {row['train_accuracy']:6.1%}  "
        f"held-out {row['val_accuracy']:6.1%}  loss {row['train_loss']:.3f}  "
        f"{row['train_seconds']:.1f} + {row['clean_seconds']:.1f} s"
    )


def load_traces(configs, dataset: str, split: str = "train", log=print) -> Traces:
    """Capture or load the runs of one data set and align them."""
    chosen = [c for c in configs if c.dataset == dataset]
    if not chosen:
        raise ValueError(
            f"no run of {dataset!r} among the configurations; they have "
            f"{sorted({c.dataset for c in configs})}"
        )
    return Traces.from_runs(capture_or_load(chosen, log=log), split)


def status(configs) -> pd.DataFrame:
    """Which runs exist: one row per configuration with key, progress and place."""
    rows = []
    for config in configs:
        run = find_run(config)
        place = run.folder.parent.name if run.progress() != "not started" else "-"
        row = {"dataset": config.dataset, "arch": config.arch, "seed": config.seed}
        rows.append({**row, "progress": run.progress(), "place": place, "key": run.folder.name})
    return pd.DataFrame(rows)


def capture_cost(folders) -> pd.DataFrame:
    """Seconds and bytes of finished runs: one row per run.

    `bytes_per_sample_epoch` counts every file of the trace and every sample of both splits.
    """
    rows = []
    for run in map(RunDir, folders):
        metrics, files = run.metrics, list((run.folder / "trace").glob("*.parquet"))
        done = json.loads((run.folder / "done.json").read_text())
        size = sum(f.stat().st_size for f in files)
        rows.append(
            {
                "dataset": run.config.dataset,
                "arch": run.config.arch,
                "seed": run.config.seed,
                "seconds": done["seconds"],
                "train_seconds_per_epoch": metrics["train_seconds"][1:].mean(),
                "clean_seconds_per_epoch": metrics["clean_seconds"].mean(),
                "bytes_per_sample_epoch": size / len(files) / len(run.samples),
            }
        )
    return pd.DataFrame(rows)


def _require_weights(run: RunDir, config: RunConfig) -> None:
    """Refuse a run captured here from other weights; published runs are what they are."""
    stored, now = run.header["weights"], models.weights_fingerprint(config.arch, config.weights)
    if run.folder.parent == paths.runs() and stored != now:
        raise ValueError(
            f"{run.folder} was trained from weights {stored!r}, the weights of {config.arch!r} are "
            f"now {now!r}. Move the run away, or put the old weights back."
        )


@contextmanager
def _deterministic(wanted: bool):
    """Deterministic kernels inside, whatever was set outside."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def print_flushed(line: str) -> None:
    """`print` that a log file shows at once."""
    print(line, flush=True, file=sys.stdout)
