"""Class means, ranks and examples of a simulated study."""

import numpy as np
import pandas as pd
import pytest
from many_classes import simulated

from retention_lib import class_tables
from retention_lib.class_forgetting import extremes
from retention_lib.confusions import examples


@pytest.fixture(scope="module")
def traces():
    return simulated()


def test_class_table_extremes_and_ranks(traces):
    table = class_tables.class_table(traces, np.random.default_rng(0), draws=50)
    right = traces.correct()[:3, 0][:, traces.labels == 2].mean()
    assert table["wrong_at_0"].iloc[2] == pytest.approx(1 - right, abs=1e-12)
    ends = extremes(table, 2)
    assert len(ends) == 8 and ends["mean_place"].is_monotonic_decreasing
    assert ends["classes"].eq(8).all()
    both = class_tables.ends_of(table.assign(dataset="x"), 99)
    assert len(both) == len(table)
    assert class_tables.ends_of(pd.DataFrame({"dataset": []})).empty
    ranks = class_tables.rank_map(traces)
    assert ranks.shape == (8, 6) and ranks.mean(axis=1).is_monotonic_decreasing
    with pytest.raises(ValueError, match="each must be at least 1, got 0"):
        extremes(table, 0)


def test_named_examples_are_of_both_ends(traces):
    table = class_tables.named_examples(traces, "mean_error", 1, 2)
    assert table["end"].tolist() == ["most"] * 2 + ["least"] * 2
    ranks = class_tables.rank_map(traces, "mean_error")
    assert table["class"].tolist() == [ranks.index[0]] * 2 + [ranks.index[-1]] * 2
    label = table["label"].iloc[0]
    assert table["taken_for"].iloc[0] == f"class_{(label + 1) % 8}"
    assert table["epochs_forgotten"].min() >= 1 and not table["planted_noisy"].any()
    assert examples(traces, [3, 1], per_class=1)["label"].tolist() == [3, 1]
