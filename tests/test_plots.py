"""Figures draw the numbers they are given, with the same colours for the same things."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from retention_lib import agreement, plots


@pytest.fixture
def ax():
    figure, axes = plots.new_figure()
    yield axes[0, 0]
    figure.canvas.draw()  # what only fails when drawn
    plt.close(figure)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_colours_follow_names_everywhere():
    assert plots.looks("phantom_resnet18") == plots.looks("resnet50")
    assert plots.looks("phantom_deit") == plots.looks("vit_tiny_patch16_224")
    assert plots.looks("octdl") == plots.looks("phantom_oct")
    assert plots.looks("cub") == plots.looks("phantom_birds")
    names = ("resnet18", "deit", "octdl", "cub", "convnext_tiny")
    assert len({plots.colour(name) for name in names}) == len(names)
    assert len({plots.looks(name)[2] for name in names}) == len(names)


def luminance(colour):
    r, g, b = (int(to_hex(colour)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_the_two_architectures_differ_without_colour():
    a, b = plots.looks("resnet18"), plots.looks("deit")
    assert a[1] != b[1] and a[2] != b[2]
    assert abs(luminance(a[0]) - luminance(b[0])) > 0.05


def test_contact_sheet_places_every_picture_and_frames_the_marked(ax):
    images = np.zeros((5, 8, 8, 3), np.uint8)
    out = plots.contact_sheet(
        ax, images, [f"class {i}" for i in range(5)], columns=3, marked=np.arange(5) == 2
    )
    assert out is ax and len(ax.images) == 5 and len(ax.patches) == 1
    assert [t.get_text() for t in ax.texts] == [f"class {i}" for i in range(5)]
    tops = [image.get_extent()[3] for image in ax.images]
    assert tops[:3] == [0] * 3 and tops[3] == tops[4] > 8
    with pytest.raises(ValueError, match="titles must be one per image, got 1 for 5"):
        plots.contact_sheet(ax, images, ["a"])


def test_learning_curves_show_the_mean_over_seeds(ax):
    rows = [(a, s, e) for a in ("resnet18", "deit") for s in (0, 1) for e in range(3)]
    metrics = pd.DataFrame(rows, columns=["arch", "seed", "epoch"])
    metrics["train_accuracy"] = 0.5 + 0.1 * metrics["epoch"] + 0.1 * metrics["seed"]
    metrics["val_accuracy"] = 0.4
    assert plots.learning_curves(ax, metrics, chance=0.25) is ax
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.55, 0.65, 0.75])
    assert labels(ax)[0] == "resnet18, training (2 seeds)" and labels(ax)[-1] == "chance"
    assert "epoch" in ax.get_xlabel()


def test_overlap_curve_has_chance_and_ceiling(ax):
    a, b = np.random.default_rng(0).poisson(0.5, (2, 200))
    curve = agreement.overlap_curve(a, b).assign(low=0.0, high=0.5)
    plots.overlap_curve(ax, curve, ceiling={"resnet18": curve}, n=200)
    assert labels(ax) == [
        "between architectures, n = 200",
        "resnet18, other seed (ceiling)",
        "chance",
    ]
    assert ax.lines[0].get_ydata() == pytest.approx(curve["jaccard"])
    assert ax.get_xlim() == (0, 50)


def test_r2_distribution_counts_flat_traces_apart(ax):
    frames = pd.DataFrame({"arch": ["resnet18"] * 4, "r2": [0.2, 0.6, np.nan, -7.0]})
    plots.r2_distribution(ax, frames)
    assert labels(ax) == ["resnet18\nn = 3, flat 25%, mean -2.07"]
    assert ax.lines[0].get_xdata().tolist() == [-1, 0.2, 0.6]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert len(ax.lines) == 1  # the mean lies below what is drawn


def test_r2_distribution_without_any_fit(ax):
    plots.r2_distribution(ax, {"deit": np.full(3, np.nan)})
    assert labels(ax) == ["deit\nn = 0, flat 100%"]


def test_retention_is_among_those_right_at_first(ax):
    correct = np.array([[[1, 1, 0, 0], [1, 0, 1, 0]]], bool)  # (run, epoch, sample)
    plots.retention_curves(ax, {"deit": correct})
    assert ax.lines[-1].get_ydata().tolist() == [1.0, 0.5]
    assert labels(ax) == ["deit: 1 runs, n = 2 each"]
    with pytest.raises(ValueError, match=r"correct must be \(run, epoch, sample\), got \(2, 4\)"):
        plots.retention_curves(ax, {"deit": correct[0]})


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
