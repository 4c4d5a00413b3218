"""The association of early loss and decay, its test and specification, on known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr
from simulated import simulated

from retention_lib import early_association, early_specification
from retention_lib.early_predictors import PRIMARY, decay_constants, early_loss, readings
from retention_lib.link_tables import ALL
from retention_lib.simulated_study import as_traces, study


@pytest.fixture(scope="module")
def traces():
    return simulated(n=120, epochs=6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def all_runs(table, what):
    return table[table["arch"] == ALL].set_index(what)


def test_permutations_keep_classes_and_groups_together(rng):
    groups = np.array([0, 0, 1, 1, 2, 3, 3, 4, 5])
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    seen = set()
    for at in early_association.shuffled_within(labels, groups, rng, 200):
        assert sorted(at) == list(range(9)) and (labels[at] == labels).all()
        assert groups[at[0]] == groups[at[1]] and groups[at[2]] == groups[at[3]]
        assert at[4] == 4 and set(at[5:7]) == {5, 6}  # no other group of their size and class
        seen.add(tuple(at))
    assert len(seen) == 2 * 2 * 2 * 2 * 2  # two pairs change places and turn; 5-6 turn; 7-8 swap
    free = list(early_association.shuffled_within(labels, np.arange(9), rng, 300))
    assert len({tuple(at) for at in free}) > 250


def test_headline_p_is_uniform_without_and_small_with_a_link_within_classes(rng):
    p = []
    for _ in range(16):
        made = study(60, 8, ["cnn", "vit"], [1, 2], rng, early_loss=0.0, group_size=2)
        p.append(
            all_runs(early_association.headline(as_traces(made), rng, 2, 39), "quantity")["p"][0:1]
        )
    p = np.concatenate(p)
    assert 0.3 < p.mean() < 0.7 and (p <= 0.1).mean() < 0.3
    made = study(200, 12, ["cnn", "vit"], [1, 2], rng, early_loss=0.5)
    row = all_runs(early_association.headline(as_traces(made), rng, 50, 199), "quantity").iloc[0]
    assert row["p"] == pytest.approx(0.01) and row["null_high"] < row["ci_low"]
    assert abs(row["misaligned"]) < 0.15


def test_headline_is_the_mean_of_the_runs(traces, rng):
    table = early_association.headline(traces, rng, 20, 19)
    loss, constants = early_loss(traces), decay_constants(traces)
    rho = [spearmanr(*pair)[0] for pair in zip(loss, constants, strict=True)]
    assert table["estimate"].tolist() == pytest.approx(
        [np.mean(rho[:3]), np.mean(rho[3:]), np.mean(rho)]
    )
    assert (table["ci_low"] < table["estimate"]).all() and (table["seeds"] == 3).all()
    needed = early_association.nominal(table.assign(dataset="sim"))
    assert needed["n"].tolist() == [1444, 1651, 5994, 120]
    assert needed["weakest"].iloc[-1] == table["weakest"].iloc[-1] > needed["strongest"].iloc[-1]


def test_specification_marks_the_headline(rng):
    traces = simulated(n=60, epochs=5, seeds=(0,))
    table = early_specification.specification(traces, rng, 10)
    primary = table[table["primary"]]
    head = early_association.headline(traces, rng, 5, 5)
    assert len(primary) == 1 and table["estimate"].is_monotonic_increasing
    assert primary["estimate"].iloc[0] == pytest.approx(head["estimate"].iloc[-1])
    found = readings(traces)
    assert found[PRIMARY] == pytest.approx(decay_constants(traces))
    assert len(table) <= 4 * 2 * len(found) and table["estimate"].notna().all()
    summary = early_specification.agreement_of_conventions(table.assign(dataset="sim")).iloc[0]
    assert summary["primary"] == primary["estimate"].iloc[0]
    assert summary["above"] == (table["ci_low"] > 0).mean()
    empty = pd.DataFrame({"dataset": []})
    assert early_specification.agreement_of_conventions(empty).empty


def test_deciles_are_mean_ranks(traces):
    table = early_association.by_decile(traces, parts=4)
    assert len(table) == 8 and table["n"].sum() == pytest.approx(2 * 120)
    mean = table.groupby("arch")[["decay", "n"]].apply(lambda t: (t["decay"] * t["n"]).sum() / 120)
    assert mean.tolist() == pytest.approx([50, 50])
    rank = rankdata(decay_constants(traces)[0])
    assert rank.mean() == pytest.approx(60.5)
