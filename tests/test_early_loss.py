"""Early loss and decay: partial correlation, transfer, out-of-sample skill, what findings imply."""

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import integrate, stats
from sklearn.linear_model import LogisticRegression, Ridge

from retention_lib.early_loss import (
    correlations,
    needed_rho,
    nominal_log10_p,
    partial_spearman,
)
from retention_lib.early_predictors import (
    CONSTANTS,
    decay_constants,
    early_loss,
    input_norm,
    predictors,
)
from retention_lib.findings import score_matrix
from retention_lib.held_back import fit_ridge, group_folds, held_back
from retention_lib.implied import (
    chain,
    class_share,
    implied_by_runs,
    implied_seed_correlation,
    pearson_of,
    spearman_of,
    spearman_of_overlap,
)
from retention_lib.out_of_sample import over_seeds, predict_amount, predict_forgotten
from retention_lib.simulated_study import as_traces, study
from retention_lib.ties import topk_jaccard
from retention_lib.transfer import transfer_means, transfer_pairs

RUNS = pd.DataFrame({"arch": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})


def planted(n=800, seeds=(10, 11, 12), seed=0, **kwargs):
    options = {"class_effect": 0.0, "early_loss": 0.5, "rate": 0.08} | kwargs
    rng = np.random.default_rng(seed)
    made = study(n, 21, ["cnn", "vit"], seeds, rng, group_size=2, **options)
    return made, as_traces(made)


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


def test_simulated_early_loss_is_recovered_and_survives_the_class():
    made, traces = planted(class_effect=0.25)
    loss = early_loss(traces)
    assert loss == pytest.approx(made.loss, rel=1e-3)  # half precision
    groups = traces.samples["group"].to_numpy()
    rng = np.random.default_rng(0)
    rows = correlations(loss, made.truth.latent, traces.runs, traces.labels, groups, rng, 100)
    plain = rows[rows["quantity"] == "spearman"]
    assert len(plain) == 6
    assert plain["estimate"].mean() == pytest.approx(made.truth.early_loss_spearman, abs=0.03)
    # given class: cov and both variances lose 0.25 (loss: its square of 0.5)
    r = 0.5 * 0.75 / np.sqrt(0.75 * (1 - 0.25 * 0.25))
    given = rows[rows["quantity"] == "given class"]
    assert given["estimate"].mean() == pytest.approx(6 / np.pi * np.arcsin(r / 2), abs=0.03)
    table = over_seeds(rows, ("arch", "quantity"))
    assert table[["arch", "quantity"]].to_numpy().tolist()[:2] == [
        ["cnn", "spearman"],
        ["cnn", "given class"],
    ]
    mean = plain.loc[plain["arch"] == "cnn", "estimate"]
    assert table["estimate"].iloc[0] == pytest.approx(mean.mean(), abs=1e-12)
    assert table["n"].tolist() == [3] * 4


@pytest.mark.parametrize("convention", CONSTANTS)
def test_decay_constants_follow_the_planted_ones(convention):
    made, traces = planted(200, (10,), seed=3, n_classes=3)
    found = decay_constants(traces, convention)
    assert found.shape == (2, 200)
    never = ~traces.correct().any(1)
    assert (np.isnan(found) == (never if convention != "literal" else False)).all()
    for a, b in zip(found, made.truth.latent, strict=True):
        assert stats.spearmanr(a, b, nan_policy="omit")[0] > 0.8
    with pytest.raises(ValueError, match="convention must be one of"):
        decay_constants(traces, "paper")


def test_predictors_and_input_norm():
    _, traces = planted(120, (10, 11))
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), np.uint8)
    found = predictors(traces, images)
    slow = [np.linalg.norm(image / 255.0) / np.sqrt(image.size) for image in images]
    assert found["input norm"] == pytest.approx(slow, abs=1e-12)
    assert input_norm(images, chunk=7) == pytest.approx(found["input norm"], abs=1e-15)
    sizes = [(traces.labels == k).sum() for k in traces.labels]
    assert found["class frequency"].tolist() == [-size for size in sizes]
    constants = decay_constants(traces)
    raw = score_matrix(traces, "decay_constant")
    assert constants == pytest.approx(raw, rel=2e-6)
    with pytest.raises(ValueError, match="119 images do not match 120 samples"):
        predictors(traces, images[1:])
    with pytest.raises(ValueError, match="images must be uint8"):
        input_norm(images.astype(float))


