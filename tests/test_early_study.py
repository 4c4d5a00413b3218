"""Notebook 05's measurements on studies whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr
from simulated import simulated, with_correct

from retention_lib import early_study, out_of_sample, transfer
from retention_lib.early_loss import Link, partial_spearman, redrawn_correlations
from retention_lib.early_predictors import PRIMARY, decay_constants, early_loss, readings
from retention_lib.simulated_study import as_traces, study
from retention_lib.transfer import ALL


@pytest.fixture(scope="module")
def traces():
    return simulated(n=120, epochs=6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def all_runs(table, what):
    return table[table["arch"] == ALL].set_index(what)


def test_resampled_correlations_are_those_of_the_repeated_rows(rng):
    x, y, z = rng.integers(0, 9, (3, 2, 40)).astype(float)
    y[0, :5] = np.nan
    labels = rng.integers(0, 3, 40)
    links = {"plain": Link("x", "y"), "class": Link("x", "y", None, True)}
    links |= {"both": Link("x", "y", "z", True)}
    vectors, pairs = {"x": x, "y": y, "z": z}, [(0, 0), (0, 1)]
    own = np.zeros(40, int)  # one group: every resample is the data
    found = redrawn_correlations(vectors, links, pairs, own, labels, rng, 3)
    for k, (a, b) in enumerate(pairs):
        use = ~np.isnan(y[b])
        of = [v[use] for v in (x[a], y[b], z[a], labels)]
        assert found["plain"][:, k] == pytest.approx(spearmanr(of[0], of[1])[0], abs=1e-12)
        given = partial_spearman(of[0], of[1], of[3])
        assert found["class"][:, k] == pytest.approx(given, abs=1e-12)
        given = partial_spearman(of[0], of[1], of[3], of[2])
        assert found["both"][:, k] == pytest.approx(given, abs=1e-12)


def test_permutations_keep_classes_and_groups_together(rng):
    groups = np.array([0, 0, 1, 1, 2, 3, 3, 4, 5])
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    seen = set()
    for at in early_study.shuffled_within(labels, groups, rng, 200):
        assert sorted(at) == list(range(9)) and (labels[at] == labels).all()
        assert groups[at[0]] == groups[at[1]] and groups[at[2]] == groups[at[3]]
        assert at[4] == 4 and set(at[5:7]) == {5, 6}  # no other group of their size and class
        seen.add(tuple(at))
    assert len(seen) == 2 * 2 * 2 * 2 * 2  # two pairs change places and turn; 5-6 turn; 7-8 swap
    free = list(early_study.shuffled_within(labels, np.arange(9), rng, 300))
    assert len({tuple(at) for at in free}) > 250


def test_headline_p_is_uniform_without_and_small_with_a_link_within_classes(rng):
    p = []
    for _ in range(16):
        made = study(60, 8, ["cnn", "vit"], [1, 2], rng, early_loss=0.0, group_size=2)
        p.append(all_runs(early_study.headline(as_traces(made), rng, 2, 39), "quantity")["p"][0:1])
    p = np.concatenate(p)
    assert 0.3 < p.mean() < 0.7 and (p <= 0.1).mean() < 0.3
    made = study(200, 12, ["cnn", "vit"], [1, 2], rng, early_loss=0.5)
    row = all_runs(early_study.headline(as_traces(made), rng, 50, 199), "quantity").iloc[0]
    assert row["p"] == pytest.approx(0.01) and row["null_high"] < row["ci_low"]
    assert abs(row["misaligned"]) < 0.15


def test_headline_is_the_mean_of_the_runs(traces, rng):
    table = early_study.headline(traces, rng, 20, 19)
    loss, constants = early_loss(traces), decay_constants(traces)
    rho = [spearmanr(*pair)[0] for pair in zip(loss, constants, strict=True)]
    assert table["estimate"].tolist() == pytest.approx(
        [np.mean(rho[:3]), np.mean(rho[3:]), np.mean(rho)]
    )
    assert (table["ci_low"] < table["estimate"]).all() and (table["seeds"] == 3).all()
    needed = early_study.nominal(table.assign(dataset="sim"))
    assert needed["n"].tolist() == [1444, 1651, 5994, 120]
    assert needed["weakest"].iloc[-1] == table["weakest"].iloc[-1] > needed["strongest"].iloc[-1]


def test_epoch_0_cannot_move_a_least_squares_exponential(traces, rng):
    rows = all_runs(early_study.conditions(traces, rng, 20), "condition")
    whole, masked = rows.loc["as it is"], rows.loc["epoch 0 masked"]
    assert masked["estimate"] == pytest.approx(whole["estimate"], abs=1e-12)
    right = traces.correct()[:, 0]
    of = zip(early_loss(traces), decay_constants(traces), right, strict=True)
    rho = [spearmanr(loss[use], constant[use])[0] for loss, constant, use in of]
    assert rows.loc["right at epoch 0 only", "estimate"] == pytest.approx(np.mean(rho))
    assert rows.loc["right at epoch 0 only", "n"] == round(right.sum(1).mean())
    assert rows.loc["without planted label noise", "n"] == 114


def test_rivals_leave_out_what_is_constant(traces, rng):
    table = early_study.rivals(traces, {}, rng, 10)
    assert "file size" not in set(table["predictor"])
    assert "class frequency" not in set(table["predictor"])  # classes of one size
    own = table[(table["predictor"] == "early loss") & (table["arch"] == ALL)]
    assert own["quantity"].tolist() == ["spearman", "given class"]
    given = table[(table["quantity"] == "early loss given it") & (table["arch"] == ALL)]
    given = given.set_index("predictor")["estimate"]
    assert np.isnan(given["early margin"])  # here the loss is a function of the margin
    assert given.drop("early margin").notna().all()


def test_transfer_table_agrees_with_the_pairs(traces, rng):
    table = early_study.transferred(traces, rng, 10).set_index(["kind", "arch"])
    means = early_study.transfer_means(traces, rng).set_index(["kind", "arch_decay"])
    for kind in ("same_run", "same_architecture", "cross_architecture"):
        for arch in traces.runs["arch"].unique():
            expected = means.loc[(kind, arch), "estimate"]
            assert table.loc[(kind, arch), "estimate"] == pytest.approx(expected)
    assert abs(table.loc[("misaligned", ALL), "estimate"]) < 0.2
    one = traces.select(arch="phantom_deit", seed=0)
    assert set(early_study.transferred(one, rng, 5)["kind"]) == {"same_run", "misaligned"}


def test_placebos_of_margins_alone_are_not_exceeded(rng):
    order = rng.normal(size=150)  # a Rasch model: difficulty and epoch, nothing else
    logit = np.linspace(0, 2, 8)[:, None] - 1.5 * order
    correct = rng.random((4, 8, 150)) < 1 / (1 + np.exp(-logit))
    base = with_correct(correct)
    base.clean["loss"][:] = np.logaddexp(0, order).astype(np.float16)
    table = early_study.placebos(base, {"sim": base}, rng, 10, 60)
    assert (table["p"] > 0.03).all() and (table["spearman"] > 0.3).all()
    assert (table["curveball"] - table["spearman"]).abs().max() < 0.06
    assert table["held_out"].tolist() == pytest.approx(table["spearman"].tolist())
    with pytest.raises(ValueError, match="same runs in the same order"):
        early_study.placebos(base, {"sim": base.select(seed=0)}, rng, 10, 9)


def test_known_association_is_recovered(rng):
    base = simulated(n=800, epochs=20, seeds=(0, 1))
    rows = all_runs(early_study.known_association(base, rng, 30, 0.45), "constants")
    assert rows.loc["true", "estimate"] == pytest.approx(0.45, abs=0.05)
    assert rows.loc["misaligned", "estimate"] == pytest.approx(0, abs=0.06)
    assert 0.2 < rows.loc["literal", "estimate"] < rows.loc["true", "estimate"]
    assert rows["planted"].to_dict() == {"true": 0.45, "literal": 0.45, "retention": 0.45,
                                         "misaligned": 0.0}  # fmt: skip


def test_specification_marks_the_headline(rng):
    traces = simulated(n=60, epochs=5, seeds=(0,))
    table = early_study.specification(traces, rng, 10)
    primary = table[table["primary"]]
    head = early_study.headline(traces, rng, 5, 5)
    assert len(primary) == 1 and table["estimate"].is_monotonic_increasing
    assert primary["estimate"].iloc[0] == pytest.approx(head["estimate"].iloc[-1])
    found = readings(traces)
    assert found[PRIMARY] == pytest.approx(decay_constants(traces))
    assert len(table) <= 4 * 2 * len(found) and table["estimate"].notna().all()
    summary = early_study.agreement_of_conventions(table.assign(dataset="sim")).iloc[0]
    assert summary["primary"] == primary["estimate"].iloc[0]
    assert summary["above"] == (table["ci_low"] > 0).mean()
    empty = pd.DataFrame({"dataset": []})
    assert early_study.agreement_of_conventions(empty).empty


def test_deciles_are_mean_ranks(traces):
    table = early_study.by_decile(traces, parts=4)
    assert len(table) == 8 and table["n"].sum() == pytest.approx(2 * 120)
    mean = table.groupby("arch")[["decay", "n"]].apply(lambda t: (t["decay"] * t["n"]).sum() / 120)
    assert mean.tolist() == pytest.approx([50, 50])
    rank = rankdata(decay_constants(traces)[0])
    assert rank.mean() == pytest.approx(60.5)


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
    assert transfer.ALL not in set(table["arch"])
