"""Notebook 05: early loss and decay under every convention of both."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from retention_lib import early_predictors as early
from retention_lib.partial_correlation import Link, redrawn_correlations
from retention_lib.resampled import percentile_interval, units
from retention_lib.specification import spread
from retention_lib.traces import Traces


def specification(traces: Traces, rng: np.random.Generator, draws: int = 100) -> pd.DataFrame:
    """The correlation over all runs under every convention, one row each, sorted.

    Conventions under which some run has no correlation (all samples alike, too few left) have none.

    Returns
    -------
    DataFrame
        `early` (view of the loss: `clean` at epoch 0, `online` at epoch 1), `view` of the trace,
        `early_predictors.CHOICES`, `given` (`nothing` or `class`), `primary`, then `estimate`,
        `ci_low`, `ci_high` and `n` (mean over runs of the samples used).
    """
    losses, rows = early.early_losses(traces), []
    pairs = [(r, r) for r in range(len(traces.runs))]
    about = pairs, units(traces.samples), traces.labels, rng, draws
    for view in losses:
        vectors = early.readings(traces, view)
        choices = list(product(losses, vectors, ("nothing", "class")))
        links = {(e, view, *key, given): Link(e, key, None, given == "class")
                 for e, key, given in choices}  # fmt: skip
        for key, found in redrawn_correlations(losses | vectors, links, *about).items():
            mean = found.mean(1)
            low, high = percentile_interval(mean[1:])
            n = np.mean([(~np.isnan(vectors[key[2:-1]] + losses[key[0]])).sum(1)])
            primary = key == ("clean", "clean", *early.PRIMARY, "nothing")
            rows.append([*key, primary, mean[0], low, high, round(n)])
    names = ["early", "view", *early.CHOICES, "given", "primary", "estimate", "ci_low", "ci_high"]
    table = pd.DataFrame(rows, columns=[*names, "n"]).dropna(subset="estimate")
    return table.sort_values("estimate", ignore_index=True)


def agreement_of_conventions(table: pd.DataFrame) -> pd.DataFrame:
    """How far the conventions of `specification` agree, one row per data set.

    Returns
    -------
    DataFrame
        `conventions`, `above` and `below` 0 (share whose whole interval is), `smallest`, `median`,
        `largest`, `primary`.
    """
    if table.empty:
        return table
    rows = []
    for name, of in table.groupby("dataset", sort=False):
        row = {"dataset": name, "conventions": len(of), "above": (of["ci_low"] > 0).mean()}
        row |= {"below": (of["ci_high"] < 0).mean()}
        rows.append(row | spread(of["estimate"], of["primary"]))
    return pd.DataFrame(rows)
