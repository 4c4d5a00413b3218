"""One model of the forgetting hazard with effects of age, epoch and architecture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import sparse

from retention_lib.checks import check_level
from retention_lib.hazard_likelihood import Cells, link_of, maximise
from retention_lib.intervals import one_row, resamples
from retention_lib.risk import BLOCK, EVENTS, Risk, as_runs, group_codes, one_of, steps_at_risk

LINKS = ("cloglog", "logit")
#: Ages and epochs with fewer events, or fewer survivals, are pooled with the next in a model.
MIN_EVENTS = 10


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
        result (`n` counts samples; `p` is NaN, `label_swap` tests), `se` (over resamples),
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
    one_of("event", event, EVENTS)
    one_of("link", link, LINKS)
    cube, arch = as_runs(correct), np.asarray(arch)
    if arch.shape != (len(cube),):
        raise ValueError(f"arch must be one per run, shape ({len(cube)},), got {arch.shape}")
    names = list(dict.fromkeys(arch.tolist()))
    which = np.array([names.index(a) for a in arch.tolist()])
    code, n_groups = group_codes(groups, cube.shape[2])
    by_group = _cells(cube, which, len(names), event, code if draws else np.zeros_like(code))
    cells = _pooled(by_group.at_risk, by_group.events, (len(names), cube.shape[1] - 1), names)
    start = link_of(cells.events.sum() / cells.at_risk.sum(), link)
    start = np.where([term == "age" for term, _ in cells.labels], start, 0.0)[cells.kept]
    counts = cells.at_risk[None], cells.events[None]
    (best,), (information,) = maximise(cells, *counts, start, link)
    redrawn = np.full((0, len(best)), np.nan)
    if draws:
        warm, blocks = np.where(np.isnan(best), start, best), []
        for w in _weights(code, n_groups, groups, strata, rng, draws):
            counts = (w @ x[:, cells.used] for x in by_group)
            blocks.append(maximise(cells, *counts, warm, link)[0])
        redrawn = np.concatenate(blocks)
    model_se = np.sqrt(np.diag(np.linalg.pinv(information)))
    return _coefficients(cells, best, model_se, redrawn, names, cube.shape[2], link, level)


def _cells(cube, which, n_archs: int, event: str, code) -> Risk:
    """Counts by group and by (architecture, age, epoch), sparse (group, cell)."""
    steps = cube.shape[1] - 1
    shape = (int(code.max(initial=0)) + 1, n_archs * steps * steps)
    risk, events = [], []
    for a, run in zip(which, cube, strict=True):
        for who, age, epoch, lost in steps_at_risk(run, event):
            cell = (a * steps + age - 1) * steps + epoch - 1
            key = code[who] * shape[1] + cell
            for into, of in ((risk, key), (events, key[lost])):  # compact: millions of samples
                into.append(np.unique(of, return_counts=True) if shape[0] == 1 else (of, None))
    return Risk(_sparse(risk, shape), _sparse(events, shape))


def _sparse(parts: list, shape: tuple[int, int]) -> sparse.csr_array:
    key = np.concatenate([k for k, _ in parts])
    count = np.concatenate([np.ones(len(k)) if c is None else c for k, c in parts])
    return sparse.csr_array((count, np.divmod(key, shape[1])), shape=shape)


def _pooled(at_risk, events, shape: tuple[int, int], names: list[str]) -> Cells:
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
    return Cells(used, n[used], d[used], columns, labels, kept)


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
    size, block = np.bincount(code), max(1, BLOCK // n_groups)
    rows = resamples(groups, strata, rng, draws)
    for start in range(0, draws, block):
        count = min(block, draws - start)
        yield (
            np.stack([np.bincount(code[next(rows)], minlength=n_groups) for _ in range(count)])
            / size
        )


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
