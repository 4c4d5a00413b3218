"""The measurements behind notebooks 00, 01 and 02, on traces whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import CNN, VIT, simulated, with_correct

from retention_lib import (
    agreement,
    audit,
    controls,
    data,
    findings,
    headlines,
    layout,
    overview,
    placebos,
    rivals,
    structure,
    structure_headlines,
    study,
    survival,
)
from retention_lib.config import RunConfig
from retention_lib.traces import Traces


@pytest.fixture(scope="module")
def traces() -> Traces:
    return simulated()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("score", findings.SCORES)
def test_scores_are_finite_and_larger_for_planted_mistakes(traces, score):
    values = findings.score_matrix(traces, score)
    assert values.shape == (6, 240) and not np.isnan(values).any()
    noisy = traces.samples["planted_noisy"].to_numpy()
    if score != "events":  # a never-learned mistake has no event
        assert values[:, noisy].mean() > values[:, ~noisy].mean()


def test_scores_by_hand():
    correct = np.zeros((2, 4, 3), bool)
    correct[:, :, 0] = [1, 0, 1, 0]  # forgotten twice
    correct[:, :, 1] = [0, 1, 1, 1]  # learned at epoch 1
    traces = with_correct(correct)
    expected = {
        "forgetting_score": [2, 0, 4],
        "events_max": [2, 0, 2],
        "events": [2, 0, 0],
        "mean_error": [0.5, 0.25, 1],
        "learned_epoch": [0, 1, 4],
    }
    for score, values in expected.items():
        assert findings.score_matrix(traces, score).tolist() == [values, values], score


def test_unknown_score_lists_the_known(traces):
    with pytest.raises(ValueError, match=r"one of \['forgetting_score'.*got 'beauty'"):
        findings.score_matrix(traces, "beauty")


def test_overlap_lies_between_chance_and_ceiling(traces, rng):
    rows = findings.architecture_overlap(traces, rng, "mean_loss", draws=200)
    assert rows["kind"].tolist() == ["cross_architecture"] + ["same_architecture"] * 2
    cross = rows.iloc[0]
    assert cross["ci_low"] < cross["estimate"] < cross["ci_high"]
    assert cross["chance"] + 0.1 < cross["estimate"] < cross["ceiling"]
    assert cross["ceiling"] == pytest.approx(np.sqrt(rows.estimate[1] * rows.estimate[2]))
    assert cross["hypergeometric"] == pytest.approx(0.0540, abs=1e-3)  # k = 24 of 240
    assert cross["misaligned"] == pytest.approx(cross["hypergeometric"], abs=0.04)
    assert cross["chance"] < cross["planted_noise"] < cross["estimate"]
    assert cross["seed_low"] < cross["estimate"] < cross["seed_high"]
    assert (rows["pairs"].tolist(), rows["seeds"].tolist()) == ([9, 3, 3], [3, 3, 3])
    assert rows.loc[1:, ["seed_low", "planted_noise"]].isna().all(axis=None)
    assert cross["p"] == pytest.approx(1 / 201)


def test_overlap_of_one_seed_has_no_ceiling(rng):
    rows = findings.architecture_overlap(simulated(seeds=(4,)), rng, draws=50)
    assert len(rows) == 1 and rows["pairs"][0] == 1
    assert rows[["ceiling", "seed_low", "seed_high"]].isna().all(axis=None)
    assert np.isfinite(rows["estimate"][0])


def test_over_seeds_is_student_for_a_mean_over_seeds():
    """When every seed has one pair, the jackknife is the plain t interval."""
    pairs = pd.DataFrame({"seed_a": [0, 1, 2], "seed_b": [0, 1, 2], "jaccard": [0.1, 0.2, 0.3]})
    row = findings.over_seeds(pairs).iloc[0]
    assert row["estimate"] == pytest.approx(0.2) and row["n"] == 3
    assert row["ci_high"] == pytest.approx(0.2 + 4.302653 * 0.1 / np.sqrt(3))


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(1, 10))
@settings(deadline=None, max_examples=100)
def test_share_drawn_by_lot_agrees_with_sorting(values, tenths):
    values, share = np.array(values, float), tenths / 10
    k = max(1, int(np.floor(len(values) * share + 0.5)))
    edge = np.sort(values)[::-1][k - 1]
    tied, above = (values == edge).sum(), (values > edge).sum()
    slow = 0.0 if above + tied == k else (k - above) / k
    assert findings.drawn_by_lot(values, share) == pytest.approx(slow)


def test_curves_hold_the_headline_and_chance(traces, rng):
    curves = findings.overlap_curves(traces, "mean_error", np.array([0.1, 0.5]))
    assert len(curves) == 6 and (curves["low"] <= curves["jaccard"]).all()
    rows = findings.architecture_overlap(traces, rng, "mean_error", draws=20)
    at = curves[(curves["kind"] == "cross_architecture") & (curves["share"] == 0.1)]
    assert at["jaccard"].iloc[0] == pytest.approx(rows["estimate"][0], abs=1e-6)
    assert curves.loc[curves["share"] == 0.5, "chance"].iloc[0] == pytest.approx(1 / 3, abs=0.01)


def test_by_score_has_every_score_once(traces, rng):
    table = findings.overlap_by_score(traces)
    pairs = agreement.cross_run_agreement(findings.score_matrix(traces), traces.runs, rng)
    slow = pairs.groupby("kind")[["jaccard", "spearman"]].mean()
    assert table.loc[0, "cross"] == pytest.approx(slow.jaccard["cross_architecture"], abs=1e-6)
    assert table.loc[0, "same"] == pytest.approx(slow.jaccard["same_architecture"], abs=1e-6)
    assert table.loc[0, "spearman"] == pytest.approx(slow.spearman["cross_architecture"])
    assert table["score"].tolist() == list(findings.SCORES)
    assert table["cross"].between(0, 1).all() and table["ties"].between(0, 1).all()
    assert table.set_index("score").loc["mean_loss", "ties"] == 0


def test_known_overlap_is_exact_without_ties_and_lower_with_them(traces, rng):
    exact = controls.known_overlap(traces, rng, 0.34, "mean_loss")
    assert exact["planted"][0] == pytest.approx(1 / 3)  # 12 of 24 shared: the nearest to 0.34
    assert exact["estimate"][0] == pytest.approx(exact["planted"][0], abs=0.02)
    tied = controls.known_overlap(traces, rng, 1.0, "events")
    assert tied["planted"][0] == 1 and tied["estimate"][0] < 0.9
    with pytest.raises(ValueError, match=r"0\.\.1, got 1\.5"):
        controls.known_overlap(traces, rng, 1.5)


@pytest.mark.parametrize("epochs", [5, 13, 31])
def test_known_structure_is_recovered(rng, epochs):
    table = controls.known_structure(epochs, 400, rng).set_index("quantity")
    assert table["planted"].tolist() == pytest.approx([0.52, 0.74, 0.22])
    assert table["estimate"].tolist() == pytest.approx([0.52, 0.74, 0.22], abs=1e-6)
    assert table["lambda_ratio"].dropna().tolist() == pytest.approx([1, 1], rel=1e-6)


def test_trace_shapes_by_hand():
    correct = np.zeros((2, 4, 5), bool)
    for i, trace in enumerate(([1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 0])):
        correct[:, :, i] = trace
    row = overview.trace_shapes(with_correct(correct)).iloc[0]
    assert row[list(overview.SHAPES)].tolist() == [0.2] * 5
    assert (row["with_event"], row["flat"], row["events"]) == (0.4, 0.4, pytest.approx(0.6))


def test_shapes_sum_to_one(traces):
    table = overview.trace_shapes(traces)
    assert table[list(overview.SHAPES)].sum(axis=1).tolist() == pytest.approx([1] * 6)
    assert table["arch"].tolist() == [CNN] * 3 + [VIT] * 3


def test_label_noise_is_found_where_it_was_planted(traces):
    table = overview.label_noise_auc(traces)
    assert len(table) == 2 * len(overview.NOISE_SCORES)
    assert table.loc[table["score"] == "mean_loss", "estimate"].min() > 0.9
    assert (table["ci_low"] <= table["estimate"]).all()
    assert table["positives"].unique().tolist() == [12] and table["seeds"].unique() == [3]
    bare = Traces(traces.samples.drop(columns="planted_noisy"), *_rest(traces))
    assert overview.label_noise_auc(bare).empty


def _rest(traces: Traces):
    return traces.runs, traces.epochs, traces.clean, traces.online, traces.classes


def test_choose_checks_both_names():
    profile, configs = overview.choose("smoke", "phantom_birds, phantom_oct")
    assert profile.name == "smoke" and list(configs) == ["phantom_birds", "phantom_oct"]
    assert {len(runs) for runs in configs.values()} == {4}
    with pytest.raises(ValueError, match=r"'smok', did you mean 'smoke'"):
        overview.choose("smok")
    with pytest.raises(ValueError, match=r"unknown name 'octdl'.*Known: \['phantom_birds'"):
        overview.choose("smoke", "octdl")


def test_real_runs_without_images_are_reported_not_trained(home, monkeypatch):
    monkeypatch.setenv("RETENTION_DATA", str(home / "nowhere"))
    monkeypatch.setattr(study, "capture", lambda *_: pytest.fail("started to train"))
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("started to load images"))
    _, configs = overview.choose("real")
    said = []
    folders = overview.find_or_capture(configs, log=said.append)
    assert folders == {"octdl": [], "cub": []}
    assert len(said) == 2 and "10 of 10 runs" in said[0] and "RETENTION_DATA" in said[0]
    assert overview.load(folders) == {}
    assert overview.each(overview.trace_shapes, {}).columns.tolist() == ["dataset"]


def test_published_runs_are_found_without_images(home, monkeypatch):
    monkeypatch.setenv("RETENTION_DATA", str(home / "nowhere"))
    (home / "data").mkdir()
    (home / "data" / "identities.json").write_text(json.dumps({"octdl": "octdl/official/x"}))
    monkeypatch.setattr(data, "__file__", str(home / "data" / "__init__.py"))
    config = RunConfig("octdl", seed=10)
    assert not overview.is_available(config)
    published = home / "results" / config.key("octdl/official/x")
    published.mkdir(parents=True)
    (published / "done.json").write_text("{}")
    assert overview.is_available(config)
    assert not overview.is_available(config.replace(seed=11))


def test_images_or_phantoms_are_enough(home, monkeypatch):
    monkeypatch.setenv("RETENTION_DATA", str(home))
    (home / "octdl").mkdir()
    assert overview.is_available(RunConfig("octdl"))
    assert not overview.is_available(RunConfig("cub"))
    assert overview.is_available(RunConfig("phantom_oct", n_train=72))


def test_examples_show_each_class_and_a_mistake(tiny, rng):
    rows = layout.examples(tiny, per_class=3, classes=4, rng=rng)
    label = tiny.samples["label"].to_numpy()[rows]
    assert label.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    noisy = tiny.samples["planted_noisy"].to_numpy()
    for c in range(4):
        of = tiny.samples[(tiny.samples["split"] == "train") & (tiny.samples["label"] == c)]
        assert noisy[rows[label == c][0]] == of["planted_noisy"].any()
    assert (tiny.samples["split"].to_numpy()[rows] == "train").all()


def test_only_the_whole_study_is_judged():
    paper = [RunConfig("octdl", arch=a) for a in ("resnet18", "deit_small_patch16_224")]
    cub = [c.replace(dataset="cub") for c in paper]
    classes = tuple(map(str, range(200)))
    assert headlines.scale_of(paper, classes[:7]) == "paper"
    assert headlines.scale_of(cub, classes) == "paper"
    assert headlines.scale_of(cub, classes[:50]) == "reduced"
    assert headlines.scale_of(paper[:1], classes[:7]) == "reduced"
    assert headlines.scale_of([c.replace(input_size=128) for c in paper], classes[:7]) == "reduced"
    assert headlines.scale_of([RunConfig("phantom_oct", n_train=72)], classes[:7]) == "phantom"


def test_records_of_01_and_02_hold_the_paper_only_for_real_data(traces, rng):
    options = {"draws": 20}
    overlap = findings.architecture_overlap(traces, rng, **options)
    control = controls.known_overlap(traces, rng, 0.34)
    means = structure.mean_r2(traces, rng, **options)
    known = controls.known_structure_like(traces, rng)
    placebo = placebos.placebo_table(traces, {"sim": traces}, rng, draws=19)
    skill = rivals.cross_seed(traces, rng, predictors=structure.predictors(), draws=20)
    swapped = survival.compare_architectures(traces, rng, draws=19)
    for dataset, scale, paper in (("octdl", "paper", 0.34), ("phantom_oct", "phantom", None)):
        overlap, control, means, known, placebo, skill, swapped = (
            t.assign(dataset=dataset)
            for t in (overlap, control, means, known, placebo, skill, swapped)
        )
        found = headlines.overlap_records(overlap, control, control, {dataset: scale})
        found = {r["quantity"]: r for r in found}
        assert found["jaccard"]["paper"] == paper
        assert found["jaccard"]["ceiling"] == overlap["ceiling"][0]
        assert found["jaccard_over_seeds"]["n"] == 3
        assert set(headlines.OVERLAP_ROWS) <= set(found)
        levels = {dataset: scale, "cub": None}
        fits = structure_headlines.structure_records(means, known, levels, placebo, skill, swapped)
        assert set(structure_headlines.STRUCTURE_ROWS) <= {r["quantity"] for r in fits}
        assert [r["n"] for r in fits if r["dataset"] == "cub"] == [0, 0, 0]
        flat = [r for r in fits if r["quantity"] == "flat_traces_vit"]
        assert flat[0]["n"] == 3 * 240
        rows = layout.record_rows(fits, dataset, structure_headlines.STRUCTURE_ROWS)
        assert rows["label"].tolist() == list(structure_headlines.STRUCTURE_ROWS.values())
        assert len(headlines.verdict_table(fits)) == len(fits)


def test_audit_finds_what_does_not_add_up():
    def result(**changes):
        found = {"finding": "decay_structure", "dataset": "phantom_oct", "n": 5, "planted": None}
        found |= {"ci_low": 0.1, "ci_high": 0.3, "chance": None, "ceiling": None}
        values = {"r2_vit": 0.2, "r2_cnn": 0.1, "r2_difference": 0.1} | changes
        rows = [found | {"quantity": q, "estimate": v} for q, v in values.items()]
        base = {"notebook": "02_x", "commit": "a", "versions": {}, "runs": ["k"]}
        return base | {"findings": rows}

    def failed(*results):
        table = audit.audit({"smoke": list(results)})
        assert len(table) == 7
        return table.loc[~table["holds"], "check"].tolist()

    assert failed(result()) == []
    assert len(failed(result(), result() | {"commit": "b"})) == 1
    assert "same runs" in failed(result(), result() | {"runs": ["other"]})[0]
    assert "difference" in failed(result(r2_difference=0.2))[0]
    assert "interval" in failed(result(r2_vit=0.4, r2_difference=0.3))[0]
    assert audit.audit({"real": []}).empty


def test_summary_has_a_row_for_every_number_of_the_paper():
    rows = audit.paper_rows(audit.findings_of({"real": []}))
    assert (rows["n"] == 0).all() and rows["estimate"].isna().all()
    assert rows["paper"].between(0, 1).all() and len(rows) == 12
    assert audit.planted_rows(audit.findings_of({"real": []})).empty