def test_transfer_follows_its_planted_attenuation():
    made, _ = planted(3000, (10, 11), reliability=0.6, shared=0.5)
    pairs = transfer_pairs(made.loss, made.truth.latent, made.runs, np.random.default_rng(0))
    assert len(pairs) == 16 + 12
    table = transfer_means(pairs).set_index(["kind", "arch_loss", "arch_decay"])
    for kind, second, r in (
        ("same_run", "cnn", 0.5),
        ("same_architecture", "cnn", 0.5 * 0.6),
        ("cross_architecture", "vit", 0.5 * 0.3),
        ("misaligned", "vit", 0.0),
    ):
        row = table.loc[(kind, "cnn", second)]
        assert row["estimate"] == pytest.approx(spearman_of(r), abs=0.03)
    same = table.loc[("same_architecture", "cnn", "cnn")]
    assert same["via_decay"] == pytest.approx(spearman_of(0.5 * 0.6), abs=0.03)  # true here
    assert same["via_loss"] == pytest.approx(spearman_of(0.25 * 0.6 * 0.5), abs=0.03)  # is not
    assert same["retained"] == pytest.approx(0.6, abs=0.06)
    assert same["disattenuated"] == pytest.approx(1, abs=0.1)  # both stable parts are the latent's
    assert np.isnan(table.loc[("same_run", "cnn", "cnn"), "disattenuated"])
    with pytest.raises(ValueError, match=r"must be \(3 runs, sample\)"):
        transfer_pairs(made.loss, made.truth.latent, made.runs[:3], np.random.default_rng(0))


def test_folds_keep_groups_whole_and_classes_spread():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 300)
    labels = groups % 4
    fold = group_folds(groups, labels, rng, 5)
    for g in np.unique(groups):
        assert len(set(fold[groups == g])) == 1
    units = pd.DataFrame({"g": groups, "l": labels, "f": fold}).drop_duplicates()
    table = pd.crosstab(units["l"], units["f"])
    assert (table.max(axis=1) - table.min(axis=1)).max() <= 1
    with pytest.raises(ValueError, match=r"folds must lie in 2\.\.3 groups, got 5"):
        group_folds([0, 1, 2], [0, 0, 0], rng, 5)


def test_regressions_agree_with_sklearn():
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=200), rng.integers(0, 6, 200)
    y = (rng.random(200) < 1 / (1 + np.exp(-x - code / 3 + 1))).astype(float)
    design = np.column_stack([x, np.eye(6)[code]])
    a, b, effect = fit_ridge(x, code, y, 6, logistic=True)
    twin = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(design, y)
    assert [a, b, *effect] == pytest.approx([twin.intercept_[0], *twin.coef_[0]], abs=1e-6)
    a, b, effect = fit_ridge(x, code, x + y, 6, logistic=False)
    twin = Ridge(alpha=1.0).fit(design, x + y)
    assert [a, b, *effect] == pytest.approx([twin.intercept_, *twin.coef_], abs=1e-9)
    a, b, effect = fit_ridge(x, np.full(200, -1), y, 6, logistic=True)
    twin = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000).fit(x[:, None], y)
    assert [a, b] == pytest.approx([twin.intercept_[0], twin.coef_[0, 0]], abs=1e-6)
    assert (effect == 0).all()
    separated = fit_ridge(np.sign(x), code, (x > 0).astype(float), 6, logistic=True)
    assert np.isfinite(separated[1]) and separated[1] > 1
    with pytest.raises(ValueError, match="both outcomes, got only 1"):
        fit_ridge(x, code, np.ones(200), 6, logistic=True)


