"""Notebook 03's figures draw the numbers they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from simulated import CNN, VIT
from test_stability_headlines import SCORE, made_tables

from retention_lib import stability_plots, style
from retention_lib.stability_headlines import stability_records


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def by_label(ax, start):
    return next(line for line in ax.lines if line.get_label().startswith(start))


def test_scores_have_a_row_an_interval_per_architecture_and_hollow_held_out(ax):
    tables = made_tables()
    stability_plots.by_score(ax, tables["agreement"], tables["held_out"], tables["redrawn"])
    own = by_label(ax, "resnet18, n = 500")
    assert own.get_xdata().tolist() == pytest.approx([0.11, 0.11])
    assert to_hex(own.get_color()) == style.colour(CNN).lower()
    hollow = [x for x in ax.lines if x.get_markerfacecolor() == "white" and len(x.get_xdata())]
    assert [x.get_xdata().tolist() for x in hollow] == [[0.3], [0.3]]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["forgetting score", "decay constant"]
    assert labels(ax)[-1] == "hollow: held out, n = 90"


def test_the_study_stands_at_its_own_events_beside_the_simulations(ax):
    tables = made_tables()
    agreement = tables["agreement"].assign(score="events")
    agreement = agreement.drop_duplicates(["measure", "arch"])
    curve = pd.DataFrame({"simulator": ["counts"] * 2 + ["traces"] * 2, "events": [0.1, 1, 0.2, 2],
                          "spearman": [0.1, 0.4, 0.2, 0.3],
                          "quoted": [0.11, 0.44, np.nan, np.nan]})  # fmt: skip
    stability_plots.events(ax, curve, agreement, tables["shapes"])
    assert by_label(ax, "counts").get_ydata().tolist() == [0.1, 0.4]
    assert by_label(ax, "quoted").get_ydata().tolist() == [0.11, 0.44]
    mark = by_label(ax, "deit")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.3, 0.12))
    assert ax.get_xscale() == "log"


def test_reliability_rises_with_seeds_to_the_target_line(ax):
    curve = pd.DataFrame({"arch": CNN, "seeds": [1, 2, 3], "reliability": [0.5, 0.67, 0.75],
                          "low": 0.4, "high": 0.8})  # fmt: skip
    stability_plots.seeds(ax, curve, SCORE)
    assert by_label(ax, "resnet18").get_ydata().tolist() == [0.5, 0.67, 0.75]
    assert ax.get_xlim() == (1, 3) and labels(ax)[-1] == "asked for: 0.8"


def test_variance_bars_fill_the_axis_and_draw_negative_ones_as_0(ax):
    parts = {"class": 3.0, "sample": 1.0, "seed": 0.0, "residual": 4.0}
    table = pd.DataFrame({"score": SCORE, "component": c, "truncated": v}
                         for c, v in parts.items())  # fmt: skip
    stability_plots.variance(ax, table)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([0.375, 0.125, 0.5])
    assert labels(ax) == ["class", "sample", "residual"]


def test_a_column_draws_all_seven(ax):
    tables = made_tables()
    records = stability_records(tables, {"octdl": "paper"}, SCORE)
    choice = {"score": SCORE, "never_learned": "max", "view": "clean", "measure": "spearman"}
    tables |= {
        "curve": pd.DataFrame({"dataset": "octdl", "simulator": "counts", "events": [1.0],
                               "spearman": [0.4], "quoted": [0.44]}),
        "brown": pd.DataFrame({"dataset": "octdl", "arch": VIT, "seeds": [1, 2],
                               "reliability": [0.5, 0.6], "low": 0.4, "high": 0.7}),
        "specification": pd.DataFrame([choice | {"dataset": "octdl", "primary": True,
                                                 "estimate": 0.1, "ci_low": 0.0, "ci_high": 0.2}]),
    }  # fmt: skip
    tables["variance"] = tables["variance"].assign(truncated=1.0)
    figure, axes = style.new_figure(7, 1, height=14)
    stability_plots.column(axes[:, 0], "octdl", records, tables, SCORE)
    figure.canvas.draw()
    assert all(one.get_xlabel() for one in axes[[0, 1, 2, 3, 4, 6], 0])
    assert axes[0, 0].get_title(loc="left") == "octdl"
    plt.close(figure)
