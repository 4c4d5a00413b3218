"""Reliability and noise ceilings against pingouin, scipy, slow twins and known truth."""

from itertools import combinations

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import integrate, optimize, stats

from retention_lib.agreement import CROSS, SAME
from retention_lib.beta_binomial import beta_binomial
from retention_lib.disattenuation import disattenuated
from retention_lib.intervals import one_row, t_interval
from retention_lib.noise_ceiling import noise_ceiling
from retention_lib.reliability import (
    icc,
    seeds_needed,
    spearman_brown,
    spearman_brown_curve,
    split_half,
)
from retention_lib.resampled import count_batches
from retention_lib.run_correlations import MEASURES, correlation_matrices
from retention_lib.run_moments import moments
from retention_lib.seed_correlations import seed_to_seed
from retention_lib.simulated_study import study
from retention_lib.ties import topk_jaccard

# Shrout & Fleiss (1979), table 2: four judges, six targets; table 4: ICC(1,1) .17, ICC(1,4) .44.
JUDGES = np.array([[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]])
ARCHS = pd.DataFrame([(a, s) for a in ("cnn", "vit") for s in (10, 11, 12)])
ARCHS.columns = ["arch", "seed"]


def rng(seed=0):
    return np.random.default_rng(seed)


def tied(runs=4, n=60, seed=0):
    """Heavily tied counts that share rates; labels of five equal classes; groups of two."""
    generator = rng(seed)
    counts = generator.poisson(generator.gamma(0.7, 1.5, n), (runs, n)).astype(float)
    groups = np.arange(n) // 2
    return counts, groups % 5, groups


def redrawn_rows(groups, labels, generator, draws):
    """Rows of each resample: with m groups in every class, m - 1 times its counts are whole."""
    m = len(np.unique(groups[labels == labels[0]]))
    for counts in count_batches(groups, labels, generator, draws):
        for count in counts:
            times = count * (m - 1)
            assert np.array_equal(times.round(6), times.round())
            yield np.repeat(np.arange(len(groups)), times.round().astype(int))


def test_icc_agrees_with_pingouin_and_with_the_published_example():
    options = {key: pingouin.options[key] for key in pingouin.options}
    for x in (JUDGES.astype(float), tied()[0]):
        pingouin.options.update(dict.fromkeys(options))  # unrounded
        k, n = x.shape
        long = pd.DataFrame({"run": np.repeat(range(k), n), "i": np.tile(range(n), k)})
        both = {"score": x, "midranks": stats.rankdata(x, axis=1)}
        rows = icc(x, range(n), np.zeros(n), rng(), 20).set_index(["quantity", "scale"])
        for scale, values in both.items():
            theirs = pingouin.intraclass_corr(long.assign(x=values.ravel()), "i", "run", "x")
            theirs = theirs.set_index("Type")
            for ours, name in (("ICC(1)", "ICC(1,1)"), ("ICC(k)", "ICC(1,k)")):
                row, other = rows.loc[(ours, scale)], theirs.loc[name]
                assert row["estimate"] == pytest.approx(other["ICC"], abs=1e-9)
                assert row["f"] == pytest.approx(other["F"], rel=1e-9)
                assert [row["f_low"], row["f_high"]] == pytest.approx(other["CI95"], abs=1e-9)
                assert row["p"] == pytest.approx(other["pval"], rel=1e-9)
        pingouin.options.update(options)
    found = icc(JUDGES, range(6), np.zeros(6), rng(), 20)["estimate"]
    assert found[:2].round(2).tolist() == [0.17, 0.44]