def test_predictions_never_see_their_own_fold():
    rng = np.random.default_rng(0)
    x, labels, fold = rng.normal(size=90), rng.integers(0, 3, 90), np.arange(90) % 3
    y = (rng.random(90) < 0.5).astype(float)
    changed = np.where(fold == 1, 1 - y, y)
    before, after = (held_back(x, labels, v, fold, True) for v in (y, changed))
    for name in before:
        assert after[name][fold == 1] == pytest.approx(before[name][fold == 1], abs=1e-12)
        assert not np.allclose(after[name][fold == 0], before[name][fold == 0])


def test_auc_and_r2_out_of_sample_recover_the_truth():
    rng = np.random.default_rng(0)
    n, labels = 4000, np.arange(4000) % 5
    x = rng.normal(size=(2, n))
    effect = np.array([-1.0, -0.5, 0, 0.5, 1.0])[labels]
    runs, groups = RUNS[:2], np.arange(n) // 2
    logit = 1.2 * x + effect
    forgotten = (rng.random((2, n)) < 1 / (1 + np.exp(-logit))).astype(float)
    forgotten[:, :4] = np.nan
    table = predict_forgotten(np.exp(x), forgotten, runs, labels, groups, rng, draws=60)
    assert table["predictor"].tolist()[:4] == [
        "log loss",
        "class",
        "log loss and class",
        "gain over class",
    ]
    one = table[table["seed"] == 0].set_index("predictor")
    use = ~np.isnan(forgotten[0])
    for name, score in (("log loss", x[0]), ("class", effect), ("log loss and class", logit[0])):
        u = stats.mannwhitneyu(
            score[use][forgotten[0, use] == 1], score[use][forgotten[0, use] == 0]
        )
        positive = (forgotten[0, use] == 1).sum()
        best = u.statistic / positive / (use.sum() - positive)
        assert one.loc[name, "estimate"] == pytest.approx(best, abs=0.02)
        assert one.loc[name, "log_loss_skill"] > 0.02
        assert one.loc[name, "n"] == n - 4
    gain = one.loc["log loss and class", "estimate"] - one.loc["class", "estimate"]
    assert one.loc["gain over class", "estimate"] == pytest.approx(gain, abs=1e-12)
    assert one.loc["gain over class", "ci_low"] > 0.05
    target = x + effect + rng.normal(size=(2, n))
    table = predict_amount(np.exp(x), target, runs, labels, groups, rng, draws=60)
    total = 1 + 0.5 + 1  # variances of loss, class and noise
    for name, share in (("log loss", 1), ("class", 0.5), ("log loss and class", 1.5)):
        found = table.loc[table["predictor"] == name]
        assert found["estimate"].mean() == pytest.approx(share / total, abs=0.03)
        assert (found["ci_low"] < found["estimate"]).all()
    noise = predict_amount(np.exp(x), rng.normal(size=(2, n)), runs, labels, groups, rng, draws=9)
    assert noise["estimate"].abs().max() < 0.01


def test_prediction_without_both_outcomes_is_nan_and_keeps_n():
    rng = np.random.default_rng(0)
    loss, labels = np.exp(rng.normal(size=(1, 40))), np.arange(40) % 2
    table = predict_forgotten(
        loss, np.zeros((1, 40)), RUNS[:1], labels, np.arange(40), rng, draws=5
    )
    assert table["estimate"].isna().all()
    with pytest.raises(ValueError, match="must be 0, 1 or NaN"):
        predict_forgotten(loss, loss, RUNS[:1], labels, np.arange(40), rng)


