"""Exact conditional test of the Rasch model: a statistic among margin-preserving redraws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from retention_lib.checks import check_level
from retention_lib.intervals import one_row, permutation_p
from retention_lib.nulls import BATCH, SWEEPS, as_bool, redraws


def margin_test(
    statistic: Callable[[np.ndarray], np.ndarray | dict[str, np.ndarray]],
    correct: np.ndarray,
    rng: np.random.Generator,
    draws: int = 1999,
    alternative: str = "two-sided",
    sweeps: int = SWEEPS,
    level: float = 0.95,
) -> pd.DataFrame:
    """Does a statistic exceed what epoch accuracies and sample totals imply? Exact, conditional.

    Parameters
    ----------
    statistic : callable
        Takes correctness with a leading axis of draws, (draw, epoch, sample) or (draw, run, epoch,
        sample), and returns (draw,), or a dict of such arrays that share the redraws.
    correct : bool or 0/1 integers, (epoch, sample) or (run, epoch, sample)
        Several runs are redrawn independently, each within its own margins.
    rng : Generator
    draws, sweeps : int
        As in `redraws`.
    alternative : {"greater", "less", "two-sided"}
    level : float
        Of the null's quantiles.

    Returns
    -------
    DataFrame
        One row, or one per key with the column `quantity`. `estimate` is the observed statistic,
        without an interval (NaN); `p` by (b + 1) / (draws + 1), b redraws being as extreme; extras
        `null_mean`, `null_sd`, `null_low`, `null_high`, `draws`, `sweeps` and `free`, the samples
        that are neither always nor never correct in some run: the others cannot vary. A statistic
        that is NaN in any redraw has p and null NaN.

    Raises
    ------
    ValueError
        As `redraws`, and if the statistic does not return one number per draw.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((8, 30)) < np.linspace(0.9, 0.3, 8)[:, None]
    >>> row = margin_test(lambda c: (c[:, :-1] & ~c[:, 1:]).sum((1, 2)), x,
    ...                   np.random.default_rng(1), draws=99)
    >>> bool(row.p[0] > 0.05)
    True
    """
    check_level(level)
    correct = as_bool(correct, dims=(2, 3))
    observed, many = _evaluate(statistic, correct[None])
    runs = correct[None] if correct.ndim == 2 else correct
    chains = max(1, BATCH // max(1, correct.size))
    walks = [redraws(run, rng, draws, sweeps, chains) for run in runs]
    values: dict[str, list] = {key: [] for key in observed}
    for batch in zip(*walks, strict=True):
        together = batch[0] if correct.ndim == 2 else np.stack(batch, axis=1)
        for key, value in _evaluate(statistic, together)[0].items():
            values[key].append(value)
    free = int((runs.any(1) & ~runs.all(1)).any(0).sum())
    method = f"redraws within epoch and sample totals, {draws} draws, {alternative}"
    rows = []
    for key, parts in values.items():
        null, found = np.concatenate(parts), float(observed[key][0])
        low, high = np.quantile(null, [(1 - level) / 2, (1 + level) / 2])
        extras = {"null_mean": null.mean(), "null_sd": null.std(ddof=1) if draws > 1 else np.nan}
        extras |= {"null_low": low, "null_high": high}
        extras |= {"draws": draws, "sweeps": sweeps, "free": free}
        p = permutation_p(found, null, alternative)
        row = one_row(found, np.nan, np.nan, correct.shape[-1], p, method, **extras)
        if many:
            row.insert(0, "quantity", key)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


def _evaluate(statistic: Callable, states: np.ndarray) -> tuple[dict[str, np.ndarray], bool]:
    """The statistic as a dict of float arrays (draw,), and whether it came as a dict."""
    value = statistic(states)
    many = isinstance(value, dict)
    out = {k: np.asarray(v, float) for k, v in (value if many else {"": value}).items()}
    for array in out.values():
        if array.shape != (len(states),):
            raise ValueError(
                f"statistic must return one number per draw, shape ({len(states)},), "
                f"for an array of shape {states.shape}; got shape {array.shape}"
            )
    return out, many
