"""OCTDL: the split by patient and content, every kind of broken input, and the real data."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from retention_lib.data import decode, known, octdl
from retention_lib.data.imageset import SAMPLE_COLUMNS

ROOT = os.environ.get("RETENTION_DATA", "")
needs_real = pytest.mark.skipif(
    not (Path(ROOT) / "octdl").is_dir(), reason="RETENTION_DATA names no folder with octdl/"
)


def save(path, seed, side=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=60)


@pytest.fixture
def layout(tmp_path):
    """Three classes, 6 patients each with 1..3 images; returns the root."""
    rows, seed = [], 0
    for c, name in enumerate(("AMD", "NO", "RAO")):
        for patient in range(6):
            for k in range(1 + patient % 3):
                file = f"{name.lower()}_{c}{patient}_{k}"
                save(tmp_path / "octdl" / "OCTDL" / name / f"{file}.jpg", seed := seed + 1)
                rows.append((file, name, f"{c}{patient}"))
    write_csv(tmp_path, pd.DataFrame(rows, columns=["file_name", "disease", "patient_id"]))
    return tmp_path


def write_csv(root, table):
    table.to_csv(root / "octdl" / octdl.TABLE, index=False)


def read_csv(root):
    return pd.read_csv(root / "octdl" / octdl.TABLE, dtype=str, keep_default_na=False)


def image(root, name):
    return root / "octdl" / "OCTDL" / name


def test_a_good_layout(layout):
    samples, classes, variant, excluded = octdl.sample_table(layout)
    assert classes == ("AMD", "NO", "RAO") and len(samples) == 36 and len(excluded) == 0
    assert tuple(samples.columns) == (*SAMPLE_COLUMNS, "patient")
    assert variant.startswith("images-36-")
    assert samples["path"].is_monotonic_increasing
    assert (
        samples["path"].str.split("/").str[0] == samples["label"].map(dict(enumerate(classes)))
    ).all()
    assert (samples["group"] == samples["patient"]).all()  # no duplicates: a group is a patient
    patients = samples.groupby(["label", "split"])["patient"].nunique()
    assert patients.min() >= 2 and samples.groupby("patient")["split"].nunique().max() == 1


def test_root_may_be_the_folder_itself(layout):
    one, other = octdl.sample_table(layout)[0], octdl.sample_table(layout / "octdl")[0]
    pd.testing.assert_frame_equal(one, other)


def test_load_returns_images_in_the_order_of_the_samples(layout, tmp_path):
    data = octdl.load(layout, 12, tmp_path / "cache")
    assert data.images.shape == (36, 12, 12, 3) and data.name == "octdl"
    for row in (0, 17, 35):
        file = image(layout, data.samples["path"][row])
        assert np.array_equal(data.images[row], decode.square(Image.open(file), 12, "squash"))


def test_the_split_ignores_row_order_and_pixel_values(layout):
    before = octdl.sample_table(layout)[0]
    write_csv(layout, read_csv(layout).sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(before, octdl.sample_table(layout)[0])
    for k, path in enumerate(before["path"]):  # as if every image had been shrunk
        save(image(layout, path), 1000 + k, side=16)
    after = octdl.sample_table(layout)[0]
    assert (after["split"] == before["split"]).all() and (after["group"] == before["group"]).all()
    assert (after["content_hash"] != before["content_hash"]).all()


def test_identical_files_join_patients(layout):
    first = octdl.sample_table(layout)[0]
    train = first[(first["label"] == 0) & (first["split"] == "train")].iloc[0]
    val = first[(first["label"] == 0) & (first["split"] == "val")].iloc[0]
    shutil.copy(image(layout, train["path"]), image(layout, val["path"]))
    told = []
    samples = octdl.sample_table(layout, log=told.append)[0]
    joined = samples[samples["patient"].isin([train["patient"], val["patient"]])]
    assert joined["group"].nunique() == 1 and joined["split"].nunique() == 1
    assert told[1:] == ["1 sets of byte-identical images, 1 of them across patients"]
    sets = octdl.duplicates(samples)
    assert sets[["n", "patients", "labels", "splits"]].to_numpy().tolist() == [[2, 2, 1, 1]]


def test_identical_files_in_two_classes_are_kept_with_a_warning(layout):
    shutil.copy(image(layout, "AMD/amd_00_0.jpg"), image(layout, "NO/no_10_0.jpg"))
    with pytest.warns(UserWarning, match="1 sets of byte-identical images have two labels"):
        samples = octdl.sample_table(layout)[0]
    assert samples.groupby("content_hash")["split"].nunique().max() == 1


def test_unusable_files_are_listed_and_change_the_variant(layout):
    (good := image(layout, "AMD/amd_02_0.jpg")).write_bytes(good.read_bytes()[:200])
    image(layout, "AMD/amd_02_1.jpg").write_bytes(b"")
    image(layout, "NO/no_12_0.jpg").unlink()
    save(image(layout, "NO/no_99_9.jpg"), 77)
    image(layout, "RAO/rao_22_0.jpg").rename(image(layout, "NO/rao_22_0.jpg"))
    for name in ("AMD", "NO"):
        image(layout, f"{name}/Thumbs.db").write_bytes(b"x")
        image(layout, f"{name}/.DS_Store").write_bytes(b"x")
    table = read_csv(layout)
    table.loc[table["file_name"] == "rao_25_0", "patient_id"] = " "
    write_csv(layout, table)
    with pytest.warns(UserWarning, match="octdl: left out .*2 x not an image"):
        samples, _, variant, excluded = octdl.sample_table(layout)
    reasons = dict(excluded.itertuples(index=False))
    assert {path: reason.split(":")[0] for path, reason in reasons.items()} == {
        "AMD/Thumbs.db": "not an image",
        "AMD/amd_02_0.jpg": "broken image",
        "AMD/amd_02_1.jpg": "empty file",
        "NO/Thumbs.db": "not an image",
        "NO/no_12_0": "no file",
        "NO/no_99_9.jpg": "not listed",
        "NO/rao_22_0.jpg": "mislabelled",
        "RAO/rao_25_0.jpg": "no patient",
    }
    assert reasons["NO/rao_22_0.jpg"] == "mislabelled: folder NO, OCTDL_labels.csv says RAO"
    assert len(samples) == 36 - 5 and variant.startswith("images-31-")
    assert not set(excluded["path"]) & set(samples["path"])


def _drop_column(root):
    write_csv(root, read_csv(root).drop(columns="patient_id"))


def _repeat_row(root):
    write_csv(root, pd.concat([read_csv(root), read_csv(root).iloc[[4]]]))


def _same_name_twice(root):
    shutil.copy(image(root, "AMD/amd_00_0.jpg"), image(root, "NO/amd_00_0.jpg"))


def _one_image_left(root):
    for path in sorted((root / "octdl/OCTDL/RAO").iterdir())[1:]:
        path.unlink()


def _three_patients(root):
    for path in (root / "octdl/OCTDL/RAO").glob("rao_2[012]_*"):
        path.unlink()


def _no_images(root):
    shutil.rmtree(root / "octdl/OCTDL")
    (root / "octdl/OCTDL").mkdir()


@pytest.mark.filterwarnings("ignore:octdl. left out")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "octdl" / octdl.TABLE).unlink(),
            r"no OCTDL below .*found \['octdl'\]",
        ),
        (lambda root: shutil.rmtree(root / "octdl"), r"expected octdl/OCTDL/<CLASS>.*found \[\]"),
        (_drop_column, r"lacks the columns \['patient_id'\]; it has \['file_name', 'disease'\]"),
        (_repeat_row, "more than once; ids must be unique"),
        (_same_name_twice, "same file name in two places: .*AMD/amd_00_0.jpg.*NO/amd_00_0.jpg"),
        (_no_images, "no class folder with images"),
        (_one_image_left, "class RAO has 1 images in 1 independent groups; the split needs 2"),
        (_three_patients, "class RAO has 6 images in 3 independent groups"),
    ],
)
def test_what_cannot_be_trusted_is_an_error(layout, damage, message):
    damage(layout)
    with pytest.raises(ValueError, match=message):
        octdl.sample_table(layout)


def test_variant_names(monkeypatch, layout):
    monkeypatch.setattr(octdl, "COUNTS", {"AMD": 12, "NO": 12, "RAO": 12})
    monkeypatch.setattr(decode, "check_identity", lambda *a: None)
    assert octdl.sample_table(layout)[2] == "official"
    save(image(layout, "NO/no_99_9.jpg"), 77)
    with pytest.warns(UserWarning, match="1 x not listed"):
        assert octdl.sample_table(layout)[2] == "official"  # a stray file changes nothing
    image(layout, "NO/no_99_9.jpg").unlink()
    image(layout, "NO/no_12_0.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 x empty file"):
        assert octdl.sample_table(layout)[2].startswith("official-without-1-")
    shutil.rmtree(image(layout, "NO"))
    assert octdl.sample_table(layout)[2] == "classes-AMD-RAO"


@pytest.mark.real
@needs_real
def test_real_octdl(tmp_path):
    samples, classes, variant, excluded = octdl.sample_table(ROOT, tmp_path)
    assert variant == "official" and len(samples) == 2064 and len(excluded) == 0
    counts = Counter(classes[label] for label in samples["label"])
    assert counts == {
        "AMD": 1231, "NO": 332, "ERM": 155, "DME": 147, "RVO": 101, "VID": 76, "RAO": 22,
    }  # fmt: skip
    assert samples["patient"].nunique() == 820
    sets = octdl.duplicates(samples)
    assert len(sets) == 55 and (sets["patients"] > 1).sum() == 47
    assert (sets["splits"] == 1).all() and (sets["labels"] == 1).all()
    for column in ("patient", "content_hash", "group"):
        assert samples.groupby(column)["split"].nunique().max() == 1
    assert samples.groupby(["label", "split"])["patient"].nunique().min() >= 2
    share = samples.assign(val=samples["split"] == "val").groupby("label")["val"].mean()
    assert share.between(0.17, 0.23).all()
    known.check_identity("octdl", variant, classes, samples)


@pytest.mark.real
@needs_real
def test_real_octdl_differs_from_a_split_by_patient_alone(tmp_path):
    samples = octdl.sample_table(ROOT, tmp_path)[0]
    # What the split protects from: with patients alone, identical images end up on both sides.
    labels, patients = samples["label"], samples["patient"]
    alone = octdl.grouped_split(labels, patients, tuple("abcdefg"), at_least=2)
    leaks = samples.assign(split=alone).groupby("content_hash")["split"].nunique()
    assert (leaks > 1).sum() > 5
