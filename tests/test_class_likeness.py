"""Likeness of classes, forgetting and confusions where their relation was planted."""

import numpy as np
import pytest
from many_classes import ring, simulated

from retention_lib import class_likeness, class_tables
from retention_lib.confusions import confusion_counts, lapses_to_nearest
from retention_lib.similarity import neighbours


@pytest.fixture(scope="module")
def traces():
    return simulated()


def test_confusions_that_name_the_next_class_are_found(traces):
    gap = ring() + np.add.outer(np.arange(8), np.arange(8)) * 1e-3  # no ties
    near, rng = {"simulated": {"planted": gap, "genus": np.ones((8, 8))}}, np.random.default_rng(0)
    table = class_likeness.confused_with_nearest(traces, near, rng, 50, 99)
    assert table["scope"].tolist() == ["all", "resnet", "deit"]
    assert (table["measure"] == "planted").all()
    whole = table.iloc[0]
    total, named = lapses_to_nearest(
        traces.predicted(),
        traces.labels,
        neighbours(gap)["nearest"].to_numpy(),
    )
    counts = confusion_counts(traces.predicted(), traces.labels, 8).sum(0)
    assert total.sum() == counts.sum() == whole["n"]
    assert whole["estimate"] == pytest.approx(named.sum() / total.sum(), abs=1e-12)
    assert whole["ci_low"] <= whole["estimate"] <= whole["ci_high"]
    assert whole["mantel"] > 0.3
    top = class_likeness.confusion_table(traces, near, top=3)
    assert ((top["label"] + 1) % 8 == top["predicted"]).all() and top["measure"].eq("planted").all()
    assert class_likeness.confusion_table(traces, {}, top=3)["measure"].eq("none").all()


def test_forgetting_by_likeness_is_positive_where_close_classes_are_forgotten(traces):
    mean = class_tables.rank_map(traces).mean(axis=1)
    at = np.array([mean[f"class_{c}"] for c in range(8)])
    gap = 2 - at[:, None] - at  # the more both are forgotten, the closer
    near, rng = {"simulated": {"planted": gap}}, np.random.default_rng(0)
    table = class_likeness.forgetting_by_likeness(traces, near, rng, draws=199)
    whole = table[(table["scope"] == "all") & (table["summary"] == "mean_of_nearest")].iloc[0]
    assert whole["estimate"] == pytest.approx(1) and whole["ci_low"] < whole["ci_high"]
    assert whole["p_claim"] <= whole["p"] < 0.05
    points = class_likeness.nearness(traces, near)
    assert len(points) == 16 and set(points["arch"]) == {"resnet", "deit"}
    assert class_likeness.nearness(traces, {}).empty
    assert class_likeness.forgetting_by_likeness(traces, {}, rng).empty
    assert class_likeness.measures_agree(traces, {}, rng).empty


def test_measures_that_are_the_same_agree(traces):
    gap = np.abs(np.subtract.outer(np.arange(8.0) ** 2, np.arange(8.0) ** 2))
    genus = (np.arange(8)[:, None] // 2 != np.arange(8) // 2).astype(float)
    near = {"simulated": {"planted": gap, "features of deit": 2 * gap, "genus": genus}}
    table = class_likeness.measures_agree(traces, near, np.random.default_rng(0), 199)
    assert table["measure_b"].tolist() == ["features of deit", "genus", "genus"]
    assert table["estimate"].iloc[0] == pytest.approx(1) and table["same_nearest"].iloc[0] == 1
    assert table["chance"].tolist() == pytest.approx([1 / 7] * 3)


def test_likeness_says_what_is_missing(traces):
    said = []
    assert class_likeness.likeness({}, {"octdl": traces}, log=said.append) == {}
    assert said == ["octdl: published traces only: no images here, hence no measure of likeness"]
