"""What R^2 comes to where there is no forgetting to explain: placebos beside the real traces.

Held-out images were never trained on and cannot be forgotten; shuffled epochs keep only how often a
sample is right; curveball redraws keep every epoch's accuracy and every sample's total, so that
"some epochs are worse, some samples harder" is all they contain.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from retention_lib.config import LITERAL
from retention_lib.decay import fit_decay
from retention_lib.held_out import of_same_runs
from retention_lib.intervals import permutation_p
from retention_lib.nulls import redraws, shuffle_epochs
from retention_lib.traces import Traces

#: Traces that are fitted together. Few of millions of redrawn traces differ, and those are fitted
#: once; more would take more memory for little.
_TOGETHER = 1 << 20


def mean_r2(correct: np.ndarray, model: str = "exponential") -> float:
    """Mean R^2 under the literal convention over all traces that vary, NaN if none does.

    Parameters
    ----------
    correct : bool, (epoch, sample)
    """
    # Under the literal convention the retention trace is correctness itself.
    r2 = fit_decay(correct, model=model).r2
    known = np.isfinite(r2)
    return float(r2[known].mean()) if known.any() else np.nan


def redrawn_r2(
    correct: np.ndarray, rng: np.random.Generator, draws: int, model: str = "exponential"
) -> np.ndarray:
    """Mean R^2 of margin-preserving redraws of one run, (draw,).

    Parameters
    ----------
    correct : bool, (epoch, sample)
    """
    correct = correct[:, correct.any(0) & ~correct.all(0)]  # no redraw changes the others
    if correct.shape[1] == 0:
        return np.full(draws, np.nan)
    means, waiting, traces = [], [], 0
    for batch in redraws(correct, rng, draws):  # (draw, epoch, sample)
        waiting.append(batch)
        traces += len(batch) * batch.shape[2]
        if traces >= _TOGETHER:
            means.append(_mean_r2_of_each(waiting, model))
            waiting, traces = [], 0
    return np.concatenate([*means, *([_mean_r2_of_each(waiting, model)] if waiting else [])])


def _mean_r2_of_each(batches: list[np.ndarray], model: str) -> np.ndarray:
    """Mean R^2 of every redraw, (draw,); `batches` are (draw, epoch, sample)."""
    together = np.concatenate(batches)
    draws, epochs, samples = together.shape
    r2 = fit_decay(together.transpose(1, 0, 2).reshape(epochs, -1), model=model).r2
    return r2.reshape(draws, samples).mean(1)


def placebo_table(
    traces: Traces,
    held_out: dict[str, Traces],
    rng: np.random.Generator,
    draws: int = 1999,
    model: str = "exponential",
) -> pd.DataFrame:
    """Mean R^2 of the real traces beside its three placebos.

    Parameters
    ----------
    traces : Traces
        Training samples of one data set's runs.
    held_out : dict of Traces
        Held-out samples of the same runs, by data set.
    draws : int
        Curveball redraws of every run; 1,999 leave p-values of 0.0005.

    Returns
    -------
    DataFrame
        One row per architecture and per difference ("B - A"): `quantity`; `r2`, mean over seeds;
        `held_out`, and `held_out_n` traces that vary; `shuffled`, after each trace's epochs were
        permuted once; `curveball`, mean of the redraws, with the central 95 % from
        `curveball_low` to `curveball_high`; `p`, two-sided, of the real value among the redraws;
        `draws`.
    """
    correct, arch = traces.correct(LITERAL.view), traces.runs["arch"].to_numpy()
    outside = of_same_runs(traces, held_out).correct(LITERAL.view)
    values = {
        "r2": [[mean_r2(c, model)] for c in correct],
        "held_out": [[mean_r2(c, model)] for c in outside],
        "shuffled": [[mean_r2(c, model)] for c in shuffle_epochs(correct, rng)],
    }
    table = {k: _over_seeds(np.array(v), arch) for k, v in values.items()}
    nulls = _over_seeds(np.stack([redrawn_r2(c, rng, draws, model) for c in correct]), arch)
    varying = (outside.any(1) & ~outside.all(1)).sum(1)  # (run,)
    rows = []
    for quantity, null in nulls.items():
        row = {"quantity": quantity} | {k: float(v[quantity][0]) for k, v in table.items()}
        row["held_out_n"] = int(varying[np.isin(arch, quantity.split(" - "))].sum())
        low, high = np.quantile(null, [0.025, 0.975])
        row |= {"curveball": null.mean(), "curveball_low": low, "curveball_high": high}
        row["p"] = permutation_p(row["r2"], null, "two-sided")
        rows.append(row | {"draws": draws})
    return pd.DataFrame(rows)


def _over_seeds(values: np.ndarray, arch: np.ndarray) -> dict[str, np.ndarray]:
    """Mean over the runs of each architecture, and differences; `values` is (run, draw)."""
    out = {name: values[arch == name].mean(0) for name in dict.fromkeys(arch)}
    return out | {f"{b} - {a}": out[b] - out[a] for a, b in combinations(list(out), 2)}
