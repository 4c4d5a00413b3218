"""Contact sheets and strips of pictures, those with planted label noise framed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from retention_lib.data.imageset import ImageSet
from retention_lib.style import TRUTH, looks, short_arch, short_class


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


def gallery_strip(ax: Axes, images: ImageSet | None, table: pd.DataFrame, count: int = 5) -> Axes:
    """Samples that one architecture forgets and the other keeps, a row of pictures for each.

    Below each: class, events per run of the one and of the other, and how its id begins. Orange
    frames mark planted label noise.

    Parameters
    ----------
    images : ImageSet or None
        None: the axes say that there are no images here.
    table : DataFrame
        `one_sided.gallery` of one data set.
    count : int
        Pictures per row.
    """
    ax.axis("off")
    if images is None or table.empty:
        text = "published traces only: no images here" if len(table) else "no such samples"
        ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
        return ax
    where = pd.Series(np.arange(len(images.samples)), images.samples["sample_id"])
    rows = list(table.groupby(["forgets", "keeps"], sort=False))
    width, height = 1.0, 1.62  # of a cell, in pictures
    for i, ((forgets, keeps), of) in enumerate(rows):
        top = i * (height + 0.22)
        ax.text(0, top - 0.06, f"{short_arch(forgets)} forgets, {short_arch(keeps)} keeps",
                fontsize=6.5, c=looks(forgets)[0], va="bottom")  # fmt: skip
        for j, (_, one) in enumerate(of.head(count).iterrows()):
            left = j * (width + 0.12)
            image = np.array(images.images[where[one["sample_id"]]])
            extent = (left, left + 1, top + 1, top)
            ax.imshow(image, extent=extent, interpolation="nearest")
            if one["noisy"]:
                frame = Rectangle((left, top), 1, 1, fill=False, ec=TRUTH, lw=1.5, clip_on=False)
                ax.add_patch(frame)
            kind = short_class(one["class"]).split()[-1]
            text = f"{kind[:11]}\n{one['events']:.1f} | {one['events_keeps']:.1f}\n"
            ax.text(left + 0.5, top + 1.04, text + one["sample_id"][:6], fontsize=4.8,
                    ha="center", va="top", linespacing=1.0)  # fmt: skip
    ax.set(xlim=(0, count * (width + 0.12) - 0.12))
    ax.set_ylim(len(rows) * (height + 0.22) - 0.2, -0.25)
    ax.set_aspect("equal")
    return ax
