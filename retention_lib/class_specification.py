"""Notebook 04: how far runs agree on classes, under every convention of the score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from retention_lib import findings_overlap
from retention_lib.class_agreement import class_correlations, interval_of_mean, pairs_between
from retention_lib.class_averages import means_by_class
from retention_lib.concordance import rounded_concordances
from retention_lib.config import LITERAL, PRIMARY_SCORE
from retention_lib.resampled import count_batches, units
from retention_lib.specification import spread
from retention_lib.traces import Traces

#: The reading that `config` fixes, over all runs.
PRIMARY = (PRIMARY_SCORE, "n_presentations", LITERAL.view, "all")


def specification(
    traces: Traces, rng: np.random.Generator, draws: int = 200, level: float = 0.95
) -> pd.DataFrame:
    """Mean rank correlation of class means and Kendall's W, one row per convention and scope.

    W depends on how many runs are compared, which differs between scopes: what is compared is
    the mean rank correlation r over pairs of runs, W = (1 + (m - 1) r) / m but for ties.

    Parameters
    ----------
    draws : int
        Of the bootstrap over units within class; the same resamples serve every convention.

    Returns
    -------
    DataFrame
        `score`, `never_learned`, `view`, `scope` (`all`, each architecture, `between`), `primary`,
        `estimate` r with `ci_low`, `ci_high`, `kendall_w` (NaN for `between`), `n` classes,
        `pairs`. Sorted by `estimate`; conventions under which a run ranks nothing are NaN. A view
        that was not recorded has no rows.

    References
    ----------
    Simonsohn, Simmons & Nelson 2020, Specification curve analysis, Nature Human Behaviour 4.
    """
    arch, labels = traces.runs["arch"].to_numpy(), traces.labels
    archs = list(dict.fromkeys(arch))
    scopes = {"all": ("all", "all")} | {a: (a, a) for a in archs}
    scopes |= {"between": tuple(archs)} if len(archs) == 2 else {}
    counts = list(count_batches(units(traces.samples), labels, rng, draws, len(arch)))
    rows = []
    for view, (score, how), values in _all_readings(traces):
        known = ~np.isnan(values).any(0)
        if not known.any():
            continue
        kept = [batch[:, known] for batch in counts]
        found = class_correlations(values[:, known], labels[known], kept)
        for scope, (a, b) in scopes.items():
            pairs = pairs_between(arch, a, b)
            if len(pairs[0]) == 0:
                continue
            low, high = interval_of_mean(*found, pairs, level)
            row = {"score": score, "never_learned": how, "view": view, "scope": scope}
            row["primary"] = (score, how, view, scope) == PRIMARY
            row |= {"estimate": found[0][pairs].mean(), "ci_low": low, "ci_high": high}
            own = (arch == scope) | (scope == "all")
            code = np.unique(labels[known], return_inverse=True)[1]
            w = float(
                rounded_concordances(means_by_class(values[own][:, known], code, code.max() + 1))
            )
            row["kendall_w"] = np.nan if scope == "between" else w
            rows.append(row | {"n": code.max() + 1, "pairs": len(pairs[0])})
    return pd.DataFrame(rows).sort_values("estimate", ignore_index=True) if rows else pd.DataFrame()


def _all_readings(traces: Traces) -> Iterator[tuple[str, tuple[str, str], np.ndarray]]:
    """View, (score, never learned) and values (run, sample) of every convention."""
    for view in ("clean", "online"):
        if traces.shown(view).any():
            # One by one, `findings_overlap.reading` would fit every decay curve a dozen times.
            for key, values in findings_overlap.readings(traces, view).items():
                yield view, key, values


def agreement_of_conventions(table: pd.DataFrame) -> pd.DataFrame:
    """How far the conventions of `specification` agree, one row per data set (if named).

    Returns
    -------
    DataFrame
        `conventions`, `above`, `below` (share whose interval lies above, below 0), `smallest`,
        `median`, `largest` and `primary` mean rank correlation, `primary_w`, and the smallest and
        largest W over all runs, `smallest_w`, `largest_w`.
    """
    rows = []
    for keys, of in table.groupby("dataset", sort=False) if "dataset" in table else [("", table)]:
        if of.empty:
            continue
        first = of[of["primary"]]
        row = {"dataset": keys} if keys else {}
        row |= {"conventions": len(of), "above": (of["ci_low"] > 0).mean()}
        row |= {"below": (of["ci_high"] < 0).mean()} | spread(of["estimate"], of["primary"])
        whole = of.loc[of["scope"] == "all", "kendall_w"]
        row |= {"primary_w": first["kendall_w"].squeeze(), "smallest_w": whole.min()}
        rows.append(row | {"largest_w": whole.max()})
    return pd.DataFrame(rows)
