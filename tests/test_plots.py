"""Figures draw the numbers they are given, with the same colours for the same things."""

import numpy as np
import pandas as pd
import pytest
from figure_texts import labels

from retention_lib import plots


def test_learning_curves_show_the_mean_over_seeds(ax):
    rows = [(a, s, e) for a in ("resnet18", "deit") for s in (0, 1) for e in range(3)]
    metrics = pd.DataFrame(rows, columns=["arch", "seed", "epoch"])
    metrics["train_accuracy"] = 0.5 + 0.1 * metrics["epoch"] + 0.1 * metrics["seed"]
    metrics["val_accuracy"] = 0.4
    assert plots.learning_curves(ax, metrics, chance=0.25) is ax
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.55, 0.65, 0.75])
    assert labels(ax)[0] == "resnet18, training (2 seeds)" and labels(ax)[-1] == "chance"
    assert "epoch" in ax.get_xlabel()


def test_interval_rows_draw_what_is_there(ax):
    frame = pd.DataFrame(
        {
            "label": ["one", "two"],
            "colour_of": ["resnet18", "deit"],
            "estimate": [0.3, np.nan],
            "ci_low": [0.2, np.nan],
            "ci_high": [0.4, np.nan],
            "n": [1200, 0],
            "chance": [0.05, np.nan],
            "paper": [0.34, 0.15],
            "planted": [np.nan, np.nan],
        }
    )
    plots.interval_rows(ax, frame, "Jaccard index", null=0)
    assert labels(ax) == ["chance", "paper"]
    assert [t.get_text() for t in ax.texts] == ["one (n = 1,200)", "two (not yet run)"]
    assert ax.lines[0].get_xdata().tolist() == [0.2, 0.4]
    assert ax.get_xlabel() == "Jaccard index"


def test_interval_rows_without_rows(ax):
    columns = ["label", "estimate", "ci_low", "ci_high", "n", "planted", "colour_of"]
    plots.interval_rows(ax, pd.DataFrame(columns=columns), "nothing")
    assert ax.get_legend() is None


def test_trace_raster_sorts_and_tells_forgotten_from_not_learned(ax):
    correct = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)  # (epoch, sample)
    plots.trace_raster(ax, correct)
    state = ax.images[0].get_array()
    assert state.tolist() == [[1, 1, 0], [1, 2, 1], [1, 1, 1]]
    assert labels(ax) == ["not learned yet", "right", "forgotten"]
    with pytest.raises(ValueError, match="correct must be"):
        plots.trace_raster(ax, correct[0])
