"""Figures of notebook 05: axes in, axes out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from retention_lib import layout, plots, specification_plots
from retention_lib.early_headlines import EARLY_ROWS
from retention_lib.link_tables import ALL
from retention_lib.specification_plots import legend_above, only_first_column
from retention_lib.style import CHANCE, looks, short_arch

#: Order of a convention's choices from top to bottom, and what they are called.
_CHOICES = {
    "target": {
        "decay_constant": "decay constant",
        "mean_error": "mean error",
        "events": "events",
        "forgetting_score": "events, never learned first",
    },
    "origin": {"epoch_0": "from epoch 0", "first_learned": "from learned epoch"},
    "model": {"exponential": "exponential", "exponential_floor": "with floor"},
    "loss": {"least_squares": "least squares", "bernoulli": "Bernoulli"},
    "never_learned": {"kept": "never learned kept", "left out": "left out"},
    "view": {"clean": "clean traces", "online": "online traces"},
    "early": {"clean": "clean loss, epoch 0", "online": "online loss, epoch 1"},
    "given": {"nothing": "as it is", "class": "given class"},
}
#: What pairs of runs are called.
_KINDS = {
    "same_run": "same run",
    "same_architecture": "decay of another seed",
    "cross_architecture": "decay of the other architecture",
    "misaligned": "samples misaligned",
}
_PREDICTORS = {"log loss": "early loss", "class": "class", "log loss and class": "both"}


def column(axes, records, parts, held, beside, moved, predicted, readings, dataset) -> None:
    """One data set's column of notebook 05's figure, eight axes from top to bottom.

    `records` of `early_headlines.early_records`; the tables, each of this data set, are those of
    `early_association.by_decile`, `early_rivals.conditions` and `rivals`,
    `transfer.transfer_table`, `out_of_sample.prediction_table` and
    `early_specification.specification`.
    """
    deciles(axes[0], parts)
    headline(axes[1], records, dataset)
    by_arch(axes[2], held, "condition", "what is held fixed: Spearman")
    rivals(axes[3], beside)
    by_arch(axes[4], moved.assign(kind=moved["kind"].map(_KINDS)), "kind", "early loss: Spearman")
    predictions(axes[5], predicted)
    specification_plots.estimates(axes[6], readings, "Spearman")
    specification_plots.choices(axes[7], readings, _CHOICES)


def deciles(ax: Axes, table: pd.DataFrame) -> Axes:
    """Mean rank of the decay constant by tenth of the early loss; bands span the seeds.

    Parameters
    ----------
    table : DataFrame
        `early_association.by_decile` of one data set.
    """
    for arch, of in table.groupby("arch", sort=False):
        shade, line, marker = looks(arch)
        label = f"{short_arch(arch)}, n = {of['n'].mean():,.0f} a tenth"
        ax.plot(of["loss"], of["decay"], line, c=shade, marker=marker, ms=3, label=label)
        ax.fill_between(of["loss"], of["low"], of["high"], color=shade, alpha=0.18, lw=0)
    ax.axhline(50, color=CHANCE, ls=":", lw=0.8, label="no relation")
    ax.set(xlabel="rank of the loss at epoch 0 [%]", ylabel="mean rank of decay constant [%]")
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.legend(loc="upper left")
    return ax


def headline(ax: Axes, records: list[dict], dataset: str) -> Axes:
    """The correlation between what classes alone give, its placebos and its controls.

    The paper's range is a band, where the data set has one.
    """
    table = layout.record_rows(records, dataset, EARLY_ROWS)
    known = [value for value in table.pop("paper") if isinstance(value, tuple | list)]
    for low, high in known[:1]:
        ax.axvspan(low, high, color=CHANCE, alpha=0.25, lw=0, label="paper")
    return plots.interval_rows(ax, table, "Spearman: loss at epoch 0, decay constant", null=0.0)


def by_arch(ax: Axes, table: pd.DataFrame, what: str, xlabel: str, null: float = 0.0) -> Axes:
    """Estimates with intervals, a row per value of the column `what`, a mark per architecture."""
    names = list(dict.fromkeys(table[what]))
    archs = [arch for arch in dict.fromkeys(table["arch"]) if arch != ALL]
    for i, arch in enumerate(archs):
        of = table[table["arch"] == arch].set_index(what).reindex(names)
        y = np.arange(len(names))[::-1] + 0.24 * (len(archs) / 2 - 0.5 - i)
        shade, _, marker = looks(arch)
        ax.hlines(y, of["ci_low"], of["ci_high"], colors=shade, lw=1.5)
        label = f"{short_arch(arch)}, n = {of['n'].max():,.0f}"
        ax.plot(of["estimate"], y, marker, c=shade, ms=3.5, ls="none", label=label)
    ax.axvline(null, color=CHANCE, lw=0.6, ls=":", zorder=0)
    ax.set_yticks(np.arange(len(names))[::-1], names, fontsize=6)
    ax.set(xlabel=xlabel, ylim=(-0.6, len(names) - 0.4))
    only_first_column(ax)
    legend_above(ax, 2)
    return ax


def rivals(ax: Axes, table: pd.DataFrame) -> Axes:
    """Every predictor as it is (filled) and given class (open), a row per predictor.

    Parameters
    ----------
    table : DataFrame
        `early_rivals.rivals` of one data set.
    """
    by_arch(ax, table[table["quantity"] == "spearman"], "predictor", "predictor: Spearman")
    names = list(dict.fromkeys(table["predictor"]))
    archs = [arch for arch in dict.fromkeys(table["arch"]) if arch != ALL]
    given = table[table["quantity"] == "given class"]
    for i, arch in enumerate(archs):
        of = given[given["arch"] == arch].set_index("predictor").reindex(names)
        y = np.arange(len(names))[::-1] + 0.24 * (len(archs) / 2 - 0.5 - i)
        shade, _, marker = looks(arch)
        ax.plot(of["estimate"], y, marker, mec=shade, mfc="white", ms=3.5, ls="none", zorder=3)
    ax.plot([], [], "o", mec="black", mfc="white", ms=3.5, label="given class")
    legend_above(ax, 3)
    return ax


def predictions(ax: Axes, table: pd.DataFrame) -> Axes:
    """Out-of-sample AUC for "will be forgotten", intervals over seeds, a row per predictor.

    Parameters
    ----------
    table : DataFrame
        `out_of_sample.prediction_table` of one data set.
    """
    table = table[table["measure"].str.startswith("AUC")]
    table = table[table["predictor"].isin(_PREDICTORS)]
    row = table["predictor"].map(_PREDICTORS) + ", " + table["of"]
    table = table.assign(row=row, n=table["samples"])
    by_arch(ax, table, "row", "AUC out of sample: will be forgotten", null=0.5)
    low, high = ax.get_xlim()
    ax.set_xlim(max(low, -0.02), min(high, 1.02))  # Student's interval of two seeds has no limits
    return ax
