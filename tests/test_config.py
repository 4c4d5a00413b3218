"""Settings: strict about names, types and values; keys and seeds that never move."""

import dataclasses
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention_lib.config import (
    ALL_ARMS,
    LITERAL,
    PROFILES,
    RETENTION,
    Profile,
    RunConfig,
    Study,
    TraceConvention,
    profile,
)

#: Another valid value of every field of `RunConfig`.
OTHER = {
    "dataset": "cub",
    "arch": "deit_small_patch16_224",
    "seed": 1,
    "n_train": 500,
    "input_size": 128,
    "weights": "none",
    "warmup_epochs": 10,
    "warmup_lr": 2e-3,
    "epochs": 12,
    "batch_size": 64,
    "lr": 3e-4,
    "schedule": "constant",
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "crop_scale": 1.0,
    "flip": False,
    "amp": "off",
    "deterministic": True,
    "sampler": "loss_proportional",
    "presentations": 0.5,
}
STUDY = Study(
    base={"epochs": 5},
    datasets=("phantom_oct", "cub"),
    archs=("resnet18", "vit_tiny_patch16_224"),
    seeds=(0, 1, 2),
    overrides={"cub": {"lr": 2e-4}, "vit_tiny_patch16_224": {"lr": 1e-5, "batch_size": 8}},
)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown name 'epoch', did you mean 'epochs'") as error:
        RunConfig.from_dict({"dataset": "cub", "epoch": 3})
    assert "RunConfig" in str(error.value) and "'warmup_epochs'" in str(error.value)
    with pytest.raises(ValueError, match=r"unknown name 'zzz'\. Known"):
        RunConfig("cub").replace(zzz=1)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", True, "int"),
        ("epochs", 3.0, "int"),
        ("epochs", np.int64(3), "int"),
        ("lr", "1e-3", "float"),
        ("lr", np.float64(1e-3), "float"),
        ("lr", False, "float"),
        ("flip", 1, "bool"),
        ("flip", np.True_, "bool"),
        ("dataset", None, "str"),
        ("n_train", "72", "int or NoneType"),
        ("n_train", True, "int or NoneType"),
    ],
)
def test_wrong_type_quotes_both_sides(name, value, expected):
    wanted = rf"RunConfig\.{name} must be {expected}, got {re.escape(repr(value))}"
    with pytest.raises(ValueError, match=wanted):
        RunConfig.from_dict({"dataset": "cub", name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", ""),
        ("arch", ""),
        ("seed", -1),
        ("n_train", 0),
        ("input_size", 15),
        ("epochs", 0),
        ("warmup_epochs", -1),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("warmup_lr", 10.0),
        ("weight_decay", -0.1),
        ("clip_norm", float("inf")),
        ("crop_scale", 0.0),
        ("crop_scale", 1.01),
        ("schedule", "linear"),
        ("sampler", "leitnerr"),
        ("presentations", 0.0),
        ("presentations", 1.5),
        ("presentations", float("nan")),
        ("recall_threshold", 1.0),
        ("recall_threshold", 0.7),  # uniform sampling does not read it
        ("pilot_seed", 1),
        ("amp", "fp16"),
    ],
)
def test_impossible_value_quotes_both_sides(name, value):
    wanted = rf"RunConfig\.{name} must be .+, got {re.escape(repr(value))}$"
    with pytest.raises(ValueError, match=wanted):
        RunConfig.from_dict({"dataset": "cub", name: value})


def test_whole_numbers_are_accepted_where_floats_belong():
    config = RunConfig("cub", lr=1, weight_decay=0)
    assert type(config.lr) is float and type(config.weight_decay) is float
    assert config.key() == RunConfig("cub", lr=1.0, weight_decay=0.0).key()


def test_configuration_is_frozen_and_round_trips():
    config = RunConfig("octdl", arch="resnet18", seed=4, n_train=None)
    assert RunConfig.from_dict(config.to_dict()) == config
    assert config.replace(seed=5).seed == 5 and config.seed == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


def test_seeds_follow_the_formula():
    config = RunConfig("cub", seed=3)
    assert (config.model_seed, config.order_seed, config.augment_seed) == (31, 32, 33)


def test_seeds_are_disjoint_over_runs():
    runs = [RunConfig("cub", seed=s) for s in range(1000)]
    seeds = {s for c in runs for s in (c.model_seed, c.order_seed, c.augment_seed)}
    assert len(seeds) == 3000


def test_key_is_pinned():
    # If this fails, stored runs are no longer found: raise SCHEMA_VERSION, then pin the new keys.
    phantom = RunConfig("phantom_oct", n_train=72, warmup_epochs=20)
    assert phantom.key("x") == "phantom_oct-resnet18-s0-f78fbe9778"
    real = RunConfig("octdl", arch="deit_small_patch16_224", seed=11, warmup_epochs=20)
    assert real.key() == "octdl-deit_small_patch16_224-s11-2dce260274"


