"""Notebook 04's measurements over the `Traces` of one data set, one function per table.

How much single classes are forgotten and how far runs agree on it; what else could put the classes
in that order; and whether the order has to do with likeness.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib import confusions, findings_overlap, semantics, similarity
from retention_lib.class_consistency import class_consistency, class_pairs, pair_means
from retention_lib.class_forgetting import class_means, extremes, over_runs
from retention_lib.concordance import (
    concordances,
    kendall_w,
    means_by_class,
    rank_correlations,
    redrawn_means,
)
from retention_lib.config import LITERAL, PRIMARY_SCORE
from retention_lib.data import phantom_birds
from retention_lib.findings import score_matrix
from retention_lib.forgetting import forgetting_events
from retention_lib.intervals import permutation_p
from retention_lib.nulls import redraws
from retention_lib.rank_agreement import spearman
from retention_lib.resampled import count_batches, percentile_interval, units
from retention_lib.traces import Traces

#: Rivals that could put the classes in the same order in every run, and what they are.
RIVALS = {
    "class size": "training images of the class",
    "wrong at epoch 0": "share wrong after the head warm-up, before any fine-tuning",
    "wrong when held out": "share of epochs wrong, images of the class never trained on",
    "forgetting of held-out": "the score itself, of images that were never trained on",
    "planted label noise": "share of the class's labels that are wrong (phantoms)",
}
#: The reading that `config` fixes, over all runs.
PRIMARY = (PRIMARY_SCORE, "n_presentations", LITERAL.view, "all")
#: Distances of one data set by measure, (class, class).
Distances = dict[str, np.ndarray]


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
    means, names = _means(traces, score)
    place = (stats.rankdata(means, axis=1) - 1) / max(len(names) - 1, 1)
    columns = pd.MultiIndex.from_frame(traces.runs[["arch", "seed"]])
    table = pd.DataFrame(place.T, index=[traces.classes[c] for c in names], columns=columns)
    return table.iloc[np.argsort(-place.mean(0), kind="stable")]


def _means(traces: Traces, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Class means (run, class) and the labels of the classes."""
    names, code = np.unique(traces.labels, return_inverse=True)
    return means_by_class(score_matrix(traces, score), code, len(names)), names


def consistency(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    draws: int = 2000,
    permutations: int = 1999,
) -> pd.DataFrame:
    """`class_consistency` of one data set; groups are `units`. No rows with a single run."""
    if len(traces.runs) < 2:
        return pd.DataFrame()
    given = score_matrix(traces, score), traces.runs, traces.labels, units(traces.samples)
    return class_consistency(*given, rng, draws, permutations=permutations)


def between_architectures(
    traces: Traces,
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    draws: int = 2000,
    permutations: int = 1999,
    level: float = 0.95,
) -> pd.DataFrame:
    """`pair_means`, with a p-value and an interval over images for pairs of architectures.

    Returns
    -------
    DataFrame
        As `pair_means`, its interval renamed `seed_low`, `seed_high` and its `n` to `seeds`;
        `ci_low`, `ci_high` over groups within class (runs fixed, `bias` taken off), `n` classes
        and, between two architectures, `p` two-sided by permuting the classes of one of them in
        all its runs alike.
    """
    values, runs, labels = score_matrix(traces, score), traces.runs, traces.labels
    out = pair_means(class_pairs(values, runs, labels, rng))
    ends = {"ci_low": "seed_low", "ci_high": "seed_high", "n": "seeds"}
    out = out.rename(columns=ends).assign(n=out["classes"], ci_low=np.nan, ci_high=np.nan)
    counts = list(count_batches(units(traces.samples), labels, rng, draws, len(values)))
    arch, means = runs["arch"].to_numpy(), _means(traces, score)[0]
    found = _agreement(values, labels, counts)
    for i, (a, b) in enumerate(zip(out["arch_a"], out["arch_b"], strict=True)):
        pairs = _pairs(arch, a, b)
        out.loc[i, ["ci_low", "ci_high"]] = _interval(*found, pairs, level)
        if a != b:
            out.loc[i, "p"] = _permuted(means[arch == a], means[arch == b], rng, permutations)
    return out.drop(columns="classes")


def _permuted(a: np.ndarray, b: np.ndarray, rng, draws: int) -> float:
    """p of the mean rank correlation of runs (run, class) of two architectures."""
    left, right = (sum(_standard(row) for row in means) for means in (a, b))
    if not np.isfinite([*left, *right]).all():
        return np.nan
    order, _ = semantics.orders(len(left), rng, draws)
    return permutation_p(float(left @ right), right[order] @ left, "two-sided")


