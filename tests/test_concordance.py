"""Kendall's W, rank correlations of class means and their ceiling, against slow twins."""

import numpy as np
import pytest
from scipy import stats

from retention_lib.class_averages import means_by_class, redrawn_means
from retention_lib.concordance import (
    agreement_ceiling,
    as_w,
    concordances,
    kendall_w,
    rank_correlations,
    without_each_seed,
)


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
