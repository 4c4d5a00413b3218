"""What R^2 of a decay curve measures on drawn traces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from retention_lib.r2_shapes import SHAPES, drawn, r2_of_shapes


@pytest.fixture(scope="module")
def table():
    found = r2_of_shapes(np.random.default_rng(0), n=1500)
    return found.set_index(["shape", "model"])["r2"].unstack()


def test_a_step_outscores_a_true_exponential_and_order_is_what_counts(table):
    amplitude = table["exponential_amplitude"]
    assert amplitude["one step"] > amplitude["exponential"] + 0.1
    assert amplitude["exponential, shuffled"] == pytest.approx(0.04, abs=0.01)
    assert amplitude["coin, running mean"] > 0.25 and amplitude["coin"] < 0.05
    assert np.isnan(amplitude["constant"])


def test_mean_r2_is_that_of_a_scipy_loop():
    rng = np.random.default_rng(3)
    r = drawn(np.random.default_rng(3), 30, 40, 8.0)["one step"]
    t = np.arange(30.0)
    scores = []
    for trace in r.T:
        best = min(
            ((trace - np.exp(-k * t)) ** 2).sum()
            for start in (0.01, 0.1, 1.0)
            for (k,) in [curve_fit(lambda t, k: np.exp(-k * t), t, trace, start, bounds=(0, 50))[0]]
        )
        scores.append(1 - best / ((trace - trace.mean()) ** 2).sum())
    ours = r2_of_shapes(rng, 30, 40, models=("exponential",)).set_index("shape")
    assert ours.loc["one step", "r2"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert ours.loc["constant", "undefined"] == 1 and set(ours.index) == set(SHAPES)