def _standard(row: np.ndarray) -> np.ndarray:
    rank = stats.rankdata(row) - (len(row) + 1) / 2
    return rank / np.sqrt((rank**2).sum()) if rank.any() else np.full(len(row), np.nan)


def _agreement(values: np.ndarray, labels: np.ndarray, counts) -> tuple[np.ndarray, np.ndarray]:
    """Rank correlations of class means, (run, run), and of resamples, (draw, run, run)."""
    code = np.unique(labels, return_inverse=True)[1]
    whole = rank_correlations(means_by_class(values, code, code.max() + 1))
    redrawn = [rank_correlations(redrawn_means(values, code, batch)) for batch in counts]
    return whole, np.concatenate(redrawn)


def _pairs(arch: np.ndarray, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of two architectures, or within one; of all runs if both are `all`."""
    first, second = np.triu_indices(len(arch), 1)
    if a == b == "all":
        return first, second
    keep = (arch[first] == a) & (arch[second] == b) | (arch[first] == b) & (arch[second] == a)
    return first[keep], second[keep]


def _interval(whole, redrawn, pairs, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean correlation over pairs, the bootstrap's bias taken off, in -1..1."""
    if len(pairs[0]) == 0 or not np.isfinite(estimate := whole[pairs].mean()):
        return np.nan, np.nan
    drawn = redrawn[:, *pairs].mean(1)
    ends = percentile_interval(drawn, level)
    if not np.isfinite(ends).all():
        return np.nan, np.nan
    return tuple(np.clip(ends - (np.nanmean(drawn) - estimate), -1, 1))


def rivals(
    traces: Traces,
    held_out: dict[str, Traces],
    rng: np.random.Generator,
    score: str = PRIMARY_SCORE,
    draws: int = 1999,
) -> pd.DataFrame:
    """What else could put the classes in this order, and how far runs agree once it is taken out.

    Parameters
    ----------
    held_out : dict of Traces
        Held-out samples of the same runs, by data set.
    draws : int
        Permutations of the classes.

    Returns
    -------
    DataFrame
        One row per key of `RIVALS` that is to be had (a class that no held-out image has leaves
        those rows out): `rival`, `estimate` (Spearman over
        classes between the mean ranks, over runs, of rival and forgetting) with the interval of
        Bonett & Wright, `n` classes, `p` two-sided by permuting classes; `w` of the rival itself (1
        where it is the same for all runs); `w_left`, Kendall's W of what a rank regression on the
        rival leaves of every run, and its `p_left` (approximate: residuals are not exchangeable),
        beside `w_forgetting`.
    """
    means, names = _means(traces, score)
    ranks, rows = stats.rankdata(means, axis=1), []
    for rival, values in _rival_means(traces, held_out, score, names).items():
        other = stats.rankdata(values, axis=1)
        row = spearman(ranks.mean(0), other.mean(0))
        row["p"] = _permuted(ranks.mean(0)[None], other.mean(0)[None], rng, draws)
        x = other - other.mean(1, keepdims=True)
        norm = (x**2).sum(1, keepdims=True)
        slope = (x * ranks).sum(1, keepdims=True) / np.where(norm > 0, norm, 1)
        left = kendall_w(np.round(ranks - slope * x, 9), rng, draws).iloc[0]
        row = row.assign(w=float(concordances(values)), w_left=left["estimate"])
        row = row.assign(p_left=left["p"], w_forgetting=float(concordances(means)))
        row.insert(0, "rival", rival)
        row = row.drop(columns="method").assign(raters=len(means), meaning=RIVALS[rival])
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


def _rival_means(traces, held_out, score, names) -> dict[str, np.ndarray]:
    """Class means (run, class) of every rival."""
    code, runs = np.searchsorted(names, traces.labels), len(traces.runs)
    size = np.bincount(code, minlength=len(names))
    out = {"class size": np.tile(size, (runs, 1)).astype(float)}
    wrong = ~traces.correct()[:, 0]
    out["wrong at epoch 0"] = means_by_class(wrong, code, len(names))
    outside = _same_runs(traces, held_out)
    known = np.isin(outside.labels, names)
    at = np.searchsorted(names, outside.labels[known])
    if len(np.unique(at)) == len(names):
        error = (~outside.correct()).mean(1)[:, known]
        out["wrong when held out"] = means_by_class(error, at, len(names))
        values = score_matrix(outside, score)[:, known]
        out["forgetting of held-out"] = means_by_class(values, at, len(names))
    if "planted_noisy" in traces.samples:
        noisy = traces.samples["planted_noisy"].to_numpy(float)
        out["planted label noise"] = np.tile(means_by_class(noisy, code, len(names)), (runs, 1))
    return out


def _same_runs(traces: Traces, held_out: dict[str, Traces]) -> Traces:
    outside = held_out[traces.runs["dataset"].iloc[0]]
    if traces.runs["key"].tolist() != outside.runs["key"].tolist():
        raise ValueError(
            "training and held-out traces must be of the same runs in the same order, got "
            f"{traces.runs['key'].tolist()} and {outside.runs['key'].tolist()}"
        )
    return outside


def beyond_margins(traces: Traces, rng: np.random.Generator, draws: int = 499) -> pd.DataFrame:
    """Do runs agree on classes in more than how often their samples are right at all?

    Redraws of every run's epoch x sample matrix keep each epoch's accuracy and each sample's total
    (`nulls`). The excess is a class's mean of forgetting events minus its mean over redraws: when
    samples are wrong, not how often. It can be consistent only if forgetting is more than
    difficulty.

    Returns
    -------
    DataFrame
        One row per scope (`all`, each architecture with two runs): `scope`, `estimate` (W of the
        excess), `n` classes, `p` one-sided, of the excess among the redraws' own excess, their mean
        `null` and central 95 % `null_low`, `null_high`; `w_events` (W of the events as they are)
        and `w_redrawn` (mean W of redrawn events); `with_score`, Spearman over classes between mean
        ranks of excess and of the primary score: negative where much forgotten classes have fewer
        events than their totals imply, as samples do that are wrong early and then right; `draws`.

    Notes
    -----
    Runs are redrawn independently, each within its margins: the null says that they have nothing
    in common but the margins. Classes of unequal size are treated alike, the redraws having them.
    """
    names, code = np.unique(traces.labels, return_inverse=True)
    correct, arch = traces.correct(), traces.runs["arch"].to_numpy()
    events = means_by_class(forgetting_events(correct), code, len(names))
    drawn = np.stack([_redrawn_events(run, code, len(names), rng, draws) for run in correct], 1)
    expected, score = drawn.mean(0), stats.rankdata(_means(traces, PRIMARY_SCORE)[0], axis=1)
    scopes = {"all": np.arange(len(arch))} | {a: np.flatnonzero(arch == a) for a in arch}
    rows = []
    for scope, of in scopes.items():
        if len(of) < 2:
            continue
        # The observed events are one more draw: all of them are measured from the same mean.
        centre = (draws * expected[of] + events[of]) / (draws + 1)
        null, found = _w(drawn[:, of] - centre), float(_w(events[of] - centre))
        ends = np.quantile(null, [0.025, 0.975]) if np.isfinite(null).all() else (np.nan, np.nan)
        row = {"scope": scope, "estimate": found, "n": len(names), "p": permutation_p(found, null)}
        row |= {"null": null.mean(), "null_low": ends[0], "null_high": ends[1]}
        row |= {"w_events": float(_w(events[of])), "w_redrawn": _w(drawn[:, of]).mean()}
        excess = stats.rankdata(np.round(events[of] - centre, 9), axis=1).mean(0)
        row["with_score"] = spearman(excess, score[of].mean(0))["estimate"].iloc[0]
        rows.append(row | {"draws": draws})
    return pd.DataFrame(rows)


def _w(means: np.ndarray) -> np.ndarray:
    """W (...) of class means (..., run, class); sums in another order are no other rank."""
    return concordances(np.round(means, 9))


def _redrawn_events(correct, code, k: int, rng, draws: int) -> np.ndarray:
    """Class means of events in redraws of one run, (draw, class)."""
    parts = [
        means_by_class(forgetting_events(batch), code, k) for batch in redraws(correct, rng, draws)
    ]
    return np.concatenate(parts)


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
    means, names = _means(traces, score)
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
    means, names = _means(traces, score)
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


def named_examples(
    traces: Traces, score: str = PRIMARY_SCORE, classes: int = 2, per_class: int = 2
) -> pd.DataFrame:
    """`confusions.examples` of the classes forgotten most and least, by their mean rank over runs.

    `end` says which: `most` or `least`. A class without any forgotten sample has no rows.
    """
    means, names = _means(traces, score)
    order = names[np.argsort(-stats.rankdata(means, axis=1).mean(0), kind="stable")]
    ends = {"most": order[:classes], "least": order[classes:][-classes:]}
    tables = [
        confusions.examples(traces, list(labels), score, per_class).assign(end=end)
        for end, labels in ends.items()
    ]
    return pd.concat(tables, ignore_index=True)


def specification(
    traces: Traces, rng: np.random.Generator, draws: int = 200, level: float = 0.95
) -> pd.DataFrame:
    """Mean rank correlation of class means and Kendall's W, one row per convention and scope.

    W depends on how many runs are compared, which differs between scopes: what is compared is
    the mean rank correlation r over pairs of runs, W = (1 + (m - 1) r) / m but for ties.

    Parameters
    ----------
    draws : int
        Of the bootstrap over units within class; the same resamples serve every convention.

    Returns
    -------
    DataFrame
        `score`, `never_learned`, `view`, `scope` (`all`, each architecture, `between`), `primary`,
        `estimate` r with `ci_low`, `ci_high`, `kendall_w` (NaN for `between`), `n` classes,
        `pairs`. Sorted by `estimate`; conventions under which a run ranks nothing are NaN. A view
        that was not recorded has no rows.

    References
    ----------
    Simonsohn, Simmons & Nelson 2020, Specification curve analysis, Nature Human Behaviour 4.
    """
    arch, labels = traces.runs["arch"].to_numpy(), traces.labels
    archs = list(dict.fromkeys(arch))
    scopes = {"all": ("all", "all")} | {a: (a, a) for a in archs}
    scopes |= {"between": tuple(archs)} if len(archs) == 2 else {}
    counts = list(count_batches(units(traces.samples), labels, rng, draws, len(arch)))
    rows = []
    for view, (score, how), values in _all_readings(traces):
        known = ~np.isnan(values).any(0)
        if not known.any():
            continue
        kept = [batch[:, known] for batch in counts]
        found = _agreement(values[:, known], labels[known], kept)
        for scope, (a, b) in scopes.items():
            pairs = _pairs(arch, a, b)
            if len(pairs[0]) == 0:
                continue
            low, high = _interval(*found, pairs, level)
            row = {"score": score, "never_learned": how, "view": view, "scope": scope}
            row["primary"] = (score, how, view, scope) == PRIMARY
            row |= {"estimate": found[0][pairs].mean(), "ci_low": low, "ci_high": high}
            own = (arch == scope) | (scope == "all")
            code = np.unique(labels[known], return_inverse=True)[1]
            w = float(_w(means_by_class(values[own][:, known], code, code.max() + 1)))
            row["kendall_w"] = np.nan if scope == "between" else w
            rows.append(row | {"n": code.max() + 1, "pairs": len(pairs[0])})
    return pd.DataFrame(rows).sort_values("estimate", ignore_index=True) if rows else pd.DataFrame()


def _all_readings(traces: Traces) -> Iterator[tuple[str, tuple[str, str], np.ndarray]]:
    """View, (score, never learned) and values (run, sample) of every convention."""
    for view in ("clean", "online"):
        if traces.shown(view).any():
            # One by one, `findings_overlap.reading` would fit every decay curve a dozen times.
            for key, values in findings_overlap.readings(traces, view).items():
                yield view, key, values


def agreement_of_conventions(table: pd.DataFrame) -> pd.DataFrame:
    """How far the conventions of `specification` agree, one row per data set (if named).

    Returns
    -------
    DataFrame
        `conventions`, `above`, `below` (share whose interval lies above, below 0), `smallest`,
        `median`, `largest` and `primary` mean rank correlation, `primary_w`, and the smallest and
        largest W over all runs, `smallest_w`, `largest_w`.
    """
    rows = []
    for keys, of in table.groupby("dataset", sort=False) if "dataset" in table else [("", table)]:
        if of.empty:
            continue
        r, first = of["estimate"], of[of["primary"]]
        row = {"dataset": keys} if keys else {}
        row |= {"conventions": len(of), "above": (of["ci_low"] > 0).mean()}
        row |= {"below": (of["ci_high"] < 0).mean(), "smallest": r.min(), "median": r.median()}
        row |= {"largest": r.max(), "primary": first["estimate"].squeeze()}
        whole = of.loc[of["scope"] == "all", "kendall_w"]
        row |= {"primary_w": first["kendall_w"].squeeze(), "smallest_w": whole.min()}
        rows.append(row | {"largest_w": whole.max()})
    return pd.DataFrame(rows)
