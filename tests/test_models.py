"""Networks: weights that are really loaded, heads that are really new, seeds that stay inside."""

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from retention_lib import models, paths

HEADS = ("fc.", "head.")
HAS_DATA = bool(os.environ.get("RETENTION_DATA"))
NO_DATA = "RETENTION_DATA is not set: no real weights"


def build(arch="phantom_resnet18", classes=3, size=32, weights="none", seed=0):
    return models.build_model(arch, classes, size, str(weights), seed)


def backbone(state: dict) -> dict:
    return {k: v for k, v in state.items() if not k.startswith(HEADS)}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module", params=sorted(models.PHANTOM_ARCHS))
def donor(request, tmp_path_factory):
    """An architecture with a file of its weights for 5 classes at 32 px."""
    state = build(request.param, classes=5, seed=7).state_dict()
    # no tensor may equal its initialisation, buffers included
    state = {k: v + 1 if v.dtype == torch.int64 else v * 1.5 + 0.01 for k, v in state.items()}
    path = tmp_path_factory.mktemp("weights") / "donor.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return request.param, path, state


def test_a_local_file_is_loaded_tensor_by_tensor(donor):
    arch, path, state = donor
    loaded = backbone(build(arch, weights=path).state_dict())
    assert len(loaded) > 70 and same(loaded, backbone(state))


@pytest.mark.parametrize("classes", [3, 5, 1000])
def test_the_files_head_is_dropped_whatever_its_size(donor, classes):
    arch, path, state = donor
    head = build(arch, classes, weights=path).get_classifier()
    assert head.weight.shape[0] == classes and head.bias.abs().max() < 0.2
    fresh = build(arch, classes).get_classifier()
    assert torch.equal(head.weight, fresh.weight)  # of the seed, not of the file
    if classes == 5:
        assert not torch.equal(
            head.weight, next(v for k, v in state.items() if k in ("fc.weight", "head.weight"))
        )


def test_default_weights_of_a_phantom_network_ship_with_the_package():
    for arch in models.PHANTOM_ARCHS:
        assert models.weights_source(arch) == paths.PACKAGED_WEIGHTS / f"{arch}.safetensors"


def test_default_weights_come_from_the_data_root_then_from_timm(donor, tmp_path, monkeypatch):
    monkeypatch.setenv("RETENTION_DATA", str(tmp_path))
    assert models.weights_source("resnet18") == "timm"
    assert models.weights_fingerprint("resnet18").startswith("timm:resnet18.")
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "resnet18.safetensors"
    file.write_bytes(donor[1].read_bytes())
    assert models.weights_source("resnet18") == file
    assert models.weights_fingerprint("resnet18") == models.weights_fingerprint("x", str(donor[1]))


def test_fingerprints_tell_files_apart(donor, tmp_path):
    arch, path, _ = donor
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    prints = {models.weights_fingerprint(arch, str(w)) for w in (path, other, "none")}
    assert len(prints) == 3 and "random" in prints


@pytest.mark.parametrize("name", ["missing.safetensors", "here.pt", "defualt"])
def test_weights_that_are_no_file_are_refused(name, tmp_path):
    (tmp_path / "here.pt").write_bytes(b"")
    given = str(tmp_path / name) if "." in name else name
    with pytest.raises(ValueError, match=r"'default', 'none' or a .safetensors file, got") as error:
        build(weights=given)
    assert repr(given) in str(error.value)


def test_a_file_of_another_network_is_refused_not_ignored(donor, tmp_path):
    arch, path, _ = donor
    stranger = tmp_path / "stranger.safetensors"
    save_file({"x": torch.zeros(3)}, stranger)
    with pytest.raises(ValueError, match=r"must hold all \d+ weight tensors of the backbone"):
        build(arch, weights=stranger)
    state = load_file(path)
    lost = next(k for k in state if k.endswith(("conv2.weight", "qkv.weight")))
    state.pop(lost)
    save_file(state, stranger)
    with pytest.raises(ValueError, match=rf"but 1 are not in it, for instance '{lost}'"):
        build(arch, weights=stranger)


