"""Samples that only one architecture forgets, beside samples that only one of two seeds forgets.

Some samples are forgotten in a run of A and in none of B by luck alone: so are samples in one half
of A's seeds and not in the other half. Both are counted over m runs against m runs, m = half of the
seeds, averaged over all choices; what is counted is then comparable, and only an excess over the
seeds' own level speaks of the architecture.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import special

from retention_lib.forgetting import forgetting_events
from retention_lib.intervals import one_row
from retention_lib.resampled import count_batches, percentile_interval, units
from retention_lib.traces import Traces

#: What must hold of a sample: an event in at least one of m runs, or in each; none in m others.
STRENGTHS = ("any", "all")


def only_one_forgets(
    traces: Traces,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
    view: str = "clean",
) -> pd.DataFrame:
    """Share of samples forgotten on one side of m against m runs, and on the other never.

    With f of the S runs of an architecture having an event, C the binomial coefficient,

        P(none of m) = C(S - f, m) / C(S, m),    P(all of m) = C(f, m) / C(S, m);

    the share is the mean over samples of P_A(any or all) P_B(none) between architectures, and of
    the same over disjoint sets of one architecture's runs within it.

    Parameters
    ----------
    traces : Traces
    rng : Generator
    view : {"clean", "online"}

    Returns
    -------
    DataFrame
        One-row results (`p` NaN; intervals over units within class, networks fixed), for every
        pair of architectures and `strength`, by `quantity`: `A, not B` (`forgotten` by A only);
        `B, not A`; `A, not other seeds`; `B, not other seeds`; `one architecture` and
        `one set of seeds`, the means of the first and of the last two; and the `excess` of the one
        over the other. Further `arch_a`, `arch_b`, `runs` (m on either side; with m = 1 both
        strengths are the same), `samples` (estimate times n), and `by_rate`: the excess that the
        architectures' overall rates alone give, see Notes (NaN elsewhere). The within rows and the
        excess are NaN where an architecture has one seed.

    Raises
    ------
    ValueError
        If there are not two architectures.

    Notes
    -----
    With a and b a sample's chances to be forgotten in any of m runs of A and of B, the excess of
    `any` is the mean of (a - b)^2 / 2. An architecture that forgets more of all samples alike has
    such an excess too, though both rank them the same: `by_rate` = (mean a - mean b)^2 / 2.
    """
    arch = traces.runs["arch"].to_numpy()
    names = list(dict.fromkeys(arch))
    if len(names) < 2:
        raise ValueError(f"two architectures are needed, got {names}")
    forgotten = _events(traces, view) > 0
    rows, columns, keys = [], [], []
    for a, b in combinations(names, 2):
        f = {x: forgotten[arch == x].sum(0) for x in (a, b)}
        n_runs = {x: int((arch == x).sum()) for x in (a, b)}
        m = max(1, min(n_runs.values()) // 2)
        for strength in STRENGTHS:
            parts = _parts(f, n_runs, m, strength, a, b)
            columns += list(parts.values())
            keys += [(a, b, m, strength, quantity) for quantity in parts]
    values = np.array(columns)  # (quantity, sample)
    groups, n = units(traces.samples), values.shape[1]
    batches = count_batches(groups, traces.labels, rng, draws)
    redrawn = np.concatenate([c @ values.T / c.sum(1, keepdims=True) for c in batches])
    method = f"share of samples, percentile bootstrap over groups within class, {draws} draws"
    for key, value, drawn in zip(keys, values, redrawn.T, strict=True):
        estimate = value.mean()
        low, high = percentile_interval(drawn, level)
        a, b, m, strength, quantity = key
        known = quantity == "excess" and strength == "any"
        rate = _by_rate(forgotten[arch == a], forgotten[arch == b], m) if known else np.nan
        extras = {"strength": strength, "quantity": quantity, "arch_a": a, "arch_b": b, "runs": m}
        extras |= {"samples": estimate * n, "by_rate": rate}
        rows.append(one_row(estimate, low, high, n, np.nan, f"{method}, {level:.0%}", **extras))
    return pd.concat(rows, ignore_index=True)


def _events(traces: Traces, view: str) -> np.ndarray:
    shown = None if view == "clean" else traces.shown(view)
    return forgetting_events(traces.correct(view), shown)


def _parts(f: dict, n_runs: dict, m: int, strength: str, a: str, b: str) -> dict[str, np.ndarray]:
    """Every sample's chance to count, by quantity, each (sample,)."""

    def among(size, name, hits):  # chance that `size` runs are all among `hits` of them
        return special.comb(hits, size) / special.comb(n_runs[name], size)

    def forgets(name):
        if strength == "all":
            return among(m, name, f[name])
        return 1 - among(m, name, n_runs[name] - f[name])

    def never(name):
        return among(m, name, n_runs[name] - f[name])

    def within(name):
        left = n_runs[name] - f[name]
        if n_runs[name] < 2 * m:
            return np.full(len(left), np.nan)
        if strength == "all":  # m runs with an event, then m of the others without
            return (
                among(m, name, f[name]) * special.comb(left, m) / special.comb(n_runs[name] - m, m)
            )
        return never(name) - among(2 * m, name, left)

    across = {f"{a}, not {b}": forgets(a) * never(b), f"{b}, not {a}": forgets(b) * never(a)}
    inside = {f"{x}, not other seeds": within(x) for x in (a, b)}
    means = {"one architecture": sum(across.values()) / 2}
    means["one set of seeds"] = sum(inside.values()) / 2
    excess = means["one architecture"] - means["one set of seeds"]
    return across | inside | means | {"excess": excess}


