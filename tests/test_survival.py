"""Survival of learned samples against a slow twin, statsmodels, and simulations of known truth."""

import numpy as np
import pytest
from hazards import simulate, survival_times, traces_of
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.proportion import proportion_confint

from retention_lib.forgetting import first_forgetting, forgetting_events
from retention_lib.risk import risk_counts
from retention_lib.survival import (
    by_architecture,
    compare_architectures,
    hazard_table,
    kaplan_meier,
    restricted_mean,
)


def slow_counts(correct, scale, event, groups):
    """Readable twin of `risk_counts`: walk every trace, epoch by epoch."""
    runs, epochs, n = correct.shape
    names = sorted(set(groups))
    at_risk = {(g, t): 0 for g in names for t in range(1, epochs)}
    events = dict(at_risk)
    for run in range(runs):
        for i in range(n):
            trace, since, forgotten = correct[run, :, i], None, False
            for t in range(epochs - 1):
                if trace[t] and (t == 0 or not trace[t - 1]):
                    since = t
                if trace[t] and not (event == "first" and forgotten):
                    time = t + 1 - since if scale == "age" else t + 1
                    at_risk[groups[i], time] += 1
                    if not trace[t + 1]:
                        events[groups[i], time] += 1
                        forgotten = True
    return tuple(
        np.array([[table[g, t] for t in range(1, epochs)] for g in names])
        for table in (at_risk, events)
    )


@given(
    st.integers(1, 3),
    st.integers(2, 6),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["age", "epoch"]),
    st.sampled_from(["first", "recurrent"]),
)
@settings(max_examples=80, deadline=None)
def test_counts_agree_with_a_walk_along_every_trace(runs, epochs, n, seed, scale, event):
    rng = np.random.default_rng(seed)
    correct = rng.random((runs, epochs, n)) < rng.random()
    groups = rng.integers(0, 3, n)
    fast = risk_counts(correct, scale, event, groups)
    slow = slow_counts(correct, scale, event, groups)
    assert np.array_equal(fast.at_risk, slow[0]) and np.array_equal(fast.events, slow[1])
    assert (fast.events <= fast.at_risk).all()
    total = forgetting_events(correct)
    expected = total.sum() if event == "recurrent" else (total > 0).sum()
    assert fast.events.sum() == expected
    assert fast.at_risk.sum() == (correct[:, :-1].sum() if event == "recurrent" else slow[0].sum())


def test_a_worked_trace():
    correct = np.array([[0, 1, 1, 0, 1, 0, 0]]).T  # learned at 1, lost at 3, learned at 4, lost
    recurrent = hazard_table(correct, "age", "recurrent")
    assert recurrent["at_risk"].tolist() == [2, 1, 0, 0, 0, 0]
    assert recurrent["events"].tolist() == [1, 1, 0, 0, 0, 0]
    first = hazard_table(correct.astype(int), "epoch", "first")
    assert first["time"].tolist() == [1, 2, 3, 4, 5, 6]
    assert first["at_risk"].tolist() == [0, 1, 1, 0, 0, 0]
    assert first["hazard"].tolist()[1:3] == [0, 1] and first["hazard"].isna().sum() == 4


def test_constant_hazard_is_flat_and_survival_geometric():
    rng, h, epochs = np.random.default_rng(0), 0.1, 12
    correct = simulate(np.full(20_000, h), epochs, rng)
    for scale in ("age", "epoch"):
        table = hazard_table(correct, scale)
        inside = (table["ci_low"] <= h) & (h <= table["ci_high"])
        assert inside.mean() > 0.8
        assert table["hazard"][:8].to_numpy() == pytest.approx(np.full(8, h), abs=0.012)
    curve = kaplan_meier(correct)
    truth = (1 - h) ** curve["time"]
    assert curve["survival"].to_numpy() == pytest.approx(truth.to_numpy(), abs=0.012)
    assert ((curve["ci_low"] < truth) & (truth < curve["ci_high"]))[1:].all()
    row = restricted_mean(correct, horizon=epochs).iloc[0]
    assert row["ci_low"] < (1 - (1 - h) ** epochs) / h < row["ci_high"]
    assert row["se"] < 0.05 and row["horizon"] == epochs


