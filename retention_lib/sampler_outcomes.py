"""Notebook 06: what every arm came to: held-out measures, forgetting, what the hardest retain.

Each function takes the `Traces` of one data set whose runs differ in sampler and seed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.config import (
    PRIMARY_SCORE,
    REFERENCE,
    TOP_SHARE,
)
from retention_lib.findings import score_matrix
from retention_lib.held_out import of_same_runs
from retention_lib.ties import top_count
from retention_lib.traces import Traces

#: "A fixed accuracy": this share of what uniform sampling reaches in the end, mean over seeds.
LEVEL = 0.95


def class_measures(predicted: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy and macro-F1 of many predictions of the same samples.

    Parameters
    ----------
    predicted : ndarray of int, (..., sample)
    labels : ndarray of int, (sample,)

    Returns
    -------
    dict of ndarray, (...)
        Balanced accuracy is the mean recall, macro-F1 the mean F1 = 2 TP / (2 TP + FP + FN), both
        over the classes that `labels` has; a class that is predicted nowhere has F1 = 0.

    Examples
    --------
    >>> {k: float(v) for k, v in class_measures(np.array([0, 0, 0, 1]), [0, 0, 1, 1]).items()}
    {'accuracy': 0.75, 'balanced_accuracy': 0.75, 'macro_f1': 0.7333333333333334}
    """
    labels = np.asarray(labels)
    recall, f1 = [], []
    for c in np.unique(labels):
        mine, said = labels == c, predicted == c
        hit = said[..., mine].sum(-1)
        recall.append(hit / mine.sum())
        f1.append(2 * hit / (mine.sum() + said.sum(-1)))  # TP + FN and TP + FP
    accuracy = (predicted == labels).mean(-1)
    measures = {"balanced_accuracy": np.mean(recall, 0), "macro_f1": np.mean(f1, 0)}
    return {"accuracy": accuracy, **measures}


def learning_curves(held_out: Traces) -> pd.DataFrame:
    """Held-out measures of every run and epoch: `arch`, `arm`, `seed`, `epoch`, measures."""
    measures = class_measures(held_out.predicted(), held_out.labels)
    runs, epochs = len(held_out.runs), held_out.epochs
    table = _runs(held_out).loc[np.repeat(np.arange(runs), len(epochs))].reset_index(drop=True)
    table["epoch"] = np.tile(epochs, runs)
    return table.assign(**{name: value.ravel() for name, value in measures.items()})


def outcomes(traces: Traces, held_out: dict[str, Traces]) -> pd.DataFrame:
    """What every run came to.

    Parameters
    ----------
    traces : Traces
        Training samples of one data set.
    held_out : dict
        Data set -> `Traces` of its held-out samples.

    Returns
    -------
    DataFrame
        One row per run: `arch`, `arm`, `seed`; held-out `accuracy`, `balanced_accuracy` and
        `macro_f1` after the last epoch; `events`, forgetting events per training sample (clean
        view, so that samples not shown count as well); `hard_retention`, share right after the last
        epoch of the most forgotten tenth of the training samples (`hard_weights`; NaN with one
        seed); `epochs_to_level`, first epoch whose held-out accuracy reaches `LEVEL` of what
        uniform sampling of that architecture ends with, one more than the last if none does.
    """
    curves = learning_curves(of_same_runs(traces, held_out))
    table = _runs(traces)
    last = curves[curves["epoch"] == curves["epoch"].max()].reset_index(drop=True)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        table[name] = last[name]
    table["events"] = score_matrix(traces, "events").mean(1)
    right = traces.correct()[:, -1]
    weights = hard_weights(traces)
    table["hard_retention"] = (right * weights).sum(1) / weights.sum(1)
    by_run = curves["accuracy"].to_numpy().reshape(len(table), -1)
    uniform = table[table["arm"] == REFERENCE].groupby("arch")["accuracy"].mean()
    reached = by_run >= LEVEL * table["arch"].map(uniform).to_numpy()[:, None]
    epochs = np.append(traces.epochs, traces.epochs[-1] + 1)
    first = np.where(reached.any(1), reached.argmax(1), len(epochs) - 1)
    return table.assign(epochs_to_level=epochs[first].astype(float))


def hard_weights(traces: Traces, share: float = TOP_SHARE) -> np.ndarray:
    """Which samples count as most forgotten for each run, weights (run, sample).

    The tenth with the highest mean score in the uniform runs of the *other* seeds of the same
    architecture. Its own uniform run must not choose: what was forgotten in it by chance would be
    remembered in every other arm by regression to the mean. Samples tied at the threshold share
    what is left of the tenth. NaN where there is no other seed.
    """
    score = score_matrix(traces, PRIMARY_SCORE)
    runs, k = traces.runs, top_count(len(traces.samples), share)
    out = np.full(score.shape, np.nan)
    for i, run in runs.iterrows():
        others = (runs["sampler"] == REFERENCE) & (runs["arch"] == run["arch"])
        others &= runs["seed"] != run["seed"]
        if others.any():
            mean = score[others.to_numpy()].mean(0)
            limit = np.partition(mean, -k)[-k]
            above, at = mean > limit, mean == limit
            out[i] = above + at * (k - above.sum()) / at.sum()
    return out


def by_dataset(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each data set, without the column that names it; nothing of an empty table."""
    groups = table.groupby("dataset", sort=False) if len(table) else ()
    return {name: of.drop(columns="dataset").reset_index(drop=True) for name, of in groups}


def _runs(traces: Traces) -> pd.DataFrame:
    return traces.runs[["arch", "sampler", "seed"]].rename(columns={"sampler": "arm"})
