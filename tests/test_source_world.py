"""The source world: deterministic by row, labelled truthfully, and apart from the phantoms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_lib.data import source_world
from retention_lib.data.source_paint import ROLES, colour_of, numbers
from retention_lib.data.source_shapes import SHAPES
from retention_lib.data.source_world import CLASSES, FACTORS, THINGS, draw, sample_table


def test_classes_are_many_distinct_and_not_those_of_the_phantoms():
    assert len(CLASSES) == len(set(CLASSES)) == 49 and len(THINGS) == 33
    forbidden = ("bird", "retina", "drusen", "cyst", "macula", "amd", "dme", "beak", "wing")
    assert not [c for c in CLASSES if any(word in c for word in forbidden)]


def test_table_is_a_prefix_of_a_longer_one_and_changes_with_the_seed():
    short, long = sample_table(30, 5), sample_table(90, 5)
    assert short.equals(long.head(30))
    assert not short.equals(sample_table(30, 6))
    assert sample_table(2000)["seed"].is_unique


def test_factors_apply_where_they_should():
    table = sample_table(6000, 1)
    thing = table["label"] < len(THINGS)
    for name, values in FACTORS.items():
        present = table[name] >= 0
        assert table[name].between(-1, len(values) - 1).all()
        assert set(table.loc[present, name]) == set(range(len(values)))
        on_ground = name in ("layers", "relief", "extent", "count")
        assert not (present & (thing == on_ground)).any()
    assert (table.loc[table["mark"] == 0, "mark_place"] == -1).all()
    assert (table.loc[table["label"] == CLASSES.index("ground_layers"), "count"] == -1).all()
    share = table["label"].value_counts(normalize=True)
    assert share.min() > 0.5 / len(CLASSES) and share.max() < 2 / len(CLASSES)


def test_a_row_is_drawn_the_same_alone_and_among_others():
    table = sample_table(40, 2)
    together = draw(table)
    assert together.shape == (40, 64, 64, 3) and together.dtype == np.uint8
    np.testing.assert_array_equal(draw(table, batch=3), together)
    chosen = [31, 4, 17]
    np.testing.assert_array_equal(draw(table.iloc[chosen]), together[chosen])
    with_roles = draw(table, roles=True)
    np.testing.assert_array_equal(with_roles[..., :3], together)
    assert with_roles[..., 3].max() < len(ROLES)


def test_a_picture_means_the_same_at_twice_the_resolution():
    table = sample_table(60, 3)
    small = draw(table, 48).astype(float)
    large = draw(table, 96).reshape(60, 48, 2, 48, 2, 3).mean((2, 4))
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, large, strict=True)]
    assert np.median(alike) > 0.9  # pixel noise and fine texture differ, the picture does not


def test_every_class_is_drawn_with_its_own_roles_and_has_contrast():
    table = sample_table(1500, 4).drop_duplicates("label").sort_values("label")
    assert len(table) == len(CLASSES)
    pictures = draw(table, 32, roles=True)
    assert (pictures[..., :3].reshape(len(table), -1).std(1) > 2).all()
    for label, roles in zip(table["label"], pictures[..., 3], strict=True):
        shown = {ROLES[k] for k in np.unique(roles)}
        if label < len(THINGS):
            assert "body" in shown and not shown & {"layer_even", "layer_odd", "finding"}
        else:
            assert shown & {"layer_even", "layer_odd"} and not shown & {"body", "mark"}


def test_mark_and_finding_are_where_the_table_says():
    table = sample_table(1200, 7)
    marked = draw(table, 48, roles=True)[..., 3] == ROLES.index("mark")
    has_mark = (table["mark"] > 0).to_numpy()
    assert not marked[~has_mark].any()
    assert marked[has_mark].any((1, 2)).mean() > 0.97  # few are hidden by the blocking shape


def test_colour_alone_does_not_decide_the_class():
    """Nearest class mean of the mean colour: the twin of a network that sees colour only."""
    table = sample_table(2400, 8)
    colour = draw(table, 16).reshape(len(table), -1, 3).mean(1)
    label, half = table["label"].to_numpy(), 1200
    means = np.stack([colour[:half][label[:half] == k].mean(0) for k in range(len(CLASSES))])
    guess = ((colour[half:, None] - means) ** 2).sum(2).argmin(1)
    assert (guess == label[half:]).mean() < 0.08  # chance is 0.02


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_fit_the_unit_square(name):
    axis = torch.linspace(-1.5, 1.5, 61)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    p = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    parts = SHAPES[name](u.expand(8, -1, -1), v.expand(8, -1, -1), p)
    assert {role for role, _ in parts} <= {"body", "part", "dark"}
    assert "body" in {role for role, _ in parts}
    for _, distance in parts:
        inside = (distance < 0).expand(8, 61, 61)
        assert inside.any((1, 2)).all()
        assert not (inside & (torch.maximum(u.abs(), v.abs()) > 1.05)).any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.integers(1, 9))
def test_numbers_are_uniform_and_each_row_depends_on_its_seed_alone(seeds, stream):
    table = numbers(torch.tensor(seeds), 6, stream)
    assert table.shape == (len(seeds), 6) and 0 <= table.min() and table.max() < 1
    torch.testing.assert_close(table[-1:], numbers(torch.tensor(seeds[-1:]), 6, stream))


def test_colours_stay_in_range_and_grow_lighter():
    light = torch.linspace(0, 1, 11)
    for hue in range(len(source_world.HUES)):
        rgb = colour_of(torch.full((11,), hue), light)
        assert 0 <= rgb.min() and rgb.max() <= 1
        assert (rgb.mean(1).diff() > -1e-6).all()


def test_no_pictures_is_an_error():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sample_table(0)
