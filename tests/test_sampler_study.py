"""Notebook 06: what arms came to, on small tables worked by hand, and what is recorded of it."""

from __future__ import annotations

import importlib.util
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import CPU, make_config
from sklearn import metrics

from retention_lib import (
    headlines,
    paths,
    presentations,
    sampler_differences,
    sampler_headlines,
    sampler_outcomes,
    sampler_plots,
    sampler_study,
    style,
)
from retention_lib import study as runs
from retention_lib.config import ALL_ARMS
from retention_lib.equivalence import equivalence_power, tost_paired
from retention_lib.findings import score_matrix
from retention_lib.traces import Traces

pytestmark = pytest.mark.usefixtures("one_thread")


def traces_of(correct: dict[tuple[str, int], list], arch: str = "resnet18") -> Traces:
    """Traces by (arm, seed): correctness (epoch, sample) of samples that all have label 0."""
    right = np.array(list(correct.values()), bool)
    n = right.shape[2]
    table = pd.DataFrame(
        [{"dataset": "d", "arch": arch, "seed": s, "sampler": a} for a, s in correct]
    ).assign(key=[f"{a}{s}" for a, s in correct])
    samples = pd.DataFrame({"sample_id": [f"{i}" for i in range(n)], "label": 0})
    empty = np.zeros(right.shape, np.float16)
    clean = {"predicted": np.where(right, 0, 1).astype(np.int32), "loss": empty, "margin": empty}
    return Traces(samples, table, np.arange(right.shape[1]), clean, clean, ("a", "b"))


def test_class_measures_are_sklearns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.choice([0, 1, 3], 60), rng.integers(0, 4, (2, 3, 60))
    found = sampler_outcomes.class_measures(predicted, labels)
    for at in np.ndindex(2, 3):
        said = predicted[at]
        assert found["accuracy"][at] == pytest.approx(metrics.accuracy_score(labels, said))
        recall = metrics.recall_score(labels, said, average="macro", labels=[0, 1, 3])
        assert found["balanced_accuracy"][at] == pytest.approx(recall)
        f1 = metrics.f1_score(labels, said, average="macro", labels=[0, 1, 3])
        assert found["macro_f1"][at] == pytest.approx(f1)


def test_outcomes_by_hand():
    correct = {
        ("uniform", 0): [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]],
        ("uniform", 1): [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
        ("spaced", 0): [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]],
        ("spaced", 1): [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]],
    }
    traces = traces_of(correct)
    table = sampler_outcomes.outcomes(traces, {"d": traces}).set_index(["arm", "seed"])
    assert table["accuracy"].tolist() == [0.75, 0.5, 0.75, 0.25]
    assert table["events"].tolist() == [0.25, 0.0, 0.25, 0.0]
    # Uniform ends with 0.625 on average: 0.594 is reached at epoch 2, never (3), at once, never.
    assert table["epochs_to_level"].tolist() == [2, 3, 0, 3]
    # One of four is the tenth. Never learned in the other seed: of 1 samples 2 and 3, of 0 sample 3
    assert table["hard_retention"].tolist() == [0.5, 0.0, 1.0, 1.0]


def test_the_hardest_tenth_is_not_chosen_by_the_run_itself():
    rng = np.random.default_rng(0)
    correct = {(a, s): rng.random((6, 50)) > 0.4 for s in range(3) for a in ("uniform", "spaced")}
    traces = traces_of(correct)
    weights, score = sampler_outcomes.hard_weights(traces), score_matrix(traces)
    assert weights.sum(1) == pytest.approx(5.0) and weights.min() >= 0 and weights.max() <= 1
    seeds, uniform = traces.runs["seed"], traces.runs["sampler"] == "uniform"
    for i, seed in enumerate(seeds):
        mean = score[(uniform & (seeds != seed)).to_numpy()].mean(0)
        assert mean[weights[i] > 0].min() >= mean[weights[i] == 0].max()
    alone = traces.select(seed=0)
    assert np.isnan(sampler_outcomes.hard_weights(alone)).all()


