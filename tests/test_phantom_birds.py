"""The phantom birds: exact counts, planted truth, determinism and the true class distances."""

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_lib.data import bird_species, phantom_birds
from retention_lib.data.imageset import SAMPLE_COLUMNS, ImageSet, sample_ids
from retention_lib.data.phantom_birds import CLASSES, GENUS, class_distances, draw, sample_table

DISTINCTIVE = ("ember_finch", "emerald_jay", "sickle_billed_stilt")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return sample_table(1200, seed=0)


def test_species_and_genera():
    assert len(CLASSES) == len(set(CLASSES)) == 24
    assert set(GENUS) == set(CLASSES)
    assert pd.Series(GENUS).value_counts().to_dict() == dict.fromkeys(
        ["warbler", "finch", "thrush", "wren", "jay", "stilt"], 4
    )


def test_every_mark_belongs_to_a_species():
    shape, parts, present, marks = bird_species.parameters()
    assert shape.shape == (24, len(bird_species.SHAPE))
    assert parts.shape == (24, len(bird_species.PARTS), 3)
    assert marks.shape == (24, len(bird_species.MARKS), 3)
    assert (present.sum(0) >= 1).all()
    everything = {*bird_species.SHAPE, *bird_species.PARTS, *bird_species.MARKS}
    assert len(everything) == 14 + 6 + 15  # no name means two things
    for own in bird_species._SPECIES.values():
        assert own and set(own) <= everything


def test_exact_counts_per_class_and_split(table):
    counts = table.groupby(["split", "label"]).size()
    assert (counts["train"] == 50).all() and len(counts["train"]) == 24
    assert counts["val"].sum() == 300 and set(counts["val"]) == {12, 13}
    assert table["split"].tolist() == ["train"] * 1200 + ["val"] * 300


