"""Notebook 05: how well does the early loss predict forgetting in samples that were held back?

Logistic and linear regression on the log loss, on the class, and on both (`held_back`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.config import LITERAL
from retention_lib.early_predictors import decay_constants, early_loss
from retention_lib.forgetting import tally_of
from retention_lib.held_back import MODELS, group_folds, held_back
from retention_lib.intervals import bootstrap, t_interval
from retention_lib.rank_agreement import auc
from retention_lib.resampled import units
from retention_lib.traces import Traces

_SMALLEST = 2.0**-24  # smallest loss above 0 that half precision holds


def predict_forgotten(
    loss: np.ndarray,
    forgotten: np.ndarray,
    runs: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    folds: int = 5,
    draws: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """AUC for "will be forgotten", out of sample, by log loss, by class and by both.

    Parameters
    ----------
    loss : array, (run, sample)
        Early loss [nat].
    forgotten : array, (run, sample)
        1 or 0; NaN leaves a sample out, for instance one that was never learned.
    runs : DataFrame
        Columns `arch` and `seed`.
    labels, groups : array, (sample,)
    rng : Generator
    folds : int
    draws : int
        Of the bootstrap of the gain.

    Returns
    -------
    DataFrame
        Per run one row for each of `MODELS` (`agreement.auc`: DeLong's interval, which takes
        samples as independent and the fitted models as given; `p` against 0.5) and `gain over
        class`, AUC of both minus AUC of the class, with a bootstrap over groups within class.
        Extras `positives`, `log_loss_skill` (1 - mean log loss of the prediction over that of the
        other folds' rate; 0 for no skill) and `folds`. NaN where a fold's complement has one
        outcome only.
    """
    rows = []
    for r, keep, y, fold, x in _runs(loss, forgotten, labels, groups, rng, folds):
        if not np.isin(y, (0, 1)).all():
            raise ValueError(f"forgotten must be 0, 1 or NaN, got {np.unique(y)[:4]}")
        of = np.asarray(labels)[keep]
        found, true = held_back(x, of, y, fold, logistic=True), y == 1
        base = _log_loss(found["mean"], true)
        for name in MODELS:
            row = auc(found[name], true, level)
            skill = 1 - _log_loss(found[name], true) / base
            rows.append(_headed(row.assign(log_loss_skill=skill, folds=folds), runs, r, name))

        def gain(at, found=found, true=true):
            values = [_auc(found[name][at], true[at]) for name in (MODELS[2], MODELS[1])]
            return values[0] - values[1]

        row = bootstrap(gain, np.asarray(groups)[keep], of, rng, draws, level)
        row = row[["estimate", "ci_low", "ci_high", "n", "p", "method"]]
        row = row.assign(positives=int(true.sum()), folds=folds)
        rows.append(_headed(row, runs, r, "gain over class"))
    return pd.concat(rows, ignore_index=True)


def predict_amount(
    loss: np.ndarray,
    target: np.ndarray,
    runs: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    folds: int = 5,
    draws: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """R^2 of a number (log decay constant, events), out of sample, by log loss, class and both.

        R^2 = 1 - sum (y - prediction)^2 / sum (y - mean of the other folds)^2

    Parameters
    ----------
    target : array, (run, sample)
        NaN leaves a sample out.

    Returns
    -------
    DataFrame
        Per run one row for each of `MODELS`, with a percentile bootstrap over groups within class
        (the fitted models as given). Negative where predicting the mean is better. NaN if the
        target is constant.
    """
    rows = []
    for r, keep, y, fold, x in _runs(loss, target, labels, groups, rng, folds):
        of = np.asarray(labels)[keep]
        found = held_back(x, of, y, fold, logistic=False)
        errors = {name: (y - found[name]) ** 2 for name in (*MODELS, "mean")}

        def r2(at, errors=errors):
            total = errors["mean"][at].sum()
            return {m: 1 - errors[m][at].sum() / total if total > 0 else np.nan for m in MODELS}

        table = bootstrap(r2, np.asarray(groups)[keep], of, rng, draws, level)
        for name, row in table.groupby("quantity", sort=False):
            rows.append(_headed(row.drop(columns="quantity").assign(folds=folds), runs, r, name))
    return pd.concat(rows, ignore_index=True)


def prediction_table(traces: Traces, rng: np.random.Generator) -> pd.DataFrame:
    """Both predictions from the early loss of the same run, mean over seeds.

    Returns
    -------
    DataFrame
        `measure` (AUC of at least one forgetting event; R^2 of the number of events, and of the log
        literal decay constant), `of` (samples ever learned, those right at epoch 0, or all), then
        `over_seeds` by architecture and predictor.
    """
    tally = tally_of(traces.correct(LITERAL.view))
    learned, right = tally.first_correct >= 0, tally.first_correct == 0
    forgotten, events = (tally.events > 0).astype(float), tally.events.astype(float)
    log_rate = np.log(decay_constants(traces))
    asked = (
        ("AUC, forgotten", "ever learned", np.where(learned, forgotten, np.nan)),
        ("AUC, forgotten", "right at epoch 0", np.where(right, forgotten, np.nan)),
        ("R², events", "ever learned", np.where(learned, events, np.nan)),
        ("R², log decay constant", "all", log_rate),
    )
    about = traces.runs, traces.labels, units(traces.samples), rng
    tables = []
    for measure, samples, target in asked:
        predict = predict_forgotten if measure.startswith("AUC") else predict_amount
        table = over_seeds(predict(early_loss(traces), target, *about, draws=1))
        tables.append(table.assign(measure=measure, of=samples))
    out = pd.concat(tables, ignore_index=True)
    front = ["measure", "of"]
    return out[front + [name for name in out if name not in front]]


def over_seeds(rows: pd.DataFrame, by: tuple[str, ...] = ("arch", "predictor")) -> pd.DataFrame:
    """Mean over the seeds of each architecture with Student's interval, tested against 0.

    Parameters
    ----------
    rows : DataFrame
        With `estimate` and `n` per run, as above, or of `link_tables.correlations`.

    Returns
    -------
    DataFrame
        The columns of `by`, then `intervals.t_interval`; `n` seeds, extra `samples` (fewest in a
        run).
    """
    tables = []
    for key, of in rows.groupby(list(by), sort=False):
        row = t_interval(of["estimate"].to_numpy(), null=0.0).assign(samples=of["n"].min())
        tables.append(row.assign(**dict(zip(by, key, strict=True)))[[*by, *row.columns]])
    return pd.concat(tables, ignore_index=True)


def _runs(loss, target, labels, groups, rng, folds):
    """Per run: its number, samples used, their target, fold and log loss."""
    loss, target = np.asarray(loss, float), np.asarray(target, float)
    if loss.shape != target.shape or loss.shape[1:] != np.shape(labels):
        raise ValueError(
            f"loss and target must be (run, {len(labels)} samples), "
            f"got {loss.shape} and {target.shape}"
        )
    for r in range(len(loss)):
        keep = np.isfinite(loss[r]) & np.isfinite(target[r])
        fold = group_folds(np.asarray(groups)[keep], np.asarray(labels)[keep], rng, folds)
        yield r, keep, target[r, keep], fold, np.log(np.maximum(loss[r, keep], _SMALLEST))


def _headed(row: pd.DataFrame, runs: pd.DataFrame, r: int, model: str) -> pd.DataFrame:
    front = pd.DataFrame([{"arch": runs["arch"].iloc[r], "seed": runs["seed"].iloc[r]}])
    front["predictor"] = model
    return front.join(row.reset_index(drop=True))


def _log_loss(logit: np.ndarray, true: np.ndarray) -> float:
    """Mean of -log P(outcome) [nat], NaN if a prediction is."""
    if np.isnan(logit).any():
        return float("nan")
    return float(np.logaddexp(0, np.where(true, -logit, logit)).mean())


def _auc(score: np.ndarray, true: np.ndarray) -> float:
    """AUC on midranks, NaN where one group is empty or a score is NaN."""
    n1 = int(true.sum())
    if n1 in (0, len(true)) or np.isnan(score).any():
        return float("nan")
    rank = stats.rankdata(score)[true].mean()
    return float((rank - (n1 + 1) / 2) / (len(true) - n1))
