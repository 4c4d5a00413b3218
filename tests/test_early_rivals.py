"""What is held fixed, and what else could predict: conditions and rivals on known truth."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from simulated import simulated

from retention_lib import early_rivals
from retention_lib.early_predictors import decay_constants, early_loss
from retention_lib.link_tables import ALL


@pytest.fixture(scope="module")
def traces():
    return simulated(n=120, epochs=6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def all_runs(table, what):
    return table[table["arch"] == ALL].set_index(what)


def test_epoch_0_cannot_move_a_least_squares_exponential(traces, rng):
    rows = all_runs(early_rivals.conditions(traces, rng, 20), "condition")
    whole, masked = rows.loc["as it is"], rows.loc["epoch 0 masked"]
    assert masked["estimate"] == pytest.approx(whole["estimate"], abs=1e-12)
    right = traces.correct()[:, 0]
    of = zip(early_loss(traces), decay_constants(traces), right, strict=True)
    rho = [spearmanr(loss[use], constant[use])[0] for loss, constant, use in of]
    assert rows.loc["right at epoch 0 only", "estimate"] == pytest.approx(np.mean(rho))
    assert rows.loc["right at epoch 0 only", "n"] == round(right.sum(1).mean())
    assert rows.loc["without planted label noise", "n"] == 114


def test_rivals_leave_out_what_is_constant(traces, rng):
    table = early_rivals.rivals(traces, {}, rng, 10)
    assert "file size" not in set(table["predictor"])
    assert "class frequency" not in set(table["predictor"])  # classes of one size
    own = table[(table["predictor"] == "early loss") & (table["arch"] == ALL)]
    assert own["quantity"].tolist() == ["spearman", "given class"]
    given = table[(table["quantity"] == "early loss given it") & (table["arch"] == ALL)]
    given = given.set_index("predictor")["estimate"]
    assert np.isnan(given["early margin"])  # here the loss is a function of the margin
    assert given.drop("early margin").notna().all()
