"""Notebook 00: the runs of a profile, what their traces look like, and whether planted truth shows.

One function per measurement; each takes run directories or the `Traces` of one data set and returns
a tidy DataFrame.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from retention_lib import data, forgetting, models, paths, pretrain, rank_agreement, study
from retention_lib.checks import check_names
from retention_lib.config import Profile, RunConfig
from retention_lib.config import profile as find_profile
from retention_lib.data.imageset import ImageSet
from retention_lib.findings import SCORES, score_matrix
from retention_lib.intervals import one_row, t_interval
from retention_lib.parallel import default_workers
from retention_lib.rundir import RunDir
from retention_lib.session import default_device
from retention_lib.traces import Traces

#: What a clean trace of correctness can look like; every trace is exactly one of these.
SHAPES = {
    "always right": "never wrong, from the warm-up on",
    "learned and kept": "wrong at first, then right to the end",
    "forgotten, relearned": "at least one forgetting event, right at the end",
    "forgotten at the end": "at least one forgetting event, wrong at the end",
    "never learned": "never right",
}


def choose(profile: str, datasets: str = "all") -> tuple[Profile, dict[str, list[RunConfig]]]:
    """A profile and its runs, data set by data set.

    Parameters
    ----------
    profile : str
        A name of `config.PROFILES`.
    datasets : str
        `all`, or names of the profile's data sets with commas between them.

    Raises
    ------
    ValueError
        On an unknown profile or data set, listing the known ones.

    Examples
    --------
    >>> list(choose("phantom", "phantom_birds")[1])
    ['phantom_birds']
    """
    chosen = find_profile(profile)
    names = list(chosen.study.datasets)
    if datasets != "all":
        names = [name.strip() for name in datasets.split(",")]
        check_names(names, list(chosen.study.datasets), f"datasets of profile {profile}")
    configs = chosen.study.configs()
    return chosen, {name: [c for c in configs if c.dataset == name] for name in names}


def has_images(config: RunConfig) -> bool:
    """Whether the data set is drawn, or its folder lies below the data root."""
    kind = config.dataset.partition(":")[0]
    return kind not in data.REAL or (paths.data_root() / data.REAL[kind]).is_dir()


def load_images(configs: dict[str, list[RunConfig]]) -> dict[str, ImageSet]:
    """Images of every data set that is here; nothing is downloaded."""
    return {name: data.load(runs[0]) for name, runs in configs.items() if has_images(runs[0])}


def is_available(config: RunConfig) -> bool:
    """Whether a run can be had here: its images are here, or it is finished and published.

    Nothing is decoded, downloaded or trained to find out.
    """
    if has_images(config):
        return True
    kind = config.dataset.partition(":")[0]
    known = Path(data.__file__).parent / "identities.json"
    identities = json.loads(known.read_text()) if known.is_file() else {}
    return kind in identities and study.find_run(config, identities[kind]).is_done


def find_or_capture(configs: dict[str, list[RunConfig]], log=print) -> dict[str, list[Path]]:
    """Run directories per data set: found, or trained where the images are here.

    Where neither images nor published runs exist the list is empty and `log` says what is missing;
    nothing is ever downloaded or trained without images.
    """
    folders = {}
    for name, wanted in configs.items():
        usable = [c for c in wanted if is_available(c)]
        if len(usable) < len(wanted):
            log(
                f"{name}: {len(wanted) - len(usable)} of {len(wanted)} runs are not to be had: no "
                f"images below {paths.data_root()} and no published runs in {paths.results()}. "
                "Set RETENTION_DATA to the folder with the images to train them."
            )
        folders[name] = _captured(usable, log) if usable else []
    return folders


def _captured(configs: list[RunConfig], log) -> list[Path]:
    return study.capture_or_load(configs, log=log, workers=default_workers(default_device()))


def load(folders: dict[str, list[Path]], split: str = "train") -> dict[str, Traces]:
    """Aligned traces of every data set that has runs."""
    return {name: Traces.from_runs(f, split) for name, f in folders.items() if f}


def each(measure, traces: dict[str, Traces], *args, **kwargs) -> pd.DataFrame:
    """One measurement on every data set, below each other, with the column `dataset` first.

    Examples
    --------
    >>> each(lambda found, digit: pd.DataFrame({"x": [digit]}), {"a": None}, 3).columns.tolist()
    ['dataset', 'x']
    """
    tables = []
    for name, found in traces.items():
        table = measure(found, *args, **kwargs)
        if len(table):
            table.insert(0, "dataset", name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"dataset": []})


def mean_by(table: pd.DataFrame, *by: str, digits: int = 3) -> pd.DataFrame:
    """Means over all but the named columns, rounded for display; an empty table stays empty."""
    if table.empty:
        return table
    means = table.groupby(list(by), sort=False, observed=True).mean(numeric_only=True)
    return means.drop(columns=["seed", "epoch"], errors="ignore").round(digits)


def learning_curves(folders: list[Path]) -> pd.DataFrame:
    """Metrics of every run and epoch.

    Returns
    -------
    DataFrame
        `dataset`, `arch`, `seed`, `classes` (how many), `epoch`, then accuracies, balanced
        accuracies and losses [nat] of both splits, and seconds.
    """
    tables = []
    for run in map(RunDir, folders):
        table = run.metrics
        header = {"dataset": run.config.dataset, "arch": run.config.arch, "seed": run.config.seed}
        header["classes"] = len(run.header["classes"])
        for place, (name, value) in enumerate(header.items()):
            table.insert(place, name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"dataset": []})


def trace_shapes(traces: Traces, view: str = "clean") -> pd.DataFrame:
    """What share of the traces has which shape, and how many events there are to work with.

    Returns
    -------
    DataFrame
        One row per run: `arch`, `seed`, the share of every shape in `SHAPES` (they sum to 1),
        `with_event` (share with at least one forgetting event), `flat` (constant traces) and
        `events` (mean per sample).
    """
    shown = traces.shown(view) if view == "online" else None
    tally = forgetting.tally_of(traces.correct(view), shown)
    never, event, last = tally.first_correct < 0, tally.events > 0, tally.last.astype(bool)
    shapes = {
        "always right": tally.errors == 0,
        "learned and kept": ~never & ~event & (tally.errors > 0),
        "forgotten, relearned": event & last,
        "forgotten at the end": event & ~last,
        "never learned": never,
    }
    table = traces.runs[["arch", "seed"]].assign(**{k: v.mean(1) for k, v in shapes.items()})
    table["with_event"] = event.mean(1)
    table["flat"] = table["always right"] + table["never learned"]
    return table.assign(events=tally.events.mean(1))


#: Scores that ought to show mislabelled images: hard ones are learned late, or never.
NOISE_SCORES = ("forgetting_score", "mean_error", "learned_epoch", "mean_loss", "mean_margin")


def label_noise_auc(traces: Traces) -> pd.DataFrame:
    """How well each score tells the planted label noise from the rest, per architecture.

    Returns
    -------
    DataFrame
        One row per architecture and score of `NOISE_SCORES`. `estimate` with DeLong's interval is
        the AUC of the score summed over seeds; `single_run` the mean AUC of one run, with its t
        interval over seeds `seed_low`, `seed_high`; `positives` planted mistakes. Without rows
        where nothing was planted.
    """
    if "planted_noisy" not in traces.samples:
        return pd.DataFrame()
    noisy, arch = traces.samples["planted_noisy"].to_numpy(bool), traces.runs["arch"].to_numpy()
    rows = []
    for score in NOISE_SCORES:
        values = score_matrix(traces, score)
        for name in dict.fromkeys(arch):
            of = values[arch == name]
            row = rank_agreement.auc(of.sum(0), noisy)
            single = t_interval([rank_agreement.auc(v, noisy)["estimate"].iloc[0] for v in of])
            row.insert(0, "arch", name)
            row.insert(1, "score", score)
            row["meaning"] = SCORES[score]
            row["single_run"] = single["estimate"]
            row["seed_low"], row["seed_high"] = single["ci_low"], single["ci_high"]
            row["seeds"] = len(of)
            rows.append(row)
    return pd.concat(rows, ignore_index=True).sort_values(["arch", "score"], ignore_index=True)


def pretraining_gain(configs: dict[str, list[RunConfig]]) -> pd.DataFrame:
    """Linear probe of the shipped weights against random ones, on every phantom.

    Returns
    -------
    DataFrame
        `dataset`, `arch`, `pretrained`, `random` (held-out balanced accuracy of a ridge classifier
        on frozen features), then a one-row result: `estimate` is their difference, with a normal
        interval that takes the two as independent and every class as equally hard, hence wide.
    """
    rows = []
    for name, runs in configs.items():
        if name not in data.PHANTOMS:
            continue
        images = data.load(runs[0])
        train, val = images.rows("train"), images.rows("val")
        label = images.samples["label"].to_numpy()
        sets = (images.images[train], label[train], images.images[val], label[val])
        per_class = np.unique(label[val], return_counts=True)[1]
        for run in {c.arch: c for c in runs}.values():
            found = []
            for weights in (run.weights, "none"):
                size, seed = run.input_size, run.model_seed
                net = models.build_model(run.arch, len(images.classes), size, weights, seed)
                found.append(pretrain.linear_probe(net, *sets)["balanced_accuracy"])
            variance = sum(p * (1 - p) for p in found) * (1 / per_class).sum() / len(per_class) ** 2
            gain, half = found[0] - found[1], 1.96 * np.sqrt(variance)
            method = "ridge probe, balanced accuracy, normal 95%"
            row = one_row(gain, gain - half, gain + half, len(val), np.nan, method)
            columns = {"dataset": name, "arch": run.arch, "pretrained": found[0]}
            rows.append(pd.DataFrame([columns | {"random": found[1]}]).join(row))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"dataset": []})
