"""The distribution of R^2 as it is drawn."""

import numpy as np
import pandas as pd
import pytest
from figure_texts import labels

from retention_lib import structure_plots


def test_r2_distribution_counts_flat_traces_apart(ax):
    frames = pd.DataFrame({"arch": ["resnet18"] * 4, "r2": [0.2, 0.6, np.nan, -7.0]})
    structure_plots.r2_distribution(ax, frames)
    assert labels(ax) == ["resnet18\nn = 3, flat 25%, mean -2.07"]
    assert ax.lines[0].get_xdata().tolist() == [-1, 0.2, 0.6]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert len(ax.lines) == 1  # the mean lies below what is drawn


def test_r2_distribution_without_any_fit(ax):
    structure_plots.r2_distribution(ax, {"deit": np.full(3, np.nan)})
    assert labels(ax) == ["deit\nn = 0, flat 100%"]
