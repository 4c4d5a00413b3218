"""Which numbers of notebook 05 go into its result file, beside paper and planted truth."""

from __future__ import annotations

import math

import pandas as pd

from retention_lib.agreement import CROSS, MISALIGNED, SAME
from retention_lib.headlines import kind_of, not_run, over_seeds
from retention_lib.intervals import one_row
from retention_lib.link_tables import ALL
from retention_lib.verdicts import record

NAME = "early_loss"
#: What the rows of notebook 05's figure are called.
EARLY_ROWS = {
    "spearman": "all runs",
    "spearman_cnn": "CNN",
    "spearman_vit": "ViT",
    "spearman_held_out": "held-out images, never trained on",
    "spearman_curveball": "redraws that keep margins only",
    "spearman_misaligned": "samples misaligned",
    "spearman_of_known_association": "control: known correlation",
    "spearman_of_known_association_fitted": "control, constants fitted",
}
#: Rows of `early_rivals.conditions` that are recorded.
_CONDITIONS = {
    "given class": "spearman_within_class",
    "right at epoch 0 only": "spearman_given_first_correct",
    "trace from epoch 1": "spearman_without_epoch_0",
    "given learned epoch": "spearman_given_learned_epoch",
    "from learned epoch": "spearman_since_learned",
}
_KINDS = {
    SAME: "spearman_other_seed",
    CROSS: "spearman_other_architecture",
    MISALIGNED: "spearman_misaligned",
}
#: Where no relation means 0. Elsewhere classes alone give some correlation, which is the headline's
#: chance level.
_UNRELATED = {"given class", MISALIGNED}
_CONTROLS = {
    "true": "spearman_of_known_association",
    "literal": "spearman_of_known_association_fitted",
}


def early_records(
    main: pd.DataFrame,
    held: pd.DataFrame,
    moved: pd.DataFrame,
    means: pd.DataFrame,
    controlled: pd.DataFrame,
    predicted: pd.DataFrame,
    known: pd.DataFrame,
    scales: dict[str, str],
) -> list:
    """Records of notebook 05.

    Parameters
    ----------
    main, held, controlled, known : DataFrame
        Rows with `dataset` of `early_association.headline`, `early_rivals.conditions`,
        `early_placebos.placebos` and `known_association`.
    moved, means : DataFrame
        Rows of `transfer.transfer_table` and `transfer.mean_transfer`.
    predicted : DataFrame
        Rows of `out_of_sample.prediction_table`.
    scales : dict
        As in `headlines.overlap_records`.
    """
    records = []
    for dataset, scale in scales.items():
        if scale is None:
            records += not_run(NAME, dataset)
            continue
        of = [
            table[table["dataset"] == dataset]
            for table in (main, held, moved, means, controlled, predicted, known)
        ]
        records += _main(dataset, of[0], scale)
        records += _every_run(dataset, of[1], "condition", _CONDITIONS, scale)
        records += _every_run(dataset, of[2], "kind", _KINDS, scale, {SAME: _ceiling(of[3])})
        records += _placebos(dataset, of[4], scale)
        records += _predictions(dataset, of[5], scale)
        records += _controls(dataset, of[6], scale)
    return records


def _main(dataset: str, main: pd.DataFrame, scale: str) -> list:
    """The headline; its chance level is what the classes alone give."""
    records = []
    for _, row in main.iloc[(main["arch"] != ALL).argsort(kind="stable")].iterrows():
        whole = row["arch"] == ALL
        quantity = "spearman" if whole else f"spearman_{kind_of(row['arch'])}"
        levels = {"chance": row["null_mean"], "scale": scale}
        records.append(record(NAME, dataset, quantity, row, **levels))
        if whole:
            seeds = over_seeds(row, "jackknife over seeds, t, 95%")
            records.append(record(NAME, dataset, "spearman_over_seeds", seeds, **levels))
    return records


def _every_run(
    dataset: str, table: pd.DataFrame, what: str, names: dict, scale: str, ceilings=None
) -> list:
    """Rows over all runs, under the names that they are recorded by."""
    records = []
    for _, row in table[table["arch"] == ALL].iterrows():
        if row[what] in names:
            levels = {"ceiling": (ceilings or {}).get(row[what], math.nan), "scale": scale}
            levels["chance"] = 0.0 if row[what] in _UNRELATED else math.nan
            records.append(record(NAME, dataset, names[row[what]], row, **levels))
    return records


def _ceiling(means: pd.DataFrame) -> float:
    """What another seed's decay allows: sqrt(rho(L, L') rho(c, c')), mean over architectures."""
    same = means[(means["kind"] == SAME) & means["disattenuated"].notna()]
    return float((same["estimate"] / same["disattenuated"]).mean())


def _placebos(dataset: str, controlled: pd.DataFrame, scale: str) -> list:
    row = controlled[controlled["arch"] == ALL].iloc[0]
    ends, method = row[["ci_low", "ci_high"]], "held-out images, bootstrap over groups, 95%"
    outside = one_row(row["held_out"], *ends, row["held_out_n"], math.nan, method)
    ends, method = row[["curveball_low", "curveball_high"]], "central 95% of redraws"
    redrawn = one_row(row["curveball"], *ends, row["draws"], row["p"], method)
    return [
        record(NAME, dataset, "spearman_held_out", outside, scale=scale),
        record(NAME, dataset, "spearman_curveball", redrawn, scale=scale),
    ]


def _predictions(dataset: str, predicted: pd.DataFrame, scale: str) -> list:
    """AUC of the early loss alone, of ever-learned samples; its interval is over seeds."""
    at = predicted["measure"].str.startswith("AUC") & (predicted["of"] == "ever learned")
    records = []
    for _, row in predicted[at & (predicted["predictor"] == "log loss")].iterrows():
        quantity = f"auc_forgotten_{kind_of(row['arch'])}"
        records.append(record(NAME, dataset, quantity, row, 0.5, scale=scale))
    return records


def _controls(dataset: str, known: pd.DataFrame, scale: str) -> list:
    records = []
    for _, row in known[known["arch"] == ALL].iterrows():
        if row["constants"] in _CONTROLS:
            levels = {"planted": row["planted"], "scale": scale}
            quantity = _CONTROLS[row["constants"]]
            records.append(record(NAME, dataset, quantity, row, **levels))
    return records
