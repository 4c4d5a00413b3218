"""Notebook 04: what else could put the classes in this order, in every run alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.class_agreement import permuted_p
from retention_lib.class_averages import means_by_class
from retention_lib.class_tables import scores_by_class
from retention_lib.concordance import concordances, kendall_w, rounded_concordances
from retention_lib.config import PRIMARY_SCORE
from retention_lib.findings import score_matrix
from retention_lib.forgetting import forgetting_events
from retention_lib.held_out import of_same_runs
from retention_lib.intervals import permutation_p
from retention_lib.nulls import redraws
from retention_lib.rank_agreement import spearman
from retention_lib.traces import Traces

#: Rivals that could put the classes in the same order in every run, and what they are.
RIVALS = {
    "class size": "training images of the class",
    "wrong at epoch 0": "share wrong after the head warm-up, before any fine-tuning",
    "wrong when held out": "share of epochs wrong, images of the class never trained on",
    "forgetting of held-out": "the score itself, of images that were never trained on",
    "planted label noise": "share of the class's labels that are wrong (phantoms)",
}


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
    means, names = scores_by_class(traces, score)
    ranks, rows = stats.rankdata(means, axis=1), []
    for rival, values in _rivalscores_by_class(traces, held_out, score, names).items():
        other = stats.rankdata(values, axis=1)
        row = spearman(ranks.mean(0), other.mean(0))
        row["p"] = permuted_p(ranks.mean(0)[None], other.mean(0)[None], rng, draws)
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


def _rivalscores_by_class(traces, held_out, score, names) -> dict[str, np.ndarray]:
    """Class means (run, class) of every rival."""
    code, runs = np.searchsorted(names, traces.labels), len(traces.runs)
    size = np.bincount(code, minlength=len(names))
    out = {"class size": np.tile(size, (runs, 1)).astype(float)}
    wrong = ~traces.correct()[:, 0]
    out["wrong at epoch 0"] = means_by_class(wrong, code, len(names))
    outside = of_same_runs(traces, held_out)
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
    expected, score = (
        drawn.mean(0),
        stats.rankdata(scores_by_class(traces, PRIMARY_SCORE)[0], axis=1),
    )
    scopes = {"all": np.arange(len(arch))} | {a: np.flatnonzero(arch == a) for a in arch}
    rows = []
    for scope, of in scopes.items():
        if len(of) < 2:
            continue
        # The observed events are one more draw: all of them are measured from the same mean.
        centre = (draws * expected[of] + events[of]) / (draws + 1)
        null, found = (
            rounded_concordances(drawn[:, of] - centre),
            float(rounded_concordances(events[of] - centre)),
        )
        ends = np.quantile(null, [0.025, 0.975]) if np.isfinite(null).all() else (np.nan, np.nan)
        row = {"scope": scope, "estimate": found, "n": len(names), "p": permutation_p(found, null)}
        row |= {"null": null.mean(), "null_low": ends[0], "null_high": ends[1]}
        row |= {
            "w_events": float(rounded_concordances(events[of])),
            "w_redrawn": rounded_concordances(drawn[:, of]).mean(),
        }
        excess = stats.rankdata(np.round(events[of] - centre, 9), axis=1).mean(0)
        row["with_score"] = spearman(excess, score[of].mean(0))["estimate"].iloc[0]
        rows.append(row | {"draws": draws})
    return pd.DataFrame(rows)


def _redrawn_events(correct, code, k: int, rng, draws: int) -> np.ndarray:
    """Class means of events in redraws of one run, (draw, class)."""
    parts = [
        means_by_class(forgetting_events(batch), code, k) for batch in redraws(correct, rng, draws)
    ]
    return np.concatenate(parts)
