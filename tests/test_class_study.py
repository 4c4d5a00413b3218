"""Notebook 04's measurements on simulated studies whose class effects are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from retention_lib import class_study
from retention_lib.class_consistency import class_consistency, deals
from retention_lib.class_forgetting import extremes
from retention_lib.concordance import (
    agreement_ceiling,
    as_w,
    concordances,
    kendall_w,
    means_by_class,
    rank_correlations,
    redrawn_means,
    without_each_seed,
)
from retention_lib.confusions import confusion_counts, examples, lapses_to_nearest
from retention_lib.findings import score_matrix
from retention_lib.similarity import neighbours
from retention_lib.simulated_study import as_traces, study


def simulated(class_effect=0.3, n=480, seed=0, shared=0.8):
    made = study(
        n,
        13,
        ["resnet", "deit"],
        (10, 11, 12),
        np.random.default_rng(seed),
        reliability=0.6,
        shared=shared,
        class_effect=class_effect,
        n_classes=8,
        rate=0.05,
    )
    return as_traces(made)


@pytest.fixture(scope="module")
def traces():
    return simulated()


def ring(k=8):
    """Distances on a ring: the nearest classes of c are c - 1 and c + 1."""
    gap = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    return np.minimum(gap, k - gap).astype(float)


def test_w_of_many_tables_is_that_of_each():
    ratings = np.random.default_rng(0).poisson(2, (20, 4, 6))
    one_by_one = [kendall_w(r).estimate[0] for r in ratings]
    assert concordances(ratings) == pytest.approx(one_by_one, abs=1e-12)
    holes = ratings.astype(float)
    holes[3, 1, 2] = np.nan
    assert np.isnan(concordances(holes)).tolist() == [i == 3 for i in range(20)]
    assert np.isnan(concordances(np.ones((3, 5)))) and np.isnan(concordances(ratings[0, :1]))


def test_rank_correlations_are_spearmans_and_give_w_without_ties():
    means = np.random.default_rng(0).normal(size=(4, 9))
    rho = rank_correlations(means)
    assert rho[1, 3] == pytest.approx(stats.spearmanr(means[1], means[3])[0], abs=1e-12)
    mean = rho[np.triu_indices(4, 1)].mean()
    assert as_w(mean, 4) == pytest.approx(kendall_w(means).estimate[0], abs=1e-12)
    assert np.isnan(rank_correlations([[1.0, 1.0], [1.0, 2.0]])[0, 1])


def test_redrawn_means_are_those_of_the_resampled_rows():
    rng = np.random.default_rng(0)
    values, code = rng.normal(size=(3, 40)), np.arange(40) % 5
    rows = rng.integers(40, size=40)
    counts = np.bincount(rows, minlength=40)[None].astype(float)
    slow = means_by_class(values[:, rows], code[rows], 5)
    assert redrawn_means(values, code, counts)[0] == pytest.approx(slow, abs=1e-12, nan_ok=True)


def test_ceiling_is_reached_by_architectures_that_agree_like_their_seeds():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    means = truth + rng.normal(size=(6, 300))
    arch = np.array(["a"] * 3 + ["b"] * 3)
    whole = kendall_w(means).estimate[0]
    assert agreement_ceiling(means, arch) == pytest.approx(whole, abs=0.03)
    means[3:] = rng.normal(size=300) + rng.normal(size=(3, 300))  # another order
    assert agreement_ceiling(means, arch) > kendall_w(means).estimate[0] + 0.15
    assert np.isnan(agreement_ceiling(means[:3], arch[:3]))


def test_leaving_out_a_seed_finds_the_one_that_differs():
    order = np.arange(12.0)
    means = np.stack([order, order, order, order, -order, -order])
    out = without_each_seed(means, np.array([0, 0, 1, 1, 2, 2]))
    assert out["left_high"] == pytest.approx(1) and out["left_low"] < out["left_high"]
    assert 0 <= out["seed_low"] <= out["seed_high"] <= 1 and out["seeds"] == 3
    assert np.isnan(without_each_seed(means[:2], np.array([0, 1]))["seed_low"])


def test_deals_keep_sizes_and_differ():
    code, groups = np.repeat([0, 1, 2], [20, 6, 4]), np.arange(30) // 2
    many = deals(code, groups, np.random.default_rng(0), 40)
    assert all(np.bincount(row).tolist() == [20, 6, 4] for row in many)
    assert (many[:, ::2] == many[:, 1::2]).all()  # sizes are even: no pair is torn
    assert len(np.unique(many, axis=0)) > 30


def test_misaligned_w_is_at_chance_and_classes_exceed_the_placebo(traces):
    table = class_study.consistency(traces, np.random.default_rng(0), draws=100, permutations=399)
    assert table["scope"].tolist() == ["all", "resnet", "deit"]
    whole = table.iloc[0]
    assert whole["misaligned"] == pytest.approx(whole["chance"], abs=0.02)
    assert whole["misaligned_low"] < 1 / 6 < whole["misaligned_high"] < whole["estimate"]
    assert whole["p"] == whole["p_placebo"] == whole["p_misaligned"] == 1 / 400
    assert whole["ci_low"] <= whole["estimate"] <= whole["ci_high"] and whole["seeds"] == 3
    assert class_study.consistency(traces.select(arch="deit", seed=10), None).empty


def test_sizes_alone_order_the_classes_if_the_score_is_skewed():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), [300, 300, 300, 3, 3, 3])
    values = rng.poisson(0.03, (4, len(labels))).astype(float)
    runs = pd.DataFrame({"arch": ["a"] * 4, "seed": range(4)})
    row = class_consistency(values, runs, labels, np.arange(len(labels)), rng, 20, 0.95, 600)
    assert row["misaligned"].iloc[0] > row["chance"].iloc[0] + 0.05


def test_class_table_extremes_and_ranks(traces):
    table = class_study.class_table(traces, np.random.default_rng(0), draws=50)
    right = traces.correct()[:3, 0][:, traces.labels == 2].mean()
    assert table["wrong_at_0"].iloc[2] == pytest.approx(1 - right, abs=1e-12)
    ends = extremes(table, 2)
    assert len(ends) == 8 and ends["mean_place"].is_monotonic_decreasing
    assert ends["classes"].eq(8).all()
    both = class_study.ends_of(table.assign(dataset="x"), 99)
    assert len(both) == len(table)
    assert class_study.ends_of(pd.DataFrame({"dataset": []})).empty
    ranks = class_study.rank_map(traces)
    assert ranks.shape == (8, 6) and ranks.mean(axis=1).is_monotonic_decreasing
    with pytest.raises(ValueError, match="each must be at least 1, got 0"):
        extremes(table, 0)


def test_between_architectures_has_p_and_both_intervals(traces):
    table = class_study.between_architectures(traces, np.random.default_rng(0), draws=100)
    cross = table[table["arch_a"] != table["arch_b"]].iloc[0]
    assert cross["p"] < 0.05 and cross["ci_low"] <= cross["estimate"] <= cross["ci_high"]
    assert (cross["n"], cross["seeds"], cross["pairs"]) == (8, 3, 9)
    assert table.loc[table["arch_a"] == table["arch_b"], "p"].isna().all()


def test_p_between_architectures_is_uniform_without_class_effects():
    rng, p = np.random.default_rng(0), []
    for _ in range(300):
        a, b = rng.normal(size=9), rng.normal(size=9)
        runs = a + 0.3 * rng.normal(size=(3, 9)), b + 0.3 * rng.normal(size=(3, 9))
        p.append(class_study._permuted(*runs, rng, 199))
    assert np.mean(np.array(p) <= 0.05) < 0.09 and np.mean(np.array(p) <= 0.5) < 0.6


def test_a_rival_that_is_the_cause_leaves_nothing():
    rng = np.random.default_rng(0)
    traces = simulated(0.3)
    held_out = {"simulated": traces}
    table = class_study.rivals(traces, held_out, rng, draws=199).set_index("rival")
    assert set(table.index) <= set(class_study.RIVALS)
    own = table.loc["forgetting of held-out"]  # here the same images: the score itself
    assert own["estimate"] == pytest.approx(1) and own["w"] == own["w_forgetting"]
    assert np.isnan(own["w_left"])  # nothing at all is left
    size = table.loc["class size"]
    assert np.isnan(size["estimate"]) and size["w_left"] == pytest.approx(own["w_forgetting"])
    other = {"simulated": traces.select(seed=10)}
    with pytest.raises(ValueError, match="same runs in the same order"):
        class_study.rivals(traces, other, rng)


def test_margins_suffice_for_a_rasch_model():
    rng = np.random.default_rng(0)
    traces, p = simulated(n=96), []
    wrong = (traces.labels + 1) % 8
    for _ in range(6):
        hard = rng.normal(size=96) + 0.8 * (traces.labels - 3.5)
        easy = rng.normal(0.5, 0.5, size=(6, 13, 1))
        right = rng.random((6, 13, 96)) < 1 / (1 + np.exp(hard - easy))
        clean = traces.clean | {"predicted": np.where(right, traces.labels, wrong)}
        row = class_study.beyond_margins(replace(traces, clean=clean), rng, 29).iloc[0]
        p.append(row["p"])
        assert row["w_events"] == pytest.approx(row["w_redrawn"], abs=0.25)
    assert 0.15 < np.mean(p) < 0.9 and row["null"] == pytest.approx(1 / 6, abs=0.06)


def test_confusions_that_name_the_next_class_are_found(traces):
    gap = ring() + np.add.outer(np.arange(8), np.arange(8)) * 1e-3  # no ties
    near, rng = {"simulated": {"planted": gap, "genus": np.ones((8, 8))}}, np.random.default_rng(0)
    table = class_study.confused_with_nearest(traces, near, rng, 50, 99)
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
    top = class_study.confusion_table(traces, near, top=3)
    assert ((top["label"] + 1) % 8 == top["predicted"]).all() and top["measure"].eq("planted").all()
    assert class_study.confusion_table(traces, {}, top=3)["measure"].eq("none").all()


def test_forgetting_by_likeness_is_positive_where_close_classes_are_forgotten(traces):
    mean = class_study.rank_map(traces).mean(axis=1)
    at = np.array([mean[f"class_{c}"] for c in range(8)])
    gap = 2 - at[:, None] - at  # the more both are forgotten, the closer
    near, rng = {"simulated": {"planted": gap}}, np.random.default_rng(0)
    table = class_study.forgetting_by_likeness(traces, near, rng, draws=199)
    whole = table[(table["scope"] == "all") & (table["summary"] == "mean_of_nearest")].iloc[0]
    assert whole["estimate"] == pytest.approx(1) and whole["ci_low"] < whole["ci_high"]
    assert whole["p_claim"] <= whole["p"] < 0.05
    points = class_study.nearness(traces, near)
    assert len(points) == 16 and set(points["arch"]) == {"resnet", "deit"}
    assert class_study.nearness(traces, {}).empty
    assert class_study.forgetting_by_likeness(traces, {}, rng).empty
    assert class_study.measures_agree(traces, {}, rng).empty


def test_measures_that_are_the_same_agree(traces):
    gap = np.abs(np.subtract.outer(np.arange(8.0) ** 2, np.arange(8.0) ** 2))
    genus = (np.arange(8)[:, None] // 2 != np.arange(8) // 2).astype(float)
    near = {"simulated": {"planted": gap, "features of deit": 2 * gap, "genus": genus}}
    table = class_study.measures_agree(traces, near, np.random.default_rng(0), 199)
    assert table["measure_b"].tolist() == ["features of deit", "genus", "genus"]
    assert table["estimate"].iloc[0] == pytest.approx(1) and table["same_nearest"].iloc[0] == 1
    assert table["chance"].tolist() == pytest.approx([1 / 7] * 3)


def test_named_examples_are_of_both_ends(traces):
    table = class_study.named_examples(traces, "mean_error", 1, 2)
    assert table["end"].tolist() == ["most"] * 2 + ["least"] * 2
    ranks = class_study.rank_map(traces, "mean_error")
    assert table["class"].tolist() == [ranks.index[0]] * 2 + [ranks.index[-1]] * 2
    label = table["label"].iloc[0]
    assert table["taken_for"].iloc[0] == f"class_{(label + 1) % 8}"
    assert table["epochs_forgotten"].min() >= 1 and not table["planted_noisy"].any()
    assert examples(traces, [3, 1], per_class=1)["label"].tolist() == [3, 1]


def test_likeness_says_what_is_missing(traces):
    said = []
    assert class_study.likeness({}, {"octdl": traces}, log=said.append) == {}
    assert said == ["octdl: published traces only: no images here, hence no measure of likeness"]


def test_specification_marks_the_primary_and_agrees_with_w(traces):
    table = class_study.specification(traces, np.random.default_rng(0), 60)
    first = table[table["primary"]].iloc[0]
    values = score_matrix(traces)
    w = kendall_w(means_by_class(values, traces.labels, 8)).estimate[0]
    assert first["kendall_w"] == pytest.approx(w, abs=1e-12)
    assert first["scope"] == "all" and first["ci_low"] <= first["estimate"] <= first["ci_high"]
    assert set(table["scope"]) == {"all", "resnet", "deit", "between"}
    assert set(table["view"]) == {"clean"}  # the simulation has no online view
    known = table[["ci_low", "ci_high"]].dropna()
    assert (known["ci_low"] > -1).all()  # an interval that is not known is not -1 to 1
    row = class_study.agreement_of_conventions(table.assign(dataset="x")).iloc[0]
    assert row["conventions"] == len(table) and row["primary_w"] == first["kendall_w"]
    assert row["smallest"] <= row["median"] <= row["largest"]
    assert class_study.agreement_of_conventions(pd.DataFrame({"dataset": []})).empty
