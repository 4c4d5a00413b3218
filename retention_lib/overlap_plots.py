"""Figures of notebook 01: levels, rank correlations, gallery, conventions; axes in, axes out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from retention_lib import layout, pictures, specification_plots
from retention_lib.agreement import CROSS, SAME
from retention_lib.findings_overlap import CORRELATED
from retention_lib.headlines import kind_of
from retention_lib.overlap_headlines import OVERLAP_ROWS
from retention_lib.specification_plots import legend_above, only_first_column
from retention_lib.style import CEILING, CHANCE, looks, short_arch

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


def column(axes, name, n, records, images, curves, pairs, missing, ranks, gallery, table) -> None:
    """One data set's column of notebook 01's figure, six axes from top to bottom.

    Parameters
    ----------
    name : str
        The data set.
    n : int
        Its samples.
    records : list of dict
    images : ImageSet or None
    curves, pairs, missing, ranks, gallery, table : DataFrame
        Rows of this data set, of `findings.overlap_curves`, `findings_overlap.pair_table`,
        `missing_share`, `rank_correlations`, `one_sided.gallery` and
        `findings_overlap.overlap_specification`.
    """
    of = curves.groupby("kind")
    same = dict(iter(of.get_group(SAME).groupby("arch_a"))) if SAME in of.groups else {}
    overlap_curve(axes[0], of.get_group(CROSS), ceiling=same, n=n)
    levels(axes[1], records, name, pairs, missing.iloc[0])
    correlations(axes[2], ranks)
    pictures.gallery_strip(axes[3], images, gallery)
    conventions(axes[4], table)
    specification_plots.choices(axes[5], table, _CHOICES, column="excess")


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
    names = ["architectures" if k == CROSS else f"{short_arch(a)} seeds" for k, a in keys]
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
