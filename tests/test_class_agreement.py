"""Runs and architectures that agree on classes as far as was planted, and no further."""

import numpy as np
import pandas as pd
import pytest
from many_classes import simulated

from retention_lib import class_agreement
from retention_lib.class_consistency import class_consistency, deals


@pytest.fixture(scope="module")
def traces():
    return simulated()


def test_deals_keep_sizes_and_differ():
    code, groups = np.repeat([0, 1, 2], [20, 6, 4]), np.arange(30) // 2
    many = deals(code, groups, np.random.default_rng(0), 40)
    assert all(np.bincount(row).tolist() == [20, 6, 4] for row in many)
    assert (many[:, ::2] == many[:, 1::2]).all()  # sizes are even: no pair is torn
    assert len(np.unique(many, axis=0)) > 30


def test_misaligned_w_is_at_chance_and_classes_exceed_the_placebo(traces):
    table = class_agreement.consistency(
        traces, np.random.default_rng(0), draws=100, permutations=399
    )
    assert table["scope"].tolist() == ["all", "resnet", "deit"]
    whole = table.iloc[0]
    assert whole["misaligned"] == pytest.approx(whole["chance"], abs=0.02)
    assert whole["misaligned_low"] < 1 / 6 < whole["misaligned_high"] < whole["estimate"]
    assert whole["p"] == whole["p_placebo"] == whole["p_misaligned"] == 1 / 400
    assert whole["ci_low"] <= whole["estimate"] <= whole["ci_high"] and whole["seeds"] == 3
    assert class_agreement.consistency(traces.select(arch="deit", seed=10), None).empty


def test_sizes_alone_order_the_classes_if_the_score_is_skewed():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), [300, 300, 300, 3, 3, 3])
    values = rng.poisson(0.03, (4, len(labels))).astype(float)
    runs = pd.DataFrame({"arch": ["a"] * 4, "seed": range(4)})
    row = class_consistency(values, runs, labels, np.arange(len(labels)), rng, 20, 0.95, 600)
    assert row["misaligned"].iloc[0] > row["chance"].iloc[0] + 0.05


def test_between_architectures_has_p_and_both_intervals(traces):
    table = class_agreement.between_architectures(traces, np.random.default_rng(0), draws=100)
    cross = table[table["arch_a"] != table["arch_b"]].iloc[0]
    assert cross["p"] < 0.05 and cross["ci_low"] <= cross["estimate"] <= cross["ci_high"]
    assert (cross["n"], cross["seeds"], cross["pairs"]) == (8, 3, 9)
    assert table.loc[table["arch_a"] == table["arch_b"], "p"].isna().all()


def test_p_between_architectures_is_uniform_without_class_effects():
    rng, p = np.random.default_rng(0), []
    for _ in range(300):
        a, b = rng.normal(size=9), rng.normal(size=9)
        runs = a + 0.3 * rng.normal(size=(3, 9)), b + 0.3 * rng.normal(size=(3, 9))
        p.append(class_agreement.permuted_p(*runs, rng, 199))
    assert np.mean(np.array(p) <= 0.05) < 0.09 and np.mean(np.array(p) <= 0.5) < 0.6
