"""Spearman and Kendall: against scipy, slow twins, and coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retention_lib import counted, kendall, rank_agreement, resampled
from retention_lib.kendall import kendall as tau_b
from retention_lib.rank_agreement import spearman_grouped

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@given(pairs)
@settings(max_examples=80, deadline=None)
def testboth_below_counts_like_two_loops(values):
    a, b = np.array(values).T
    slow = [sum(x < a[i] and y < b[i] for x, y in values) for i in range(len(a))]
    assert kendall.both_below(a, b).tolist() == slow


@pytest.mark.parametrize(
    "draw", [lambda r: r.poisson(0.3, (2, 300)), lambda r: r.normal(size=(2, 80))]
)
def test_tau_agrees_with_scipy_and_its_own_sums(rng, draw):
    a, b = draw(rng).astype(float)
    b = b + a
    row = tau_b(np.append(a, np.nan), np.append(b, 1)).iloc[0]
    known = stats.kendalltau(a, b)
    assert row["estimate"] == pytest.approx(known.statistic, abs=1e-9)
    assert (row["p"], row["n"]) == (pytest.approx(known.pvalue, abs=1e-12), len(a))
    signs = [np.sign(x[:, None] - x[None]) for x in (a, b)]
    slow = (signs[0] * signs[1]).sum() / np.sqrt((signs[0] != 0).sum() * (signs[1] != 0).sum())
    assert row["estimate"] == pytest.approx(slow, abs=1e-9)


def test_standard_error_of_tau_is_that_of_the_jackknife(rng):
    a, b = rng.poisson(1, (2, 150)).astype(float)
    b += a
    left = [stats.kendalltau(np.delete(a, i), np.delete(b, i)).statistic for i in range(150)]
    jackknife = np.sqrt(149 / 150 * np.sum((np.array(left) - np.mean(left)) ** 2))
    assert tau_b(a, b)["se"][0] == pytest.approx(jackknife, rel=0.02)


def test_standard_error_of_grouped_tau_is_that_of_redrawn_groups(rng):
    groups, labels = np.repeat(np.arange(80), 3), np.repeat(np.arange(4), 60)
    a, b = rng.poisson(np.exp(rng.normal(size=80)))[groups] + rng.poisson(0.5, (2, 240))
    row = tau_b(a, b, groups, labels).iloc[0]
    drawn = []
    for batch in resampled.count_batches(groups, labels, rng, 400):
        for counts in batch:
            weighted = counts[:, None] * counts[None]
            signs = [np.sign(x[:, None] - x[None]) for x in (a, b)]
            total = [(weighted * (s != 0)).sum() for s in signs]
            drawn.append((weighted * signs[0] * signs[1]).sum() / np.sqrt(total[0] * total[1]))
    assert row["se"] == pytest.approx(np.std(drawn), rel=0.15)
    assert np.isnan(row["p"]) and row["groups"] == 80
    assert row["se"] > 1.2 * tau_b(a, b)["se"][0]


def tau_coverage(simulations, rng):
    truth = 2 / np.pi * np.arcsin(0.6)
    hits = []
    for _ in range(simulations):
        a, b = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 60).T
        row = tau_b(a, b).iloc[0]
        hits.append(row["ci_low"] <= truth <= row["ci_high"])
    return np.mean(hits)


def test_tau_covers(rng):
    assert 0.92 <= tau_coverage(300, rng) <= 0.98


@pytest.mark.slow
@pytest.mark.simulation
def test_tau_covers_in_2000_simulations(rng):
    assert 0.93 <= tau_coverage(2000, rng) <= 0.97


@pytest.mark.slow
def test_tau_of_tied_counts_covers(rng):
    def draw(n):
        shared = rng.normal(size=n)
        return rng.poisson(0.4 * np.exp(shared), (2, n))

    truth = np.mean([stats.kendalltau(*draw(200_000)).statistic for _ in range(3)])
    rows = [tau_b(*draw(150)).iloc[0] for _ in range(400)]
    hits = [r["ci_low"] <= truth <= r["ci_high"] for r in rows]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_tau_at_its_edges():
    perfect = tau_b([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]).iloc[0]
    assert perfect[["estimate", "ci_low", "ci_high"]].tolist() == pytest.approx([1, 1, 1])
    for a, b in (([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2], [2, 1])):
        row = tau_b(a, b).iloc[0]
        assert np.isnan([row["estimate"], row["ci_low"], row["p"]]).all() and row["n"] == len(a)
    with pytest.raises(ValueError, match=r"groups must have shape \(4,\), got \(3,\)"):
        tau_b([1, 2, 3, 4], [1, 2, 3, 4], groups=[1, 2, 3])


@given(pairs, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_midranks_are_those_of_repeated_rows(values, seed):
    a, _ = np.array(values, float).T
    counts = np.random.default_rng(seed).integers(0, 3, len(a))
    ranks = counted.midranks(counted.ties_of(a), counts[None].astype(float))[0]
    repeated = stats.rankdata(-np.repeat(a, counts))
    assert np.repeat(ranks, counts).tolist() == repeated.tolist()


def test_rank_correlations_are_those_of_repeated_rows(rng):
    scores = rng.poisson(0.7, (3, 60)).astype(float)
    counts = rng.integers(0, 4, (5, 60)).astype(float)
    found = rank_agreement._rank_correlations([counted.ties_of(s) for s in scores], counts)
    for draw, times in enumerate(counts.astype(int)):
        slow = stats.spearmanr(np.repeat(scores, times, axis=1).T).statistic
        assert found[draw] == pytest.approx(slow, abs=1e-9)


def test_grouped_spearman_is_the_mean_over_pairs(rng):
    a, b = rng.poisson(1, (2, 90)).astype(float), rng.poisson(1, (3, 90)).astype(float)
    args = (np.arange(90) // 3, np.arange(90) // 30, rng, 100)
    row = spearman_grouped(a, b, *args).iloc[0]
    slow = [stats.spearmanr(x, y).statistic for x in a for y in b]
    assert row["estimate"] == pytest.approx(np.mean(slow), abs=1e-9)
    assert row[["pairs", "groups", "n", "draws"]].tolist() == [6, 30, 90, 100]
    within = spearman_grouped(b, None, *args).iloc[0]
    slow = [stats.spearmanr(b[i], b[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert within["estimate"] == pytest.approx(np.mean(slow), abs=1e-9)
    b[0, 5] = np.nan
    assert spearman_grouped(a, b, *args)["n"][0] == 89


def spearman_coverage(simulations, rng):
    """Patients of three samples in one class; the naive interval takes samples for patients."""
    groups, truth = np.arange(90) // 3, 6 / np.pi * np.arcsin(0.5 / 2)
    cov = np.array([[1, 0.5], [0.5, 1]])
    hits, naive = [], []
    for _ in range(simulations):
        x = np.sqrt(0.8) * rng.multivariate_normal([0, 0], cov, 30)[groups]
        x += np.sqrt(0.2) * rng.multivariate_normal([0, 0], cov, 90)
        for into, of in ((hits, groups), (naive, np.arange(90))):
            row = spearman_grouped(*x.T, of, np.zeros(90), rng, 300).iloc[0]
            into.append(row["ci_low"] <= truth <= row["ci_high"])
    return np.mean(hits), np.mean(naive)


@pytest.mark.slow
def test_grouped_spearman_covers_where_the_naive_interval_does_not(rng):
    hits, naive = spearman_coverage(300, rng)
    assert 0.91 <= hits <= 0.98 and naive < 0.85


@pytest.mark.slow
@pytest.mark.simulation
def test_grouped_spearman_covers_in_2000_simulations(rng):
    hits, naive = spearman_coverage(2000, rng)
    assert 0.93 <= hits <= 0.97 and naive < 0.85


def test_grouped_spearman_without_information(rng):
    args = (np.arange(5), np.zeros(5), rng, 20)
    row = spearman_grouped(np.ones(5), np.arange(5.0), *args).iloc[0]
    assert np.isnan([row["estimate"], row["ci_low"], row["se"]]).all() and row["n"] == 5
    assert np.isnan(spearman_grouped(np.arange(5.0), None, *args)["estimate"][0])
    with pytest.raises(ValueError, match="must share samples, got 5 scores"):
        spearman_grouped(np.arange(5.0), np.arange(5.0), np.arange(4), np.zeros(4), rng)
