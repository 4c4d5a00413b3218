"""When is a learned sample forgotten? Hazards, Kaplan-Meier and a comparison of architectures.

Time is discrete. A sample is at risk in the step from epoch t to t + 1 if it is right at t, and
the event is that it is wrong at t + 1. Two clocks: `age`, epochs since the sample was (re)learned,
and `epoch`, on which samples enter late, when they are learned (left truncation).

Two things to keep in mind. Samples learned in the head warm-up have age 0 at epoch 0, though they
may be older. And a hazard that falls with age does not say that a sample grows safer: easily
forgotten samples leave the risk set first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse, special, stats
from statsmodels.stats.proportion import proportion_confint

from retention_lib.config import RETENTION
from retention_lib.intervals import (
    bootstrap,
    check_level,
    one_row,
    permutation_p,
    resamples,
    t_interval,
)
from retention_lib.traces import Traces

SCALES = ("age", "epoch")
EVENTS = ("first", "recurrent")
STATISTICS = ("rmst", "log_hazard_ratio", "log_rank")
LINKS = ("cloglog", "logit")
#: A default horizon ends where fewer groups than this are at risk.
MIN_GROUPS = 10
#: Ages and epochs with fewer events, or fewer survivals, are pooled with the next in a model.
MIN_EVENTS = 10
_CHUNK = 2**23  # numbers in one block of draws (64 MiB)


class Risk(NamedTuple):
    """Counts, int32 (group, time); column j is time j + 1."""

    at_risk: np.ndarray
    events: np.ndarray


def risk_counts(
    correct: np.ndarray, scale: str = "age", event: str = "first", groups: np.ndarray | None = None
) -> Risk:
    """Steps at risk and forgetting events of every group at every time, summed over runs.

    Parameters
    ----------
    correct : bool or 0/1 integers, (run, epoch, sample), or (epoch, sample) for one run
    scale : {"age", "epoch"}
        Age k: from k - 1 to k epochs after the sample was learned (`recurrent`: last became
        right). Epoch k: from epoch k - 1 to k.
    event : {"first", "recurrent"}
        `first` leaves a sample out after its first forgetting event; with `recurrent` it is at
        risk again whenever it is right again.
    groups : array, (sample,), optional
        What belongs together; default every sample by itself.

    Returns
    -------
    Risk
        Groups in the order of `np.unique(groups)`; times 1 to the last epoch.

    Raises
    ------
    ValueError
        On values that are not correctness, fewer than two epochs, or an unknown scale or event.

    Examples
    --------
    >>> risk = risk_counts(np.array([[1], [1], [0], [1], [0]]), event="recurrent")
    >>> risk.at_risk.tolist(), risk.events.tolist()
    ([[2, 1, 0, 0]], [[1, 1, 0, 0]])
    """
    cube = _cube(correct)
    _one_of("scale", scale, SCALES)
    _one_of("event", event, EVENTS)
    code, n_groups = _codes(groups, cube.shape[2])
    steps = cube.shape[1] - 1
    at_risk, events = (np.zeros(n_groups * steps, np.int32) for _ in range(2))
    for run in cube:
        for who, age, epoch, lost in _walk(run, event):
            cell = code[who] * steps + (age if scale == "age" else epoch) - 1
            np.add.at(at_risk, cell, 1)
            np.add.at(events, cell[lost], 1)
    return Risk(at_risk.reshape(n_groups, steps), events.reshape(n_groups, steps))


def _walk(correct: np.ndarray, event: str) -> Iterator[tuple]:
    """Steps of one run (epoch, sample): samples at risk, their age and epoch after, who is lost."""
    since = np.zeros(correct.shape[1], np.int64)  # epoch at which it last became right
    right, fresh = np.zeros(correct.shape[1], bool), np.ones(correct.shape[1], bool)
    for t in range(len(correct) - 1):
        since[correct[t] & ~right] = t
        right = correct[t]
        who = np.flatnonzero(right & fresh)
        lost = ~correct[t + 1, who]
        yield who, t + 1 - since[who], t + 1, lost
        if event == "first":
            fresh[who[lost]] = False


def _cube(correct) -> np.ndarray:
    correct = np.asanyarray(correct)
    if correct.ndim == 2:
        correct = correct[None]
    if correct.ndim != 3 or correct.shape[1] < 2:
        raise ValueError(
            "correct must be (run, epoch, sample) or (epoch, sample) with at least 2 epochs, "
            f"got shape {correct.shape}"
        )
    if correct.dtype == bool:
        return correct
    if correct.dtype.kind not in "iu" or (correct.size and not np.isin(correct, (0, 1)).all()):
        raise ValueError(f"correct must be boolean or 0/1 integers, got {correct.dtype}")
    return correct.astype(bool)


def _codes(groups, n: int) -> tuple[np.ndarray, int]:
    """Groups as numbers 0, 1, ... and how many there are."""
    if groups is None:
        return np.arange(n), n
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"groups must be one per sample, shape ({n},), got {groups.shape}")
    names, code = np.unique(groups, return_inverse=True)
    return code, len(names)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {known}, got {value!r}")


def _over(a, b) -> np.ndarray:
    """a / b, NaN where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, float), b)
    return np.divide(a, b, out=np.full(b.shape, np.nan), where=b != 0)


