"""When is a learned sample forgotten? Hazards, Kaplan-Meier curves and a table per architecture.

Clocks and events are those of `risk`. Two things to keep in mind. Samples learned in the head
warm-up have age 0 at epoch 0, though they may be older. And a hazard that falls with age does not
say that a sample grows safer: easily forgotten samples leave the risk set first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from retention_lib.checks import check_level
from retention_lib.config import RETENTION
from retention_lib.intervals import one_row
from retention_lib.label_swap import label_swap
from retention_lib.resampled import units
from retention_lib.risk import (
    as_runs,
    common_horizon,
    influence,
    product_limit,
    quotient,
    risk_counts,
    survival_of,
)
from retention_lib.traces import Traces


def hazard_table(
    correct: np.ndarray,
    scale: str = "age",
    event: str = "first",
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Share of samples at risk that are forgotten, h(t) = d(t) / n(t), at every age or epoch.

    Intervals are Wilson's with n(t) divided by the design effect: the variance of h between
    groups (ratio estimator, linearised) over the binomial one, at least 1. A sample that comes in
    several runs, or again and again among recurrent events, so counts as one source and not as
    many. For first events of one run and groups of one sample it is Wilson's interval itself.

    Parameters
    ----------
    correct, scale, event, groups
        As in `risk.risk_counts`.
    level : float

    Returns
    -------
    DataFrame
        One row per time: `scale`, `event`, `time` [epoch], `at_risk`, `events`, `hazard`, `ci_low`,
        `ci_high`, `groups` (with anything at risk), `effective_n`, `method`. NaN where nobody is at
        risk.

    References
    ----------
    Korn & Graubard (1998), Survey Methodology 24, 193-201: intervals with an effective n.

    Examples
    --------
    >>> hazard_table(np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0]]))["hazard"].round(2).tolist()
    [0.67, 0.0]
    """
    check_level(level)
    risk = risk_counts(correct, scale, event, groups)
    n, d = risk.at_risk.sum(0, dtype=np.int64), risk.events.sum(0, dtype=np.int64)
    hazard, active = quotient(d, n), (risk.at_risk > 0).sum(0)
    between = ((risk.events - hazard * risk.at_risk) ** 2).sum(0)
    # The two corrections for small numbers cancel when each group is one sample in one run.
    between, binomial = quotient(between * active, active - 1), quotient(n * n * hazard, n - 1)
    effect = np.fmax(quotient(between, binomial * (1 - hazard)), 1)
    # Without any event (or survival) groups cannot be seen to differ: each then counts once.
    effective = np.where((d == 0) | (d == n), active, n / effect)
    low, high = np.full((2, len(n)), np.nan)
    seen = n > 0
    share = hazard[seen] * effective[seen]
    low[seen], high[seen] = proportion_confint(share, effective[seen], 1 - level, method="wilson")
    columns = {"scale": scale, "event": event, "time": np.arange(1, len(n) + 1), "at_risk": n}
    columns |= {"events": d, "hazard": hazard, "ci_low": low, "ci_high": high, "groups": active}
    method = f"Wilson with effective n over groups, {level:.0%}"
    return pd.DataFrame(columns | {"effective_n": effective, "method": method})


