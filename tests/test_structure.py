"""Notebook 02's measurements on traces whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from simulated import CNN, VIT, decaying, simulated, with_correct

from retention_lib import (
    anatomy,
    placebos,
    rivals,
    specification,
    structure,
    structure_headlines,
    structure_plots,
    style,
    survival,
)
from retention_lib.config import LITERAL, ORIGINS, SIGNALS
from retention_lib.decay import MODELS
from retention_lib.nulls import redraws


@pytest.fixture(scope="module")
def traces():
    return simulated(n=120, epochs=8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_mean_r2_of_steps_is_high_and_vanishes_when_time_is_shuffled(rng):
    rows = structure.mean_r2(decaying({CNN: 0.2, VIT: 0.2}), rng, draws=200)
    rows = rows.set_index("quantity")
    assert rows.index.tolist() == [CNN, VIT, f"{VIT} - {CNN}"]
    assert 0.6 < rows.loc[CNN, "estimate"] < 0.85  # steps after five epochs on average
    assert rows.loc[CNN, "chance"] < 0.1
    difference = rows.loc[f"{VIT} - {CNN}"]
    assert difference["ci_low"] < 0 < difference["ci_high"]
    assert difference["estimate"] == pytest.approx(
        rows.loc[VIT, "estimate"] - rows.loc[CNN, "estimate"]
    )
    assert difference["ceiling"] < 0.05 and difference["seeds"] == 2
    assert rows.loc[CNN, "n"] + rows.loc[VIT, "n"] == difference["n"]


def test_flat_traces_are_counted_not_scored(rng):
    correct = np.ones((4, 6, 10), bool)
    correct[:, 3:, 0] = False
    row = structure.mean_r2(with_correct(correct), rng, draws=20).iloc[0]
    assert row["flat"] == pytest.approx(0.9) and row["n"] == 2
    assert 0 < row["estimate"] < 1
    table = specification.specification_curve(with_correct(correct), rng, ("exponential",), 20)
    table = table[table["signal"].eq("raw") & table["origin"].eq("epoch_0")].set_index("counted")
    assert table["r2_a"]["flat left out"] == pytest.approx(row["estimate"])
    assert table["r2_a"]["flat as 1"] == pytest.approx(0.9 + 0.1 * row["estimate"])
    assert table["r2_a"]["flat as 0"] == pytest.approx(0.1 * row["estimate"])
    assert table["r2_a"]["forgotten only"] == pytest.approx(row["estimate"])
    assert (table["flat_a"] == 0.9).all()


def test_other_seed_r2_against_a_loop():
    rng = np.random.default_rng(3)
    correct = rng.random((4, 7, 12)) < 0.6
    arch = np.array([CNN, CNN, VIT, VIT])
    fast = structure.other_seed_r2(correct, arch)
    for run, other in enumerate((1, 0, 3, 2)):
        for i in range(12):
            y, x = correct[run, :, i].astype(float), correct[other, :, i].astype(float)
            if y.std() == 0:
                assert np.isnan(fast[run, i])
            elif x.std() == 0:
                assert fast[run, i] == 0
            else:
                slow = max(np.corrcoef(x, y)[0, 1], 0) ** 2
                assert fast[run, i] == pytest.approx(slow)
    assert np.isnan(structure.other_seed_r2(correct[:1], arch[:1])).all()


def test_retention_curves_start_at_one_once_learned(traces):
    table = structure.retention_curves(traces)
    start = table[(table["origin"] == "first_learned") & (table["t"] == 0)]
    assert start["retention"].tolist() == [1, 1]
    literal = table[table["origin"] == "epoch_0"]
    assert (literal["samples"] == 120).all() and len(literal) == 2 * 9
    assert (table["low"] <= table["retention"]).all()
    assert (table["retention"] <= table["high"]).all()


def test_r2_values_name_their_run(traces):
    frame = structure.r2_values(traces)
    assert len(frame) == 6 * 120
    assert frame.groupby("arch").size().tolist() == [360, 360]
    assert frame.loc[frame["status"].isin(["censored", "never_learned"]), "r2"].isna().all()


def test_specification_curve_against_one_reading_at_a_time(rng):
    found = simulated(n=60, epochs=6)
    table = specification.specification_curve(found, rng, ("exponential", "power"), draws=30)
    assert len(table) == len(ORIGINS) * len(SIGNALS) * 2 * len(specification.COUNTED)
    assert table["primary"].sum() == 1 and table["difference"].dropna().is_monotonic_increasing
    assert ((table["ci_low"] <= table["ci_high"]) | table["ci_low"].isna()).all()
    literal = structure.mean_r2(found, rng, draws=20).set_index("quantity")["estimate"]
    row = table[table["primary"]].iloc[0]
    assert (row["r2_a"], row["r2_b"]) == pytest.approx((literal[CNN], literal[VIT]))
    assert row["difference"] == pytest.approx(literal[f"{VIT} - {CNN}"])
    summary = specification.agreement_of_readings(table).iloc[0]
    assert summary["readings"] == len(table)
    assert summary["literal"] == pytest.approx(row["difference"])
    assert summary["b_higher"] == pytest.approx((table["ci_low"] > 0).mean())


def test_specification_interval_is_the_bootstrap_of_the_same_draws(rng):
    found = simulated(n=60, epochs=6)
    table = specification.specification_curve(found, np.random.default_rng(5), ("exponential",), 40)
    weight = specification.resampling_weights(found, np.random.default_rng(5), 40)
    assert (weight.sum(1) == 60).all()  # two samples a patient
    r2 = structure.fit(found.correct(), LITERAL).r2
    arch = found.runs["arch"].to_numpy()
    slow = []
    for counts in weight.astype(int):
        rows = np.repeat(np.arange(60), counts)
        mean = {a: np.mean([np.nanmean(x[rows]) for x in r2[arch == a]]) for a in (CNN, VIT)}
        slow.append(mean[VIT] - mean[CNN])
    row = table[table["primary"]].iloc[0]
    wanted = np.quantile(slow, [0.025, 0.975])
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], wanted, rtol=1e-4)


def test_redrawn_r2_is_the_mean_r2_of_each_redraw():
    correct = simulated(n=80, epochs=7).correct()[0]
    fast = placebos.redrawn_r2(correct, np.random.default_rng(4), 9)
    batches = redraws(correct, np.random.default_rng(4), 9)
    slow = [placebos.mean_r2(one) for batch in batches for one in batch]
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


def test_placebos_tell_decay_from_difficulty(rng):
    # Steps alone are nested (a staircase), and no other matrix has a staircase's margins.
    correct = decaying({CNN: 0.3, VIT: 0.1}, n=120, epochs=10).correct()
    correct[:, :, ::2] = rng.random(correct[:, :, ::2].shape) < 0.5
    decays = with_correct(correct)
    held_out = simulated(n=40, epochs=10, seeds=(0, 1))
    table = placebos.placebo_table(decays, {"sim": held_out}, rng, draws=99).set_index("quantity")
    assert (table.loc[[CNN, VIT], "p"] == 0.02).all()  # as small as 99 redraws allow
    assert (table.loc[[CNN, VIT], "r2"] > table.loc[[CNN, VIT], "curveball_high"]).all()
    inside = table["curveball"].between(table["curveball_low"], table["curveball_high"])
    assert inside.all() and (table["draws"] == 99).all()
    varying = (np.ptp(held_out.correct().astype(int), axis=1) > 0).sum(1)
    assert table["held_out_n"].tolist() == [varying[:2].sum(), varying[2:].sum(), varying.sum()]
    rasch = simulated(n=200, epochs=10, seeds=(0,), own=0.0)
    null = placebos.placebo_table(rasch, {"sim": rasch}, rng, draws=99)
    assert (null["p"] > 0.02).all() and (null["held_out"] == null["r2"]).all()
    with pytest.raises(ValueError, match="same runs in the same order"):
        placebos.placebo_table(decays, {"sim": simulated(n=40, seeds=(3, 4))}, rng, draws=9)


@pytest.mark.slow
def test_statuses_weights_and_records_add_up(traces, rng):
    statuses = structure.fit_statuses(traces)
    assert statuses["convention"].tolist() == ["literal", "retention"] * 2
    known = statuses.drop(columns=["arch", "convention", "traces", "rise", "persistence"])
    np.testing.assert_allclose(known.sum(axis=1), 1)
    assert (statuses["traces"] <= 360).all() and statuses["rise"].between(0, 1).all()
    weights = structure.model_weights(traces)
    assert weights.groupby("arch")["wins"].sum().tolist() == pytest.approx([1, 1])
    assert weights["model"].tolist() == list(MODELS) * 2
    tables = [
        structure.mean_r2(traces, rng, draws=20),
        placebos.placebo_table(traces, {"sim": traces}, rng, draws=19),
        rivals.cross_seed(traces, rng, predictors=structure.predictors(), draws=20),
        survival.compare_architectures(traces, rng, draws=19),
    ]
    means, controlled, skill, swapped = (t.assign(dataset="octdl") for t in tables)
    empty = means.iloc[:0]
    records = structure_headlines.structure_records(
        means, empty, {"octdl": "reduced", "cub": None}, controlled, skill, swapped
    )
    found = {r["quantity"]: r for r in records if r["dataset"] == "octdl"}
    ours = skill.set_index(["arch", "model"])["skill"]
    assert found["log_loss_skill_cnn"]["estimate"] == ours[CNN, "exponential"]
    assert found["log_loss_skill_vit"]["ceiling"] == ours[VIT, "rasch"]
    assert found["r2_curveball_difference"]["n"] == 19
    assert found["survival_difference"]["estimate"] == swapped["estimate"][0]
    assert [r["n"] for r in records if r["dataset"] == "cub"] == [0, 0, 0]


@pytest.mark.slow
def test_figure_column_draws_every_table(traces, rng):
    readings = specification.specification_curve(traces, rng, ("exponential", "weibull"), 20)
    tables = (
        structure.r2_values(traces),
        structure.retention_curves(traces),
        placebos.placebo_table(traces, {"sim": traces}, rng, draws=19),
        readings,
        rivals.cross_seed(traces, rng, predictors=structure.predictors(), draws=20),
        survival.by_architecture(traces, survival.kaplan_meier),
    )
    _, axes = style.new_figure(7, 1, height=12)
    structure_plots.column(axes[:, 0], *tables)
    drawn = axes[3, 0].collections
    assert sum(len(c.get_segments()) for c in drawn) == len(readings)
    choices = {(row["origin"], row["signal"]) for _, row in readings.iterrows()}
    assert choices == set(product(ORIGINS, SIGNALS))
    dots = sum(len(line.get_xdata()) for line in axes[4, 0].lines)
    assert dots == 4 * len(readings)  # one per choice
    assert len(axes[6, 0].lines) == 2


def _identical_files(traces, as_files: bool):
    """Every pair of patients shares a picture, said by its bytes or by one name for both."""
    samples = traces.samples.copy()
    patient = np.arange(len(samples)) // 2
    shared = np.where(np.arange(len(samples)) % 2, patient // 2, -1 - patient)
    if as_files:
        samples["content_hash"] = shared.astype(str)
    else:
        samples["group"] = [f"patient_{p // 2 * 2}" for p in patient]
    return replace(traces, samples=samples)


@pytest.mark.parametrize(
    "table",
    [
        lambda t, rng: structure.mean_r2(t, rng, draws=30),
        lambda t, rng: specification.specification_curve(t, rng, ("exponential",), 30),
        lambda t, rng: rivals.one_step(t, rng, draws=30),
        lambda t, rng: survival.by_architecture(t, survival.restricted_mean),
        lambda t, rng: survival.compare_architectures(t, rng, draws=30),
        lambda t, rng: anatomy.lapses(t),
    ],
    ids=["r2", "readings", "one_step", "restricted_mean", "label_swap", "lapses"],
)
def test_patients_who_share_a_picture_are_redrawn_as_one(table):
    traces = simulated(n=120, epochs=8)
    by_files, by_name, apart = (
        table(of, np.random.default_rng(0))
        for of in (_identical_files(traces, True), _identical_files(traces, False), traces)
    )
    pd.testing.assert_frame_equal(by_files, by_name)
    assert not by_files.equals(apart)  # the intervals know of it
