"""A specification curve: one number under every convention, and which choices each of them makes.

Two axes, the estimates above the choices, with the same x: conventions sorted by their estimate.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from retention_lib.style import CHANCE

#: Colours of estimates above, below and not told from the null (Okabe and Ito's palette).
ABOVE, BELOW = "#009E73", "#E69F00"


def legend_above(ax: Axes, columns: int = 4) -> None:
    """Outside the axes, and without taking width from them."""
    look = {"fontsize": 5.8, "handlelength": 1, "handletextpad": 0.3, "columnspacing": 0.8}
    legend = ax.legend(
        ncols=columns, loc="lower left", bbox_to_anchor=(-0.02, 1), borderaxespad=0, **look
    )
    if not ax.get_title(loc="left"):
        ax.set_title(" ", fontsize=6)  # takes the height that the legend needs
    legend.set_in_layout(False)


def only_first_column(ax: Axes) -> None:
    """Name the rows in the first column of a figure only."""
    place = ax.get_subplotspec()
    if place is not None and not place.is_first_col():
        ax.tick_params(axis="y", labelleft=False)


def estimates(
    ax: Axes,
    table: pd.DataFrame,
    ylabel: str,
    null: float = 0.0,
    column: str = "estimate",
    names: tuple[str, str] = ("above", "below"),
    colours: tuple[str, str] = (ABOVE, BELOW),
    ylim: tuple[float, float] | None = None,
    primary: str = "primary",
) -> Axes:
    """The number under every convention, sorted, with intervals; the primary one starred.

    Parameters
    ----------
    table : DataFrame
        One row per convention: `column`, `ci_low`, `ci_high` (NaN: no interval, drawn as a dot
        that is not told from the null) and the bool `primary`.
    null : float
        Where the dotted line is; the legend counts the intervals above and below it.
    names : (str, str)
        What an interval above, and one below, is called.
    primary : str
        What the primary convention is called in the legend.
    """
    table = table.sort_values(column, ignore_index=True)
    low, high = table["ci_low"], table["ci_high"]
    undecided = ~((low > null) | (high < null))
    for holds, shade, label in (
        (low > null, colours[0], names[0]),
        (high < null, colours[1], names[1]),
        (undecided, CHANCE, "undecided"),
    ):
        at = table.index[holds]
        ax.vlines(at, low[holds], high[holds], colors=shade, lw=0.6)
        share = holds.mean() if len(table) else 0.0
        ax.plot(at, table[column][holds], ".", c=shade, ms=2.5, label=f"{label} {share:.0%}")
    star = table.index[table["primary"].astype(bool)]
    ax.plot(star, table[column][star], "*", mfc="white", mec="black", ms=7, label=primary)
    ax.axhline(null, color=CHANCE, lw=0.6, ls=":")
    ax.set(ylabel=ylabel, xlabel="", xlim=(-1, len(table)), ylim=ylim)
    ax.tick_params(labelbottom=False)
    legend_above(ax)
    return ax


def choices(
    ax: Axes, table: pd.DataFrame, columns: dict[str, dict], column: str = "estimate"
) -> Axes:
    """Which choices each convention of `estimates` makes, a dash for each.

    Parameters
    ----------
    columns : dict
        Column of the table -> its values from top to bottom and what they are called. Values that
        no row has are left out.
    """
    table = table.sort_values(column, ignore_index=True)
    labels, y = [], 0.0
    width = max(0.5, min(4.0, 120 / max(1, len(table))))
    for name, values in columns.items():
        for value, label in values.items():
            at = table.index[table[name] == value]
            if len(at):
                ax.plot(at, np.full(len(at), y), "|", c="0.25", ms=3, mew=width)
                labels.append((y, label))
                y += 1
        y += 0.5
    ax.set_yticks([at for at, _ in labels], [label for _, label in labels], fontsize=5.5)
    only_first_column(ax)
    ax.set(xlabel=f"{len(table)} conventions, sorted", xlim=(-1, len(table)), ylim=(y, -1))
    ax.tick_params(axis="y", length=0)
    return ax