def test_every_resample_is_what_its_repeated_rows_give():
    x, labels, groups = tied()
    order = np.argsort(labels, kind="stable")  # the fast path puts samples in this order
    y, label, group = x[:, order], labels[order], groups[order]
    found = correlation_matrices(x, groups, labels, rng(5), 30)
    a, b = 0, 2
    rows = [np.arange(60), *redrawn_rows(group, label, rng(5), 30)]
    for draw, at in enumerate(rows):
        c, ranks = label[at], stats.rankdata(y[:, at], axis=1)
        means = np.array([ranks[:, c == name].mean(1) for name in range(5)])
        slow = {
            "pearson": np.corrcoef(y[:, at])[a, b],
            "spearman": stats.spearmanr(y[a, at], y[b, at]).statistic,
            "within_class": np.corrcoef(ranks - means[c].T)[a, b],
            "between_class": np.corrcoef(means.T)[a, b],
        }
        for measure, value in slow.items():
            assert found[measure][draw, a, b] == pytest.approx(value, abs=1e-9), measure
    rows = [np.arange(60), *redrawn_rows(groups, labels, rng(5), 30)]
    for scale in ("score", "midranks"):
        m = moments(x, groups, labels, rng(5), 30, scale)
        for draw, at in enumerate(rows):
            z = x[:, at] if scale == "score" else stats.rankdata(-x[:, at], axis=1)
            times = len(at) / m.n[draw]  # a rank counts the rows before it
            size = 1 if scale == "score" else times**2
            np.testing.assert_allclose(m.cov[draw], np.cov(z, bias=True) / size, atol=1e-9)
            assert times == pytest.approx(5 if draw else 1)
            if scale == "score":
                np.testing.assert_allclose(m.mean[draw], z.mean(1), atol=1e-12)


def test_tau_b_is_scipys_and_its_linear_resamples_vary_like_true_ones():
    x, labels, groups = tied(3, 400)[0], np.zeros(400), np.arange(400)
    fast = correlation_matrices(x, groups, labels, rng(1), 150, ["kendall"])["kendall"]
    for a, b in combinations(range(3), 2):
        assert fast[0, a, b] == pytest.approx(stats.kendalltau(x[a], x[b]).statistic, abs=1e-12)
    true = []
    for counts in count_batches(groups, labels, rng(1), 150):
        for times in (counts * 399 / 400).round().astype(int):
            at = np.repeat(groups, times)
            true.append(stats.kendalltau(x[0, at], x[1, at]).statistic)
    assert np.corrcoef(true, fast[1:, 0, 1])[0, 1] > 0.99
    assert fast[1:, 0, 1].std() == pytest.approx(np.std(true), rel=0.05)
    assert abs(np.mean(true - fast[1:, 0, 1])) < 0.1 * np.std(true)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("scale", ["score", "midranks"])
def test_split_halves_are_all_splits(k, scale):
    x, labels, groups = tied(k)
    y = x if scale == "score" else stats.rankdata(x, axis=1)
    h, found = k // 2, []
    for a in combinations(range(k), h):
        for b in combinations([r for r in range(k) if r not in a], h):
            found.append(np.corrcoef(y[list(a)].mean(0), y[list(b)].mean(0))[0, 1])
    row = split_half(x, groups, labels, rng(), scale, 30).iloc[0]
    r = np.mean(found)
    assert row["half"] == pytest.approx(r, abs=1e-12) and row["splits"] == len(found) / 2
    assert row["estimate"] == pytest.approx(k / h * r / (1 + (k / h - 1) * r), abs=1e-12)
    assert row["one_run"] == pytest.approx(r / h / (1 + (1 / h - 1) * r), abs=1e-12)
    assert row["ci_low"] < row["estimate"] < row["ci_high"]


def test_spearman_brown_and_the_seeds_it_asks_for():
    assert spearman_brown([0.5, 0.2], [3, 10]).tolist() == pytest.approx([0.75, 2 / 2.8])
    assert np.isnan(spearman_brown(-0.5, 3))
    row = one_row(0.25, 0.2, 1 / 3, 50, 0.01, "ICC(1)")
    needed = seeds_needed(row).iloc[0]
    assert needed[["estimate", "ci_low", "ci_high", "seeds"]].tolist() == pytest.approx(
        [12, 8, 16, 12]
    )
    curve = spearman_brown_curve(row, range(1, 20))
    assert curve["reliability"][11] == pytest.approx(0.8)  # 12 seeds
    assert curve["low"][15] == pytest.approx(0.8) and curve["high"][7] == pytest.approx(0.8)
    none = seeds_needed(one_row(0.02, -0.01, 0.05, 50, 0.2, "ICC(1)")).iloc[0]
    assert np.isnan(none[["estimate", "ci_low", "ci_high", "seeds"]].astype(float)).all()
    assert none["method"].startswith("not estimable") and none["n"] == 50
    assert spearman_brown_curve(one_row(0.02, -0.9, 0.05, 5, 1, ""))["low"].tolist() == [0] * 30
    exact = icc(np.tile(np.arange(9.0), (3, 1)), range(9), np.zeros(9), rng(), 30)
    assert exact["estimate"].tolist() == [1.0] * 4
    assert seeds_needed(exact.iloc[[0]])[["estimate", "seeds"]].values.tolist() == [[0, 1]]


