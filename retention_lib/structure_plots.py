"""Figures of notebook 02: specification curve, placebos, skill and survival; axes in, axes out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from retention_lib import layout, specification_plots
from retention_lib.ebbinghaus import HOURS, SAVINGS, own_formula
from retention_lib.specification import COUNTED, CURVES
from retention_lib.specification_plots import legend_above, only_first_column
from retention_lib.style import CHANCE, looks, short_arch

#: Order of a specification's choices from top to bottom, and what they are called.
_CHOICES = {
    "origin": {
        "epoch_0": "from epoch 0",
        "first_learned": "from learned epoch",
        "peak": "from peak",
    },
    "signal": {
        "raw": "raw correctness",
        "cumulative_mean": "cumulative mean",
        "ema": "moving average",
        "cumulative_error": "1 - cumulative error",
    },
    "model": {name: name.replace("exponential_", "exp., ") for name in CURVES},
    "counted": {name: name for name in COUNTED},
}
#: What the placebo columns are called, and their marks.
_PLACEBOS = {
    "r2": ("training", "o"),
    "held_out": ("held out", "s"),
    "shuffled": ("shuffled", "x"),
}
#: Names of the predicting models that are too long for an axis.
_MODELS = {
    "exponential_floor": "with floor",
    "exponential, shrunk": "shrunk",
    "one exponential_floor for all": "one for all",
}
#: Hours and what they are called on Ebbinghaus's axis.
_TICKS = {1 / 3: "20 min", 1: "1 h", 9: "9 h", 24: "1 d", 48: "2 d", 144: "6 d", 744: "31 d"}


def column(axes, fits, mean_curves, controlled, readings, predicted, kept) -> None:
    """One data set's column of notebook 02's figure, seven axes from top to bottom.

    The tables are those of `structure.r2_values` and `retention_curves`, `placebos.placebo_table`,
    `specification.specification_curve` (drawn for its first pair), `rivals.cross_seed` and
    `survival.by_architecture`.
    """
    r2_distribution(axes[0], fits)
    layout.fitted_curves(axes[1], mean_curves[mean_curves["origin"] == "epoch_0"])
    placebos(axes[2], controlled)
    pair = readings[["arch_a", "arch_b"]].eq(readings[["arch_a", "arch_b"]].iloc[0]).all(axis=1)
    differences(axes[3], readings[pair])
    choices(axes[4], readings[pair])
    skill(axes[5], predicted)
    survival(axes[6], kept)


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
    ax.legend(loc="lower right", fontsize=6, handlelength=1.2, handletextpad=0.5)
    return ax


def differences(ax: Axes, table: pd.DataFrame) -> Axes:
    """Difference in mean R^2 under every reading, sorted, with intervals; the literal one starred.

    Parameters
    ----------
    table : DataFrame
        `specification.specification_curve` of one data set and one pair of architectures.
    """
    a, b = table["arch_a"].iloc[0], table["arch_b"].iloc[0]
    return specification_plots.estimates(
        ax,
        table,
        "R² difference",
        column="difference",
        names=(f"higher: {short_arch(b)}", short_arch(a)),
        colours=(looks(b)[0], looks(a)[0]),
        # Readings that no curve fits lie far below 0: drawn to the edge, or they hide the rest.
        ylim=(-1, 1),
        primary="literal",
    )


def choices(ax: Axes, table: pd.DataFrame) -> Axes:
    """Which choices each reading of `differences` makes, a dash for each."""
    return specification_plots.choices(ax, table, _CHOICES, column="difference")


def placebos(ax: Axes, table: pd.DataFrame) -> Axes:
    """Mean R^2 beside its placebos, a row per architecture and per difference.

    Parameters
    ----------
    table : DataFrame
        `placebos.placebo_table` of one data set.
    """
    place = np.arange(len(table))[::-1]
    ax.hlines(place, table["curveball_low"], table["curveball_high"], colors=CHANCE, lw=5,
              alpha=0.6, label="curveball, 95 %")  # fmt: skip
    for column, (label, marker) in _PLACEBOS.items():
        fill = "black" if column == "r2" else "none"
        ax.plot(table[column], place, marker, mec="black", mfc=fill, ms=4.5, ls="none", label=label)
    for y, (_, row) in zip(place, table.iterrows(), strict=True):
        name = f"{short_arch(row['quantity'])}, p = {row['p']:.2g} against curveball"
        ax.text(0.01, y + 0.2, name, transform=ax.get_yaxis_transform(), fontsize=6.5)
    ax.axvline(0, color=CHANCE, lw=0.6, ls=":")
    ax.set(yticks=[], ylim=(-0.5, len(table) - 0.1), xlabel="mean R² under the literal convention")
    ax.spines["left"].set_visible(False)
    legend_above(ax)
    return ax


def skill(ax: Axes, table: pd.DataFrame) -> Axes:
    """Log-loss skill over a constant rate, a row per model, an interval per architecture.

    Parameters
    ----------
    table : DataFrame
        `skill.skill_table` of one data set and scheme, with `arch`.
    """
    models = [m for m in dict.fromkeys(table["model"]) if m != "constant"]
    archs = list(dict.fromkeys(table["arch"]))
    for i, arch in enumerate(archs):
        of = table[table["arch"] == arch].set_index("model").loc[models]
        y = np.arange(len(models))[::-1] + 0.22 * (len(archs) / 2 - 0.5 - i)
        shade, _, marker = looks(arch)
        ax.hlines(y, of["ci_low"], of["ci_high"], colors=shade, lw=1.5)
        label = f"{short_arch(arch)}, n = {of['n'].iloc[0]:,}"
        ax.plot(of["skill"], y, marker, c=shade, ms=4, ls="none", label=label)
    ax.axvline(0, color=CHANCE, lw=0.6, ls=":")
    ax.set_yticks(np.arange(len(models))[::-1], [_MODELS.get(m, m) for m in models])
    only_first_column(ax)
    scheme = {"cross_seed": "in another seed", "one_step": "one epoch ahead"}
    ax.set(xlabel=f"log-loss skill {scheme[table['scheme'].iloc[0]]}, 0 = constant")
    legend_above(ax)
    return ax


def survival(ax: Axes, table: pd.DataFrame) -> Axes:
    """Kaplan-Meier curve of the time to first forgetting, a step line per architecture.

    Parameters
    ----------
    table : DataFrame
        `survival.by_architecture(traces, survival.kaplan_meier)` of one data set.
    """
    for arch, of in table.groupby("arch", sort=False):
        shade, line, _ = looks(arch)
        label = f"{short_arch(arch)}, {of['at_risk'].max():,} at risk"
        ax.step(of["time"], of["survival"], line, where="post", c=shade, label=label)
        band = {"step": "post", "color": shade, "alpha": 0.18, "lw": 0}
        ax.fill_between(of["time"], of["ci_low"], of["ci_high"], **band)
    ax.set(xlabel="epochs since learned", ylabel="not yet forgotten once", ylim=(None, 1.01))
    ax.legend()
    return ax


def ebbinghaus(ax: Axes, fits: dict) -> Axes:
    """The savings of 1885 with fitted curves over a logarithmic time axis.

    Parameters
    ----------
    fits : dict
        Name -> `DecayFit` of the seven savings against hours.
    """
    hours = np.geomspace(HOURS[0] / 1.5, HOURS[-1] * 1.3, 200)
    for name, found in fits.items():
        label = f"{name.replace('_', ' ')}, SSE {found.sse[0]:.4f}"
        ax.plot(hours, found.predict(hours)[:, 0], lw=1.2, label=label)
    ax.plot(hours, own_formula(hours), "k:", lw=1, label="his own formula")
    ax.plot(HOURS, SAVINGS, "ko", ms=4.5, label="savings of 1885, n = 7")
    ax.set_xscale("log")
    ax.set_xticks(list(_TICKS), list(_TICKS.values()), minor=False)
    ax.minorticks_off()
    ax.set(xlabel="time since learning", ylabel="share of work saved", ylim=(0, 0.8))
    ax.legend(ncols=2)
    return ax
