"""Class means, their consistency and confusions: textbook tables, slow twins, planted truth."""

from itertools import permutations, product

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import stats

from retention_lib.class_averages import means_by_class
from retention_lib.class_consistency import class_consistency, class_pairs, deal, pair_means
from retention_lib.class_forgetting import class_means, mean_variances, over_runs, shrink_means
from retention_lib.concordance import icc_of_means, kendall_w
from retention_lib.confusions import confusion_counts, forgotten_examples, top_confusions
from retention_lib.findings import score_matrix
from retention_lib.simulated_study import as_traces, study

# Siegel (1956), Nonparametric Statistics, table 9.7: three executives rank six applicants.
EXECUTIVES = np.array([[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]])
# Kendall (1970), Rank Correlation Methods, ch. 6: three tied rankings of ten objects.
TIED = np.array(
    [
        [1, 4.5, 2, 4.5, 3, 7.5, 6, 9, 7.5, 10],
        [2.5, 1, 2.5, 4.5, 4.5, 8, 9, 6.5, 10, 6.5],
        [2, 1, 4.5, 4.5, 4.5, 4.5, 8, 8, 8, 10],
    ]
)


def planted(class_effect=0.3, n=600, seeds=(10, 11, 12), seed=0, **kwargs):
    made = study(
        n,
        13,
        ["cnn", "vit"],
        seeds,
        np.random.default_rng(seed),
        reliability=0.6,
        shared=0.8,
        class_effect=class_effect,
        n_classes=10,
        group_size=2,
        rate=0.05,
        **kwargs,
    )
    return made, as_traces(made)


def test_kendalls_w_of_two_textbook_tables():
    row = kendall_w(EXECUTIVES).iloc[0]
    assert row["estimate"] == pytest.approx(25.5 / 157.5, abs=1e-12)  # s = 25.5, by hand
    assert (row["n"], row["raters"]) == (6, 3)
    row = kendall_w(TIED).iloc[0]
    # s = 591; ties: 12, 18 and 84 in t^3 - t
    assert row["estimate"] == pytest.approx(12 * 591 / (9 * 990 - 3 * 114), abs=1e-12)
    assert round(row["estimate"], 3) == 0.828


def test_kendalls_w_agrees_with_friedmans_chi_square():
    rng = np.random.default_rng(0)
    for items in (4, 9):
        ratings = rng.poisson(2, (5, items))
        row = kendall_w(ratings).iloc[0]
        friedman = stats.friedmanchisquare(*ratings.T)
        assert row["estimate"] * 5 * (items - 1) == pytest.approx(friedman.statistic, abs=1e-9)
        assert row["p_chi2"] == pytest.approx(friedman.pvalue, abs=1e-9)


def slow_w(ratings):
    """From Spearman's rho of all pairs, without ties: W = (1 + (m - 1) mean rho) / m."""
    m = len(ratings)
    rho = [stats.spearmanr(ratings[i], ratings[j])[0] for i in range(m) for j in range(i)]
    return (1 + (m - 1) * np.mean(rho)) / m


def test_exact_p_of_w_is_that_of_all_combinations():
    ratings = np.array([[1, 2, 3, 4], [1, 3, 2, 4], [2, 1, 3, 4]])
    row = kendall_w(ratings, np.random.default_rng(0)).iloc[0]
    found = slow_w(ratings)
    assert row["estimate"] == pytest.approx(found, abs=1e-12)
    null = [
        slow_w(np.array([ratings[0], ratings[1][list(a)], ratings[2][list(b)]]))
        for a, b in product(permutations(range(4)), repeat=2)
    ]
    assert row["p"] == pytest.approx(np.mean(np.array(null) >= found - 1e-12), abs=1e-12)
    assert "all 24^2" in row["method"]


def test_seven_classes_of_two_runs_are_permuted_exactly():
    a = np.arange(7.0)
    row = kendall_w([a, a], np.random.default_rng(0)).iloc[0]
    assert row["p"] == pytest.approx(1 / 5040, abs=1e-15)
    drawn = kendall_w([a, a, a, a], np.random.default_rng(0), draws=199).iloc[0]
    assert drawn["p"] == 1 / 200
    assert "199 random" in drawn["method"]


