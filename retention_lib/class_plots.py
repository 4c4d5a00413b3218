"""Figures of notebook 04: classes, ranks by run, likeness and examples; axes in, axes out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from retention_lib import layout, specification_plots
from retention_lib.class_headlines import CONSISTENCY_ROWS, LIKENESS_ROWS
from retention_lib.findings_overlap import READINGS
from retention_lib.headlines import kind_of
from retention_lib.pictures import contact_sheet
from retention_lib.specification_plots import legend_above
from retention_lib.style import CHANCE, PAGE, looks, new_figure, shared_title, short_class

#: What the choices of `class_specification.specification` are called, from top to bottom.
_NEVER = {
    "n_presentations": "unlearned: most",
    "max": "unlearned: tied most",
    "zero": "unlearned: least",
    "kept": "unlearned: as it is",
    "nan": "unlearned: left out",
}
_KINDS = {"cnn": "CNN", "vit": "ViT"}
#: Up to so many classes are named beside the ranks.
_NAMED = 40


def column(axes, images, table, ranks, records, name, near, readings, shown) -> None:
    """One data set's column of notebook 04's figure, eight axes from top to bottom.

    Parameters
    ----------
    images : ImageSet or None
    table, ranks, near, readings, shown : DataFrame
        Of this data set: `class_tables.ends_of`, `rank_map` and `named_examples`,
        `class_likeness.nearness`, `class_specification.specification`.
    records : list of dict
        Of all data sets.
    name : str
        The data set.
    """
    class_rows(axes[0], table)
    rank_map(axes[1], ranks)
    consistency(axes[2], records, name)
    nearness(axes[3], near)
    likeness(axes[4], records, name)
    conventions(axes[5], readings)
    choices(axes[6], readings)
    examples(axes[7], images, shown[shown["place"] <= 2] if len(shown) else shown)


def class_rows(ax: Axes, table: pd.DataFrame) -> Axes:
    """Shrunken class means with intervals, an architecture's colour each; n beside the name.

    Parameters
    ----------
    table : DataFrame
        `class_forgetting.extremes` of one data set. A line parts most from least forgotten classes
        where some are left out.
    """
    names = list(dict.fromkeys(table["label"]))
    archs = list(dict.fromkeys(table["arch"]))
    for i, arch in enumerate(archs):
        of = table[table["arch"] == arch].set_index("label").loc[names]
        y = np.arange(len(names))[::-1] + 0.24 * (len(archs) / 2 - 0.5 - i)
        shade, _, marker = looks(arch)
        ax.hlines(y, of["shrunk_low"], of["shrunk_high"], colors=shade, lw=1.3)
        label = f"{_KINDS[kind_of(arch)]}, 95 %"
        ax.plot(of["shrunk"], y, marker, c=shade, ms=3.5, ls="none", label=label)
    first = table.drop_duplicates("label").set_index("label").loc[names]
    called = [f"{short_class(c)}, {n}" for c, n in zip(first["class"], first["n"], strict=True)]
    ax.set_yticks(np.arange(len(names))[::-1], called, fontsize=5.5)
    if (total := table["classes"].iloc[0]) > len(names):
        ax.axhline(len(names) / 2 - 0.5, color=CHANCE, lw=0.6, ls="--")
        ax.text(0.99, len(names) / 2 - 0.5, f"{total - len(names)} classes between",
                transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=5.8,
                color="0.3", bbox={"fc": "white", "ec": "none", "pad": 0.8})  # fmt: skip
    ax.axvline(0, color=CHANCE, lw=0.6, ls=":")
    ax.set(xlabel="shrunken class mean [events]", ylim=(-0.6, len(names) - 0.4))
    ax.tick_params(axis="y", length=0)
    beside = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
    ax.legend(ncols=2, handletextpad=0.2, columnspacing=1, **beside).set_in_layout(False)
    return ax


def rank_map(ax: Axes, table: pd.DataFrame) -> Axes:
    """Place of every class in every run, most forgotten on top: equal columns are agreement.

    Parameters
    ----------
    table : DataFrame
        `class_tables.rank_map`.
    """
    look = {"cmap": "cividis", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(table.to_numpy(), aspect="auto", **look)
    ax.set_xticks(range(table.shape[1]), [seed for _, seed in table.columns], fontsize=6)
    named = len(table) <= _NAMED
    ax.set_yticks(range(len(table)) if named else [])
    if named:
        ax.set_yticklabels(
            [short_class(c) for c in table.index], fontsize=min(5.5, 150 / len(table))
        )
    arch = np.array([a for a, _ in table.columns])
    for name in dict.fromkeys(arch):
        at = np.flatnonzero(arch == name)
        ax.axvline(at[-1] + 0.5, color="white", lw=2)
        ax.text(at.mean(), -0.7, _KINDS[kind_of(name)], ha="center", va="bottom", fontsize=6.5,
                color=looks(name)[0])  # fmt: skip
    ax.set_xlabel("seed (yellow: forgotten most, blue: least)")
    ax.set_ylabel("" if named else f"{len(table)} classes, by mean rank")
    ax.tick_params(length=0)
    return ax


def consistency(ax: Axes, records: list[dict], name: str) -> Axes:
    """Kendall's W over all runs and by architecture, above its controls."""
    layout.rows(ax, records, name, CONSISTENCY_ROWS, "Kendall's W of class ranks")
    ax.set_xlim(0, 1.03)
    return _free(ax)


