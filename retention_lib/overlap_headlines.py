"""Which numbers of notebook 01 go into its result file: the overlap, and what stands beside it."""

from __future__ import annotations

import math

import pandas as pd

from retention_lib import headlines
from retention_lib.agreement import CROSS
from retention_lib.headlines import kind_of
from retention_lib.intervals import one_row
from retention_lib.verdicts import record

NAME = "architecture_overlap"
_KINDS = {"cnn": "CNN", "vit": "ViT"}
#: What the rows of notebook 01's figure are called.
OVERLAP_ROWS = {
    "jaccard": "between architectures",
    "jaccard_between_seeds_cnn": "CNN, two seeds",
    "jaccard_between_seeds_vit": "ViT, two seeds",
    "jaccard_misaligned": "samples misaligned",
    "jaccard_curveball": "between architectures, redrawn in time",
    "jaccard_held_out": "between architectures, held-out images",
    "jaccard_of_known_overlap": "control: known overlap, no ties",
    "jaccard_of_known_overlap_with_ties": "control: known overlap, ties",
}


def overlap_records(
    overlap: pd.DataFrame,
    tied: pd.DataFrame,
    untied: pd.DataFrame,
    scales: dict[str, str],
    missing: pd.DataFrame,
    outside: pd.DataFrame,
    redrawn: pd.DataFrame,
    ranks: pd.DataFrame,
    one_sided: pd.DataFrame,
    conventions: pd.DataFrame,
    score: str,
) -> list:
    """Records of notebook 01: those of `headlines.overlap_records`, and what stands beside them.

    Parameters
    ----------
    overlap, tied, untied, scales
        As in `headlines.overlap_records`.
    missing, outside : DataFrame
        Rows of `findings_overlap.missing_share` on training and on held-out images, with `dataset`.
    redrawn, ranks, one_sided, conventions : DataFrame
        Rows of `controls.redrawn_overlap`, `findings_overlap.rank_correlations`,
        `one_sided.only_one_forgets` and `missing_agreement.agreement_of_conventions`.
    score : str
        Whose rank correlation is the quantity without a suffix.

    Returns
    -------
    list of dict
        Of the missing share, `chance` is 1 (no better than classes make them) and `ceiling` what
        unequal noise alone would leave missing. Of samples that one architecture alone forgets,
        `chance` is the share that one set of seeds alone forgets.
    """
    records = []
    for dataset, scale in scales.items():
        records += headlines.overlap_records(overlap, tied, untied, {dataset: scale})
        if scale is None:
            continue
        here = [
            table[table["dataset"] == dataset]
            for table in (missing, outside, redrawn, ranks, one_sided, conventions)
        ]
        records += _missing_records(dataset, scale, *here[:2])
        records += _redrawn_records(dataset, scale, here[2])
        records += _rank_records(dataset, scale, here[3], score)
        records += _one_sided_records(dataset, scale, here[4])
        records += _convention_records(dataset, scale, here[5])
    return records


def _missing_records(dataset: str, scale: str, missing, outside) -> list:
    row, other = missing.iloc[0], outside.iloc[0]
    levels = {"chance": 1.0, "ceiling": row["same_difficulty"], "scale": scale}
    records = [record(NAME, dataset, "missing_share", row, **levels)]
    seeds = headlines.over_seeds(row, "jackknife over seeds, t, 95%")
    records.append(record(NAME, dataset, "missing_share_over_seeds", seeds, **levels))
    levels["ceiling"] = other["same_difficulty"]
    records.append(record(NAME, dataset, "missing_share_held_out", other, **levels))
    ends = other["cross"], other["cross_low"], other["cross_high"]
    found = one_row(*ends, other["n"], math.nan, "held-out images, bootstrap over groups, 95%")
    levels |= {"chance": other["chance"], "ceiling": other["ceiling"]}
    return [*records, record(NAME, dataset, "jaccard_held_out", found, **levels)]


def _redrawn_records(dataset: str, scale: str, redrawn) -> list:
    """What margin-preserving redraws reach; `p` is that of the real overlap among them."""
    records, method = [], "central 95% of redraws"
    for _, row in redrawn.iterrows():
        ends = row["null_mean"], row["null_low"], row["null_high"]
        found = one_row(*ends, row["draws"], row["p"], method)
        same = row["arch_a"] == row["arch_b"]
        of = f"between_seeds_{kind_of(row['arch_a'])}_" if same else ""
        records.append(record(NAME, dataset, f"jaccard_{of}curveball", found, scale=scale))
    return records


