"""Notebook 04: are classes that look alike forgotten more, and taken for each other?"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib import confusions, semantics, similarity
from retention_lib.class_forgetting import over_runs
from retention_lib.class_tables import scores_by_class
from retention_lib.config import PRIMARY_SCORE
from retention_lib.data import phantom_birds
from retention_lib.resampled import count_batches, percentile_interval, units
from retention_lib.traces import Traces

#: Distances of one data set by measure, (class, class).
Distances = dict[str, np.ndarray]


def likeness(
    images: dict, traces: dict[str, Traces], root: str | None = None, log=print
) -> dict[str, Distances]:
    """`known_distances` of every data set that has both runs and images; phantom birds' genera.

    Says which data sets have none. `genus` is 0 within and 1 between genera.
    """
    out = {}
    for name, found in traces.items():
        if name not in images:
            log(f"{name}: published traces only: no images here, hence no measure of likeness")
            continue
        archs = tuple(dict.fromkeys(found.runs["arch"]))
        out[name] = similarity.known_distances(images[name], archs, root, log)
        if images[name].name == "phantom_birds":
            genus = np.array([phantom_birds.GENUS[c] for c in images[name].classes])
            out[name]["genus"] = (genus[:, None] != genus).astype(float)
    return out


def forgetting_by_likeness(
    traces: Traces,
    distances: dict[str, Distances],
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    draws: int = 1999,
) -> pd.DataFrame:
    """Are classes with close neighbours forgotten most? Per measure, over all runs and by each.

    Returns
    -------
    DataFrame
        `measure`, `scope`, `summary` (`nearest_distance`, `mean_of_nearest`), then a one-row
        result: Spearman over classes between mean rank of forgetting and *nearness* (minus the
        distance), so that a positive value agrees with the claim; `p` two-sided by permuting
        classes, `p_claim` one-sided. Genera have no nearest class and are left out.
    """
    means, names = scores_by_class(traces, score)
    ranks, arch, rows = stats.rankdata(means, axis=1), traces.runs["arch"].to_numpy(), []
    for measure, matrix in _of(traces, distances).items():
        for scope in ("all", *dict.fromkeys(arch)):
            mean = ranks[(arch == scope) | (scope == "all")].mean(0)
            near = matrix[np.ix_(names, names)]
            row = semantics.forgetting_by_distance(mean, near, rng, draws)
            row.insert(0, "measure", measure)
            row.insert(1, "scope", scope)
            rows.append(row.rename(columns={"p_negative": "p_claim"}))
    if not rows:
        return pd.DataFrame()
    out = pd.concat(rows, ignore_index=True)
    flipped = -out[["estimate", "ci_high", "ci_low"]].to_numpy()
    return out.assign(**dict(zip(("estimate", "ci_low", "ci_high"), flipped.T, strict=True)))


def _of(traces: Traces, distances: dict[str, Distances], genus: bool = False) -> Distances:
    found = distances.get(traces.runs["dataset"].iloc[0], {})
    return {name: d for name, d in found.items() if genus or name != "genus"}


def nearness(traces: Traces, distances: dict[str, Distances], score=PRIMARY_SCORE) -> pd.DataFrame:
    """Distance to the nearest class beside forgetting, a row per measure, architecture and class.

    Returns
    -------
    DataFrame
        `measure`, `arch`, `class`, `nearest` (its name), `nearest_distance`, `estimate` (class mean
        of the score, over seeds).
    """
    means, names = scores_by_class(traces, score)
    by_arch, runs = over_runs(means, traces.runs)
    called, rows = np.array(traces.classes, dtype=object)[names], []
    for measure, matrix in _of(traces, distances).items():
        near = similarity.neighbours(matrix[np.ix_(names, names)])
        for arch, mean in zip(runs["arch"], by_arch, strict=True):
            row = pd.DataFrame({"class": called, "nearest": called[near["nearest"]]})
            row = row.assign(nearest_distance=near["nearest_distance"], estimate=mean)
            rows.append(row.assign(measure=measure, arch=arch))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def measures_agree(
    traces: Traces, distances: dict[str, Distances], rng: np.random.Generator, draws: int = 1999
) -> pd.DataFrame:
    """Mantel test of every two measures of distance, and whether they name the same neighbour.

    Returns
    -------
    DataFrame
        `measure_a`, `measure_b`, the row of `semantics.mantel`, `same_nearest` (share of the
        classes whose nearest by A is a nearest by B, ties counting) and its `chance`.
    """
    rows = []
    for a, b in combinations(found := _of(traces, distances, genus=True), 2):
        row = semantics.mantel(found[a], found[b], rng, draws).drop(columns="method")
        other = similarity.off_diagonal(found[b])
        closest = other <= np.nanmin(other, axis=1, keepdims=True)
        at = similarity.neighbours(found[a])["nearest"].to_numpy()
        row.insert(0, "measure_a", a)
        row.insert(1, "measure_b", b)
        row["same_nearest"] = closest[np.arange(len(at)), at].mean()
        rows.append(row.assign(chance=(closest.sum(1) / (len(at) - 1)).mean()))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def confused_with_nearest(
    traces: Traces,
    distances: dict[str, Distances],
    rng: np.random.Generator,
    draws: int = 2000,
    permutations: int = 1999,
) -> pd.DataFrame:
    """Are forgotten samples taken for the nearest class? Per measure, over all runs and by each.

    Returns
    -------
    DataFrame
        `measure`, `scope`, the row of `nearest_share` with an interval over groups within class
        (runs fixed); `mantel`, rank correlation between excess of confusions and *nearness* over
        pairs of classes, and its `p_mantel` (two-sided).
    """
    counts = list(count_batches(units(traces.samples), traces.labels, rng, draws))
    predicted, labels, arch = traces.predicted(), traces.labels, traces.runs["arch"].to_numpy()
    rows = []
    for measure, matrix in _of(traces, distances).items():
        nearest = similarity.neighbours(matrix)["nearest"].to_numpy()
        for scope in ("all", *dict.fromkeys(arch)):
            of = predicted[(arch == scope) | (scope == "all")]
            table = confusions.confusion_counts(of, labels, len(traces.classes)).sum(0)
            row = semantics.nearest_share(table, matrix, rng, permutations)
            total, named = confusions.lapses_to_nearest(of, labels, nearest)
            with np.errstate(invalid="ignore"):
                share = np.concatenate([(c @ named) / (c @ total) for c in counts])
            row["ci_low"], row["ci_high"] = percentile_interval(share)
            excess = semantics.confusion_excess(table)
            pairs = semantics.mantel(excess, matrix, rng, permutations).iloc[0]
            row.insert(0, "measure", measure)
            row.insert(1, "scope", scope)
            rows.append(row.assign(mantel=-pairs["estimate"], p_mantel=pairs["p"]))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def confusion_table(traces: Traces, distances: dict[str, Distances], top: int = 10) -> pd.DataFrame:
    """`top_confusions` over all runs; neighbours by the first measure there is, `measure`."""
    found = _of(traces, distances)
    measure, matrix = next(iter(found.items()), ("none", None))
    counts = confusions.confusion_counts(traces.predicted(), traces.labels, len(traces.classes))
    table = confusions.top_confusions(counts.sum(0), matrix, top, traces.classes)
    return table.assign(measure=measure)
