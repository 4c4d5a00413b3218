"""Intervals against simulations with known truth and independent implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retention_lib.intervals import (
    RESULT_COLUMNS,
    bootstrap,
    holm,
    one_row,
    permutation_p,
    resamples,
    t_interval,
)


def slow_resample(groups, strata, rng):
    """Readable twin of one draw of `resamples`, for groups that lie in one stratum each."""
    rows = []
    for stratum in np.unique(strata):
        names = np.unique(groups[strata == stratum])
        for name in rng.choice(names, len(names)):
            rows += np.flatnonzero(groups == name).tolist()
    return np.array(rows)


def test_rows_have_the_fixed_columns():
    row = one_row(1, 0, 2, 5, np.nan, "m", seeds=3)
    assert tuple(row.columns) == (*RESULT_COLUMNS, "seeds")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_resample_keeps_groups_whole_and_strata_as_large(pairs):
    groups, strata = np.array(pairs).T
    strata = groups % 3  # a group lies in one stratum
    for rows in resamples(groups, strata, np.random.default_rng(0), 3):
        drawn = np.bincount(groups[rows], minlength=6) / np.maximum(
            np.bincount(groups, minlength=6), 1
        )
        assert np.array_equal(drawn, np.round(drawn))  # each group whole, so many times
        for s in range(3):
            here = np.unique(groups[strata == s])
            assert drawn[here].sum() == len(here)


def test_resamples_vary_like_the_slow_twin():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), [1, 2, 3, 4] * 3)
    strata = (groups >= 6).astype(int)
    x = rng.normal(size=len(groups)) + groups
    fast = [x[rows].mean() for rows in resamples(groups, strata, rng, 2000)]
    slow = [x[slow_resample(groups, strata, rng)].mean() for _ in range(2000)]
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=0.1)
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.1)


def test_a_group_that_spans_classes_counts_with_its_most_frequent():
    groups, strata = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 0])
    for rows in resamples(groups, strata, np.random.default_rng(0), 20):
        drawn = groups[rows]
        assert (drawn == 2).sum() == 1  # alone in class 0, as group 0 counts with class 1
        assert (drawn == 0).sum() in (0, 3, 6)


def test_bootstrap_covers_a_mean_of_grouped_samples():
    rng = np.random.default_rng(1)
    groups, covered, naive = np.repeat(np.arange(40), 4), [], []
    for _ in range(100):
        x = np.repeat(rng.normal(size=40), 4) + 0.3 * rng.normal(size=160)
        for into, units in ((covered, groups), (naive, np.arange(160))):
            row = bootstrap(lambda r, x=x: x[r].mean(), units, np.zeros(160), rng, 100)
            into.append(row["ci_low"][0] <= 0 <= row["ci_high"][0])
    assert 0.88 <= np.mean(covered) <= 0.99
    assert np.mean(naive) < 0.8  # samples of a patient are not independent


def test_bootstrap_of_several_numbers_shares_resamples():
    x = np.arange(30.0)
    args = (np.arange(30), np.zeros(30))
    both = bootstrap(
        lambda r: {"a": x[r].mean(), "b": 2 * x[r].mean()}, *args, np.random.default_rng(0), 99
    )
    one = bootstrap(lambda r: x[r].mean(), *args, np.random.default_rng(0), 99)
    assert both["quantity"].tolist() == ["a", "b"]
    assert both["ci_low"][1] == pytest.approx(2 * both["ci_low"][0])
    assert both["ci_high"][0] == one["ci_high"][0]
    assert one.loc[0, ["n", "groups", "draws", "failed"]].tolist() == [30, 30, 99, 0]
    assert one["se"][0] == pytest.approx(x.std() / np.sqrt(30), rel=0.3)


def test_bootstrap_that_mostly_fails_has_no_interval():
    x = np.arange(10.0)
    row = bootstrap(
        lambda r: x[r].mean() if len(set(r)) == 10 else np.nan,
        np.arange(10),
        np.zeros(10),
        np.random.default_rng(0),
        50,
    ).iloc[0]
    assert row["estimate"] == 4.5 and np.isnan(row["ci_low"]) and row["failed"] > 40


def test_t_interval_agrees_with_scipy():
    values = [0.1, 0.4, 0.35, np.nan]
    row = t_interval(values, null=0.0).iloc[0]
    test = stats.ttest_1samp(values[:3], 0)
    low, high = test.confidence_interval()
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    assert row["p"] == pytest.approx(test.pvalue)
    assert row["n"] == 3
    single = t_interval([0.2]).iloc[0]
    assert single["estimate"] == 0.2 and np.isnan(single["ci_low"]) and single["n"] == 1
    assert np.isnan(t_interval([])["estimate"][0])


def test_permutation_p_is_never_zero_and_uniform_under_the_null():
    assert permutation_p(9.0, np.zeros(99)) == 0.01
    assert permutation_p(-9.0, np.zeros(99), "less") == 0.01
    assert permutation_p(9.0, np.zeros(99), "two-sided") == 0.02
    assert permutation_p(0.0, np.zeros(99), "two-sided") == 1.0
    assert permutation_p(0.1 + 0.2, [0.3]) == 1.0  # equal but for the last bit
    assert np.isnan(permutation_p(np.nan, [1.0]))
    rng = np.random.default_rng(0)
    p = [permutation_p(rng.normal(), rng.normal(size=99)) for _ in range(500)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_holm_on_a_worked_example_and_with_nan():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, np.nan, 0.2])[[0, 2]].tolist() == pytest.approx([0.02, 0.2])
    assert np.isnan(holm([np.nan])).all()


def test_bad_input_is_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        t_interval([1, 2], level=95)
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
        next(resamples([1, 2, 3], [0, 0], rng, 1))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        next(resamples([1], [0], rng, 0))
    with pytest.raises(ValueError, match="alternative must be"):
        permutation_p(1, [1], "upper")
    with pytest.raises(ValueError, match=r"p must be a list of numbers in 0..1"):
        holm([1.2])
