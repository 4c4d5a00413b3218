"""Axes of notebook 01: what is drawn where, with images and without."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from simulated import CNN, VIT

from retention_lib import agreement, overlap_plots, style
from retention_lib.agreement import CROSS, SAME


@pytest.fixture
def ax():
    figure, axes = style.new_figure(width=3.4, height=3)
    yield axes[0, 0]
    plt.close(figure)


def records():
    keys = ("jaccard", "jaccard_between_seeds_cnn", "jaccard_between_seeds_vit")
    row = {"dataset": "sim", "ci_low": 0.2, "ci_high": 0.4, "n": 90, "ceiling": np.nan}
    row |= {"chance": 0.1, "planted": np.nan, "paper": None}
    return [row | {"quantity": q, "estimate": 0.25 + 0.05 * i} for i, q in enumerate(keys)]


def pairs():
    rows = [(SAME, CNN, 0.31), (SAME, VIT, 0.32), (CROSS, CNN, 0.2), (CROSS, CNN, 0.3)]
    return pd.DataFrame(rows, columns=["kind", "arch_a", "estimate"])


def missing(estimate=0.4):
    ends = {"ci_low": estimate - 0.1, "ci_high": estimate + 0.1}
    return pd.Series({"estimate": estimate, "cross": 0.25, "ceiling": 0.33} | ends)


def test_levels_show_every_pair_and_what_is_missing(ax):
    overlap_plots.levels(ax, records(), "sim", pairs(), missing())
    names = [text.get_text() for text in ax.texts]
    assert "architectures, missing 0.40 [0.30, 0.50] (n = 90)" in names
    bars = {
        round(float(line.get_ydata()[0]), 2): sorted(line.get_xdata())
        for line in ax.lines
        if line.get_markersize() == 3.5
    }
    assert bars == {1.81: [0.2, 0.3], 0.81: [0.31], -0.19: [0.32]}
    assert not any(text.get_in_layout() for text in ax.texts)


def test_levels_say_that_there_is_no_value(ax):
    overlap_plots.levels(ax, records(), "sim", pairs(), missing(np.nan))
    names = [text.get_text() for text in ax.texts]
    assert "architectures, missing no value (n = 90)" in names and "" not in names


def ranks():
    rows = []
    for measure, value in (("spearman", 0.5), ("kendall", 0.4)):
        for kind, a in ((CROSS, CNN), (SAME, CNN), (SAME, VIT)):
            for score in ("events", "decay_constant"):
                row = {"score": score, "measure": measure, "kind": kind, "arch_a": a, "n": 1234}
                row |= {"estimate": value, "ci_low": value - 0.1, "ci_high": value + 0.1}
                rows.append(row | {"control": 0.01})
    return pd.DataFrame(rows)


def test_correlations_fill_spearman_and_leave_kendall_open(ax):
    overlap_plots.correlations(ax, ranks())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["events", "decay constant λ"]
    assert "n = 1,234" in ax.get_xlabel()
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["architectures", "resnet18 seeds", "deit seeds", "misaligned"]
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() in "Dos"]
    filled = [line for line in drawn if line.get_markerfacecolor() != "white"]
    assert len(drawn) == 6 and {x for line in filled for x in line.get_xdata()} == {0.5}


def test_correlations_of_constant_scores_draw_nothing_and_do_not_fail(ax):
    table = ranks().assign(estimate=np.nan, ci_low=np.nan, ci_high=np.nan)
    overlap_plots.correlations(ax, table)
    assert ax.get_xlim() == pytest.approx((-0.05, 1.02))


def test_conventions_keep_their_ceilings_in_sight(ax):
    table = pd.DataFrame({"excess": [0.3, 0.1], "ci_low": [0.2, -0.1], "ci_high": [0.4, 0.2]})
    overlap_plots.conventions(ax, table.assign(primary=[True, False], room=[0.9, np.nan]))
    low, high = ax.get_ylim()
    assert low < -0.1 and high > 0.9
    ceiling = next(line for line in ax.lines if line.get_label() == "ceiling")
    assert np.isnan(ceiling.get_ydata()[0]) and ceiling.get_ydata()[1] == 0.9
    assert "above 50%" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_overlap_curve_has_chance_and_ceiling(ax):
    a, b = np.random.default_rng(0).poisson(0.5, (2, 200))
    curve = agreement.overlap_curve(a, b).assign(low=0.0, high=0.5)
    overlap_plots.overlap_curve(ax, curve, ceiling={"resnet18": curve}, n=200)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "between architectures, n = 200",
        "resnet18, other seed (ceiling)",
        "chance",
    ]
    assert ax.lines[0].get_ydata() == pytest.approx(curve["jaccard"])
    assert ax.get_xlim() == (0, 50)
