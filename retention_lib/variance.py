"""What a score varies with: class, sample, architecture, seed, and what they share.

    x(run, i) = mu + C(c) + S(i) + A(a) + R(run) + CA(c, a) + CR(c, run) + SA(i, a) + E(run, i),

a run being one seed of architecture a, and c the class of sample i; every term has a variance of
its own. Runs are balanced (as many seeds of every architecture), classes are of any size.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.checks import check_level
from retention_lib.counted import class_starts
from retention_lib.intervals import t_interval
from retention_lib.run_moments import check_scores, observed_and_redrawn, percentile_row

#: In the order of the table. `residual` is sample x seed within architecture.
COMPONENTS = {
    "class": "class, whatever the run",
    "sample": "sample within class, whatever the run",
    "architecture": "architecture, all samples alike",
    "seed": "seed within architecture, all samples alike",
    "class_x_architecture": "class, differently by architecture",
    "class_x_seed": "class, differently by seed within architecture",
    "sample_x_architecture": "sample within class, differently by architecture",
    "residual": "sample within class, differently by seed: seed noise",
}


def variance_components(
    scores: np.ndarray,
    runs: pd.DataFrame,
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Variance components of a score, by the method of moments, in closed form.

    Parameters
    ----------
    scores : array, (run, sample)
        Any scale. On midranks runs cannot differ as a whole.
    runs : DataFrame
        One row per run, with `arch` and `seed`; two or more seeds of every architecture, of each
        as many.
    groups, labels : array, (sample,)
        The bootstrap redraws groups within classes.
    rng : Generator
    draws : int
    level : float

    Returns
    -------
    DataFrame
        One row per component of `COMPONENTS`: `component`, the columns of a one-row result
        (`estimate` as computed, negative where chance made it so; [score^2]), `truncated` =
        max(estimate, 0), `share` = estimate / sum of all estimates, with `share_low, share_high`;
        `seed_low, seed_high` by leaving out one of `seeds` seeds of every architecture (three or
        more), `bias`, `draws`, `failed`. NaN where the design has no such term: `architecture` and
        its interactions with one architecture (`sample` then holds sample x architecture), class
        terms with one class.

    Raises
    ------
    ValueError
        If runs are not balanced, or no class has two samples.

    Notes
    -----
    *Estimators.* Let x(i) be the vector of a sample's scores over runs. A one-way analysis of
    variance with classes, on vectors, gives matrices over runs: within classes V = SSW / (n -
    classes), between them U = (SSB - (classes - 1) V) / (n - sum n_c^2 / n), and of the means P =
    mean mean' less what U and V add to it. Each has three expected entries, for two architectures,
    for two seeds of one, and on the diagonal; the components are these averages and their
    differences (V: sample, + sample x architecture, + residual; U: the same of class; P: mu^2, +
    architecture, + seed). With classes of one size this is the textbook analysis of variance, with
    others Henderson's method I; unbiased either way.

    *Fixed classes.* If classes are all there are, `class` estimates the variance of their effects
    over samples divided by 1 - sum (n_c / n)^2: for C equal classes, divisor C - 1.

    *Interval.* Percentiles over groups redrawn within classes: for these runs and these classes.
    A sample drawn twice is not two samples, so resamples enter as weights: degrees of freedom are
    sum w - sum w^2 / sum w, without which `class` would come out too large and `sample` too small
    by a part in the class size. What bias is left (samples of one group) is taken off the interval
    and given in `bias`. It says nothing of other seeds or architectures, of which two or five leave
    `architecture` and `seed` all but open.

    References
    ----------
    Searle, Casella & McCulloch (1992), Variance Components, 3.6 and 5.2 (Henderson 1953).
    Cornfield & Tukey (1956), Annals of Mathematical Statistics 27, 907-949.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> runs = pd.DataFrame({"arch": ["a", "a", "b", "b"], "seed": [1, 2, 1, 2]})
    >>> x = rng.normal(size=600) + 0.5 * rng.normal(size=(4, 600))
    >>> out = variance_components(x, runs, range(600), np.arange(600) % 3, rng, draws=50)
    >>> out.set_index("component").estimate[["sample", "residual"]].round(1).tolist()
    [1.0, 0.3]
    """
    check_level(level)
    scores = check_scores(scores, labels)
    arch = _design(runs, len(scores))
    by_class = np.argsort(labels, kind="stable")
    x, groups, labels = scores[:, by_class], np.asarray(groups)[by_class], np.sort(labels)
    first = class_starts(labels)
    if len(first) == len(labels):
        raise ValueError(f"some class must have two samples or more, got {len(first)} of one each")
    x = x - x.mean()  # keeps digits; no component depends on it
    blocks = [
        _matrices(x, counts, first)
        for counts in observed_and_redrawn(groups, labels, rng, draws, len(x))
    ]
    matrices = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    found = _components(*matrices, arch)
    total = np.nansum(list(found.values()), axis=0)
    seeds = _without_a_seed([m[:1] for m in matrices], arch)
    rows = []
    for name, values in found.items():
        bias = [_bias(v) for v in (values, values / total)]
        row = percentile_row(_moved(values, bias[0]), len(labels), name, level)
        part = percentile_row(_moved(values / total, bias[1]), len(labels), name, level)
        pseudo = t_interval(seeds[name], level)
        row["method"] = row["method"].str.replace(name, "method of moments", regex=False)
        row.insert(0, "component", name)
        extras = {"truncated": np.maximum(values[0], 0), "share": part["estimate"][0]}
        extras |= {"share_low": part["ci_low"][0], "share_high": part["ci_high"][0]}
        extras |= {"seed_low": pseudo["ci_low"][0], "seed_high": pseudo["ci_high"][0]}
        rows.append(row.assign(**extras, seeds=int((arch == 0).sum()), bias=bias[0]))
    return pd.concat(rows, ignore_index=True)


