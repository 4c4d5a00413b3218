"""Equivalence tests against statsmodels, and their error rates and power in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from retention_lib.config import EQUIVALENCE_MARGIN
from retention_lib.equivalence import (
    equivalence_power,
    smallest_detectable,
    tost_independent,
    tost_paired,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_paired_agrees_with_statsmodels(rng, n):
    a, b = rng.normal(size=(2, n)) * [[0.5], [0.4]]
    row = tost_paired(a, b, 0.6).iloc[0]
    p, (_, lower, df), (_, upper, _) = ttost_paired(a, b, -0.6, 0.6)
    assert row["p"] == pytest.approx(p, abs=1e-9) == pytest.approx(max(lower, upper), abs=1e-9)
    assert (row["df"], row["n"]) == (df, n)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.90)
    assert (row["low_90"], row["high_90"]) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(("pooled", "usevar"), [(True, "pooled"), (False, "unequal")])
def test_independent_agrees_with_statsmodels(rng, pooled, usevar):
    a, b = rng.normal(0.1, 1, 9), rng.normal(0, 3, 14)
    row = tost_independent(a, np.append(b, np.nan), 1.5, pooled=pooled).iloc[0]
    assert row["p"] == pytest.approx(ttost_ind(a, b, -1.5, 1.5, usevar=usevar)[0], abs=1e-9)
    low, high = stats.ttest_ind(a, b, equal_var=pooled).confidence_interval(0.95)
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    assert (row["n"], row["n_a"], row["n_b"]) == (23, 9, 14)


@pytest.mark.parametrize(
    ("shift", "noise", "verdict"),
    [
        (0.0, 0.001, "equivalent"),
        (0.004, 0.001, "equivalent"),  # not zero, yet within the margin
        (0.030, 0.001, "better"),
        (-0.030, 0.001, "worse"),
        (0.0, 0.1, "undecided"),
    ],
)
def test_verdicts(shift, noise, verdict):
    b = np.full(5, 0.8)
    a = b + shift + noise * np.array([-1.0, -0.5, 0, 0.5, 1.0])
    row = tost_paired(a, b, EQUIVALENCE_MARGIN).iloc[0]
    assert row["verdict"] == verdict
    assert (row["p"] < 0.05) == (-0.01 < row["low_90"] and row["high_90"] < 0.01)
    mirrored = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    other = tost_paired(a, b, EQUIVALENCE_MARGIN, larger_is_better=False).iloc[0]
    assert other["verdict"] == mirrored


def test_smallest_detectable_agrees_with_statsmodels():
    for n in (3, 5, 40):
        known = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
        assert smallest_detectable(1 / np.sqrt(n), n - 1) == pytest.approx(known, rel=1e-6)
    known = TTestIndPower().solve_power(nobs1=6, ratio=2, alpha=0.05, power=0.8)
    assert smallest_detectable(np.sqrt(1 / 6 + 1 / 12), 16) == pytest.approx(known, rel=1e-6)


def test_power_has_its_large_sample_limit():
    limit = 2 * stats.norm.cdf(3 - stats.norm.ppf(0.95)) - 1
    assert equivalence_power(3.0, 1.0, 1e6) == pytest.approx(limit, abs=1e-5)
    assert equivalence_power(0.01, 1.0, 100) == 0.0  # no estimate could be within the margin


def rejections(n, margin, sd, difference, simulations, rng):
    """Share of simulated studies that conclude equivalence, the tests written out."""
    d = rng.normal(difference, sd, (simulations, n))
    se = d.std(1, ddof=1) / np.sqrt(n)
    t = stats.t.ppf(0.95, n - 1)
    return np.mean(np.abs(d.mean(1)) + t * se < margin)


@pytest.mark.parametrize(("n", "sd"), [(3, 0.005), (5, 0.005), (5, 0.010), (40, 0.02)])
def test_power_is_reached_in_simulation(rng, n, sd):
    found = rejections(n, 0.01, sd, 0.0, 40_000, rng)
    assert equivalence_power(0.01, sd / np.sqrt(n), n - 1) == pytest.approx(found, abs=0.01)
    found = rejections(n, 0.01, sd, 0.004, 40_000, rng)
    claimed = equivalence_power(0.01, sd / np.sqrt(n), n - 1, difference=0.004)
    assert claimed == pytest.approx(found, abs=0.01)


def error_rates(simulations, rng):
    """False equivalence at the margin; false better-or-worse and true equivalence at 0."""
    at_margin, differs, same = [], [], []
    for _ in range(simulations):
        b = rng.normal(0.8, 0.02, 5)
        a = b + rng.normal(0.01, 0.004, 5)
        at_margin.append(tost_paired(a, b, 0.01)["verdict"][0] == "equivalent")
        verdict = tost_paired(a - 0.01, b, 0.002)["verdict"][0]
        differs.append(verdict in ("better", "worse"))
        same.append(tost_paired(a - 0.01, b, 0.01)["verdict"][0] == "equivalent")
    return np.mean(at_margin), np.mean(differs), np.mean(same)


def check_rates(simulations, tolerance, rng):
    at_margin, differs, same = error_rates(simulations, rng)
    assert at_margin == pytest.approx(0.05, abs=tolerance)
    assert differs <= 0.05 + tolerance
    power = equivalence_power(0.01, 0.004 / np.sqrt(5), 4)
    assert same == pytest.approx(power, abs=tolerance)


@pytest.mark.slow
def test_error_rates_are_as_claimed(rng):
    check_rates(300, 0.05, rng)


@pytest.mark.slow
@pytest.mark.simulation
def test_error_rates_are_as_claimed_in_2000_studies(rng):
    check_rates(2000, 0.016, rng)


def test_without_spread_there_is_no_answer():
    same = tost_paired([0.7, 0.8, 0.9], [0.6, 0.7, 0.8], 0.01).iloc[0]
    assert same["estimate"] == pytest.approx(0.1) and same["n"] == 3
    assert np.isnan([same["p"], same["ci_low"], same["power"]]).all()
    assert same["verdict"] == "undecided" and "no spread" in same["method"]
    for row in (tost_paired([1.0], [0.5], 1), tost_paired([], [], 1)):
        assert np.isnan(row["p"][0]) and row["verdict"][0] == "undecided"
    lonely = tost_independent([1.0], [0.5, 0.6], 1).iloc[0]
    assert lonely["estimate"] == pytest.approx(0.45) and np.isnan(lonely["p"])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="margin must be positive, got 0"):
        tost_paired([1, 2], [2, 3], 0)
    with pytest.raises(ValueError, match=r"equal length, got \(2,\) and \(3,\)"):
        tost_paired([1, 2], [1, 2, 3], 0.1)
    with pytest.raises(ValueError, match="must be vectors"):
        tost_independent([[1.0, 2.0]], [1.0, 2.0], 0.1)