@pytest.mark.parametrize("scale", ["age", "epoch"])
def test_kaplan_meier_agrees_with_statsmodels(scale):
    rng = np.random.default_rng(1)
    correct = simulate(rng.uniform(0.02, 0.3, 300), 10, rng)
    start, end, status = survival_times(correct)
    peer = (
        SurvfuncRight(end - start, status)
        if scale == "age"
        else SurvfuncRight(end, status, entry=start)
    )
    curve = kaplan_meier(correct, scale).set_index("time").loc[peer.surv_times]
    assert curve["survival"].to_numpy() == pytest.approx(peer.surv_prob, rel=1e-12)
    assert curve["se"].to_numpy() == pytest.approx(peer.surv_prob_se, rel=1e-12)
    assert curve["at_risk"].tolist() == peer.n_risk.tolist()
    assert curve["events"].tolist() == peer.n_events.tolist()
    at = curve.iloc[3]  # log(-log S) +- z se / |S log S|
    centre = np.log(-np.log(at["survival"]))
    half = 1.959963985 * at["se"] / abs(at["survival"] * np.log(at["survival"]))
    expected = [np.exp(-np.exp(centre + half)), np.exp(-np.exp(centre - half))]
    assert [at["ci_low"], at["ci_high"]] == pytest.approx(expected, rel=1e-8)


def test_survival_at_its_ends():
    gone = kaplan_meier(np.array([[1, 1], [0, 1], [1, 0], [1, 1]]))
    assert gone["survival"].tolist() == [1, 0.5, 0, 0]
    assert gone["ci_low"].isna().tolist() == [True, False, True, True]
    late = kaplan_meier(np.array([[0, 0], [0, 0], [1, 1], [1, 0]]), "epoch")
    assert late["survival"].tolist() == [1, 1, 1, 0.5]  # nobody had entered before epoch 2
    cut = kaplan_meier(np.array([[0, 0], [1, 1], [1, 1], [1, 0]]))
    assert cut["survival"].tolist()[:3] == [1, 1, 0.5] and np.isnan(cut["survival"][3])
    assert kaplan_meier(np.zeros((3, 4), bool))["survival"].isna().all()


def test_restricted_mean_of_uncensored_times_is_their_mean():
    rng = np.random.default_rng(2)
    correct = simulate(np.full(200, 0.2), 15, rng, learned=1 - 1e-12)
    times = np.minimum(np.nan_to_num(first_forgetting(correct), nan=15), 8)
    row = restricted_mean(correct, horizon=8).iloc[0]
    assert row["estimate"] == pytest.approx(times.mean(), rel=1e-12)
    assert row["se"] == pytest.approx(times.std() / np.sqrt(200), rel=1e-12)
    assert row["n"] == row["groups"] == 200
    assert restricted_mean(correct[:3], horizon=1)["estimate"][0] == 1
    assert np.isnan(restricted_mean(np.zeros((3, 20), bool), horizon=2)["estimate"][0])


def test_interval_of_one_run_is_wilson_and_copies_add_nothing():
    rng = np.random.default_rng(3)
    correct = simulate(np.full(150, 0.15), 8, rng)
    one = hazard_table(correct)
    low, high = proportion_confint(one["events"][:5], one["at_risk"][:5], method="wilson")
    assert one["ci_low"][:5].to_numpy() == pytest.approx(low, rel=1e-12)
    assert one["ci_high"][:5].to_numpy() == pytest.approx(high, rel=1e-12)
    copies = hazard_table(np.stack([correct] * 4))
    assert copies["at_risk"].tolist() == (4 * one["at_risk"]).tolist()
    assert copies["ci_high"][:4].to_numpy() == pytest.approx(one["ci_high"][:4], abs=0.003)
    same = kaplan_meier(np.stack([correct] * 4)), kaplan_meier(correct)
    assert same[0]["se"].to_numpy() == pytest.approx(same[1]["se"].to_numpy(), nan_ok=True)


