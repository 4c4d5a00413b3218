"""Which numbers of notebook 02 go into its result file, beside paper and planted truth."""

from __future__ import annotations

import math

import pandas as pd

from retention_lib.headlines import kind_of, not_run, over_seeds
from retention_lib.intervals import one_row
from retention_lib.verdicts import record

#: What the rows of notebook 02's figure are called.
STRUCTURE_ROWS = {
    "r2_cnn": "CNN",
    "r2_vit": "ViT",
    "r2_difference": "ViT minus CNN",
    "log_loss_skill_cnn": "skill of the curve in another seed, CNN",
    "log_loss_skill_vit": "skill of the curve in another seed, ViT",
    "r2_difference_of_known_traces": "control: known difference",
}


def structure_records(
    means: pd.DataFrame,
    known: pd.DataFrame,
    scales: dict[str, str],
    controlled: pd.DataFrame,
    skill: pd.DataFrame,
    swapped: pd.DataFrame,
) -> list:
    """Records of notebook 02.

    Parameters
    ----------
    means, known, controlled, skill, swapped : DataFrame
        Rows of `structure.mean_r2`, `controls.known_structure`, `placebos.placebo_table`,
        `rivals.cross_seed` and `survival.compare_architectures`, with `dataset`.
    scales : dict
        As in `headlines.overlap_records`.
    """
    name, records = "decay_structure", []
    for dataset, scale in scales.items():
        if scale is None:
            records += not_run(name, dataset)
            continue
        records += _placebo_records(name, dataset, controlled, scale)
        records += _skill_records(name, dataset, skill, scale)
        for _, row in swapped[swapped["dataset"] == dataset].iterrows():
            quantity = "survival_difference"
            records.append(record(name, dataset, quantity, row, 0.0, scale=scale))
        for _, row in means[means["dataset"] == dataset].iterrows():
            after, _, before = row["quantity"].partition(" - ")
            quantity = "r2_difference" if before else f"r2_{kind_of(after)}"
            levels = {"chance": row["chance"], "ceiling": row["ceiling"], "scale": scale}
            records.append(record(name, dataset, quantity, row, **levels))
            if before:
                seeds = over_seeds(row, "t over seeds, 95%")
                records.append(record(name, dataset, f"{quantity}_over_seeds", seeds, **levels))
            else:
                flat = one_row(row["flat"], math.nan, math.nan, row["traces"], math.nan, "share")
                records.append(
                    record(name, dataset, f"flat_traces_{kind_of(after)}", flat, scale=scale)
                )
        for _, row in known[known["dataset"] == dataset].iterrows():
            if row["quantity"] == "difference":
                planted = {"planted": row["planted"], "scale": scale}
                records.append(
                    record(name, dataset, "r2_difference_of_known_traces", row, **planted)
                )
    return records


def _placebo_records(name: str, dataset: str, controlled: pd.DataFrame, scale: str) -> list:
    """What R^2 margin-preserving redraws reach, and held-out images."""
    records = []
    for _, row in controlled[controlled["dataset"] == dataset].iterrows():
        after, _, before = row["quantity"].partition(" - ")
        of = "difference" if before else kind_of(after)
        ends, method = row[["curveball_low", "curveball_high"]], "central 95% of redraws"
        redrawn = one_row(row["curveball"], *ends, row["draws"], row["p"], method)
        records.append(record(name, dataset, f"r2_curveball_{of}", redrawn, scale=scale))
        outside = one_row(row["held_out"], math.nan, math.nan, 0, math.nan, "held-out images")
        outside["n"] = int(row["held_out_n"])
        records.append(record(name, dataset, f"r2_held_out_{of}", outside, scale=scale))
    return records


def _skill_records(name: str, dataset: str, skill: pd.DataFrame, scale: str) -> list:
    """Cross-seed skill of the exponential; its ceiling is the sample's difficulty and the epoch."""
    records = []
    for arch, of in skill[skill["dataset"] == dataset].groupby("arch", sort=False):
        of = of.set_index("model")
        row, best = of.loc["exponential"], of.loc["rasch", "skill"]
        method = "bootstrap over groups within class, 95%"
        found = one_row(row["skill"], row["ci_low"], row["ci_high"], row["n"], math.nan, method)
        quantity = f"log_loss_skill_{kind_of(arch)}"
        records.append(record(name, dataset, quantity, found, 0.0, best, scale=scale))
    return records
