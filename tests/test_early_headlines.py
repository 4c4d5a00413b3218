"""Records of notebook 05 on hand-made tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from retention_lib.config import HEADLINE_TESTS
from retention_lib.early_headlines import early_records
from retention_lib.headlines import QUANTITIES
from retention_lib.link_tables import ALL

CNN, VIT = "phantom_resnet18", "phantom_deit"


def table(rows, **columns):
    base = {"dataset": "phantom_oct", "ci_low": -0.1, "ci_high": 0.9, "n": 50, "p": np.nan}
    return pd.DataFrame([base | {"method": "by hand"} | columns | row for row in rows])


def made():
    archs = [{"arch": a, "estimate": e} for a, e in ((CNN, 0.3), (VIT, 0.5), (ALL, 0.4))]
    seeds = {"seed_low": 0.2, "seed_high": 0.6, "seeds": 3, "null_mean": 0.1, "p": 0.0005}
    names = ("as it is", "given class", "right at epoch 0 only", "trace from epoch 1")
    kinds = ("same_run", "same_architecture", "cross_architecture", "misaligned")
    held = [{"condition": c} | a for c in names for a in archs]
    moved = [{"kind": k} | a for k in kinds for a in archs]
    means = [{"kind": "same_architecture", "estimate": 0.4, "disattenuated": 0.5}] * 2
    placebo = {"spearman": 0.4, "held_out": 0.45, "held_out_n": 20, "curveball": 0.5}
    placebo |= {"curveball_low": 0.48, "curveball_high": 0.52, "draws": 199, "p": 0.01}
    auc = {"measure": "AUC, forgotten", "of": "ever learned", "predictor": "log loss", "n": 3}
    constants = {"true": 0.4, "literal": 0.4, "misaligned": 0.0}
    known = [{"constants": c, "planted": p} | a for c, p in constants.items() for a in archs]
    return (
        table(archs, **seeds),
        table(held),
        table(moved),
        table(means),
        table([a | placebo for a in archs]),
        table([a | auc for a in archs[:2]] + [a | auc | {"of": "all"} for a in archs[:2]]),
        table(known),
    )


def test_records_carry_the_named_null_and_their_levels():
    records = {r["quantity"]: r for r in early_records(*made(), {"phantom_oct": "phantom"})}
    head = records["spearman"]
    assert ("early_loss", "spearman") in HEADLINE_TESTS
    assert (head["estimate"], head["p"], head["chance"]) == (0.4, 0.0005, 0.1)
    assert (records["spearman_cnn"]["estimate"], records["spearman_vit"]["estimate"]) == (0.3, 0.5)
    seeds = records["spearman_over_seeds"]
    assert (seeds["ci_low"], seeds["ci_high"], seeds["n"]) == (0.2, 0.6, 3)
    wanted = "within_class given_first_correct without_epoch_0 other_seed other_architecture"
    for name in [*wanted.split(), "held_out", "misaligned", "curveball"]:
        assert f"spearman_{name}" in records
    assert records["spearman_other_seed"]["ceiling"] == pytest.approx(0.8)
    assert records["spearman_within_class"]["chance"] == 0
    assert np.isnan(records["spearman_given_first_correct"]["chance"])
    outside, redrawn = records["spearman_held_out"], records["spearman_curveball"]
    assert (outside["estimate"], outside["n"]) == (0.45, 20)
    assert (redrawn["ci_low"], redrawn["n"], redrawn["p"]) == (0.48, 199, 0.01)
    assert records["auc_forgotten_vit"]["chance"] == 0.5
    assert records["spearman_of_known_association"]["planted"] == 0.4
    assert records["spearman_of_known_association_fitted"]["planted"] == 0.4
    assert {r["verdict"] for r in records.values()} == {"instrument check"}
    assert next(iter(records)) == "spearman"


def test_data_sets_without_runs_say_so():
    empty = [pd.DataFrame({"dataset": []})] * 7
    records = early_records(*empty, {"octdl": None, "cub": None})
    assert [r["quantity"] for r in records] == list(QUANTITIES["early_loss"]) * 2
    assert {r["method"] for r in records} == {"not yet run"}