def _rank_records(dataset: str, scale: str, ranks, score: str) -> list:
    records = []
    for _, row in ranks[ranks["kind"] == CROSS].iterrows():
        main = row["score"] == score
        if row["measure"] == "kendall" and not main:
            continue  # in the table of plotted numbers
        quantity = f"{row['measure']}_between_architectures" + ("" if main else f"_{row['score']}")
        levels = {"chance": 0.0, "ceiling": row["ceiling"], "scale": scale}
        records.append(record(NAME, dataset, quantity, row, **levels))
        if quantity == "spearman_between_architectures":
            seeds = headlines.over_seeds(row, "jackknife over seeds, t, 95%")
            records.append(record(NAME, dataset, f"{quantity}_over_seeds", seeds, **levels))
            control = row["control"], math.nan, math.nan, row["n"], math.nan, "misaligned"
            wrong = one_row(*control)
            records.append(record(NAME, dataset, "spearman_misaligned", wrong, 0.0, scale=scale))
    return records


def _one_sided_records(dataset: str, scale: str, one_sided) -> list:
    rows = one_sided[one_sided["strength"] == "any"]
    a, b = rows[["arch_a", "arch_b"]].iloc[0]
    rows = rows[(rows["arch_a"] == a) & (rows["arch_b"] == b)].set_index("quantity")
    sides = {"one_architecture": ("one architecture", "one set of seeds")}
    for x, y in ((a, b), (b, a)):
        sides[f"{kind_of(x)}_only"] = (f"{x}, not {y}", f"{x}, not other seeds")
    records = []
    for of, (across, within) in sides.items():
        quantity, level = f"forgotten_by_{of}", rows.loc[within, "estimate"]
        records.append(record(NAME, dataset, quantity, rows.loc[across], level, scale=scale))
    excess = rows.loc["excess"]
    quantity, level = "forgotten_by_one_architecture_excess", excess["by_rate"]
    return [*records, record(NAME, dataset, quantity, excess, level, scale=scale)]


def _convention_records(dataset: str, scale: str, conventions) -> list:
    """Shares of conventions; they are not a sample of anything, hence no interval."""
    row, records = conventions.iloc[0], []
    for name, of in (("above_chance", "conventions"), ("some_missing", "with_value")):
        share = one_row(row[name], math.nan, math.nan, row[of], math.nan, "share of conventions")
        records.append(record(NAME, dataset, f"conventions_{name}", share, scale=scale))
    median, n = row["missing_median"], row["with_value"]
    middle = one_row(median, math.nan, math.nan, n, math.nan, "median over conventions")
    return [*records, record(NAME, dataset, "missing_share_median", middle, 1.0, scale=scale)]


def rank_table(ranks: pd.DataFrame) -> pd.DataFrame:
    """`findings_overlap.rank_correlations` to be read: a row per score and measure, as text.

    Returns
    -------
    DataFrame
        Estimates with their intervals over images, between architectures and between two seeds of
        each; `ceiling` and the `misaligned` control. Empty if there is nothing.
    """
    if ranks.empty:
        return ranks
    rows: dict[tuple, dict] = {}
    for _, row in ranks.iterrows():
        key = {name: row[name] for name in ("dataset", "score", "measure")}
        out = rows.setdefault(tuple(key.values()), key)
        cross = row["kind"] == CROSS
        what = "between architectures" if cross else f"{_KINDS[kind_of(row['arch_a'])]}, two seeds"
        text = f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
        out[what] = text.replace("nan [nan, nan]", "constant")
        if cross:
            control = f"{row['control']:.2f}".replace("-0.00", "0.00")
            out |= {"ceiling": f"{row['ceiling']:.2f}", "misaligned": control}
    table = pd.DataFrame(rows.values())
    last = ["ceiling", "misaligned"]
    return table[[*(name for name in table if name not in last), *last]]


def plotted(**tables: pd.DataFrame) -> pd.DataFrame:
    """The plotted numbers below each other, the panel they belong to in the column `panel`.

    Examples
    --------
    >>> plotted(curves=pd.DataFrame({"x": [1]}), pairs=pd.DataFrame({"y": [2]})).columns.tolist()
    ['panel', 'x', 'y']
    """
    parts = [table.assign(panel=name) for name, table in tables.items() if len(table)]
    if not parts:
        return pd.DataFrame({"panel": []})
    whole = pd.concat(parts, ignore_index=True)
    return whole[["panel", *(name for name in whole if name != "panel")]]
