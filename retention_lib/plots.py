"""Figures that notebooks draw directly: learning curves, traces of a run, intervals in rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from retention_lib.style import CEILING, CHANCE, TRUTH, looks


def learning_curves(
    ax: Axes, metrics: pd.DataFrame, measure: str = "accuracy", chance: float | None = None
) -> Axes:
    """Training (strong) and held-out (light) curves per architecture; bands span the seeds.

    Parameters
    ----------
    metrics : DataFrame
        `arch`, `seed`, `epoch`, `train_<measure>`, `val_<measure>`.
    measure : str
    chance : float, optional
    """
    for arch, of in metrics.groupby("arch", sort=False):
        shade, line, marker = looks(arch)
        for split, name, width in (("train", "training", 1.5), ("val", "held out", 0.8)):
            by_epoch = of.groupby("epoch")[f"{split}_{measure}"].agg(["mean", "min", "max"])
            label = f"{arch}, {name} ({of['seed'].nunique()} seeds)"
            fill = "none" if split == "val" else shade
            ax.plot(by_epoch.index, by_epoch["mean"], line, c=shade, lw=width, marker=marker,
                    ms=3, mfc=fill, mew=0.7, label=label)  # fmt: skip
            ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=shade,
                            alpha=0.18, lw=0)  # fmt: skip
    if chance is not None:
        ax.axhline(chance, color=CHANCE, ls=":", lw=0.8, label="chance")
    unit = " [nat]" if measure == "loss" else ""
    ax.set(xlabel="epoch (0 = after head warm-up)", ylabel=measure.replace("_", " ") + unit)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = ax.get_ylim()
    ax.set_ylim(max(0.0, low - 0.6 * (high - low)), high)  # room for the legend below the curves
    ax.legend(loc="lower right", fontsize=6, labelspacing=0.3)
    return ax


def trace_raster(ax: Axes, correct: np.ndarray, limit: int = 2000) -> Axes:
    """One column per sample: not learned yet, right, or wrong after it had been learned.

    Parameters
    ----------
    correct : array of bool, (epoch, sample)
        One run. Samples are sorted by learned epoch, then by how often they were right.
    limit : int
        Most columns drawn; of more samples, evenly spaced ones are shown.
    """
    correct = np.asarray(correct, bool)
    if correct.ndim != 2:
        raise ValueError(f"correct must be (epoch, sample), got shape {correct.shape}")
    epochs, n = correct.shape
    learned = np.where(correct.any(0), correct.argmax(0), epochs)
    order = np.lexsort((-correct.sum(0), learned))
    order = order[np.unique(np.linspace(0, n - 1, min(n, limit)).astype(int))]
    ever = np.logical_or.accumulate(correct, axis=0)
    state = np.where(correct, 1, np.where(ever, 2, 0))[:, order]
    colours = ["#4D4D4D", "#DCE9F2", "#D55E00"]
    edges = (0, 100, epochs - 0.5, -0.5)
    ax.imshow(state, cmap=ListedColormap(colours), vmin=0, vmax=2, aspect="auto", extent=edges,
              interpolation="nearest")  # fmt: skip
    for shade, label in zip(colours, ("not learned yet", "right", "forgotten"), strict=True):
        ax.plot([], [], "s", c=shade, mec="0.5", mew=0.4, label=label)
    ax.set(xlabel=f"samples by learned epoch [% of {n:,}]", ylabel="epoch")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    ax.legend(
        ncols=3,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0,
        handletextpad=0.1,
        columnspacing=1,
    )
    return ax


# Column -> how far below its row the mark stands, and what it looks like. Paper and planted truth
# stand below, so that they do not hide an estimate that meets them.
_MARKS = {
    "chance": (0, {"marker": "|", "c": CHANCE, "ms": 9, "mew": 2, "label": "chance"}),
    "ceiling": (0, {"marker": "|", "c": CEILING, "ms": 9, "mew": 2, "label": "noise ceiling"}),
    "planted": (
        0.13,
        {
            "marker": "d",
            "mfc": TRUTH,
            "mec": "black",
            "ms": 4.5,
            "mew": 0.5,
            "label": "planted truth",
        },
    ),
    "paper": (0.13, {"marker": "*", "mfc": "white", "mec": "black", "ms": 7, "label": "paper"}),
}


def interval_rows(ax: Axes, frame: pd.DataFrame, xlabel: str, null: float | None = None) -> Axes:
    """Estimates with intervals, one row each, between chance level and ceiling.

    Parameters
    ----------
    frame : DataFrame
        `label`, `estimate`, `ci_low`, `ci_high`, `n`; optional `chance` (grey bar), `ceiling`
        (black bar), `planted` (orange diamond), `paper` (open star), `method`, which says whether n
        counts redraws, and `colour_of`: the architecture or data set whose colour a row takes. NaN
        marks are not drawn.
    xlabel : str
        The quantity with its unit.
    null : float, optional
        Drawn as a line through all rows.
    """
    place = np.arange(len(frame))[::-1]
    whose = frame["colour_of"] if "colour_of" in frame else frame["label"]
    for y, name, (_, row) in zip(place, whose, frame.iterrows(), strict=True):
        shade, _, marker = looks(str(name))
        ax.plot([row["ci_low"], row["ci_high"]], [y, y], c=shade, lw=1.5, solid_capstyle="butt")
        ax.plot(row["estimate"], y, marker, c=shade, ms=4.5)
        count = f"n = {row['n']:,.0f}" if row["n"] else "not yet run"
        if "redraws" in str(row.get("method", "")):
            count = f"{row['n']:,.0f} redraws"
        # Above its row rather than beside the axes, where long names would leave no room for them.
        ax.text(0.01, y + 0.16, f"{row['label']} ({count})", transform=ax.get_yaxis_transform(),
                va="bottom", fontsize=6.5)  # fmt: skip
    for column, (drop, look) in _MARKS.items():
        if column in frame and frame[column].notna().any():
            ax.plot(frame[column].astype(float), place - drop, ls="none", **look)
    if null is not None:
        ax.axvline(null, color=CHANCE, lw=0.6, ls=":", zorder=0)
    ax.set(yticks=[], xlabel=xlabel, ylim=(-0.5, max(len(frame), 1) - 0.25))
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.06)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0,
                  handletextpad=0.1, columnspacing=0.9)  # fmt: skip
    return ax