def _free(ax: Axes) -> Axes:
    """Names of rows may reach beyond the axes: they shall not make them narrower."""
    for text in ax.texts:
        text.set_in_layout(False)
    return ax


def nearness(ax: Axes, table: pd.DataFrame) -> Axes:
    """Distance to the nearest class against forgetting, a point per class and architecture.

    Parameters
    ----------
    table : DataFrame
        `class_likeness.nearness` of one data set, drawn for its first measure; if empty, the axes
        say so.
    """
    if table.empty:
        return _nothing(ax, "no images here, hence no measure of likeness")
    measure = table["measure"].iloc[0]
    table = table[table["measure"] == measure]
    for arch, of in table.groupby("arch", sort=False):
        shade, _, marker = looks(arch)
        label = f"{_KINDS[kind_of(arch)]}, n = {len(of)} classes"
        ax.plot(of["nearest_distance"], of["estimate"], marker, c=shade, ms=3.5, mfc="none",
                mew=0.9, ls="none", label=label)  # fmt: skip
    ax.set(xlabel=f"distance to the nearest class ({measure})", ylabel="class mean [events]")
    ax.set_ylim(bottom=0)
    legend_above(ax)
    return ax


def likeness(ax: Axes, records: list[dict], name: str) -> Axes:
    """Correlations and shares by measure of likeness, each beside its chance level."""
    here = {r["quantity"] for r in records if r["dataset"] == name} & set(LIKENESS_ROWS)
    if not here:
        return _nothing(ax, "no images here, hence no measure of likeness")
    layout.rows(ax, records, name, LIKENESS_ROWS, "Spearman's rho, or share of lapses", null=0)
    ax.set_xlim(-1.03, 1.03)
    return _free(ax)


def _nothing(ax: Axes, text: str) -> Axes:
    ax.axis("off")
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, fontsize=7)
    return ax


def conventions(ax: Axes, table: pd.DataFrame) -> Axes:
    """Mean rank correlation under every convention, sorted, the primary one starred."""
    return specification_plots.estimates(
        ax, table.dropna(subset="estimate"), "mean rank\ncorrelation", ylim=(-0.35, 1.05)
    )


def choices(ax: Axes, table: pd.DataFrame) -> Axes:
    """Which choices each convention makes, a dash for each."""
    scopes = {"all": "all runs"}
    for scope in dict.fromkeys(table["scope"]):
        if scope not in ("all", "between"):
            scopes[scope] = f"seeds of the {_KINDS[kind_of(scope)]}"
    columns = {
        "scope": scopes | {"between": "between architectures"},
        "score": {score: score.replace("_", " ") for score in READINGS},
        "never_learned": _NEVER,
        "view": {view: f"{view} view" for view in ("clean", "online")},
    }
    return specification_plots.choices(ax, table.dropna(subset="estimate"), columns)


def examples(ax: Axes, images, table: pd.DataFrame, columns: int = 4, limit: int = 20) -> Axes:
    """Most forgotten images of the classes forgotten most and least, under their labels.

    Orange frames mark planted label noise.

    Parameters
    ----------
    images : ImageSet or None
        None: the axes say that there are none here.
    table : DataFrame
        `class_tables.named_examples` of one data set.
    """
    if images is None:
        return _nothing(ax, "published traces only: no images here")
    if table.empty:
        return _nothing(ax, "no image of these classes was forgotten")
    rows = pd.Index(images.samples["sample_id"]).get_indexer(table["sample_id"])
    marked = table["planted_noisy"].to_numpy(bool) if "planted_noisy" in table else None
    titles = [short_class(c) for c in table["class"]]
    pictures = np.array(images.images[rows])
    return contact_sheet(ax, pictures, titles, columns, marked, limit)


def gallery(name: str, images, table: pd.DataFrame):
    """`examples` as a figure of its own, six pictures a row under their labels."""
    rows = max(1, -(-len(table) // 6)) if images is not None else 1
    figure, axes = new_figure(width=PAGE, height=0.4 + 1.3 * rows)
    examples(axes[0, 0], images, table, columns=6, limit=24)
    return shared_title(figure, f"{name}: forgotten most (orange: planted label noise)")