def test_regression_to_the_mean_is_no_effect():
    # Pure noise: arms do not differ. Chosen by its own run, uniform would look worse than others.
    rng, found, own = np.random.default_rng(1), [], []
    for _ in range(30):
        correct = {
            (a, s): rng.random((8, 80)) > 0.3 for s in (0, 1, 2) for a in ("uniform", "leitner")
        }
        traces = traces_of(correct)
        table = sampler_outcomes.outcomes(traces, {"d": traces})
        wide = table.pivot(index="seed", columns="arm", values="hard_retention")
        found.append((wide["leitner"] - wide["uniform"]).mean())
        score, right = score_matrix(traces), traces.correct()[:, -1]
        for s in range(3):
            hard = np.argsort(-score[2 * s], kind="stable")[:8]
            own.append(right[2 * s + 1, hard].mean() - right[2 * s, hard].mean())
    assert abs(np.mean(found)) < 0.05 and np.mean(own) > 0.08


def outcome_table(shift: dict[str, float], noise: float, archs=("resnet18",), seeds=5):
    rng, rows = np.random.default_rng(0), []
    for arch in archs:
        for seed in range(seeds):
            base = 0.8 + 0.02 * rng.standard_normal()
            for arm, by in {"uniform": 0.0, **shift}.items():
                value = base + (by + noise * rng.standard_normal()) * (arm != "uniform")
                row = {"arch": arch, "arm": arm, "seed": seed, "accuracy": value}
                row |= {"balanced_accuracy": value, "macro_f1": value, "hard_retention": value}
                rows.append(row | {"events": 1 - value, "epochs_to_level": 3.0})
    return pd.DataFrame(rows)


def test_differences_are_paired_and_judged_by_the_rule():
    table = outcome_table({"spaced": 0.0, "leitner": 0.05, "repeat": -0.05}, 0.003)
    found = sampler_differences.differences(table).set_index(["arm", "measure"])
    verdicts = found["verdict"].xs("accuracy", level="measure").to_dict()
    assert verdicts == {"spaced": "equivalent", "leitner": "better", "repeat": "worse"}
    assert found.loc[("leitner", "events"), "verdict"] == "better"  # fewer events are better
    assert found.loc[("repeat", "events"), "verdict"] == "worse"
    assert found.loc[("spaced", "epochs_to_level"), "verdict"] == "undecided"  # no spread
    wide = table.pivot(index="seed", columns="arm", values="accuracy")
    row = tost_paired(wide["spaced"], wide["uniform"], 0.01).iloc[0]
    for name in ("estimate", "p", "low_90", "power", "smallest_detectable"):
        assert found.loc[("spaced", "accuracy"), name] == row[name]
    vague = sampler_differences.differences(outcome_table({"spaced": 0.0}, 0.05))
    assert set(vague["verdict"]) == {"undecided"}


def test_several_architectures_are_averaged_within_the_seed():
    table = outcome_table({"spaced": 0.0}, 0.003, archs=("resnet18", "deit_small"))
    found = sampler_differences.differences(table).query("measure == 'accuracy'").set_index("arch")
    assert list(found.index) == ["resnet18", "deit_small", "all"] and set(found["n"]) == {5}
    assert found.loc["all", "estimate"] == pytest.approx(found["estimate"].iloc[:2].mean())
    records = sampler_headlines.sampler_records(found.reset_index().assign(dataset="cub"),
                                                {"cub": "paper"})  # fmt: skip
    names = [r["quantity"] for r in records]
    assert names[:3] == [
        "accuracy_difference_cnn",
        "accuracy_difference_vit",
        "accuracy_difference",
    ]


def test_seeds_needed_give_the_power_and_one_less_does_not():
    for sd in (0.004, 0.01, 0.03):
        n = sampler_differences.seeds_for_equivalence(sd, 0.01)
        power = [equivalence_power(0.01, sd / np.sqrt(k), k - 1) for k in (n - 1, n) if k > 1]
        assert power[-1] >= 0.8 and (len(power) == 1 or power[0] < 0.8)
    assert sampler_differences.seeds_for_equivalence(1e-5, 0.01) == 2
    assert np.isnan(sampler_differences.seeds_for_equivalence(0.0, 0.01))
    assert sampler_differences.seeds_for_equivalence(5.0, 0.01) == np.inf


