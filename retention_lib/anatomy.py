"""Notebook 00: what retention traces look like before any curve is fitted to them.

A finding about decay needs traces that decay. Four plain counts say whether they do: how many are
flat, rise or fall; what becomes of the samples that were right at epoch 0; how long a lapse lasts;
and how many forgetting events there are to work with.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from retention_lib import forgetting
from retention_lib.checks import check_level
from retention_lib.headlines import kind_of
from retention_lib.intervals import one_row, t_interval
from retention_lib.resampled import units
from retention_lib.risk import Risk, as_runs, group_codes, survival_of
from retention_lib.traces import Traces
from retention_lib.verdicts import record

#: Directions of a 0/1 trace; every trace has exactly one.
DIRECTIONS = {
    "flat": "always right or always wrong: no decay to fit",
    "rising": "more often right late than early",
    "falling": "more often right early than late",
    "level": "right and wrong, without trend",
}
#: Numbers of forgetting events that are counted apart; the last holds all larger ones.
EVENT_COUNTS = ("0", "1", "2", "3 or more")


def directions(correct: np.ndarray) -> np.ndarray:
    """Direction of every trace, a position in `DIRECTIONS`, (..., sample).

    The sign of the least-squares slope of correctness on the epoch,
    sum over t of (t - mean t) r(t), computed in whole numbers so that "no trend" is exact.

    Parameters
    ----------
    correct : bool or 0/1 integers, (..., epoch, sample)

    Examples
    --------
    >>> found = directions(np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0]]))
    >>> [list(DIRECTIONS)[d] for d in found]
    ['flat', 'rising', 'falling', 'level']
    """
    correct = np.asarray(correct)
    n = correct.shape[-2]
    twice = (2 * np.arange(n) - (n - 1))[:, None]  # 2 (t - mean t)
    slope = np.sign((twice * correct).sum(-2, dtype=np.int64))
    right = correct.sum(-2, dtype=np.int64)
    kind = np.select([slope > 0, slope < 0], [1, 2], 3)
    return np.where((right == 0) | (right == n), 0, kind)


def direction_shares(traces: Traces, view: str = "clean") -> pd.DataFrame:
    """What share of the traces is flat, rising, falling or level, and events per sample.

    Returns
    -------
    DataFrame
        One row per run: `arch`, `seed`, `n` (samples), the shares of `DIRECTIONS` (they sum to 1),
        `events` (mean forgetting events per sample) and `samples with 0`, `1`, `2`, `3 or more`
        events (shares).
    """
    correct = traces.correct(view)
    kind, events = directions(correct), forgetting.forgetting_events(correct)
    table = traces.runs[["arch", "seed"]].assign(n=len(traces.samples))
    for position, name in enumerate(DIRECTIONS):
        table[name] = (kind == position).mean(-1)
    table["events"] = events.mean(-1)
    most = len(EVENT_COUNTS) - 1
    for count, name in enumerate(EVENT_COUNTS):
        table[f"samples with {name}"] = (np.minimum(events, most) == count).mean(-1)
    return table


def kept_from_the_start(traces: Traces, view: str = "clean") -> pd.DataFrame:
    """Accuracy at each epoch of the samples that were right, and wrong, at epoch 0.

    If retention decayed from epoch 0 on, the first would fall with the epoch.

    Returns
    -------
    DataFrame
        One row per architecture, `at_epoch_0` (`right`, `wrong`) and `epoch`: `accuracy` (mean
        over seeds), `low`, `high` (smallest and largest seed), `seed_low`, `seed_high` (t interval
        over seeds), `n` (samples, mean over seeds) and `seeds`. NaN where a seed has no such
        sample.
    """
    correct, arch = traces.correct(view), traces.runs["arch"].to_numpy()
    rows = []
    for name in dict.fromkeys(arch):
        of = correct[arch == name]
        for state, first in (("right", of[:, 0]), ("wrong", ~of[:, 0])):
            n = first.sum(-1)
            share = (of & first[:, None]).sum(-1) / np.where(n > 0, n, np.nan)[:, None]
            for epoch, values in zip(traces.epochs, share.T, strict=True):
                seeds = t_interval(values).iloc[0]
                row = {"arch": name, "at_epoch_0": state, "epoch": int(epoch)}
                row |= {"accuracy": values.mean(), "low": values.min(), "high": values.max()}
                row |= {"seed_low": seeds["ci_low"], "seed_high": seeds["ci_high"]}
                rows.append(row | {"n": n.mean(), "seeds": len(of)})
    return pd.DataFrame(rows)


def lapse_risk(correct: np.ndarray, groups: np.ndarray | None = None) -> Risk:
    """How long lapses last: at each length, lapses still open and those that end, per group.

    A lapse begins with a forgetting event and ends when the sample is right again. Length j is at
    risk if the sample was wrong for j epochs and one more was observed.

    Parameters
    ----------
    correct : bool or 0/1 integers, (run, epoch, sample) or (epoch, sample)
    groups : array, (sample,), optional

    Examples
    --------
    >>> risk = lapse_risk(np.array([[1], [0], [0], [1], [0]]))
    >>> risk.at_risk.tolist(), risk.events.tolist()
    ([[1, 1, 0, 0]], [[0, 1, 0, 0]])
    """
    cube = as_runs(correct)
    code, n_groups = group_codes(groups, cube.shape[2])
    steps = cube.shape[1] - 1
    at_risk, ended = (np.zeros((n_groups, steps), np.int32) for _ in range(2))
    for run in cube:
        length = np.zeros(cube.shape[2], np.int64)  # epochs of the open lapse, 0 if there is none
        for before, now in pairwise(run):
            who = np.flatnonzero(length)
            np.add.at(at_risk, (code[who], length[who] - 1), 1)
            back = who[now[who]]
            np.add.at(ended, (code[back], length[back] - 1), 1)
            begins = before & ~now
            length = np.where(now, 0, length + (begins | (length > 0)))
    return Risk(at_risk, ended)


def lapses(traces: Traces, view: str = "clean", level: float = 0.95) -> pd.DataFrame:
    """Share of lapses that are still open after 1, 2, ... epochs, per architecture.

    Kaplan-Meier: lapses that the last epoch cuts off are right-censored, so that late ones do not
    count as short.

    Returns
    -------
    DataFrame
        `arch`, `seeds`, `time` [epoch], `at_risk`, `events` (lapses that end), `survival` (share
        still open), `se`, `ci_low`, `ci_high`, `method`; samples of one group count together.

    References
    ----------
    Kaplan & Meier (1958), Nonparametric estimation from incomplete observations, JASA 53.
    """
    check_level(level)
    correct, arch = traces.correct(view), traces.runs["arch"].to_numpy()
    parts = []
    for name in dict.fromkeys(arch):
        of = correct[arch == name]
        part = survival_of(lapse_risk(of, units(traces.samples)), level)
        part.insert(0, "arch", name)
        part.insert(1, "seeds", len(of))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def summary(shares: pd.DataFrame, kept: pd.DataFrame, lapse: pd.DataFrame) -> pd.DataFrame:
    """The four counts side by side, one row per architecture (and data set, if named).

    Parameters
    ----------
    shares, kept, lapse : DataFrame
        Of `direction_shares`, `kept_from_the_start` and `lapses`, `dataset` in front or not.

    Returns
    -------
    DataFrame
        Shares of `DIRECTIONS`, `events`, `right_at_0` (share of samples right at epoch 0),
        `kept_at_end` and `least_kept` (accuracy of those at the last and at their worst epoch),
        `lapse_over_in_1` (share of lapses that last one epoch) and `lapse_median` [epoch] (NaN if
        half of them never end).
    """
    by = [name for name in ("dataset", "arch") if name in shares]
    if shares.empty:
        return pd.DataFrame(columns=[*by, *DIRECTIONS])
    rows = []
    for keys, of in shares.groupby(by, sort=False):
        row = dict(zip(by, keys, strict=True))
        here = _rows_of(kept, row).query("at_epoch_0 == 'right'")
        open_ = _rows_of(lapse, row).set_index("time")["survival"]
        row |= {name: of[name].mean() for name in (*DIRECTIONS, "events")}
        row["right_at_0"] = here["n"].iloc[0] / of["n"].iloc[0]
        row["kept_at_end"], row["least_kept"] = here["accuracy"].iloc[-1], here["accuracy"].min()
        row["lapse_over_in_1"] = 1 - open_.get(1, np.nan)
        over = open_.index[open_ <= 0.5]
        row["lapse_median"] = over[0] if len(over) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _rows_of(table: pd.DataFrame, row: dict) -> pd.DataFrame:
    keep = np.ones(len(table), bool)
    for name, value in row.items():
        keep &= (table[name] == value).to_numpy()
    return table[keep]


def records(
    shares: pd.DataFrame, kept: pd.DataFrame, lapse: pd.DataFrame, scales: dict[str, str]
) -> list:
    """Records for notebook 00's result file; the intervals are Student's over seeds.

    Parameters
    ----------
    shares, kept, lapse : DataFrame
        As for `summary`, with `dataset`.
    scales : dict
        As in `headlines.overlap_records`; data sets without runs have no records.
    """
    found = []
    for dataset, scale in scales.items():
        if scale is None:
            continue
        of = shares[shares["dataset"] == dataset]
        for arch, rows in of.groupby("arch", sort=False):
            for name in ("flat", "falling", "rising", "events"):
                what = "events_per_sample" if name == "events" else f"{name}_traces"
                row = t_interval(rows[name])
                found.append(
                    record("capture", dataset, f"{what}_{kind_of(arch)}", row, scale=scale)
                )
        at = kept[(kept["dataset"] == dataset) & (kept["at_epoch_0"] == "right")]
        for arch, rows in at.groupby("arch", sort=False):
            end = rows.iloc[-1]
            ends = (end["seed_low"], end["seed_high"])
            row = one_row(end["accuracy"], *ends, int(end["seeds"]), np.nan, "t over seeds, 95%")
            quantity = f"kept_of_right_at_0_{kind_of(arch)}"
            found.append(record("capture", dataset, quantity, row, scale=scale))
        for arch, rows in lapse[lapse["dataset"] == dataset].groupby("arch", sort=False):
            one = rows[rows["time"] == 1]
            if one.empty or not one["at_risk"].iloc[0]:
                continue
            one = one.iloc[0]
            ends = (1 - one["ci_high"], 1 - one["ci_low"])
            row = one_row(1 - one["survival"], *ends, one["at_risk"], np.nan, one["method"])
            quantity = f"lapses_of_one_epoch_{kind_of(arch)}"
            found.append(record("capture", dataset, quantity, row, scale=scale))
    return found
