"""Notebook 06: what was shown how often, counted from the traces: budgets, constants, classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from retention_lib.config import (
    REFERENCE,
)
from retention_lib.rundir import RunDir
from retention_lib.samplers import pilot_constants


def shown_counts(folders: list[Path]) -> np.ndarray:
    """How often every training sample was shown, repeats counted, (run, sample)."""
    counts = []
    for run in map(RunDir, folders):
        train = (run.samples["split"] == "train").to_numpy()
        epochs = range(1, run.config.epochs + 1)
        read = (pq.read_table(run.epoch_file(t), columns=["shown"]) for t in epochs)
        counts.append(sum(t.column("shown").to_numpy().astype(np.int64) for t in read)[train])
    return np.array(counts)


def budgets(folders: list[Path]) -> pd.DataFrame:
    """What every run spent, counted from its traces.

    Returns
    -------
    DataFrame
        `arch`, `arm`, `seed`, `presentations` (repeats counted) and `distinct`, the training
        samples that were shown at least once.

    Raises
    ------
    ValueError
        If two runs of an architecture differ in their presentations.
    """
    if not folders:
        return pd.DataFrame()
    counts, configs = shown_counts(folders), [RunDir(f).config for f in folders]
    table = pd.DataFrame(
        [{"arch": c.arch, "arm": c.sampler, "seed": c.seed} for c in configs]
    ).assign(presentations=counts.sum(1), distinct=(counts > 0).sum(1))
    for arch, of in table.groupby("arch", sort=False):
        if of["presentations"].nunique() > 1:
            raise ValueError(f"{arch}: arms must show equally many, got\n{of}")
    return table


def shown_by_constant(folders: list[Path], groups: int = 5) -> pd.DataFrame:
    """How often samples were shown, by the decay constant that their pilot gave them.

    Returns
    -------
    DataFrame
        `arch`, `arm`, `seed`, `group` (1: smallest constants; equal ones stay together, so that
        groups differ in size or are missing), `constant` (median, 1 / epoch), `samples`, `shown`
        (mean per sample and run) and `ratio` to what uniform sampling would show.
    """
    dirs = list(map(RunDir, folders))
    pilots = {(d.config.arch, d.config.seed): d for d in dirs if d.config.sampler == REFERENCE}
    constants = {of: pilot_constants(d) for of, d in pilots.items()}
    rows = []
    for run, counts in zip(dirs, shown_counts(folders), strict=True):
        own = constants[run.config.arch, run.config.seed]
        edges = np.unique(np.quantile(own, np.linspace(0, 1, groups + 1)[1:-1]))
        group = np.searchsorted(edges, own, side="left")
        for g in np.unique(group):
            here = group == g
            row = {"arch": run.config.arch, "arm": run.config.sampler, "seed": run.config.seed}
            row |= {"group": int(g) + 1, "constant": np.median(own[here])}
            row |= {"samples": int(here.sum()), "shown": counts[here].mean()}
            rows.append(row | {"ratio": counts[here].mean() / counts.mean()})
    return pd.DataFrame(rows)


def class_balance(folders: list[Path]) -> pd.DataFrame:
    """How much of what is shown is of which class.

    Returns
    -------
    DataFrame
        `arch`, `arm`, `seed`, `class`, `samples` (training images of the class), `share` of all
        presentations, `ratio` to the class's share of the training samples.
    """
    rows = []
    for run, counts in zip(map(RunDir, folders), shown_counts(folders), strict=True):
        samples = run.samples
        label = samples.loc[samples["split"] == "train", "label"].to_numpy()
        names = run.header["classes"]
        n, shown = np.bincount(label, minlength=len(names)), np.bincount(label, counts, len(names))
        share = shown / counts.sum()
        config = run.config
        for c in np.flatnonzero(n):
            row = {"arch": config.arch, "arm": config.sampler, "seed": config.seed}
            row |= {"class": names[c], "samples": n[c], "share": share[c]}
            rows.append(row | {"ratio": share[c] / (n[c] / n.sum())})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    return table.sort_values("samples", ascending=False, kind="stable", ignore_index=True)


def ratio_table(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Mean `ratio` for the eye: a row per data set, architecture and `by`, a column per arm."""
    if table.empty:
        return table
    return table.pivot_table("ratio", ["dataset", "arch", *by], "arm", sort=False)