def test_choosing_data_sets_and_arms():
    _, configs = sampler_study.choose("smoke", arms="leitner, repeat")
    assert {c.sampler for c in configs["phantom_oct"]} == {"uniform", "leitner", "repeat"}
    assert "spaced" in sampler_study.left_out(configs)
    _, configs = sampler_study.choose("real", "cub", "all")
    assert list(configs) == ["cub"] and {c.sampler for c in configs["cub"]} == set(ALL_ARMS)
    assert sampler_study.left_out(configs) == []
    design = sampler_study.design(configs)
    assert design.loc[("cub", "resnet18", "spaced_other_seed"), "pilot"] == "another seed"
    with pytest.raises(ValueError, match="unknown name 'leitnr', did you mean 'leitner'"):
        sampler_study.choose("smoke", arms="leitnr")
    with pytest.raises(ValueError, match="unknown name 'oracle'"):
        sampler_study.choose("smoke", arms="oracle")


@pytest.fixture
def trained(tiny_data):
    """Real runs of two arms and two seeds, all that the notebook measures."""
    shared = {"dataset": "octdl", "epochs": 3, "warmup_epochs": 1, "presentations": 0.5, "lr": 1e-3}
    arms = ("uniform", "spaced", "loss_proportional")
    configs = [make_config(sampler=a, seed=s, **shared) for a in arms for s in (0, 1)]
    return runs.capture_or_load(configs, CPU, print)


def test_what_was_shown_is_counted_from_the_runs(trained):
    spent = presentations.budgets(trained)
    assert spent["presentations"].tolist() == [3 * 36] * 6
    assert presentations.budgets([]).empty
    counts = presentations.shown_counts(trained)
    assert counts.shape == (6, 72) and counts[4].max() > 3  # with replacement
    groups = presentations.shown_by_constant(trained)
    for _, of in groups.groupby(["arm", "seed"]):
        assert of["samples"].sum() == 72
        assert (of["samples"] * of["ratio"]).sum() == pytest.approx(72)
    spaced = groups[groups["arm"] == "spaced"].groupby("seed")
    assert all(of["ratio"].iloc[-1] > of["ratio"].iloc[0] for _, of in spaced)
    balance = presentations.class_balance(trained)
    assert balance.groupby(["arm", "seed"])["share"].sum().tolist() == pytest.approx([1.0] * 6)
    table = presentations.ratio_table(balance.assign(dataset="octdl"), "class", "samples")
    assert list(table.columns) == ["uniform", "spaced", "loss_proportional"] and len(table) == 4


def test_unequal_budgets_are_an_error(trained, monkeypatch):
    counts = presentations.shown_counts(trained)
    counts[1, 0] += 1
    monkeypatch.setattr(presentations, "shown_counts", lambda folders: counts)
    with pytest.raises(ValueError, match="arms must show equally many"):
        presentations.budgets(trained)


def test_the_whole_analysis_and_its_figure(trained):
    traces, held_out = Traces.from_runs(trained), Traces.from_runs(trained, "val")
    outcomes = sampler_outcomes.outcomes(traces, {"octdl": held_out}).assign(dataset="octdl")
    (found,) = sampler_outcomes.by_dataset(outcomes).values()
    table = sampler_differences.differences(found).assign(dataset="octdl")
    readings = sampler_differences.conventions(held_out).assign(dataset="octdl")
    assert len(readings) == 2 * 9 and readings["primary"].sum() == 2
    summary = sampler_differences.summary_of_conventions(readings)
    first = table[(table["arm"] == "spaced") & (table["measure"] == "accuracy")].iloc[0]
    assert summary["primary"].iloc[0] == pytest.approx(first["estimate"])
    records = sampler_headlines.sampler_records(table, {"octdl": "reduced", "cub": None})
    by_name = {(r["dataset"], r["quantity"]): r for r in records}
    headline = by_name["octdl", "accuracy_difference"]
    assert headline["chance"] == 0 and headline["method"].endswith(first["verdict"])
    assert by_name["cub", "accuracy_difference"]["method"] == "not yet run"
    assert ("octdl", "accuracy_difference_loss_proportional") in by_name
    words = sampler_headlines.reading(table, {"octdl": "reduced", "cub": None})
    assert words["verdict"].tolist() == [first["verdict"], "not yet run"]
    figure, axes = style.new_figure(6, 1, 7, 10)
    extra = (presentations.shown_by_constant(trained), presentations.class_balance(trained))
    curves = sampler_outcomes.learning_curves(held_out)
    sampler_plots.column(axes[:, 0], table, curves, *extra, readings)
    lines = {round(float(line.get_xdata()[0]), 6) for line in axes[0, 0].lines if
             line.get_marker() == "s"}  # fmt: skip
    assert lines == {round(100 * first["estimate"], 6)}
    figure.canvas.draw()
    plt.close(figure)


