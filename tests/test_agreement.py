"""Overlap and correlation under ties, against enumeration and independent implementations."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from retention_lib import ties
from retention_lib.agreement import (
    CROSS,
    MISALIGNED,
    SAME,
    cross_run_agreement,
    jaccard_chance,
    jaccard_chance_stratified,
    overlap_curve,
    overlap_summary,
    top_count,
    topk_jaccard,
)
from retention_lib.rank_agreement import auc, spearman

counts = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=7)


def top_sets(score, k):
    """All top-k sets that some tie-break gives: readable twin of `levels`."""
    edge = sorted(score, reverse=True)[k - 1]
    sure = {i for i, s in enumerate(score) if s > edge}
    tied = [i for i, s in enumerate(score) if s == edge]
    return [sure | set(rest) for rest in combinations(tied, k - len(sure))]


def enumerated(a, b, share):
    """Mean Jaccard over all pairs of tie-breaks: readable twin of `topk_jaccard`."""
    k = top_count(len(a), share)
    pairs = [(x, y) for x in top_sets(a, k) for y in top_sets(b, k)]
    return np.mean([len(x & y) / len(x | y) for x, y in pairs])


@given(counts, st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=150, deadline=None)
def test_expected_jaccard_is_the_mean_over_all_tie_breaks(pairs, share):
    a, b = np.array(pairs, float).T
    assert topk_jaccard(a, b, share) == pytest.approx(enumerated(a, b, share), abs=1e-12)


@given(counts, st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_jaccard_is_symmetric_bounded_and_blind_to_order_and_monotone_maps(pairs, seed):
    a, b = np.array(pairs, float).T
    value = topk_jaccard(a, b, 0.4)
    rows = np.random.default_rng(seed).permutation(len(a))
    assert 0 <= value <= 1 + 1e-12
    assert topk_jaccard(b, a, 0.4) == pytest.approx(value, abs=1e-12)
    assert topk_jaccard(a[rows], b[rows], 0.4) == pytest.approx(value, abs=1e-12)
    assert topk_jaccard(np.exp(a), 3 * b - 1, 0.4) == pytest.approx(value, abs=1e-12)


def poisson_scores(zeros, n=5994):
    """Counts in exactly the shares of a Poisson variable with that share of zeros."""
    upper = np.round(n * stats.poisson.cdf(np.arange(12), -np.log(zeros))).astype(int)
    return np.repeat(np.arange(12.0), np.diff(upper, prepend=0))


@pytest.mark.parametrize(("zeros", "expected"), [(0.95, 0.36), (0.82, 0.42)])
def test_two_identical_count_vectors_overlap_far_less_than_one(zeros, expected):
    a = poisson_scores(zeros)
    value = topk_jaccard(a, a)
    assert len(a) == 5994
    assert value == pytest.approx(expected, abs=0.005)
    rng = np.random.default_rng(0)
    brute = []
    for _ in range(150):
        x, y = (set(np.lexsort((rng.random(len(a)), -a))[:599]) for _ in range(2))
        brute.append(len(x & y) / len(x | y))
    assert value == pytest.approx(np.mean(brute), abs=4 * np.std(brute) / np.sqrt(150))


@pytest.mark.parametrize("k", [21, 50, 400])
def test_expansion_agrees_with_the_sum(k):
    rng = np.random.default_rng(k)
    for _ in range(20):
        n = int(k * rng.choice([2, 3, 10]))
        a = rng.poisson(rng.choice([0.1, 0.5, 3]), n)
        b = np.where(rng.random(n) < rng.random(), a, rng.poisson(0.5, n))
        tables = ties.cross_tables(ties.levels(a, k)[None], ties.levels(b, k)[None])[0]
        exact = ties.expected_jaccard(tables, np.array([k]), exact=True)
        fast = ties.expected_jaccard(tables, np.array([k]), exact=False)
        assert fast == pytest.approx(exact, abs=1e-5 if k < 50 else 1e-6)


def test_cross_tables_count_every_pair_of_runs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, 40)), rng.integers(0, 3, (3, 40))
    tables = ties.cross_tables(a, b)
    assert tables.shape == (2, 3, 3, 3)
    for i, j in np.ndindex(2, 3):
        slow = [[np.sum((a[i] == x) & (b[j] == y)) for y in range(3)] for x in range(3)]
        assert tables[i, j].tolist() == slow


def test_large_inputs_are_summed_or_expanded_to_the_same_value():
    assert jaccard_chance(20_000, 2_000) == pytest.approx(jaccard_chance(20_010, 2_001), abs=1e-6)
    assert jaccard_chance(1_280_000, 128_000) == pytest.approx(0.1 / 1.9, abs=1e-6)


def test_nan_is_left_out_of_both_and_infinity_is_a_value():
    a = np.array([3, 2, 1, np.nan, 9.0])
    b = np.array([3, 2, 1, 8.0, np.nan])
    assert topk_jaccard(a, b, 1 / 3) == 1.0
    assert topk_jaccard([np.inf, np.inf, 0, 0], [5, 4, 3, 2], 0.5) == 1.0
    assert np.isnan(topk_jaccard([np.nan], [1.0]))
    assert overlap_curve([np.nan], [1.0], [0.1])["jaccard"].isna().all()


def test_chance_levels():
    assert jaccard_chance(5994, 599) == pytest.approx(0.0526, abs=5e-5)
    assert jaccard_chance(3, 3) == 1.0
    a = np.zeros(5994)
    assert topk_jaccard(a, a) == pytest.approx(jaccard_chance(5994, 599), abs=1e-12)
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.n = 3, got 4"):
        jaccard_chance(3, 4)


def test_stratified_chance_is_what_shared_classes_alone_give():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 300)
    rate = np.where(labels == 0, 0.3, 2.0)
    a, b = rng.poisson(rate), rng.poisson(rate)
    row = jaccard_chance_stratified(a, b, labels, rng=rng, draws=300).iloc[0]
    assert row["chance"] > 1.5 * jaccard_chance(600, 60)
    assert row["chance_low"] < row["estimate"] < row["chance_high"]
    assert 0.02 < row["p"] <= 1
    same = jaccard_chance_stratified(a, a, labels, rng=rng, draws=199).iloc[0]
    assert same["p"] == 1 / 200
    assert same["estimate"] == pytest.approx(topk_jaccard(a, a), abs=1e-6)


def test_stratified_p_is_uniform_under_its_null():
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), 30)
    p = [
        jaccard_chance_stratified(
            rng.poisson(1 + labels), rng.poisson(1 + labels), labels, 0.2, rng, 39
        )["p"].iloc[0]
        for _ in range(80)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_stratified_chance_never_leaves_the_class():
    labels = np.repeat([0, 1], 50)
    a = np.where(labels == 1, 1.0, 0.0)  # only the class matters: any permutation within it is a
    row = jaccard_chance_stratified(a, a, labels, 0.5, np.random.default_rng(0), 20).iloc[0]
    assert row["chance"] == row["chance_low"] == 1.0
    assert row["p"] == 1.0


def test_overlap_curve_meets_its_single_values():
    rng = np.random.default_rng(0)
    a, b = rng.poisson(0.5, (2, 400))
    curve = overlap_curve(a, b)
    assert curve["share"].tolist() == [k / 100 for k in range(1, 51)]
    for row in curve.iloc[[0, 9, 49]].itertuples():
        assert row.jaccard == pytest.approx(topk_jaccard(a, b, row.share), abs=1e-5)
        assert row.chance == pytest.approx(jaccard_chance(400, row.k), abs=1e-5)


def test_spearman_agrees_with_scipy_and_covers():
    rng = np.random.default_rng(0)
    a, b = rng.poisson(1, (2, 80)).astype(float)
    row = spearman(np.append(a, np.nan), np.append(b, 1)).iloc[0]
    expected = stats.spearmanr(a, b)
    assert row["estimate"] == pytest.approx(expected.statistic, abs=1e-12)
    assert row["p"] == pytest.approx(expected.pvalue, abs=1e-12)
    assert row["n"] == 80
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman of a normal pair with correlation 0.6
    covered = []
    for _ in range(300):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 60).T
        r = spearman(x, y).iloc[0]
        covered.append(r["ci_low"] <= truth <= r["ci_high"])
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize(("a", "b"), [([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), ([1, 2], [2, 1])])
def test_spearman_without_information_is_nan_and_keeps_n(a, b):
    row = spearman(a, b).iloc[0]
    assert np.isnan([row["estimate"], row["ci_low"], row["p"]]).all()
    assert row["n"] == len(a)


def test_auc_agrees_with_sklearn_and_a_slow_delong():
    rng = np.random.default_rng(0)
    truth = rng.random(150) < 0.2
    score = rng.poisson(1 + truth)
    row = auc(score, truth).iloc[0]
    assert row["estimate"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    wins = np.sign(score[truth][:, None] - score[~truth][None]) / 2 + 0.5
    variance = wins.mean(1).var(ddof=1) / truth.sum() + wins.mean(0).var(ddof=1) / (~truth).sum()
    value = wins.mean()
    half = stats.norm.ppf(0.975) * np.sqrt(variance) / (value * (1 - value))
    low = 1 / (1 + np.exp(-(np.log(value / (1 - value)) - half)))
    assert row["ci_low"] == pytest.approx(low, abs=1e-12)
    assert (row["n"], row["positives"]) == (150, truth.sum())


def test_auc_covers_at_the_nominal_rate():
    rng = np.random.default_rng(3)
    truth, covered = np.arange(120) < 30, []
    for _ in range(300):
        row = auc(rng.normal(size=120) + 1.2 * truth, truth).iloc[0]
        covered.append(row["ci_low"] <= stats.norm.cdf(1.2 / np.sqrt(2)) <= row["ci_high"])
    assert 0.92 <= np.mean(covered) <= 0.98


def test_auc_at_its_edges():
    perfect = auc([1, 2, 3, 4, 5], np.array([False, False, False, True, True])).iloc[0]
    assert (perfect["estimate"], perfect["ci_high"]) == (1.0, 1.0)
    assert perfect["ci_low"] == pytest.approx(0.025**0.5)
    assert auc([1, 1, 1], np.array([True, False, False])).iloc[0]["p"] == 1.0
    empty = auc([1.0, 2.0], np.array([False, False])).iloc[0]
    assert np.isnan(empty["estimate"]) and empty["n"] == 2
    with pytest.raises(ValueError, match="truth must be bool"):
        auc([1, 2], [0, 1])


@pytest.fixture
def study():
    """Scores of 2 architectures x 3 seeds that share something within each architecture."""
    rng = np.random.default_rng(0)
    n = 400
    hard = rng.normal(size=n)
    own = rng.normal(size=(2, n))
    rates = [np.exp(hard + own[i // 3] - 1) for i in range(6)]
    runs = pd.DataFrame([(a, s) for a in ("resnet18", "deit") for s in range(3)])
    runs.columns = ["arch", "seed"]
    return rng.poisson(rates).astype(float), runs, rng.integers(0, 5, n), rng


def test_cross_run_agreement_tags_every_pair(study):
    scores, runs, _, rng = study
    pairs = cross_run_agreement(scores, runs, rng)
    assert pairs["kind"].value_counts().to_dict() == {MISALIGNED: 15, CROSS: 9, SAME: 6}
    assert (pairs.query("kind == @CROSS")["same_seed"].sum(), pairs["n"].unique()) == (3, [400])
    mean = pairs.groupby("kind")[["jaccard", "spearman"]].mean()
    assert mean.loc[SAME, "jaccard"] > mean.loc[CROSS, "jaccard"] + 0.1
    assert abs(mean.loc[MISALIGNED, "spearman"]) < 0.05
    assert mean.loc[MISALIGNED, "jaccard"] == pytest.approx(jaccard_chance(400, 40), abs=0.02)
    first = pairs.query("kind == @CROSS").iloc[0]
    expected = topk_jaccard(scores[first["run_a"]], scores[first["run_b"]])
    assert first["jaccard"] == pytest.approx(expected)


def test_overlap_summary_has_interval_chance_and_ceiling(study):
    scores, runs, labels, rng = study
    out = overlap_summary(scores, runs, np.arange(400), labels, rng, draws=100)
    assert out["kind"].tolist() == [CROSS, SAME, SAME]
    assert out["pairs"].tolist() == [9, 3, 3]
    assert ((out["ci_low"] < out["estimate"]) & (out["estimate"] < out["ci_high"])).all()
    pairs = cross_run_agreement(scores, runs, rng)
    mean = pairs.groupby("kind")["jaccard"].mean()
    assert out["estimate"][0] == pytest.approx(mean[CROSS], abs=1e-5)
    assert out["ceiling"][0] == pytest.approx(np.sqrt(out["estimate"][1] * out["estimate"][2]))
    assert out["estimate"][0] < out["ceiling"][0]
    assert out["chance"].between(0.03, 0.09).all()
    assert (out["p"] == 1 / 101).all()


def test_mixed_or_misshapen_runs_are_refused(study):
    scores, runs, labels, rng = study
    with pytest.raises(
        ValueError, match=r"scores must be \(6 runs, sample\), got shape \(5, 400\)"
    ):
        cross_run_agreement(scores[:5], runs, rng)
    with pytest.raises(ValueError, match="runs must share one dataset"):
        cross_run_agreement(scores, runs.assign(dataset=["a"] * 5 + ["b"]), rng)
    with pytest.raises(ValueError, match=r"each \(arch, seed\) must be one run"):
        cross_run_agreement(scores, runs.assign(seed=0), rng)
    with pytest.raises(ValueError, match="must not hold NaN"):
        jaccard_chance_stratified(np.where(labels > 9, 0, np.nan), scores[0], labels, rng=rng)
    with pytest.raises(ValueError, match="share must lie in"):
        topk_jaccard(scores[0], scores[1], 0)
    with pytest.raises(ValueError, match="same samples"):
        spearman(scores[0], scores[1][:-1])
