"""Notebook 06: does an arm outperform uniform sampling? Paired differences and equivalence tests.

Arms are compared within a seed: the same network, the same warm-up, the same augmentation stream.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib import equivalence
from retention_lib.config import (
    EQUIVALENCE_MARGIN,
    REFERENCE,
)
from retention_lib.intervals import t_interval
from retention_lib.sampler_outcomes import learning_curves
from retention_lib.traces import Traces

#: What an arm is judged by, and whether more is better.
MEASURES = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "hard_retention": True,
    "events": False,
    "epochs_to_level": False,
}
#: Measures on the scale of accuracy, to which the margin applies.
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "hard_retention")
#: Which epochs a run's accuracy is read from.
READINGS = {"last": "the last epoch", "last_3": "mean of the last three", "best": "best epoch"}


def differences(
    table: pd.DataFrame, margin: float = EQUIVALENCE_MARGIN, measures=tuple(MEASURES)
) -> pd.DataFrame:
    """Every arm minus uniform sampling, paired by seed.

    Parameters
    ----------
    table : DataFrame
        `arch`, `arm`, `seed` and measures, one row per run, as `outcomes` returns it.

    Returns
    -------
    DataFrame
        One row per architecture (and `all`: the mean over architectures of each seed, where there
        are several), arm and measure. For `SHARES` the row of `equivalence.tost_paired` with its
        verdict; `p` is the equivalence test's. Others have no margin: their `p` is the two-sided
        t test's, and `verdict` says `better` or `worse` where the 95 % interval excludes 0.
        `seeds_needed`: as `seeds_for_equivalence`.
    """
    kinds = {arch: of for arch, of in table.groupby("arch", sort=False)}
    if len(kinds) > 1:
        means = table.groupby(["arm", "seed"], sort=False).mean(numeric_only=True).reset_index()
        kinds["all"] = means
    rows = []
    for arch, of in kinds.items():
        for arm in [name for name in of["arm"].unique() if name != REFERENCE]:
            for measure in measures:
                wide = of.pivot(index="seed", columns="arm", values=measure)
                row = _difference(wide[arm], wide[REFERENCE], measure, margin)
                for place, value in enumerate((arch, arm, measure)):
                    row.insert(place, ("arch", "arm", "measure")[place], value)
                rows.append(row.assign(uniform=wide[REFERENCE].mean()))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _difference(a: pd.Series, b: pd.Series, measure: str, margin: float) -> pd.DataFrame:
    more = MEASURES.get(measure, True)
    if measure in SHARES:
        row = equivalence.tost_paired(a.to_numpy(), b.to_numpy(), margin, more)
        return row.assign(seeds_needed=seeds_for_equivalence(row["sd"].iloc[0], margin))
    row = t_interval((a - b).to_numpy(), null=0.0)
    low, high = row[["ci_low", "ci_high"]].iloc[0]
    sign = (low > 0) - (high < 0)  # NaN: neither
    names = {1: equivalence.BETTER, -1: equivalence.WORSE, 0: equivalence.OPEN}
    return row.assign(verdict=names[sign if more else -sign])


def seeds_for_equivalence(sd: float, margin: float, power: float = equivalence.POWER) -> float:
    """Pairs with which two methods that do not differ would be found equivalent.

    Parameters
    ----------
    sd : float
        Standard deviation of the paired differences, taken as known.
    power : float
        Wanted chance of that finding.

    Returns
    -------
    float
        At least 2; infinite above 10,000; NaN where `sd` is not positive.

    Examples
    --------
    >>> seeds_for_equivalence(sd=0.01, margin=0.01)
    11.0
    """
    if not sd > 0:
        return np.nan
    low, high = 1, 2  # too few, perhaps enough

    def enough(n):
        return equivalence.equivalence_power(margin, sd / np.sqrt(n), n - 1) >= power

    while not enough(high):
        low, high = high, 2 * high
        if high > 10_000:
            return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high)


def conventions(held_out: Traces) -> pd.DataFrame:
    """The difference of every arm under every reading of "accuracy".

    Returns
    -------
    DataFrame
        Rows of `differences` with `reading`, a key of `READINGS`: from which epoch of the curve
        the measure is taken. `primary` marks held-out accuracy after the last epoch.
    """
    curves, rows = learning_curves(held_out), []
    by = [curves[name] for name in ("arch", "arm", "seed")]
    names = ["accuracy", "balanced_accuracy", "macro_f1"]
    readings = {
        "last": curves[names].groupby(by, sort=False).last(),
        "last_3": curves[curves["epoch"] > curves["epoch"].max() - 3][names]
        .groupby(by, sort=False)
        .mean(),
        "best": curves[names].groupby(by, sort=False).max(),
    }
    for reading, table in readings.items():
        found = differences(table.reset_index(), measures=names)
        rows.append(found.assign(reading=reading))
    table = pd.concat(rows, ignore_index=True)
    primary = (table["reading"] == "last") & (table["measure"] == "accuracy")
    return table.assign(primary=primary)


def summary_of_conventions(table: pd.DataFrame) -> pd.DataFrame:
    """Per data set, architecture and arm: how the readings decide, and their differences."""
    if table.empty:
        return table
    rows = []
    index = ["dataset", "arch", "arm"]
    for names, of in table.groupby(index, sort=False):
        low, high, estimate = of["ci_low"], of["ci_high"], of["estimate"]
        row = dict(zip(index, names, strict=True)) | {"readings": len(of)}
        row |= {"above": (low > 0).mean(), "below": (high < 0).mean()}
        row |= {"smallest": estimate.min(), "median": estimate.median(), "largest": estimate.max()}
        rows.append(row | {"primary": of.loc[of["primary"], "estimate"].mean()})
    return pd.DataFrame(rows)
