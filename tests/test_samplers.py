"""Samplers: equal budgets, exact schedules, honest controls, and the same bytes after a kill."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CPU, make_config, make_images, start_run, train_run
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_lib import data, paths, samplers, schedules, study, train
from retention_lib.config import PILOTED, SAMPLERS, RunConfig
from retention_lib.rundir import RunDir
from retention_lib.samplers import Sampler, due_first, pilot_constants

pytestmark = pytest.mark.usefixtures("one_thread")
N = 40


def config_of(name: str, seed: int = 0, **changes) -> RunConfig:
    other = {"pilot_seed": seed + 1} if name == "spaced_other_seed" else {}
    return make_config(sampler=name, seed=seed, **{"presentations": 0.5, **other, **changes})


def sampler_of(name: str, n: int = N, seed: int = 0, **changes) -> Sampler:
    constants = np.geomspace(1e-3, 3, n) if name in PILOTED else None
    planted = np.arange(n) % 10 == 0
    return Sampler(config_of(name, seed, **changes), n, constants, planted)


def simulate(sampler: Sampler, epochs: int, seed: int = 0, first: int = 1) -> list[list[int]]:
    """Epochs of a made-up network: the higher a sample's number, the oftener it is wrong."""
    n, orders = sampler.n, []
    for epoch in range(first - 1, first + epochs):
        rng = np.random.default_rng([seed, epoch])
        right = torch.from_numpy(rng.random(n) > np.arange(n) / n)
        loss = torch.from_numpy((rng.exponential(size=n) * np.linspace(0.1, 3, n)).astype("f4"))
        if epoch == first - 1:
            if epoch == 0:
                sampler.observe(0, torch.arange(n), right, loss)
            continue
        orders.append(sampler.next_epoch(epoch).tolist())
        shown = torch.tensor(sorted(set(orders[-1])))
        sampler.observe(epoch, shown, right[shown], loss[shown])
    return orders


