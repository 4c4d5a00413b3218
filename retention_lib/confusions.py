"""Notebook 04: what forgotten samples are taken for, and the samples that are forgotten most."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.findings import score_matrix
from retention_lib.similarity import neighbours
from retention_lib.traces import Traces


def confusion_counts(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """What forgotten samples are taken for: epochs by label and predicted class, per run.

    A forgotten epoch is one in which a sample is wrong after it was right once. Epochs, not events,
    are counted: a sample may be forgotten once and be wrong in different ways.

    Parameters
    ----------
    predicted : array of int, (run, epoch, sample)
        -1 where not shown.
    labels : array of int, (sample,)
    n_classes : int

    Returns
    -------
    ndarray of int, (run, label, predicted)
        Zero on the diagonal.

    Examples
    --------
    >>> confusion_counts(np.array([[[0], [1], [1], [0], [1]]]), np.array([0]), 2)[0].tolist()
    [[0, 3], [0, 0]]
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.ndim != 3 or predicted.shape[2:] != labels.shape:
        raise ValueError(
            f"predicted must be (run, epoch, {len(labels)} samples), got {predicted.shape}"
        )
    if max(predicted.max(), labels.max()) >= n_classes or labels.min() < 0:
        raise ValueError(f"classes must lie below {n_classes}, got {predicted.max()} as predicted")
    out = np.zeros((len(predicted), n_classes * n_classes), np.int64)
    for run, trace in enumerate(predicted):
        learned = np.zeros(len(labels), bool)
        for row in trace:
            right = row == labels
            lapsed = learned & ~right & (row >= 0)
            cell = labels[lapsed] * n_classes + row[lapsed]
            out[run] += np.bincount(cell, minlength=out.shape[1])
            learned |= right
    return out.reshape(len(predicted), n_classes, n_classes)


def top_confusions(
    counts: np.ndarray,
    distances: np.ndarray | None = None,
    top: int = 10,
    classes: tuple[str, ...] = (),
) -> pd.DataFrame:
    """The most frequent directed confusions of forgotten samples.

    Parameters
    ----------
    counts : array, (label, predicted)
        Of `confusion_counts`, one run or summed over runs.
    distances : array, (class, class), optional
        For the columns about neighbours.
    top : int
        Pairs at most; pairs that share the last count are all listed.
    classes : tuple of str

    Returns
    -------
    DataFrame
        `class`, `taken_for`, `label`, `predicted`, `epochs`, `share` (of all forgotten epochs),
        `share_of_class` (of those of the label), `reverse` (epochs the other way round), and with
        distances `distance`, `neighbour` (1 = the closest class to the label; ties share a mean
        rank) and `is_nearest`.
    """
    counts = np.asarray(counts)
    flat = np.sort(counts[counts > 0])[::-1]
    edge = flat[min(top, len(flat)) - 1] if len(flat) else 1
    label, predicted = np.nonzero(counts >= edge)
    epochs = counts[label, predicted]
    order = np.lexsort((predicted, label, -epochs))
    label, predicted, epochs = label[order], predicted[order], epochs[order]
    name = np.array(classes if classes else [str(c) for c in range(len(counts))], dtype=object)
    table = pd.DataFrame({"class": name[label], "taken_for": name[predicted], "label": label})
    table = table.assign(predicted=predicted, epochs=epochs, share=epochs / max(counts.sum(), 1))
    table["share_of_class"] = epochs / np.maximum(counts.sum(1)[label], 1)
    table["reverse"] = counts[predicted, label]
    if distances is not None:
        others = np.array(distances, float)
        np.fill_diagonal(others, np.inf)
        table["distance"] = others[label, predicted]
        table["neighbour"] = stats.rankdata(others, axis=1)[label, predicted]
        nearest = neighbours(distances, 1)["nearest_distance"].to_numpy()
        table["is_nearest"] = table["distance"].to_numpy() <= nearest[label]
    return table


def forgotten_examples(
    traces: Traces, score: str = "mean_error", per_class: int = 3
) -> pd.DataFrame:
    """The samples of every class that are forgotten most, for a gallery.

    Ranked by the mean over runs of a sample's midrank within its run, so that every run and
    architecture counts the same. Only samples with a forgetting event in some run are listed.

    Returns
    -------
    DataFrame
        `label`, `class`, `place` (1 = most), `row` (of `traces.samples`), `sample_id`,
        `mean_rank` (0..1), `runs_forgotten` (with at least one event), `tied` (samples of the class
        with the same mean rank, of which the first by `sample_id` are listed).
    """
    values = score_matrix(traces, score)
    rank = stats.rankdata(values, axis=1).mean(0) / values.shape[1]
    forgotten = (score_matrix(traces, "events") > 0).sum(0)
    table = traces.samples[["label", "sample_id"]].assign(row=np.arange(len(rank)))
    table = table.assign(mean_rank=rank, runs_forgotten=forgotten)[forgotten > 0]
    table["tied"] = table.groupby(["label", "mean_rank"])["row"].transform("size")
    table = table.sort_values(["label", "mean_rank", "sample_id"], ascending=[True, False, True])
    table["place"] = table.groupby("label").cumcount() + 1
    table = table[table["place"] <= per_class].reset_index(drop=True)
    table.insert(1, "class", [traces.classes[c] for c in table["label"]])
    columns = ["label", "class", "place", "row", "sample_id", "mean_rank", "runs_forgotten", "tied"]
    return table[columns]


def lapses_to_nearest(
    predicted: np.ndarray, labels: np.ndarray, nearest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Forgotten epochs of every sample over all runs, and those that name the nearest class.

    Parameters
    ----------
    predicted : array of int, (run, epoch, sample)
    labels : array of int, (sample,)
    nearest : array of int, (class,)
        -1 where there is none.

    Returns
    -------
    array of int, array of int, (sample,)

    Examples
    --------
    >>> lapses_to_nearest(np.array([[[0], [1], [2]]]), np.array([0]), np.array([1, 0, 0]))
    (array([2]), array([1]))
    """
    forgotten, named = np.zeros((2, len(labels)), np.int64)
    aim = np.asarray(nearest)[labels]
    for trace in predicted:
        learned = np.zeros(len(labels), bool)
        for row in trace:
            lapsed = learned & (row != labels) & (row >= 0)
            forgotten += lapsed
            named += lapsed & (row == aim)
            learned |= row == labels
    return forgotten, named


def examples(
    traces: Traces, labels: list[int], score: str = "mean_error", per_class: int = 3
) -> pd.DataFrame:
    """`forgotten_examples` of some classes, with what they are taken for while forgotten.

    Parameters
    ----------
    labels : list of int
        Which classes, in this order.

    Returns
    -------
    DataFrame
        The columns of `forgotten_examples`, `taken_for` (the class most often predicted after the
        first right answer, the smaller label at a tie), `epochs_forgotten` (over all runs) and,
        where label noise was planted, `planted_noisy`.
    """
    table = forgotten_examples(traces, score, per_class)
    table = pd.concat([table[table["label"] == c] for c in labels], ignore_index=True)
    names, epochs = [], []
    for row, label in zip(table["row"], table["label"], strict=True):
        of = traces.predicted()[:, :, [row]]
        counts = confusion_counts(of, np.array([label]), len(traces.classes)).sum(0)[label]
        names.append(traces.classes[counts.argmax()])
        epochs.append(int(counts.sum()))
    table = table.assign(taken_for=names, epochs_forgotten=epochs)
    if "planted_noisy" in traces.samples:
        table["planted_noisy"] = traces.samples["planted_noisy"].to_numpy()[table["row"]]
    return table