def hazard_table(
    correct: np.ndarray,
    scale: str = "age",
    event: str = "first",
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Share of samples at risk that are forgotten, h(t) = d(t) / n(t), at every age or epoch.

    Intervals are Wilson's with n(t) divided by the design effect: the variance of h between
    groups (ratio estimator, linearised) over the binomial one, at least 1. A sample that comes in
    several runs, or again and again among recurrent events, so counts as one source and not as
    many. For first events of one run and groups of one sample it is Wilson's interval itself.

    Parameters
    ----------
    correct, scale, event, groups
        As in `risk_counts`.
    level : float

    Returns
    -------
    DataFrame
        One row per time: `scale`, `event`, `time` [epoch], `at_risk`, `events`, `hazard`, `ci_low`,
        `ci_high`, `groups` (with anything at risk), `effective_n`, `method`. NaN where nobody is at
        risk.

    References
    ----------
    Korn & Graubard (1998), Survey Methodology 24, 193-201: intervals with an effective n.

    Examples
    --------
    >>> hazard_table(np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0]]))["hazard"].round(2).tolist()
    [0.67, 0.0]
    """
    check_level(level)
    risk = risk_counts(correct, scale, event, groups)
    n, d = risk.at_risk.sum(0, dtype=np.int64), risk.events.sum(0, dtype=np.int64)
    hazard, active = _over(d, n), (risk.at_risk > 0).sum(0)
    between = ((risk.events - hazard * risk.at_risk) ** 2).sum(0)
    # The two corrections for small numbers cancel when each group is one sample in one run.
    between, binomial = _over(between * active, active - 1), _over(n * n * hazard, n - 1)
    effect = np.fmax(_over(between, binomial * (1 - hazard)), 1)
    # Without any event (or survival) groups cannot be seen to differ: each then counts once.
    effective = np.where((d == 0) | (d == n), active, n / effect)
    low, high = np.full((2, len(n)), np.nan)
    seen = n > 0
    share = hazard[seen] * effective[seen]
    low[seen], high[seen] = proportion_confint(share, effective[seen], 1 - level, method="wilson")
    columns = {"scale": scale, "event": event, "time": np.arange(1, len(n) + 1), "at_risk": n}
    columns |= {"events": d, "hazard": hazard, "ci_low": low, "ci_high": high, "groups": active}
    method = f"Wilson with effective n over groups, {level:.0%}"
    return pd.DataFrame(columns | {"effective_n": effective, "method": method})


def _survival(at_risk: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Product-limit S at times 1, 2, ..., over the last axis; NaN once nobody is left to watch."""
    kept = 1 - _over(events, at_risk)
    ever = at_risk.sum(-1, keepdims=True) > 0
    kept = np.where((np.cumsum(at_risk, -1) == 0) & ever, 1.0, kept)  # before the first entry
    gone = np.logical_or.accumulate(kept == 0, axis=-1)  # all are forgotten: none is missed later
    return np.where(gone, 0.0, np.cumprod(kept, -1))


def _influence(risk: Risk) -> np.ndarray:
    """What each group contributes to log S(t), (group, time); squares sum to the variance."""
    n, d = risk.at_risk.sum(0, dtype=np.int64), risk.events.sum(0, dtype=np.int64)
    excess = risk.events - np.nan_to_num(_over(d, n)) * risk.at_risk
    return -np.cumsum(np.where(n > 0, _over(excess, n - d), 0.0), axis=1)


