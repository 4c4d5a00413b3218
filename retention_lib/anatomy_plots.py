"""Figures of notebook 00: directions of traces, who stays right, how long lapses last."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from retention_lib.anatomy import DIRECTIONS
from retention_lib.style import looks

#: Shades of the directions: falling, what a decay curve is about, stands out.
_SHADES = {"flat": "#D9D9D9", "rising": "#A6A6A6", "level": "#56B4E9", "falling": "#E69F00"}


def direction_bars(ax: Axes, shares: pd.DataFrame, held_out: pd.DataFrame) -> Axes:
    """Stacked shares of flat, rising, level and falling traces, a bar per architecture and split.

    Parameters
    ----------
    shares, held_out : DataFrame
        `anatomy.direction_shares` of one data set, training and held-out samples.
    """
    bars = []
    for arch in dict.fromkeys(shares["arch"]):
        for split, table in (("training", shares), ("held out", held_out)):
            of = table[table["arch"] == arch]
            label = f"{arch.removeprefix('phantom_')}\n{split}, n = {of['n'].iloc[0]:,}"
            bars.append((label, of[list(DIRECTIONS)].mean()))
    place = np.arange(len(bars))[::-1]
    left = np.zeros(len(bars))
    for name, shade in _SHADES.items():
        width = np.array([shares[name] for _, shares in bars])
        ax.barh(place, 100 * width, left=100 * left, color=shade, height=0.75, label=name)
        if name == "falling":
            for y, share in zip(place, width, strict=True):
                ax.text(101, y, f"{share:.1%} falling", va="center", fontsize=6)
        left += width
    ax.set_yticks(place, [label for label, _ in bars], fontsize=6)
    ax.set(xlabel="traces, mean over seeds [%]", xlim=(0, 130), xticks=[0, 25, 50, 75, 100])
    ax.tick_params(axis="y", length=0)
    legend = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0, "fontsize": 6}
    ax.legend(ncols=4, handlelength=1, columnspacing=0.8, **legend)
    return ax


def kept(ax: Axes, table: pd.DataFrame, held_out: pd.DataFrame) -> Axes:
    """Accuracy of the samples that were right at epoch 0 (bands span the seeds) and of the rest.

    Parameters
    ----------
    table, held_out : DataFrame
        `anatomy.kept_from_the_start` of one data set. Of held-out samples only those right at
        epoch 0 are drawn, thin and with open marks.
    """
    for arch, of in table.groupby("arch", sort=False):
        shade, line, marker = looks(arch)
        for state, width in (("right", 1.4), ("wrong", 0.7)):
            rows = of[of["at_epoch_0"] == state]
            name = f"{arch.removeprefix('phantom_')}, {state} at 0 (n = {rows['n'].iloc[0]:,.0f})"
            style = {"c": shade, "lw": width, "marker": marker, "ms": 3 if width > 1 else 1.5}
            ax.plot(rows["epoch"], rows["accuracy"], line, label=name, **style)
            ax.fill_between(rows["epoch"], rows["low"], rows["high"], color=shade, alpha=0.15, lw=0)
        rows = held_out[(held_out["arch"] == arch) & (held_out["at_epoch_0"] == "right")]
        style = {"c": shade, "lw": 0.7, "marker": marker, "ms": 3, "mfc": "none", "mew": 0.6}
        ax.plot(rows["epoch"], rows["accuracy"], ":", label="held out, right at 0", **style)
    ax.set(xlabel="epoch (0 = after head warm-up)", ylabel="accuracy", ylim=(0, 1.02))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right", fontsize=6)
    return ax


def lapses(ax: Axes, table: pd.DataFrame) -> Axes:
    """Share of lapses still open against their length, a step line per architecture.

    Parameters
    ----------
    table : DataFrame
        `anatomy.lapses` of one data set.
    """
    for arch, of in table.groupby("arch", sort=False):
        of = of[(of["time"] == 0) | (of["at_risk"] > 0)]
        shade, line, _ = looks(arch)
        watched = of["at_risk"].max()
        label = f"{arch.removeprefix('phantom_')}, {watched:,} lapses, {of['seeds'].iloc[0]} seeds"
        ax.step(of["time"], of["survival"], line, where="post", c=shade, label=label)
        low, high = of["ci_low"].fillna(of["survival"]), of["ci_high"].fillna(of["survival"])
        ax.fill_between(of["time"], low, high, step="post", color=shade, alpha=0.18, lw=0)
    ax.set(xlabel="epochs since the forgetting event", ylabel="lapse still open", ylim=(0, 1.03))
    ax.set_xlim(0, None)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax
