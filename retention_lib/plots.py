"""Figures at column width: axes in, axes out; colours and sizes come from `style`."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from retention_lib.style import (
    CEILING,
    CHANCE,
    COLUMN,
    PAGE,
    TRUTH,
    colour,
    looks,
    new_figure,
    shared_title,
    use_style,
)

__all__ = [
    "COLUMN",
    "PAGE",
    "colour",
    "contact_sheet",
    "interval_rows",
    "learning_curves",
    "looks",
    "new_figure",
    "overlap_curve",
    "r2_distribution",
    "retention_curves",
    "shared_title",
    "trace_raster",
    "use_style",
]


def contact_sheet(
    ax: Axes, images: np.ndarray, titles: list[str], columns: int = 8, marked=None, limit: int = 16
) -> Axes:
    """Pictures in rows, each below its title.

    Parameters
    ----------
    images : array of uint8, (image, size, size, 3)
    titles : list of str
        Cut after `limit` characters.
    columns : int
    marked : array of bool, (image,), optional
        Framed in orange, for instance where label noise was planted.
    """
    n, size = len(images), images.shape[1]
    if len(titles) != n:
        raise ValueError(f"titles must be one per image, got {len(titles)} for {n} images")
    columns, gap = min(columns, n), 0.06 * size
    # Type does not shrink with the tiles, so the room above each follows from the printed size.
    points = ax.get_window_extent().width / ax.figure.dpi * 72 / columns
    font = min(7.0, points / (0.62 * min(limit, max(map(len, titles), default=1)) + 1))
    head = 1.5 * font / points * size
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = (i % columns) * (size + gap), (i // columns) * (size + head + gap)
        ax.imshow(image, extent=(x, x + size, y + size, y), interpolation="nearest")
        text = title if len(title) <= limit else title[: limit - 1] + "…"
        ax.text(x + size / 2, y - 0.25 * head, text, ha="center", va="bottom", fontsize=font)
        if marked is not None and marked[i]:
            frame = Rectangle((x, y), size, size, fill=False, ec=TRUTH, lw=1.8, clip_on=False)
            ax.add_patch(frame)
    rows = -(-n // columns)
    ax.set(xlim=(0, columns * (size + gap) - gap), ylim=(rows * (size + head + gap) - gap, -head))
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


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
    _whole_epochs(ax)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.6 * (high - low), high)  # room for the legend below the curves
    ax.legend(loc="lower right")
    return ax


def overlap_curve(
    ax: Axes, curve: pd.DataFrame, chance: pd.DataFrame | None = None, ceiling=None, n=None
) -> Axes:
    """Overlap against the share called most forgotten, between its chance level and its ceiling.

    Parameters
    ----------
    curve : DataFrame
        `share`, `jaccard`, and `low`, `high` for a band (interval, or range over pairs).
    chance : DataFrame, optional
        `share`, `chance`; default the column `chance` of `curve`.
    ceiling : DataFrame or dict of DataFrame, optional
        Same-architecture curves like `curve`, by architecture.
    n : int, optional
        Samples, for the legend.
    """
    count = f", n = {n:,}" if n else ""
    _band(ax, curve, CEILING, "-", "o", f"between architectures{count}")
    ceilings = ceiling if isinstance(ceiling, dict) else {"": ceiling}
    for arch, other in ceilings.items():
        if other is not None:
            shade, line, _ = looks(arch) if arch else (CHANCE, "--", "")
            _band(
                ax, other, shade, line, "", f"{arch or 'same architecture'}, other seed (ceiling)"
            )
    level = curve if chance is None else chance
    ax.plot(100 * level["share"], level["chance"], ":", c=CHANCE, label="chance")
    ax.axvline(10, color=CHANCE, lw=0.5, zorder=0)
    ax.set(xlabel="most forgotten share [%]", ylabel="expected Jaccard index")
    top = max(line.get_ydata().max() for line in ax.lines if line.get_label()[0] != "_")
    ax.set_ylim(0, min(1.0, max(0.4, 1.6 * top)))  # room for the legend
    ax.set_xlim(0, 100 * curve["share"].max())
    ax.legend(loc="upper left")
    return ax


def _band(ax, curve, shade, line, marker, label):
    x = 100 * curve["share"]
    every = max(1, len(x) // 10)
    ax.plot(x, curve["jaccard"], line, c=shade, marker=marker, ms=3, markevery=every, label=label)
    if {"low", "high"} <= set(curve):
        ax.fill_between(x, curve["low"], curve["high"], color=shade, alpha=0.18, lw=0)


def r2_distribution(ax: Axes, frames: pd.DataFrame | dict, floor: float = -1.0) -> Axes:
    """Cumulative share of samples by R^2 of their fit, per architecture, with means.

    Parameters
    ----------
    frames : DataFrame or dict of array
        `arch` and `r2`, one row per sample and run; or R^2 by architecture. NaN is a flat trace,
        which has no R^2: left out of the curve, its share in the legend.
    floor : float
        Values below are drawn there (R^2 has no lower bound). The mean is of the values as they
        are, and not marked where it lies below.
    """
    if isinstance(frames, pd.DataFrame):
        frames = {arch: of["r2"].to_numpy() for arch, of in frames.groupby("arch", sort=False)}
    for arch, r2 in frames.items():
        shade, line, marker = looks(arch)
        r2 = np.asarray(r2, float)
        known = np.sort(r2[np.isfinite(r2)])
        label = f"{arch}\nn = {len(known):,}, flat {np.mean(np.isnan(r2)):.0%}"
        if len(known):
            share = np.arange(1, len(known) + 1) / len(known)
            label += f", mean {known.mean():.2f}"
            ax.step(np.clip(known, floor, 1), share, line, where="post", c=shade, label=label)
            if known.mean() >= floor:
                at = np.searchsorted(known, known.mean()) / len(known)
                ax.plot(known.mean(), at, marker, c=shade, mec="white", ms=7)
        else:
            ax.plot([], [], line, c=shade, label=label)
    ax.set(xlabel=f"R² of the fitted decay ({floor:g}: or below)", xlim=(floor - 0.03, 1.03))
    ax.set(ylabel="cumulative share of fitted traces", ylim=(0, 1.02))
    ax.legend(loc="upper left")
    return ax


def retention_curves(ax: Axes, correct: dict[str, np.ndarray]) -> Axes:
    """Share still right at each epoch of the samples that were right at epoch 0.

    Parameters
    ----------
    correct : dict of array of bool, (run, epoch, sample)
        By architecture, or by whatever is compared. Thin lines are runs, the thick one their mean.
    """
    for arch, right in correct.items():
        shade, line, marker = looks(arch)
        right = np.asarray(right, bool)
        if right.ndim != 3:
            raise ValueError(f"{arch}: correct must be (run, epoch, sample), got {right.shape}")
        first = right[:, :1]
        with np.errstate(invalid="ignore"):  # a run with nothing right at epoch 0 has no curve
            kept = (right & first).sum(2) / first.sum(2)
        epochs, n = np.arange(right.shape[1]), first.sum(2).mean()
        ax.plot(epochs, kept.T, line, c=shade, lw=0.4, alpha=0.6)
        label = f"{arch}: {len(right)} runs, n = {n:,.0f} each"
        ax.plot(epochs, kept.mean(0), line, c=shade, lw=1.8, marker=marker, label=label)
    ax.set(xlabel="epoch (0 = after head warm-up)", ylabel="still right, of those right at epoch 0")
    _whole_epochs(ax)
    ax.legend()
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
        (black bar), `planted` (orange diamond), `paper` (open star), and `colour_of`: the
        architecture or data set whose colour a row takes. NaN marks are not drawn.
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
    ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True, nbins=7))
    ax.legend(
        ncols=3,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0,
        handletextpad=0.1,
        columnspacing=1,
    )
    return ax


def _whole_epochs(ax: Axes) -> None:
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
