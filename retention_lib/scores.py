"""The tidy table of per-sample scores: one row per run and sample."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.forgetting import epoch_at, ratio, score_of, tally_of


def scores(
    source,
    view: str = "clean",
    *,
    loss=None,
    margin=None,
    shown=None,
    epochs=None,
    never_learned: str = "n_presentations",
) -> pd.DataFrame:
    """One row per run and sample with every score that can be read off its trace.

    Parameters
    ----------
    source : Traces, or bool array (epoch, sample) or (run, epoch, sample)
        With an array, `loss` [nats] and `margin` [logits] of the same shape are optional.
    view : {"clean", "online"}
        Of a `Traces`; the online view counts presentations only.
    shown, epochs : arrays, optional
        As above, for arrays.
    never_learned : str
        Convention of the column `forgetting_score`, see `forgetting.NEVER_LEARNED`.

    Returns
    -------
    DataFrame
        Columns of `Traces.runs` (or `run`), `sample_id` and `label` (or `sample`), then
        `presentations`, `events`, `forgetting_score`, `never_learned`, `learned_epoch`,
        `first_forgetting`, `lapse_length` [presentations], `mean_error`, `final_correct` (at the
        last presentation; NaN if never presented) and, where given, `early_loss` (at epoch 0; NaN
        if not shown then), `mean_loss`, `final_loss` and `mean_margin` over presentations.

    Raises
    ------
    ValueError
        On an unknown view or convention, and on arrays whose shapes differ.

    Examples
    --------
    >>> scores(np.array([[1, 0], [0, 1]]))[["events", "mean_error"]].values.tolist()
    [[1.0, 0.5], [0.0, 0.5]]
    """
    if view not in ("clean", "online"):
        raise ValueError(f"view must be one of ('clean', 'online'), got {view!r}")
    if hasattr(source, "runs"):  # a Traces
        if view == "online":
            shown = source.online["predicted"] >= 0
        keys = _keys(source.runs, source.samples[["sample_id", "label"]])
        correct, epochs = source.correct(view), source.epochs
        loss, margin = source.loss(view), source.margin(view)
    else:
        correct, keys = np.asanyarray(source), None
    tally, n = tally_of(correct, shown), correct.shape[-2]
    columns = {
        "presentations": tally.presentations,
        "events": tally.events,
        "forgetting_score": score_of(tally, never_learned),
        "never_learned": (tally.first_correct < 0) & (tally.presentations > 0),
        "learned_epoch": epoch_at(tally.first_correct, epochs, n),
        "first_forgetting": epoch_at(tally.first_event, epochs, n),
        "lapse_length": ratio(tally.lapsed, tally.events),
        "mean_error": ratio(tally.errors, tally.presentations),
        "final_correct": np.where(tally.presentations > 0, tally.last, np.nan),
    }
    if loss is not None:
        columns |= _early_mean_final(loss, correct.shape, shown, epochs)
    if margin is not None:
        columns["mean_margin"] = _early_mean_final(margin, correct.shape, shown, epochs)[
            "mean_loss"
        ]
    if keys is None:
        lead = tally.events.reshape(-1, tally.events.shape[-1])
        keys = _keys(
            pd.DataFrame({"run": np.arange(len(lead))}),
            pd.DataFrame({"sample": np.arange(lead.shape[-1])}),
        )
    return keys.assign(**{name: np.ravel(value) for name, value in columns.items()})


def _early_mean_final(values, shape, shown, epochs) -> dict[str, np.ndarray]:
    """Value at epoch 0, mean over presentations and last presented value, in one pass."""
    values = np.asanyarray(values)
    if values.shape != shape:
        raise ValueError(f"loss and margin must have the shape of correct {shape}, {values.shape=}")
    epochs = np.arange(shape[-2]) if epochs is None else np.asarray(epochs)
    total, count = np.zeros(shape[:-2] + shape[-1:]), np.zeros(shape[:-2] + shape[-1:], np.int32)
    early, final = np.full(total.shape, np.nan), np.full(total.shape, np.nan)
    for t, epoch in enumerate(epochs):
        row = values[..., t, :].astype(float)
        seen = np.ones(row.shape, bool) if shown is None else shown[..., t, :]
        if epoch == 0:
            early = np.where(seen, row, np.nan)
        total += np.where(seen, row, 0.0)
        count += seen
        final = np.where(seen, row, final)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return {"early_loss": early, "mean_loss": mean, "final_loss": final}


def _keys(runs: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Every run with every sample, runs outermost; text as categories, so that millions fit."""
    both = {}
    for table, spread in ((runs, np.repeat), (samples, np.tile)):
        times = len(samples) if spread is np.repeat else len(runs)
        for name, column in table.items():
            if pd.api.types.is_string_dtype(column):
                codes, values = pd.factorize(column)
                both[name] = pd.Categorical.from_codes(spread(codes, times), values)
            else:
                both[name] = spread(column.to_numpy(), times)
    return pd.DataFrame(both)
