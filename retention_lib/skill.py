"""How well do models predict? Log-loss [nat], skill over a constant rate, and Akaike weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from retention_lib.intervals import bootstrap, t_interval


@dataclass(frozen=True, eq=False)
class Losses:
    """Log-losses summed per sample: all that a table with a bootstrap over samples needs.

    Attributes
    ----------
    scheme : str
        `one_step` or `cross_seed`, see `rivals`.
    total : dict of ndarray, (row, sample)
        Sum of -log P(what happened) [nat] per model; a row is a run, or an ordered pair of runs.
    count : ndarray of int, (row, sample)
        Entries scored, the same for all models.
    run : ndarray of int, (row,)
        The run that was predicted.
    """

    scheme: str
    total: dict[str, np.ndarray]
    count: np.ndarray
    run: np.ndarray


def log_loss(name: str, p, right, n, clip: float | None) -> np.ndarray:
    """-log P(what happened) [nat] of clipped predictions, elementwise."""
    if np.shape(p) != right.shape:
        raise ValueError(
            f"model {name!r} must predict shape {right.shape}, got shape {np.shape(p)}"
        )
    bad = ~((p > -1e-9) & (p < 1 + 1e-9))  # rounding is no crime, NaN is
    if bad.any():
        raise ValueError(
            f"model {name!r} must predict probabilities in 0..1, got {bad.sum():,} others or NaN "
            f"out of {p.size:,}, the first {p[bad].flat[0]}"
        )
    edge = clip if clip is not None else 0.5 / (n + 1)
    p = np.clip(p, edge, 1 - edge)
    return -np.log(np.where(right, p, 1 - p))


def skill_table(
    losses: Losses, groups, strata, rng: np.random.Generator, draws: int = 1000
) -> pd.DataFrame:
    """Log-loss per model and its skill over `constant`, with intervals over groups of samples.

    skill = 1 - logloss(model) / logloss(constant); gain = logloss(constant) - logloss(model).

    Parameters
    ----------
    losses : Losses
    groups, strata : array, (sample,)
        See `intervals.resamples`.
    rng : Generator
    draws : int

    Returns
    -------
    DataFrame
        One row per model: `scheme`, `model`, `log_loss` [nat per entry], `skill`, `ci_low`,
        `ci_high`, `gain` [nat per entry], `gain_low`, `gain_high`, `n` (entries), `samples`
        (scored at least once), `groups`, `seed_low`, `seed_high`, `seeds` (t over predicted runs,
        the seeds as draws; in the scheme `cross_seed` they share what they are predicted from).
        Without a scored entry, as where no trace is long enough, all numbers but the counts are
        NaN.
    """
    names = list(losses.total)
    base = names.index("constant")
    sums = np.stack([losses.total[name].sum(0) for name in names], 1)  # (sample, model)
    count = losses.count.sum(0)

    def statistic(rows) -> dict[str, float]:
        mean = sums[rows].sum(0) / (count[rows].sum() or np.nan)
        found = {f"skill {m}": 1 - x / mean[base] for m, x in zip(names, mean, strict=True)}
        return found | {f"gain {m}": mean[base] - x for m, x in zip(names, mean, strict=True)}

    found = bootstrap(statistic, groups, strata, rng, draws).set_index("quantity")
    scored = [b for b in np.unique(losses.run) if losses.count[losses.run == b].any()]
    per_run = {m: np.array([losses.total[m][losses.run == b].sum() for b in scored]) for m in names}
    rows = []
    for m, total in zip(names, sums.sum(0), strict=True):
        skill, gain = found.loc[f"skill {m}"], found.loc[f"gain {m}"]
        seeds = t_interval(1 - per_run[m] / per_run["constant"]).iloc[0]
        rows.append(
            {
                "scheme": losses.scheme,
                "model": m,
                "log_loss": total / (count.sum() or np.nan),
                "skill": skill["estimate"],
                "ci_low": skill["ci_low"],
                "ci_high": skill["ci_high"],
                "gain": gain["estimate"],
                "gain_low": gain["ci_low"],
                "gain_high": gain["ci_high"],
                "n": int(count.sum()),
                "samples": int((count > 0).sum()),
                "groups": skill["groups"],
                "seed_low": seeds["ci_low"],
                "seed_high": seeds["ci_high"],
                "seeds": seeds["n"],
            }
        )
    return pd.DataFrame(rows)


def aicc_weights(
    log_likelihood: dict[str, np.ndarray], n_params: dict[str, int], n_epochs
) -> pd.DataFrame:
    """How often each model has the smallest AICc of a trace, and its mean Akaike weight.

    AICc = -2 log L + 2k + 2k (k + 1) / (n - k - 1), weight = exp(-AICc / 2) over its sum over
    models. A secondary column beside log-loss on new entries: with a dozen binary points, not
    independent of each other, the weights mostly show how many parameters a model has. Models
    must be fitted by one likelihood to the same entries, or they cannot be compared at all.

    Parameters
    ----------
    log_likelihood : dict of array, (...)
        Bernoulli log-likelihood [nat] per trace; minus infinity where a trace is impossible.
    n_params : dict of int
        k per model.
    n_epochs : array, (...)
        n, the entries of each trace. A model with n <= k + 1 has no AICc and cannot win.

    Returns
    -------
    DataFrame
        One row per model: `model`, `n_params`, `wins` (share of traces, ties shared), `weight`
        (mean), `n` (traces), `left_out` (a likelihood is NaN, or no model has an AICc).

    References
    ----------
    Hurvich & Tsai 1989, Biometrika 76, 297-307. Burnham & Anderson 2002, Model Selection and
    Multimodel Inference, 2.9.

    Examples
    --------
    >>> table = aicc_weights({"a": [-5.0], "b": [-5.0]}, {"a": 1, "b": 2}, [13])
    >>> table["wins"].tolist()
    [1.0, 0.0]
    """
    if list(log_likelihood) != list(n_params) or not n_params:
        raise ValueError(
            "log_likelihood and n_params must name the same models in the same order, "
            f"got {list(log_likelihood)} and {list(n_params)}"
        )
    n = np.ravel(n_epochs).astype(float)
    ll = np.stack([np.ravel(v) for v in log_likelihood.values()]).astype(float)  # (model, trace)
    if ll.shape[1] != len(n):
        raise ValueError(f"n_epochs must name all {ll.shape[1]} traces, got {len(n)}")
    k = np.array(list(n_params.values()), float)[:, None]
    room = n - k - 1
    aicc = -2 * ll + 2 * k + 2 * k * (k + 1) / np.where(room > 0, room, np.nan)
    aicc = np.where((room > 0) | np.isnan(ll), aicc, np.inf)
    best = aicc.min(0)  # NaN if any is
    used = np.isfinite(best)
    behind = aicc[:, used] - best[used]
    won = behind < 1e-9
    weight = np.exp(-behind / 2)
    return pd.DataFrame(
        {
            "model": list(n_params),
            "n_params": list(n_params.values()),
            "wins": (won / won.sum(0)).mean(1) if used.any() else np.nan,
            "weight": (weight / weight.sum(0)).mean(1) if used.any() else np.nan,
            "n": int(used.sum()),
            "left_out": int((~used).sum()),
        }
    )
