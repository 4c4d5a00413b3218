"""Survival of learned samples against a slow twin, statsmodels, and simulations of known truth."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight, survdiff
from statsmodels.stats.proportion import proportion_confint

from retention_lib.forgetting import first_forgetting, forgetting_events, learned_epoch
from retention_lib.intervals import permutation_p, resamples
from retention_lib.style import new_figure
from retention_lib.survival import (
    _compare,
    _swapped,
    by_architecture,
    compare_architectures,
    hazard_model,
    hazard_table,
    kaplan_meier,
    label_swap,
    restricted_mean,
    risk_counts,
)
from retention_lib.survival_plots import hazard_curve, survival_curve
from retention_lib.traces import Traces


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


def simulate(hazard, epochs, rng, learned=0.4):
    """Samples (sample,) of constant hazard, learned at random epochs, anything after the event."""
    hazard = np.asarray(hazard, float)
    correct = rng.random((epochs + 1, len(hazard))) < 0.5
    start = np.minimum(rng.geometric(learned, len(hazard)) - 1, epochs)
    kept = rng.geometric(hazard, len(hazard))  # epochs from learning to the first event
    t = np.arange(epochs + 1)[:, None]
    correct[t < start] = False
    correct[(t >= start) & (t < start + kept)] = True
    correct[(t == start + kept)] = False
    return correct


def traces_of(correct, archs=("resnet", "deit"), seeds=None, group=None) -> Traces:
    """Traces with the given correctness (run, epoch, sample), architecture after architecture."""
    runs, epochs, n = correct.shape
    per_arch = runs // len(archs)
    seeds = seeds or [*range(per_arch)] * len(archs)
    table = pd.DataFrame({"arch": np.repeat(archs, per_arch), "seed": seeds})
    label = np.arange(n) % 3
    samples = pd.DataFrame({"label": label, "group": np.arange(n) if group is None else group})
    view = {"predicted": np.where(correct, label, label + 1).astype(np.int32)}
    return Traces(samples, table, np.arange(epochs), view, view)


def survival_times(correct):
    """Entry, duration and status of every sample that was watched for at least one step."""
    start, event = learned_epoch(correct), first_forgetting(correct)
    end = np.where(np.isnan(event), len(correct) - 1, event)
    seen = end > start  # False for never-learned samples and those learned last
    return start[seen], end[seen], (~np.isnan(event))[seen].astype(int)


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


def test_curves_are_drawn_with_every_time():
    rng = np.random.default_rng(15)
    traces = traces_of(np.stack([simulate(np.full(60, 0.2), 6, rng) for _ in range(4)]))
    _, axes = new_figure(1, 2)
    ax = hazard_curve(axes[0, 0], by_architecture(traces))
    assert [len(line.get_xdata()) for line in ax.lines] == [6, 6] and ax.get_ylim()[0] == 0
    assert "first" in ax.get_ylabel() and "since learned" in ax.get_xlabel()
    ax = survival_curve(axes[0, 1], by_architecture(traces, kaplan_meier, scale="epoch"))
    assert [line.get_ydata()[0] for line in ax.lines] == [1, 1]
    both = pd.concat([by_architecture(traces), by_architecture(traces, scale="epoch")])
    with pytest.raises(ValueError, match=r"one scale, got \['age', 'epoch'\]"):
        hazard_curve(ax, both)


def test_bad_input_is_named():
    rng, ones = np.random.default_rng(0), np.ones((2, 4, 30), bool)
    half, ids, zero = rng.random((2, 4, 30)) < 0.5, np.arange(30), np.zeros(30)
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
    with pytest.raises(ValueError, match=r"same shape, got \(2, 4, 30\) and \(1, 4, 30\)"):
        label_swap(half, half[:1], ids, zero, rng)
    with pytest.raises(ValueError, match=r"'rmst' needs scale 'age' .* got 'epoch'"):
        label_swap(half, half, ids, zero, rng, scale="epoch")
    with pytest.raises(ValueError, match=r"statistic must be one of .* got 'cox'"):
        label_swap(half, half, ids, zero, rng, "cox")
    with pytest.raises(ValueError, match=r"b: a hazard model needs .* got 0 events in 90 steps"):
        hazard_model(np.stack([half[0], ones[0]]), ["a", "b"], ids, zero, rng)
    with pytest.raises(ValueError, match=r"one per run, shape \(2,\), got \(1,\)"):
        hazard_model(half, ["a"], ids, zero, rng)
    with pytest.raises(ValueError, match=r"must share their seeds, got \[0\] and \[1\]"):
        compare_architectures(traces_of(half, seeds=[0, 1]), rng)
    with pytest.raises(ValueError, match=r"at least two architectures, got \['a'\]"):
        compare_architectures(traces_of(half, archs=("a",)), rng)
