"""The grid of runs: find what is captured, capture what is not."""

from __future__ import annotations

import platform
import sys
import time
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from retention_lib import data, lock, models, parallel, paths
from retention_lib.config import RunConfig
from retention_lib.rundir import RunDir
from retention_lib.samplers import constants_hash, pilot_constants
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
    configs,
    device: torch.device | None = None,
    log=print,
    on_epoch=None,
    workers: int = 1,
    wait_s: float | None = None,
) -> list[Path]:
    """Return the run directory of every configuration, training those that are missing.

    A run that another process is training is waited for, and found done or gone on with from where
    that process stopped. After a SIGTERM the epoch at work is finished and a checkpoint written.

    Runs whose sampler reads a pilot (`RunConfig.pilot`) are trained after it; a pilot that is
    neither there nor asked for is trained as well.

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
    wait_s : float, optional
        How long to wait for a run that another process is training [s]; without it as long as
        it takes, 0 not at all.

    Returns
    -------
    list of Path
        In the order of `configs`, every run finished.

    Raises
    ------
    ValueError
        If a directory holds a run with the same key and other settings.
    TimeoutError
        If another process still trains a run after `wait_s`; names it.
    OSError
        If the disk is full or cannot be written; names the file. Finished epochs are kept.
    SystemExit
        With status 143 after a SIGTERM.
    """
    device, on_epoch = device or default_device(), on_epoch or epoch_logger(log)
    wanted = {config: find_run(config) for config in configs}
    pilots = [config.pilot() for config, run in wanted.items() if not run.is_done]
    wanted |= {pilot: find_run(pilot) for pilot in pilots if pilot is not None}
    for config, run in wanted.items():
        if run.is_done:
            _require_weights(run, config)
            _tidy_found(run)
    missing = [config for config, run in wanted.items() if not run.is_done]
    first = [c for c in missing if c.pilot() is None]
    number = 0
    for stage in (first, [c for c in missing if c not in first]):
        for config in stage:
            run, number = find_run(config), number + 1
            log(f"run {number}/{len(missing)}  {run.folder.name}  ({run.progress()})")
            if workers == 1:
                capture(config, run, device, on_epoch, log, wait_s)
            else:
                data.load(config)  # draws or decodes once, before the processes look for it
        if stage and workers > 1:
            jobs = [(config, device, wait_s) for config in stage]
            told = _by_kind(log, on_epoch)
            parallel.in_processes(_capture_job, jobs, min(workers, len(jobs)), told)
    log(f"{len(wanted) - len(missing)} runs found, {len(missing)} captured")
    return [wanted[config].folder for config in configs]


def _capture_job(job: tuple[RunConfig, torch.device, float | None], send) -> None:
    """One run in a process of its own; its epochs are told apart by the run's name."""
    config, device, wait_s = job
    run = find_run(config)
    capture(config, run, device, lambda row: send({**row, "run": run.folder.name}), send, wait_s)


def _by_kind(log, on_epoch):
    """What takes the messages of `_capture_job`: lines go to `log`, epochs to `on_epoch`."""
    return lambda message: (log if isinstance(message, str) else on_epoch)(message)


def capture(
    config: RunConfig,
    run: RunDir,
    device: torch.device,
    on_epoch=None,
    log=print,
    wait_s: float | None = None,
) -> None:
    """Train one run into its directory, from wherever it stopped; its pilot must be finished.

    The run's lock is held meanwhile, so that no two processes ever write into one run: what another
    one finished is found. See `capture_or_load` for `wait_s` and the errors.
    """
    try:
        with lock.hold(run.folder / "lock", wait_s, log):
            run.tidy()
            if run.is_done:
                _require_weights(run, config)
                log(f"{run.folder.name}: captured by another process meanwhile")
            else:
                _train(config, run, device, on_epoch)
    finally:
        with suppress(OSError):  # what never began leaves nothing; a folder with files stays
            run.folder.rmdir()


def _train(config: RunConfig, run: RunDir, device: torch.device, on_epoch) -> None:
    """Train one run whose lock is held, and mark it as done."""
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
    options = {}
    if (pilot := config.pilot()) is not None:
        pilot = find_run(pilot)
        options["constants"] = pilot_constants(pilot)
        told = constants_hash(options["constants"])
        header["pilot"] = {"key": pilot.folder.name, "constants": told}
    choices = run.create(header, images.samples)["choices"]
    with _deterministic(config.deterministic and device.type == "cuda"):
        fine_tune(config, images, run, device, choices["amp"], on_epoch, **options)
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
        size = sum(f.stat().st_size for f in files)
        rows.append(
            {
                "dataset": run.config.dataset,
                "arch": run.config.arch,
                "seed": run.config.seed,
                "seconds": run.done["seconds"],
                "train_seconds_per_epoch": metrics["train_seconds"][1:].mean(),
                "clean_seconds_per_epoch": metrics["clean_seconds"].mean(),
                "bytes_per_sample_epoch": size / len(files) / len(run.samples),
            }
        )
    return pd.DataFrame(rows)


def _tidy_found(run: RunDir) -> None:
    """Remove what a process left that was killed while it finished a run."""
    held = run.folder / "lock"
    if run.folder.parent == paths.runs() and (run.leftovers() or held.exists()):
        with suppress(OSError):  # somebody holds it, or it is read-only: the run is whole anyway
            with lock.hold(held, timeout_s=0):
                run.tidy()


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