def test_correlations_of_a_study_and_of_misaligned_samples():
    made = study(4000, 1, ["cnn", "vit"], [10, 11, 12], rng(1), reliability=0.6, shared=0.5,
                 class_effect=0.2)  # fmt: skip
    z = made.truth.latent
    out = seed_to_seed(z, made.runs, made.groups, made.labels, rng(), draws=60)
    assert out.groupby("measure", sort=False)["kind"].apply(list).to_dict() == {
        m: [CROSS, SAME, SAME] for m in MEASURES
    }
    named = out.set_index(["measure", "kind"])
    for measure, kind, truth in (
        ("pearson", SAME, 0.6),
        ("pearson", CROSS, 0.3),
        ("spearman", SAME, 6 / np.pi * np.arcsin(0.3)),
        ("kendall", SAME, 2 / np.pi * np.arcsin(0.6)),
        ("within_class", SAME, 6 / np.pi * np.arcsin(0.25)),  # (0.6 - 0.2) / (1 - 0.2), normal
        ("between_class", CROSS, 1.0),
    ):
        found = np.atleast_1d(named.loc[(measure, kind), "estimate"])
        assert found == pytest.approx(truth, abs=0.03), measure
    assert (out["ci_low"] < out["estimate"]).all() and (out["estimate"] < out["ci_high"]).all()
    assert (out["control"].abs()[out["measure"] != "between_class"] < 0.03).all()
    assert (out["seeds"] == 3).all() and (out["pairs"] == [9, 3, 3] * 5).all()
    r = np.corrcoef(z[:3])
    left_out = np.array([r[1, 2], r[0, 2], r[0, 1]])
    pseudo = t_interval(3 * left_out.mean() - 2 * left_out).iloc[0]
    row = out[(out["measure"] == "pearson") & (out["arch_a"] == out["arch_b"])].iloc[0]
    assert [row["seed_low"], row["seed_high"]] == pytest.approx([pseudo.ci_low, pseudo.ci_high])
    rows = icc(z[:3], made.groups, made.labels, rng(), 60)
    assert rows["estimate"][0] == pytest.approx(0.6, abs=0.02)
    assert rows["control"].abs().max() < 0.1
    assert abs(split_half(z[:3], made.groups, made.labels, rng(), draws=9)["control"][0]) < 0.1


def covered(simulations, draws, n, seed):
    """Share of intervals that hold the planted ICC(1) and disattenuated correlation."""
    generator, hits = rng(seed), []
    for _ in range(simulations):
        made = study(n, 1, ["a", "b"], [1, 2, 3], generator, reliability=0.6, shared=0.5)
        z, where = made.truth.latent, (made.groups, made.labels)
        one = icc(z[:3], *where, generator, draws).iloc[0]
        two = disattenuated(z, made.runs, *where, generator, "pearson", draws).iloc[0]
        hits.append([one.ci_low <= 0.6 <= one.ci_high, two.ci_low <= 0.5 <= two.ci_high])
    return np.mean(hits, axis=0)


def test_intervals_cover_in_a_small_simulation():
    assert (covered(80, 150, 250, 3) >= 0.87).all()


@pytest.mark.slow
@pytest.mark.simulation
def test_intervals_cover_at_the_nominal_rate():
    reached = covered(2000, 500, 400, 4)
    assert ((reached >= 0.93) & (reached <= 0.97)).all(), reached


def test_disattenuation_by_hand_above_one_and_without_reliability():
    made = study(3000, 1, ["cnn", "vit"], [10, 11, 12], rng(2), reliability=0.5, shared=1.0)
    z, where = made.truth.latent, (made.groups, made.labels)
    row = disattenuated(z, made.runs, *where, rng(), "pearson", 100).iloc[0]
    r, upper = np.corrcoef(z), np.triu_indices(3, 1)
    by_hand = r[:3, 3:].mean() / np.sqrt(r[:3, :3][upper].mean() * r[3:, 3:][upper].mean())
    assert row["estimate"] == pytest.approx(by_hand, abs=1e-12)
    assert row["ci_low"] < 1 < row["ci_high"]  # the truth is 1: values above it are not cut off
    assert np.isfinite(row["seed_low"]) and row["cross"] == pytest.approx(r[:3, 3:].mean())
    noise = rng().normal(size=z.shape)
    for scores, runs in ((noise, ARCHS), (z[[0, 3]], ARCHS.iloc[[0, 3]])):
        none = disattenuated(scores, runs, *where, rng(), "spearman", 60).iloc[0]
        assert np.isnan([none["estimate"], none["ci_low"], none["ci_high"]]).all()
        assert none["method"].startswith("not estimable") and none["n"] == 3000


