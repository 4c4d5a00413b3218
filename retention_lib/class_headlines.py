"""Which numbers of notebook 04 go into its result file, beside chance and planted truth."""

from __future__ import annotations

import math

import pandas as pd

from retention_lib.headlines import kind_of, not_run, over_seeds
from retention_lib.intervals import one_row
from retention_lib.verdicts import record

FINDING = "class_forgetting"
#: What the rows on consistency are called in notebook 04's figure.
CONSISTENCY_ROWS = {
    "kendall_w": "all runs",
    "kendall_w_cnn": "seeds of the CNN",
    "kendall_w_vit": "seeds of the ViT",
    "kendall_w_held_out": "all runs, held-out images",
    "kendall_w_dealt": "images dealt to classes at random",
    "kendall_w_misaligned": "samples misaligned",
    "kendall_w_after_wrong_at_epoch_0": "all runs, error at epoch 0 taken out",
    "kendall_w_after_class_size": "all runs, class size taken out",
}
#: What the rows on likeness are called.
LIKENESS_ROWS = {
    "forgetting_by_similarity_planted": "forgetting, nearness: planted",
    "forgetting_by_similarity_attributes": "forgetting, nearness: attributes",
    "forgetting_by_similarity_features_cnn": "forgetting, nearness: CNN features",
    "forgetting_by_similarity_features_vit": "forgetting, nearness: ViT features",
    "confused_with_nearest_planted": "taken for the nearest: planted",
    "confused_with_nearest_attributes": "taken for the nearest: attributes",
    "confused_with_nearest_features_cnn": "taken for the nearest: CNN features",
    "confused_with_nearest_features_vit": "taken for the nearest: ViT features",
}
#: Rivals whose correlation with class forgetting is recorded, by quantity.
_RIVALS = {"class size": "class_frequency", "wrong at epoch 0": "epoch_0_error"}


def measure_name(measure: str) -> str:
    """A measure of likeness as part of a quantity's name.

    Examples
    --------
    >>> measure_name("features of phantom_resnet18"), measure_name("planted")
    ('features_cnn', 'planted')
    """
    what, _, arch = measure.partition(" of ")
    return f"{what}_{kind_of(arch)}" if arch else what


def class_records(
    consistent: pd.DataFrame,
    outside: pd.DataFrame,
    between: pd.DataFrame,
    rivals: pd.DataFrame,
    excess: pd.DataFrame,
    likeness: pd.DataFrame,
    confused: pd.DataFrame,
    measures: pd.DataFrame,
    scales: dict[str, str],
) -> list:
    """Records of notebook 04.

    Parameters
    ----------
    consistent, outside : DataFrame
        Rows of `class_agreement.consistency` with `dataset`, of training and of held-out images.
    between, rivals, excess, likeness, confused, measures : DataFrame
        Rows with `dataset` of `class_agreement.between_architectures`, `class_rivals.rivals` and
        `beyond_margins`, `class_likeness.forgetting_by_likeness`, `confused_with_nearest` and
        `measures_agree`.
    scales : dict
        As in `headlines.overlap_records`.
    """
    records = []
    for dataset, scale in scales.items():
        if scale is None:
            records += not_run(FINDING, dataset)
            continue
        tables = (consistent, outside, between, rivals, excess, likeness, confused, measures)
        of = [t[t["dataset"] == dataset] if len(t) else t for t in tables]
        rows = [*_consistency(*of[:2]), *_between(of[2]), *_rivals(*of[3:5]), *_likeness(*of[5:])]
        records += [
            record(FINDING, dataset, quantity, row, scale=scale, **levels)
            for quantity, row, levels in rows
        ]
    return records


