"""The hazard model against statsmodels, refits to resampled samples, and planted hazards."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hazards import simulate

from retention_lib.hazard_model import hazard_model
from retention_lib.intervals import resamples
from retention_lib.risk import risk_counts


def glm(correct, arch, event, link, clocks=("age", "epoch")):
    """The hazard model by statsmodels, one row per step at risk (no pooling of levels)."""
    rows = []
    for run, name in zip(correct, arch, strict=True):
        for i in range(run.shape[1]):
            since, forgotten = None, False
            for t in range(len(run) - 1):
                if run[t, i] and (t == 0 or not run[t - 1, i]):
                    since = t
                if run[t, i] and not (event == "first" and forgotten):
                    rows.append((t + 1 - since, t + 1, name, not run[t + 1, i]))
                    forgotten |= not run[t + 1, i]
    frame = pd.DataFrame(rows, columns=["age", "epoch", "arch", "lost"])
    columns = [*clocks, "arch"]
    design = pd.get_dummies(frame[columns], columns=columns).astype(float)
    reference = [f"epoch_{len(correct[0]) - 1}", f"arch_{arch[0]}"]
    design = design.drop(columns=reference, errors="ignore")
    links = {"cloglog": sm.families.links.CLogLog(), "logit": sm.families.links.Logit()}
    family = sm.families.Binomial(link=links[link])
    return sm.GLM(frame["lost"].astype(float), design, family=family).fit(tol=1e-12)


@pytest.mark.parametrize("link", ["cloglog", "logit"])
@pytest.mark.parametrize("event", ["first", "recurrent"])
def test_hazard_model_agrees_with_statsmodels(event, link):
    rng = np.random.default_rng(5)
    correct = np.concatenate([rng.random((2, 5, 250)) < 0.7, rng.random((2, 5, 250)) < 0.6])
    arch = ["b", "b", "a", "a"]
    table = hazard_model(correct, arch, np.arange(250), np.zeros(250), rng, event, link, draws=0)
    peer = glm(correct, arch, event, link)
    assert (table["term"] + "_" + table["level"]).tolist() == peer.params.index.tolist()
    assert table["estimate"].to_numpy() == pytest.approx(peer.params.to_numpy(), abs=1e-6)
    # Observed against expected information: the same for the canonical link only.
    rel = 1e-6 if link == "logit" else 0.05
    assert table["model_se"].to_numpy() == pytest.approx(peer.bse.to_numpy(), rel=rel)
    assert table["ci_low"].isna().all()
    assert table.query("term == 'arch'")["reference"].item() == "b"


def test_hazard_model_finds_a_planted_ratio_of_decay_constants():
    rng, n, epochs, covered = np.random.default_rng(6), 1500, 8, []
    rates = {"a": 0.06, "b": 0.12}  # R(t) = exp(-rate t), times an epoch effect falling by half
    correct, arch = [], []
    for name, rate in rates.items():
        for _ in range(2):
            run = np.zeros((epochs + 1, n), bool)
            run[0] = rng.random(n) < 0.6
            for t in range(epochs):
                lost = rng.random(n) < -np.expm1(-rate * 2 ** (-t / epochs))
                run[t + 1] = np.where(run[t], ~lost, rng.random(n) < 0.4)
            correct.append(run)
            arch.append(name)
    args = (np.stack(correct), arch, np.arange(n), np.arange(n) % 4, rng)
    table = hazard_model(*args, event="recurrent", draws=100).set_index(["term", "level"])
    row = table.loc[("arch", "b")]
    assert row["ci_low"] < np.log(2) < row["ci_high"] and row["ci_high"] - row["ci_low"] < 0.3
    assert row["se"] == pytest.approx(row["model_se"], rel=0.3)  # here steps are independent
    ages = table.loc["age"]
    base = np.log(0.06) - np.log(2) * (epochs - 1) / epochs  # in the last epoch
    covered = (ages["ci_low"] < base) & (base < ages["ci_high"])
    assert covered.mean() >= 0.75 and row["failed"] == 0


def test_resamples_of_the_model_are_fits_to_resampled_samples():
    rng = np.random.default_rng(7)
    correct = np.concatenate([rng.random((1, 5, 400)) < 0.7, rng.random((1, 5, 400)) < 0.6])
    groups, strata, arch = np.repeat(np.arange(200), 2), np.arange(400) // 2 % 2, ["a", "b"]
    table = hazard_model(
        correct, arch, groups, strata, np.random.default_rng(1), "recurrent", draws=9, level=0.8
    )
    fits = [
        hazard_model(
            correct[:, :, rows], arch, np.arange(len(rows)), strata[rows], rng, "recurrent", draws=0
        )["estimate"]
        for rows in resamples(groups, strata, np.random.default_rng(1), 9)
    ]
    low, high = np.percentile(fits, [10, 90], axis=0)
    assert table["ci_low"].to_numpy() == pytest.approx(low, abs=1e-6)
    assert table["ci_high"].to_numpy() == pytest.approx(high, abs=1e-6)


def test_binomial_errors_of_an_architecture_are_wrong_in_either_direction():
    rng, n = np.random.default_rng(8), 400
    shared = rng.choice([0.02, 0.4], n)
    own = [rng.choice([0.02, 0.4], n) for _ in range(2)]
    for hazards, low, high in (((shared, shared), 0.5, 0.9), (own, 1.2, 2.5)):
        correct = np.stack([simulate(h, 6, rng, 0.9) for h in hazards for _ in range(4)])
        table = hazard_model(correct, list("aaaabbbb"), np.arange(n), np.zeros(n), rng, draws=200)
        at = table.query("term == 'arch'").iloc[0]
        assert low < at["se"] / at["model_se"] < high
        assert at["ci_low"] < 0 < at["ci_high"]


def test_sparse_ages_are_pooled():
    rng = np.random.default_rng(9)
    wrong = rng.beta(0.5, 2, 60)
    correct = rng.random((4, 13, 60)) >= wrong
    args = (correct, list("aabb"), np.arange(60), np.zeros(60), rng, "recurrent")
    table = hazard_model(*args, draws=50).set_index("term")
    assert np.isfinite(table["estimate"]).all() and (table["events"] >= 10).all()
    pooled = [x for x in table.loc["age", "level"] if "-" in x]
    assert pooled and pooled[-1].endswith("-12")
    total = risk_counts(correct, "age", "recurrent").events.sum()
    assert table.loc["age", "events"].sum() == total  # every event has an age level
    assert (table["failed"] <= 5).all()


def test_clocks_that_cannot_be_told_apart_leave_the_architecture():
    rng = np.random.default_rng(10)
    early = np.stack([simulate(np.full(300, h), 4, rng, 1 - 1e-12) for h in (0.2, 0.3)])
    late = np.ones((2, 5, 20), bool)
    late[:, 0] = False  # learned at epoch 1 and never forgotten: a hazard of 0 off the diagonal
    correct = np.concatenate([early, late], axis=2)
    args = (correct, ["a", "b"], np.arange(320), np.zeros(320), rng)
    table = hazard_model(*args, draws=50).set_index("term")
    assert table.loc["age", "estimate"].isna().any()  # infinite, and not hidden
    # What the likelihood tends to: age is epoch, and the late ones say nothing.
    peer = glm(early, ["a", "b"], "first", "cloglog", clocks=("age",))
    at = table.loc["arch"]
    assert at["estimate"] == pytest.approx(peer.params["arch_b"], abs=1e-5)
    assert at["ci_low"] < peer.params["arch_b"] < at["ci_high"] and at["failed"] == 0


def test_clocks_nearly_the_same_still_fit():
    rng = np.random.default_rng(11)  # easy samples, nearly all right at epoch 0
    wrong = rng.beta(0.5, 4, 4000)
    correct = rng.random((4, 11, 4000)) >= wrong
    args = (correct, list("aabb"), np.arange(4000), np.zeros(4000), rng)
    table = hazard_model(*args, draws=20)
    assert np.isfinite(table["estimate"]).all()
    at = table.query("term == 'arch'").iloc[0]
    assert at["ci_low"] < 0 < at["ci_high"] and at["failed"] == 0


def test_bad_input_is_named():
    rng, ones = np.random.default_rng(0), np.ones((2, 4, 30), bool)
    half, ids, zero = rng.random((2, 4, 30)) < 0.5, np.arange(30), np.zeros(30)
    with pytest.raises(ValueError, match=r"b: a hazard model needs .* got 0 events in 90 steps"):
        hazard_model(np.stack([half[0], ones[0]]), ["a", "b"], ids, zero, rng)
    with pytest.raises(ValueError, match=r"one per run, shape \(2,\), got \(1,\)"):
        hazard_model(half, ["a"], ids, zero, rng)
