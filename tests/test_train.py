"""The training loop against a plain one, and what an epoch may and may not depend on."""

import copy
import itertools
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CPU, make_config, make_images, make_session, start_run, train_run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from retention_lib import augment, train
from retention_lib.rundir import QUANTITIES
from retention_lib.session import clean_pass, generator, observe, open_session, resolve_amp

pytestmark = pytest.mark.usefixtures("one_thread")


def slow_observe(logits, label: int) -> tuple[int, float, float]:
    """One sample, in double precision: predicted class, loss [nat], margin."""
    z = [float(v) for v in logits]
    top = max(z)
    loss = math.log(sum(math.exp(v - top) for v in z)) + top - z[label]
    return z.index(top), loss, z[label] - max(v for c, v in enumerate(z) if c != label)


def slow_epoch(session, optimiser, epoch: int, batch_sizes: list[int]) -> dict[int, tuple]:
    """One epoch as one would write it first: samples one by one, results in a dict by row.

    Toneva et al. (2019) keep such a dict of what the training pass said of each example.
    """
    config, model = session.config, session.model.train()
    n = len(session.train_rows)
    order = torch.randperm(n, generator=generator(config.order_seed, epoch)).tolist()
    windows = augment.crop_parameters(
        n, config.crop_scale, config.flip, generator(config.augment_seed, epoch)
    )
    assert sum(batch_sizes) == n
    told, start = {}, 0
    for step, size in enumerate(batch_sizes):
        batch = order[start : start + size]
        start += size
        rows = [int(session.train_rows[j]) for j in batch]
        images = []
        for j, row in zip(batch, rows, strict=True):
            pixels = session.images[row].float() / 255
            clean = (pixels.permute(2, 0, 1) - session.mean[0]) / session.std[0]
            images.append(augment.crop_and_flip(clean[None], windows[0][[j]], windows[1][[j]])[0])
        total = (epoch - 1) * len(batch_sizes) + step
        for group in optimiser.param_groups:
            group["lr"] = train.learning_rate(config, total, config.epochs * len(batch_sizes))
        logits = model(torch.stack(images))
        losses = [F.cross_entropy(z, session.labels[r]) for z, r in zip(logits, rows, strict=True)]
        optimiser.zero_grad()
        (sum(losses) / len(losses)).backward()
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimiser.step()
        for row, z in zip(rows, logits.detach(), strict=True):
            told[row] = slow_observe(z, int(session.labels[row]))
    return told


@pytest.mark.parametrize(
    ("n", "batch_size", "batch_sizes", "arch"),
    [
        (32, 16, [16, 16], "phantom_resnet18"),
        (41, 16, [16, 16, 9], "phantom_resnet18"),  # a partial last batch
        (33, 16, [16, 17], "phantom_resnet18"),  # a last batch of one joins the one before
        (41, 16, [16, 16, 9], "phantom_deit"),
        (4, 1, [1, 1, 1, 1], "phantom_deit"),
    ],
)
def test_online_view_equals_the_plain_loop(n, batch_size, batch_sizes, arch):
    images = make_images(n_train=n, n_val=7)
    config = make_config(arch=arch, batch_size=batch_size, crop_scale=0.5, epochs=3, lr=1e-3)
    fast = make_session(config, images)
    slow = copy.deepcopy(fast)
    optimisers = [train.make_optimiser(config, s.model) for s in (fast, slow)]
    for epoch in (1, 2):
        seen, shown = train.train_epoch(fast, optimisers[0], epoch)
        told = slow_epoch(slow, optimisers[1], epoch, batch_sizes)
        rows = images.rows("train")
        assert sorted(told) == rows.tolist()
        assert shown[rows].tolist() == [1] * n and not shown[images.rows("val")].any()
        for i, name in enumerate(QUANTITIES):
            want = np.array([told[r][i] for r in rows])
            np.testing.assert_allclose(seen[name][rows], want, rtol=2e-3, atol=2e-3, err_msg=name)
        assert all(not seen[name][images.rows("val")].any() for name in QUANTITIES)


@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_what_is_observed_equals_a_loop_over_samples(classes, n, seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 10, (n, classes)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, classes, n))
    seen = observe(logits, labels)
    for i in range(n):
        predicted, loss, margin = slow_observe(logits[i], int(labels[i]))
        assert int(seen["predicted"][i]) == predicted
        assert float(seen["loss"][i]) == pytest.approx(loss, rel=1e-4, abs=1e-5)
        assert float(seen["margin"][i]) == pytest.approx(margin, rel=1e-4, abs=1e-5)
        assert (margin > 0) == (predicted == int(labels[i])) or margin == 0


def test_observing_keeps_no_graph():
    logits = torch.randn(3, 4, requires_grad=True)
    assert not any(v.requires_grad for v in observe(logits, torch.tensor([0, 1, 2])).values())


