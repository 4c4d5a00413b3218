"""Spearman correlations given class and/or a control, of the data and of resamples.

A partial one is the correlation of rank residuals: global midranks minus their class mean ("given
class"), and what is linear in the control's midranks ("given control") taken off.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from retention_lib.counted import Ties, class_starts, midranks, ties_of
from retention_lib.run_moments import observed_and_redrawn
from retention_lib.threads import each


class Link(NamedTuple):
    """One correlation, by the names of vectors: of x and y, given a control and/or the class."""

    x: str
    y: str
    control: str | None = None
    by_class: bool = False


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
    known = [np.asarray(v, float) for v in (x, y, control) if v is not None]
    if any(np.isnan(v).any() or v.shape != known[0].shape for v in known):
        raise ValueError(
            f"expected vectors of one length without NaN, got {[v.shape for v in known]}"
        )
    code = np.zeros(len(known[0]), int) if labels is None else _codes(labels)
    order, one = np.argsort(code, kind="stable"), np.ones((1, len(code)))
    first = class_starts(code[order])
    rest = [_residual(stats.rankdata(v)[None, order], one, first) for v in known]
    return float(_correlation(rest, one)[0])


def _residual(ranks: np.ndarray, counts: np.ndarray, first: np.ndarray) -> tuple:
    """What strata's means leave of ranks (draw, sample), the same weighted, its sum of squares."""
    size = np.maximum(np.add.reduceat(counts, first, axis=1), 1e-300)
    means = np.add.reduceat(counts * ranks, first, axis=1) / size
    rest = ranks - np.repeat(means, np.diff(np.append(first, counts.shape[1])), axis=1)
    weighted = counts * rest
    return rest, weighted, _dot(rest, weighted)


def _correlation(rest: list[tuple], counts: np.ndarray) -> np.ndarray:
    """Correlation (draw,) of `_residual`s of x and y less what is linear in that of a control."""
    floor = 1e-9 * counts.sum(1) ** 2  # a constant's residuals are rounding errors of ranks
    (x, wx, xx), (y, _, yy), *z = rest
    xy, known = _dot(wx, y), np.minimum(xx, yy) > floor
    if z:
        _, wz, zz = z[0]
        use = zz > floor
        zz = np.where(use, zz, 1.0)
        xz, yz = (np.where(use, _dot(wz, v), 0.0) for v in (x, y))
        xx, yy, xy = xx - xz**2 / zz, yy - yz**2 / zz, xy - xz * yz / zz
        known &= np.minimum(xx, yy) > floor
    return np.clip(xy / np.sqrt(np.where(known, xx * yy, np.nan)), -1, 1)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ds,ds->d", a, b)


def redrawn_correlations(
    vectors: dict[str, np.ndarray],
    links: dict[str, Link],
    pairs: list[tuple[int, int]],
    groups: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    draws: int,
) -> dict[str, np.ndarray]:
    """Correlations of pairs of runs, for the data (draw 0) and for resamples that all share.

    Parameters
    ----------
    vectors : dict of array, (run, sample)
        NaN leaves a sample out of this run's links with that vector.
    links : dict of Link
    pairs : list of (int, int)
        Run of x and of the control, run of y.
    groups, labels : array, (sample,)
        Groups are redrawn within classes.
    rng : Generator
    draws : int
        0: the data only.

    Returns
    -------
    dict of float64, (1 + draw, pair)
        NaN where a residual is constant or fewer than 4 samples are left.

    Examples
    --------
    >>> vectors = {"loss": np.array([[1, 2, 3, 4, 5.0]]), "decay": np.array([[1, 2, 3, 5, 4.0]])}
    >>> out = redrawn_correlations(vectors, {"rho": Link("loss", "decay")}, [(0, 0)], range(5),
    ...                            [0] * 5, np.random.default_rng(0), 0)
    >>> out["rho"].round(3).tolist()
    [[0.9]]
    """
    order = np.argsort(labels, kind="stable")
    groups, code = np.asarray(groups)[order], _codes(labels)[order]
    vectors = {name: np.asarray(v, float)[:, order] for name, v in vectors.items()}
    ties: dict[tuple, Ties] = {}  # a vector is sorted once per set of samples

    def of_counts(counts):
        parts: dict[str, list] = {name: [] for name in links}
        for pair in pairs:
            known: dict[tuple, np.ndarray | tuple] = {}  # ... ranked once per set and resample
            for name, link in links.items():
                parts[name].append(_one_pair(vectors, link, pair, counts, code, ties, known))
        return {name: np.stack(columns, axis=1) for name, columns in parts.items()}

    batches = observed_and_redrawn(groups, code, rng, draws, len(vectors))
    found = each(of_counts, batches, len(code))
    return {name: np.concatenate([part[name] for part in found]) for name in links}


def _one_pair(vectors, link: Link, pair, counts, code, ties: dict, known: dict) -> np.ndarray:
    """One link of one pair of runs in every resample, (draw,).

    `ties` remembers vectors in order, `known` their ranks and residuals in these resamples.
    """
    names = [(link.x, pair[0]), (link.y, pair[1])]
    names += [(link.control, pair[0])] if link.control else []
    columns = [vectors[name][run] for name, run in names]
    keep = ~np.isnan(columns).any(0)
    if keep.sum() < 4:
        return np.full(len(counts), np.nan)
    own, rest = keep.tobytes(), []
    w = counts if keep.all() else counts[:, keep]
    for key, column in zip(names, columns, strict=True):
        if (key, own) not in ties:
            ties[key, own] = ties_of(column[keep])
        if (key, own) not in known:
            known[key, own] = midranks(ties[key, own], w)
        if (key, own, link.by_class) not in known:
            first = class_starts(code[keep]) if link.by_class else np.zeros(1, int)
            known[key, own, link.by_class] = _residual(known[key, own], w, first)
        rest.append(known[key, own, link.by_class])
    return _correlation(rest, w)


def _codes(values: np.ndarray) -> np.ndarray:
    return np.unique(np.asarray(values), return_inverse=True)[1]
