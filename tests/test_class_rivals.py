"""Rivals of the order of classes: causes leave nothing, margins suffice for a Rasch model."""

from dataclasses import replace

import numpy as np
import pytest
from many_classes import simulated

from retention_lib import class_rivals


def test_a_rival_that_is_the_cause_leaves_nothing():
    rng = np.random.default_rng(0)
    traces = simulated(0.3)
    held_out = {"simulated": traces}
    table = class_rivals.rivals(traces, held_out, rng, draws=199).set_index("rival")
    assert set(table.index) <= set(class_rivals.RIVALS)
    own = table.loc["forgetting of held-out"]  # here the same images: the score itself
    assert own["estimate"] == pytest.approx(1) and own["w"] == own["w_forgetting"]
    assert np.isnan(own["w_left"])  # nothing at all is left
    size = table.loc["class size"]
    assert np.isnan(size["estimate"]) and size["w_left"] == pytest.approx(own["w_forgetting"])
    other = {"simulated": traces.select(seed=10)}
    with pytest.raises(ValueError, match="same runs in the same order"):
        class_rivals.rivals(traces, other, rng)


def test_margins_suffice_for_a_rasch_model():
    rng = np.random.default_rng(0)
    traces, p = simulated(n=96), []
    wrong = (traces.labels + 1) % 8
    for _ in range(6):
        hard = rng.normal(size=96) + 0.8 * (traces.labels - 3.5)
        easy = rng.normal(0.5, 0.5, size=(6, 13, 1))
        right = rng.random((6, 13, 96)) < 1 / (1 + np.exp(hard - easy))
        clean = traces.clean | {"predicted": np.where(right, traces.labels, wrong)}
        row = class_rivals.beyond_margins(replace(traces, clean=clean), rng, 29).iloc[0]
        p.append(row["p"])
        assert row["w_events"] == pytest.approx(row["w_redrawn"], abs=0.25)
    assert 0.15 < np.mean(p) < 0.9 and row["null"] == pytest.approx(1 / 6, abs=0.06)