@settings(max_examples=15, deadline=None)
@given(n=st.integers(24, 700), seed=st.integers(0, 2**31))
def test_any_size_is_balanced_and_noisy_by_the_share(n, seed):
    table = sample_table(n, seed)
    for split, count in {"train": n, "val": max(n // 4, 24)}.items():
        rows = table[table["split"] == split]
        per_class = rows["label"].value_counts()
        assert len(rows) == count and len(per_class) == 24
        assert per_class.max() - per_class.min() <= 1
        assert rows["planted_noisy"].sum() == round(phantom_birds.NOISE_SHARE * count)


def test_columns_ids_and_paths(table):
    assert [c for c in SAMPLE_COLUMNS if c not in table.columns] == ["content_hash"]
    assert table["sample_id"].is_unique and table["path"].is_unique
    assert table["sample_id"].tolist() == sample_ids(table["path"])
    assert (table["group"] == table["sample_id"]).all()
    folder = table["path"].str.split("/").str[0]
    assert folder.tolist() == [CLASSES[k] for k in table["label"]]  # the observed label
    assert table["path"].str.fullmatch(r"[a-z_]+/\d{4}\.png").all()


def test_planted_noise_is_exact_and_mostly_within_the_genus(table):
    truth, label = table["planted_true_label"], table["label"]
    assert (table["planted_noisy"] == (truth != label)).all()
    genus = np.array([GENUS[name] for name in CLASSES])
    for split, wrong, near in (("train", 60, 45), ("val", 15, 11)):
        rows = table[(table["split"] == split) & table["planted_noisy"]]
        assert len(rows) == wrong
        same = genus[rows["planted_true_label"]] == genus[rows["label"]]
        assert same.sum() == near


def test_planted_ranges(table):
    occlusion = table["planted_occlusion"]
    shown = occlusion[occlusion > 0]
    assert shown.between(*phantom_birds.OCCLUSION).all()
    assert abs(len(shown) / len(table) - phantom_birds.OCCLUDED_SHARE) < 0.05
    assert table["planted_contrast"].between(*phantom_birds.CONTRAST).all()
    assert table["planted_pose"].abs().max() <= phantom_birds.ROTATION
    assert table["planted_seed"].dtype == np.int64 and table["planted_seed"].is_unique
    nuisance = table[["planted_occlusion", "planted_contrast", "planted_pose"]]
    assert nuisance.corrwith(table["label"]).abs().max() < 0.1


def test_table_is_a_function_of_n_and_seed(table):
    pd.testing.assert_frame_equal(table, sample_table(1200, seed=0))
    assert (table["planted_seed"] != sample_table(1200, seed=1)["planted_seed"]).all()


@pytest.mark.parametrize("size", [64, 33])
def test_a_row_is_drawn_alike_in_any_batch_and_order(table, size):
    rows = table.iloc[np.linspace(0, 1499, 19).astype(int)]
    whole = draw(rows, size)
    assert whole.shape == (19, size, size, 3) and whole.dtype == np.uint8
    for batch in (1, 5, 16):
        np.testing.assert_array_equal(draw(rows, size, batch), whole)
    shuffled = np.random.default_rng(0).permutation(19)
    np.testing.assert_array_equal(draw(rows.iloc[shuffled], size), whole[shuffled])
    one_by_one = [draw(rows.iloc[[i]], size)[0] for i in range(19)]
    np.testing.assert_array_equal(np.stack(one_by_one), whole)


@pytest.mark.slow  # imports torch once more
def test_another_process_draws_the_same_bytes():
    code = (
        "import hashlib, torch; torch.set_num_threads(2);"
        "from retention_lib.data.phantom_birds import *;"
        "print(hashlib.sha256(draw(sample_table(24, 3)).tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(draw(sample_table(24, 3)).tobytes()).hexdigest()


def test_another_resolution_draws_the_same_scene(table):
    rows = table.iloc[::60]
    small, large = draw(rows, 64).astype(float), draw(rows, 128).astype(float)
    halved = large.reshape(len(rows), 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - small).mean() < 3.0  # grey levels of 255
    unrelated = np.abs(halved - np.roll(small, 1, axis=0)).mean()
    assert unrelated > 40


def test_planted_truth_is_what_is_drawn(table):
    rows = table.iloc[::50].copy()
    rows["planted_occlusion"] = 0.0
    bare = draw(rows).astype(int)
    hidden = []
    for share in (0.15, 0.3, 0.6):
        rows["planted_occlusion"] = share
        hidden.append((np.abs(draw(rows).astype(int) - bare).max(3) > 8).mean((1, 2)))
    assert (np.diff(np.stack(hidden), axis=0) > 0).mean() > 0.95
    rows["planted_occlusion"] = 0.0
    for column, value in (("planted_contrast", 0.2), ("planted_pose", 0.9)):
        changed = draw(rows.assign(**{column: value})).astype(int)
        assert (np.abs(changed - bare).mean((1, 2, 3)) > 2).all()
    flat = draw(rows.assign(planted_contrast=0.2)).std((1, 2))
    assert (flat < 0.6 * bare.std((1, 2))).mean() > 0.9


def test_species_of_a_genus_differ_in_few_pixels_and_genera_in_many():
    row = sample_table(24).iloc[[0]].assign(planted_occlusion=0.0, planted_pose=0.0)
    rows = pd.concat([row] * 24).assign(planted_true_label=np.arange(24), planted_contrast=1.0)
    pictures = draw(rows).astype(np.int16)
    changed = np.abs(pictures[:, None] - pictures[None]).max(4) > 24
    share = changed.mean((2, 3))
    genus = np.array([GENUS[name] for name in CLASSES])
    plain = [i for i, name in enumerate(CLASSES) if name not in DISTINCTIVE]
    same = genus[:, None] == genus[None]
    off = ~np.eye(24, dtype=bool)
    within = share[np.ix_(plain, plain)][(same & off)[np.ix_(plain, plain)]]
    assert within.min() > 0.001 and within.max() < 0.06
    assert share[~same].min() > within.max()


def test_class_distances_are_a_metric_that_knows_the_genera():
    distance = class_distances()
    assert distance.shape == (24, 24) and distance.dtype == np.float64
    np.testing.assert_array_equal(distance, distance.T)
    np.testing.assert_array_equal(np.diag(distance), 0)
    off = ~np.eye(24, dtype=bool)
    assert distance[off].min() > 0
    through = (distance[:, :, None] + distance[None]).min(1)  # triangle inequality
    assert (distance <= through + 1e-12).all()
    genus = np.array([GENUS[name] for name in CLASSES])
    same = genus[:, None] == genus[None]
    assert distance[same & off].mean() < 0.75 * distance[~same].mean()
    nearest = np.where(off, distance, np.inf).min(1)
    odd = [CLASSES.index(name) for name in DISTINCTIVE]
    assert nearest[odd].min() > np.median(nearest)


def test_class_distances_match_a_plain_loop():
    shape, parts, present, marks = (x.double().numpy() for x in bird_species.parameters())
    blocks = [[], [], []]
    for k in range(24):
        blocks[0].append([*shape[k]])
        blocks[1].append([*parts[k].ravel()])
        blocks[2].append(
            [x for m, c in zip(present[k], marks[k], strict=True) for x in (m, *m * c)]
        )
    for i, j in ((0, 1), (3, 7), (12, 23)):
        total = 0.0
        for block in map(np.array, blocks):
            used = [c for c in range(block.shape[1]) if block[:, c].std() > 0]
            terms = [((block[i, c] - block[j, c]) / block[:, c].std()) ** 2 for c in used]
            total += sum(terms) / len(used)
        assert class_distances()[i, j] == pytest.approx(total**0.5, rel=1e-12)


def test_the_backdrop_does_not_leak_the_class(table):
    """A nearest-mean classifier of the picture's corners does no better than chance."""
    train, val = (table[table["split"] == s] for s in ("train", "val"))
    corners = [
        draw(x, 16)[:, [0, 0, 1, -1], [0, -1, 0, -1]].reshape(len(x), -1) for x in (train, val)
    ]
    label = train["label"].to_numpy()
    means = np.stack([corners[0][label == k].mean(0) for k in range(24)])
    guess = ((corners[1][:, None] - means[None]) ** 2).sum(2).argmin(1)
    hits = (guess == val["planted_true_label"]).sum()
    assert hits < 300 / 24 + 4 * (300 / 24) ** 0.5  # chance plus four standard deviations


def test_it_makes_an_image_set():
    table = sample_table(24)
    table.insert(5, "content_hash", "")
    birds = ImageSet("phantom_birds", "24", CLASSES, table, draw(table, 16))
    assert birds.size == 16 and len(birds.rows("train")) == len(birds.rows("val")) == 24


@pytest.mark.parametrize("n", [0, -5, 23, 100.0, "100", True, None])
def test_wrong_n(n):
    with pytest.raises(ValueError, match=r"n must be an integer >= 24.*got"):
        sample_table(n)


def test_wrong_drawing_arguments(table):
    with pytest.raises(ValueError, match="size and batch must be at least 1, got 0 and 256"):
        draw(table, 0)
    with pytest.raises(ValueError, match="size and batch must be at least 1, got 64 and 0"):
        draw(table, 64, 0)
    with pytest.raises(ValueError, match=r"planted_true_label must lie in 0\.\.23, got 24\.\.24"):
        draw(table.iloc[:1].assign(planted_true_label=24))
    assert draw(table.iloc[:0]).shape == (0, 64, 64, 3)
