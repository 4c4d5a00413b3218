"""Notebook 03's reliability, noise ceiling and controls on studies whose reliability is planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import CNN, VIT, simulated, with_correct

from retention_lib import stability_noise, stability_reliability
from retention_lib.noise_ceiling import noise_ceiling
from retention_lib.stability import BOTH, seed_agreement
from retention_lib.stability_reliability import SEEDS


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def traces():
    return simulated(n=200, epochs=8)


def coins(n=1500, epochs=12, runs=4, seed=1):
    """Traces whose samples have a rate of being wrong of their own, the same in every run."""
    generator = np.random.default_rng(seed)
    rate = generator.beta(0.8, 6, n)
    return with_correct(generator.random((runs, epochs + 1, n)) >= rate)


def test_reliability_rows_name_what_they_are_and_seeds_follow_from_icc(traces, rng):
    rows = stability_reliability.reliability_rows(traces, rng, ["mean_error"], draws=40)
    assert rows["arch"].unique().tolist() == [CNN, VIT] and len(rows) == 2 * 6
    named = rows.set_index(["arch", "quantity", "scale"])
    one = named.loc[(VIT, "ICC(1)", "midranks"), "estimate"]
    needed = named.loc[(VIT, SEEDS, "midranks")]
    assert needed["estimate"] == pytest.approx(4 * (1 - one) / one)
    assert needed["ci_low"] < needed["estimate"] < needed["ci_high"]
    assert named.loc[(VIT, "split half", "midranks"), "estimate"] == pytest.approx(
        named.loc[(VIT, "ICC(k)", "midranks"), "estimate"], abs=0.03
    )
    assert abs(named.loc[(CNN, "ICC(1)", "score"), "control"]) < 0.2
    curves = stability_reliability.brown_curves(rows.assign(dataset="x"), "mean_error", [1, 3])
    assert curves.loc[curves["arch"] == VIT, "reliability"].tolist() == pytest.approx(
        [one, 3 * one / (1 + 2 * one)]
    )
    nothing = pd.DataFrame({"dataset": []})
    assert stability_reliability.brown_curves(nothing, "mean_error").empty


def test_noise_is_not_estimable(rng):
    correct = rng.random((6, 9, 150)) < 0.6
    rows = stability_reliability.reliability_rows(with_correct(correct), rng, ["mean_error"], 60)
    needed = rows[rows["quantity"] == SEEDS]
    assert needed["estimate"].isna().any()
    assert needed["method"][needed["estimate"].isna()].str.startswith("not estimable").all()


def test_disattenuation_needs_two_architectures(traces, rng):
    rows = stability_reliability.disattenuation(traces, rng, ["mean_error", "events"], 40)
    assert rows["score"].tolist() == ["mean_error", "events"]
    row = rows.iloc[0]
    assert row["estimate"] == pytest.approx(row["cross"] / np.sqrt(row["same_a"] * row["same_b"]))
    assert row["estimate"] > row["cross"]
    alone = traces.select(arch=CNN)
    assert stability_reliability.disattenuation(alone, rng, ["events"], 10).empty


def test_variance_shares_sum_to_one_and_name_the_negative(traces, rng):
    rows = stability_reliability.variance_rows(traces, rng, ["mean_error", "events"], 30)
    wide = stability_reliability.shares(rows.assign(dataset="x"))
    assert wide.index.tolist() == [("x", "mean_error"), ("x", "events")]
    assert wide.drop(columns="negative").sum(axis=1).to_numpy() == pytest.approx(1)
    for (_, score), row in wide.iterrows():
        below = rows[(rows["score"] == score) & (rows["estimate"] < 0)]["component"]
        assert row["negative"] == ", ".join(below)
        assert "architecture" in row["negative"]  # all runs use the same ranks
    assert stability_reliability.shares(pd.DataFrame({"dataset": []})).empty


def test_events_reach_their_ceiling_where_rates_are_all_that_runs_share(rng):
    traces = coins()
    counts = stability_noise.event_counts(traces, rng, draws=20)
    assert counts["fit"].tolist() == ["within_runs", "across_runs"] * 2
    found = stability_noise.ceilings(traces, rng, counts, pairs=30)
    assert found["arch"].tolist() == [CNN, VIT, BOTH] * 2
    measured = seed_agreement(traces, rng, ["events"], ["spearman"], draws=9).set_index("arch")
    events = found[found["score"] == "events"].set_index("arch")
    for arch in (CNN, VIT):
        assert events.loc[arch, "ceiling"] == pytest.approx(measured.loc[arch, "estimate"], abs=0.1)
        assert events.loc[arch, "events"] == counts["events"][counts["arch"] == arch].iloc[0]
    assert events.loc[BOTH, "ceiling"] == pytest.approx(events["ceiling"].iloc[:2].mean())
    twice = pd.concat([counts.assign(dataset="sim"), counts.assign(dataset="other", alpha=np.nan)])
    assert stability_noise.ceilings(traces, rng, twice, pairs=3)["ceiling"].notna().all()


def test_no_event_has_no_ceiling(rng):
    traces = with_correct(np.ones((4, 5, 40), bool))
    counts = stability_noise.event_counts(traces, rng, draws=5)
    assert counts["estimate"].isna().all() and (counts["events"] == 0).all()
    assert stability_noise.ceilings(traces, rng, counts, 5)["ceiling"].isna().all()


def test_fixed_scores_stand_for_samples_without_opportunities(rng):
    m = np.full((2, 400), 8)
    fixed = np.full(m.shape, np.nan)
    fixed[:, :100] = 99.0
    plain, held = (
        noise_ceiling(0.5, 5, m, rng, draws=20, fixed=f).set_index("quantity")["estimate"]
        for f in (None, fixed)
    )
    assert held["spearman"] > plain["spearman"] + 0.1 and held["pearson"] > 0.99
    with pytest.raises(ValueError, match=r"like opportunities, \(2, 400\), got \(1, 400\)"):
        noise_ceiling(0.5, 5, m, rng, draws=2, fixed=fixed[0])


def test_more_events_agree_more_and_few_agree_little_though_nothing_changes(traces, rng):
    curve = stability_noise.events_curve(traces, rng, (0.1, 1.0, 10.0), (1e-3, 0.05), 800, 40)
    counts = curve[curve["rate"].isna()]
    for _, of in counts.groupby("simulator"):
        assert of["spearman"].is_monotonic_increasing
        assert ((of["low"] <= of["spearman"]) & (of["spearman"] <= of["high"])).all()
    exponential = counts.dropna(subset=["quoted"])
    assert exponential["quoted"].tolist() == [0.11, 0.44, 0.88]
    # Exponential rates and Poisson noise: 0.097, 0.432, 0.879 over 20,000 samples.
    assert exponential["spearman"].tolist() == pytest.approx([0.097, 0.432, 0.879], abs=0.03)
    assert curve["rate"].dropna().tolist() == [1e-3, 0.05]


def test_a_known_reliability_is_found(traces, rng):
    large = simulated(n=1200, epochs=8)
    rows = stability_noise.known_reliability(large, rng, (0.0, 0.6), draws=60)
    latent = rows[rows["measured_on"] == "latent"]
    assert latent["estimate"].tolist() == pytest.approx([0, 0.5819], abs=0.04)
    assert latent["planted"].tolist() == pytest.approx([0, 6 / np.pi * np.arcsin(0.3)])
    assert latent["icc1"].tolist() == pytest.approx([0, 0.6], abs=0.05)
    fitted, events = (
        rows[(rows["measured_on"] == on) & (rows["reliability"] == 0.6)].iloc[0]
        for on in ("decay_constant", "events")
    )
    assert events["estimate"] < fitted["estimate"] < latent["estimate"].iloc[1]
    assert np.isnan(fitted["planted"]) and (rows["n"] == 1200).all()
