"""Pretraining learns, resumes to the same weights and ships small files; the probe has a twin."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F

from retention_lib import lessons, paths, pretrain, probe
from retention_lib.models import PHANTOM_ARCHS, build_model, normalisation, pooled_features

SMALL = {"n": 48, "n_held_out": 24, "batch": 12, "log": lambda line: None}


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(PHANTOM_ARCHS))
def test_loss_falls_and_an_interrupted_run_ends_with_the_same_weights(arch, tmp_path):
    whole = pretrain.run(arch, 10, 3, tmp_path / "whole", **SMALL)
    assert whole["loss"] < whole["first_loss"]
    again = {**SMALL, "cache": tmp_path / "cache"}
    left = pretrain.run(arch, 10, 3, tmp_path / "parts", stop_after=4, **again)
    assert left["step"] == 4 and not (tmp_path / "parts").exists()
    parts = pretrain.run(arch, 10, 3, tmp_path / "parts", **again)
    assert parts["sha256"] == whole["sha256"] and parts["step"] == 10
    assert parts["accuracy"] == whole["accuracy"] and set(whole["accuracy"]) == set(
        lessons.QUESTIONS
    )
    assert not list((tmp_path / "cache").glob("*.pt"))


def test_files_hold_a_backbone_that_timm_takes_strictly(tmp_path):
    for arch in PHANTOM_ARCHS:
        record = pretrain.run(arch, 1, 0, tmp_path, **SMALL)
        path = tmp_path / f"{arch}.safetensors"
        assert record["bytes"] == path.stat().st_size < pretrain.MAX_BYTES
        tensors = load_file(path)
        assert {v.dtype for v in tensors.values()} <= {torch.float16, torch.int64}
        headless = build_model(arch, 0, 64, "none")
        headless.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=True)
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        loaded = build_model(arch, 5, 64, str(path))
        torch.testing.assert_close(pooled_features(loaded, x), pooled_features(headless, x))
    book = json.loads((tmp_path / "provenance.json").read_text())
    assert set(book) == set(PHANTOM_ARCHS)


@pytest.mark.parametrize("arch", sorted(PHANTOM_ARCHS))
def test_shipped_weights_are_those_of_the_provenance(arch):
    path = paths.PACKAGED_WEIGHTS / f"{arch}.safetensors"
    record = json.loads((paths.PACKAGED_WEIGHTS / "provenance.json").read_text())[arch]
    assert path.stat().st_size == record["bytes"] < pretrain.MAX_BYTES
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
    assert f"pretrain --arch {arch} --steps {record['config']['steps']}" in record["command"]
    assert set(record["accuracy"]) == set(lessons.QUESTIONS) and record["torch"] and record["date"]


@pytest.mark.parametrize("arch", sorted(PHANTOM_ARCHS))
def test_shipped_weights_know_the_source_world(arch):
    """A probe on fresh source pictures: well above random weights (chance is 2 %)."""
    images, answers = lessons.draw_source(700, 12345)
    label, rgb = answers[:, 0].numpy(), images[..., :3]
    sets = (rgb[:500], label[:500], rgb[500:], label[500:])
    trained = probe.linear_probe(build_model(arch, 5, 64), *sets)["accuracy"]
    random = probe.linear_probe(build_model(arch, 5, 64, "none"), *sets)["accuracy"]
    assert trained > random + 0.1


def test_cached_pictures_are_those_drawn_and_are_drawn_once(tmp_path):
    images, answers = lessons.draw_source(20, 5, tmp_path)
    fresh, same = lessons.draw_source(20, 5)
    np.testing.assert_array_equal(images, fresh)
    assert torch.equal(answers, same)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    lessons.draw_source(20, 5, tmp_path)
    assert path.stat().st_mtime_ns == before and path.stat().st_size < 20 * 64 * 64 * 4 + 200


def slow_loss(logits, answers):
    """Readable twin of `loss_of`: one picture and one question at a time."""
    total, start, factors = 0.0, 0, []
    for k, (name, size) in enumerate(lessons.QUESTIONS.items()):
        part = logits[:, start : start + size].log_softmax(1)
        start += size
        if name == "class":
            eps = lessons.LABEL_SMOOTHING
            for row, a in zip(part, answers[:, 0], strict=True):
                total += -((1 - eps) * row[a] + eps * row.mean()) / len(part)
            continue
        asked = [-row[a] for row, a in zip(part, answers[:, k], strict=True) if a >= 0]
        factors.append(sum(asked) / len(asked) if asked else 0.0)
    return total + lessons.FACTOR_WEIGHT * sum(factors) / len(factors)


def test_loss_agrees_with_its_slow_twin():
    generator = torch.Generator().manual_seed(0)
    for rows in (40, 3):  # with three pictures, some questions are asked of none
        answers = lessons.draw_source(rows, 1)[1]
        shape = (rows, sum(lessons.QUESTIONS.values()))
        logits = torch.randn(shape, generator=generator, dtype=torch.float64)
        found = lessons.loss_of(logits, answers)
        torch.testing.assert_close(found, slow_loss(logits, answers))


def test_patch_loss_is_the_entropy_at_best_and_reads_patches_row_by_row():
    roles = torch.zeros(1, 16, 16, dtype=torch.uint8)
    roles[0, :8, 8:] = 2  # the upper right patch of 2 x 2
    logits = torch.full((1, 4, 3), -30.0)
    logits[0, torch.arange(4), torch.tensor([0, 2, 0, 0])] = 30.0
    assert lessons.patch_loss(logits, roles) < 1e-6
    assert lessons.patch_loss(logits.flip(1), roles) > 10
    roles[0, 8:, :4] = 1  # now the lower left patch is half one role, half another
    logits[0, 2] = torch.tensor([30.0, 30.0, -30.0])
    torch.testing.assert_close(
        lessons.patch_loss(logits, roles), torch.tensor(np.log(2) / 4).float()
    )


def test_augmentation_moves_roles_with_the_picture_and_is_reproducible():
    images = np.zeros((64, 32, 32, 4), np.uint8)
    images[:, 10:20, 5:12] = 200
    x, roles = lessons.augment(images, torch.Generator().manual_seed(1))
    same, _ = lessons.augment(images, torch.Generator().manual_seed(1))
    assert torch.equal(x, same) and x.shape == (64, 3, 32, 32)
    bright = x[:, 0] > x[:, 0].mean((1, 2), keepdim=True)
    assert torch.equal(bright, roles == 200)
    left = roles[:, :, :16].float().mean((1, 2)) > roles[:, :, 16:].float().mean((1, 2))
    assert 0.3 < left.float().mean() < 0.7  # about half are flipped


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 60), st.integers(2, 4), st.integers(0, 9))
def test_each_round_shows_every_picture_at_most_once(n, batch, seed):
    per_round = n // batch
    for first in (0, per_round):
        rows = [pretrain._rows(first + k, n, batch, seed) for k in range(per_round)]
        shown = np.concatenate(rows)
        assert len(shown) == len(set(shown)) == per_round * batch and shown.max() < n


def test_learning_rate_warms_up_and_ends_near_zero():
    rates = [pretrain._schedule(k, 200) for k in range(200)]
    assert np.argmax(rates) in (9, 10) and max(rates) == 1
    assert rates[0] == 0.1 and rates[-1] < 1e-3


def slow_ridge(x, y, z, ridge):
    """Twin of the probe: ridge as least squares on weighted rows, padded with the penalty."""
    mean, spread = x.mean(0), np.maximum(x.std(0), 1e-6)  # some features are constant
    x, z = (x - mean) / spread, (z - mean) / spread
    counts = np.bincount(y)
    w = 1 / counts[y] / (1 / counts[y]).sum()
    root, width = np.sqrt(w)[:, None], x.shape[1]
    rows = np.vstack([root * np.c_[x, np.ones(len(x))], np.sqrt(ridge) * np.eye(width, width + 1)])
    target = np.vstack([root * np.eye(len(counts))[y], np.zeros((width, len(counts)))])
    solution = np.linalg.lstsq(rows, target, rcond=None)[0]
    return (np.c_[z, np.ones(len(z))] @ solution).argmax(1)


def imbalanced_images(rng, n, size=24):
    label = np.sort(rng.choice(3, n, p=[0.7, 0.2, 0.1]))
    pixels = rng.normal(120, 30, (n, size, size, 3))
    pixels[..., 0] += 6 * label[:, None, None]
    return pixels.clip(0, 255).astype(np.uint8), label


def test_probe_agrees_with_its_slow_twin_and_balances_classes():
    rng = np.random.default_rng(0)
    model = build_model("phantom_resnet18", 3, 24, "none")
    train, val = imbalanced_images(rng, 300), imbalanced_images(rng, 120)
    found = probe.linear_probe(model, *train, *val)
    x, z = (probe.features(model, images).numpy() for images in (train[0], val[0]))
    guess = slow_ridge(x, train[1], z, 1e-2)
    right = guess == val[1]
    assert found["accuracy"] == pytest.approx(right.mean())
    recalls = [right[val[1] == k].mean() for k in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found == probe.linear_probe(model, *train, *val) and found["n"] == 120


def test_features_are_in_evaluation_mode_and_leave_the_model_as_it_was():
    model = build_model("phantom_resnet18", 3, 32, "none").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = probe.features(model, images)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    mean, std = normalisation(model)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    twin = F.adaptive_avg_pool2d(model.eval().forward_features((x - mean) / std), 1).flatten(1)
    torch.testing.assert_close(found, twin.double())


def test_impossible_requests_say_what_was_expected():
    with pytest.raises(ValueError, match=r"phantom_deit.*got 'resnet18'"):
        pretrain.run("resnet18", 1)
    with pytest.raises(ValueError, match="steps=0"):
        pretrain.run("phantom_deit", 0)
    with pytest.raises(ValueError, match="n=3"):
        pretrain.run("phantom_deit", 1, n=3, batch=8)
    model = build_model("phantom_deit", 2, 64, "none")
    images = np.zeros((2, 64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="2 held-out images do not match 3 labels"):
        probe.linear_probe(model, images, [0, 1], images, [0, 1, 1])


def test_command_line_offers_its_options(capsys):
    with pytest.raises(SystemExit, match="0"):
        pretrain.main(["--help"])
    assert "--arch" in capsys.readouterr().out


def test_a_second_pretraining_starts_from_the_first_and_keeps_its_record(tmp_path):
    small = {"n": 64, "n_held_out": 32, "batch": 8, "log": lambda line: None}
    first = pretrain.run("phantom_deit", 2, 0, tmp_path, **small)
    start = tmp_path / "phantom_deit.safetensors"
    before = load_file(start)
    second = pretrain.run("phantom_deit", 1, 1, tmp_path, start_from=start, lr=1e-12, **small)
    assert second["started_from"]["sha256"] == first["sha256"]
    assert second["config"]["start_sha256"] == first["sha256"]
    assert "--start-from phantom_deit.safetensors" in second["command"]
    # A vanishing rate leaves the backbone as it was (but for the sign of zeros).
    after = load_file(start)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