def test_p_of_w_is_uniform_under_the_null():
    rng = np.random.default_rng(3)
    p = [kendall_w(rng.normal(size=(4, 8)), rng, 99).p[0] for _ in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_w_without_information_is_nan_and_keeps_n():
    row = kendall_w(np.zeros((3, 5)), np.random.default_rng(0)).iloc[0]
    assert np.isnan([row["estimate"], row["p"]]).all()
    assert row["n"] == 5
    with pytest.raises(ValueError, match=r"without NaN, got shape \(1, 2\) with 1 NaN"):
        kendall_w([[1.0, np.nan]])


def test_icc_agrees_with_pingouin():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 9)) + rng.normal(size=9) + np.arange(4)[:, None]
    long = pd.DataFrame(x).melt(ignore_index=False).reset_index()
    table = pingouin.intraclass_corr(long, "variable", "index", "value")
    expected = table[table["Type"].isin(["ICC(C,1)", "ICC3"])].iloc[0]
    row = icc_of_means(x).iloc[0]
    assert row["estimate"] == pytest.approx(expected["ICC"], abs=1e-9)
    column = next(c for c in table if c.startswith("CI95"))
    assert np.round([row["ci_low"], row["ci_high"]], 2) == pytest.approx(expected[column], abs=1e-9)
    assert np.isnan(icc_of_means(np.zeros((2, 5))).estimate[0])


def test_means_by_class_is_a_group_by():
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(3, 50)), rng.integers(0, 4, 50)
    slow = pd.DataFrame(x.T).groupby(code).mean().T.to_numpy()
    assert means_by_class(x, code, 5)[:, :4] == pytest.approx(slow, abs=1e-12)
    assert np.isnan(means_by_class(x, code, 5)[:, 4]).all()


def test_shrinkage_of_the_eight_schools():
    # Gelman et al. (2013), table 5.2; posterior means of the model with flat mu and tau
    effect = [28, 8, -3, 7, -1, 1, 18, 12]
    table = shrink_means(effect, np.square([15, 10, 16, 11, 9, 11, 10, 18.0]))
    expected = [11.4, 7.9, 6.2, 7.7, 5.1, 6.1, 10.6, 8.4]
    assert table["shrunk"].tolist() == pytest.approx(expected, abs=0.3)
    assert table.attrs["mu"] == pytest.approx(7.9, abs=0.2)
    assert table.attrs["omega"] == pytest.approx(6.6, abs=0.3)


def test_shrinkage_agrees_with_integration_over_both_parameters():
    m, v = np.array([0.0, 1.0, 3.0, 3.5]), np.array([0.5, 1.0, 0.2, 2.0])
    mu = np.linspace(-30, 30, 1201)[:, None, None]
    u = ((np.arange(600) + 0.5) / 600)[:, None]
    omega = 3 * u / (1 - u)
    s = omega**2 + v
    logs = (-(np.log(s) + (m - mu) ** 2 / s) / 2).sum(-1) - 2 * np.log1p(-u[:, 0])
    post = np.exp(logs - logs.max())
    theta = mu + omega**2 / s * (m - mu)
    slow = (post[..., None] * theta).sum((0, 1)) / post.sum()
    square = (post[..., None] * (theta**2 + omega**2 * v / s)).sum((0, 1)) / post.sum()
    table = shrink_means(m, v, level=0.5)
    assert table["shrunk"].tolist() == pytest.approx(slow, abs=1e-3)
    half = stats.norm.ppf(0.75) * np.sqrt(square - slow**2)
    assert (table["shrunk_high"] - table["shrunk"]).tolist() == pytest.approx(half, abs=2e-3)


def test_shrinkage_at_its_limits():
    same = shrink_means([1.0, 1.0, 1.0], [1.0, 2.0, 0.5])
    assert same["shrunk"].tolist() == [1.0] * 3
    assert np.isnan(same.attrs["omega"])
    few = shrink_means([1.0, np.nan, 3.0], [1.0, 1.0, 4.0])
    assert few["shrunk"].tolist() == pytest.approx([1.0, np.nan, 3.0], nan_ok=True)
    sure = shrink_means([1.0, 2.0, 5.0], [1e-8] * 3)
    assert sure["weight"].min() > 0.999
    with pytest.raises(ValueError, match="variance > 0"):
        shrink_means([1.0, 2.0], [1.0, 0.0])


def test_shrunken_means_cover_and_beat_plain_ones():
    rng = np.random.default_rng(0)
    n = np.array([860, 230, 100, 60, 40, 30, 22, 15] * 3)  # imbalance of OCTDL
    covered, plain, shrunk = [], [], []
    for _ in range(300):
        truth = rng.normal(1, 0.3, len(n))
        mean = truth + rng.normal(0, 1 / np.sqrt(n))
        table = shrink_means(mean, 1 / n)
        covered.append((table["shrunk_low"] <= truth) & (truth <= table["shrunk_high"]))
        plain.append(((mean - truth) ** 2)[n < 50].mean())
        shrunk.append(((table["shrunk"] - truth) ** 2)[n < 50].mean())
    assert 0.93 <= np.mean(covered) <= 0.96
    assert np.mean(shrunk) < 0.85 * np.mean(plain)


