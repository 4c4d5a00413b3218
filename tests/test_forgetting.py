"""Events and scores against a loop that reads one trace at a time, as Toneva et al. define them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from retention_lib import forgetting
from retention_lib.forgetting import (
    NEVER_LEARNED,
    first_forgetting,
    forgetting_events,
    forgetting_score,
    lapse_length,
    learned_epoch,
    mean_error,
    never_learned,
)
from retention_lib.scores import scores

#: Hand-made traces and their forgetting events.
BY_HAND = {
    "11111": 0,  # never forgotten
    "00000": 0,  # never learned
    "00111": 0,  # a first mistake is no event
    "10000": 1,
    "10101": 2,
    "01010": 2,
    "11011": 1,
}


def columns(*traces: str) -> np.ndarray:
    """Strings as columns of a (epoch, sample) array."""
    return np.array([[c == "1" for c in trace] for trace in traces]).T


def walk(states: list[tuple[int, bool]]) -> dict:
    """The readable twin: (epoch, correct) of one sample's presentations, one after the other."""
    found = {"events": 0, "learned": np.nan, "first": np.nan, "errors": 0, "lapsed": 0}
    before = None
    for epoch, right in states:
        if right and np.isnan(found["learned"]):
            found["learned"] = epoch
        if before is True and not right:
            found["events"] += 1
            if np.isnan(found["first"]):
                found["first"] = epoch
        found["errors"] += not right
        found["lapsed"] += not right and not np.isnan(found["learned"])
        before = bool(right)
    return found


@pytest.mark.parametrize("trace, expected", BY_HAND.items())
def test_events_by_hand(trace, expected):
    assert forgetting_events(columns(trace)).tolist() == [expected]


def test_events_equal_the_published_difference_formula():
    correct = np.random.default_rng(0).random((3, 20, 50)) < 0.6
    assert (forgetting_events(correct) == (np.diff(correct.astype(int), axis=1) == -1).sum(1)).all()


bool_cubes = array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=8).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@given(bool_cubes)
@settings(max_examples=60, deadline=None)
def test_everything_agrees_with_the_loop(cube):
    correct, shown = cube
    for mask in (None, shown):
        seen = np.ones_like(correct) if mask is None else mask
        results = (
            forgetting_events(correct, mask),
            learned_epoch(correct, mask),
            first_forgetting(correct, mask),
            mean_error(correct, mask),
            lapse_length(correct, mask),
            never_learned(correct, mask),
        )
        for lead in np.ndindex(correct.shape[:-2]):
            for s in range(correct.shape[-1]):
                states = [
                    (t, correct[(*lead, t, s)])
                    for t in range(correct.shape[-2])
                    if seen[(*lead, t, s)]
                ]
                twin = walk(states)
                n, k = len(states), twin["events"]
                wanted = (
                    k,
                    twin["learned"],
                    twin["first"],
                    twin["errors"] / n if n else np.nan,
                    twin["lapsed"] / k if k else np.nan,
                    n > 0 and np.isnan(twin["learned"]),
                )
                np.testing.assert_array_equal([r[(*lead, s)] for r in results], wanted)


