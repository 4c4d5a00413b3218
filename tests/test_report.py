"""Verdicts by the fixed rule, and result files that do not change."""

import dataclasses
import json
import math

import pandas as pd
import pytest
from result_files import save

from retention_lib import report, verdicts
from retention_lib.intervals import one_row

ROW = one_row(0.33, 0.30, 0.36, 1600, 0.001, "bootstrap")


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.30, 0.36), "reproduced"),
        ((0.34, 0.34), "reproduced"),
        ((0.20, 0.40), "undecided"),
        ((0.20, 0.28), "same direction"),
        ((0.40, 0.44), "same direction"),
        ((0.04, 0.20), "not reproduced"),
        ((0.01, 0.03), "not reproduced"),
        ((math.nan, math.nan), "undecided"),
    ],
)
def test_the_rule(interval, expected):
    low, high = interval
    rule = {"paper": 0.34, "tolerance": 0.05, "null": 0.053}
    assert verdicts.verdict((low + high) / 2, low, high, scale="paper", **rule) == expected
    assert verdicts.verdict(0.3, low, high, scale="reduced", **rule) == "not tested at this scale"
    assert verdicts.verdict(0.3, low, high, scale="phantom", **rule) == "instrument check"


def test_the_rule_at_its_edges():
    common = {"tolerance": 0.05, "scale": "paper"}
    assert verdicts.verdict(0.3, 0.29, 0.31, paper=None, **common) is None
    assert verdicts.verdict(0.2, 0.19, 0.21, paper=0.34, **common) == "not reproduced"  # no null
    assert verdicts.verdict(0.28, 0.26, 0.31, paper=(0.3, 0.5), **common) == "reproduced"
    assert verdicts.verdict(0.2, 0.18, 0.22, paper=(0.3, 0.5), null=0, **common) == "same direction"
    assert verdicts.verdict(-0.2, -0.3, -0.1, paper=-0.5, null=0, **common) == "same direction"
    with pytest.raises(ValueError, match="scale must be one of"):
        verdicts.verdict(0.2, 0.1, 0.3, 0.3, 0.05, "real")
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        verdicts.verdict(0.2, 0.1, 0.3, 0.3, 0, "paper")
    with pytest.raises(ValueError, match=r"ci_low must not exceed ci_high, got 0.3 > 0.1"):
        verdicts.verdict(0.2, 0.3, 0.1, 0.3, 0.05, "paper")


def test_the_papers_numbers():
    of = verdicts.paper_value
    assert of("architecture_overlap", "octdl", "jaccard").value == 0.34
    assert of("architecture_overlap", "cub", "jaccard").value == 0.15
    assert of("decay_structure", "cub", "r2_vit").value == 0.74
    assert of("decay_structure", "octdl", "r2_cnn").value == 0.52
    assert of("seed_stability", "cub", "spearman").value == 0.01
    assert of("early_loss", "octdl", "spearman").value == (0.30, 0.50)
    assert of("architecture_overlap", "phantom_oct", "jaccard") is None
    assert of("decay_structure", "folder:x", "r2_vit") is None
    assert all(0 < value.tolerance <= 0.1 for value in verdicts.PAPER.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        of("early_loss", "octdl", "spearman").tolerance = 1


def test_a_record_takes_paper_and_verdict_from_the_table():
    real = verdicts.record("architecture_overlap", "octdl", "jaccard", ROW, chance=0.06)
    assert tuple(real) == verdicts.FINDING
    assert (real["paper"], real["tolerance"], real["verdict"]) == (0.34, 0.05, "reproduced")
    phantom = verdicts.record("architecture_overlap", "phantom_oct", "jaccard", ROW, planted=0.3)
    assert (phantom["paper"], phantom["verdict"]) == (None, "instrument check")
    far = verdicts.record("architecture_overlap", "cub", "jaccard", ROW, chance=0.06)
    assert far["verdict"] == "same direction"  # judged against the chance level it came with
    with pytest.raises(ValueError, match="row must have one row, got 2"):
        verdicts.record("a", "octdl", "b", pd.concat([ROW, ROW]))


def test_a_result_is_complete_and_saving_again_changes_no_byte(tmp_path):
    path = save(tmp_path)
    assert path == tmp_path / "phantom" / "01_architecture_overlap.json"
    files = {p: p.read_bytes() for p in path.parent.iterdir()}
    assert sorted(p.suffix for p in files) == [".csv", ".json", ".png"]
    save(tmp_path)
    assert {p: p.read_bytes() for p in path.parent.iterdir()} == files
    result = report.check_result(path)
    assert tuple(result) == verdicts.RESULT
    assert result["producer"] == "notebooks/01_architecture_overlap.ipynb"
    assert result["runs"] == sorted(result["runs"]) and len(result["runs"]) == 2
    found = result["findings"][0]
    assert (found["estimate"], found["p"], found["planted"]) == (0.3333333333, None, None)
    assert (found["n"], found["verdict"], found["ci_high"]) == (80, "instrument check", 0.5)
    assert files[path.with_suffix(".csv")] == b"share,jaccard\n0.1,0.3333333333\n"
    assert b"NaN" not in files[path] and str(tmp_path).encode() not in files[path]


def test_a_result_names_the_commit_that_made_it_though_nothing_else_changed(tmp_path):
    path = save(tmp_path)
    old = json.loads(path.read_text()) | {"commit": "0" * 40}
    path.write_text(json.dumps(old))
    save(tmp_path)
    assert {**json.loads(path.read_text()), "commit": "0" * 40} == old
    assert json.loads(path.read_text())["commit"] != "0" * 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1.5}, "'n' must be a whole number >= 0, got 1.5"),
        ({"p": 1.2}, "'p' must be in 0..1, got 1.2"),
        ({"ci_low": 0.9}, "'ci_low' must be <= ci_high"),
        ({"ci_low": None}, "'ci_low' must be given or null as ci_high"),
        ({"estimate": "0.3"}, "'estimate' must be a finite number or null, got '0.3'"),
        ({"estimate": math.inf}, "'estimate' must be a finite number or null, got inf"),
        ({"verdict": "reproduced"}, "'verdict' must be one of"),
        ({"paper": 0.34}, "'paper' must be null for a phantom"),
        ({"paper": [1]}, "'paper' must be a number"),
        ({"method": ""}, "'method' must be text"),
        ({"extra": 1}, "key 'extra' is not known"),
    ],
)
def test_a_broken_finding_is_named(tmp_path, change, message):
    path = save(tmp_path)
    result = json.loads(path.read_text())
    result["findings"][0] |= change
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError) as caught:
        report.check_result(path)
    assert message in str(caught.value) and "findings[0]" in str(caught.value)
    with pytest.raises(ValueError):
        save(tmp_path / "new", result["findings"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", verdicts.RESULT)
def test_a_missing_key_is_named(tmp_path, key):
    path = save(tmp_path)
    result = json.loads(path.read_text())
    del result[key]
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=f"key '{key}' is missing"):
        report.check_result(path)


def test_names_and_files_are_checked(tmp_path):
    with pytest.raises(ValueError, match="notebook must look like '01_architecture_overlap'"):
        save(tmp_path, notebook="overlap")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        report.check_result(tmp_path / "x.json")