@given(st.sampled_from(SAMPLERS), st.integers(20, 90), st.floats(0.1, 0.99), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_every_arm_shows_as_many_as_uniform(name, n, share, seed):
    sampler = sampler_of(name, n, seed, presentations=max(share, 0.25))
    budget = samplers.presentations(sampler.config, n)
    assert budget == len(sampler_of("uniform", n, presentations=max(share, 0.25)).next_epoch(1))
    for order in simulate(sampler, 4, seed):
        assert len(order) == budget and set(order) <= set(range(n))
        if name not in ("loss_proportional", "oracle"):
            assert len(set(order)) == budget  # nothing twice


@pytest.mark.parametrize("name", SAMPLERS)
def test_state_saved_and_loaded_goes_on_identically(name):
    whole, broken = sampler_of(name), sampler_of(name)
    expected = simulate(whole, 6)
    assert simulate(broken, 3) == expected[:3]
    again = sampler_of(name)
    again.load_state_dict(broken.state_dict())
    broken.state["last"] += 7  # a state that was handed out is not changed afterwards
    assert simulate(again, 3, first=4) == expected[3:]
    assert all(isinstance(v, torch.Tensor) for v in again.state_dict().values())


def test_another_samplers_state_is_refused():
    with pytest.raises(ValueError, match=r"state of the sampler 'leitner' must hold .*'box'.*got"):
        sampler_of("leitner").load_state_dict(sampler_of("repeat").state_dict())


def test_uniform_with_all_presentations_is_the_plain_permutation():
    sampler = Sampler(make_config(seed=3), 17)
    for epoch in (1, 5):
        draw = samplers.generator(sampler.config.order_seed, epoch)
        assert sampler.next_epoch(epoch).tolist() == torch.randperm(17, generator=draw).tolist()


#: The example of `schedules`: lambda / ln 2, and by epoch what is shown.
EXAMPLE = np.array([1.6, 1.5, 1.4, 1.3, 0.9, 0.85, 0.6, 0.31, 0.15, 0.1])
SHOWN = [{0, 1, 2, 3}, {4, 5, 0, 1}, {2, 3, 6, 0}, {1, 4, 5, 0}, {2, 3, 0, 7}]


def play(sampler: Sampler, epochs: int) -> list[set[int]]:
    shown = []
    for epoch in range(1, epochs + 1):
        order = sampler.next_epoch(epoch)
        right = torch.ones(len(order), dtype=torch.bool)
        sampler.observe(epoch, order, right, torch.ones(len(order)))
        shown.append(set(order.tolist()))
    return shown


@pytest.mark.parametrize("seed", [0, 1])
def test_the_schedule_is_the_one_worked_by_hand(seed):
    sampler = Sampler(config_of("spaced", seed, presentations=0.4), 10, EXAMPLE * math.log(2))
    assert play(sampler, 5) == SHOWN


def test_what_is_not_due_is_drawn_at_random_to_fill_the_epoch():
    rest = []
    for seed in range(40):
        config = config_of("spaced", seed, presentations=0.6)
        first = play(Sampler(config, 10, EXAMPLE * math.log(2)), 1)[0]
        assert SHOWN[0] < first and len(first) == 6
        rest += first - SHOWN[0]
    assert set(rest) == set(range(4, 10)) and max(np.bincount(rest)) < 30  # 13.3 expected of each


def test_a_higher_threshold_makes_more_due():
    constants = EXAMPLE * math.log(2)
    due = []
    for threshold in (0.3, 0.5, 0.9):
        state = {"constants": torch.from_numpy(constants), "last": torch.zeros(10)}
        due.append(int(schedules.spaced_due(state, 2, threshold)[0].sum()))
    assert due == [5, 7, 10]  # d = 2: lambda / ln 2 above 0.868, 0.5 and 0.076


def test_the_shuffled_control_has_the_same_intervals_on_other_samples():
    plain, shuffled = sampler_of("spaced"), sampler_of("spaced_shuffled")
    a, b = plain.state["constants"], shuffled.state["constants"]
    assert a.tolist() != b.tolist() and sorted(a.tolist()) == sorted(b.tolist())
    assert sampler_of("spaced_shuffled").state["constants"].tolist() == b.tolist()
    assert sampler_of("spaced_shuffled", seed=1).state["constants"].tolist() != b.tolist()
    counts = []
    for sampler in (plain, shuffled):
        shown = np.bincount(np.concatenate(simulate(sampler, 12)), minlength=N)
        counts.append(shown[np.argsort(sampler.state["constants"].numpy())])
    # Interval by interval, shown as often but for the lots of the random rest.
    assert np.abs(counts[0] - counts[1]).mean() < 1.5
    assert np.corrcoef(counts[0], np.arange(N))[0, 1] > 0.6  # shown more, the larger lambda


def test_due_first_takes_the_most_urgent_and_breaks_ties_by_lot():
    due = torch.tensor([True, True, True, False, False])
    urgency = torch.tensor([1.0, 3.0, 1.0, 9.0, 9.0])
    seen = set()
    for seed in range(30):
        two = due_first(due, urgency, 2, torch.Generator().manual_seed(seed)).tolist()
        assert 1 in two and set(two) < {0, 1, 2}
        seen |= set(two)
        four = due_first(due, urgency, 4, torch.Generator().manual_seed(seed)).tolist()
        assert {0, 1, 2} < set(four)
    assert seen == {0, 1, 2}


def test_leitner_boxes_go_up_one_by_one_and_down_to_the_first():
    state = {"last": torch.zeros(2, dtype=torch.int64)} | schedules.START["leitner"](2)
    both, due = torch.arange(2), []
    schedules.leitner_learn(state, 0, both, torch.tensor([True, True]), None, 0.5)
    assert state["box"].tolist() == [1, 1]  # the warm-up moves nothing
    for epoch in range(1, 7):
        schedules.leitner_learn(state, epoch, both, torch.tensor([True, epoch != 3]), None, 0.5)
        due.append(state["box"].tolist())
    assert due == [[2, 2], [3, 3], [4, 1], [5, 2], [5, 3], [5, 4]]
    waits = [[bool(schedules.leitner_due(state, t, 0.5)[0][i]) for t in (7, 8, 15, 16)]
             for i in (0, 1)]  # fmt: skip
    assert waits == [[False, False, False, True], [False, True, True, True]]


def test_half_life_regression_learns_who_is_forgotten_and_its_loss_falls():
    n, rng = 60, np.random.default_rng(0)
    state = {"last": torch.zeros(n, dtype=torch.int64)} | schedules.START["half_life"](n)
    hard = np.arange(n) < n // 2
    error = []
    for epoch in range(1, 15):
        shown = torch.from_numpy(np.sort(rng.permutation(n)[: n // 2]))
        right = torch.from_numpy(rng.random(n // 2) > np.where(hard[shown.numpy()], 0.85, 0.05))
        predicted = 2.0 ** -((epoch - state["last"]) / schedules.half_lives(state))[shown]
        error.append(float(((predicted - right.double()) ** 2).mean()))
        schedules.half_life_learn(state, epoch, shown, right, None, 0.5)
        state["last"][shown] = epoch
    half = schedules.half_lives(state).numpy()
    assert 2 * np.median(half[hard]) < np.median(half[~hard])
    assert np.mean(error[-5:]) < 0.6 * np.mean(error[:2])
    low, high = schedules.HALF_LIVES
    assert low <= half.min() and half.max() <= high


def test_the_gradient_of_half_life_regression_is_its_losss():
    x = torch.tensor([[1.0, 1.5, 1.2], [1.0, 2.0, 1.0]], dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64, requires_grad=True)
    delay, recall = torch.tensor([1.0, 3.0]).double(), torch.tensor([0.95, 0.05]).double()
    observed = -delay / recall.log2()
    half = schedules._half_life(weights, x)
    loss = (recall - 2.0 ** (-delay / half)) ** 2 + schedules.HALF_LIFE_WEIGHT * (
        observed.clamp(*schedules.HALF_LIVES) - half
    ) ** 2
    (loss.mean() + schedules.PENALTY * (weights**2).sum()).backward()
    state = {
        **{"weights": weights.detach(), "squares": torch.zeros(3).double()},
        **{"right": x[:, 1] ** 2 - 1, "wrong": x[:, 2] ** 2 - 1},
        "last": 5 - delay.long(),
    }
    steps, schedules.STEPS = schedules.STEPS, 1
    try:
        schedules.half_life_learn(state, 5, torch.arange(2), recall > 0.5, None, 0.5)
    finally:
        schedules.STEPS = steps
    torch.testing.assert_close(state["squares"].sqrt(), weights.grad.abs(), rtol=1e-9, atol=1e-12)


def test_loss_proportional_draws_follow_the_last_loss():
    sampler = sampler_of("loss_proportional", 4, presentations=1.0)
    loss = torch.tensor([0.0, 1.0, 2.0, 5.0])
    sampler.observe(0, torch.arange(4), torch.zeros(4, dtype=torch.bool), loss)
    drawn = np.concatenate([sampler.next_epoch(t).numpy() for t in range(1, 3001)])
    wanted = 0.9 * loss.numpy() / 8 + 0.1 / 4
    assert np.bincount(drawn) / len(drawn) == pytest.approx(wanted, abs=0.015)


def test_repeat_before_forgetting_by_hand():
    state = {"last": torch.zeros(4)} | schedules.START["repeat"](4)
    right, loss = torch.tensor([True, True, True, False]), torch.tensor([0.1, 0.2, 0.4, 3.0])
    schedules.repeat_learn(state, 2, torch.arange(4), right, loss.double(), 0.5)
    # strength 3/4, ln 2 x 0.75 = 0.52: delays 5.2, 2.6, 1.3, 0.17, whole and at least 1
    assert state["expires"].tolist() == [7, 4, 3, 3]
    due, urgency = schedules.repeat_due(state, 4, 0.5)
    assert due.tolist() == [False, True, True, True] and urgency.tolist() == [-3, 0, 1, 1]


def test_the_oracle_shows_what_is_planted_in_every_epoch():
    sampler = sampler_of("oracle", 100)
    planted = np.arange(100) % 10 == 0
    counts = sum(np.bincount(order, minlength=100) for order in simulate(sampler, 10))
    assert (counts[planted] == 10 * samplers.ORACLE_SHOWN).all()
    assert counts[~planted].mean() == pytest.approx(300 / 90) and counts.sum() == 500


def test_constants_and_planted_truth_are_asked_for_and_checked():
    config = config_of("spaced")
    with pytest.raises(ValueError, match=r"'spaced' must have decay constants .*got none"):
        Sampler(config, 10)
    with pytest.raises(ValueError, match=r"'uniform' must have .* got some"):
        Sampler(make_config(), 10, np.ones(10))
    with pytest.raises(ValueError, match=r"10 positive numbers.*\(9,\)"):
        Sampler(config, 10, np.ones(9))
    with pytest.raises(ValueError, match="positive numbers"):
        Sampler(config, 2, [0.0, 1.0])
    with pytest.raises(ValueError, match=r"'planted_needs_repetition' of 10 .* got none"):
        Sampler(config_of("oracle"), 10)
    with pytest.raises(ValueError, match="more than the 5 presentations"):
        Sampler(config_of("oracle"), 10, planted=np.arange(10) < 6)


def test_repeats_in_an_epoch_get_windows_of_their_own_and_are_counted(monkeypatch, tiny):
    config = config_of("loss_proportional", presentations=1.0, epochs=1)
    session, told = train.open_session(config, tiny, CPU, False), []
    order = torch.tensor([5, 3, 5, 5, *range(10, 22)])
    sampler = Sampler(config, 72)
    monkeypatch.setattr(sampler, "next_epoch", lambda epoch: order)
    cut = train.augment.crop_and_flip
    monkeypatch.setattr(
        train.augment, "crop_and_flip", lambda x, s, c: told.append((s, c)) or cut(x, s, c)
    )
    seen, shown = train.train_epoch(
        session, train.make_optimiser(config, session.model), 1, sampler
    )
    rows = tiny.rows("train")
    assert shown[rows][[5, 3, 4, 10]].tolist() == [3, 1, 0, 1] and shown.sum() == 16
    size = torch.cat([s for s, _ in told])
    assert len({tuple(s.tolist()) for s in size[[0, 2, 3]]}) == 3
    assert seen["loss"][rows][5] > 0 == seen["loss"][rows][4]
    assert train.shown_before(order.numpy(), 72)[:4].tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("name", ["leitner", "loss_proportional", "spaced"])
def test_a_run_resumed_at_any_epoch_writes_the_same_bytes(tmp_path, monkeypatch, name):
    images, config = make_images(32, 8), config_of(name, epochs=3, lr=1e-3, warmup_epochs=1)
    constants = np.geomspace(0.05, 3, 32) if name in PILOTED else None
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)

    def run_until(folder, last):
        run = start_run(folder, config, images)

        def stop(row):
            if row["epoch"] == last:
                raise KeyboardInterrupt  # before that epoch's checkpoint

        train.fine_tune(config, images, run, CPU, False, stop, constants)
        return run

    whole = run_until(tmp_path / "whole", None)
    for last in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run_until(tmp_path / f"{last}", last)
        again = run_until(tmp_path / f"{last}", None)
        for t in range(4):
            assert again.epoch_file(t).read_bytes() == whole.epoch_file(t).read_bytes()
    table = pq.read_table(whole.epoch_file(2))
    shown = table.column("shown").to_numpy()
    assert shown.sum() == 16 and not shown[images.rows("val")].any()
    assert (np.asarray(table.column("online_loss").is_null()) == (shown == 0)).all()
    batches = math.ceil(16 / config.batch_size)
    state = torch.load(tmp_path / "1" / "checkpoint.pt", weights_only=True)
    assert state["optimiser"]["state"][0]["step"].item() == 2 * batches  # epochs 1 and 2


def test_the_pilot_is_trained_first_and_named_in_the_header(tiny_data):
    settings = {"dataset": "octdl", "epochs": 2, "warmup_epochs": 1}
    spaced, log = config_of("spaced", **settings), []
    other = config_of("spaced_other_seed", **settings)
    with pytest.raises(ValueError, match=r"pilot .* must be finished .*\(not started\)"):
        study.capture(spaced, study.find_run(spaced), CPU)
    folders = study.capture_or_load([spaced, other], CPU, log.append)
    assert [f.name for f in folders] == [c.key(tiny_data.identity) for c in (spaced, other)]
    keys = [c.pilot().key(tiny_data.identity) for c in (spaced, other)]
    begun = [line.split()[2] for line in log if line.startswith("run ")]
    assert begun == [*keys, *(f.name for f in folders)] and len(set(begun)) == 4
    assert log[-1] == "0 runs found, 4 captured"
    for folder, key in zip(folders, keys, strict=True):
        told = RunDir(folder).header["pilot"]
        constants = pilot_constants(RunDir(paths.runs() / key))
        assert told == {"key": key, "constants": samplers.constants_hash(constants)}
        assert constants.shape == (72,) and (constants > 0).all()
    assert "pilot" not in RunDir(paths.runs() / keys[0]).header
    second = []
    study.capture_or_load([other, spaced], CPU, second.append)
    assert second == ["2 runs found, 0 captured"]  # finished runs need no pilot any more


def test_a_pilot_with_other_constants_is_another_run(tiny_data, monkeypatch):
    spaced = config_of("spaced", dataset="octdl", epochs=1, warmup_epochs=1)
    (folder,) = study.capture_or_load([spaced], CPU, print)
    (folder / "done.json").unlink()
    monkeypatch.setattr(study, "pilot_constants", lambda run: np.ones(72))
    with pytest.raises(ValueError, match=r"holds another run \(pilot: stored .*, now "):
        study.capture(spaced, RunDir(folder), CPU)


def test_a_pilot_must_be_uniform(tmp_path):
    images = make_images(20, 4)
    run = train_run(tmp_path / "key", config_of("leitner", epochs=1), images)
    with pytest.raises(ValueError, match="a pilot must be a uniform run, got 'leitner'"):
        pilot_constants(run)


def test_class_balance_of_what_is_shown_depends_on_the_arm():
    n, label = 200, np.arange(200) % 2
    hard = np.where(label == 1, 2.0, 0.01)  # class 1 decays fast
    share = {}
    for name in ("uniform", "spaced", "spaced_shuffled"):
        sampler = Sampler(config_of(name), n, hard if name in PILOTED else None)
        share[name] = np.mean(label[np.concatenate(simulate(sampler, 6))])
    assert share["uniform"] == pytest.approx(0.5, abs=0.05)
    assert share["spaced"] == 1.0  # a hundred due, a hundred shown
    assert share["spaced_shuffled"] == pytest.approx(0.5, abs=0.12)


def test_the_data_module_is_left_alone():
    assert data.PHANTOMS == ("phantom_oct", "phantom_birds")
