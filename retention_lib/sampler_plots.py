"""Figure of notebook 06: axes in, axes out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from retention_lib import specification_plots
from retention_lib.config import EQUIVALENCE_MARGIN, REFERENCE
from retention_lib.sampler_differences import READINGS
from retention_lib.sampler_headlines import ARMS, HEADLINE_ARM
from retention_lib.style import CHANCE

#: Colour (Okabe and Ito's), line and marker of every arm.
LOOKS = {
    "uniform": ("#000000", "-", "o"),
    "spaced": ("#0072B2", "-", "s"),
    "spaced_shuffled": ("#56B4E9", "--", "D"),
    "spaced_other_seed": ("#56B4E9", ":", "d"),
    "leitner": ("#009E73", "-", "^"),
    "half_life": ("#009E73", "--", "v"),
    "loss_proportional": ("#E69F00", "-", "P"),
    "repeat": ("#D55E00", "-", "X"),
    "oracle": ("#CC79A7", "-", "*"),
}


def paired_differences(ax: Axes, table: pd.DataFrame) -> Axes:
    """Accuracy of every arm minus uniform: seeds as dots, mean, 95 and 90 % interval, margin.

    Parameters
    ----------
    table : DataFrame
        Rows of `sampler_differences.differences` of one architecture, measure `accuracy`.
    """
    for y, (_, row) in enumerate(table.iterrows()):
        shade, _, marker = LOOKS[row["arm"]]
        for low, high, width in (("ci_low", "ci_high", 1.0), ("low_90", "high_90", 2.6)):
            ends = [100 * row[low], 100 * row[high]]
            ax.plot(ends, [y, y], c=shade, lw=width, solid_capstyle="butt")
        ax.plot(100 * row["estimate"], y, marker, c=shade, mec="white", ms=6)
        count = f"{ARMS[row['arm']]} (n = {row['n']:.0f} seeds): {row['verdict']}"
        where = ax.get_yaxis_transform()
        ax.text(0.01, y - 0.2, count, transform=where, va="bottom", fontsize=6.5)
    margin = 100 * EQUIVALENCE_MARGIN
    ax.axvspan(-margin, margin, color=CHANCE, alpha=0.2, lw=0, label=f"margin, {margin:g} point")
    ax.axvline(0, color=CHANCE, lw=0.6, ls=":")
    ax.plot([], [], "k-", lw=2.6, label="90 % interval (decides equivalence)")
    ax.plot([], [], "k-", lw=1.0, label="95 %")
    ax.set(yticks=[], ylim=(len(table) - 0.5, -0.75))
    ax.set(xlabel="held-out accuracy, arm minus uniform, paired by seed [percentage points]")
    ax.spines["left"].set_visible(False)
    specification_plots.legend_above(ax, columns=3)
    if title := ax.get_title(loc="left"):
        ax.set_title(title, loc="left", fontweight="bold", pad=14)  # above the legend
    return ax


def curves(ax: Axes, table: pd.DataFrame, measure: str = "accuracy") -> Axes:
    """Held-out learning curve of every arm, mean over seeds; the band spans uniform's seeds.

    Parameters
    ----------
    table : DataFrame
        Rows of `sampler_outcomes.learning_curves` of one architecture.
    """
    for arm, of in table.groupby("arm", sort=False):
        shade, line, marker = LOOKS[arm]
        by_epoch = of.groupby("epoch")[measure].agg(["mean", "min", "max"])
        ax.plot(by_epoch.index, by_epoch["mean"], line, c=shade, marker=marker, ms=3, lw=1,
                label=ARMS[arm])  # fmt: skip
        if arm == REFERENCE:
            span = (by_epoch["min"], by_epoch["max"])
            ax.fill_between(by_epoch.index, *span, color=shade, alpha=0.12, lw=0)
    seeds = table["seed"].nunique()
    ylabel = f"held-out {measure.replace('_', ' ')}\n(mean of {seeds} seeds)"
    ax.set(xlabel="epoch (0 = after head warm-up)", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    specification_plots.legend_above(ax, columns=5)
    return ax


def shown_against_constant(ax: Axes, table: pd.DataFrame) -> Axes:
    """How often samples were shown, relative to uniform, by the decay constant of their pilot.

    Parameters
    ----------
    table : DataFrame
        Rows of `presentations.shown_by_constant` of one architecture. Groups whose constants are
        equal in all seeds are one; the position is the group, the label its median constant.
    """
    groups = table.groupby("group")
    labels = [
        f"{of['constant'].median():.2g}\n(n = {of['samples'].mean():.0f})" for _, of in groups
    ]
    place = {group: i for i, group in enumerate(groups.groups)}
    arms = list(dict.fromkeys(table["arm"]))
    for k, arm in enumerate(arms):
        shade, line, marker = LOOKS[arm]
        of = table[table["arm"] == arm].groupby("group")["ratio"].agg(["mean", "min", "max"])
        x = np.array([place[g] for g in of.index]) + 0.06 * (k - (len(arms) - 1) / 2)
        ax.vlines(x, of["min"], of["max"], colors=shade, lw=0.8)
        ax.plot(x, of["mean"], line, c=shade, marker=marker, ms=4, lw=1)
    ax.axhline(1, color=CHANCE, lw=0.6, ls=":")
    ax.set_xticks(list(place.values()), labels, fontsize=6)
    ax.set(xlabel="decay constant λ by the pilot, median of the group [1 / epoch]")
    ax.set(ylabel="shown, relative to\nan even share", ylim=(0, None))
    return ax


def class_shares(ax: Axes, table: pd.DataFrame) -> Axes:
    """How often images of each class were shown, relative to the class's share of the samples.

    Parameters
    ----------
    table : DataFrame
        Rows of `presentations.class_balance` of one architecture.
    """
    size = table.groupby("class")["samples"].first().sort_values(ascending=False)
    names, arms = list(size.index), list(dict.fromkeys(table["arm"]))
    for k, arm in enumerate(arms):
        shade, _, marker = LOOKS[arm]
        of = table[table["arm"] == arm].groupby("class")["ratio"].agg(["mean", "min", "max"])
        x = np.arange(len(names)) + 0.1 * (k - (len(arms) - 1) / 2)
        of = of.loc[names]
        ax.vlines(x, of["min"], of["max"], colors=shade, lw=0.8)
        ax.plot(x, of["mean"], ls="none", c=shade, marker=marker, ms=3.5)
    ax.axhline(1, color=CHANCE, lw=0.6, ls=":")
    if len(names) <= 12:
        labels = [f"{name}\n(n = {size[name]})" for name in names]
        ax.set_xticks(range(len(names)), labels, fontsize=6)
    ax.set(xlabel="class, by its number of training images", ylabel="shown, relative to\nits share")
    ax.set_ylim(0, None)
    return ax


#: What the rows under the specification curve are called.
CHOICES = {
    "measure": {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced",
        "macro_f1": "macro-F1",
    },
    "reading": READINGS,
}


def column(axes, table, epochs, by_constant, balance, readings) -> None:
    """All panels of one data set, from top to bottom; of several architectures, their mean."""
    whole = "all" if (table["arch"] == "all").any() else table["arch"].iloc[0]
    mine = table[(table["arch"] == whole) & (table["measure"] == "accuracy")]
    paired_differences(axes[0], mine)
    curves(axes[1], epochs)
    shown_against_constant(axes[2], by_constant)
    class_shares(axes[3], balance)
    spaced = readings[(readings["arm"] == HEADLINE_ARM) & (readings["arch"] == whole)]
    spaced = spaced.assign(**{c: 100 * spaced[c] for c in ("estimate", "ci_low", "ci_high")})
    names = ("spaced better", "spaced worse")
    specification_plots.estimates(axes[4], spaced, "spaced minus\nuniform [points]", names=names)
    specification_plots.choices(axes[5], spaced, CHOICES)