def _consistency(consistent: pd.DataFrame, outside: pd.DataFrame) -> list[tuple]:
    """(quantity, one-row result, levels) of W over all runs, by architecture, and its controls."""
    rows = []
    for _, row in consistent.iterrows():
        whole = row["scope"] == "all"
        quantity = "kendall_w" if whole else f"kendall_w_{kind_of(row['scope'])}"
        levels = {"chance": row["chance"], "ceiling": row["ceiling"]}
        rows.append((quantity, row, levels))
        if not whole:
            continue
        seeds = over_seeds(row, "jackknife over seeds, t, 95%")
        rows.append(("kendall_w_over_seeds", seeds, levels))
        for name, control, p in (
            ("dealt", "placebo", row["p_placebo"]),
            ("misaligned", "misaligned", math.nan),
        ):
            ends = row[f"{control}_low"], row[f"{control}_high"]
            null = one_row(row[control], *ends, row["n"], p, "central 95% of deals")
            rows.append((f"kendall_w_{name}", null, {"chance": row["chance"]}))
        method = "ICC(C,1) of class means, F 95%"
        icc = one_row(row["icc"], row["icc_low"], row["icc_high"], row["n"], math.nan, method)
        rows.append(("icc_of_class_means", icc, {"chance": 0.0}))
    for _, row in outside.iterrows():
        if row["scope"] == "all":
            rows.append(("kendall_w_held_out", row, {"chance": row["chance"]}))
    return rows


def _between(between: pd.DataFrame) -> list[tuple]:
    """Rank correlation of class means between the architectures, over images and over seeds."""
    rows, quantity = [], "class_rank_correlation_between_architectures"
    for _, row in between[between["arch_a"] != between["arch_b"]].iterrows():
        method = "mean Spearman of class means, bootstrap over groups within class, 95%"
        ends = row["ci_low"], row["ci_high"]
        images = one_row(row["estimate"], *ends, row["n"], row["p"], method)
        levels = {"chance": 0.0, "ceiling": row["ceiling"]}
        rows.append((quantity, images, levels))
        seeds = over_seeds(row, row["method"])
        rows.append((f"{quantity}_over_seeds", seeds, levels))
    return rows


def _rivals(rivals: pd.DataFrame, excess: pd.DataFrame) -> list[tuple]:
    """Correlations with what else orders the classes, and W once that is taken out."""
    rows = []
    for _, row in rivals.iterrows():
        name = row["rival"].replace(" ", "_").replace("-", "_")
        if row["rival"] in _RIVALS:
            found = row.copy()
            found["method"] = "Spearman over classes, Bonett-Wright 95%, classes permuted"
            rows.append((f"{_RIVALS[row['rival']]}_correlation", found, {"chance": 0.0}))
        method = "Kendall's W of what a rank regression leaves"
        left = one_row(row["w_left"], math.nan, math.nan, row["n"], row["p_left"], method)
        rows.append((f"kendall_w_after_{name}", left, {"chance": 1 / row["raters"]}))
    for _, row in excess[excess["scope"] == "all"].iterrows() if len(excess) else ():
        method = "W of events beyond redraws within epoch and sample totals"
        found = one_row(row["estimate"], math.nan, math.nan, row["n"], row["p"], method)
        rows.append(("kendall_w_beyond_margins", found, {"chance": row["null"]}))
    return rows


def _likeness(likeness: pd.DataFrame, confused: pd.DataFrame, measures: pd.DataFrame) -> list:
    """Forgetting and confusions by likeness, and what measures recover of what was planted."""
    rows = []
    for _, row in likeness.iterrows():
        if (row["scope"], row["summary"]) == ("all", "nearest_distance"):
            name = f"forgetting_by_similarity_{measure_name(row['measure'])}"
            rows.append((name, row, {"chance": 0.0}))
    for _, row in confused.iterrows():
        if row["scope"] == "all":
            name = f"confused_with_nearest_{measure_name(row['measure'])}"
            rows.append((name, row, {"chance": row["chance"]}))
    for _, row in measures.iterrows():
        if row["measure_a"] == "planted" and row["measure_b"] != "genus":
            found = row.copy()
            found["method"] = "Mantel on ranks with the planted distances"
            name = f"planted_similarity_recovered_{measure_name(row['measure_b'])}"
            rows.append((name, found, {"chance": 0.0, "planted": 1.0}))
    return rows