def test_clean_pass_is_every_sample_alone_in_evaluation_mode(tiny):
    session = make_session(make_config(), tiny)
    session.model.train()
    seen, logits = clean_pass(session)
    assert not session.model.training and logits.shape == (96, 4)
    for row in (0, 17, 95):
        pixels = torch.from_numpy(tiny.images[row].astype(np.float32)) / 255
        with torch.inference_mode():
            z = session.model((pixels.permute(2, 0, 1)[None] - 0.5) / 0.25)[0]
        want = slow_observe(z, int(tiny.samples["label"][row]))
        got = tuple(seen[name][row] for name in QUANTITIES)
        np.testing.assert_allclose(got, want, atol=1e-4)
        np.testing.assert_allclose(logits[row], z, atol=1e-4)


def test_images_of_another_size_are_refused(tiny):
    with pytest.raises(ValueError, match=r"images have 32 px, the run expects 64 px"):
        open_session(make_config(input_size=64), tiny, CPU, amp=False)


def test_precision_is_a_fixed_rule():
    assert resolve_amp("bf16", CPU) is True and resolve_amp("off", CPU) is False
    assert resolve_amp("auto", CPU) == resolve_amp("auto", CPU)


def test_learning_rate_values():
    config = make_config(lr=1e-3)
    cosine = [train.learning_rate(config, s, 100) for s in range(100)]
    # 5 steps of ramp: lr (s + 1) / 5; then lr (1 + cos(pi (s - 5) / 95)) / 2
    np.testing.assert_allclose(cosine[:6], [2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])
    assert cosine[24] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 0.2)))
    assert cosine[99] == pytest.approx(2.7339e-7, rel=1e-3)
    assert all(a >= b for a, b in itertools.pairwise(cosine[5:]))
    constant = [
        train.learning_rate(make_config(lr=1e-3, schedule="constant"), s, 100) for s in range(100)
    ]
    np.testing.assert_allclose(constant, [2e-4, 4e-4, 6e-4, 8e-4] + [1e-3] * 96)
    assert train.learning_rate(config, 0, 1) == 1e-3  # a run of one step


@given(st.integers(1, 200), st.integers(1, 40))
def test_batches_hold_every_sample_once_and_none_is_alone(n, size):
    order = torch.arange(n)
    batches = train.split_batches(order, size)
    assert torch.equal(torch.cat(batches), order)
    assert [len(b) for b in batches[:-1]] == [size] * (len(batches) - 1)
    if size > 1 and n > 1:
        assert 2 <= len(batches[-1]) <= max(size + 1, 2)
    else:
        assert len(batches[-1]) == 1


def test_weight_decay_spares_biases_and_norms():
    model = make_session(make_config(), make_images(8, 4)).model
    decayed, others = train.make_optimiser(make_config(weight_decay=0.3), model).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert min(p.ndim for p in decayed["params"]) == 2
    assert max(p.ndim for p in others["params"]) == 1
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("arch", ["phantom_resnet18", "phantom_deit"])
def test_warm_up_changes_the_head_alone_and_lowers_the_loss(arch, tiny):
    session = make_session(make_config(arch=arch, warmup_epochs=15), tiny)
    before = copy.deepcopy(session.model.state_dict())
    loss = clean_pass(session)[0]["loss"][tiny.rows("train")].mean()
    train.warm_up(session)
    after = session.model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == (
        {"fc.weight", "fc.bias"} if "resnet" in arch else {"head.weight", "head.bias"}
    )
    assert clean_pass(session)[0]["loss"][tiny.rows("train")].mean() < loss - 0.05


def test_no_warm_up_changes_nothing(tiny):
    session = make_session(make_config(warmup_epochs=0), tiny)
    before = copy.deepcopy(session.model.state_dict())
    train.warm_up(session)
    assert all(torch.equal(before[k], v) for k, v in session.model.state_dict().items())


def test_epoch_0_is_what_the_warm_up_left(tmp_path, tiny):
    config = make_config(epochs=1)
    run = train_run(tmp_path / "key", config, tiny)
    session = make_session(config, tiny)
    train.warm_up(session)
    want, _ = clean_pass(session)
    table = pq.read_table(run.epoch_file(0))
    for name in QUANTITIES:
        got = table.column(f"clean_{name}").to_numpy()
        np.testing.assert_allclose(got, want[name].astype(got.dtype), err_msg=name)
        assert table.column(f"online_{name}").null_count == 96
    assert not table.column("shown").to_numpy().any()
    table = pq.read_table(run.epoch_file(1))
    train_rows = (tiny.samples["split"] == "train").to_numpy()
    assert table.column("shown").to_pylist() == train_rows.astype(int).tolist()
    assert (~np.asarray(table.column("online_loss").is_null()) == train_rows).all()