def test_normal_copula_and_overlap_are_consistent():
    assert spearman_of(pearson_of(0.37)) == pytest.approx(0.37, abs=1e-12)
    assert chain(0.5, 1.0) == pytest.approx(0.5, abs=1e-12)
    assert spearman_of_overlap(1.0) == 1.0
    assert spearman_of_overlap(0.0) == -1.0
    assert spearman_of_overlap(0.1 / 1.9) == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(0)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 200_000).T
    found = spearman_of_overlap(topk_jaccard(x, y, 0.1, exact=False))
    assert found == pytest.approx(spearman_of(0.7), abs=0.01)
    z = stats.norm.isf(0.1)
    normal = stats.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]])
    both = integrate.dblquad(lambda b, a: normal.pdf([a, b]), z, 8, z, 8, epsabs=1e-9)[0]
    assert spearman_of_overlap(both / (0.2 - both)) == pytest.approx(spearman_of(0.7), abs=1e-6)
    with pytest.raises(ValueError, match=r"jaccard must lie in 0\.\.1"):
        spearman_of_overlap(1.2)


def test_class_share_is_centred_without_classes_and_recovers_them():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 10)
    none = [class_share(rng.normal(size=400), labels) for _ in range(200)]
    assert abs(np.mean(none)) < 4 * np.std(none) / np.sqrt(200)
    effect = rng.normal(size=40)[labels]
    effect = (effect - effect.mean()) / effect.std() * np.sqrt(0.3)
    some = [class_share(effect + np.sqrt(0.7) * rng.normal(size=400), labels) for _ in range(50)]
    assert np.mean(some) == pytest.approx(0.29, abs=0.02)  # ranks lose a little
    assert np.isnan(class_share(np.ones(400), labels))


def test_what_the_papers_numbers_imply():
    table = implied_seed_correlation(
        rho_early=(0.30, 0.50), share_of_class=0.13, jaccard=(0.15, 0.34), measured=0.01
    )
    assert table["finding"].tolist() == [1, 4, 5]
    assert table["contradicts"].tolist() == [True] * 3
    early = table.iloc[2]
    assert early["implied_low"] == pytest.approx(0.094, abs=0.001)
    assert early["implied_high"] == pytest.approx(0.256, abs=0.001)
    unstable = implied_seed_correlation(rho_early=0.3, stability_of_early_loss=0.5).iloc[0]
    assert unstable["implied_low"] == pytest.approx(0.047, abs=0.002)
    assert unstable["contradicts"] is None
    with pytest.raises(ValueError, match=r"a number or \(low, high\), got \(1, 2, 3\)"):
        implied_seed_correlation(rho_early=(1, 2, 3))


def test_audit_meets_the_truth_where_its_assumption_holds():
    rng = np.random.default_rng(0)
    n = 4000
    labels = np.arange(n) % 10
    common = rng.normal(size=n)
    loss = np.exp(np.sqrt(0.9) * common + np.sqrt(0.1) * rng.normal(size=(4, n)))
    decay = 0.6 * np.log(loss) + 0.8 * rng.normal(size=(4, n))  # nothing but the loss is shared
    table = implied_by_runs(loss, decay, RUNS, labels)
    early = table[table["finding"] == 5]
    assert early["implied_low"].to_numpy() == pytest.approx(spearman_of(0.36 * 0.9), abs=0.03)
    assert early["implied_low"].to_numpy() == pytest.approx(early["measured_low"], abs=0.03)
    overlap = table[table["finding"] == 1]  # architectures are like seeds here
    assert overlap["implied_low"].to_numpy() == pytest.approx(overlap["measured_low"], abs=0.06)
    effect = np.linspace(-1.5, 1.5, 10)[labels]
    decay = effect + rng.normal(size=(4, n))  # nothing but the class is shared
    table = implied_by_runs(loss, decay, RUNS, labels)
    classes = table[table["finding"] == 4]
    assert classes["implied_low"].to_numpy() == pytest.approx(classes["measured_low"], abs=0.03)
    both = effect + 0.8 * np.log(loss) + rng.normal(size=(4, n))
    table = implied_by_runs(loss, both, RUNS, labels).set_index(["arch", "finding"])
    row = table.loc[("a", "4 and 5")]
    assert row["implied_low"] == pytest.approx(row["measured_low"], abs=0.04)
    assert table.loc[("a", 5), "implied_low"] < row["implied_low"]
    with pytest.raises(ValueError, match="needs 2 seeds, b has 1"):
        implied_by_runs(loss[:3], decay[:3], RUNS[:3], labels)