def test_key_is_the_same_under_any_hash_seed():
    code = "from retention_lib.config import RunConfig as R; print(R('cub', lr=0.3).key('id'))"
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4242")
    }
    assert keys == {RunConfig("cub", lr=0.3).key("id")}


def test_every_field_is_part_of_the_key():
    names = {f.name for f in dataclasses.fields(RunConfig)}
    assert names - set(OTHER) == {"recall_threshold", "pilot_seed"}  # of some samplers only
    base = RunConfig("octdl")
    spaced = base.replace(sampler="spaced", presentations=0.5)
    other = base.replace(sampler="spaced_other_seed", presentations=0.5, pilot_seed=3)
    keys = [
        base.key("a"),
        base.key("b"),
        *(base.replace(**{k: v}).key("a") for k, v in OTHER.items()),
        *(c.key("a") for c in (spaced, spaced.replace(recall_threshold=0.7))),
        *(c.key("a") for c in (other, other.replace(pilot_seed=4))),
    ]
    assert len(set(keys)) == len(OTHER) + 6


def test_fields_that_came_later_leave_earlier_keys_and_settings_alone():
    config = RunConfig("octdl")
    assert not {"presentations", "recall_threshold", "pilot_seed"} & set(config.to_dict())
    assert RunConfig.from_dict({**config.to_dict(), "presentations": 1}) == config
    half = config.replace(presentations=0.5)
    assert half.to_dict()["presentations"] == 0.5 and half.key() != config.key()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sampler": "spaced"},
            r"must be in \(0, 1\) for the sampler 'spaced', got 1",
        ),
        ({"sampler": "leitner", "recall_threshold": 0.3}, r"recall_threshold must be left alone"),
        (
            {"sampler": "spaced_other_seed"},
            r"a seed other than .*\(0\), got None",
        ),
        (
            {"sampler": "spaced_other_seed", "pilot_seed": 0},
            r"than the run's own \(0\), got 0",
        ),
        (
            {"sampler": "spaced", "pilot_seed": 2},
            r"must be None for the sampler 'spaced'",
        ),
    ],
)
def test_settings_that_a_sampler_does_not_read_are_refused(settings, message):
    if "spaced" != settings["sampler"] or "pilot_seed" in settings:
        settings = {"presentations": 0.5, **settings}
    with pytest.raises(ValueError, match=message):
        RunConfig("cub", **settings)


def test_a_pilot_is_the_uniform_run_with_otherwise_the_same_settings():
    shared = {"presentations": 0.5, "lr": 3e-4, "seed": 2}
    spaced = RunConfig("cub", sampler="spaced_shuffled", recall_threshold=0.3, **shared)
    assert spaced.pilot() == RunConfig("cub", **shared)
    other = RunConfig("cub", sampler="spaced_other_seed", pilot_seed=5, **shared)
    assert other.pilot() == RunConfig("cub", **shared).replace(seed=5)
    assert RunConfig("cub", sampler="leitner", **shared).pilot() is None


def test_arms_are_a_part_of_the_grid():
    arms = ("uniform", "spaced", "spaced_other_seed")
    base = {"presentations": 0.5, "recall_threshold": 0.4}
    study = STUDY.replace(base=base, arms=arms, archs=("resnet18",))
    configs = study.configs()
    assert len(configs) == 2 * 3 * 3 and len({c.key() for c in configs}) == 18
    assert [c.sampler for c in configs[:9:3]] == list(arms)
    assert [c.recall_threshold for c in configs[:9:3]] == [0.5, 0.4, 0.4]
    assert [(c.seed, c.pilot_seed) for c in configs[6:9]] == [(0, 1), (1, 2), (2, 0)]
    assert {p for c in configs if (p := c.pilot())} <= set(configs)
    assert STUDY.replace(base={"sampler": "loss_proportional"}).configs()[0].seed == 0
    with pytest.raises(ValueError, match=r"\['sampler'\] are set by the study's grid"):
        STUDY.replace(base={"sampler": "leitner"}, arms=arms)
    with pytest.raises(ValueError, match=r"arms must be without repeats"):
        STUDY.replace(arms=("uniform", "uniform"))
    with pytest.raises(ValueError, match=r"needs two seeds or more, got \(0,\)"):
        study.replace(seeds=(0,))


def test_every_profile_has_a_sampling_study_that_starts_with_uniform():
    for found in PROFILES.values():
        configs = found.sampling.configs()
        assert configs[0].sampler == "uniform" and {c.presentations for c in configs} == {0.5}
        assert set(found.sampling.datasets) <= set(found.study.datasets)
    assert len(PROFILES["smoke"].sampling.configs()) == 4
    assert min(PROFILES["real"].sampling.seeds) >= 10 and "oracle" not in ALL_ARMS
    with pytest.raises(ValueError, match=r"Profile.sampling must be a study whose first arm"):
        Profile("x", STUDY, 10, True, STUDY)