def test_beta_binomial_is_the_maximum_of_scipys_likelihood():
    generator = rng(6)
    m = generator.integers(5, 15, (3, 400))
    y = generator.binomial(m, generator.beta(0.8, 4, 400))
    rows = beta_binomial(y, m, range(400), np.zeros(400), generator, 40).set_index("fit")
    for fit, count, total in (("within_runs", y, m), ("across_runs", y.sum(0), m.sum(0))):
        row = rows.loc[fit]

        def loss(x, count=count, total=total):
            return -stats.betabinom.logpmf(count, total, *np.exp(x)).sum()

        best = optimize.minimize(loss, [0.0, 1.0], method="Nelder-Mead",
                                 options={"xatol": 1e-8, "fatol": 1e-10})  # fmt: skip
        assert row["log_likelihood"] == pytest.approx(-best.fun, abs=1e-6)
        assert [row["alpha"], row["beta"]] == pytest.approx(np.exp(best.x), rel=1e-4)
        implied = 1 / (1 + (row["alpha"] + row["beta"]) * np.mean(1 / m))
        assert row["estimate"] == pytest.approx(implied, abs=1e-12)
        assert row["ci_low"] < row["estimate"] < row["ci_high"]
    share = np.corrcoef(y / m)[np.triu_indices(3, 1)].mean()
    assert rows["observed"].to_numpy() == pytest.approx(share, abs=1e-12)


def test_beta_binomial_refits_every_resample_to_its_own_maximum():
    x, labels, groups = tied(3, 120)
    x = np.minimum(x, 9)
    rows = beta_binomial(x, 9, groups, labels, rng(4), 40).set_index("fit")
    generator = rng(4)  # both fits draw from it, one after the other
    for fit, at in (("within_runs", 0), ("across_runs", 1)):
        slow = [
            beta_binomial(x[:, at_], 9, range(len(at_)), np.zeros(len(at_)), rng(), 0)
            for at_ in redrawn_rows(groups, labels, generator, 40)
        ]
        low, high = np.quantile([one["estimate"][at] for one in slow], [0.025, 0.975])
        found = rows.loc[fit, ["ci_low", "ci_high"]].tolist()
        assert found == pytest.approx([low, high], abs=1e-4)


def test_beta_binomial_tells_common_rates_from_rates_of_a_run():
    generator, n = rng(7), 6000
    own = generator.beta(1, 6, (4, n))
    args = (range(n), np.zeros(n), generator, 20)
    shared = beta_binomial(generator.binomial(13, own[0], (4, n)), 13, *args)
    assert shared["estimate"].to_numpy() == pytest.approx(13 / 20, abs=0.02)
    assert shared["observed"].to_numpy() == pytest.approx(13 / 20, abs=0.02)
    apart = beta_binomial(generator.binomial(13, own), 13, *args)  # every run rates of its own
    assert apart["estimate"][0] == pytest.approx(13 / 20, abs=0.02)
    assert abs(apart["observed"][0]) < 0.03
    assert apart["estimate"][1] < apart["estimate"][0] - 0.2


def test_beta_binomial_at_its_limits():
    args = (range(500), np.zeros(500), rng(), 30)
    even = beta_binomial(rng(9).binomial(12, 0.2, (2, 500)), 12, *args)
    assert (even["estimate"] < 0.1).all() and (even["ci_low"] < 0.02).all()
    always = np.tile(np.where(np.arange(500) < 50, 12, 0), (2, 1))
    assert beta_binomial(always, 12, *args)["estimate"].to_numpy() == pytest.approx(1, abs=1e-3)
    for counts in (np.zeros((2, 500)), np.full((2, 500), 12)):
        none = beta_binomial(counts, 12, *args)
        assert none["estimate"].isna().all() and (none["n"] == 500).all()
        assert none["method"].str.contains("not estimable").all()


