"""Figures of notebook 01: levels, rank correlations, gallery, conventions; axes in, axes out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from retention_lib import layout, plots, specification_plots
from retention_lib.agreement import CROSS, SAME
from retention_lib.data.imageset import ImageSet
from retention_lib.findings_overlap import CORRELATED
from retention_lib.headlines import kind_of
from retention_lib.overlap_headlines import OVERLAP_ROWS
from retention_lib.plots import looks
from retention_lib.specification_plots import legend_above, only_first_column
from retention_lib.style import CEILING, CHANCE, TRUTH

#: Order of a convention's choices from top to bottom, and what they are called.
_CHOICES = {
    "score": {
        "forgetting_score": "forgetting events",
        "mean_error": "mean error",
        "learned_epoch": "learned epoch",
        "mean_loss": "mean loss",
        "mean_margin": "mean margin",
        "decay_constant": "decay constant λ",
    },
    "never_learned": {
        "n_presentations": "never learned: highest",
        "max": "tied with the highest",
        "zero": "zero",
        "kept": "as the score has it",
        "nan": "left out",
    },
    "view": {"clean": "clean view", "online": "online view"},
    "share": {0.05: "top 5 %", 0.10: "top 10 %", 0.20: "top 20 %"},
}


def short(arch: str) -> str:
    """`deit` of `phantom_deit` or `deit_small_patch16_224`: two columns leave little room.

    Examples
    --------
    >>> short("deit_small_patch16_224"), short("phantom_resnet18")
    ('deit_small', 'resnet18')
    """
    return arch.removeprefix("phantom_").split("_patch")[0]


def column(axes, name, n, records, pictures, curves, pairs, missing, ranks, gallery, table) -> None:
    """One data set's column of notebook 01's figure, six axes from top to bottom.

    Parameters
    ----------
    name : str
        The data set.
    n : int
        Its samples.
    records : list of dict
    pictures : ImageSet or None
    curves, pairs, missing, ranks, gallery, table : DataFrame
        Rows of this data set, of `findings.overlap_curves`, `findings_overlap.pair_table`,
        `missing_share`, `rank_correlations`, `one_sided.gallery` and
        `findings_overlap.overlap_specification`.
    """
    of = curves.groupby("kind")
    same = dict(iter(of.get_group(SAME).groupby("arch_a"))) if SAME in of.groups else {}
    plots.overlap_curve(axes[0], of.get_group(CROSS), ceiling=same, n=n)
    levels(axes[1], records, name, pairs, missing.iloc[0])
    correlations(axes[2], ranks)
    gallery_strip(axes[3], pictures, gallery)
    conventions(axes[4], table)
    specification_plots.choices(axes[5], table, _CHOICES, column="excess")


def levels(
    ax: Axes, records: list[dict], dataset: str, pairs: pd.DataFrame, missing: pd.Series
) -> Axes:
    """Overlaps with their levels, every pair of runs as a small mark, and what is missing.

    Parameters
    ----------
    records : list of dict
        Of which the quantities in `OVERLAP_ROWS` are drawn.
    pairs : DataFrame
        `findings_overlap.pair_table` of the data set.
    missing : Series
        Its row of `findings_overlap.missing_share`, said in the first row's name; the bracket below
        runs from the overlap between architectures to the noise ceiling.
    """
    known = np.isfinite(missing["estimate"])
    values = (missing[name] for name in ("estimate", "ci_low", "ci_high"))
    text = "{:.2f} [{:.2f}, {:.2f}]".format(*values) if known else "no value"
    names = OVERLAP_ROWS | {"jaccard": f"architectures, missing {text}"}
    layout.rows(ax, records, dataset, names, "Jaccard index")
    shown = layout.record_rows(records, dataset, names)["quantity"].tolist()
    place = {quantity: len(shown) - 1 - i for i, quantity in enumerate(shown)}
    for (kind, arch), of in pairs.groupby(["kind", "arch_a"], sort=False):
        quantity = "jaccard" if kind == CROSS else f"jaccard_between_seeds_{kind_of(arch)}"
        if quantity in place:
            shade = "black" if kind == CROSS else looks(arch)[0]
            y = np.full(len(of), place[quantity] - 0.19)
            ax.plot(of["estimate"], y, "|", c=shade, ms=3.5, mew=0.7, alpha=0.7)
    if known:
        y = place["jaccard"] - 0.36
        style = {"arrowstyle": "|-|", "mutation_scale": 2, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (missing["cross"], y), (missing["ceiling"], y), arrowprops=style)
    for text in ax.texts:
        text.set_in_layout(False)  # a long name must not take the axes' width
    ax.set_ylim(-0.5, len(shown) - 0.35)
    return ax


def correlations(ax: Axes, table: pd.DataFrame) -> Axes:
    """Spearman's rho (filled) and Kendall's tau-b (open), between architectures and between seeds.

    Parameters
    ----------
    table : DataFrame
        `findings_overlap.rank_correlations` of one data set.
    """
    scores = [score for score in CORRELATED if score in set(table["score"])]
    keys = list(dict.fromkeys(zip(table["kind"], table["arch_a"], strict=True)))
    for i, (kind, arch) in enumerate(keys):
        shade, _, marker = (CEILING, "-", "D") if kind == CROSS else looks(arch)
        for j, measure in enumerate(("spearman", "kendall")):
            of = table[(table["kind"] == kind) & (table["arch_a"] == arch)]
            of = of[of["measure"] == measure].groupby("score").first().reindex(scores)
            y = np.arange(len(scores))[::-1] + 0.27 * (len(keys) / 2 - 0.5 - i) + 0.05 - 0.1 * j
            ax.hlines(y, of["ci_low"], of["ci_high"], colors=shade, lw=1.0)
            fill = "white" if j else shade
            ax.plot(of["estimate"], y, marker, c=shade, mfc=fill, mew=0.7, ms=3.2, ls="none")
            if kind == CROSS:
                look = {"c": CHANCE, "ms": 3, "mew": 0.7, "ls": "none"}
                ax.plot(of["control"], y, "x", **look)
    names = ["architectures" if k == CROSS else f"{short(a)} seeds" for k, a in keys]
    marks = [
        Line2D([], [], ls="none", marker=marker, c=shade, ms=3.5)
        for shade, _, marker in ((CEILING, "", "D") if k == CROSS else looks(a) for k, a in keys)
    ]
    marks.append(Line2D([], [], ls="none", marker="x", c=CHANCE, ms=3))
    ax.axvline(0, color=CHANCE, lw=0.6, ls=":")
    ax.set_yticks(np.arange(len(scores))[::-1], [CORRELATED[s] for s in scores])
    only_first_column(ax)
    low = min(0.0, np.nanmin([*table["ci_low"], *table["estimate"], *table["control"], 0.0]))
    count = f"n = {table['n'].iloc[0]:,}"
    ax.set(xlabel=f"Spearman ρ (filled), Kendall τ-b (open), {count}", xlim=(low - 0.05, 1.02))
    ax.set_ylim(-0.6, len(scores) - 0.4)
    _legend(ax, marks, [*names, "misaligned"])
    return ax


def _legend(ax: Axes, marks: list, names: list[str]) -> None:
    """`legend_above` of marks that no artist has."""
    for mark, name in zip(marks, names, strict=True):
        mark.set_label(name)
        ax.add_line(mark)
    legend_above(ax)


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
        ax.text(0, top - 0.06, f"{short(forgets)} forgets, {short(keeps)} keeps",
                fontsize=6.5, c=looks(forgets)[0], va="bottom")  # fmt: skip
        for j, (_, one) in enumerate(of.head(count).iterrows()):
            left = j * (width + 0.12)
            image = np.array(images.images[where[one["sample_id"]]])
            extent = (left, left + 1, top + 1, top)
            ax.imshow(image, extent=extent, interpolation="nearest")
            if one["noisy"]:
                frame = Rectangle((left, top), 1, 1, fill=False, ec=TRUTH, lw=1.5, clip_on=False)
                ax.add_patch(frame)
            kind = one["class"].lstrip("0123456789.").replace("_", " ").split()[-1]
            text = f"{kind[:11]}\n{one['events']:.1f} | {one['events_keeps']:.1f}\n"
            ax.text(left + 0.5, top + 1.04, text + one["sample_id"][:6], fontsize=4.8,
                    ha="center", va="top", linespacing=1.0)  # fmt: skip
    ax.set(xlim=(0, count * (width + 0.12) - 0.12))
    ax.set_ylim(len(rows) * (height + 0.22) - 0.2, -0.25)
    ax.set_aspect("equal")
    return ax


def conventions(ax: Axes, table: pd.DataFrame) -> Axes:
    """Overlap above its chance level under every convention, and how far the ceiling is above it.

    Parameters
    ----------
    table : DataFrame
        `findings_overlap.overlap_specification` of one data set and pair of architectures.
    """
    label = "Jaccard above chance"
    specification_plots.estimates(ax, table, label, column="excess", names=("above", "below"))
    room = table.sort_values("excess", ignore_index=True)["room"]
    ax.plot(room.index, room, "_", c=CEILING, ms=2.5, mew=0.7, label="ceiling")
    values = [*room, *table["ci_low"], *table["ci_high"], *table["excess"], 0.0]
    low, high = np.nanmin(values), np.nanmax(values)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    legend_above(ax, columns=5)
    return ax
