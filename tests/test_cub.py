"""CUB-200-2011: official lists, named subsets, every kind of broken input, and the real data."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from retention_lib.data import cub, known

ROOT = os.environ.get("RETENTION_DATA", "")
needs_real = pytest.mark.skipif(
    not (Path(ROOT) / "CUB_200_2011").is_dir(),
    reason="RETENTION_DATA names no folder with CUB_200_2011/",
)
CLASSES = ("003.Sooty_Albatross", "004.Groove_billed_Ani", "005.Crested_Auklet")


@pytest.fixture
def layout(tmp_path):
    """Three classes, 3 training and 2 test images each; returns CUB_200_2011/."""
    folder = tmp_path / "CUB_200_2011"
    lists = {name: [] for name in cub.LISTS}
    number = 0
    for c, name in enumerate(CLASSES, start=3):
        (folder / "images" / name).mkdir(parents=True)
        lists["classes.txt"].append(f"{c} {name}")
        for k in range(5):
            number += 1
            pixels = np.random.default_rng(number).integers(0, 256, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"bird_{k}.jpg")
            lists["images.txt"].append(f"{number} {name}/bird_{k}.jpg")
            lists["image_class_labels.txt"].append(f"{number} {c}")
            lists["train_test_split.txt"].append(f"{number} {int(k < 3)}")
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_named_subset(layout, tmp_path):
    samples, classes, variant, excluded = cub.sample_table(tmp_path)
    assert classes == CLASSES and variant == "classes-003-005" and len(excluded) == 0
    assert samples.groupby(["label", "split"]).size().tolist() == [3, 2, 3, 2, 3, 2]
    held = samples["path"].str.contains("bird_[34]")
    assert ((samples["split"] == "val") == held).all()
    assert (samples["group"] == samples["sample_id"]).all()
    pd.testing.assert_frame_equal(samples, cub.sample_table(layout)[0])
    data = cub.load(tmp_path, 8, tmp_path / "cache")
    assert data.images.shape == (15, 8, 8, 3) and data.identity.startswith("cub/classes-003-005/")


def test_a_subset_with_gaps_gets_a_hash(layout):
    for name in cub.LISTS:
        text = (layout / name).read_text().splitlines()
        keep = [x for k, x in enumerate(text) if not ((k == 1) if len(text) == 3 else 5 <= k < 10)]
        (layout / name).write_text("\n".join(keep))
    with pytest.warns(UserWarning, match="1 x not listed"):
        samples, classes, variant, excluded = cub.sample_table(layout)
    assert len(samples) == 10 and len(classes) == 2
    assert variant.startswith("classes-2-") and len(variant) == len("classes-2-") + 8
    assert excluded.to_numpy().tolist() == [[CLASSES[1], "not listed: not a class of classes.txt"]]


def test_unusable_files_are_listed_and_change_the_variant(layout):
    images = layout / "images"
    first, second, third = CLASSES
    (images / first / "bird_0.jpg").write_bytes(b"")
    (images / first / "bird_1.jpg").unlink()
    cut = images / second / "bird_1.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    edit(layout / "image_class_labels.txt", "\n11 5", "\n11 4")  # third/bird_0 said to be an ani
    shutil.copy(images / third / "bird_1.jpg", images / third / "bird_1_rgb.jpg")
    with pytest.warns(UserWarning, match="cub: left out"):
        samples, _, variant, excluded = cub.sample_table(layout)
    assert {path: reason.split(":")[0] for path, reason in excluded.itertuples(index=False)} == {
        f"{first}/bird_0.jpg": "empty file",
        f"{first}/bird_1.jpg": "no file",
        f"{second}/bird_1.jpg": "broken image",
        f"{third}/bird_0.jpg": "mislabelled",
        f"{third}/bird_1_rgb.jpg": "not listed",
    }
    assert len(samples) == 11 and variant.startswith("classes-003-005-without-4-")


def test_identical_files_on_both_sides_are_kept_with_a_warning(layout):
    folder = layout / "images" / CLASSES[0]
    shutil.copy(folder / "bird_0.jpg", folder / "bird_4.jpg")
    with pytest.warns(UserWarning, match="1 sets of byte-identical images lie on both sides"):
        assert len(cub.sample_table(layout)[0]) == 15


def _append(name, line):
    return lambda folder: (folder / name).open("a").write(line + "\n")


def _no_val(folder):
    edit(folder / "train_test_split.txt", "\n4 0\n5 0", "\n4 1\n5 1")


@pytest.mark.filterwarnings("ignore:cub. left out")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), r"no CUB-200-2011 below .*found \[\]"),
        (lambda f: (f / "classes.txt").unlink(), r"lacks \['classes.txt'\]"),
        (lambda f: shutil.rmtree(f / "images"), r"lacks \['images'\]"),
        (lambda f: shutil.rmtree(f / "images" / CLASSES[1]), "1 classes without a folder"),
        (_append("images.txt", "3 x/y.jpg"), r"images.txt: id \['3'\] is listed more than once"),
        (_append("images.txt", "99 x/y.jpg"), r"list different ids, for example \['99'\]"),
        (_append("images.txt", "100"), r"expected '<id> <value>' on each line, got \['100'\]"),
        (
            lambda f: edit(
                f / "images.txt", "2 003.Sooty_Albatross/bird_1", f"2 {CLASSES[0]}/bird_0"
            ),
            "bird_0.jpg'] more than once",
        ),
        (lambda f: edit(f / "train_test_split.txt", "\n4 0", "\n4 2"), "expected 0 or 1, got '2'"),
        (
            lambda f: edit(f / "image_class_labels.txt", "\n4 3", "\n4 9"),
            r"classes \['9'\], not in",
        ),
        (_no_val, r"no usable val image in 1 classes: \['003.Sooty_Albatross'\]"),
    ],
)
def test_what_cannot_be_trusted_is_an_error(layout, damage, message):
    damage(layout)
    with pytest.raises(ValueError, match=message):
        cub.sample_table(layout.parent)


def test_variant_of_all_classes(monkeypatch, layout):
    monkeypatch.setattr(cub, "N_CLASSES", 3)
    assert cub.sample_table(layout)[2].startswith("images-15-")
    monkeypatch.setattr(cub, "N_IMAGES", 15)
    assert cub.sample_table(layout)[2] == "official"


@pytest.mark.parametrize("place", ["attributes", ".", ".."])
def test_class_attributes(layout, place):
    (layout / "attributes").mkdir()
    values = np.arange(200 * 312).reshape(200, 312) / 1000
    np.savetxt(layout / "attributes" / "class_attribute_labels_continuous.txt", values)
    with pytest.raises(ValueError, match=r"lacks attributes\.txt"):
        cub.class_attributes(layout)
    names = "".join(f"{k + 1} has_part::{k}\n" for k in range(312))
    (layout / place / "attributes.txt").write_text(names)
    table = cub.class_attributes(layout)
    assert table.shape == (3, 312) and tuple(table.index) == CLASSES
    assert np.allclose(table.to_numpy(), values[2:5])  # rows by class id, not by position
    (layout / place / "attributes.txt").write_text("1 has_part::0\n")
    with pytest.raises(ValueError, match=r"got \(200, 312\) and 1 names"):
        cub.class_attributes(layout)


@pytest.mark.real
@needs_real
def test_real_cub(tmp_path):
    samples, classes, variant, excluded = cub.sample_table(ROOT, tmp_path)
    known.check_identity("cub", variant, classes, samples)
    if variant == "classes-001-050":
        assert samples["split"].value_counts().to_dict() == {"train": 1500, "val": 1389}
        assert len(excluded) == 0
        assert samples["content_hash"].is_unique
    else:
        assert variant == "official" and len(samples) == 11_788
        assert samples["split"].value_counts().to_dict() == {"train": 5994, "val": 5794}
    attributes = cub.class_attributes(ROOT)
    assert attributes.shape == (len(classes), 312) and tuple(attributes.index) == classes
    assert attributes.to_numpy().min() >= 0 and attributes.to_numpy().max() <= 100
    # Two albatrosses are more alike than an albatross and a goldfinch.
    row = attributes.loc
    near = np.corrcoef(row["001.Black_footed_Albatross"], row["003.Sooty_Albatross"])[0, 1]
    far = np.corrcoef(row["001.Black_footed_Albatross"], row["047.American_Goldfinch"])[0, 1]
    assert near > 0.8 > far
