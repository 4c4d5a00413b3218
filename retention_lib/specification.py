"""Mean R^2 under every reading of "a decay curve fitted to each sample's retention trace".

The paper's convention is not public. A number that changes sign with the reading is a number about
the reading; this module computes all of them and their intervals.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd

from retention_lib.config import LITERAL, ORIGINS, SIGNALS, TraceConvention
from retention_lib.convention import retention_trace
from retention_lib.decay import Status, fit_decay
from retention_lib.intervals import resamples
from retention_lib.resampled import units
from retention_lib.traces import Traces

#: Curves that a reader may have meant by "exponential decay", and its two named rivals.
CURVES = (
    "exponential",
    "exponential_floor",
    "exponential_amplitude",
    "exponential_signed",
    "power",
    "weibull",
)
#: What becomes of constant traces, whose R^2 is undefined, and of samples never forgotten.
COUNTED = {
    "flat left out": "traces that are not constant",
    "flat as 1": "all traces, a constant one counted as explained",
    "flat as 0": "all traces, a constant one counted as not explained",
    "forgotten only": "traces with at least one forgetting event",
}
#: Statuses of traces that do not vary.
CONSTANT = (Status.FLAT, Status.NEVER_LEARNED, Status.CENSORED)
#: The reading of `config.LITERAL`.
PRIMARY = (LITERAL.origin, LITERAL.signal, "exponential", "flat left out")


def specification_curve(
    traces: Traces,
    rng: np.random.Generator,
    curves: tuple[str, ...] = CURVES,
    draws: int = 200,
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean R^2 of every two architectures and their difference, one row per reading.

    Parameters
    ----------
    traces : Traces
    rng : Generator
    curves : tuple of str
        Models of `decay.MODELS`, fitted by least squares.
    draws : int
        Of the bootstrap over groups within class; the same resamples serve every reading.

    Returns
    -------
    DataFrame
        `origin`, `signal`, `model`, `counted` (a key of `COUNTED`), `arch_a`, `arch_b` (A before B
        in the study), `r2_a`, `r2_b` (mean over samples, then over seeds; NaN if a run has no
        trace that counts), `median_a`, `median_b`,
        `flat_a`, `flat_b` (share of constant traces among those of the population), `difference`
        = B - A with `ci_low`, `ci_high`, `n` (traces counted), `primary`. Sorted by difference.

    References
    ----------
    Simonsohn, Simmons & Nelson 2020, Specification curve analysis, Nature Human Behaviour 4.
    """
    correct, arch = traces.correct(LITERAL.view), traces.runs["arch"].to_numpy()
    weight = resampling_weights(traces, rng, draws)
    forgotten = (correct[:, :-1] & ~correct[:, 1:]).any(1)
    rows = []
    for origin, signal in product(ORIGINS, SIGNALS):
        r, mask = retention_trace(correct, TraceConvention(origin=origin, signal=signal))
        for model in curves:
            found = fit_decay(r, mask=None if mask.all() else mask, model=model)
            flat = np.isin(found.status, [int(s) for s in CONSTANT])
            for counted in COUNTED:
                r2 = counted_r2(found.r2, flat, forgotten, counted)
                row = {"origin": origin, "signal": signal, "model": model, "counted": counted}
                row["primary"] = (origin, signal, model, counted) == PRIMARY
                rows += [row | c for c in _contrasts(r2, flat, arch, weight, level)]
    return pd.DataFrame(rows).sort_values("difference", ignore_index=True)


def resampling_weights(traces: Traces, rng: np.random.Generator, draws: int) -> np.ndarray:
    """How often each resample holds each sample, float32 (draw, sample)."""
    groups, n = units(traces.samples), len(traces.samples)
    redrawn = resamples(groups, traces.labels, rng, draws)
    return np.stack([np.bincount(rows, minlength=n) for rows in redrawn]).astype(np.float32)


def counted_r2(r2, flat, forgotten, counted: str) -> np.ndarray:
    """R^2 with constant traces treated as a key of `COUNTED` says; NaN is not counted."""
    if counted == "flat left out":
        return r2
    if counted == "forgotten only":
        return np.where(forgotten, r2, np.nan)
    value = {"flat as 1": 1.0, "flat as 0": 0.0}[counted]
    return np.where(flat, value, r2)


def _contrasts(r2, flat, arch, weight, level) -> list[dict]:
    """One row per pair of architectures, of R^2 (run, sample) with NaN where not counted."""
    means, redrawn, constant, median = {}, {}, {}, {}
    for name in dict.fromkeys(arch):
        of = r2[arch == name]
        known, filled = np.isfinite(of).astype(np.float32), np.nan_to_num(of)
        means[name] = float(_ratio(filled.sum(1), known.sum(1)).mean())
        totals = weight @ filled.T.astype(np.float32), weight @ known.T  # (draw, run)
        redrawn[name] = _ratio(*totals).mean(1)
        constant[name] = float(flat[arch == name].mean())
        median[name] = float(np.nanmedian(of)) if known.any() else np.nan
    rows = []
    for a, b in combinations(means, 2):
        difference = redrawn[b] - redrawn[a]
        usable = np.isfinite(difference).mean() > 0.95
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.nanquantile(difference, ends) if usable else (np.nan, np.nan)
        row = {"arch_a": a, "arch_b": b, "r2_a": means[a], "r2_b": means[b]}
        row |= {"median_a": median[a], "median_b": median[b]}
        row |= {"flat_a": constant[a], "flat_b": constant[b], "difference": means[b] - means[a]}
        row |= {"ci_low": low, "ci_high": high}
        rows.append(row | {"n": int(np.isfinite(r2[np.isin(arch, [a, b])]).sum())})
    return rows


def _ratio(total, count):
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def agreement_of_readings(table: pd.DataFrame) -> pd.DataFrame:
    """How often the readings agree, per data set (if named) and pair of architectures.

    Returns
    -------
    DataFrame
        `readings`, `b_higher` and `a_higher` (share whose interval of B - A lies above or below
        0), `smallest`, `largest` and `median` difference, `literal` (the primary reading's).
    """
    if table.empty:
        return table
    by = [name for name in ("dataset", "arch_a", "arch_b") if name in table]
    rows = []
    for keys, of in table.groupby(by, sort=False):
        d = of["difference"]
        row = dict(zip(by, keys, strict=True)) | {"readings": len(of)}
        row |= {"b_higher": (of["ci_low"] > 0).mean(), "a_higher": (of["ci_high"] < 0).mean()}
        row |= {"smallest": d.min(), "median": d.median(), "largest": d.max()}
        rows.append(row | {"literal": d[of["primary"]].squeeze()})
    return pd.DataFrame(rows)


def spread(values: pd.Series, primary: pd.Series) -> dict[str, float]:
    """Smallest, median and largest value, and the primary convention's; NaN where there is none."""
    ends = {"smallest": values.min(), "median": values.median(), "largest": values.max()}
    return ends | {"primary": values[primary.astype(bool)].mean()}
