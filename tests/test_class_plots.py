"""Notebook 04's figure draws the numbers that it is given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from retention_lib import class_plots
from retention_lib.intervals import one_row
from retention_lib.verdicts import record


def classes(k=3, total=3):
    table = pd.DataFrame(
        [(a, c) for a in ("resnet18", "deit") for c in range(k)], columns=["arch", "label"]
    )
    table["class"] = [f"00{c}.Class_{c}" for c in table["label"]]
    table = table.assign(n=40, shrunk=table["label"] * 1.0, classes=total)
    return table.assign(shrunk_low=table["shrunk"] - 1, shrunk_high=table["shrunk"] + 1)


def test_class_rows_name_every_class_with_its_n(ax):
    class_plots.class_rows(ax, classes())
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"Class {c}, 40" for c in range(3)]
    drawn = [line.get_xdata().tolist() for line in ax.lines if len(line.get_xdata()) == 3]
    assert drawn == [[0, 1, 2]] * 2
    assert not ax.texts


def test_class_rows_say_what_is_left_out(ax):
    class_plots.class_rows(ax, classes(4, 200))
    assert [t.get_text() for t in ax.texts] == ["196 classes between"]


@pytest.mark.parametrize("k", [5, 60])
def test_rank_map_shows_every_class_in_every_run(ax, k):
    runs = pd.MultiIndex.from_product([["resnet18", "deit"], [0, 1]], names=["arch", "seed"])
    table = pd.DataFrame(np.tile(np.linspace(1, 0, k)[:, None], 4), columns=runs)
    table.index = [f"class_{i}" for i in range(k)]
    class_plots.rank_map(ax, table)
    assert ax.images[0].get_array().shape == (k, 4)
    assert [t.get_text() for t in ax.texts] == ["CNN", "ViT"]
    assert len(ax.get_yticks()) == (k if k <= 40 else 0)


def test_nearness_draws_one_measure_or_says_there_is_none(ax):
    row = {"arch": "deit", "nearest_distance": 1.0, "estimate": 2.0}
    table = pd.DataFrame([row | {"measure": m} for m in ("planted", "planted", "features")])
    class_plots.nearness(ax, table)
    assert len(ax.lines[0].get_xdata()) == 2 and "planted" in ax.get_xlabel()
    ax.clear()
    class_plots.nearness(ax, pd.DataFrame())
    assert "no images here" in ax.texts[0].get_text()


def test_likeness_rows_are_the_records(ax):
    row = one_row(0.4, 0.1, 0.6, 7, 0.1, "x")
    name = "forgetting_by_similarity_planted"
    class_plots.likeness(ax, [record("class_forgetting", "phantom_x", name, row, 0.0)], "phantom_x")
    assert ax.texts[0].get_text() == "forgetting, nearness: planted (n = 7)"
    assert ax.get_xlim() == (-1.03, 1.03)
    ax.clear()
    class_plots.likeness(ax, [], "phantom_x")
    assert "no images here" in ax.texts[0].get_text()


def test_conventions_and_choices_leave_out_what_has_no_number(ax):
    row = {"score": "mean_error", "never_learned": "kept", "view": "clean", "primary": False}
    row |= {"ci_low": 0.1, "ci_high": 0.5}
    scopes = [("all", 0.3), ("resnet18", 0.4), ("between", np.nan)]
    table = pd.DataFrame([row | {"scope": s, "estimate": e} for s, e in scopes])
    table.loc[0, "primary"] = True
    class_plots.conventions(ax, table)
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert star.get_ydata().tolist() == [0.3]
    ax.clear()
    class_plots.choices(ax, table)
    assert ax.get_xlabel() == "2 conventions, sorted"
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["all runs", "seeds of the CNN", "mean error", "unlearned: as it is",
                     "clean view"]  # fmt: skip


def test_examples_without_images_say_so(ax):
    class_plots.examples(ax, None, pd.DataFrame())
    assert ax.texts[0].get_text() == "published traces only: no images here"


class Pictures:
    samples = pd.DataFrame({"sample_id": ["c", "b", "a"]})
    images = np.arange(3, dtype=np.uint8).repeat(8 * 8 * 3).reshape(3, 8, 8, 3)


def test_examples_are_found_by_their_identity(ax):
    table = pd.DataFrame({"sample_id": ["a", "c"], "class": ["001.X_y", "Z"]})
    table = table.assign(planted_noisy=[False, True], place=1)
    class_plots.examples(ax, Pictures, table)
    assert [int(i.get_array().max()) for i in ax.images] == [2, 0]
    assert [t.get_text() for t in ax.texts] == ["X y", "Z"] and len(ax.patches) == 1
    figure = class_plots.gallery("phantom_x", Pictures, table)
    assert len(figure.axes[0].images) == 2
    plt.close(figure)
    ax.clear()
    class_plots.examples(ax, Pictures, table[:0])
    assert ax.texts[0].get_text() == "no image of these classes was forgotten"
