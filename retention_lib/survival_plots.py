"""Figures of `survival`: hazard and survival curves per architecture; axes in, axes out."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from retention_lib.style import looks

_CLOCK = {"age": "epochs since learned", "epoch": "epoch (0 = after head warm-up)"}


def hazard_curve(ax: Axes, table: pd.DataFrame) -> Axes:
    """Share forgotten per step, with intervals, from `by_architecture(traces, hazard_table)`.

    Parameters
    ----------
    table : DataFrame
        `arch`, `seeds`, `scale`, `event`, `time`, `at_risk`, `hazard`, `ci_low`, `ci_high`; one
        scale and one event.
    """
    _curves(ax, table, "hazard")
    ax.set(ylabel=f"hazard, {table['event'].iloc[0]} forgetting [1/epoch]")
    ax.set_ylim(bottom=0)
    return ax


def survival_curve(ax: Axes, table: pd.DataFrame) -> Axes:
    """Share not yet forgotten, with intervals, from `by_architecture(traces, kaplan_meier)`.

    Parameters
    ----------
    table : DataFrame
        `arch`, `seeds`, `scale`, `time`, `at_risk`, `survival`, `ci_low`, `ci_high`; one scale.
    """
    _curves(ax, table, "survival", drawstyle="steps-post", step="post")
    ax.set(ylabel="learned, not yet forgotten")
    return ax


def _curves(ax: Axes, table: pd.DataFrame, column: str, drawstyle="default", step=None) -> None:
    scales = table["scale"].unique()
    if len(scales) != 1:
        raise ValueError(f"table must have one scale, got {scales.tolist()}")
    for arch, of in table.groupby("arch", sort=False):
        shade, line, marker = looks(arch)
        label = f"{arch}: {of['seeds'].iloc[0]} runs, at most {of['at_risk'].max():,} at risk"
        ax.plot(of["time"], of[column], line, c=shade, marker=marker, ms=3, label=label,
                drawstyle=drawstyle)  # fmt: skip
        ax.fill_between(of["time"], of["ci_low"], of["ci_high"], step=step, color=shade,
                        alpha=0.18, lw=0)  # fmt: skip
    ax.set(xlabel=_CLOCK[scales[0]])
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    ax.legend(loc="best")