def _design(runs: pd.DataFrame, n_runs: int) -> np.ndarray:
    """Architecture of every run as a number, or a ValueError if runs are not balanced."""
    if len(runs) != n_runs:
        raise ValueError(f"runs must have one row for each of {n_runs} runs, got {len(runs)}")
    if runs.duplicated(["arch", "seed"]).any():
        raise ValueError("each (arch, seed) must be one run; select one configuration first")
    arch, names = pd.factorize(runs["arch"])
    seeds = dict(zip(names, np.bincount(arch).tolist(), strict=True))
    if len(set(seeds.values())) > 1 or min(seeds.values()) < 2:
        raise ValueError(f"every architecture must have as many seeds, at least 2, got {seeds}")
    return arch


def _matrices(x: np.ndarray, counts: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, ...]:
    """V, U and P of `variance_components`, each (draw, run, run), for weights (draw, sample).

    Samples are in the order of their classes, which begin at `first`.
    """
    size = np.add.reduceat(counts, first, axis=1)  # (draw, class)
    square = np.add.reduceat(counts**2, first, axis=1)
    n, safe = size.sum(1), np.maximum(size, 1e-300)
    sums = np.add.reduceat(counts[:, None] * x, first, axis=2)  # (draw, run, class)
    whole = (counts[:, None] * x) @ x.T
    classes = (sums / safe[:, None]) @ sums.swapaxes(1, 2)
    mean = sums.sum(2) / n[:, None]
    centre = mean[:, :, None] * mean[:, None]

    def over(matrix, divisor):
        divisor = np.where(divisor > 1e-9, divisor, np.nan)
        return matrix / divisor[:, None, None]

    inside = over(whole - classes, n - (square / safe).sum(1))
    noise = (square / safe).sum(1) - square.sum(1) / n
    spread = classes - n[:, None, None] * centre - noise[:, None, None] * inside
    between = over(spread, n - (size**2).sum(1) / n)
    added = np.nan_to_num(between) * ((size**2).sum(1) / n**2)[:, None, None]
    return inside, between, centre - added - inside * (square.sum(1) / n**2)[:, None, None]


def _components(inside, between, means, arch: np.ndarray) -> dict[str, np.ndarray]:
    """Components (draw,) from the three matrices (draw, run, run); see `variance_components`."""
    same = arch[:, None] == arch
    own = np.eye(len(arch), dtype=bool)

    def steps(matrix):  # two architectures; two seeds of one, more than that; a run, more again
        run, seeds = matrix[:, own].mean(1), matrix[:, same & ~own].mean(1)
        if same.all():
            return seeds, np.full_like(seeds, np.nan), run - seeds
        other = matrix[:, ~same].mean(1)
        return other, seeds - other, run - seeds

    found = dict(
        zip(("class", "class_x_architecture", "class_x_seed"), steps(between), strict=True)
    )
    found |= dict(zip(("sample", "sample_x_architecture", "residual"), steps(inside), strict=True))
    found |= dict(zip(("", "architecture", "seed"), steps(means), strict=True))
    return {name: found[name] for name in COMPONENTS}


def _without_a_seed(matrices: list[np.ndarray], arch: np.ndarray) -> dict[str, np.ndarray]:
    """Pseudo-values (seed,) of every component, its s-th seed of each architecture left out."""
    order = pd.Series(arch).groupby(arch).cumcount().to_numpy()
    n = order.max() + 1
    if n < 3:
        return dict.fromkeys(COMPONENTS, np.array([]))
    whole = _components(*matrices, arch)
    pseudo: dict[str, list] = {name: [] for name in COMPONENTS}
    for s in range(n):
        kept = order != s
        left = _components(*(m[:, kept][:, :, kept] for m in matrices), arch[kept])
        for name, value in left.items():
            pseudo[name].append(n * whole[name][0] - (n - 1) * value[0])
    return {name: np.array(values) for name, values in pseudo.items()}


def _bias(values: np.ndarray) -> float:
    good = values[1:][np.isfinite(values[1:])]
    return float(good.mean() - values[0]) if len(good) else np.nan


def _moved(values: np.ndarray, bias: float) -> np.ndarray:
    """Resamples moved to have their mean at the estimate."""
    return np.append(values[:1], values[1:] - bias)
