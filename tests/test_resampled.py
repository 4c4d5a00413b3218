"""Counts of resamples, and what is redrawn as one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retention_lib.resampled import count_batches, homes, percentile_interval, units


def other_units(samples):
    """Connected components of the matrix of samples that share a group or a file."""
    n, edges = len(samples), []
    for name in ("group", "content_hash"):
        value = samples[name].to_numpy()
        edges += np.argwhere(value[:, None] == value[None]).tolist()
    edges = np.array(edges).T
    _, part = connected_components(coo_array((np.ones(edges.shape[1]), edges), (n, n)))
    return samples["group"].groupby(part).transform("min").tolist()


def test_units_join_patients_that_share_a_file():
    samples = pd.DataFrame(
        {
            "group": ["p1", "p1", "p2", "p3", "p3", "p4", "p5"],
            "content_hash": ["a", "b", "b", "c", "d", "d", "e"],  # p1 - p2, p3 - p4
        }
    )
    assert units(samples).tolist() == ["p1", "p1", "p1", "p3", "p3", "p3", "p5"]
    assert units(samples.drop(columns="content_hash")).tolist() == samples["group"].tolist()


def test_units_agree_with_scipy_on_planted_duplicates():
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 60
        samples = pd.DataFrame({"group": rng.integers(0, 25, n).astype(str)})
        samples["content_hash"] = np.arange(n)
        for i, j in rng.integers(0, n, (8, 2)):
            samples.loc[i, "content_hash"] = samples.loc[j, "content_hash"]
        assert units(samples).tolist() == other_units(samples)


def test_duplicates_are_redrawn_together():
    samples = pd.DataFrame({"group": list("abcdef"), "content_hash": [1, 2, 1, 3, 4, 5]})
    for counts in count_batches(units(samples), np.zeros(6), np.random.default_rng(0), 30):
        assert (counts[:, 0] == counts[:, 2]).all()


def test_counts_keep_groups_whole_and_have_mean_and_variance_one():
    groups, strata = np.repeat(np.arange(12), 2), np.repeat([0, 1, 1, 2], [2, 6, 8, 8])
    counts = np.concatenate(list(count_batches(groups, strata, np.random.default_rng(0), 20_000)))
    assert counts.shape == (20_000, 24)
    assert (counts[:, ::2] == counts[:, 1::2]).all()
    assert (counts[:, :2] == 1).all()  # the only group of its stratum
    for s in np.unique(strata):
        assert counts[:, strata == s].sum(1) == pytest.approx((strata == s).sum())
    assert counts[:, 2:].mean(0) == pytest.approx(1, abs=0.03)
    assert counts[:, 2:].var(0) == pytest.approx(1, abs=0.05)


def test_variance_of_a_mean_is_unbiased_in_small_strata():
    rng, strata = np.random.default_rng(1), np.repeat(np.arange(100), 3)
    x = rng.normal(size=300) + strata
    drawn = np.concatenate([c @ x / 300 for c in count_batches(range(300), strata, rng, 4000)])
    within = np.mean([x[strata == s].var(ddof=1) for s in range(100)]) / 300
    assert drawn.var() == pytest.approx(within, rel=0.08)


def test_batches_do_not_change_the_draws(monkeypatch):
    args = np.arange(10) // 2, np.zeros(10)
    whole = np.concatenate(list(count_batches(*args, np.random.default_rng(0), 9)))
    monkeypatch.setattr("retention_lib.resampled._BATCH", 20)
    parts = list(count_batches(*args, np.random.default_rng(0), 9))
    assert [len(p) for p in parts] == [2, 2, 2, 2, 1]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_a_group_in_several_strata_counts_with_its_most_frequent():
    group, home = homes(np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 0]))
    assert group.tolist() == [0, 0, 0, 1, 2] and home.tolist() == [1, 1, 0]


def test_homes_are_the_most_frequent_strata_of_a_whole_table():
    rng = np.random.default_rng(0)
    for n in (1, 7, 40, 400):
        groups, strata = rng.integers(0, 9, n), rng.integers(0, 5, n)
        votes = pd.crosstab(groups, strata)
        group, home = homes(groups, strata)
        kept = np.unique(votes.columns[votes.to_numpy().argmax(1)], return_inverse=True)[1]
        assert group.tolist() == np.unique(groups, return_inverse=True)[1].tolist()
        assert home.tolist() == kept.tolist()


def test_many_groups_of_many_strata_need_no_table_of_both():
    group, home = homes(np.arange(300_000), np.arange(300_000) // 2)  # 336 GiB as a table
    assert np.array_equal(home, group // 2)


def test_percentiles_leave_out_a_few_failures_only():
    values = np.arange(101.0)
    assert percentile_interval(values, 0.9) == pytest.approx((5, 95))
    assert np.isfinite(percentile_interval(np.append(values, np.nan))).all()
    assert np.isnan(percentile_interval(np.append(values, np.full(20, np.nan)))).all()


def test_bad_input_is_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="must have the column 'group'"):
        units(pd.DataFrame({"content_hash": ["a"]}))
    with pytest.raises(ValueError, match="'content_hash' must be known for all samples, 1 lack"):
        units(pd.DataFrame({"group": ["a", "b"], "content_hash": ["x", None]}))
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
        next(count_batches([1, 2, 3], [0, 0], rng, 1))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        next(count_batches([1], [0], rng, 0))
