"""Notebook 05: does the loss after the head warm-up tell how fast a sample is forgotten?

All correlations are Spearman's. A partial one is the correlation of rank residuals: global midranks
minus their class mean ("given class"), and what is linear in the control's midranks ("given
control") taken off. What is correlated is in `early_predictors`, whether the link outlives a change
of seed in `transfer`, how well it predicts in `out_of_sample`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special, stats

from retention_lib.checks import check_level
from retention_lib.intervals import bootstrap, one_row, t_interval

QUANTITIES = ("spearman", "given class", "given control", "given class and control")


def partial_spearman(
    x: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray | None = None,
    control: np.ndarray | None = None,
) -> float:
    """Spearman's rho of rank residuals, given class and/or the ranks of one control.

    Parameters
    ----------
    x, y, control : array, (sample,)
        Without NaN.
    labels : array, (sample,)
        Equal to covariates that are indicators of the classes.

    Returns
    -------
    float
        NaN where a residual is constant.

    Examples
    --------
    >>> partial_spearman([1, 2, 3, 4], [1, 2, 4, 3], control=[1, 1, 2, 2])
    0.0
    """
    known = [np.asarray(v, float) for v in (x, y) if v is not None]
    known += [] if control is None else [np.asarray(control, float)]
    if any(np.isnan(v).any() or v.shape != known[0].shape for v in known):
        raise ValueError(
            f"expected vectors of one length without NaN, got {[v.shape for v in known]}"
        )
    ranks = [stats.rankdata(v) for v in known]
    return _partial(*ranks, labels=None if labels is None else _codes(labels))


def _partial(x, y, control=None, labels=None) -> float:
    """Pearson correlation of what class means and a control leave of x and y."""
    rest = []
    n = np.bincount(labels) if labels is not None else None
    for v in (x, y) if control is None else (x, y, control):
        centre = v.mean() if n is None else (np.bincount(labels, v) / np.maximum(n, 1))[labels]
        rest.append(v - centre)
    x, y, *z = rest
    squares = [max(v @ v, 0.0) for v in rest]
    floor = 1e-9 * len(x) ** 2  # a constant's residuals are rounding errors of ranks
    if min(squares[:2]) <= floor:
        return float("nan")
    if z and squares[2] > floor:
        x, y = (v - z[0] * (v @ z[0]) / squares[2] for v in (x, y))
        if min(x @ x, y @ y) <= floor:
            return float("nan")
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def correlations(
    predictor: np.ndarray,
    target: np.ndarray,
    runs: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
    control: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rank correlation of a predictor with a target in every run, plain and partial.

    Parameters
    ----------
    predictor, control : array, (sample,) or (run, sample)
        For instance `early_loss`, and the learned epoch as control.
    target : array, (run, sample)
        For instance `decay_constants`. NaN in any of the three leaves a sample out of that run.
    runs : DataFrame
        Columns `arch` and `seed`.
    labels, groups : array, (sample,)
    rng : Generator
    draws : int
    level : float

    Returns
    -------
    DataFrame
        One row per run and quantity of `QUANTITIES` (those without control if none is given):
        `arch`, `seed`, `quantity`, then a one-row result with the percentile bootstrap over groups
        within class. `p` two-sided by t with n - 2 degrees of freedom less those of the controls,
        which takes samples as independent; extra `log10_p`, as p may be below any number.

    Raises
    ------
    ValueError
        On shapes that do not fit.
    """
    check_level(level)
    target = np.asarray(target, float)
    spread = [np.broadcast_to(np.asarray(predictor, float), target.shape), target]
    spread += [] if control is None else [np.broadcast_to(np.asarray(control, float), target.shape)]
    labels, groups = _codes(labels), np.asarray(groups)
    if target.shape != (len(runs), len(labels)) or len(groups) != len(labels):
        raise ValueError(
            f"target must be ({len(runs)} runs, {len(labels)} samples) with one group each, "
            f"got {target.shape} and {len(groups)} groups"
        )
    tables = []
    for r in range(len(runs)):
        keep = ~np.isnan(np.stack([v[r] for v in spread])).any(0)
        columns = [_codes(v[r][keep]) for v in spread]
        table = _one_run(columns, labels[keep], groups[keep], rng, draws, level)
        for name in ("seed", "arch"):
            table.insert(0, name, runs[name].iloc[r])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _one_run(columns, labels, groups, rng, draws, level) -> pd.DataFrame:
    """All quantities of one run; `columns` are dense ranks of predictor, target and control."""
    if len(labels) < 4:  # nothing to redraw, for instance where a predictor was not recorded
        nothing = one_row(np.nan, np.nan, np.nan, len(labels), np.nan, "fewer than 4 samples")
        names = QUANTITIES[: 2 * len(columns) - 2]
        out = pd.concat([nothing.assign(log10_p=np.nan)] * len(names), ignore_index=True)
        out.insert(0, "quantity", names)
        return out
    _, of = np.unique(labels, return_inverse=True)

    def statistic(rows):
        ranks = [_midranks(c[rows]) for c in columns]
        two, given = ranks[:2], of[rows]
        values = [_partial(*two), _partial(*two, labels=given)]
        if len(ranks) > 2:
            values += [_partial(*ranks), _partial(*ranks, labels=given)]
        return dict(zip(QUANTITIES[: len(values)], values, strict=True))

    out = bootstrap(statistic, groups, labels, rng, draws, level)
    controls = np.array([(of.max()) * ("class" in q) + ("control" in q) for q in out["quantity"]])
    rho, dof = out["estimate"].to_numpy(), np.maximum(len(labels) - 2 - controls, 1)
    log_p = _log_p(rho, dof)
    out["p"], out["log10_p"] = np.exp(log_p), log_p / np.log(10)
    return out


