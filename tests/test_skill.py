"""Skill and Akaike weights: by hand, and by how often intervals hold the long-run value."""

import numpy as np
import pytest
from rivalry import own_rate, simulate, table_of

from retention_lib.config import LITERAL, RETENTION
from retention_lib.rivals import cross_seed_losses, one_step_losses
from retention_lib.skill import Losses, aicc_weights


def test_interval_of_the_skill_covers_its_long_run_value():
    rng, covered = np.random.default_rng(11), []
    long = one_step_losses(simulate("rasch", rng, 1, 8, 40_000), LITERAL)
    truth = 1 - long.total["rasch"].sum() / long.total["constant"].sum()
    for _ in range(60):
        at = rng.integers(0, 40_000, 400)
        total = {m: long.total[m][:, at] for m in ("constant", "rasch")}
        part = Losses("one_step", total, long.count[:, at], long.run)
        row = table_of(part).loc["rasch"]
        covered.append(row["ci_low"] <= truth <= row["ci_high"])
    assert np.mean(covered) >= 0.85


def test_traces_too_short_to_predict_give_a_row_of_nan():
    correct = simulate("rasch", np.random.default_rng(13), 2, 4, 30)
    for losses_of in (one_step_losses, cross_seed_losses):
        losses = losses_of(correct, RETENTION, {"own": own_rate})
        assert losses.count.sum() == 0
        table = table_of(losses)
        assert (table[["n", "samples", "seeds"]] == 0).all(axis=None)
        assert table[["log_loss", "skill", "ci_low", "gain", "seed_low"]].isna().all(axis=None)


def test_aicc_weights_by_hand():
    ll = {"level": [-6.0, -2.0, np.nan, -6.0], "curve": [-3.0, -2.0, -1.0, -np.inf]}
    table = aicc_weights(ll, {"level": 1, "curve": 2}, [13, 13, 13, 13]).set_index("model")
    # AICc of trace 0: 12 + 2 + 4 / 11 = 14.3636 and 6 + 4 + 12 / 10 = 11.2
    first = 1 / (1 + np.exp(-(12 + 2 + 4 / 11 - 11.2) / 2))
    second = 1 / (1 + np.exp((2 + 1.2 - 4 / 11) / 2))
    assert table.loc["curve", "weight"] == pytest.approx((first + second + 0) / 3)
    assert table["weight"].sum() == pytest.approx(1)
    assert table["wins"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert table["n"].tolist() == [3, 3] and table["left_out"].tolist() == [1, 1]
    tied = aicc_weights({"a": [-1.0], "b": [-1.0]}, {"a": 1, "b": 1}, [9])
    assert tied["wins"].tolist() == tied["weight"].tolist() == [0.5, 0.5]
    short = aicc_weights({"a": [-1.0, -1.0], "b": [0.0, 0.0]}, {"a": 1, "b": 3}, [4, 2])
    assert short["wins"].tolist() == [1, 0] and short["left_out"].tolist() == [1, 1]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="same models in the same order"):
        aicc_weights({"a": [0.0]}, {"b": 1}, [9])
    with pytest.raises(ValueError, match="must name all 1 traces, got 2"):
        aicc_weights({"a": [0.0]}, {"a": 1}, [9, 9])
