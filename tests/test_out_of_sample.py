"""Predictions of held-back samples against sklearn and known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated import simulated
from sklearn.linear_model import LogisticRegression, Ridge

from retention_lib import out_of_sample
from retention_lib.held_back import fit_ridge, group_folds, held_back
from retention_lib.link_tables import ALL
from retention_lib.out_of_sample import predict_amount, predict_forgotten

RUNS = pd.DataFrame({"arch": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})


@pytest.fixture(scope="module")
def traces():
    return simulated(n=120, epochs=6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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


def test_predictions_cover_both_questions(traces, rng):
    table = out_of_sample.prediction_table(traces, rng)
    keys = table[["measure", "of"]].drop_duplicates().to_numpy().tolist()
    assert [k[1] for k in keys] == ["ever learned", "right at epoch 0", "ever learned", "all"]
    own = table[table["predictor"] == "log loss"]
    whole = own[own["of"] == "all"]
    assert (whole["n"] == 3).all() and whole["estimate"].min() > 0.1
    assert own["n"].between(1, 3).all()  # a run in which too few are forgotten has no AUC
    assert own[own["measure"].str.startswith("AUC")]["estimate"].between(0, 1).all()
    assert set(table["arch"]) == set(traces.runs["arch"])
    assert ALL not in set(table["arch"])
