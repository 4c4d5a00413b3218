"""Swapping the architectures' labels: by hand, as a loop, and its size under the null."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from retention_lib.r2_swap import swap_p


def difference(first, second):
    """Mean over runs of the mean over traces that have an R^2."""
    return np.nanmean(second, 1).mean() - np.nanmean(first, 1).mean()


def test_many_draws_come_near_all_swaps():
    """Six groups of two samples have 64 swaps; the exact p by going through them."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (2, 12)), rng.normal(0.6, 1, (2, 12))
    a[0, 3] = b[1, 8] = np.nan
    groups, exact = np.arange(12) // 2, []
    for swap in product([False, True], repeat=6):
        at = np.array(swap)[groups]
        exact.append(difference(np.where(at, b, a), np.where(at, a, b)))
    expected = np.mean(np.abs(exact) >= abs(difference(a, b)) - 1e-12)
    found = swap_p(a, b, groups, rng, draws=20_000)
    assert found == pytest.approx(expected, abs=0.015)


def test_p_is_uniform_when_architectures_do_not_matter():
    """Samples differ in how well they are fitted, and groups share it: no reason to reject."""
    rng, found = np.random.default_rng(1), []
    for _ in range(400):
        shared = np.repeat(rng.normal(size=20), 3)
        a, b = (shared + rng.normal(size=(2, 60)) for _ in range(2))
        found.append(swap_p(a, b, np.arange(60) // 3, rng, draws=99))
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_shapes_and_constant_runs():
    a = np.full((1, 4), np.nan)
    assert np.isnan(swap_p(a, np.zeros((1, 4)), np.arange(4), np.random.default_rng(0), 9))
    with pytest.raises(ValueError, match=r"\(1, 4\) and \(2, 4\)"):
        swap_p(a, np.zeros((2, 4)), np.arange(4), np.random.default_rng(0))
