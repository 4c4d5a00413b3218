"""Do the findings fit together? The correlation across seeds that the others imply.

Every row follows from one finding and one stated assumption; none is a bound.
Spearman correlations are chained on the scale of a normal copula.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.agreement import topk_jaccard
from retention_lib.class_averages import means_by_class
from retention_lib.config import TOP_SHARE
from retention_lib.normal_copula import chain, spearman_of_overlap
from retention_lib.partial_correlation import partial_spearman

#: A number, or the two ends of a range.
Range = float | tuple[float, float]
#: What `implied_seed_correlation` takes of a study, as named there.
INGREDIENTS = (
    "rho_early",
    "stability_of_early_loss",
    "share_of_class",
    "stability_of_classes",
    "jaccard",
    "rho_early_given_class",
)


def class_share(score: np.ndarray, labels: np.ndarray) -> float:
    """Share of a score's rank variance due to classes, corrected for chance (epsilon squared).

        1 - (1 - eta^2) (n - 1) / (n - K)

    about 0 without classes, hence sometimes negative; NaN if the score is constant.

    References
    ----------
    Kelley (1935), An unbiased correlation ratio measure, PNAS 21, 554-559.
    """
    _, code = np.unique(labels, return_inverse=True)
    rank = stats.rankdata(score)
    k, total = code.max() + 1, rank.var() * len(rank)
    if total == 0 or len(rank) <= k:
        return float("nan")
    within = ((rank - means_by_class(rank, code, k)[0, code]) ** 2).sum()
    return float(1 - within / total * (len(rank) - 1) / (len(rank) - k))


def implied_seed_correlation(
    rho_early: Range | None = None,
    stability_of_early_loss: Range = 1.0,
    share_of_class: Range | None = None,
    stability_of_classes: Range = 1.0,
    jaccard: Range | None = None,
    rho_early_given_class: Range | None = None,
    measured: Range = np.nan,
    share: float = TOP_SHARE,
) -> pd.DataFrame:
    """What findings 1, 4 and 5 imply for the correlation across seeds, beside finding 3.

    Parameters
    ----------
    rho_early : float or (low, high)
        Finding 5: Spearman of early loss and decay constant within a run.
    stability_of_early_loss : float or (low, high)
        Spearman of the early loss in two seeds; the backbone being frozen, near 1.
    share_of_class : float or (low, high)
        Finding 4: share of the variance within a run that is due to classes (`class_share`).
    stability_of_classes : float or (low, high)
        Correlation of true class means in two seeds, weighted by class size.
    jaccard : float or (low, high)
        Finding 1: overlap between architectures.
    rho_early_given_class : float or (low, high)
        Partial Spearman given class, for classes and early loss together.
    measured : float or (low, high)
        Finding 3.
    share : float
        Of the top sets.

    Returns
    -------
    DataFrame
        One row per finding: `finding`, `from`, `implied_low`, `implied_high` (equal for
        single numbers), `assumption`, `measured_low`, `measured_high`, and `contradicts`: even the
        lowest implied correlation exceeds the highest measured one (None if none was measured).
        The other way round is no contradiction: seeds may agree for other reasons as well.

    Examples
    --------
    >>> row = implied_seed_correlation(rho_early=(0.3, 0.5), measured=0.01).iloc[0]
    >>> [round(float(v), 3) for v in row[["implied_low", "implied_high"]]], bool(row.contradicts)
    ([0.094, 0.257], True)
    """
    loss, classes = _ends(stability_of_early_loss), _ends(stability_of_classes)
    found = []
    if jaccard is not None:
        ends = [spearman_of_overlap(j, share) for j in _ends(jaccard)]
        assumption = "seeds of one architecture agree as two architectures do; normal copula"
        found.append((1, f"top {share:.0%} overlap between architectures", ends, assumption))
    if share_of_class is not None:
        ends = [max(s, 0.0) * c for s, c in zip(_ends(share_of_class), classes, strict=True)]
        assumption = "within a class seeds are independent"
        found.append((4, "share of variance due to classes", ends, assumption))
    if rho_early is not None:
        ends = [chain(r, s, r) for r, s in zip(_ends(rho_early), loss, strict=True)]
        assumption = "seeds are independent given the early loss"
        found.append((5, "early loss", ends, assumption))
    if share_of_class is not None and rho_early_given_class is not None:
        parts = zip(_ends(share_of_class), classes, _ends(rho_early_given_class), loss, strict=True)
        ends = []
        for s, c, r, l in parts:
            s = max(s, 0.0)
            ends.append(s * c + (1 - s) * chain(r, l, r))
        assumption = "seeds are independent given class and early loss"
        found.append(("4 and 5", "classes, and early loss within them", ends, assumption))
    low, high = sorted(_ends(measured))
    rows = []
    for finding, source, ends, assumption in found:
        row = {"finding": finding, "from": source, "implied_low": min(ends)}
        row |= {"implied_high": max(ends), "assumption": assumption}
        row |= {"measured_low": low, "measured_high": high}
        known = np.isfinite([*ends, high]).all()
        rows.append(row | {"contradicts": bool(min(ends) > high) if known else None})
    return pd.DataFrame(rows)


def _ends(value: Range) -> tuple[float, float]:
    """Both ends of a range, or a number twice."""
    ends = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(ends) != 2:
        raise ValueError(f"expected a number or (low, high), got {value!r}")
    return float(ends[0]), float(ends[1])


def ingredients(
    loss: np.ndarray,
    constants: np.ndarray,
    runs: pd.DataFrame,
    labels: np.ndarray,
    share: float = TOP_SHARE,
) -> pd.DataFrame:
    """What `implied_seed_correlation` takes, measured on recorded runs, per architecture.

    Parameters
    ----------
    loss, constants : array, (run, sample)
        Without NaN: early loss and the score whose correlation across seeds is audited.
    runs : DataFrame
        Columns `arch` and `seed`; at least 2 seeds per architecture.
    labels : array, (sample,)

    Returns
    -------
    DataFrame
        `arch`, then the arguments of `implied_seed_correlation` by name, means over runs or pairs
        of runs (`jaccard`, between architectures, is NaN if there is one only), and
        `measured_low`, `measured_high`, the least and the largest pair of seeds.
    """
    loss, constants = np.asarray(loss, float), np.asarray(constants, float)
    _, code = np.unique(labels, return_inverse=True)
    arch, rows = runs["arch"].to_numpy(), []
    rank_l, rank_c = (stats.rankdata(x, axis=1) for x in (loss, constants))
    of_loss, of_decay = (np.atleast_2d(np.corrcoef(r)) for r in (rank_l, rank_c))
    means = means_by_class(rank_c - rank_c.mean(1, keepdims=True), code, code.max() + 1)
    by_class = np.atleast_2d(np.corrcoef(means[:, code]))  # weighted by class size
    for name in dict.fromkeys(arch):
        at = np.flatnonzero(arch == name)
        if len(at) < 2:
            raise ValueError(f"correlation across seeds needs 2 seeds, {name} has {len(at)}")
        pair = np.ix_(at, at)
        upper = np.triu_indices(len(at), 1)
        others = np.flatnonzero(arch != name)
        overlap = [
            topk_jaccard(constants[i], constants[j], share, exact=False) for i in at for j in others
        ]
        within = [partial_spearman(loss[i], constants[i], code) for i in at]
        measured = of_decay[pair][upper]
        row = {"arch": name}
        row["rho_early"] = np.mean([np.corrcoef(rank_l[i], rank_c[i])[0, 1] for i in at])
        row["stability_of_early_loss"] = of_loss[pair][upper].mean()
        row["share_of_class"] = np.mean([class_share(constants[i], code) for i in at])
        row["stability_of_classes"] = by_class[pair][upper].mean()
        row["jaccard"] = np.mean(overlap) if overlap else np.nan
        row["rho_early_given_class"] = np.mean(within)
        row |= {"measured_low": measured.min(), "measured_high": measured.max()}
        rows.append(row)
    return pd.DataFrame(rows)


def implied_by(measured: pd.DataFrame, share: float = TOP_SHARE) -> pd.DataFrame:
    """`implied_seed_correlation` of every row of `ingredients`, the other columns in front."""
    tables, numbers = [], [*INGREDIENTS, "measured_low", "measured_high"]
    for _, row in measured.iterrows():
        given = {name: None if pd.isna(row[name]) else float(row[name]) for name in INGREDIENTS}
        ends = (row["measured_low"], row["measured_high"])
        table = implied_seed_correlation(**given, measured=ends, share=share)
        for place, name in enumerate(n for n in measured if n not in numbers):
            table.insert(place, name, row[name])
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