def kaplan_meier(
    correct: np.ndarray,
    scale: str = "age",
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Share of learned samples not yet forgotten: S(t) = product over j <= t of 1 - d(j) / n(j).

    Time runs from the learned epoch to the first forgetting event; samples not forgotten by the
    last epoch are right-censored there. The interval is of log(-log S). Its variance is
    Greenwood's for one run and groups of one sample, and otherwise the sum over groups of squared
    influences, so that a sample that comes in several runs counts as one source.

    Parameters
    ----------
    correct, groups
        As in `risk_counts`.
    scale : {"age", "epoch"}
        On `epoch`, samples enter at their learned epoch and S refers to a sample at risk from the
        first entry on. If the few that enter first are all forgotten, S is 0 for good.
    level : float

    Returns
    -------
    DataFrame
        One row per time 0, 1, ...: `scale`, `time` [epoch], `at_risk`, `events`, `survival`, `se`,
        `ci_low`, `ci_high`, `method`. `se` is NaN where S is 0, the interval also where S is 1; S
        is NaN where nobody is left at risk.

    References
    ----------
    Kaplan & Meier (1958); Kalbfleisch & Prentice (2002), The Statistical Analysis of Failure Time
    Data, 1.4 (log-log interval); Lin & Wei (1989) and Therneau & Grambsch (2000), 7.2 (influences).

    Examples
    --------
    >>> kaplan_meier(np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1]]))["survival"].tolist()
    [1.0, 0.6666666666666667, 0.0]
    """
    check_level(level)
    risk = risk_counts(correct, scale, "first", groups)
    n, d = (np.r_[0, x.sum(0, dtype=np.int64)] for x in risk)
    survival = np.r_[1.0 if n.any() else np.nan, _survival(n[1:], d[1:])]
    variance = np.r_[0.0, (_influence(risk) ** 2).sum(0)]
    if len(_cube(correct)) == 1 and len(risk.at_risk) == np.shape(correct)[-1]:
        # The same without late entry; with it the influences are noisier and as large on average.
        variance = np.cumsum(np.where(n > 0, _over(d, n * (n - d)), 0.0))
    se_log = np.sqrt(variance)
    se_log[~(survival > 0)] = np.nan
    between = (survival > 0) & (survival < 1)
    log_s = np.log(survival, where=between, out=np.full(len(n), np.nan))
    factor = np.exp(stats.norm.ppf((1 + level) / 2) * se_log / log_s)  # log_s < 0: below 1
    method = f"Kaplan-Meier, log-log, Greenwood over groups, {level:.0%}"
    columns = {"scale": scale, "time": np.arange(len(n)), "at_risk": n, "events": d}
    columns |= {"survival": survival, "se": survival * se_log}
    columns |= {"ci_low": np.exp(log_s / factor), "ci_high": np.exp(log_s * factor)}
    return pd.DataFrame(columns | {"method": method})


def restricted_mean(
    correct: np.ndarray,
    groups: np.ndarray | None = None,
    horizon: int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Restricted mean time to forgetting: sum of S(k) over k = 0 ... horizon - 1 [epoch].

    The mean number of epochs that a sample is kept after its learned epoch, counted up to the
    horizon: E min(T, horizon). With a constant hazard h it is (1 - (1 - h)^horizon) / h.

    Parameters
    ----------
    correct, groups
        As in `risk_counts`.
    horizon : int, optional
        Default one epoch beyond the largest age at which `MIN_GROUPS` groups are still at risk, at
        most the last epoch; to be given where several results are compared.
    level : float

    Returns
    -------
    DataFrame
        One row; `n` counts samples at risk at age 1 (over all runs), `p` is NaN; extras `se`
        (delta method over groups), `horizon`, `groups`. The interval is normal. NaN where nobody
        is at risk up to the horizon.

    Examples
    --------
    >>> correct = np.array([[1, 1], [1, 0], [0, 1]])
    >>> float(restricted_mean(correct, horizon=2)["estimate"][0])
    1.5
    """
    check_level(level)
    risk = risk_counts(correct, groups=groups)
    horizon = _horizon(horizon, risk)
    n, d = (x.sum(0, dtype=np.int64)[:horizon] for x in risk)
    kept = _survival(n, d)[: horizon - 1]
    estimate = 1 + kept.sum() if n[0] else np.nan
    se = np.sqrt(((_influence(risk)[:, : horizon - 1] @ kept) ** 2).sum())
    half = stats.norm.ppf((1 + level) / 2) * se
    active = int((risk.at_risk[:, 0] > 0).sum())
    method = f"restricted mean to {horizon} epochs, delta method over groups, {level:.0%}"
    extras = {"se": se, "horizon": horizon, "groups": active}
    return one_row(estimate, estimate - half, estimate + half, n[0], np.nan, method, **extras)


