"""Controls: planted truth measured by the study's own functions, and what margins alone give."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib import agreement, ties
from retention_lib.config import PRIMARY_SCORE, TOP_SHARE
from retention_lib.decay import fit_decay
from retention_lib.findings import drawn_by_lot, score_matrix
from retention_lib.forgetting import forgetting_score
from retention_lib.intervals import one_row, permutation_p, t_interval
from retention_lib.nulls import redraws
from retention_lib.run_moments import run_pairs
from retention_lib.traces import Traces
from retention_lib.verdicts import PAPER


def known_overlap(
    traces: Traces,
    rng: np.random.Generator,
    planted: float,
    score: str = PRIMARY_SCORE,
    share: float = TOP_SHARE,
    draws: int = 50,
) -> pd.DataFrame:
    """Positive control: two score vectors whose top sets share exactly what was planted.

    One run's scores are copied, its ties broken once at random, and m = k (1 - J) / (1 + J) members
    of the top set exchange their scores with m others. The instrument, which does not know how
    the ties were broken, then measures the overlap of the copy with the original.

    Parameters
    ----------
    planted : float
        Jaccard index J of the two top sets, 0..1 (rounded to what k allows).

    Returns
    -------
    DataFrame
        One row: `estimate` is the mean over all runs and draws, with its 2.5 and 97.5 % quantiles;
        extra `planted`. An estimate below the planted value is what the ties cost.
    """
    if not 0 <= planted <= 1:
        raise ValueError(f"planted must lie in 0..1, got {planted!r}")
    values = score_matrix(traces, score)
    n, k = values.shape[1], agreement.top_count(values.shape[1], share)
    m = min(round(k * (1 - planted) / (1 + planted)), k, n - k)
    found = []
    for own in values:
        for _ in range(max(1, draws // len(values))):
            order = np.lexsort((rng.random(n), -own))
            out, into = rng.permutation(order[:k])[:m], rng.permutation(order[k:])[:m]
            twin = own.copy()
            twin[out], twin[into] = own[into], own[out]
            found.append(agreement.topk_jaccard(own, twin, share, exact=False))
    low, high = np.quantile(found, [0.025, 0.975])
    method = f"known overlap through the ties of {len(values)} runs"
    return one_row(np.mean(found), low, high, n, np.nan, method, planted=(k - m) / (k + m))


def both(tied: pd.DataFrame, untied: pd.DataFrame) -> pd.DataFrame:
    """Two results of `known_overlap` below each other, told apart by `ties`."""
    return pd.concat([untied.assign(ties="none"), tied.assign(ties="of the score")])


def sharing(n: int, share: float = TOP_SHARE) -> pd.DataFrame:
    """What a Jaccard index of two top sets says in samples: chance level, and the paper's values.

    Two sets of k samples that share s of them have J = s / (2k - s), so s / k = 2J / (1 + J).

    Parameters
    ----------
    n : int
        Samples; the chance level hardly depends on it.

    Returns
    -------
    DataFrame
        `of` (two random sets, then the paper's data sets), `jaccard`, `shared` (part of each set
        that lies in the other), `times_chance`.

    Examples
    --------
    >>> sharing(5994).round(3)[["jaccard", "shared"]].to_numpy().tolist()
    [[0.053, 0.1], [0.34, 0.507], [0.15, 0.261]]
    """
    chance = agreement.jaccard_chance(n, agreement.top_count(n, share))
    values = {f"two random sets of {share:.0%}": chance}
    for (finding, dataset, quantity), known in PAPER.items():
        if (finding, quantity) == ("architecture_overlap", "jaccard"):
            values[f"paper, {dataset}"] = known.value
    table = pd.DataFrame({"of": list(values), "jaccard": list(values.values())})
    table["shared"] = 2 * table["jaccard"] / (1 + table["jaccard"])
    return table.assign(times_chance=table["jaccard"] / chance)


def identical_counts(
    rng: np.random.Generator,
    zeros: tuple[float, ...] = (0.95, 0.82, 0.5),
    n: int = 5994,
    share: float = TOP_SHARE,
    draws: int = 100,
) -> pd.DataFrame:
    """Overlap of a vector of counts with itself, both copies breaking their ties by lot.

    Counts are the quantiles of a Poisson distribution with the given share of zeros, as if two
    networks forgot exactly the same samples exactly as often.

    Parameters
    ----------
    rng : Generator
        Draws the random tie-breaks of the brute-force mean.
    zeros : tuple of float
        Shares of samples that were never forgotten, in (0, 1).
    n : int
        Samples; the default is CUB's training split.

    Returns
    -------
    DataFrame
        `zeros`, `ties` (part of a top set drawn by lot), `expected` (closed form,
        `ties.topk_jaccard`), `brute_force` with `ci_low`, `ci_high` (mean over `draws` pairs of
        tie-breaks, Student's 95 %), `by_position` (ties broken by position, the same in both) and
        `chance`.
    """
    if not all(0 < z < 1 for z in zeros):
        raise ValueError(f"zeros must lie in (0, 1), got {zeros!r}")
    k, rows = agreement.top_count(n, share), []
    for z in zeros:
        counts = stats.poisson.ppf((np.arange(n) + 0.5) / n, -np.log(z))
        found = []
        for _ in range(draws):
            first, second = (np.lexsort((rng.random(n), -counts))[:k] for _ in range(2))
            both = len(np.intersect1d(first, second, assume_unique=True))
            found.append(both / (2 * k - both))
        brute = t_interval(found).iloc[0]
        row = {"zeros": np.mean(counts == 0), "ties": drawn_by_lot(counts, share)}
        row["expected"] = agreement.topk_jaccard(counts, counts, share)
        row |= {"brute_force": brute["estimate"]} | brute[["ci_low", "ci_high"]].to_dict()
        rows.append(row | {"by_position": 1.0, "chance": agreement.jaccard_chance(n, k)})
    return pd.DataFrame(rows)


def redrawn_overlap(
    traces: Traces, rng: np.random.Generator, share: float = TOP_SHARE, draws: int = 299
) -> pd.DataFrame:
    """Overlap by forgetting events that epoch accuracies and sample totals alone give.

    Every run is redrawn on its own within its margins (`nulls.redraws`): how often a sample is
    wrong stays, *when* becomes random. An overlap of the redraws as large as the real one follows
    from shared difficulty, and needs no sample that is prone to be lost.

    Parameters
    ----------
    traces : Traces
    rng : Generator
    share : float
    draws : int
        Redraws of every run.

    Returns
    -------
    DataFrame
        One row per pair of architectures and per architecture with itself: `arch_a`, `arch_b`, a
        one-row result (`estimate` is the observed mean overlap of the primary score, without an
        interval; `p` two-sided among the redraws), `null_mean`, `null_low`, `null_high` (central
        95 %), `pairs`, `draws`.
    """
    correct, sets = traces.correct(), run_pairs(traces.runs, len(traces.runs))
    n = correct.shape[-1]
    k = agreement.top_count(n, share)

    observed = _overlaps(forgetting_score(correct)[None], k)[0]
    walks = [redraws(run, rng, draws) for run in correct]
    scores = [np.concatenate([_small_score(batch) for batch in walk]) for walk in walks]
    null = _overlaps(zip(*scores, strict=True), k)
    rows, method = [], f"redraws within epoch and sample totals, {draws} draws, two-sided"
    for (a, b), pairs in sets.items():
        value, drawn = (x[..., pairs[:, 0], pairs[:, 1]].mean(-1) for x in (observed, null))
        low, high = np.quantile(drawn, [0.025, 0.975])
        extras = {"null_mean": drawn.mean(), "null_low": low, "null_high": high}
        extras |= {"pairs": len(pairs), "draws": draws}
        p = permutation_p(value, drawn, "two-sided")
        row = one_row(value, np.nan, np.nan, n, p, method, **extras)
        row.insert(0, "arch_a", a)
        row.insert(1, "arch_b", b)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


def _overlaps(scores: Iterable, k: int) -> np.ndarray:
    """Expected Jaccard of all pairs of runs (draw, run, run) from draws of scores (run, sample)."""
    tops = (ties.levels(np.stack(score), k) for score in scores)
    tables = np.stack([ties.cross_tables(top, top) for top in tops])
    flat = tables.reshape(-1, 3, 3)
    values = ties.expected_jaccard(flat, np.full(len(flat), k), exact=False)
    return values.reshape(tables.shape[:3])


def _small_score(correct: np.ndarray) -> np.ndarray:
    """Primary score in the smallest type: all redraws of all runs are held at once."""
    return forgetting_score(correct).astype(np.uint8 if correct.shape[-2] < 256 else np.uint16)


def known_structure(
    n_epochs: int, n: int, rng: np.random.Generator, planted: tuple[float, float] = (0.52, 0.74)
) -> pd.DataFrame:
    """Positive control: traces that decay by construction, with a known share of noise.

    r(t) = exp(-lambda t) + noise, log lambda normal around 0.2 per epoch. Normal noise is projected
    so that it neither moves the mean nor the curve's best lambda, and scaled so that the true curve
    explains exactly `planted` of every trace's variance; free noise would explain other shares in
    short traces (of 13 epochs 0.514 and 0.744 on average). Fewer than 4 epochs leave no such noise.

    Returns
    -------
    DataFrame
        Rows "less structured", "more structured" and "difference": `estimate` is the measured mean
        R^2 with its t interval over traces; extras `planted`, `lambda_ratio` (median of fitted over
        true decay constant).
    """
    rows, t = [], np.arange(n_epochs)[:, None]
    for name, r2 in zip(("less structured", "more structured"), planted, strict=True):
        rate = 0.2 * np.exp(0.5 * rng.standard_normal(n))
        curve = np.exp(-rate * t)
        noise = _without(rng.standard_normal(curve.shape), np.ones_like(curve), curve, t * curve)
        spread = ((curve - curve.mean(0)) ** 2).sum(0) * (1 - r2) / r2
        found = fit_decay(curve + noise * np.sqrt(spread / (noise**2).sum(0)))
        row = t_interval(found.r2).assign(quantity=name, planted=r2, method="t over traces, 95%")
        row["lambda_ratio"] = np.median(found.decay_constant / rate)
        rows.append(row)
    low, high = rows
    gap = float(high["estimate"].iloc[0] - low["estimate"].iloc[0])
    half = np.hypot(*(float((r["ci_high"] - r["estimate"]).iloc[0]) for r in rows))
    difference = one_row(gap, gap - half, gap + half, 2 * n, np.nan, "t over traces, 95%")
    difference = difference.assign(quantity="difference", planted=planted[1] - planted[0])
    return pd.concat([low, high, difference], ignore_index=True)


def _without(noise: np.ndarray, *directions: np.ndarray) -> np.ndarray:
    """The part of every trace's noise that is orthogonal to the directions, all (epoch, trace)."""
    basis = np.linalg.qr(np.stack(directions, -1).transpose(1, 0, 2))[0]  # (trace, epoch, k)
    along = np.einsum("ntk,tn->nk", basis, noise)
    return noise - np.einsum("ntk,nk->tn", basis, along)


def known_structure_like(traces: Traces, rng: np.random.Generator) -> pd.DataFrame:
    """`known_structure` with as many and as long traces as one run has."""
    return known_structure(len(traces.epochs), len(traces.samples), rng)
