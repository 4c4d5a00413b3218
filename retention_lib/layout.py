"""Figures of the notebooks: one column of axes per data set, and what fills several of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from retention_lib import pictures, plots
from retention_lib.data.imageset import ImageSet
from retention_lib.style import PAGE, looks, new_figure, shared_title, short_class


def columns(found: dict, rows: int, heights: list[float], width: float = PAGE):
    """A figure with one column per data set, titled with its name.

    Parameters
    ----------
    found : dict
        Data set -> anything, for instance its `Traces`. If empty, the figure says "not yet run".
    rows : int
        Axes in each column.
    heights : list of float
        Of the rows [inch].

    Returns
    -------
    figure, list of (name, value, axes of the column from top to bottom)
    """
    ratios = {"height_ratios": heights}
    figure, axes = new_figure(rows, max(1, len(found)), width, sum(heights), **ratios)
    for ax, name in zip(axes[0], found, strict=False):
        ax.set_title(name, loc="left", fontweight="bold")
    if not found:
        for ax in axes[:, 0]:
            ax.axis("off")
        axes[0, 0].text(0.5, 0.5, "not yet run", ha="center", va="center")
    return figure, [(name, found[name], axes[:, i]) for i, name in enumerate(found)]


def examples(images: ImageSet, per_class: int, classes: int, rng: np.random.Generator):
    """Training images for a contact sheet: of some classes `per_class` each, class by class.

    The first image of a class is mislabelled if one is (phantoms), the others are drawn at random.

    Returns
    -------
    ndarray of int
        Positions in `images`, sorted by observed label.
    """
    label, train = images.samples["label"].to_numpy(), images.rows("train")
    noisy = _planted_noise(images)
    count = len(images.classes)
    shown = np.unique(np.linspace(0, count - 1, min(classes, count)).round().astype(int))
    rows = []
    for c in shown:
        of = rng.permutation(train[label[train] == c])
        wrong = of[noisy[of]][:1]
        rows += [*wrong, *of[~np.isin(of, wrong)][: per_class - len(wrong)]]
    return np.array(rows)


def contact_sheet(
    ax: Axes,
    images: ImageSet | None,
    per_class: int,
    classes: int,
    rng: np.random.Generator,
    columns: int = 8,
) -> Axes:
    """Some images of some classes under their observed label; framed if it is planted noise.

    A framed picture's title is `label < true class`: what it is called, and what was drawn. None
    as images: the axes say that there are none here.
    """
    if images is None:
        ax.axis("off")
        ax.text(0.5, 0.5, "published traces only: no images here", ha="center", va="center")
        return ax
    rows = examples(images, per_class, classes, rng)
    noisy, label = _planted_noise(images)[rows], images.samples["label"].to_numpy()[rows]
    true = images.samples.get("planted_true_label", images.samples["label"]).to_numpy()[rows]
    names = [short_class(name) for name in images.classes]
    titles = [
        f"{names[a]} < {names[b]}" if wrong else names[a]
        for a, b, wrong in zip(label, true, noisy, strict=True)
    ]
    shown = np.array(images.images[rows])
    return pictures.contact_sheet(ax, shown, titles, columns, noisy, limit=24)


def contact_strip(
    ax: Axes, images: ImageSet | None, rng: np.random.Generator, classes: int = 7
) -> Axes:
    """Two images of each of some classes, class by column, under the last word of its name.

    Orange frames mark planted label noise.
    """
    if images is None:
        return contact_sheet(ax, None, 2, classes, rng)
    rows = examples(images, 2, classes, rng)
    label = images.samples["label"].to_numpy()[rows]
    rank = pd.Series(label).groupby(label).cumcount().to_numpy()
    rows, label = (values[np.argsort(rank, kind="stable")] for values in (rows, label))
    titles = [short_class(images.classes[c]).split()[-1] for c in label]
    width, noisy = len(np.unique(label)), _planted_noise(images)[rows]
    return pictures.contact_sheet(ax, np.array(images.images[rows]), titles, width, noisy, limit=9)


def contact_figure(
    name: str, images: ImageSet, per_class: int, rng: np.random.Generator, classes: int = 24
):
    """A contact sheet of up to `classes` classes as a figure of its own, eight pictures a row."""
    count = per_class * min(classes, len(images.classes))
    figure, axes = new_figure(width=PAGE, height=0.35 + 1.05 * -(-count // 8))
    contact_sheet(axes[0, 0], images, per_class, classes, rng)
    return shared_title(figure, f"{name}: observed label (orange: label < what was drawn)")


def _planted_noise(images: ImageSet) -> np.ndarray:
    planted = images.samples.get("planted_noisy", pd.Series(False, images.samples.index))
    return planted.to_numpy(bool)


def fitted_curves(ax: Axes, table: pd.DataFrame) -> Axes:
    """Mean retention trace (line, band over seeds) and mean fitted exponential (thin, dashed).

    Parameters
    ----------
    table : DataFrame
        Rows of `structure.retention_curves` with one origin.
    """
    for arch, of in table.groupby("arch", sort=False):
        shade, line, marker = looks(arch)
        ax.plot(of["t"], of["retention"], line, c=shade, marker=marker, ms=3, label=arch)
        ax.fill_between(of["t"], of["low"], of["high"], color=shade, alpha=0.18, lw=0)
        ax.plot(of["t"], of["fitted"], ":", c=shade, lw=1.1)
    ax.plot([], [], "k:", lw=1.1, label="mean fitted curve")
    origin = {"epoch_0": "epoch 0", "first_learned": "the learned epoch"}[table["origin"].iloc[0]]
    ax.set(xlabel=f"epochs since {origin}", ylabel="mean retention r(t)", ylim=(0, 1.03))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    return ax


def record_rows(records: list[dict], dataset: str, labels: dict[str, str]) -> pd.DataFrame:
    """Records of one data set as rows for `plots.interval_rows`.

    Parameters
    ----------
    labels : dict
        Quantity -> what the row is called; other quantities are left out.
    """
    table = pd.DataFrame(records)
    table = table[(table["dataset"] == dataset) & table["quantity"].isin(list(labels))]
    table = table.set_index("quantity").reindex([q for q in labels if q in set(table["quantity"])])
    look = {"cnn": "resnet", "vit": "deit"}
    whose = [look.get(quantity.rpartition("_")[2], dataset) for quantity in table.index]
    return table.assign(label=[labels[q] for q in table.index], colour_of=whose).reset_index()


def rows(
    ax: Axes, records: list[dict], dataset: str, labels: dict[str, str], xlabel: str, null=None
) -> Axes:
    """Records of one data set as `plots.interval_rows`, in the order of `labels`."""
    return plots.interval_rows(ax, record_rows(records, dataset, labels), xlabel, null)


def headings(axes, titles: list[str]) -> None:
    """Put a bold title above each of the axes, clear of legends."""
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontweight="bold", pad=16)