def _horizon(horizon: int | None, *risks: Risk) -> int:
    """The given horizon, checked, or one to which enough groups were watched in each of `risks`.

    S(horizon - 1) is the last term of the sum. Which groups were watched does not change when
    labels are swapped within groups: the test stays exact, and under any swap somebody is at risk.
    """
    steps = risks[0].at_risk.shape[1]
    if horizon is not None:
        if not 1 <= horizon <= steps:
            raise ValueError(f"horizon must lie in 1..{steps} epochs, got {horizon!r}")
        return int(horizon)
    groups = np.all([r.at_risk > 0 for r in risks], axis=0).sum(0)
    if not (groups >= MIN_GROUPS).any():
        raise ValueError(
            f"a default horizon needs at least {MIN_GROUPS} groups at risk at age 1 in everything "
            f"compared, got {groups[0]}; give horizon="
        )
    return min(int(np.flatnonzero(groups >= MIN_GROUPS)[-1]) + 2, steps)


def _compare(totals: np.ndarray, statistic: str) -> np.ndarray:
    """Second architecture against the first from counts (..., 4 x time): n, d of each in turn."""
    n_a, d_a, n_b, d_b = np.split(totals, 4, axis=-1)
    if statistic == "rmst":  # S(0) = 1 in both, and S(horizon) is no part of the sum
        return (_survival(n_b, d_b) - _survival(n_a, d_a))[..., :-1].sum(-1)
    n, d = n_a + n_b, d_a + d_b
    if statistic == "log_hazard_ratio":
        of_b, of_a = (_over(x * y, n) for x, y in ((d_b, n_a), (d_a, n_b)))
        ratio = _over(np.nansum(of_b, -1), np.nansum(of_a, -1))
        return np.log(ratio, where=ratio > 0, out=np.full(ratio.shape, np.nan))
    variance = _over(d * n_a * n_b * (n - d), n * n * (n - 1))
    excess = np.nansum(d_b - _over(d * n_b, n), -1)
    return _over(excess, np.sqrt(np.nansum(variance, -1)))


def label_swap(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    strata: np.ndarray,
    rng: np.random.Generator,
    statistic: str = "rmst",
    scale: str = "age",
    event: str = "first",
    horizon: int | None = None,
    draws: int = 1999,
    level: float = 0.95,
) -> pd.DataFrame:
    """Second architecture against the first on the samples they share, tested by swapping labels.

    An unpaired log-rank test takes the same sample under two architectures for two samples. Hard
    samples are hard for both, which makes it too cautious; and runs of several seeds repeat each
    architecture's own difficulties, which makes it too bold. Here, under the null hypothesis, the
    two architectures' traces of a group could as well have been each other's: per draw each
    group's labels are swapped or not, all of its samples and seeds together. Conditional on the
    runs: other seeds are not covered by `p` or the interval; `seed_low` and `seed_high` are.

    Parameters
    ----------
    first, second : bool, (run, epoch, sample)
        Runs paired by seed, in the same order.
    groups, strata : array, (sample,)
        Patient or sample; class (for the bootstrap).
    rng : Generator
    statistic : {"rmst", "log_hazard_ratio", "log_rank"}
        Difference of restricted mean times to first forgetting [epoch], positive if the second
        keeps longer (age and first events only); log of the Mantel-Haenszel ratio of hazards, and
        the log-rank z, both positive if the second forgets faster.
    scale, event
        As in `risk_counts`.
    horizon : int, optional
        Last time that is counted. Default for `rmst` that of `restricted_mean`, with groups at
        risk in both; else the last epoch.
    draws : int
        Swaps, and bootstrap resamples.
    level : float

    Returns
    -------
    DataFrame
        One row; `n` counts samples, `p` is two-sided (b + 1) / (draws + 1); besides the extras of
        `bootstrap`: `statistic`, `horizon`, `seeds`, `seed_low`, `seed_high` (t over seeds).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> kept, lost = np.ones((1, 4, 20), bool), rng.random((1, 4, 20)) < 0.5
    >>> kept[:, 0] = lost[:, 0] = True
    >>> row = label_swap(lost, kept, np.arange(20), np.zeros(20), rng, draws=99)
    >>> bool(row["estimate"][0] > 0), float(row["p"][0])
    (True, 0.02)
    """
    _one_of("statistic", statistic, STATISTICS)
    first, second = _cube(first), _cube(second)
    if first.shape != second.shape:
        raise ValueError(
            f"first and second must have the same shape, got {first.shape} and {second.shape}"
        )
    if statistic == "rmst" and (scale, event) != ("age", "first"):
        raise ValueError(
            f"statistic 'rmst' needs scale 'age' and event 'first', got {scale!r} and {event!r}"
        )
    risks = [risk_counts(x, scale, event, groups) for x in (first, second)]
    default = None if statistic == "rmst" else first.shape[1] - 1
    horizon = _horizon(default if horizon is None else horizon, *risks)
    table = np.hstack([x[:, :horizon] for risk in risks for x in risk]).astype(float)
    code, n_groups = _codes(groups, first.shape[2])
    size = np.bincount(code)

    def value(rows) -> float:
        weight = np.bincount(code[rows], minlength=n_groups) / size
        return float(_compare(weight @ table, statistic))

    row = bootstrap(value, groups, strata, rng, draws, level)
    null = _swapped(table, statistic, rng, draws)
    row["p"] = permutation_p(row["estimate"].iloc[0], null, "two-sided")
    row["method"] = f"{statistic}, labels swapped within group; " + row["method"]
    one = np.zeros(first.shape[2])
    per_seed = []
    for pair in zip(first, second, strict=True):
        counts = [x[0, :horizon] for c in pair for x in risk_counts(c, scale, event, one)]
        per_seed.append(float(_compare(np.concatenate(counts).astype(float), statistic)))
    seeds = t_interval(per_seed, level)
    extras = {"statistic": statistic, "horizon": horizon, "seeds": len(per_seed)}
    return row.assign(**extras, seed_low=seeds["ci_low"], seed_high=seeds["ci_high"])