def test_variance_of_class_means_counts_groups_not_samples():
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(4), 60)
    groups = np.arange(240) // 3
    found, means = [], []
    for _ in range(400):
        x = rng.normal(size=80)[groups] + 0.5 * rng.normal(size=240)  # a group is nearly one sample
        found.append(mean_variances(x[None], code, groups)[0])
        means.append(means_by_class(x, code, 4)[0])
    assert np.mean(found) == pytest.approx(np.var(means, axis=0).mean(), rel=0.08)
    with pytest.raises(ValueError, match="at least 2 groups"):
        mean_variances(np.zeros((1, 2)), np.array([0, 1]), np.array([0, 1]))


def test_a_small_class_without_events_is_not_taken_for_certain():
    code = np.repeat([0, 1, 2], [200, 200, 5])
    x = np.random.default_rng(0).poisson(1.0, 405).astype(float)
    x[400:] = 0
    variance = mean_variances(x[None], code, np.arange(405))[0]
    assert variance[2] > 0.05  # not 0: it borrows the others' spread
    assert variance[0] == pytest.approx(x[:200].var(ddof=1) / 200, rel=0.05)


def test_class_means_of_simulated_runs():
    made, traces = planted()
    values = score_matrix(traces, "events")
    groups = traces.samples["group"].to_numpy()
    rng = np.random.default_rng(0)
    table = class_means(values, traces.runs, traces.labels, groups, rng, 200)
    assert len(table) == 6 * 10
    row = table[(table["run"] == 1) & (table["label"] == 3)].iloc[0]
    assert row["estimate"] == pytest.approx(values[1, traces.labels == 3].mean(), abs=1e-12)
    assert (row["n"], row["groups"], row["seed"], row["arch"]) == (60, 30, 11, "cnn")
    assert (table["ci_low"] <= table["estimate"]).all()
    assert table["shrunk"].std() < table["estimate"].std()
    assert table.groupby("run")["place"].agg(["min", "max"]).eq([0, 1]).all().all()
    mean, archs = over_runs(values, traces.runs)
    assert mean[1] == pytest.approx(values[3:].mean(0), abs=1e-12)
    both = class_means(mean, archs, traces.labels, groups, rng, 50, classes=traces.classes)
    latent = [made.truth.latent[:, made.labels == k].mean() for k in range(10)]
    for arch in ("cnn", "vit"):
        of = both[both["arch"] == arch]
        assert stats.spearmanr(of["shrunk"], latent)[0] > 0.8
    assert both["class"].iloc[2] == "class_2"
    with pytest.raises(ValueError, match=r"values must be \(6 runs, 600 samples\) without NaN"):
        class_means(values[:2], traces.runs, traces.labels, groups, rng)


def test_consistency_finds_planted_classes_and_not_arbitrary_ones():
    _, traces = planted()
    values = score_matrix(traces, "events")
    groups = traces.samples["group"].to_numpy()
    rng = np.random.default_rng(1)
    table = class_consistency(values, traces.runs, traces.labels, groups, rng, 199)
    assert table["scope"].tolist() == ["all", "cnn", "vit"]
    whole = table.iloc[0]
    means = means_by_class(values, traces.labels, 10)
    assert whole["estimate"] == pytest.approx(kendall_w(means).estimate[0], abs=1e-12)
    assert whole["p"] == whole["p_placebo"] == 1 / 200
    assert whole["placebo"] < whole["placebo_high"] < whole["estimate"]
    assert whole["ci_low"] <= whole["estimate"] <= whole["ci_high"]
    assert (whole["n"], whole["raters"], whole["smallest"], whole["largest"]) == (10, 6, 60, 60)
    with pytest.raises(ValueError, match="at least 2 runs, got 1"):
        class_consistency(values[:1], traces.runs[:1], traces.labels, groups, rng, 9)


def test_placebo_keeps_sizes_and_groups():
    code, groups = np.repeat([0, 1, 2], [40, 12, 8]), np.arange(60) // 4
    rng = np.random.default_rng(0)
    torn = []
    for _ in range(50):
        dealt = deal(code, groups, rng)
        assert np.bincount(dealt).tolist() == [40, 12, 8]
        torn.append(sum(len(set(dealt[groups == g])) > 1 for g in range(15)))
    assert max(torn) == 0  # sizes are multiples of the groups' here