def exact_ceiling(alpha, beta, m):
    """Pearson and Spearman of two binomial counts with one beta rate, by integration."""
    k = np.arange(m + 1)

    def cell(i, j):
        return integrate.quad(
            lambda p: stats.binom.pmf(i, m, p) * stats.binom.pmf(j, m, p)
            * stats.beta.pdf(p, alpha, beta), 0, 1)[0]  # fmt: skip

    joint = np.array([[cell(i, j) for j in k] for i in k])
    one = joint.sum(1)
    out = []
    for v in (k, one.cumsum() - one / 2):
        v = v - one @ v
        out.append(v @ joint @ v / (one @ v**2))
    return out


def test_noise_ceiling_is_the_integral_over_rates():
    pearson, spearman = exact_ceiling(1.5, 6.0, 8)
    assert pearson == pytest.approx(8 / 15.5, abs=1e-6)
    rows = noise_ceiling(1.5, 6.0, np.full(4000, 8), rng(), draws=100).set_index("quantity")
    for name, truth in (("pearson", pearson), ("spearman", spearman)):
        assert abs(rows.loc[name, "estimate"] - truth) < 4 * rows.loc[name, "se"] + 1e-3
        assert rows.loc[name, "ci_low"] < truth < rows.loc[name, "ci_high"]
    generator = rng(1)
    slow = [
        topk_jaccard(*generator.binomial(8, generator.beta(1.5, 6.0, 4000), (2, 4000)))
        for _ in range(40)
    ]
    assert rows.loc["jaccard", "estimate"] == pytest.approx(np.mean(slow), abs=0.005)
    flat = noise_ceiling(1, 5, np.zeros((2, 50)), rng(), draws=10).set_index("quantity")
    assert flat.loc[["pearson", "spearman"], "estimate"].isna().all()
    assert np.isfinite(flat.loc["jaccard", "estimate"])


def test_degenerate_scores_are_nan_and_keep_n():
    labels = np.zeros(8)
    for x in (np.ones((3, 8)), np.arange(8.0)[None]):
        rows = icc(x, range(8), labels, rng(), 9)
        assert rows[["estimate", "ci_low", "p", "f_low"]].isna().all(axis=None)
        assert (rows["n"] == 8).all()
        assert seeds_needed(rows.iloc[0])["method"][0].startswith("not estimable")
    x = np.vstack([np.ones(8), np.arange(8.0)])
    out = seed_to_seed(x, ARCHS.iloc[:2], range(8), labels, rng(), draws=9)
    assert out[["estimate", "ci_low"]].isna().all(axis=None)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, l: icc(x[:, :5], l, l, rng()), r"\(run, 6 samples\) like labels, got \(2, 5\)"),
        (lambda x, l: icc(x / 0, l, l, rng()), "scores must be finite, 12 are not"),
        (lambda x, l: icc(x, l, l, rng(), level=95), "level must lie between 0 and 1, got 95"),
        (lambda x, l: split_half(x[:1], l, l, rng()), "need 2 to 12 runs, got 1"),
        (lambda x, l: split_half(x, l, l, rng(), "rank"), "scale must be one of .*got 'rank'"),
        (lambda x, l: correlation_matrices(x, l, l, rng(), 5, ["rho"]), r"got \['rho'\]"),
        (lambda x, l: seed_to_seed(x, ARCHS, l, l, rng()), "each of 2 runs, got 6"),
        (lambda x, l: disattenuated(x, ARCHS[:2], l, l, rng()), r"two architectures.*\{'cnn'\}"),
        (lambda x, l: beta_binomial(x, 1, l, l, rng()), r"in 0\.\.opportunities, got 1\.\.2 of 1"),
        (lambda x, l: beta_binomial(x / 2, 9, l, l, rng()), "counts must be whole numbers"),
        (lambda x, l: noise_ceiling(0, 1, [5], rng()), "must be positive, got 0 and 1"),
        (lambda x, l: noise_ceiling(1, 1, [0.5], rng()), "opportunities must be whole"),
        (lambda x, l: seeds_needed(one_row(1, 1, 1, 1, 1, ""), 1.0), "target must lie.*got 1.0"),
        (lambda x, l: seeds_needed(icc(x, l, l, rng(), 5)), "row must be one row, got 4"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_broken_input_is_quoted(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.array([[1.0, 2, 1, 2, 1, 2], [2.0, 2, 2, 1, 1, 2]]), np.arange(6))