def recorded_draws(monkeypatch, **changes) -> dict:
    """Order and windows of each epoch, as (seed, epoch) -> numbers."""
    images, config = make_images(n_train=20, n_val=4), make_config(**changes)
    session, drawn = make_session(config, images), {}
    crop = augment.crop_parameters

    def noted(*args):
        drawn["windows"] = torch.cat(crop(*args), 1)
        return crop(*args[:-1], generator(config.augment_seed, epoch))

    monkeypatch.setattr(train.augment, "crop_parameters", noted)
    monkeypatch.setattr(train, "split_batches", lambda order, size: drawn.update(order=order) or [])
    result = {}
    for epoch in (1, 2):
        train.train_epoch(session, None, epoch)
        result[epoch] = (drawn["order"].tolist(), drawn["windows"].tolist())
    monkeypatch.undo()
    return result


def test_order_and_crops_depend_on_seed_and_epoch_alone(monkeypatch):
    base = recorded_draws(monkeypatch, seed=1)
    assert base[1][0] != base[2][0] and base[1][1] != base[2][1]
    assert sorted(base[1][0]) == list(range(20))
    torch.manual_seed(77)
    torch.rand(5)  # what the caller's generator does is without influence
    assert recorded_draws(monkeypatch, seed=1, arch="phantom_deit", lr=1e-2, epochs=9) == base
    other = recorded_draws(monkeypatch, seed=2)
    assert other[1][0] != base[1][0] and other[1][1] != base[1][1]
    no_crop = recorded_draws(monkeypatch, seed=1, crop_scale=1.0, flip=False, batch_size=3)
    assert no_crop[2][0] == base[2][0]  # augmentation does not shift the order


def test_the_callers_generator_is_left_alone(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    train_run(tmp_path / "key", make_config(epochs=1), make_images(20, 4))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_a_run_learns_and_its_metrics_say_so(tmp_path, tiny):
    rows = []
    config = make_config(epochs=4, lr=3e-3, batch_size=8, warmup_epochs=1)
    run = start_run(tmp_path / "key", config, tiny)
    train.fine_tune(config, tiny, run, CPU, amp=False, on_epoch=rows.append)
    assert run.metrics.to_dict("records") == rows and [r["epoch"] for r in rows] == list(range(5))
    assert rows[-1]["train_accuracy"] > rows[0]["train_accuracy"] + 0.15
    table, labels = pq.read_table(run.epoch_file(4)), tiny.samples["label"].to_numpy()
    hit = table.column("clean_predicted").to_numpy() == labels
    for split in ("train", "val"):
        at = tiny.rows(split)
        assert rows[-1][f"{split}_accuracy"] == pytest.approx(hit[at].mean())
        recalls = [hit[at][labels[at] == c].mean() for c in range(4)]
        assert rows[-1][f"{split}_balanced_accuracy"] == pytest.approx(np.mean(recalls))
        loss = table.column("clean_loss").to_numpy()[at].astype(float).mean()
        assert rows[-1][f"{split}_loss"] == pytest.approx(loss, rel=1e-3)
    logits = pq.read_table(run.folder / "heldout_logits.parquet").to_pandas().to_numpy()
    assert (logits.argmax(1) == table.column("clean_predicted").to_numpy()[tiny.rows("val")]).all()


@pytest.mark.parametrize(("epoch", "field", "rate"), [(1, "lr", 5e-4), (0, "warmup_lr", 1e-3)])
def test_a_loss_that_is_not_finite_ends_the_run_with_advice(
    tmp_path, monkeypatch, epoch, field, rate
):
    config, images = make_config(lr=5e-4, epochs=3), make_images(20, 4)
    run = start_run(tmp_path / "key", config, images)
    if epoch:
        monkeypatch.setattr(train, "learning_rate", lambda *args: math.nan)
    else:
        broken = torch.full((20, 176), math.nan)
        monkeypatch.setattr(train.models, "pooled_features", lambda *args: broken)
    wanted = rf"not finite at epoch {epoch} of key: lower {field} \({rate}\) or set amp='off'"
    with pytest.raises(FloatingPointError, match=wanted):
        train.fine_tune(config, images, run, CPU, amp=False)
    assert not run.epoch_file(epoch).exists() and not run.is_done
    assert epoch == 0 or run.progress() == "epoch 0"


def test_checkpoints_come_when_a_minute_has_passed(tmp_path, monkeypatch):
    config, images = make_config(epochs=3), make_images(20, 4)
    saved = []
    monkeypatch.setattr(train.RunDir, "save_checkpoint", lambda self, s: saved.append(s["epoch"]))
    train_run(tmp_path / "quick", config, images)
    assert saved == []
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    train_run(tmp_path / "slow", config, images)
    assert saved == [0, 1, 2]  # after the last epoch there is nothing left to resume
