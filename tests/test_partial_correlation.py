"""Spearman correlations given class and control against pingouin, scipy and repeated rows."""

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import stats
from scipy.stats import spearmanr

from retention_lib.link_tables import correlations
from retention_lib.nominal_p import needed_rho, nominal_log10_p
from retention_lib.partial_correlation import Link, partial_spearman, redrawn_correlations

RUNS = pd.DataFrame({"arch": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_resampled_correlations_are_those_of_the_repeated_rows(rng):
    x, y, z = rng.integers(0, 9, (3, 2, 40)).astype(float)
    y[0, :5] = np.nan
    labels = rng.integers(0, 3, 40)
    links = {"plain": Link("x", "y"), "class": Link("x", "y", None, True)}
    links |= {"both": Link("x", "y", "z", True)}
    vectors, pairs = {"x": x, "y": y, "z": z}, [(0, 0), (0, 1)]
    own = np.zeros(40, int)  # one group: every resample is the data
    found = redrawn_correlations(vectors, links, pairs, own, labels, rng, 3)
    for k, (a, b) in enumerate(pairs):
        use = ~np.isnan(y[b])
        of = [v[use] for v in (x[a], y[b], z[a], labels)]
        assert found["plain"][:, k] == pytest.approx(spearmanr(of[0], of[1])[0], abs=1e-12)
        given = partial_spearman(of[0], of[1], of[3])
        assert found["class"][:, k] == pytest.approx(given, abs=1e-12)
        given = partial_spearman(of[0], of[1], of[3], of[2])
        assert found["both"][:, k] == pytest.approx(given, abs=1e-12)


def test_partial_correlation_agrees_with_pingouin_and_indicators():
    rng = np.random.default_rng(0)
    labels, z = rng.integers(0, 4, 90), rng.poisson(3, 90)
    x, y = rng.poisson(2 + labels + z), rng.poisson(2 + labels, 90)
    frame = pd.DataFrame({"x": x, "y": y, "z": z})
    dummies = [f"class_{k}" for k in (1, 2, 3)]
    for name, k in zip(dummies, (1, 2, 3), strict=True):
        frame[name] = (labels == k).astype(float)
    for covariates, given in (
        (dummies, {"labels": labels}),
        (["z"], {"control": z}),
        ([*dummies, "z"], {"labels": labels, "control": z}),
    ):
        expected = pingouin.partial_corr(frame, "x", "y", covar=covariates, method="spearman")
        column = next(c for c in expected if c.startswith("p") and c not in ("power",))
        found = partial_spearman(x, y, **given)
        assert found == pytest.approx(expected["r"].iloc[0], abs=1e-9)
        control = given.get("control")
        rows = correlations(x, y[None], RUNS[:1], labels, np.arange(90), rng, 20, control=control)
        quantity = "given " + " and ".join(
            [name for key, name in (("labels", "class"), ("control", "control")) if key in given]
        )
        row = rows[rows["quantity"] == quantity].iloc[0]
        assert row["estimate"] == pytest.approx(found, abs=1e-12)
        assert row["p"] == pytest.approx(expected[column].iloc[0], abs=1e-9)


def test_partial_correlation_of_constants_is_nan():
    x = np.arange(8.0)
    labels = np.repeat(np.arange(4), 2)
    assert np.isnan(partial_spearman(x, np.ones(8)))
    assert np.isnan(partial_spearman(x, labels.astype(float), labels))
    assert np.isnan(partial_spearman(x, x[::-1], control=x))
    with pytest.raises(ValueError, match="one length without NaN"):
        partial_spearman(x, np.full(8, np.nan))


def test_plain_rows_are_scipys_even_where_p_underflows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 4000))
    y = np.round(x + 0.3 * rng.normal(size=(1, 4000)), 1)  # tied
    y[0, :5] = np.nan
    row = correlations(x, y, RUNS[:1], np.zeros(4000), np.arange(4000), rng, 50).iloc[0]
    expected = stats.spearmanr(x[0, 5:], y[0, 5:])
    assert row["estimate"] == pytest.approx(expected.statistic, abs=1e-12)
    assert row["n"] == 3995
    assert row["p"] == 0.0 and -5000 < row["log10_p"] < -1000
    weak = correlations(x[:, :90], y[:, :90], RUNS[:1], np.zeros(90), np.arange(90), rng, 20).iloc[
        0
    ]
    scipy = stats.spearmanr(x[0, 5:90], y[0, 5:90])
    assert weak["log10_p"] == pytest.approx(np.log10(scipy.pvalue), abs=1e-6)


def test_the_papers_p_needs_this_rho():
    for n in (1444, 1651, 5994):
        rho = needed_rho(-45, n)
        t = rho * np.sqrt((n - 2) / (1 - rho**2))
        assert np.log10(2 * stats.t.sf(t, n - 2)) == pytest.approx(-45, abs=1e-6)
    assert needed_rho(-45, 1444) == pytest.approx(0.361, abs=5e-4)
    assert nominal_log10_p(0.5, 100_000) < -1000  # where p itself is 0
    assert np.isnan(nominal_log10_p(np.nan, 50))


def test_interval_covers_the_planted_correlation():
    truth, covered, rng = 6 / np.pi * np.arcsin(0.4 / 2), [], np.random.default_rng(7)
    for _ in range(100):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.4], [0.4, 1]], 120).T
        row = correlations(x, y[None], RUNS[:1], np.arange(120) % 3, np.arange(120), rng, 100)
        covered.append(row["ci_low"][0] <= truth <= row["ci_high"][0])
    assert 0.88 <= np.mean(covered) <= 0.99
