"""Notebook 04: how much each class is forgotten, its place in every run, examples of both ends.

One function per table, each over the `Traces` of one data set.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib import confusions
from retention_lib.class_averages import means_by_class
from retention_lib.class_forgetting import class_means, extremes, over_runs
from retention_lib.config import PRIMARY_SCORE
from retention_lib.findings import score_matrix
from retention_lib.resampled import units
from retention_lib.traces import Traces


def scores_by_class(traces: Traces, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Class means of a score (run, class), and the labels of the classes."""
    names, code = np.unique(traces.labels, return_inverse=True)
    return means_by_class(score_matrix(traces, score), code, len(names)), names


def class_table(
    traces: Traces, rng: np.random.Generator, score: str = PRIMARY_SCORE, draws: int = 2000
) -> pd.DataFrame:
    """`class_means` of every architecture, averaged over its seeds; groups are `units`.

    Further columns: `wrong_at_0` (share wrong at epoch 0) and `never_learned` (share), both means
    over seeds.
    """
    values, runs = over_runs(score_matrix(traces, score), traces.runs)
    groups = units(traces.samples)
    table = class_means(values, runs, traces.labels, groups, rng, draws, classes=traces.classes)
    correct, code = traces.correct(), np.unique(traces.labels, return_inverse=True)[1]
    for name, of in (("wrong_at_0", ~correct[:, 0]), ("never_learned", ~correct.any(1))):
        mean = over_runs(of, traces.runs)[0]
        table[name] = means_by_class(mean, code, code.max() + 1).ravel()
    return table


def ends_of(table: pd.DataFrame, each: int = 6) -> pd.DataFrame:
    """`class_forgetting.extremes` of every data set; an empty table stays empty.

    Parameters
    ----------
    table : DataFrame
        `class_table` with `dataset`.
    """
    parts = [extremes(of, each) for _, of in table.groupby("dataset", sort=False)]
    return pd.concat(parts, ignore_index=True) if parts else table


def rank_map(traces: Traces, score: str = PRIMARY_SCORE) -> pd.DataFrame:
    """Place of every class in every run, 0 (least forgotten) to 1, most forgotten first.

    Returns
    -------
    DataFrame
        A row per class, a column (`arch`, `seed`) per run; the index is the class's name.
    """
    means, names = scores_by_class(traces, score)
    place = (stats.rankdata(means, axis=1) - 1) / max(len(names) - 1, 1)
    columns = pd.MultiIndex.from_frame(traces.runs[["arch", "seed"]])
    table = pd.DataFrame(place.T, index=[traces.classes[c] for c in names], columns=columns)
    return table.iloc[np.argsort(-place.mean(0), kind="stable")]


def named_examples(
    traces: Traces, score: str = PRIMARY_SCORE, classes: int = 2, per_class: int = 2
) -> pd.DataFrame:
    """`confusions.examples` of the classes forgotten most and least, by their mean rank over runs.

    `end` says which: `most` or `least`. A class without any forgotten sample has no rows.
    """
    means, names = scores_by_class(traces, score)
    order = names[np.argsort(-stats.rankdata(means, axis=1).mean(0), kind="stable")]
    ends = {"most": order[:classes], "least": order[classes:][-classes:]}
    tables = [
        confusions.examples(traces, list(labels), score, per_class).assign(end=end)
        for end, labels in ends.items()
    ]
    return pd.concat(tables, ignore_index=True)
