"""Which numbers of notebook 06 go into its result file, and what its verdict says in words."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from retention_lib.config import EQUIVALENCE_MARGIN
from retention_lib.equivalence import BETTER, EQUIVALENT, OPEN, POWER, WORSE
from retention_lib.headlines import kind_of, not_run
from retention_lib.intervals import one_row
from retention_lib.verdicts import record

NAME = "spaced_repetition"
#: The arm that the paper's claim is about.
HEADLINE_ARM = "spaced"
#: What arms are called in figures and tables.
ARMS = {
    "uniform": "uniform",
    "spaced": "spaced repetition, own pilot",
    "spaced_shuffled": "control: constants shuffled",
    "spaced_other_seed": "control: another seed's pilot",
    "leitner": "Leitner boxes",
    "half_life": "half-life regression",
    "loss_proportional": "loss-proportional",
    "repeat": "Repeat before Forgetting",
    "oracle": "oracle",
}
#: What each verdict means, and what would change it.
MEANING = {
    EQUIVALENT: (
        "the difference lies within the margin: spaced repetition does not outperform uniform "
        "sampling, and does not fall behind it",
        "a smaller margin, or seeds that disagree more",
    ),
    BETTER: (
        "spaced repetition outperforms uniform sampling: the paper's negative result does not hold "
        "here, unless the shuffled control is better as well",
        "a control that gains as much: then the schedule helps, and the decay constants do not",
    ),
    WORSE: (
        "spaced repetition falls behind uniform sampling: it does not outperform it",
        "another threshold or share of presentations, under which less is spent on few samples",
    ),
    OPEN: (
        "neither a difference nor its absence is shown: this says nothing against spaced "
        "repetition, and nothing for it",
        "more seeds or more held-out images: see the seeds needed for equivalence",
    ),
}


def sampler_records(table: pd.DataFrame, scales: dict[str, str]) -> list:
    """Records of notebook 06.

    Parameters
    ----------
    table : DataFrame
        Rows of `sampler_differences.differences` with `dataset`.
    scales : dict
        As in `headlines.overlap_records`.

    Returns
    -------
    list of dict
        `accuracy_difference` (spaced minus uniform, mean over architectures; `p` of the equivalence
        test, chance 0; its verdict stands in `method`), `accuracy_difference_<arm>` of the others,
        `..._cnn` and `..._vit` where both were trained; the same of spaced repetition for the other
        measures; `detectable_difference` (found with 80 % power), `equivalence_power` and
        `seeds_for_equivalence`.
    """
    records = []
    for dataset, scale in scales.items():
        if scale is None:
            records += not_run(NAME, dataset)
            continue
        of = table[table["dataset"] == dataset]
        whole = "all" if (of["arch"] == "all").any() else of["arch"].iloc[0]
        for _, row in of[of["measure"] == "accuracy"].iterrows():
            quantity = "accuracy_difference"
            if row["arm"] != HEADLINE_ARM:
                quantity += f"_{row['arm']}"
            if row["arch"] != whole:
                quantity += f"_{kind_of(row['arch'])}"
            records.append(record(NAME, dataset, quantity, _judged(row), 0.0, scale=scale))
        spaced = of[(of["arm"] == HEADLINE_ARM) & (of["arch"] == whole)].set_index("measure")
        for measure, row in spaced.drop(index="accuracy", errors="ignore").iterrows():
            quantity = f"{measure}_difference"
            records.append(record(NAME, dataset, quantity, _judged(row), 0.0, scale=scale))
        if "accuracy" in spaced.index:
            records += _design(dataset, spaced.loc["accuracy"], scale)
    return records


def _judged(row: pd.Series) -> pd.Series:
    out = row.copy()
    out["method"] = f"{row['method']}: {row['verdict']}"
    return out


def _design(dataset: str, row: pd.Series, scale: str) -> list:
    """What the experiment could have seen."""
    known = {
        "detectable_difference": (row["smallest_detectable"], f"t test, {POWER:.0%} power"),
        "equivalence_power": (row["power"], f"margin {row['margin']:g}, true difference 0"),
        "seeds_for_equivalence": (row["seeds_needed"], f"{POWER:.0%} power, true difference 0"),
    }
    records = []
    for quantity, (value, method) in known.items():
        value = value if math.isfinite(value) else math.nan
        one = one_row(value, math.nan, math.nan, row["n"], math.nan, method)
        records.append(record(NAME, dataset, quantity, one, scale=scale))
    return records


def reading(table: pd.DataFrame, scales: dict[str, str]) -> pd.DataFrame:
    """The result in words, one row per data set: what was found, and what would change it.

    Parameters
    ----------
    table, scales
        As in `sampler_records`.

    Returns
    -------
    DataFrame
        `dataset`, `verdict`, `found`, `means`, `would_change`, `controls`.
    """
    rows = []
    for dataset, scale in scales.items():
        if scale is None:
            rows.append({"dataset": dataset, "verdict": "not yet run"})
            continue
        of = table[(table["dataset"] == dataset) & (table["measure"] == "accuracy")]
        of = of[of["arch"] == ("all" if (of["arch"] == "all").any() else of["arch"].iloc[0])]
        by_arm = of.set_index("arm")
        spaced = by_arm.loc[HEADLINE_ARM]
        means, change = MEANING[spaced["verdict"]]
        row = {"dataset": dataset, "verdict": spaced["verdict"], "found": _found(spaced)}
        rows.append(row | {"means": means, "would_change": change, "others": _others(by_arm)})
    return pd.DataFrame(rows).fillna("")


def _found(row: pd.Series) -> str:
    text = f"{100 * row['estimate']:+.1f} points over {row['n']:.0f} seeds"
    if np.isfinite(row["ci_low"]):
        text += f" [{100 * row['ci_low']:+.1f}, {100 * row['ci_high']:+.1f}]"
        text += f"; seen with {POWER:.0%} power: {100 * row['smallest_detectable']:.1f} points"
    needed = row["seeds_needed"]
    if np.isfinite(needed):
        margin = 100 * EQUIVALENCE_MARGIN
        text += f"; {needed:.0f} seeds would show equivalence within {margin:g} point"
    return text


def _others(by_arm: pd.DataFrame) -> str:
    others = by_arm.drop(index=HEADLINE_ARM)
    return ", ".join(f"{arm} {row['verdict']}" for arm, row in others.iterrows())
