"""Notebook 03's agreement of seeds, its permutations and redraws, on traces of known truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated import CNN, VIT, simulated, with_correct

from retention_lib import stability, stability_nulls
from retention_lib.findings import score_matrix
from retention_lib.resampled import units
from retention_lib.simulated_study import as_traces, study
from retention_lib.stability import BOTH

PAIRS = {CNN: [(0, 1), (0, 2), (1, 2)], VIT: [(3, 4), (3, 5), (4, 5)]}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def traces():
    return simulated(n=160, epochs=8)


def spearman(values, pairs):
    return np.mean([stats.spearmanr(values[a], values[b]).statistic for a, b in pairs])


def test_pairs_are_of_one_architecture_and_need_two_seeds(traces):
    pairs = stability.seed_pairs(traces.runs)
    assert list(pairs) == [BOTH, CNN, VIT]
    for arch, of in PAIRS.items():
        assert pairs[arch].tolist() == [list(p) for p in of]
    assert len(pairs[BOTH]) == 6
    with pytest.raises(ValueError, match="must have two seeds"):
        stability.seed_pairs(traces.runs.iloc[[0, 3]])
    with pytest.raises(ValueError, match="must be one run"):
        stability.seed_pairs(traces.runs.iloc[[0, 0]])


def test_agreement_is_the_mean_over_pairs_with_both_intervals(traces, rng):
    scores = ["mean_error", "events"]
    rows = stability.seed_agreement(traces, rng, scores, draws=60)
    assert len(rows) == 2 * 4 * 3 and (rows["n"] == 160).all()
    named = rows.set_index(["score", "measure", "arch"])
    values = score_matrix(traces, "mean_error")
    tau = [stats.kendalltau(values[a], values[b]).statistic for a, b in PAIRS[VIT]]
    assert named.loc[("mean_error", "kendall", VIT), "estimate"] == pytest.approx(np.mean(tau))
    for arch, pairs in {**PAIRS, BOTH: PAIRS[CNN] + PAIRS[VIT]}.items():
        row = named.loc[("mean_error", "spearman", arch)]
        assert row["estimate"] == pytest.approx(spearman(values, pairs), abs=1e-12)
        assert row["ci_low"] < row["estimate"] < row["ci_high"]
        assert row["seed_low"] < row["estimate"] < row["seed_high"] and row["seeds"] == 3
    # Leaving out a seed leaves one pair of each architecture: the jackknife by hand.
    both = {a: spearman(values, [PAIRS[CNN][a], PAIRS[VIT][a]]) for a in range(3)}
    pseudo = 3 * np.mean(list(both.values())) - 2 * np.array(list(both.values()))
    half = stats.t.ppf(0.975, 2) * pseudo.std(ddof=1) / np.sqrt(3)
    row = named.loc[("mean_error", "spearman", BOTH)]
    assert row["seed_high"] - row["estimate"] == pytest.approx(half)
    wide = stability.by_score(rows.assign(dataset="x"))
    assert wide.columns.tolist() == list(stability.MEASURES)
    assert wide.loc[("x", "mean_error"), "spearman"] == row["estimate"]


def test_two_seeds_have_no_interval_over_seeds(rng):
    rows = stability.seed_agreement(simulated(n=80, epochs=5, seeds=(0, 1)), rng, ["mean_error"],
                                    ["spearman"], draws=20)  # fmt: skip
    assert rows["estimate"].notna().all() and rows["seed_low"].isna().all()


def test_blocks_move_whole_within_class_and_size(rng):
    groups = np.array([0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6])
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    drawn = stability_nulls.shuffled_blocks(groups, labels, rng, 400)
    assert (np.sort(drawn, axis=1) == np.arange(11)).all()
    assert (labels[drawn] == labels).all()
    pairs = {tuple(row[:2]) for row in drawn.tolist()}
    assert pairs == {(0, 1), (2, 3)}  # two groups of two, in the order of their samples
    assert set(drawn[:, 4]) == {4, 10} and set(drawn[:, 9]) == {9}
    share = np.mean(drawn[:, 0] == 0)
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(400)
    singles = stability_nulls.shuffled_blocks(np.arange(4), np.zeros(4), rng, 2400)
    _, times = np.unique(singles, axis=0, return_counts=True)
    assert len(times) == 24 and stats.chisquare(times).pvalue > 0.001


def test_misaligned_is_near_0_and_a_class_listing_leaves_the_class_part(rng):
    n = 600
    labels = np.arange(n) % 3
    score = labels * 3.0 + rng.normal(size=(6, n))  # classes are all that seeds share
    traces = simulated(n=n, epochs=3)
    traces.samples["label"], traces.samples["group"] = labels, [f"p{i}" for i in range(n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stability_nulls, "score_matrix", lambda *_: score)
        table = stability_nulls.position_controls(traces, rng, "any", 199).set_index("arch")
    row = table.loc[BOTH]
    assert row["spearman"] == pytest.approx(spearman(score, PAIRS[CNN] + PAIRS[VIT]))
    assert row["spearman"] > 0.7 and abs(row["misaligned"]) < 0.01
    assert row["misaligned_low"] < 0 < row["misaligned_high"]
    assert row["class_sorted"] == pytest.approx(row["spearman"], abs=0.02)
    assert row["null"] == pytest.approx(row["class_sorted"], abs=0.01)  # every group is a sample
    assert row["p"] > 0.01 and row["moved"] == 1 and row["permutations"] == 199


def test_the_null_is_rejected_where_samples_differ_and_its_p_is_uniform_where_not():
    generator = np.random.default_rng(3)
    traces = simulated(n=40, epochs=3, seeds=(0, 1))
    p = []
    for _ in range(120):
        score = np.repeat(traces.labels[None], 4, 0) + generator.normal(size=(4, 40))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stability_nulls, "score_matrix", lambda *_, score=score: score)
            found = stability_nulls.position_controls(traces, generator, "any", 39)
        p.append(found["p"].iloc[0])
    assert stats.kstest(p, "uniform").statistic < 0.16  # discrete: steps of 0.05
    assert np.mean(np.array(p) <= 0.05) < 0.11
    clear = stability_nulls.position_controls(simulated(160, 8), generator, "mean_error", 199)
    assert clear["p"].tolist() == [0.01] * 3  # 2 (0 + 1) / (199 + 1)


def test_redraws_of_a_rasch_model_agree_as_the_runs_do():
    generator = np.random.default_rng(4)
    hard, epoch = generator.normal(size=200), np.linspace(1.5, 0, 9)[:, None]
    correct = generator.random((4, 9, 200)) < 1 / (1 + np.exp(hard - epoch))
    traces = with_correct(correct)
    table = stability_nulls.curveball_table(traces, generator, draws=79)
    assert table["score"].unique().tolist() == list(stability_nulls.REDRAWABLE)
    inside = (table["curveball_low"] <= table["spearman"]) & (
        table["spearman"] <= table["curveball_high"]
    )
    assert inside.mean() > 0.7 and table["p"].min() > 0.012
    for score in stability_nulls.REDRAWABLE:
        row = table[(table["score"] == score) & (table["arch"] == BOTH)].iloc[0]
        values = score_matrix(traces, score)
        assert row["spearman"] == pytest.approx(spearman(values, [(0, 1), (2, 3)]), abs=1e-9)
    with pytest.raises(ValueError, match=r"among .*decay_constant.*got \['mean_error'\]"):
        stability_nulls.curveball_table(traces, generator, ["mean_error"])


def test_an_order_that_seeds_repeat_lies_above_the_redraws(rng):
    # Half of the samples alternate, half fall once: the same total, other numbers of events.
    n, epochs = 120, 8
    alternate = np.tile([1, 0], epochs // 2)[:, None].astype(bool)
    step = (np.arange(epochs) < epochs // 2)[:, None]
    correct = np.where(np.arange(n) < n // 2, alternate, step)
    table = stability_nulls.curveball_table(with_correct(np.stack([correct] * 4)), rng,
                                            ["events"], 39)  # fmt: skip
    assert table["spearman"].to_numpy() == pytest.approx(1)
    assert (table["curveball_high"] < 0.5).all()
    assert (table["p"] == 0.05).all()


def test_specification_marks_the_primary_reading_and_is_summarised(rng):
    traces = simulated(n=80, epochs=5)
    table = stability.specification_curve(traces, rng, draws=5)
    readings = sum(len(v) for v in stability.findings_overlap.READINGS.values())
    assert len(table) == readings * 2 * 2
    assert table["estimate"].dropna().is_monotonic_increasing  # no events: constant, NaN, last
    primary = table[table["primary"]]
    assert len(primary) == 1 and primary["arch"].tolist() == [BOTH]
    values = score_matrix(traces, "forgetting_score")
    assert primary["estimate"].iloc[0] == pytest.approx(spearman(values, PAIRS[CNN] + PAIRS[VIT]))
    made = pd.DataFrame({"dataset": "x", "estimate": [0.0, 0.2, 0.4], "ci_low": [-0.1, 0.1, 0.3],
                         "ci_high": [0.1, 0.3, 0.5], "primary": [False, True, False]})  # fmt: skip
    row = stability.agreement_of_conventions(made).iloc[0]
    assert row[["above_0", "below_0", "holds_paper"]].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert row[["smallest", "median", "largest", "primary"]].tolist() == [0.0, 0.2, 0.4, 0.2]
    empty = stability.agreement_of_conventions(pd.DataFrame({"dataset": []}))
    assert empty.empty and stability.by_score(pd.DataFrame({"dataset": []})).empty


def test_constant_scores_are_nan_not_an_error(rng):
    traces = with_correct(np.ones((4, 5, 40), bool))
    rows = stability.seed_agreement(traces, rng, ["events"], ["spearman"], draws=9)
    assert rows["estimate"].isna().all() and (rows["n"] == 40).all()
    table = stability_nulls.position_controls(traces, rng, "events", 19)
    assert table[["spearman", "p", "misaligned"]].isna().all(axis=None)
    assert stability_nulls.curveball_table(traces, rng, draws=9)["p"].isna().all()


def test_units_of_a_study_are_kept_together(rng):
    made = as_traces(study(60, 5, [CNN, VIT], [0, 1], rng, group_size=3, n_classes=2))
    drawn = stability_nulls.shuffled_blocks(units(made.samples), made.labels, rng, 20)
    group = made.samples["group"].to_numpy()
    for a, b in combinations(range(3), 2):
        assert (group[drawn[:, a]] == group[drawn[:, b]]).all()