def test_interval_covers_where_samples_recur():
    rng, covered, naive, runs = np.random.default_rng(4), [], [], 300
    spread = rng.beta(0.6, 2.4, 200_000)  # stationary: every step is at risk with P(right)
    truth = (spread * (1 - spread)).mean() / (1 - spread).mean()
    for _ in range(runs):
        wrong = np.repeat(rng.beta(0.6, 2.4, 80), 3)  # patients of three samples, in three runs
        correct = rng.random((3, 9, 240)) >= wrong
        row = hazard_table(correct, "epoch", "recurrent", np.arange(240) // 3).iloc[4]
        covered.append(row["ci_low"] <= truth <= row["ci_high"])
        low, high = proportion_confint(row["events"], row["at_risk"], method="wilson")
        naive.append(low <= truth <= high)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(naive) < 0.88


def test_tables_and_comparison_by_architecture():
    rng = np.random.default_rng(14)
    correct = np.stack([simulate(np.full(120, h), 8, rng) for h in (0.1, 0.1, 0.3, 0.3)])
    traces = traces_of(correct, group=np.arange(120) // 2)
    table = by_architecture(traces, scale="epoch", event="recurrent")
    assert list(table.columns[:2]) == ["arch", "seeds"] and len(table) == 16
    own = hazard_table(correct[2:], "epoch", "recurrent", np.arange(120) // 2)
    assert table["hazard"][8:].tolist() == own["hazard"].tolist()
    curves = by_architecture(traces, kaplan_meier)
    assert curves.groupby("arch", sort=False).size().to_dict() == {"resnet": 9, "deit": 9}
    means = by_architecture(traces, restricted_mean)
    assert means["horizon"].nunique() == 1 and means["estimate"][0] > means["estimate"][1] + 1
    row = compare_architectures(traces, rng, draws=199)
    assert row["quantity"].tolist() == ["deit - resnet"]
    assert row["estimate"][0] == pytest.approx(means["estimate"][1] - means["estimate"][0])
    assert row["ci_high"][0] < 0 and row["p"][0] == 0.01 and row["groups"][0] == 60
    mixed = traces_of(correct, seeds=[0, 1, 1, 0])  # order of runs is not order of seeds
    again = compare_architectures(mixed, rng, draws=9)
    assert again["estimate"][0] == pytest.approx(row["estimate"][0])


def test_bad_input_is_named():
    rng, ones = np.random.default_rng(0), np.ones((2, 4, 30), bool)
    half = rng.random((2, 4, 30)) < 0.5
    with pytest.raises(ValueError, match=r"at least 2 epochs, got shape \(1, 1, 3\)"):
        hazard_table(np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="boolean or 0/1 integers, got float64"):
        kaplan_meier(np.ones((3, 3)))
    with pytest.raises(ValueError, match="boolean or 0/1 integers"):
        kaplan_meier(np.full((3, 3), 2))
    with pytest.raises(ValueError, match=r"scale must be one of .* got 'time'"):
        hazard_table(ones, "time")
    with pytest.raises(ValueError, match=r"event must be one of .* got 'last'"):
        hazard_table(ones, event="last")
    with pytest.raises(ValueError, match=r"shape \(30,\), got \(2,\)"):
        hazard_table(ones, groups=[0, 1])
    with pytest.raises(ValueError, match=r"horizon must lie in 1..3 epochs, got 4"):
        restricted_mean(ones, horizon=4)
    with pytest.raises(ValueError, match=r"at least 10 groups at risk at age 1 .* got 5"):
        restricted_mean(ones[:, :, :5])
    with pytest.raises(ValueError, match=r"must share their seeds, got \[0\] and \[1\]"):
        compare_architectures(traces_of(half, seeds=[0, 1]), rng)
    with pytest.raises(ValueError, match=r"at least two architectures, got \['a'\]"):
        compare_architectures(traces_of(half, archs=("a",)), rng)
