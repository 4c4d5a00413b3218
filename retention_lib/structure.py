"""Notebook 02: is the forgetting of one architecture more structured than that of another?

One function per measurement; each takes the `Traces` of one data set and returns a tidy DataFrame.
"Structured" is what the paper means by it: R^2 of a decay curve fitted to every retention trace.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from retention_lib import simulate
from retention_lib.config import LITERAL, RETENTION, TraceConvention
from retention_lib.convention import is_correctness, retention_trace
from retention_lib.decay import MODELS, DecayFit, fit_decay
from retention_lib.intervals import bootstrap, t_interval
from retention_lib.nulls import shuffle_epochs
from retention_lib.predictors import Predictor, decay_predictor, shrunk_predictor
from retention_lib.r2_swap import swap_p
from retention_lib.resampled import units
from retention_lib.skill import aicc_weights
from retention_lib.traces import Traces


def fit(
    correct: np.ndarray, convention: TraceConvention = LITERAL, model: str = "exponential"
) -> DecayFit:
    """Fit a decay curve to every retention trace of `correct`, (run, epoch, sample)."""
    if is_correctness(convention):  # no copy in single precision
        return fit_decay(correct, model=model, loss=convention.loss)
    r, mask = retention_trace(correct, convention)
    return fit_decay(r, mask=None if mask.all() else mask, model=model, loss=convention.loss)


def r2_values(traces: Traces, model: str = "exponential") -> pd.DataFrame:
    """Every fit: `arch`, `seed`, `r2` (NaN: constant trace), `decay_constant`, `status`."""
    found = fit(traces.correct(LITERAL.view), LITERAL, model)
    frame = found.to_frame()
    runs = traces.runs.loc[frame["run"], ["arch", "seed"]].reset_index(drop=True)
    return pd.concat([runs, frame[["r2", "decay_constant", "status"]]], axis=1)


def mean_r2(
    traces: Traces,
    rng: np.random.Generator,
    model: str = "exponential",
    draws: int = 2000,
    swaps: int = 1999,
) -> pd.DataFrame:
    """Mean R^2 per architecture and the difference of every two, constant traces left out.

    Parameters
    ----------
    traces : Traces
    model : str
        A key of `decay.MODELS`; fitted under the convention `LITERAL`.
    draws : int
        Of the bootstrap over groups within class.
    swaps : int
        Of the architectures' labels within groups (`r2_swap.swap_p`), for `p` of a difference.

    Returns
    -------
    DataFrame
        One row per architecture, then one per pair (`quantity` "B - A", A before B in the study);
        besides the columns of a one-row result: `seed_low`, `seed_high`, `seeds` (t over seeds);
        `flat`, share of constant ones among all `traces`; `chance`, the same mean after each
        trace's epochs were shuffled; `ceiling`. For an architecture the ceiling is R^2 of what
        other seeds' traces of the same sample predict (`other_seed_r2`); for a difference it is the
        mean absolute difference between two seeds of one architecture, which a finding has to
        exceed.

    Raises
    ------
    ValueError
        If some architecture has only constant traces.
    """
    correct = traces.correct(LITERAL.view)
    arch = traces.runs["arch"].to_numpy()
    names = list(dict.fromkeys(arch))
    r2 = fit(correct, LITERAL, model).r2  # (run, sample)
    shuffled = fit(shuffle_epochs(correct, rng), LITERAL, model).r2
    other = other_seed_r2(correct, arch)
    groups, labels = units(traces.samples), traces.labels
    table = bootstrap(r2_means(r2, arch, names), groups, labels, rng, draws)
    chance = r2_means(shuffled, arch, names)(slice(None))
    ceiling = r2_means(other, arch, names)(slice(None))
    by_seed = {a: np.array([_mean(row) for row in r2[arch == a]]) for a in names}
    spread = [abs(x - y) for v in by_seed.values() for x, y in combinations(v, 2)]
    for i, quantity in enumerate(table["quantity"]):
        after, _, before = quantity.partition(" - ")
        per_seed = by_seed[after] - by_seed[before] if before else by_seed[after]
        seeds = t_interval(per_seed)
        members = np.isin(arch, [after, before])
        if before:
            pair = [r2[arch == a] for a in (before, after)]
            pair = [of[: min(map(len, pair))] for of in pair]
            table.loc[i, "p"] = swap_p(*pair, groups, rng, swaps)
        extras = {
            "n": int(np.isfinite(r2[members]).sum()),
            "seed_low": seeds["ci_low"].iloc[0],
            "seed_high": seeds["ci_high"].iloc[0],
            "seeds": len(per_seed),
            "flat": float(np.isnan(r2[members]).mean()),
            "traces": r2[members].size,
            "chance": chance[quantity],
            "ceiling": (np.mean(spread) if spread else np.nan) if before else ceiling[quantity],
        }
        for name, value in extras.items():
            table.loc[i, name] = value
    return table


def r2_means(r2: np.ndarray, arch: np.ndarray, names: list[str]):
    """A statistic of rows: mean over seeds of mean R^2, per architecture, and differences."""
    known, filled = np.isfinite(r2), np.nan_to_num(r2)

    def statistic(rows) -> dict[str, float]:
        count = known[:, rows].sum(1)
        mean = np.where(count > 0, filled[:, rows].sum(1) / np.maximum(count, 1), np.nan)
        out = {name: float(mean[arch == name].mean()) for name in names}
        return out | {f"{b} - {a}": out[b] - out[a] for a, b in combinations(names, 2)}

    return statistic


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def other_seed_r2(correct: np.ndarray, arch: np.ndarray) -> np.ndarray:
    """R^2 of each trace as predicted by the same sample's traces in other seeds, (run, sample).

    The prediction is a + b x, x the mean of the other seeds' traces of that sample and
    architecture, a and b >= 0 fitted over the epochs of the trace, so that R^2 is the squared
    correlation, or 0 where that is negative: as many free numbers as an exponential with floor.
    0 where x is constant, NaN where the trace itself is constant or there is no other seed.
    """
    out = np.full(correct.shape[::2], np.nan)
    for run in range(len(correct)):
        others = (arch == arch[run]) & (np.arange(len(arch)) != run)
        if not others.any():
            continue
        y = correct[run] - correct[run].mean(0)
        x = correct[others].mean(0)
        x = x - x.mean(0)
        total, spread = (y * y).sum(0), (x * x).sum(0)
        along = np.maximum((x * y).sum(0), 0.0)
        shared = np.where(spread > 1e-12, along**2 / np.maximum(spread, 1e-12), 0.0)
        out[run] = np.where(total > 1e-12, shared / np.maximum(total, 1e-12), np.nan)
    return out


def predictors(scheme: str = "cross_seed") -> dict[str, Predictor]:
    """The curves that notebook 02 lets predict, per sample and one for all.

    In another seed also with a floor, and shrunk. One epoch ahead neither: after a few epochs there
    are too few mistakes to estimate how decay constants are distributed.
    """
    found = {"exponential": decay_predictor("exponential")}
    if scheme == "cross_seed":
        found["exponential_floor"] = decay_predictor("exponential_floor")
        found["exponential, shrunk"] = shrunk_predictor()
    pooled = decay_predictor("exponential_floor", pooled=True)
    return found | {"one exponential_floor for all": pooled}


def fit_statuses(traces: Traces) -> pd.DataFrame:
    """What became of the traces under both conventions, as shares.

    Returns
    -------
    DataFrame
        One row per architecture and convention: `traces` (in the population), the share of each
        `decay.Status` of the plain exponential, `rise` (share of `exponential_signed` fits whose
        curve rises) and `persistence` (see `simulate.estimate_persistence`).
    """
    correct, arch = traces.correct(LITERAL.view), traces.runs["arch"].to_numpy()
    rows = []
    for name in dict.fromkeys(arch):
        of = correct[arch == name]
        for label, convention in (("literal", LITERAL), ("retention", RETENTION)):
            found, free = fit(of, convention), fit(of, convention, "exponential_signed")
            fitted = found.n_epochs > 0
            row = {"arch": name, "convention": label, "traces": int(fitted.sum())}
            share = found.counts().drop("excluded") / max(1, fitted.sum())
            row |= share[share > 0].to_dict()
            row["rise"] = float(free.rises[fitted].mean()) if fitted.any() else np.nan
            rows.append(row | {"persistence": simulate.estimate_persistence(of)})
    return pd.DataFrame(rows)


def model_weights(traces: Traces) -> pd.DataFrame:
    """`skill.aicc_weights` of every model under `RETENTION`, over traces that vary.

    Returns
    -------
    DataFrame
        One row per architecture and model.
    """
    correct, arch = traces.correct(RETENTION.view), traces.runs["arch"].to_numpy()
    tables = []
    for name in dict.fromkeys(arch):
        found = {model: fit(correct[arch == name], RETENTION, model) for model in MODELS}
        varies = np.isfinite(found["constant"].r2) | (found["constant"].sse > 0)
        likelihood = {model: f.log_likelihood[varies] for model, f in found.items()}
        n_epochs = found["constant"].n_epochs[varies]
        tables.append(aicc_weights(likelihood, MODELS, n_epochs).assign(arch=name))
    return pd.concat(tables, ignore_index=True)


def retention_curves(traces: Traces) -> pd.DataFrame:
    """Mean retention trace per architecture, counted from epoch 0 and from the learned epoch.

    Returns
    -------
    DataFrame
        `arch`, `origin`, `t` [epochs since the origin], `retention` (mean over seeds), `low`,
        `high` (smallest and largest seed), `fitted` (mean of the fitted exponentials), `samples`
        (mean number of samples still observed).
    """
    correct, arch = traces.correct(LITERAL.view), traces.runs["arch"].to_numpy()
    rows = []
    for convention in (LITERAL, RETENTION):
        r, mask = retention_trace(correct, convention)
        curve = fit(correct, convention).predict(np.arange(r.shape[1]))
        count = mask.sum(2)  # (run, epoch)
        for name in dict.fromkeys(arch):
            of = arch == name
            total = np.maximum(count[of], 1)
            mean = np.where(mask, r, 0)[of].sum(2) / total
            fitted = np.where(mask[of], np.nan_to_num(curve[of]), 0).sum(2) / total
            for t in np.flatnonzero(count[of].all(0)):
                rows.append(
                    {
                        "arch": name,
                        "origin": convention.origin,
                        "t": int(t),
                        "retention": mean[:, t].mean(),
                        "low": mean[:, t].min(),
                        "high": mean[:, t].max(),
                        "fitted": fitted[:, t].mean(),
                        "samples": count[of][:, t].mean(),
                    }
                )
    return pd.DataFrame(rows)
