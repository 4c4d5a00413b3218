"""The benchmark of the analysis at scale computes what the notebooks compute."""

from __future__ import annotations

import importlib.util
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from retention_lib import (
    class_averages,
    concordance,
    early_predictors,
    findings,
    findings_overlap,
    link_tables,
    paths,
    structure,
)
from retention_lib.simulated_study import Study, as_traces

DRAWS = 19


@pytest.fixture(scope="module")
def bench():
    """The script as a module, its studies small."""
    path = paths.home() / "benchmarks" / "analysis.py"
    spec = importlib.util.spec_from_file_location("benchmark_analysis", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CHUNK, module.CLASSES_PER_CHUNK, module.EPOCHS = 200, 4, 30
    return module


@pytest.fixture(scope="module")
def recorded(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    bench.simulate(folder, 500)
    return bench.recorded(folder)


@pytest.fixture(scope="module")
def found(bench, recorded):
    told = []
    rows = bench.measure(recorded, DRAWS, tell=lambda *words, **_: told.append(words))
    assert len(told) == len(rows) and all(row["wall_s"] >= 0 < row["peak_gib"] for row in rows)
    return {row["step"]: row["found"] for row in rows}


@pytest.fixture(scope="module")
def traces(recorded):
    return as_traces(Study(*recorded, truth=None))


def test_simulation_is_of_the_stated_size_with_classes_of_its_own_in_every_chunk(recorded):
    assert recorded.correct.shape == (6, 30, 500) and recorded.correct.dtype == bool
    assert recorded.loss.shape == (6, 500) and len(np.unique(recorded.labels)) == 12
    assert recorded.labels[:200].max() < recorded.labels[200:].min()


def test_overlap_equals_the_notebooks(found, traces):
    row = findings_overlap.missing_share(traces, np.random.default_rng(0), draws=DRAWS).iloc[0]
    here = found["1 overlap"]
    names = {"cross": "cross", "same_a": "same_a", "same_b": "same_b"}
    for name, there in names.items():
        assert here[name][0] == pytest.approx(row[there], rel=1e-9)
        assert here[name][1] < here[name][2]
    assert here["chance"] == pytest.approx(row["chance"], rel=1e-9)
    assert here["ceiling"] == pytest.approx(row["ceiling"], rel=1e-9)
    assert here["missing"][0] == pytest.approx(row["estimate"], rel=1e-9, nan_ok=True)
    assert 1 / (DRAWS + 1) <= here["p"] <= 1
    rows = findings.architecture_overlap(traces, np.random.default_rng(0), draws=5)
    assert here["cross"][0] == pytest.approx(rows["estimate"][0], abs=1e-5)


def test_mean_r2_equals_the_notebook(found, traces):
    rows = structure.mean_r2(traces, np.random.default_rng(0), draws=5).set_index("quantity")
    assert list(found["2 structure"]) == list(rows.index)
    for quantity, (estimate, low, high) in found["2 structure"].items():
        assert estimate == pytest.approx(rows["estimate"][quantity], rel=1e-9)
        assert low < estimate < high


def test_spearman_and_icc_equal_those_of_scipy_and_of_mean_squares(found, traces):
    score, arch = findings.score_matrix(traces), traces.runs["arch"].to_numpy()
    here = found["3 stability"]
    a, b = (np.flatnonzero(arch == name) for name in ("cnn", "vit"))
    sets = {"cnn vit": product(a, b), "cnn cnn": combinations(a, 2), "vit vit": combinations(b, 2)}
    for name, pairs in sets.items():
        rho = np.mean([stats.spearmanr(score[i], score[j])[0] for i, j in pairs])
        assert here[f"spearman {name}"][0] == pytest.approx(rho, rel=1e-9)
        assert np.isfinite(here[f"within_class {name}"]).all()
    for name, runs in (("cnn", a), ("vit", b)):
        x = score[runs]
        between, within = 3 * x.mean(0).var(ddof=1), x.var(0, ddof=1).mean()
        icc = (between - within) / (between + 2 * within)
        assert here[f"ICC(1) score {name}"][0] == pytest.approx(icc, rel=1e-9)


def test_class_means_and_concordance_equal_the_notebooks(found, traces):
    score, here = findings.score_matrix(traces), found["4 classes"]
    means = class_averages.means_by_class(score, traces.labels, 12)
    assert here["W"] == pytest.approx(concordance.kendall_w(means)["estimate"][0], rel=1e-9)
    assert here["mean cnn"] == pytest.approx(means[:3].mean(), rel=1e-9)
    assert here["classes"] == 12 and 0 < here["p"] <= 1 and here["sd vit"] > 0


def test_early_loss_equals_the_notebook(found, traces):
    constants = early_predictors.decay_constants(traces)
    loss, groups = early_predictors.early_loss(traces), traces.samples["group"].to_numpy()
    where = (traces.runs, traces.labels, groups, np.random.default_rng(0), 5)
    rows = link_tables.correlations(loss, constants, *where)
    assert len(found["5 early loss"]) == len(rows) == 12
    for row in rows.itertuples():
        here = found["5 early loss"][f"{row.quantity} {row.arch} {row.seed}"]
        assert here[0] == pytest.approx(row.estimate, rel=1e-9)


def test_distinct_traces_are_counted(bench):
    correct = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool)
    assert bench.distinct(correct) == 0.75
