"""Architectures compared by swapped labels: a slow twin, statsmodels, and size under the null."""

import numpy as np
import pytest
from hazards import simulate, survival_times
from scipy import stats
from statsmodels.duration.survfunc import survdiff

from retention_lib.intervals import permutation_p, resamples
from retention_lib.label_swap import _compare, _swapped, label_swap
from retention_lib.risk import risk_counts
from retention_lib.survival import restricted_mean


def test_log_rank_agrees_with_statsmodels():
    rng = np.random.default_rng(10)
    one, two = simulate(np.full(200, 0.1), 9, rng), simulate(np.full(200, 0.14), 9, rng)
    args = (one[None], two[None], np.arange(200), np.zeros(200), rng)
    row = label_swap(*args, statistic="log_rank", draws=20).iloc[0]
    start, end, status = (
        np.concatenate(x) for x in zip(survival_times(one), survival_times(two), strict=True)
    )
    arm = np.repeat([0, 1], [len(survival_times(x)[0]) for x in (one, two)])
    chi2, _ = survdiff(end - start, status, arm)
    assert row["estimate"] ** 2 == pytest.approx(chi2, rel=1e-9) and row["estimate"] > 0
    late = label_swap(*args, statistic="log_rank", scale="epoch", draws=20).iloc[0]
    assert late["estimate"] ** 2 == pytest.approx(
        survdiff(end, status, arm, entry=start)[0], rel=1e-9
    )
    ratio = label_swap(*args, statistic="log_hazard_ratio", draws=200).iloc[0]
    assert ratio["ci_low"] < np.log(1.4) < ratio["ci_high"]


@pytest.mark.parametrize("statistic", ["rmst", "log_hazard_ratio"])
def test_label_swap_agrees_with_swapping_the_traces(statistic):
    rng, n, draws = np.random.default_rng(11), 90, 59
    wrong = rng.uniform(0.05, 0.4, n)
    one, two = (rng.random((2, 6, n)) >= k * wrong for k in (1.0, 1.25))
    groups, strata = np.arange(n) // 3, np.arange(n) // 30
    row = label_swap(
        one, two, groups, strata, np.random.default_rng(3), statistic, horizon=5, draws=draws
    ).iloc[0]

    def slow(a, b):
        if statistic == "rmst":
            means = [restricted_mean(x, horizon=5)["estimate"][0] for x in (a, b)]
            return means[1] - means[0]
        (na, da), (nb, db) = ([x.sum(0) for x in risk_counts(c)] for c in (a, b))
        n_both = na + nb
        return np.log((db * na / n_both).sum() / (da * nb / n_both).sum())

    same = np.random.default_rng(3)
    redrawn = [slow(one[:, :, r], two[:, :, r]) for r in resamples(groups, strata, same, draws)]
    swaps = same.integers(0, 2, (draws, 30)).astype(bool)[:, groups]
    null = [slow(np.where(s, two, one), np.where(s, one, two)) for s in swaps]
    assert row["estimate"] == pytest.approx(slow(one, two), rel=1e-12)
    assert row["p"] == permutation_p(row["estimate"], np.array(null), "two-sided")
    expected = np.percentile(redrawn, [2.5, 97.5])
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(expected, rel=1e-9)
    assert (row["groups"], row["n"], row["seeds"]) == (30, n, 2)
    per_seed = [slow(one[[s]], two[[s]]) for s in range(2)]
    assert row["seed_low"] < np.mean(per_seed) < row["seed_high"]


def test_label_swap_finds_a_planted_difference():
    rng, n = np.random.default_rng(12), 300
    h = rng.choice([0.01, 0.4], n)
    one, two = (np.stack([simulate(k * h, 10, rng)]) for k in (1.0, 1.6))
    row = label_swap(one, two, np.arange(n), np.zeros(n), rng, horizon=8, draws=499).iloc[0]
    mean = [np.mean((1 - (1 - k * h) ** 8) / (k * h)) for k in (1.0, 1.6)]
    assert row["ci_low"] < mean[1] - mean[0] < row["ci_high"] and row["p"] <= 0.01
    back = label_swap(two, one, np.arange(n), np.zeros(n), rng, horizon=8, draws=99)
    assert back["estimate"][0] == pytest.approx(-row["estimate"])
    assert np.isnan(row["seed_low"])  # one seed has no interval over seeds


def rejections(hazards, seeds, simulations, rng):
    """Share of p <= 0.05 of the unpaired log-rank test and of the label swap, no true difference.

    What `label_swap` does, less its bootstrap; the tests above hold the two together.
    """
    unpaired, swapped = [], []
    for _ in range(simulations):
        runs = [np.stack([simulate(h, 8, rng, 0.9) for _ in range(seeds)]) for h in hazards()]
        table = np.hstack([counts for x in runs for counts in risk_counts(x)]).astype(float)
        z = _compare(table.sum(0), "log_rank")
        null = _swapped(table, "log_rank", rng, 199)
        unpaired.append(2 * stats.norm.sf(abs(z)) <= 0.05)
        swapped.append(permutation_p(z, null, "two-sided") <= 0.05)
    return np.mean(unpaired), np.mean(swapped)


@pytest.mark.slow
def test_unpaired_log_rank_has_the_wrong_size_and_the_label_swap_has_not():
    rng, n, simulations = np.random.default_rng(13), 100, 400
    three_se = 3 * np.sqrt(0.05 * 0.95 / simulations)

    def shared():  # a sample is as hard for the one as for the other
        h = rng.choice([0.005, 0.7], n)
        return h, h

    unpaired, swapped = rejections(shared, 1, simulations, rng)
    assert unpaired < 0.02  # conservative: what the two share is counted as noise
    assert abs(swapped - 0.05) < three_se

    def own():  # hard for one architecture, in all its seeds; the same in distribution
        return rng.choice([0.005, 0.7], n), rng.choice([0.005, 0.7], n)

    unpaired, swapped = rejections(own, 4, simulations, rng)
    assert unpaired > 0.15  # liberal: four seeds are taken for four times the samples
    assert abs(swapped - 0.05) < three_se


def test_bad_input_is_named():
    rng, ids, zero = np.random.default_rng(0), np.arange(30), np.zeros(30)
    half = rng.random((2, 4, 30)) < 0.5
    with pytest.raises(ValueError, match=r"same shape, got \(2, 4, 30\) and \(1, 4, 30\)"):
        label_swap(half, half[:1], ids, zero, rng)
    with pytest.raises(ValueError, match=r"'rmst' needs scale 'age' .* got 'epoch'"):
        label_swap(half, half, ids, zero, rng, scale="epoch")
    with pytest.raises(ValueError, match=r"statistic must be one of .* got 'cox'"):
        label_swap(half, half, ids, zero, rng, "cox")
