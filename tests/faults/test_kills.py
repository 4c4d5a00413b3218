"""A few random kills in every run of the tests; `kills.py --trials 30` does more of them."""

import kills
import pytest


@pytest.mark.slow
def test_runs_killed_at_random_times_come_out_the_same(tmp_path):
    table = kills.trials(3, seed=2, folder=tmp_path)
    assert len(table) == 3 and table["same"].all(), table.to_string()
