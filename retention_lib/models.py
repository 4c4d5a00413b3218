"""Networks by timm name, with weights from a local file, the package, or timm's download.

timm is imported where a network is built: that takes seconds, and reading results needs none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from retention_lib import paths

#: Networks small enough for two cores, built by timm from the study's own architectures. Their
#: weights ship with the package; `retention_lib.pretrain` made them.
PHANTOM_ARCHS = {
    "phantom_resnet18": ("resnet18", {"channels": (24, 48, 96, 176)}),
    "phantom_deit": (
        "deit_small_patch16_224",
        {"patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3},
    ),
}
PHANTOM_SIZE = 64  # [pixel] at which they were pretrained
PHANTOM_CFG = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def weights_source(arch: str, weights: str = "default") -> Path | str | None:
    """Where an architecture's weights come from.

    Returns
    -------
    Path of a safetensors file, the string "timm" (timm's download), or None (random weights).

    Raises
    ------
    ValueError
        If a named file does not exist or is not a safetensors file.
    """
    if weights == "none":
        return None
    if weights != "default":
        path = Path(weights).expanduser()
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(
                f"weights must be 'default', 'none' or a .safetensors file, got {weights!r}"
            )
        return path
    if arch in PHANTOM_ARCHS:
        return paths.PACKAGED_WEIGHTS / f"{arch}.safetensors"
    local = paths.data_root() / "weights" / f"{arch}.safetensors"
    return local if local.is_file() else "timm"


def build_model(
    arch: str, num_classes: int, input_size: int, weights: str = "default", seed: int = 0
) -> nn.Module:
    """Build a classifier with a freshly initialised head.

    Parameters
    ----------
    arch : str
        A name of `PHANTOM_ARCHS` or any name timm knows.
    input_size : int
        Height and width [pixel]; where a network has position embeddings, timm resamples them.
    weights : str
        `default` (package, then `weights/<arch>.safetensors` below the data root, then timm's
        download), `none`, or a safetensors file.
    seed : int
        Seeds the initialisation inside a forked generator: the caller's is left as it was.

    Returns
    -------
    nn.Module
        In evaluation mode; `model.pretrained_cfg` has the `mean` and `std` its input expects.
    """
    import timm

    name, kwargs = PHANTOM_ARCHS.get(arch, (arch, {}))
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:5])
        raise ValueError(f"timm has no model {name!r}; near it: {near or 'nothing'}")
    kwargs = dict(kwargs)
    cfg = timm.get_pretrained_cfg(name)
    if cfg is not None and cfg.fixed_input_size:
        kwargs["img_size"] = input_size
    source = weights_source(arch, weights)
    overlay = dict(PHANTOM_CFG) if arch in PHANTOM_ARCHS else {}
    if isinstance(source, Path):
        _require_safetensors(source)
        # A class count that no data set has makes timm drop the file's head, whatever its size.
        overlay |= {"file": str(source), "num_classes": -1, "custom_load": False}
    kwargs |= {"num_classes": num_classes, "pretrained_cfg_overlay": overlay or None}
    try:
        model = _create(name, seed, pretrained=source is not None, **kwargs)
    except Exception as error:
        if source != "timm":
            raise
        wanted = paths.data_root() / "weights" / f"{arch}.safetensors"
        raise RuntimeError(
            f"timm could not download weights for {arch!r} ({type(error).__name__}: {error}). "
            f"Put them at {wanted}, or set weights='none' to start from random ones."
        ) from error
    if isinstance(source, Path):
        _require_loaded(model, _create(name, seed, pretrained=False, **kwargs), source)
    return model.eval()


def _require_safetensors(source: Path) -> None:
    """Raise a ValueError that names the file unless its header fits its bytes."""
    try:
        with safe_open(source, framework="pt"):
            return
    except SafetensorError as error:
        raise ValueError(
            f"{source} is not a whole safetensors file ({error}): download or convert it again"
        ) from error


def _create(name: str, seed: int, **kwargs) -> nn.Module:
    """Build by timm with a seeded initialisation; the caller's generator is left as it was."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's: models are initialised there
        return timm.create_model(name, **kwargs)


def _require_loaded(model: nn.Module, fresh: nn.Module, source: Path) -> None:
    """Raise a ValueError if weights outside the head kept the values of their initialisation.

    timm skips tensors that it does not find in the file without a word.
    """
    heads = model.pretrained_cfg["classifier"]
    heads = (heads,) if isinstance(heads, str) else tuple(heads or ())
    pairs = zip(model.named_parameters(), fresh.parameters(), strict=True)
    backbone = [(n, p, q) for (n, p), q in pairs if p.ndim > 1 and not n.startswith(heads)]
    kept = [n for n, p, q in backbone if torch.equal(p, q)]
    if kept:
        raise ValueError(
            f"{source} must hold all {len(backbone)} weight tensors of the backbone, but "
            f"{len(kept)} are not in it, for instance {kept[0]!r}"
        )


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """Features (image, channel) that the classifier reads."""
    return model.forward_head(model.forward_features(images), pre_logits=True)


def normalisation(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (1, 3, 1, 1), on the 0..1 scale."""
    cfg = model.pretrained_cfg
    return tuple(torch.tensor(cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))


def weights_fingerprint(arch: str, weights: str = "default") -> str:
    """What a run's weights were: a hash of the file, the name of timm's download, or `random`."""
    source = weights_source(arch, weights)
    if source is None:
        return "random"
    if source == "timm":
        import timm

        cfg = timm.get_pretrained_cfg(arch)
        return f"timm:{arch}.{cfg.tag if cfg is not None else ''}"
    return "blake2b:" + hashlib.blake2b(source.read_bytes(), digest_size=8).hexdigest()
