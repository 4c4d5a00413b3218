"""Records of notebook 01, and its controls: ties, what a Jaccard index says, redraws in time."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from simulated import CNN, VIT, simulated, with_correct

from retention_lib import controls, findings, findings_overlap, one_sided, overlap_headlines
from retention_lib.config import HEADLINE_TESTS, PRIMARY_SCORE
from retention_lib.missing_agreement import agreement_of_conventions
from retention_lib.nulls import shuffle_epochs


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def tables():
    """Every table of the notebook, from one simulated data set, training and held out alike."""
    rng, traces = np.random.default_rng(0), simulated(120, seeds=(0, 1, 2))
    spec = findings_overlap.overlap_specification(traces, rng, 5, (0.1,))
    known = controls.known_overlap(traces, rng, planted=0.34)
    found = {
        "overlap": findings.architecture_overlap(traces, rng, draws=40),
        "tied": known,
        "untied": known,
        "missing": findings_overlap.missing_share(traces, rng, draws=40),
        "outside": findings_overlap.missing_share(traces, rng, draws=40),
        "redrawn": controls.redrawn_overlap(traces, rng, draws=19),
        "ranks": findings_overlap.rank_correlations(traces, rng, draws=20),
        "one_sided": one_sided.only_one_forgets(traces, rng, draws=40),
        "conventions": agreement_of_conventions(spec),
    }
    return {name: table.assign(dataset="phantom_oct") for name, table in found.items()}


def records_of(tables, scales):
    found = overlap_headlines.overlap_records(**tables, scales=scales, score=PRIMARY_SCORE)
    keys = [(record["dataset"], record["quantity"]) for record in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


def test_records_carry_the_tables_numbers(tables):
    found = records_of(tables, {"phantom_oct": "phantom"})
    of = {quantity: record for (_, quantity), record in found.items()}
    missing = tables["missing"].iloc[0]
    for key in ("estimate", "ci_low", "ci_high", "n", "method"):
        assert of["missing_share"][key] == pytest.approx(missing[key])
    levels = of["missing_share"]["chance"], of["missing_share"]["ceiling"]
    assert levels == (1.0, missing["same_difficulty"])
    assert of["missing_share_over_seeds"]["n"] == 3
    assert of["missing_share_over_seeds"]["ci_low"] == missing["seed_low"]
    assert of["jaccard_held_out"]["estimate"] == tables["outside"]["cross"][0]
    redrawn = tables["redrawn"].iloc[0]
    assert of["jaccard_curveball"]["estimate"] == redrawn["null_mean"]
    assert of["jaccard_curveball"]["p"] == redrawn["p"] and of["jaccard_curveball"]["n"] == 19
    alone = tables["one_sided"].set_index(["strength", "quantity"])["estimate"]["any"]
    only = of["forgotten_by_cnn_only"]
    assert only["estimate"] == alone[f"{CNN}, not {VIT}"]
    assert only["chance"] == alone[f"{CNN}, not other seeds"]
    assert of["forgotten_by_one_architecture"]["chance"] == alone["one set of seeds"]
    ranks = tables["ranks"].set_index(["score", "measure", "arch_a", "arch_b"])
    expected = ranks.loc[("decay_constant", "spearman", CNN, VIT), "estimate"]
    got = of["spearman_between_architectures_decay_constant"]["estimate"]
    assert got == expected
    assert of["spearman_between_architectures_over_seeds"]["n"] == 3
    assert set(overlap_headlines.OVERLAP_ROWS) <= set(of)


def test_the_headline_test_has_its_p(tables):
    assert ("architecture_overlap", "jaccard") in HEADLINE_TESTS
    record = records_of(tables, {"phantom_oct": "phantom"})["phantom_oct", "jaccard"]
    assert record["p"] == tables["overlap"]["p"][0] == pytest.approx(1 / 41)


def test_without_runs_only_the_papers_quantity_is_left(tables):
    empty = {name: pd.DataFrame({"dataset": []}) for name in tables}
    found = records_of(empty, {"octdl": None, "cub": None})
    assert list(found) == [("octdl", "jaccard"), ("cub", "jaccard")]
    assert all(record["estimate"] != record["estimate"] for record in found.values())


def test_no_missing_share_is_recorded_as_such(tables):
    nothing = tables["missing"].assign(estimate=np.nan, ci_low=np.nan, ci_high=np.nan)
    nothing["method"] = "no value: one seed only"
    changed = tables | {"missing": nothing}
    record = records_of(changed, {"phantom_oct": "phantom"})["phantom_oct", "missing_share"]
    assert np.isnan(record["estimate"]) and record["method"] == "no value: one seed only"


def test_rank_table_is_one_row_per_score_and_measure(tables):
    table = overlap_headlines.rank_table(tables["ranks"])
    assert len(table) == 2 * len(findings_overlap.CORRELATED)
    assert table.columns.tolist() == [
        *("dataset", "score", "measure", "between architectures"),
        *("CNN, two seeds", "ViT, two seeds", "ceiling", "misaligned"),
    ]
    row = tables["ranks"].iloc[0]
    text = f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
    assert table["between architectures"][0] == text
    constant = tables["ranks"].assign(estimate=np.nan, ci_low=np.nan, ci_high=np.nan)
    assert set(overlap_headlines.rank_table(constant)["CNN, two seeds"]) == {"constant"}
    assert overlap_headlines.rank_table(pd.DataFrame({"dataset": []})).empty


def test_agreement_of_conventions_by_hand():
    table = pd.DataFrame(
        {
            "excess": [-0.2, 0.1, 0.3, 0.4],
            "ci_low": [-0.3, -0.1, 0.2, 0.3],
            "ci_high": [-0.1, 0.2, 0.4, 0.5],
            "primary": [False, False, True, False],
            "missing": [np.nan, 0.5, 0.2, 0.9],
            "missing_low": [np.nan, 0.1, -0.1, 0.5],
        }
    ).assign(dataset="sim", arch_a="A", arch_b="B")
    row = agreement_of_conventions(table).iloc[0]
    assert row[["dataset", "conventions", "with_value"]].tolist() == ["sim", 4, 3]
    assert row[["above_chance", "below_chance"]].tolist() == [0.5, 0.25]
    spread = row[["smallest", "median", "largest", "primary"]].tolist()
    assert spread == pytest.approx([-0.2, 0.2, 0.4, 0.3])
    assert row[["some_missing", "none_missing"]].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert row[["missing_median", "missing_primary"]].tolist() == [0.5, 0.2]
    assert agreement_of_conventions(table.iloc[:0]).empty
    nothing = agreement_of_conventions(table.iloc[:1]).iloc[0]
    assert nothing["with_value"] == 0 and np.isnan(nothing["missing_median"])


def test_plotted_numbers_keep_their_panel(tables):
    table = overlap_headlines.plotted(ranks=tables["ranks"], alone=tables["one_sided"])
    assert table["panel"].value_counts().to_dict() == {"ranks": 30, "alone": 14}
    assert overlap_headlines.plotted(ranks=pd.DataFrame({"dataset": []})).empty
    json.dumps(table["panel"].tolist())


def test_identical_tied_counts_do_not_agree(rng):
    """The two numbers that a reader of 0.34 and 0.15 has to know."""
    table = controls.identical_counts(rng, draws=60)
    assert table["zeros"].tolist() == pytest.approx([0.95, 0.82, 0.5], abs=1e-3)
    assert table["expected"].round(2).tolist()[:2] == [0.36, 0.42]
    standard_error = (table["ci_high"] - table["ci_low"]) / 4
    assert ((table["expected"] - table["brute_force"]).abs() < 4 * standard_error).all()
    assert table["ties"].tolist()[:2] == pytest.approx([299 / 599, 495 / 599], abs=2e-3)
    with pytest.raises(ValueError, match=r"zeros must lie in \(0, 1\), got \(1.0,\)"):
        controls.identical_counts(rng, zeros=(1.0,))


def test_what_the_papers_values_say_in_samples():
    table = controls.sharing(5994).set_index("of")
    assert table["jaccard"].round(3).tolist() == [0.053, 0.34, 0.15]
    assert table["shared"].round(2).tolist() == [0.10, 0.51, 0.26]
    assert table.loc["paper, octdl", "times_chance"] == pytest.approx(6.46, abs=0.01)


def drifting(rng, n=240, epochs=12, same_time=True):
    """Each sample is wrong in 4 epochs in every run: together at its own time, or scattered.

    Gathered mistakes are one event, scattered ones several; which samples gather is the sample's
    own property, shared by all runs, and no difficulty: every sample has the same total.
    """
    gathers = rng.random(n) < 0.5
    correct = np.ones((4, epochs, n), bool)
    correct[:, 1:5] = False
    correct = np.where(gathers, correct, shuffle_epochs(correct, rng))
    return with_correct(correct if same_time else shuffle_epochs(correct, rng))


def test_redraws_keep_what_margins_give_and_lose_what_is_in_time(rng):
    timed = controls.redrawn_overlap(drifting(rng), rng, share=0.4, draws=60)
    assert timed["arch_a"].tolist() == [CNN, CNN, VIT]
    assert timed["arch_b"].tolist() == [VIT, CNN, VIT]
    assert timed["pairs"].tolist() == [4, 1, 1]
    assert (timed["estimate"] > timed["null_high"] + 0.05).all()
    assert (timed["p"] == 2 / 61).all() or (timed["p"] == 1 / 61).all()
    scattered = controls.redrawn_overlap(drifting(rng, same_time=False), rng, 0.4, 60)
    assert scattered["p"].min() > 0.03
    again = findings.overlap_by_score(drifting(rng), 0.4)
    assert np.isfinite(again["cross"]).all()


def test_observed_overlap_of_the_redraws_is_the_headline(rng):
    traces = simulated(200)
    redrawn = controls.redrawn_overlap(traces, rng, draws=9)
    headline = findings.architecture_overlap(traces, rng, draws=20)
    assert redrawn["estimate"].tolist() == pytest.approx(headline["estimate"].tolist(), abs=1e-5)
    assert (redrawn["null_low"] <= redrawn["null_mean"]).all()