def test_a_broken_file_is_an_error(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(Exception, match=r"(?i)header|deserial"):
        build(weights=broken)


def test_a_failed_download_says_where_weights_belong(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("unreachable")

    monkeypatch.setenv("RETENTION_DATA", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", no_network)
    wanted = str(tmp_path / "weights" / "resnet18.safetensors")
    with pytest.raises(RuntimeError, match=r"could not download .*OSError: unreachable") as error:
        build("resnet18", weights="default")
    assert wanted in str(error.value) and "weights='none'" in str(error.value)


def test_unknown_network_lists_near_ones():
    with pytest.raises(ValueError, match=r"no model 'resnet19'") as error:
        build("resnet19")
    assert "near it: " in str(error.value)


@pytest.mark.parametrize("arch", sorted(models.PHANTOM_ARCHS))
def test_initialisation_is_a_function_of_the_seed(arch):
    a, b, c = (build(arch, seed=s).state_dict() for s in (1, 1, 2))
    assert same(a, b)
    head = next(k for k in a if k.startswith(HEADS) and k.endswith("weight"))
    assert not torch.equal(a[head], c[head])


def test_the_callers_generator_is_left_alone(donor):
    arch, path, _ = donor
    before = torch.get_rng_state()
    build(arch, weights=path, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_come_in_evaluation_mode():
    assert not any(m.training for m in build().modules())


def test_position_embeddings_are_resampled_to_the_input_size(tmp_path):
    state = build("phantom_deit", size=64, seed=7).state_dict()
    state = {k: v * 1.5 + 0.01 for k, v in state.items()}
    path = tmp_path / "deit.safetensors"
    save_file(state, path)
    loaded = build("phantom_deit", size=32, weights=path).state_dict()
    old, new = state["pos_embed"], loaded["pos_embed"]
    assert old.shape == (1, 1 + 64, 96) and new.shape == (1, 1 + 16, 96)
    assert torch.equal(new[:, 0], old[:, 0])  # the class token has no place in the picture
    grid = old[:, 1:].reshape(1, 8, 8, 96).permute(0, 3, 1, 2)
    twin = F.interpolate(grid, (4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(new[:, 1:], twin.flatten(2).transpose(1, 2))
    others = {k for k in loaded if k not in ("pos_embed", "head.weight", "head.bias")}
    assert all(torch.equal(loaded[k], state[k]) for k in others)


@pytest.mark.parametrize("arch", sorted(models.PHANTOM_ARCHS))
@pytest.mark.parametrize("size", [32, 64])
def test_the_head_reads_the_pooled_features(arch, size):
    model = build(arch, size=size)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = models.pooled_features(model, images)
        torch.testing.assert_close(model.get_classifier()(features), model(images))
    assert features.shape == (4, {"phantom_resnet18": 176, "phantom_deit": 96}[arch])


def test_normalisation_is_what_the_weights_expect():
    mean, std = models.normalisation(build())
    assert mean.shape == std.shape == (1, 3, 1, 1)
    assert mean.flatten().tolist() == [0.5] * 3 and std.flatten().tolist() == [0.25] * 3
    mean, std = models.normalisation(build("resnet18"))
    torch.testing.assert_close(mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


@pytest.mark.real
@pytest.mark.skipif(not HAS_DATA, reason=NO_DATA)
@pytest.mark.parametrize(
    ("arch", "sample", "mean"),
    [
        ("resnet18", "layer3.0.conv2.weight", 0.485),
        ("vit_tiny_patch16_224", "blocks.5.attn.qkv.weight", 0.5),
    ],
)
def test_real_weights_are_loaded_at_128_px(arch, sample, mean):
    file = Path(os.environ["RETENTION_DATA"]) / "weights" / f"{arch}.safetensors"
    assert models.weights_source(arch) == file.resolve()
    model, want = build(arch, 7, 128, "default"), load_file(file)
    state = backbone(model.state_dict())
    assert torch.equal(state[sample], want[sample])
    moved = {k for k in state if k in want and not torch.equal(state[k], want[k])}
    assert moved == ({"pos_embed"} if "vit" in arch else set())
    if "vit" in arch:
        assert state["pos_embed"].shape == (1, 65, 192) and want["pos_embed"].shape[1] == 197
    assert model.get_classifier().weight.shape[0] == 7
    assert float(models.normalisation(model)[0][0, 0]) == pytest.approx(mean)
