"""Figures of notebook 03: agreement of seeds by score, events, seeds needed, variance; axes in."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from retention_lib import layout, specification_plots
from retention_lib.findings_overlap import READINGS
from retention_lib.specification_plots import legend_above, only_first_column
from retention_lib.stability import BOTH
from retention_lib.stability_headlines import STABILITY_ROWS
from retention_lib.stability_reliability import TARGET
from retention_lib.style import CHANCE, looks, short_arch

#: What scores are called on an axis.
SCORE_NAMES = {
    "forgetting_score": "forgetting score",
    "events_max": "events, never = max",
    "events": "events, never = 0",
    "mean_error": "share wrong",
    "learned_epoch": "learned epoch",
    "mean_loss": "mean loss",
    "mean_margin": "mean margin",
    "decay_constant": "decay constant",
}
_CHOICES = {
    "score": {name: SCORE_NAMES[name] for name in READINGS},
    "never_learned": {
        "n_presentations": "never: highest",
        "max": "never: maximum",
        "zero": "never: 0",
        "kept": "never: kept",
        "nan": "never: left out",
    },
    "view": {"clean": "clean view", "online": "online view"},
    "measure": {"spearman": "all samples", "within_class": "within classes"},
}
#: Component -> name and colour (Okabe and Ito's palette, and greys for what is noise).
_COMPONENTS = {
    "class": ("class", "#009E73"),
    "class_x_architecture": ("class x arch.", "#8FD3BD"),
    "sample": ("sample", "#CC79A7"),
    "sample_x_architecture": ("sample x arch.", "#E8C3D8"),
    "architecture": ("arch.", "#E69F00"),
    "seed": ("seed", "#F0E442"),
    "class_x_seed": ("class x seed", "#BBBBBB"),
    "residual": ("residual", "#666666"),
}
#: Simulator -> line style and colour.
_SIMULATORS = (("-", "#000000"), ("--", "#7F7F7F"), (":", "#56B4E9"))


def _two_rows(ax: Axes, columns: int) -> None:
    """A legend above the axes that takes two rows, and the height for them."""
    ax.set_title(" \n ", loc="left", fontsize=6)
    legend_above(ax, columns)


def column(axes, dataset: str, records: list[dict], tables: dict, score: str) -> None:
    """One data set's column of notebook 03's figure, seven axes from top to bottom.

    Parameters
    ----------
    tables : dict of DataFrame
        As `stability_headlines.stability_records` takes them, and `curve`
        (`stability_noise.events_curve`), `brown` (`stability_reliability.brown_curves`),
        `specification` (`stability.specification_curve`).
    """
    of = {name: table[table["dataset"] == dataset] for name, table in tables.items()}
    label = f"Spearman between seeds, {SCORE_NAMES[score]}"
    # Chance is 0 for every row: one line through all rather than a mark in each.
    plain = [one | {"chance": np.nan} for one in records]
    layout.rows(axes[0], plain, dataset, STABILITY_ROWS, label, null=0.0)
    layout.headings(axes[:1], [dataset])
    by_score(axes[1], of["agreement"], of["held_out"], of["redrawn"])
    events(axes[2], of["curve"], of["agreement"], of["shapes"])
    seeds(axes[3], of["brown"], score)
    variance(axes[4], of["variance"])
    known = of["specification"].dropna(subset=["estimate"])
    specification_plots.estimates(axes[5], known, "Spearman", names=("above 0", "below 0"))
    specification_plots.choices(axes[6], known, _CHOICES)


def by_score(ax: Axes, table: pd.DataFrame, held_out: pd.DataFrame, redrawn: pd.DataFrame) -> Axes:
    """Spearman between seeds under every score; held-out images hollow, redraws as grey bars.

    Parameters
    ----------
    table, held_out : DataFrame
        `stability.seed_agreement` of one data set.
    redrawn : DataFrame
        `stability_nulls.curveball_table`.
    """
    table, held_out = (t[(t["measure"] == "spearman") & (t["arch"] != BOTH)] for t in
                       (table, held_out))  # fmt: skip
    scores, archs = (list(dict.fromkeys(table[name])) for name in ("score", "arch"))
    for i, arch in enumerate(archs):
        y = np.arange(len(scores))[::-1] + 0.36 * (len(archs) / 2 - 0.5 - i)
        place = dict(zip(scores, y, strict=True))
        null = redrawn[redrawn["arch"] == arch]
        at = null["score"].map(place)
        ax.hlines(at, null["curveball_low"], null["curveball_high"], colors=CHANCE, lw=6, alpha=0.5,
                  label="redrawn within margins, 95 %" if i == 0 else None)  # fmt: skip
        shade, _, marker = looks(arch)
        of = table[table["arch"] == arch]
        at = of["score"].map(place)
        ax.hlines(at, of["ci_low"], of["ci_high"], colors=shade, lw=1.5)
        n = int(of["n"].iloc[0])
        label = f"{short_arch(arch)}, n = {n:,}"
        ax.plot(of["estimate"], at, marker, c=shade, ms=3.5, ls="none", label=label)
        out = held_out[held_out["arch"] == arch]
        at = out["score"].map(place)
        ax.plot(out["estimate"], at, marker, mfc="white", mec=shade, ms=3.5, ls="none")
    n = int(held_out["n"].max()) if len(held_out) else 0
    ax.plot([], [], "o", mfc="white", mec="black", ms=3.5, ls="none",
            label=f"hollow: held out, n = {n:,}")  # fmt: skip
    ax.axvline(0, color=CHANCE, lw=0.6, ls=":")
    ax.set_yticks(np.arange(len(scores))[::-1], [SCORE_NAMES[s] for s in scores], fontsize=6)
    only_first_column(ax)
    ax.set(xlabel="Spearman between seeds", xlim=(None, 1.02))
    _two_rows(ax, columns=2)
    return ax


def events(ax: Axes, curve: pd.DataFrame, table: pd.DataFrame, shapes: pd.DataFrame) -> Axes:
    """Spearman of events against events per run: simulations as lines, the study as marks.

    Parameters
    ----------
    curve : DataFrame
        `stability_noise.events_curve` of one data set.
    table : DataFrame
        `stability.seed_agreement`, of which the score `events` is drawn.
    shapes : DataFrame
        `overview.trace_shapes`, for the events per run.
    """
    groups = curve.groupby("simulator", sort=False)
    for (name, of), (line, shade) in zip(groups, _SIMULATORS, strict=False):
        ax.plot(of["events"], of["spearman"], line, c=shade, lw=1.1, label=name)
    quoted = curve.dropna(subset=["quoted"])
    ax.plot(quoted["events"], quoted["quoted"], "x", c="black", ms=5, label="quoted")
    own = table[(table["score"] == "events") & (table["measure"] == "spearman")]
    for _, row in own[own["arch"] != BOTH].iterrows():
        shade, _, marker = looks(row["arch"])
        x = shapes.loc[shapes["arch"] == row["arch"], "events"].mean()
        ax.plot([x, x], [row["ci_low"], row["ci_high"]], c=shade, lw=1.5)
        ax.plot(x, row["estimate"], marker, c=shade, ms=5, ls="none", label=short_arch(row["arch"]))
    ax.set_xscale("log")
    ticks = (0.03, 0.1, 0.3, 1, 3, 10)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks], minor=False)
    ax.minorticks_off()
    ax.axhline(0, color=CHANCE, lw=0.6, ls=":")
    ax.set(xlabel="forgetting events per sample and run", ylabel="Spearman of events")
    _two_rows(ax, columns=3)
    return ax


def seeds(ax: Axes, curves: pd.DataFrame, score: str) -> Axes:
    """Reliability of the mean of 1, 2, ... seeds, with the target.

    Parameters
    ----------
    curves : DataFrame
        `stability_reliability.brown_curves` of one data set.
    """
    for arch, of in curves.groupby("arch", sort=False):
        shade, line, _ = looks(arch)
        ax.plot(of["seeds"], of["reliability"], line, c=shade, label=short_arch(arch))
        band = {"color": shade, "alpha": 0.18, "lw": 0}
        ax.fill_between(of["seeds"], of["low"], of["high"], **band)
    ax.axhline(TARGET, color=CHANCE, lw=0.6, ls=":", label=f"asked for: {TARGET:g}")
    ax.set(xlabel="seeds averaged", ylabel=f"reliability,\n{SCORE_NAMES[score]}")
    ax.set(ylim=(0, 1.02), xlim=(1, curves["seeds"].max() if len(curves) else 30))
    legend_above(ax, columns=3)
    return ax


def variance(ax: Axes, table: pd.DataFrame) -> Axes:
    """Variance shares as stacked bars, a bar per score; negative components are drawn as 0.

    Parameters
    ----------
    table : DataFrame
        `stability_reliability.variance_rows` of one data set.
    """
    scores = list(dict.fromkeys(table["score"]))
    wide = table.pivot_table(index="score", columns="component", values="truncated", sort=False)
    wide = wide.div(wide.sum(axis=1), axis=0).reindex(index=scores, columns=list(_COMPONENTS))
    left, place = np.zeros(len(scores)), np.arange(len(scores))[::-1]
    for component, (name, shade) in _COMPONENTS.items():
        width = wide[component].fillna(0).to_numpy()
        if width.any():
            ax.barh(place, width, left=left, color=shade, height=0.75, ec="white", lw=0.3,
                    label=name)  # fmt: skip
        left += width
    ax.set_yticks(place, [SCORE_NAMES[s] for s in scores], fontsize=6)
    only_first_column(ax)
    ax.set(xlabel="share of the variance of midranks", xlim=(0, 1))
    _two_rows(ax, columns=4)
    return ax