@pytest.mark.parametrize("verdict", ["equivalent", "better", "worse", "undecided"])
def test_every_verdict_has_words_and_says_what_would_change_it(verdict):
    shift = {"equivalent": 0.0, "better": 0.05, "worse": -0.05, "undecided": 0.0}[verdict]
    noise = 0.05 if verdict == "undecided" else 0.003
    table = sampler_differences.differences(outcome_table({"spaced": shift, "leitner": 0.0}, noise))
    row = sampler_headlines.reading(table.assign(dataset="d"), {"d": "phantom"}).iloc[0]
    assert (
        row["verdict"] == verdict
        and (row["means"], row["would_change"]) == (sampler_headlines.MEANING[verdict])
    )
    assert "over 5 seeds [" in row["found"] and row["others"].startswith("leitner ")


def test_records_hold_no_infinity():
    table = sampler_differences.differences(outcome_table({"spaced": 0.0}, 5.0)).assign(dataset="d")
    records = sampler_headlines.sampler_records(table, {"d": "phantom"})
    needed = next(r for r in records if r["quantity"] == "seeds_for_equivalence")
    assert np.isnan(needed["estimate"]) and len(headlines.verdict_table(records)) == len(records)


def control():
    """The benchmark's module; it is a script, not a part of the package."""
    path = paths.ROOT / "benchmarks" / "positive_control.py"
    spec = importlib.util.spec_from_file_location("positive_control", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_planted_phantom_is_what_it_says():
    module = control()
    phantom = module.planted_phantom(80, 40, size=16)
    samples, rare = phantom.samples, phantom.samples["planted_needs_repetition"]
    assert rare.groupby(samples["split"]).mean().tolist() == [0.1, 0.1]
    assert set(samples["label"][rare]) == {2, 3, 4, 5} and set(samples["label"][~rare]) == {0, 1}
    kinds = samples.groupby("label")["planted_true_label"].unique()
    assert [len(v) for v in kinds] == [4, 4, 1, 1, 1, 1]
    assert len(set().union(*kinds)) == 12
    plain = module.ordinary_phantom(60, 30, size=16).samples
    assert "planted_needs_repetition" not in plain
    counts = plain[plain["split"] == "train"]["label"].value_counts()
    assert counts.max() - counts.min() <= 1


@pytest.mark.slow
def test_the_oracle_learns_what_is_planted(tmp_path):
    module = control()
    images = module.planted_phantom(160, 160, size=32)
    settings = {**module.SETTINGS, "input_size": 32, "epochs": 4}
    table = module.compare(images, ["oracle"], range(10, 13), settings, log=lambda row: None)
    planted = table.groupby("arm")["planted"].mean()
    assert planted["oracle"] > planted["uniform"] + 0.05
    json.dumps(module.verdicts(table).to_dict("records"))


def test_a_notebook_reads_real_runs_and_never_trains_them(tiny_data, monkeypatch):
    real = sampler_study.find_profile("real")
    shared = {"dataset": "octdl", "epochs": 1, "warmup_epochs": 1, "presentations": 0.5}
    uniform, spaced, alone = (
        make_config(sampler=a, seed=s, **shared)
        for a, s in (("uniform", 0), ("spaced", 0), ("leitner", 1))
    )
    monkeypatch.setattr(sampler_study.overview, "has_images", lambda config: True)
    log, configs = [], {"octdl": [uniform, spaced, alone]}
    assert sampler_study.find_or_capture(real, configs, log.append) == {"octdl": []}
    assert log[-1].startswith("octdl: 3 of 3 runs are not there yet; python -m retention_lib.samp")
    folders = runs.capture_or_load([uniform, spaced, alone], CPU, print)
    assert sampler_study.find_or_capture(real, configs, log.append) == {"octdl": folders[:2]}
    assert log[-1].startswith("octdl: 1 of 3")  # without its seed's uniform run


def test_the_command_trains_what_it_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "capture_or_load", lambda configs, **rest: asked.extend(configs))
    sampler_study.main(["smoke", "--arms", "leitner", "--workers", "1"])
    assert [(c.sampler, c.seed) for c in asked] == [
        *(("uniform", s) for s in (0, 1)),
        *(("leitner", s) for s in (0, 1)),
    ]
