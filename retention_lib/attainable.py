"""The overlap of two architectures beside what classes alone and two seeds of one give."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import optimize, stats

from retention_lib.counted import overlap_statistic
from retention_lib.resampled import percentile_interval
from retention_lib.threads import each
from retention_lib.ties import cross_tables, expected_jaccard, levels, top_count

#: What `quantities` gives for a pair of architectures, A and B.
QUANTITIES = ("cross", "same_a", "same_b", "chance", "chance_a", "chance_b", "ceiling", "missing")


def measured(
    scores: np.ndarray,
    groups: np.ndarray,
    labels: np.ndarray,
    share: float,
    batches: Iterable[np.ndarray],
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Overlap and chance level of every two runs, of the samples and of resamples.

    Returns
    -------
    whole : (jaccard, chance), each (run, run)
        Expected Jaccard over tie-breaks, and the level that classes alone give.
    redrawn : (jaccard, chance), each (draw, run, run)
        `counted.overlaps`, shifted by what separates it from `whole` on the samples themselves:
        the Jaccard index of an expectation is not the expectation of the index (order 1 / k).
    """
    k = top_count(scores.shape[1], share)
    top = levels(scores, k)
    tables = cross_tables(top, top).reshape(-1, 3, 3)
    jaccard = expected_jaccard(tables, np.full(len(tables), k), exact=False)
    jaccard = jaccard.reshape(1, len(scores), -1)
    of_counts = overlap_statistic(scores, groups, labels, share)
    plain, chance = of_counts(np.ones((1, scores.shape[1])))
    found = each(of_counts, batches, scores.size)
    redrawn, chances = (np.concatenate(part) for part in zip(*found, strict=True))
    return (jaccard[0], chance[0]), (redrawn + (jaccard - plain), chances)


def summarise(whole, redrawn, arch: np.ndarray, a: str, b: str, level: float = 0.95) -> dict:
    """Quantities of one pair of architectures with intervals, from `measured`.

    Returns
    -------
    dict
        `missing`, `low`, `high` (NaN where it has no value) and `why_not` (empty where it has);
        `cross`, `same_a`, `same_b` and `excess` = cross - chance with `_low` and `_high`; `chance`,
        `chance_a`, `chance_b`, `ceiling`.
    """
    here, drawn = quantities(*whole, arch, a, b), quantities(*redrawn, arch, a, b)
    found = {name: float(here[name]) for name in QUANTITIES}
    for name in ("cross", "same_a", "same_b"):
        ends = percentile_interval(drawn[name], level)
        found[f"{name}_low"], found[f"{name}_high"] = ends
    found["excess"] = found["cross"] - found["chance"]
    ends = percentile_interval(drawn["cross"] - drawn["chance"], level)
    found["excess_low"], found["excess_high"] = ends
    found["low"], found["high"] = percentile_interval(drawn["missing"], level)
    found["why_not"] = _why_not(found, a, b)
    if found["why_not"]:
        found["missing"] = found["low"] = found["high"] = np.nan
    return found


def quantities(jaccard, chance, arch: np.ndarray, a: str, b: str) -> dict[str, np.ndarray]:
    """Means over pairs of runs and what follows from them; leading axes are kept."""
    of = {name: np.flatnonzero(arch == name) for name in (a, b)}

    def mean(matrix, x, y):
        if x == y:
            i, j = (of[x][side] for side in np.triu_indices(len(of[x]), 1))
        else:
            i, j = (grid.ravel() for grid in np.meshgrid(of[x], of[y]))
        return matrix[..., i, j].mean(-1) if len(i) else np.full(matrix.shape[:-2], np.nan)

    out = {}
    for name, (x, y) in {"cross": (a, b), "same_a": (a, a), "same_b": (b, b)}.items():
        out[name] = mean(jaccard, x, y)
        out["chance" + name[4:] if name != "cross" else "chance"] = mean(chance, x, y)
    out["ceiling"] = np.sqrt(out["same_a"] * out["same_b"])
    room = out["ceiling"] - out["chance"]
    with np.errstate(divide="ignore", invalid="ignore"):
        missing = 1 - (out["cross"] - out["chance"]) / room
    return out | {"missing": np.where(room > 1e-12, missing, np.nan)}


def _why_not(found: dict, a: str, b: str) -> str:
    """Why the missing share has no value; empty where it has."""
    for name, side in ((a, "a"), (b, "b")):
        low, high, chance = (found[k] for k in (f"same_{side}_low", f"same_{side}_high",
                                                f"chance_{side}"))  # fmt: skip
        if np.isnan(found[f"same_{side}"]):
            return f"{name} has one seed only"
        if not low > chance:
            return f"{name} between seeds, {low:.3f} to {high:.3f}, reaches chance, {chance:.3f}"
    if np.isnan(found["missing"]):
        return f"ceiling {found['ceiling']:.3f} not above chance {found['chance']:.3f}"
    return ""


def same_difficulty(same_a: float, same_b: float, chance: float, share: float) -> float:
    """Missing share that two architectures of unequal noise show though they rank alike.

    sqrt(J_AA J_BB) is a ceiling in the strict sense only where A and B are equally reproducible;
    otherwise even a common difficulty leaves some agreement "missing". If scores are normal, J_AA
    gives the correlation of two seeds of A, J_BB that of B, and one difficulty for both gives the
    geometric mean of these between A and B.

    Returns
    -------
    float
        NaN where an overlap is below that of unrelated scores, or the ceiling is not above chance.
        On Poisson counts it was within 0.01 of the truth.

    Examples
    --------
    >>> round(abs(same_difficulty(0.3, 0.3, 0.053, 0.1)), 6)
    0.0
    >>> round(same_difficulty(0.53, 0.12, 0.053, 0.1), 2)
    0.26
    """
    room = np.sqrt(same_a * same_b) - chance
    none = share / (2 - share)
    if not (room > 1e-12 and min(same_a, same_b) >= none and max(same_a, same_b) <= 1):
        return np.nan
    rho = [
        optimize.brentq(lambda r, j=j: _normal_jaccard(r, share) - j, -1e-9, 1.0)
        for j in (same_a, same_b)
    ]
    cross = _normal_jaccard(np.sqrt(max(rho[0], 0) * max(rho[1], 0)), share)
    return float(1 - (cross - chance) / room)


def _normal_jaccard(rho: float, share: float) -> float:
    """Jaccard index of two top sets of normal scores with correlation rho (Plackett's identity)."""
    z = stats.norm.ppf(1 - share)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    angle = np.arcsin(min(rho, 1.0)) * (nodes + 1) / 2
    density = np.exp(-(z**2) / (1 + np.sin(angle))) / (2 * np.pi)
    both = share**2 + np.arcsin(min(rho, 1.0)) / 2 * np.sum(weights * density)
    overlap = both / share
    return overlap / (2 - overlap)