def _log_p(rho: np.ndarray, dof: np.ndarray) -> np.ndarray:
    """Logarithm of the two-sided p of t = rho sqrt(dof / (1 - rho^2)), finite where p underflows.

    p = I_x(dof / 2, 1 / 2) at x = 1 - rho^2, whose hypergeometric series takes over below 1e-250.
    """
    x, a = np.maximum(1 - rho**2, 1e-300), dof / 2
    p = special.betainc(a, 0.5, x)
    with np.errstate(divide="ignore"):
        series = special.hyp2f1(a + 0.5, 1.0, a + 1, np.minimum(x, 0.999))
        tail = a * np.log(x) + np.log(np.abs(rho) / a) - special.betaln(a, 0.5) + np.log(series)
        return np.where(p > 1e-250, np.log(p), tail)


def _midranks(codes: np.ndarray) -> np.ndarray:
    """Midranks of non-negative integers, by counting: sorting them anew is what takes long."""
    n = np.bincount(codes)
    return (np.cumsum(n) - (n - 1) / 2)[codes]


def over_seeds(rows: pd.DataFrame, by: tuple[str, ...] = ("arch", "quantity")) -> pd.DataFrame:
    """Mean over the seeds of each architecture with Student's interval, tested against 0.

    Parameters
    ----------
    rows : DataFrame
        Of `correlations`, or of `compare_predictors` with `by=("predictor", "arch", "quantity")`.

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


def compare_predictors(
    candidates: dict[str, np.ndarray],
    target: np.ndarray,
    runs: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Early loss beside its rivals: the rows of `correlations` for each of `predictors`.

    Returns
    -------
    DataFrame
        `predictor` first. Quantities `spearman` and `given class`; the latter is NaN for what is
        the same in a whole class.
    """
    tables = []
    for name, values in candidates.items():
        table = correlations(values, target, runs, labels, groups, rng, draws, level)
        table.insert(0, "predictor", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _codes(values: np.ndarray) -> np.ndarray:
    return np.unique(np.asarray(values), return_inverse=True)[1]
