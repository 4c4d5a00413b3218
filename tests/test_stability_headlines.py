"""What notebook 03 records, from small tables made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated import CNN, VIT

from retention_lib.config import HEADLINE_TESTS
from retention_lib.stability import BOTH
from retention_lib.stability_headlines import STABILITY_ROWS, stability_records
from retention_lib.stability_reliability import SEEDS
from retention_lib.variance import COMPONENTS

SCORE = "forgetting_score"


def row(estimate, **named):
    fields = {"dataset": "octdl", "estimate": estimate, "ci_low": estimate - 0.02}
    fields |= {"ci_high": estimate + 0.02, "n": 500, "p": np.nan, "method": "made"}
    return fields | {"seed_low": estimate - 0.1, "seed_high": estimate + 0.1, "seeds": 5} | named


def made_tables(score=SCORE):
    archs = (BOTH, CNN, VIT)
    measures = ("spearman", "kendall", "within_class", "between_class")
    return {
        "agreement": pd.DataFrame(
            row(0.1 * (i + 1) + 0.01 * j, score=s, measure=m, arch=a)
            for s in (score, "decay_constant")
            for i, m in enumerate(measures)
            for j, a in enumerate(archs)
        ),
        "held_out": pd.DataFrame(
            row(0.3, score=score, measure="spearman", arch=a, n=90) for a in archs
        ),
        "controls": pd.DataFrame(
            {"dataset": "octdl", "arch": a, "p": p, "n": 500}
            | {"misaligned": 0.0, "misaligned_low": -0.03, "misaligned_high": 0.03}
            | {"class_sorted": 0.1, "class_sorted_low": 0.08, "class_sorted_high": 0.12}
            for a, p in zip(archs, (0.001, 0.002, 0.003), strict=True)
        ),
        "redrawn": pd.DataFrame(
            {"dataset": "octdl", "score": SCORE, "arch": a, "curveball": 0.2, "p": 0.04}
            | {"curveball_low": 0.15, "curveball_high": 0.25, "draws": 39}
            for a in archs
        ),
        "ceilings": pd.DataFrame(
            {"dataset": "octdl", "score": SCORE, "arch": a, "ceiling": 0.4} for a in archs
        ),
        "known": pd.DataFrame(
            row(0.5, reliability=r, measured_on=on, planted=0.9 * r)
            for r in (0.0, 0.6)
            for on in ("latent", "events")
        ),
        "reliability": pd.DataFrame(
            row(e, score=score, arch=a, quantity=q, scale=s)
            for a in (CNN, VIT)
            for q, s, e in (
                ("ICC(1)", "score", 0.9),
                ("ICC(1)", "midranks", 0.5),
                (SEEDS, "midranks", 4),
            )
        ),
        "cross": pd.DataFrame([row(0.8, score=score, arch_a=CNN, arch_b=VIT)]),
        "variance": pd.DataFrame(
            row(9.0, score=score, component=c, share=0.1, share_low=0.05, share_high=0.15)
            for c in COMPONENTS
        ),
        "shapes": pd.DataFrame(
            {"dataset": "octdl", "arch": a, "events": e} for a in (CNN, VIT) for e in (0.2, 0.4)
        ),
    }


def records_of(tables, score=SCORE, scales=None):
    found = stability_records(tables, scales or {"octdl": "paper"}, score)
    assert len({(r["dataset"], r["quantity"]) for r in found}) == len(found)
    return {r["quantity"]: r for r in found}


def test_the_headline_carries_its_null_its_ceiling_and_the_papers_value():
    found = records_of(made_tables())
    headline = found["spearman"]
    assert (headline["estimate"], headline["p"]) == (pytest.approx(0.1), 0.001)
    assert HEADLINE_TESTS["seed_stability", "spearman"] in headline["method"]
    assert (headline["chance"], headline["ceiling"], headline["paper"]) == (0.0, 0.4, 0.01)
    assert headline["verdict"] == "same direction"  # above 0, as 0.01 is, but not 0.01
    assert (found["spearman_cnn"]["p"], found["spearman_vit"]["p"]) == (0.002, 0.003)
    seeds = found["spearman_over_seeds"]
    assert (seeds["n"], seeds["ci_low"]) == (5, pytest.approx(0.0))
    assert found["kendall"]["estimate"] == pytest.approx(0.2)
    assert found["spearman_within_class"]["estimate"] == pytest.approx(0.3)
    assert found["spearman_between_classes"]["estimate"] == pytest.approx(0.4)
    assert found["spearman_decay_constant"]["estimate"] == pytest.approx(0.1)


def test_controls_reliability_and_variance_are_recorded():
    found = records_of(made_tables())
    assert found["spearman_misaligned"]["ci_high"] == 0.03
    assert found["spearman_class_sorted"]["estimate"] == 0.1
    assert found["spearman_held_out_vit"]["n"] == 90
    redrawn = found["spearman_curveball_cnn"]
    assert (redrawn["estimate"], redrawn["p"], redrawn["n"]) == (0.2, 0.04, 39)
    assert found["icc1_cnn"]["estimate"] == 0.5 and found["seeds_needed_vit"]["estimate"] == 4
    assert found["events_per_run_cnn"]["estimate"] == pytest.approx(0.3)
    assert found["spearman_disattenuated"]["estimate"] == 0.8
    known = found["spearman_of_known_reliability"]
    assert (known["estimate"], known["planted"]) == (0.5, pytest.approx(0.54))
    shares = {q: r for q, r in found.items() if q.startswith("variance_share_")}
    assert len(shares) == len(COMPONENTS)
    assert shares["variance_share_sample"]["ci_low"] == 0.05
    assert set(STABILITY_ROWS) <= set(found)


def test_a_score_without_events_has_no_ceiling_and_no_redraws():
    found = records_of(made_tables("mean_loss"), "mean_loss")
    assert np.isnan(found["spearman"]["ceiling"]) and "spearman_curveball_cnn" not in found
    assert found["spearman"]["p"] == 0.001


def test_data_sets_without_runs_are_not_yet_run():
    nothing = dict.fromkeys(made_tables(), pd.DataFrame({"dataset": []}))
    found = stability_records(nothing, {"octdl": None, "cub": None}, SCORE)
    assert [(r["dataset"], r["quantity"], r["n"]) for r in found] == [
        ("octdl", "spearman", 0),
        ("cub", "spearman", 0),
    ]
    with pytest.raises(ValueError, match=r"missing are \['shapes'\]"):
        stability_records({k: v for k, v in nothing.items() if k != "shapes"}, {}, SCORE)