def _by_rate(forgotten_a: np.ndarray, forgotten_b: np.ndarray, m: int) -> float:
    """Excess of `any` from the mean chances of two architectures, given (run, sample) each."""
    a, b = (
        1 - np.mean(special.comb(len(f) - f.sum(0), m) / special.comb(len(f), m))
        for f in (forgotten_a, forgotten_b)
    )
    return float((a - b) ** 2 / 2)


def gallery(traces: Traces, count: int = 8, view: str = "clean") -> pd.DataFrame:
    """Samples that one architecture forgets and another does not, the clearest first.

    Parameters
    ----------
    traces : Traces
    count : int
        At most so many per ordered pair of architectures.

    Returns
    -------
    DataFrame
        `forgets`, `keeps` (architectures), `rank`, `sample_id`, `label`, `class` (its name),
        `strict` (an event in every run of the one, in none of the other), `runs_forgets`,
        `runs_keeps` (shares of runs with an event), `events`, `events_keeps` (mean number per run
        of the one and of the other), `noisy` (planted label noise; False where nothing is planted),
        `row` (position among the samples). Ordered by the difference of the shares, then by events,
        then by sample id; samples whose difference is not positive are left out.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count!r}")
    events, arch = _events(traces, view), traces.runs["arch"].to_numpy()
    noisy = traces.samples.get("planted_noisy", pd.Series(False, traces.samples.index))
    tables = []
    for a, b in combinations(dict.fromkeys(arch), 2):
        for one, other in ((a, b), (b, a)):
            table = traces.samples[["sample_id", "label"]].copy()
            table["row"] = np.arange(len(table))
            table["runs_forgets"] = (events[arch == one] > 0).mean(0)
            table["runs_keeps"] = (events[arch == other] > 0).mean(0)
            table["events"] = events[arch == one].mean(0)
            table["events_keeps"] = events[arch == other].mean(0)
            table["class"] = [traces.classes[label] for label in traces.labels]
            table["noisy"] = noisy
            table["strict"] = (table["runs_forgets"] == 1) & (table["runs_keeps"] == 0)
            table["difference"] = table["runs_forgets"] - table["runs_keeps"]
            table = table[table["difference"] > 0].sort_values(
                ["difference", "events", "sample_id"], ascending=[False, False, True]
            )
            table = table.head(count).assign(forgets=one, keeps=other)
            tables.append(table.assign(rank=np.arange(1, len(table) + 1)))
    columns = ["forgets", "keeps", "rank", "sample_id", "label", "class", "strict", "runs_forgets"]
    columns += ["runs_keeps", "events", "events_keeps", "noisy", "row"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame()