def test_runs_agree_on_any_sets_of_images_and_the_placebo_says_so():
    rng = np.random.default_rng(5)
    runs = pd.DataFrame({"arch": ["a"] * 3, "seed": range(3)})
    labels, groups, naive, placebo = np.repeat(np.arange(6), 10), np.arange(60) // 2, [], []
    for _ in range(40):  # images differ, classes do not
        x = rng.normal(size=30)[groups] + rng.normal(size=(3, 60))
        row = class_consistency(x, runs, labels, groups, rng, 29).iloc[0]
        naive.append(row["p"])
        placebo.append(row["p_placebo"])
    assert np.mean(np.array(naive) <= 0.05) > 0.3
    assert stats.kstest(placebo, "uniform").pvalue > 0.01


def test_pairs_of_runs_with_ceiling_and_misaligned_control():
    _, traces = planted()
    values = score_matrix(traces, "events")
    pairs = class_pairs(values, traces.runs, traces.labels, np.random.default_rng(0))
    assert pairs["kind"].value_counts().to_dict() == {
        "misaligned": 15,
        "cross_architecture": 9,
        "same_architecture": 6,
    }
    means = means_by_class(values, traces.labels, 10)
    assert pairs["spearman"].iloc[0] == pytest.approx(stats.spearmanr(*means[:2])[0], abs=1e-12)
    table = pair_means(pairs).set_index(["arch_a", "arch_b"])
    cross = table.loc[("cnn", "vit")]
    aligned = pairs[pairs["kind"] == "cross_architecture"]
    assert cross["estimate"] == pytest.approx(aligned["spearman"].mean(), abs=1e-12)
    within = [table.loc[(a, a), "estimate"] for a in ("cnn", "vit")]
    assert cross["ceiling"] == pytest.approx(np.sqrt(np.prod(within)), abs=1e-12)
    assert (cross["n"], cross["pairs"], cross["classes"]) == (3, 9, 10)
    assert cross["estimate"] > 0.6 > 0.4 > abs(table["misaligned"]).max()


def slow_confusions(predicted, labels, k):
    out = np.zeros((len(predicted), k, k), int)
    for r, e, i in np.ndindex(predicted.shape):
        learned = (predicted[r, :e, i] == labels[i]).any()
        if learned and predicted[r, e, i] not in (-1, labels[i]):
            out[r, labels[i], predicted[r, e, i]] += 1
    return out


def test_confusions_count_what_a_loop_counts():
    rng = np.random.default_rng(0)
    predicted, labels = rng.integers(-1, 4, (2, 9, 40)), rng.integers(0, 4, 40)
    counts = confusion_counts(predicted, labels, 4)
    assert counts.tolist() == slow_confusions(predicted, labels, 4).tolist()
    with pytest.raises(ValueError, match="must lie below 3, got 3"):
        confusion_counts(predicted, labels, 3)
    with pytest.raises(ValueError, match=r"\(run, epoch, 39 samples\)"):
        confusion_counts(predicted, labels[1:], 4)


def test_simulated_mistakes_all_name_the_next_class():
    _, traces = planted()
    counts = confusion_counts(traces.predicted(), traces.labels, 10).sum(0)
    table = top_confusions(counts, top=3)
    assert ((table["label"] + 1) % 10 == table["predicted"]).all()
    assert (table["share_of_class"] == 1).all()
    assert table["epochs"].is_monotonic_decreasing


def test_top_confusions_list_ties_and_neighbours():
    counts = np.array([[0, 5, 1], [3, 0, 3], [0, 1, 0]])
    distances = np.array([[0, 1, 2], [1, 0, 4], [2, 4, 0.0]])
    table = top_confusions(counts, distances, 2, ("a", "b", "c"))
    assert table[["class", "taken_for", "epochs"]].to_numpy().tolist() == [
        ["a", "b", 5],
        ["b", "a", 3],
        ["b", "c", 3],
    ]
    assert table["is_nearest"].tolist() == [True, True, False]
    assert table["neighbour"].tolist() == [1, 1, 2]
    assert table["reverse"].tolist() == [3, 5, 1]
    assert table["share"].tolist() == pytest.approx([5 / 13, 3 / 13, 3 / 13])
    assert top_confusions(np.zeros((3, 3), int), distances).empty


def test_examples_are_the_most_forgotten_and_say_their_ties():
    _, traces = planted()
    table = forgotten_examples(traces, "mean_error", 2)
    assert len(table) == 20
    assert (traces.labels[table["row"]] == table["label"]).all()
    rank = stats.rankdata(score_matrix(traces, "mean_error"), axis=1).mean(0) / 600
    events = (score_matrix(traces, "events") > 0).sum(0)
    for label in range(10):
        best = rank[(traces.labels == label) & (events > 0)].max()
        first = table[(table["label"] == label) & (table["place"] == 1)].iloc[0]
        assert first["mean_rank"] == pytest.approx(best, abs=1e-12)
        assert first["runs_forgotten"] == events[first["row"]]
