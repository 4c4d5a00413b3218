"""What traces look like: directions, who stays right, lapses; counted one by one as the oracle."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from simulated import CNN, VIT, simulated, with_correct

from retention_lib import anatomy, anatomy_plots, style

CUBES = arrays(bool, st.tuples(st.integers(1, 3), st.integers(2, 7), st.integers(1, 6)))


def slow_direction(trace) -> str:
    """Ordinary least squares on one trace, with exact fractions by numpy's polyfit rounding."""
    if trace.all() or not trace.any():
        return "flat"
    slope = np.polyfit(np.arange(len(trace)), trace.astype(float), 1)[0]
    return "level" if abs(slope) < 1e-9 else "rising" if slope > 0 else "falling"


def slow_lapses(cube) -> list[tuple[int, int, bool]]:
    """Every lapse as (sample, epochs until it ended or was last seen open, whether it ended)."""
    found = []
    for run in cube:
        for i, trace in enumerate(run.T):
            start = None
            for t in range(1, len(trace)):
                if trace[t - 1] and not trace[t]:
                    start = t
                elif start is not None and trace[t]:
                    found.append((i, t - start, True))
                    start = None
            if start is not None:
                found.append((i, len(trace) - 1 - start, False))
    return found


@given(CUBES)
def test_direction_is_the_sign_of_the_slope(cube):
    kinds = anatomy.directions(cube)
    names = list(anatomy.DIRECTIONS)
    for run, kind in zip(cube, kinds, strict=True):
        assert [names[k] for k in kind] == [slow_direction(trace) for trace in run.T]


@given(CUBES)
def test_lapses_are_those_found_one_by_one(cube):
    risk = anatomy.lapse_risk(cube)
    at_risk, ended = np.zeros_like(risk.at_risk), np.zeros_like(risk.events)
    for i, length, over in slow_lapses(cube):
        at_risk[i, :length] += 1
        if over:
            ended[i, length - 1] += 1
    np.testing.assert_array_equal(risk.events, ended)
    np.testing.assert_array_equal(risk.at_risk, at_risk)


def test_lapses_of_a_geometric_length_are_recovered():
    """Two states, back with probability .4: S(j) = .6^j, censored at the end of 15 epochs."""
    rng, n, epochs = np.random.default_rng(0), 4000, 15
    cube = np.ones((2, epochs, n), bool)
    for t in range(1, epochs):
        u = rng.random((2, n))
        cube[:, t] = np.where(cube[:, t - 1], u < 0.8, u < 0.4)
    table = anatomy.lapses(with_correct(cube))
    for _, of in table.groupby("arch"):
        head = of[of["time"].between(1, 6)]
        truth = 0.6 ** head["time"]
        assert ((head["ci_low"] <= truth) & (truth <= head["ci_high"])).mean() >= 5 / 6
        np.testing.assert_allclose(head["survival"], truth, atol=0.02)


def test_kept_counts_those_right_at_epoch_0():
    run = [[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]]
    table = anatomy.kept_from_the_start(with_correct(np.array([run, run], bool)))
    table = table[table["arch"] == CNN]
    right = table[table["at_epoch_0"] == "right"]
    assert right["accuracy"].tolist() == [1.0, 0.5, 1.0] and right["n"].tolist() == [2, 2, 2]
    wrong = table[table["at_epoch_0"] == "wrong"]
    assert wrong["accuracy"].tolist() == [0.0, 0.5, 0.5]


def test_nobody_right_at_epoch_0_is_nan_not_zero():
    run = [[0, 0], [1, 0]]
    table = anatomy.kept_from_the_start(with_correct(np.array([run, run], bool)))
    right = table[(table["at_epoch_0"] == "right") & (table["arch"] == CNN)]
    assert right["accuracy"].isna().all() and right["n"].tolist() == [0, 0]


@pytest.fixture(scope="module")
def tables():
    traces = {"octdl": simulated(seed=1)}
    each = lambda f: f(traces["octdl"]).assign(dataset="octdl")  # noqa: E731
    return [
        each(f) for f in (anatomy.direction_shares, anatomy.kept_from_the_start, anatomy.lapses)
    ]


def test_shares_sum_to_one_and_events_agree(tables):
    shares = tables[0]
    np.testing.assert_allclose(shares[list(anatomy.DIRECTIONS)].sum(axis=1), 1)
    counts = [f"samples with {c}" for c in anatomy.EVENT_COUNTS]
    np.testing.assert_allclose(shares[counts].sum(axis=1), 1)
    assert (shares["events"] >= 1 - shares["samples with 0"] - 1e-12).all()


def test_summary_and_records_say_the_same(tables):
    summary = anatomy.summary(*tables).set_index("arch")
    records = pd.DataFrame(anatomy.records(*tables, {"octdl": "paper"})).set_index("quantity")
    for arch, kind in ((CNN, "cnn"), (VIT, "vit")):
        for name, quantity in (
            ("falling", "falling_traces"),
            ("events", "events_per_sample"),
            ("kept_at_end", "kept_of_right_at_0"),
            ("lapse_over_in_1", "lapses_of_one_epoch"),
        ):
            recorded = records.loc[f"{quantity}_{kind}", "estimate"]
            assert recorded == pytest.approx(summary.loc[arch, name], abs=1e-12), (arch, name)
    assert anatomy.records(*tables, {"octdl": None}) == []


def test_no_runs_give_empty_tables():
    empty = pd.DataFrame({"dataset": []})
    assert anatomy.summary(empty, empty, empty).empty


def test_panels_say_what_they_show(tables):
    shares, kept, lapse = tables
    _, axes = style.new_figure(3, 1, height=6)
    bars = anatomy_plots.direction_bars(axes[0, 0], shares, shares)
    falling = shares.groupby("arch", sort=False)["falling"].mean().iloc[0]
    assert f"{falling:.1%} falling" in {text.get_text() for text in bars.texts}
    lines = anatomy_plots.kept(axes[1, 0], kept, kept).get_lines()
    of = kept[(kept["arch"] == kept["arch"].iloc[0]) & (kept["at_epoch_0"] == "right")]
    np.testing.assert_array_equal(lines[0].get_ydata(), of["accuracy"])
    step = anatomy_plots.lapses(axes[2, 0], lapse)
    assert "lapses, " in step.get_legend().get_texts()[0].get_text()
    assert all(ax.get_xlabel() and len(ax.get_legend().get_texts()) > 1 for ax in axes[:, 0])
