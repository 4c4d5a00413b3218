"""Figure of notebook 99: paper, planted truth, and what findings imply about each other."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from retention_lib.style import CHANCE, PAGE, use_style


def summary_figure(rows: dict[str, int], width: float = PAGE):
    """A figure with one axes below another, each as high as its rows ask for.

    Parameters
    ----------
    rows : dict
        Name of the axes -> number of rows that it will show.

    Returns
    -------
    figure, dict of Axes
    """
    use_style()
    heights = [0.8 + (0.2 if name == "implied" else 0.3) * n for name, n in rows.items()]
    size, ratios = (width, sum(heights)), {"height_ratios": heights}
    return plt.subplot_mosaic([[name] for name in rows], figsize=size, gridspec_kw=ratios)


def implied(ax: Axes, paper: pd.DataFrame, runs: pd.DataFrame) -> Axes:
    """Implied correlation across seeds (grey bar or dot) beside the measured range (black line).

    Parameters
    ----------
    paper, runs : DataFrame
        `consistency.implied_by_paper` and `implied_table`; the second may be empty.
    """
    table = pd.concat([paper.assign(profile="paper"), runs], ignore_index=True)
    place = np.arange(len(table))[::-1]
    wide = np.maximum(table["implied_high"] - table["implied_low"], 0.008)
    ax.barh(place, wide, left=table["implied_low"], height=0.65, color=CHANCE, alpha=0.6,
            label="implied")  # fmt: skip
    for shift in (-0.3, 0.3):
        ends = table["measured_low"], table["measured_high"]
        label = "measured, least to largest pair of seeds" if shift < 0 else None
        ax.hlines(place + shift, *ends, color="black", lw=1.2, label=label)
    ax.vlines(table["measured_low"], place - 0.3, place + 0.3, color="black", lw=1.2)
    ax.vlines(table["measured_high"], place - 0.3, place + 0.3, color="black", lw=1.2)
    at = table["contradicts"].eq(True)
    ax.plot(table["implied_high"][at] + 0.02, place[at], "x", c="#D55E00", ms=5, mew=1.4,
            label="contradicts")  # fmt: skip
    ax.set_yticks(place, [_row_name(row) for _, row in table.iterrows()], fontsize=6)
    ax.axvline(0, color=CHANCE, lw=0.6, ls=":")
    ax.set(xlabel="Spearman correlation of decay constants between two seeds", ylim=(-0.7, None))
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=3)
    return ax


def _row_name(row: pd.Series) -> str:
    network = row.get("network")
    whose = f", {network.upper()}" if isinstance(network, str) else ""
    return f"{row['profile']}, {row['dataset']}{whose}: finding {row['finding']}"