@given(arrays(bool, (9, 12)), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_samples_keep_their_scores_when_reordered(correct, random):
    order = random.sample(range(12), 12)
    left, right = scores(correct[:, order]), scores(correct).iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(left.drop(columns="sample"), right.drop(columns="sample"))


def test_a_presentation_missed_joins_its_neighbours():
    correct = columns("10010")
    shown = columns("10110")
    shown[:, 0] = [True, False, False, True, True]
    assert forgetting_events(correct).tolist() == [2]
    assert forgetting_events(correct, shown).tolist() == [1]  # 1, 1, 0 were presented
    assert first_forgetting(correct, shown, epochs=[5, 6, 7, 8, 9]).tolist() == [9]


def test_blocks_of_samples_do_not_change_the_tally(monkeypatch):
    rng = np.random.default_rng(0)
    correct, shown = rng.random((2, 2, 9, 50)) < 0.6
    for seen in (None, shown):
        whole = forgetting.tally_of(correct, seen)
        with monkeypatch.context() as patch:
            patch.setattr(forgetting, "_BLOCK", 7)
            parts = forgetting.tally_of(correct, seen)
        assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_never_learned_conventions():
    correct = columns("10101", "11111", "00000", "10000")
    expected = {
        "n_presentations": [2, 0, 5, 1],
        "max": [2, 0, 2, 1],
        "inf": [2, 0, np.inf, 1],
        "cartography": [2, 0, 1000, 1],
        "zero": [2, 0, 0, 1],
        "nan": [2, 0, np.nan, 1],
    }
    assert set(expected) == set(NEVER_LEARNED)
    for how, wanted in expected.items():
        np.testing.assert_array_equal(forgetting_score(correct, how), wanted)


def test_never_learned_is_highest_even_if_nothing_was_forgotten():
    assert forgetting_score(columns("000", "111"), "max").tolist() == [1, 0]


def test_max_is_taken_within_each_run():
    runs = np.stack([columns("10101", "00000"), columns("10000", "00000")])
    assert forgetting_score(runs, "max").tolist() == [[2, 2], [1, 1]]


def test_never_presented_is_unknown_not_never_learned():
    correct, shown = columns("000", "000"), columns("111", "000")
    assert never_learned(correct, shown).tolist() == [True, False]
    assert np.isnan(forgetting_score(correct, shown=shown)).tolist() == [False, True]
    assert np.isnan(mean_error(correct, shown)).tolist() == [False, True]
    assert np.isnan(scores(correct, shown=shown)["final_correct"]).tolist() == [False, True]


def test_table_of_arrays():
    loss = np.array([[4.0, 1.0], [2.0, 3.0], [0.0, 5.0]], np.float16)
    table = scores(columns("011", "100"), loss=loss, margin=-loss)
    assert table["sample"].tolist() == [0, 1] and table["run"].tolist() == [0, 0]
    assert table["early_loss"].tolist() == [4, 1] and table["final_loss"].tolist() == [0, 5]
    assert table["mean_loss"].tolist() == [2, 3] and table["mean_margin"].tolist() == [-2, -3]
    assert table["final_correct"].tolist() == [1, 0] and table["events"].tolist() == [0, 1]
    assert table["learned_epoch"].tolist() == [1, 0] and table["lapse_length"].tolist()[1] == 2


def fake_traces():
    """Two runs of three samples, in the form of `Traces`; the online view misses epoch 0."""
    correct = np.random.default_rng(3).random((2, 5, 3)) < 0.5
    predicted = np.where(correct, 1, 0).astype(np.int16)
    online = predicted.copy()
    online[:, 0], online[0, 2, 1] = -1, -1
    loss = np.random.default_rng(4).random((2, 5, 3)).astype(np.float16)
    seen = np.where(online < 0, np.nan, loss)
    return SimpleNamespace(
        samples=pd.DataFrame({"sample_id": ["a", "b", "c"], "label": [1, 1, 1]}),
        runs=pd.DataFrame({"arch": ["resnet18", "vit"], "seed": [0, 7]}),
        epochs=np.arange(5),
        online={"predicted": online},
        correct=lambda view: (online if view == "online" else predicted) == 1,
        loss=lambda view: seen if view == "online" else loss,
        margin=lambda view: seen if view == "online" else loss,
    )


def test_table_of_traces():
    traces = fake_traces()
    table = scores(traces)
    assert table[["arch", "seed", "sample_id"]].astype(str).agg("/".join, axis=1).tolist() == [
        f"{run}/{sample}" for run in ("resnet18/0", "vit/7") for sample in "abc"
    ]
    assert (table["events"].to_numpy() == forgetting_events(traces.correct("clean")).ravel()).all()
    assert (table["early_loss"].to_numpy() == traces.loss("clean")[:, 0].ravel()).all()


def test_table_of_the_online_view_counts_presentations():
    traces = fake_traces()
    table = scores(traces, view="online")
    assert table["presentations"].tolist() == [4, 3, 4, 4, 4, 4]
    assert table["early_loss"].isna().all()
    wanted = np.nanmean(traces.loss("online").astype(float), axis=1).ravel()
    np.testing.assert_allclose(table["mean_loss"], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: forgetting_events(np.ones(3, bool)), r"\(\.\.\., epoch, sample\), got shape \(3,"),
        (lambda: forgetting_events(np.full((2, 2), np.nan)), "float64; pass missing"),
        (lambda: forgetting_events(np.array([[0, 2]])), r"0 or 1, got 0\.\.2"),
        (lambda: forgetting_events(columns("10"), np.ones((1, 1), bool)), r"shape \(2, 1\)"),
        (lambda: forgetting_score(columns("10"), "most"), "n_presentations.*got 'most'"),
        (lambda: learned_epoch(columns("10"), epochs=[0]), r"shape \(2,\), got \(1,\)"),
        (lambda: scores(columns("10"), loss=np.zeros((3, 1))), r"shape of correct \(2, 1\)"),
        (lambda: scores(fake_traces(), view="blurred"), "clean.*got 'blurred'"),
    ],
)
def test_broken_input_is_quoted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