def _swapped(table: np.ndarray, statistic: str, rng, draws: int) -> np.ndarray:
    """The statistic after `draws` random swaps; table (group, 4 x time) as in `_compare`."""
    half = table.shape[1] // 2
    change = np.roll(table, half, axis=1) - table  # what swapping a group does to its counts
    block = max(1, _CHUNK // len(table))
    null = []
    for start in range(0, draws, block):
        swap = rng.integers(0, 2, (min(block, draws - start), len(table)))
        null.append(_compare(table.sum(0) + swap.astype(float) @ change, statistic))
    return np.concatenate(null)


def hazard_model(
    correct: np.ndarray,
    arch: np.ndarray,
    groups: np.ndarray,
    strata: np.ndarray,
    rng: np.random.Generator,
    event: str = "first",
    link: str = "cloglog",
    draws: int = 499,
    level: float = 0.95,
) -> pd.DataFrame:
    """Hazard by age, epoch and architecture: log(-log(1 - h)) = age + epoch + architecture.

    The complementary log-log link is the default because -log(1 - h) is the decay constant of
    R(t) = exp(-lambda t): an architecture's coefficient is the log ratio of decay constants, and
    it does not depend on how many epochs make one step. `logit` gives log odds ratios instead;
    for small hazards the two agree. Fitted on counts by (age, epoch, architecture), however many
    samples there are. Intervals redraw groups within classes, since samples are shared by runs and
    architectures; the binomial errors beside them (`model_se`) take every step for independent.
    Age and epoch together fix the learned epoch, which therefore has no effect of its own here.
    Where most samples are learned at epoch 0, age and epoch are nearly the same: samples learned
    late, often the harder ones, then decide what is put down to which. Read the architecture's
    coefficient; it hardly depends on that division.

    Parameters
    ----------
    correct : bool, (run, epoch, sample)
    arch : array of str, (run,)
        The first to occur is the reference.
    groups, strata : array, (sample,)
        Patient or sample; class.
    rng : Generator
    event : {"first", "recurrent"}
    link : {"cloglog", "logit"}
    draws : int
        0 gives no interval, for data too large to resample.
    level : float

    Returns
    -------
    DataFrame
        One row per coefficient: `term` (age, epoch, arch), `level`, then the columns of a one-row
        result (`n` counts samples; `p` is NaN, the test is `label_swap`), `se` (over resamples),
        `model_se`, `at_risk`, `events`, `reference`, `failed` (resamples without a finite fit).
        Age coefficients are the link of the hazard in the reference epochs (the last) of the
        reference architecture. Ages and epochs with fewer than `MIN_EVENTS` events or survivals
        are pooled with the following ones ("3-5"). `estimate` is NaN where the maximum lies at
        infinity, as for clocks that the data cannot tell apart.

    Raises
    ------
    ValueError
        If an architecture has no event or nothing but events: its effect would be infinite.

    References
    ----------
    Prentice & Gloeckler (1978), Biometrics 34, 57-67 (grouped proportional hazards).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> correct = np.concatenate([rng.random((2, 9, 400)) < 0.8, rng.random((2, 9, 400)) < 0.9])
    >>> table = hazard_model(correct, list("aabb"), np.arange(400), np.zeros(400), rng, draws=0)
    >>> bool(abs(table.query("term == 'arch'")["estimate"].item() - np.log(0.472)) < 0.15)
    True
    """
    check_level(level)
    _one_of("event", event, EVENTS)
    _one_of("link", link, LINKS)
    cube, arch = _cube(correct), np.asarray(arch)
    if arch.shape != (len(cube),):
        raise ValueError(f"arch must be one per run, shape ({len(cube)},), got {arch.shape}")
    names = list(dict.fromkeys(arch.tolist()))
    which = np.array([names.index(a) for a in arch.tolist()])
    code, n_groups = _codes(groups, cube.shape[2])
    by_group = _cells(cube, which, len(names), event, code if draws else np.zeros_like(code))
    cells = _pooled(by_group.at_risk, by_group.events, (len(names), cube.shape[1] - 1), names)
    start = _link(cells.events.sum() / cells.at_risk.sum(), link)
    start = np.where([term == "age" for term, _ in cells.labels], start, 0.0)[cells.kept]
    counts = cells.at_risk[None], cells.events[None]
    (best,), (information,) = _maximise(cells, *counts, start, link)
    redrawn = np.full((0, len(best)), np.nan)
    if draws:
        warm, blocks = np.where(np.isnan(best), start, best), []
        for w in _weights(code, n_groups, groups, strata, rng, draws):
            counts = (w @ x[:, cells.used] for x in by_group)
            blocks.append(_maximise(cells, *counts, warm, link)[0])
        redrawn = np.concatenate(blocks)
    model_se = np.sqrt(np.diag(np.linalg.pinv(information)))
    return _coefficients(cells, best, model_se, redrawn, names, cube.shape[2], link, level)


class _Cells(NamedTuple):
    """Non-empty cells of (architecture, age, epoch) and the columns of their effects."""

    used: np.ndarray  # (cell,) numbers among all cells
    at_risk: np.ndarray  # (cell,)
    events: np.ndarray  # (cell,)
    columns: np.ndarray  # (cell, 3): age level, epoch level, architecture
    labels: list  # (term, level) of every column
    kept: np.ndarray  # bool, columns that are no reference


def _cells(cube, which, n_archs: int, event: str, code) -> Risk:
    """Counts by group and by (architecture, age, epoch), sparse (group, cell)."""
    steps = cube.shape[1] - 1
    shape = (int(code.max(initial=0)) + 1, n_archs * steps * steps)
    risk, events = [], []
    for a, run in zip(which, cube, strict=True):
        for who, age, epoch, lost in _walk(run, event):
            cell = (a * steps + age - 1) * steps + epoch - 1
            key = code[who] * shape[1] + cell
            for into, of in ((risk, key), (events, key[lost])):  # compact: millions of samples
                into.append(np.unique(of, return_counts=True) if shape[0] == 1 else (of, None))
    return Risk(_sparse(risk, shape), _sparse(events, shape))


def _sparse(parts: list, shape: tuple[int, int]) -> sparse.csr_array:
    key = np.concatenate([k for k, _ in parts])
    count = np.concatenate([np.ones(len(k)) if c is None else c for k, c in parts])
    return sparse.csr_array((count, np.divmod(key, shape[1])), shape=shape)


def _pooled(at_risk, events, shape: tuple[int, int], names: list[str]) -> _Cells:
    n, d = (np.asarray(x.sum(0)).ravel() for x in (at_risk, events))
    n_archs, steps = shape
    cube_n, cube_d = n.reshape(n_archs, steps, steps), d.reshape(n_archs, steps, steps)
    for name, of_n, of_d in zip(names, cube_n.sum((1, 2)), cube_d.sum((1, 2)), strict=True):
        if not 0 < of_d < of_n:
            raise ValueError(
                f"{name}: a hazard model needs forgetting events and survivals, "
                f"got {of_d:.0f} events in {of_n:.0f} steps at risk"
            )
    age, ages = _levels(cube_n.sum((0, 2)), cube_d.sum((0, 2)))
    epoch, epochs = _levels(cube_n.sum((0, 1)), cube_d.sum((0, 1)))
    used = np.flatnonzero(n)
    a, j, t = np.unravel_index(used, cube_n.shape)
    columns = np.stack([age[j], len(ages) + epoch[t], len(ages) + len(epochs) + a], 1)
    labels = [("age", x) for x in ages] + [("epoch", x) for x in epochs]
    labels += [("arch", x) for x in names]
    kept = np.ones(len(labels), bool)
    kept[[len(ages) + len(epochs) - 1, len(ages) + len(epochs)]] = False  # last epochs, first arch
    return _Cells(used, n[used], d[used], columns, labels, kept)


def _link(hazard: float, link: str) -> float:
    return special.logit(hazard) if link == "logit" else np.log(-np.log1p(-hazard))


def _levels(n: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Neighbouring times joined until each level has enough events and enough survivals."""
    level, ends, events, survivals = np.zeros(len(n), int), [], 0, 0
    for t in range(len(n)):
        level[t] = len(ends)
        events, survivals = events + d[t], survivals + n[t] - d[t]
        if min(events, survivals) >= MIN_EVENTS:
            ends.append(t)
            events = survivals = 0
    ends = [*ends[:-1], len(n) - 1]  # what is left over at the end joins the last level
    level = np.minimum(level, len(ends) - 1)
    starts = [0, *[e + 1 for e in ends[:-1]]]
    pairs = zip(starts, ends, strict=True)
    return level, [f"{a + 1}" if a == b else f"{a + 1}-{b + 1}" for a, b in pairs]


def _weights(code, n_groups, groups, strata, rng, draws: int) -> Iterator[np.ndarray]:
    """How often each group was drawn, blocks of (draw, group)."""
    size, block = np.bincount(code), max(1, _CHUNK // n_groups)
    rows = resamples(groups, strata, rng, draws)
    for start in range(0, draws, block):
        count = min(block, draws - start)
        yield (
            np.stack([np.bincount(code[next(rows)], minlength=n_groups) for _ in range(count)])
            / size
        )


def _maximise(
    cells: _Cells, n: np.ndarray, d: np.ndarray, start: np.ndarray, link: str
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method with halved steps, for all rows of counts (draw, cell) at once.

    Both likelihoods are concave, so that this leads to the maximum from anywhere. The unguarded
    iteration of common GLM routines does not: where most samples are learned at epoch 0, age and
    epoch are nearly the same, and it runs off.

    Returns the coefficients (draw, coefficient), NaN where one does not settle because it is
    infinite, and the observed information (draw, coefficient, coefficient).
    """
    width, kept = len(cells.labels), np.flatnonzero(cells.kept)
    pairs = (cells.columns[:, :, None] * width + cells.columns[:, None, :]).reshape(-1, 9)
    outer, each = _indicators(pairs, width * width), _indicators(cells.columns, width)
    beta = np.zeros((len(n), width))
    beta[:, kept] = start
    value = _likelihood(beta, cells, n, d, link)
    for _ in range(40):
        slope, weight = _working(beta[:, cells.columns].sum(2), n, d, link)
        information = (weight @ outer).reshape(-1, width, width)[:, kept[:, None], kept]
        score = (slope @ each)[:, kept]
        # A level that lost all its events drifts away; the others must still be solvable.
        ridge = information + 1e-10 * np.eye(len(kept))
        step = np.zeros_like(beta)
        step[:, kept] = np.linalg.solve(ridge, score[:, :, None])[:, :, 0]
        for _ in range(20):
            trial = _likelihood(beta + step, cells, n, d, link)
            worse = trial < value - 1e-12 * np.abs(value)
            if not worse.any():
                break
            step[worse] /= 2
        beta, value = beta + step, trial
        if np.abs(step).max() < 1e-7:
            break
    return np.where(np.abs(step) < 1e-5, beta, np.nan)[:, kept], information


def _indicators(columns: np.ndarray, width: int) -> sparse.csr_array:
    """Ones at the given columns of every row, (row, width)."""
    rows = np.repeat(np.arange(len(columns)), columns.shape[1])
    return sparse.csr_array((np.ones(columns.size), (rows, columns.ravel())), (len(columns), width))


def _likelihood(beta, cells: _Cells, n, d, link: str) -> np.ndarray:
    eta = beta[:, cells.columns].sum(2)
    if link == "logit":
        return (d * eta - n * np.logaddexp(0, eta)).sum(1)
    rate = np.exp(np.clip(eta, -30, 5))
    return (d * np.log(-np.expm1(-rate)) - (n - d) * rate).sum(1)


def _working(eta, n, d, link: str) -> tuple[np.ndarray, np.ndarray]:
    """First and negative second derivative of the log-likelihood in the linear predictor."""
    if link == "logit":
        mean = special.expit(eta)
        return d - n * mean, n * mean * (1 - mean)
    rate = np.exp(np.clip(eta, -30, 5))
    mean = -np.expm1(-rate)
    slope = rate * (1 - mean) / mean
    return d * slope - (n - d) * rate, (n - d) * rate + d * slope * (rate / mean - 1)


def _coefficients(cells, best, model_se, redrawn, names, samples: int, link, level) -> pd.DataFrame:
    tail = 50 * (1 - level)
    how = f"percentile bootstrap over groups within class, {len(redrawn)} draws, {level:.0%}"
    method = f"binomial GLM, {link}; " + (how if len(redrawn) else "no interval")
    last = next(label for term, label in reversed(cells.labels) if term == "epoch")
    reference = {"age": "", "epoch": last, "arch": names[0]}
    rows = []
    for i, column in enumerate(np.flatnonzero(cells.kept)):
        term, label = cells.labels[column]
        here = (cells.columns == column).any(1)
        good = redrawn[np.isfinite(redrawn[:, i]), i]
        usable = len(redrawn) > 1 and len(good) >= 0.95 * len(redrawn)
        low, high = np.percentile(good, [tail, 100 - tail]) if usable else (np.nan, np.nan)
        extras = {
            "se": good.std(ddof=1) if usable else np.nan,
            "model_se": model_se[i],
            "at_risk": int(cells.at_risk[here].sum()),
            "events": int(cells.events[here].sum()),
            "reference": reference[term],
            "failed": len(redrawn) - len(good),
        }
        row = one_row(best[i], low, high, samples, np.nan, method, **extras)
        row.insert(0, "term", term)
        row.insert(1, "level", label)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


def by_architecture(
    traces: Traces, table: Callable[..., pd.DataFrame] = hazard_table, **options
) -> pd.DataFrame:
    """`hazard_table`, `kaplan_meier` or `restricted_mean` of every architecture, one below another.

    Parameters
    ----------
    traces : Traces
        Clean view; an architecture's runs are pooled, their samples kept together by group.
    table : callable
        Takes `correct` (run, epoch, sample), `groups` and the options.
    **options
        Of the table. `restricted_mean` gets the horizon that all architectures reach by default.

    Returns
    -------
    DataFrame
        The table's rows with the columns `arch` and `seeds` in front.
    """
    arch, groups = traces.runs["arch"].to_numpy(), traces.samples["group"].to_numpy()
    correct = {a: traces.correct(RETENTION.view)[arch == a] for a in dict.fromkeys(arch)}
    if table is restricted_mean and options.get("horizon") is None:
        risks = [risk_counts(c, groups=groups) for c in correct.values()]
        options = {**options, "horizon": _horizon(None, *risks)}
    parts = []
    for name, right in correct.items():
        part = table(right, groups=groups, **options)
        part.insert(0, "arch", name)
        part.insert(1, "seeds", len(right))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def compare_architectures(traces: Traces, rng: np.random.Generator, **options) -> pd.DataFrame:
    """`label_swap` of every two architectures, "B - A" with A before B in the study.

    Raises
    ------
    ValueError
        If two architectures were not run with the same seeds: runs are compared in pairs.
    """
    runs, correct = traces.runs, traces.correct(RETENTION.view)
    order = {a: of.sort_values("seed").index.to_numpy() for a, of in runs.groupby("arch")}
    rows = []
    for a, b in combinations(dict.fromkeys(runs["arch"]), 2):
        seeds = [runs.loc[order[x], "seed"].tolist() for x in (a, b)]
        if seeds[0] != seeds[1]:
            raise ValueError(f"{a} and {b} must share their seeds, got {seeds[0]} and {seeds[1]}")
        groups, labels = traces.samples["group"].to_numpy(), traces.labels
        row = label_swap(correct[order[a]], correct[order[b]], groups, labels, rng, **options)
        row.insert(0, "quantity", f"{b} - {a}")
        rows.append(row)
    if not rows:
        raise ValueError(f"needs at least two architectures, got {list(order)}")
    return pd.concat(rows, ignore_index=True)