def kaplan_meier(
    correct: np.ndarray,
    scale: str = "age",
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Share of learned samples not yet forgotten: S(t) = product over j <= t of 1 - d(j) / n(j).

    Time runs from the learned epoch to the first forgetting event; samples not forgotten by the
    last epoch are right-censored there. The interval is of log(-log S). Its variance is
    Greenwood's for one run and groups of one sample, and otherwise the sum over groups of squared
    influences, so that a sample that comes in several runs counts as one source.

    Parameters
    ----------
    correct, groups
        As in `risk.risk_counts`.
    scale : {"age", "epoch"}
        On `epoch`, samples enter at their learned epoch and S refers to a sample at risk from the
        first entry on. If the few that enter first are all forgotten, S is 0 for good.
    level : float

    Returns
    -------
    DataFrame
        One row per time 0, 1, ...: `scale`, `time` [epoch], `at_risk`, `events`, `survival`, `se`,
        `ci_low`, `ci_high`, `method`. `se` is NaN where S is 0, the interval also where S is 1; S
        is NaN where nobody is left at risk.

    References
    ----------
    Kaplan & Meier (1958); Kalbfleisch & Prentice (2002), The Statistical Analysis of Failure Time
    Data, 1.4 (log-log interval); Lin & Wei (1989) and Therneau & Grambsch (2000), 7.2 (influences).

    Examples
    --------
    >>> kaplan_meier(np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1]]))["survival"].tolist()
    [1.0, 0.6666666666666667, 0.0]
    """
    check_level(level)
    risk = risk_counts(correct, scale, "first", groups)
    alone = len(as_runs(correct)) == 1 and len(risk.at_risk) == np.shape(correct)[-1]
    table = survival_of(risk, level, greenwood=alone)
    table.insert(0, "scale", scale)
    return table


def restricted_mean(
    correct: np.ndarray,
    groups: np.ndarray | None = None,
    horizon: int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Restricted mean time to forgetting: sum of S(k) over k = 0 ... horizon - 1 [epoch].

    The mean number of epochs that a sample is kept after its learned epoch, counted up to the
    horizon: E min(T, horizon). With a constant hazard h it is (1 - (1 - h)^horizon) / h.

    Parameters
    ----------
    correct, groups
        As in `risk.risk_counts`.
    horizon : int, optional
        Default one epoch beyond the largest age at which `risk.MIN_GROUPS` groups are still at
        risk, at most the last epoch; to be given where several results are compared.
    level : float

    Returns
    -------
    DataFrame
        One row; `n` counts samples at risk at age 1 (over all runs), `p` is NaN; extras `se`
        (delta method over groups), `horizon`, `groups`. The interval is normal. NaN where nobody
        is at risk up to the horizon.

    Examples
    --------
    >>> correct = np.array([[1, 1], [1, 0], [0, 1]])
    >>> float(restricted_mean(correct, horizon=2)["estimate"][0])
    1.5
    """
    check_level(level)
    risk = risk_counts(correct, groups=groups)
    horizon = common_horizon(horizon, risk)
    n, d = (x.sum(0, dtype=np.int64)[:horizon] for x in risk)
    kept = product_limit(n, d)[: horizon - 1]
    estimate = 1 + kept.sum() if n[0] else np.nan
    se = np.sqrt(((influence(risk)[:, : horizon - 1] @ kept) ** 2).sum())
    half = stats.norm.ppf((1 + level) / 2) * se
    active = int((risk.at_risk[:, 0] > 0).sum())
    method = f"restricted mean to {horizon} epochs, delta method over groups, {level:.0%}"
    extras = {"se": se, "horizon": horizon, "groups": active}
    return one_row(estimate, estimate - half, estimate + half, n[0], np.nan, method, **extras)


def by_architecture(
    traces: Traces, table: Callable[..., pd.DataFrame] = hazard_table, **options
) -> pd.DataFrame:
    """`hazard_table`, `kaplan_meier` or `restricted_mean` of every architecture, one below another.

    Parameters
    ----------
    traces : Traces
        Clean view; an architecture's runs are pooled, their samples kept together by group.
    table : callable
        Takes `correct` (run, epoch, sample), `groups` and the options.
    **options
        Of the table. `restricted_mean` gets the horizon that all architectures reach by default.

    Returns
    -------
    DataFrame
        The table's rows with the columns `arch` and `seeds` in front.
    """
    arch, groups = traces.runs["arch"].to_numpy(), units(traces.samples)
    correct = {a: traces.correct(RETENTION.view)[arch == a] for a in dict.fromkeys(arch)}
    if table is restricted_mean and options.get("horizon") is None:
        risks = [risk_counts(c, groups=groups) for c in correct.values()]
        options = {**options, "horizon": common_horizon(None, *risks)}
    parts = []
    for name, right in correct.items():
        part = table(right, groups=groups, **options)
        part.insert(0, "arch", name)
        part.insert(1, "seeds", len(right))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def compare_architectures(traces: Traces, rng: np.random.Generator, **options) -> pd.DataFrame:
    """`label_swap` of every two architectures, "B - A" with A before B in the study.

    Raises
    ------
    ValueError
        If two architectures were not run with the same seeds: runs are compared in pairs.
    """
    runs, correct = traces.runs, traces.correct(RETENTION.view)
    order = {a: of.sort_values("seed").index.to_numpy() for a, of in runs.groupby("arch")}
    rows = []
    for a, b in combinations(dict.fromkeys(runs["arch"]), 2):
        seeds = [runs.loc[order[x], "seed"].tolist() for x in (a, b)]
        if seeds[0] != seeds[1]:
            raise ValueError(f"{a} and {b} must share their seeds, got {seeds[0]} and {seeds[1]}")
        groups, labels = units(traces.samples), traces.labels
        row = label_swap(correct[order[a]], correct[order[b]], groups, labels, rng, **options)
        row.insert(0, "quantity", f"{b} - {a}")
        rows.append(row)
    if not rows:
        raise ValueError(f"needs at least two architectures, got {list(order)}")
    return pd.concat(rows, ignore_index=True)