@given(st.integers(0, 10**6), st.floats(1e-8, 9.9), st.integers(1, 10**4))
def test_equal_settings_have_equal_keys_and_others_do_not(seed, lr, epochs):
    config = RunConfig("cub", seed=seed, lr=lr, epochs=epochs)
    assert config.key() == RunConfig.from_dict(config.to_dict()).key()
    assert config.key() != config.replace(epochs=epochs + 1).key()
    assert f"-s{seed}-" in config.key()


def test_a_folder_is_known_by_its_content_not_its_path():
    here, there = RunConfig("folder:/a/pets"), RunConfig("folder:/b/pets")
    assert here.key("folder/pets/1") == there.key("folder/pets/1")
    assert here.key("folder/pets/1") != there.key("folder/pets/2")
    assert here.key().startswith("folder-resnet18-s0-")


def test_key_is_one_folder_name_for_hub_models():
    assert "/" not in RunConfig("cub", arch="hf-hub:timm/resnet18.a1_in1k").key()


def test_study_is_a_full_grid_seeds_innermost():
    configs = STUDY.configs()
    assert len(configs) == 2 * 2 * 3 and len({c.key() for c in configs}) == 12
    assert [c.seed for c in configs[:4]] == [0, 1, 2, 0]
    assert [c.dataset for c in configs[::6]] == ["phantom_oct", "cub"]
    assert {c.epochs for c in configs} == {5}


def test_overrides_apply_to_their_part_and_architecture_wins():
    rates = {(c.dataset, c.arch): (c.lr, c.batch_size) for c in STUDY.configs()}
    assert rates == {
        ("phantom_oct", "resnet18"): (1e-4, 32),
        ("phantom_oct", "vit_tiny_patch16_224"): (1e-5, 8),
        ("cub", "resnet18"): (2e-4, 32),
        ("cub", "vit_tiny_patch16_224"): (1e-5, 8),
    }


def test_study_replace_merges_base_and_drops_overrides_of_what_left():
    small = STUDY.replace(base={"input_size": 64}, archs=("resnet18",), seeds=(7,))
    assert small.base == {"epochs": 5, "input_size": 64} and STUDY.base == {"epochs": 5}
    assert small.overrides == {"cub": {"lr": 2e-4}}
    assert [(c.dataset, c.lr, c.seed) for c in small.configs()] == [
        ("phantom_oct", 1e-4, 7),
        ("cub", 2e-4, 7),
    ]
    assert STUDY.replace(overrides={}).configs()[-1].lr == 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 0)}, r"Study.seeds must be non-empty without repeats, got \(0, 0\)"),
        ({"archs": (), "overrides": {}}, r"Study.archs must be non-empty"),
        ({"datasets": "cub", "overrides": {}}, r"Study.datasets must be tuple of str, got 'cub'"),
        ({"seeds": [0, 1]}, r"Study.seeds must be tuple of int, got \[0, 1\]"),
        ({"seeds": (0, True)}, r"Study.seeds must be tuple of int, got \(0, True\)"),
        ({"overrides": {"cubs": {"lr": 1e-3}}}, r"unknown name 'cubs', did you mean 'cub'"),
        (
            {"overrides": {"cub": {"epoch": 3}}},
            r"RunConfig: unknown name 'epoch', did you mean 'epochs'",
        ),
        ({"base": {"epochs": 0}}, r"RunConfig.epochs must be >= 1, got 0"),
        ({"base": {"seed": 3}}, r"\['seed'\] are set by the study's grid"),
        ({"seed": (1,)}, r"Study.replace: unknown name 'seed', did you mean 'seeds'"),
    ],
)
def test_impossible_study_is_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        STUDY.replace(**changes)


def test_profiles_are_the_three_of_the_design():
    sizes = {name: len(p.study.configs()) for name, p in PROFILES.items()}
    assert sizes == {"smoke": 8, "phantom": 12, "real": 20}
    assert [p.name for p in PROFILES.values()] == list(PROFILES)
    assert [p.is_phantom for p in PROFILES.values()] == [True, True, False]
    assert min(profile("real").study.seeds) >= 10  # a pilot has seen seeds 0 to 2
    assert {c.input_size for c in profile("real").study.configs()} == {224}
    assert {c.n_train for c in profile("phantom").study.configs()} == {600}


def test_unknown_profile_and_wrong_draws():
    with pytest.raises(ValueError, match=r"unknown name 'smok', did you mean 'smoke'"):
        profile("smok")
    with pytest.raises(ValueError, match=r"Profile.draws must be int, got 1000.0"):
        Profile("x", STUDY, 1000.0, True)
    with pytest.raises(ValueError, match=r"Profile.draws must be > 0, got 0"):
        Profile("x", STUDY, 0, True)


def test_conventions_are_fixed():
    assert (LITERAL.origin, LITERAL.signal, LITERAL.population, LITERAL.view) == (
        "epoch_0",
        "raw",
        "all",
        "clean",
    )
    assert (RETENTION.origin, RETENTION.population) == ("first_learned", "ever_learned")
    with pytest.raises(ValueError, match=r"TraceConvention.signal must be one of .* got 'rwa'"):
        TraceConvention(signal="rwa")
