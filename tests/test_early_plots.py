"""Figures of notebook 05: what is drawn where."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_early_headlines import CNN, VIT, made

from retention_lib import early_plots, layout, style
from retention_lib.early_headlines import EARLY_ROWS, early_records
from retention_lib.style import looks


def texts(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_rows_by_architecture_stand_where_their_estimates_are(ax):
    held = made()[1]
    early_plots.by_arch(ax, held, "condition", "Spearman")
    assert [t.get_text() for t in ax.get_yticklabels()] == list(dict.fromkeys(held["condition"]))
    marks = {line.get_label(): line for line in ax.lines if line.get_linestyle() == "None"}
    assert list(marks) == ["resnet18, n = 50", "deit, n = 50"]  # all runs are not drawn
    assert marks["deit, n = 50"].get_xdata() == pytest.approx(0.5)
    assert marks["deit, n = 50"].get_color() == looks(VIT)[0]
    assert np.diff(marks["deit, n = 50"].get_ydata()) == pytest.approx(-1)


def test_headline_draws_the_papers_range_as_a_band(ax):
    tables = [t.assign(dataset="octdl") for t in made()]
    records = early_records(*tables, {"octdl": "paper"})
    assert records[0]["paper"] == (0.30, 0.50)
    early_plots.headline(ax, records, "octdl")
    assert "paper" in texts(ax)
    (band,) = [p for p in ax.patches if p.get_label() == "paper"]
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((0.3, 0.5))
    shown = dict(t.get_text().rstrip(")").rsplit(" (", 1) for t in ax.texts)
    assert list(shown) == list(EARLY_ROWS.values())
    redrawn = [name for name, count in shown.items() if count.endswith(" redraws")]
    assert redrawn == [EARLY_ROWS["spearman_curveball"]]  # there n counts these, not images


def test_deciles_and_rivals(ax):
    rows = [{"arch": a, "loss": x, "decay": x, "low": x - 1, "high": x + 1, "n": 7.0}
            for a in (CNN, VIT) for x in (25.0, 75.0)]  # fmt: skip
    early_plots.deciles(ax, pd.DataFrame(rows))
    assert texts(ax) == ["resnet18, n = 7 a tenth", "deit, n = 7 a tenth", "no relation"]
    main = made()[0].assign(predictor="early loss")
    both = [main.assign(quantity=q) for q in ("spearman", "given class")]
    figure, axes = style.new_figure()
    early_plots.rivals(axes[0, 0], pd.concat(both))
    assert texts(axes[0, 0])[-1] == "given class"
    plt.close(figure)


def test_the_column_fills_eight_axes():
    main, held, moved, means, controlled, predicted, known = made()
    tables = (main, held, moved, means, controlled, predicted, known)
    records = early_records(*tables, {"phantom_oct": "phantom"})
    parts = pd.DataFrame({"arch": [CNN, VIT], "loss": 50.0, "decay": 50.0, "n": 5.0})
    beside = pd.concat([main.assign(predictor="early loss", quantity=q)
                        for q in ("spearman", "given class")])  # fmt: skip
    choices = {"early": "clean", "view": "clean", "target": "events", "origin": "none"}
    choices |= {"model": "none", "loss": "none", "never_learned": "kept", "given": "class"}
    readings = main.assign(**choices, primary=[True, False, False])
    figure, panels = layout.columns({"phantom_oct": 1}, 8, [1.5] * 8)
    parts = parts.assign(low=49.0, high=51.0)
    shown = (parts, held, beside, moved, predicted.assign(samples=50), readings)
    early_plots.column(panels[0][2], records, *shown, "phantom_oct")
    assert all(len(ax.lines) for ax in panels[0][2])
    assert panels[0][2][7].get_xlabel() == "3 conventions, sorted"
    plt.close(figure)
