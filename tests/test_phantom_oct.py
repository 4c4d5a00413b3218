"""The phantom OCT: exact counts, planted truth, determinism, and pictures that show their class."""

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retention_lib.data import phantom_oct
from retention_lib.data.imageset import SAMPLE_COLUMNS, ImageSet, sample_ids
from retention_lib.data.phantom_oct import CLASSES, LESIONS, class_distances, draw, sample_table

SHARE = np.array(phantom_oct.OCTDL_COUNTS) / 2064


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return sample_table(1200, seed=0)


def of_class(table, name, **planted):
    """Rows of one true class with planted values overwritten."""
    rows = table[table["planted_true_label"] == CLASSES.index(name)]
    return rows.assign(**{f"planted_{k}": v for k, v in planted.items()})


def counts(table, split, column="label"):
    return np.bincount(table.loc[table["split"] == split, column], minlength=7).tolist()


def test_counts_are_octdls(table):
    assert CLASSES == ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")
    assert sum(phantom_oct.OCTDL_COUNTS) == 2064
    assert counts(table, "train") == [716, 85, 90, 193, 13, 59, 44]
    assert counts(table, "val") == [179, 21, 23, 48, 3, 15, 11]
    assert counts(sample_table(2064), "train") == list(phantom_oct.OCTDL_COUNTS)
    assert counts(sample_table(70), "train") == [37, 5, 5, 11, 4, 4, 4]
    assert counts(sample_table(56), "val") == [2] * 7
    large = counts(sample_table(20_640), "train")
    assert large == [10 * c for c in phantom_oct.OCTDL_COUNTS]
    assert round(max(large) / min(large)) == 56


@settings(max_examples=12, deadline=None)
@given(n=st.integers(56, 3000), seed=st.integers(0, 2**32))
def test_table_invariants(n, seed):
    table = sample_table(n, seed)
    assert list(table.columns[:6]) == [c for c in SAMPLE_COLUMNS if c != "content_hash"]
    assert (table["split"] == "train").sum() == n and len(table) == n + n // 4
    assert all(table[c].is_unique for c in ("sample_id", "path", "planted_seed"))
    assert table["sample_id"].tolist() == sample_ids(table["path"])
    patients = table.groupby("group")
    assert patients["split"].nunique().max() == 1
    assert patients["planted_true_label"].nunique().max() == 1
    assert patients.size().between(1, 6).all()
    for column in ("label", "planted_true_label"):
        assert table.groupby(["split", column])["group"].nunique().min() >= 2
        assert table.groupby(["split", column]).ngroups == 14
    for name in ("severity", "occlusion"):
        assert table[f"planted_{name}"].between(0, 1).all()
    assert table["planted_pose"].between(-1, 1).all()


@settings(max_examples=12, deadline=None)
@given(n=st.integers(56, 3000), seed=st.integers(0, 2**32))
def test_label_noise_is_exact_recorded_and_balanced(n, seed):
    table = sample_table(n, seed)
    swapped = table["label"] != table["planted_true_label"]
    assert (swapped == table["planted_noisy"]).all()
    for split, total in (("train", n), ("val", n // 4)):
        expected = 2 * round(phantom_oct.NOISE_SHARE * total / 2)
        assert swapped[table["split"] == split].sum() == expected
        assert counts(table, split) == counts(table, split, "planted_true_label")
    folder = table["path"].str.split("/").str[0]
    assert (folder == np.array(CLASSES)[table["label"]]).all()  # the path shows what was observed
    assert table[swapped].groupby("group").size().max() <= 1


def test_noise_is_plausible():
    table = sample_table(20_000)
    noisy = table[table["planted_noisy"]]
    d = class_distances()
    seen = d[noisy["planted_true_label"], noisy["label"]].mean()
    partners = SHARE * (1 - np.eye(7)) / (1 - SHARE)[:, None]
    blind = (d * partners).sum(1)[noisy["planted_true_label"]]
    assert seen < blind.mean() - 0.05  # nearer than a partner drawn by frequency alone


def test_nuisances_do_not_know_the_class():
    table = sample_table(20_000)
    for name in ("occlusion", "contrast", "pose"):
        value = table[f"planted_{name}"]
        means = value.groupby(table["planted_true_label"]).agg(["mean", "sem"])
        z = (means["mean"] - value.mean()) / means["sem"]
        assert z.abs().max() < 6, name  # poses are shared within patients: sem is too small


def test_mild_cases_are_common(table):
    sick = table[table["planted_true_label"] != CLASSES.index("NO")]
    low, high = phantom_oct.SEVERITY_RANGE
    assert sick["planted_severity"].between(low / 2, 1).all()
    assert 0.1 < (sick["planted_severity"] < low + (high - low) / 3).mean() < 0.5
    between = sick.groupby("group")["planted_severity"].mean().std()
    within = sick.groupby("group")["planted_severity"].std().mean()
    assert between > 2 * within > 0
    assert (of_class(table, "NO")["planted_severity"] == 0).all()


@pytest.mark.parametrize("n", [-1, 0, 7, 55])
def test_too_few_images_is_an_error(n):
    with pytest.raises(ValueError, match=rf"at least 56 .*got {n}"):
        sample_table(n)


def test_draw_refuses_nonsense(table):
    with pytest.raises(ValueError, match="planted_pose"):
        draw(table.drop(columns="planted_pose"))
    with pytest.raises(ValueError, match="got 8 and 256"):
        draw(table, size=8)
    with pytest.raises(ValueError, match="got 64 and 0"):
        draw(table, batch=0)


def test_distances_are_a_metric():
    d = class_distances()
    assert d.shape == (7, 7) and (d == d.T).all() and (np.diag(d) == 0).all()
    assert d[~np.eye(7, dtype=bool)].min() > 0.5
    assert (d[:, :, None] <= d[:, None, :] + d.T[None] + 1e-12).all()
    dme, rvo, no = (CLASSES.index(c) for c in ("DME", "RVO", "NO"))
    assert np.delete(d[rvo], rvo).argmin() == np.delete(np.arange(7), rvo).tolist().index(dme)
    assert d[no].sum() == d.sum(1).min()  # the healthy eye lies in the middle


def test_distances_follow_from_the_lesion_table():
    slow = np.zeros((7, 7))
    for i, a in enumerate(CLASSES):
        for j, b in enumerate(CLASSES):
            for of in LESIONS.values():
                (sa, ca), (sb, cb) = of.get(a, (0, 0)), of.get(b, (0, 0))
                slow[i, j] += (sa * ca - sb * cb) ** 2
    np.testing.assert_allclose(class_distances(), np.sqrt(slow), rtol=1e-12)


def test_bytes_do_not_depend_on_batch_or_neighbours(table):
    rows = table.iloc[::37].head(24)
    want = draw(rows, batch=256)
    assert want.dtype == np.uint8 and want.shape == (24, 64, 64, 3)
    for batch in (1, 7, 16):
        assert (draw(rows, batch=batch) == want).all(), batch
    assert (draw(rows[::-1])[::-1] == want).all()
    assert (draw(rows.iloc[[5]], batch=3)[0] == want[5]).all()
    assert (draw(rows.head(5), size=160, batch=1) == draw(rows.head(5), size=160)).all()


@pytest.mark.slow  # three threads on two busy cores wait for each other
def test_bytes_do_not_depend_on_threads(table):
    threads, drawn = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            drawn.append(draw(table.tail(11)))
    finally:
        torch.set_num_threads(threads)
    assert (drawn[0] == drawn[1]).all()


def test_same_bytes_in_another_process():
    code = (
        "import hashlib; from retention_lib.data.phantom_oct import *; t = sample_table(60, 3);"
        "print(hashlib.sha256(t.to_csv().encode() + draw(t.head(24)).tobytes()).hexdigest())"
    )
    table = sample_table(60, 3)
    here = hashlib.sha256(table.to_csv().encode() + draw(table.head(24)).tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here
    other = sample_table(60, 4)  # another seed is another data set
    assert not set(table["planted_seed"]) & set(other["planted_seed"])


def test_another_resolution_shows_the_same_scene(table):
    rows = table.iloc[::31].head(32)
    small = draw(rows, 64).astype(float)[..., 0]
    large = draw(rows, 128).astype(float)[..., 0].reshape(32, 64, 2, 64, 2).mean((2, 4))
    assert np.abs(small - large).mean() < 8
    together = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, large, strict=True)]
    apart = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, large[::-1], strict=True)
    ]
    assert min(together) > 0.95 > 0.9 > np.median(apart)


def test_pictures_are_grey_distinct_and_layered(table):
    pictures = draw(table.iloc[::17])
    assert (pictures == pictures[..., :1]).all()
    assert len({p.tobytes() for p in pictures}) == len(pictures)
    grey = pictures[..., 0].astype(float)
    assert (grey[:, :8].mean((1, 2)) < 60).all()  # vitreous
    assert (grey.max((1, 2)) > 110).all()  # a bright layer somewhere


def test_severity_is_what_makes_the_disease_visible(table):
    """At severity 0 every class draws the healthy eye; what is visible grows with severity."""
    for name in set(CLASSES) - {"NO"}:
        rows = of_class(table, name, occlusion=0.0).head(12)
        none, mild, severe = (
            draw(rows.assign(planted_severity=s)).astype(float) for s in (0.0, 0.2, 1.0)
        )
        healthy = draw(rows.assign(planted_true_label=CLASSES.index("NO"), planted_severity=0.0))
        assert (none == healthy).all(), name
        change = [np.abs(p - none).mean() for p in (mild, severe)]
        assert 0 < 2 * change[0] < change[1] and change[1] > 3, (name, change)


def test_planted_nuisances_change_the_picture_as_named(table):
    rows = of_class(table, "NO", occlusion=0.0, contrast=1.0, pose=0.0).head(16)
    plain = draw(rows).astype(float)[..., 0]
    hidden = draw(rows.assign(planted_occlusion=1.0)).astype(float)[..., 0]
    assert ((hidden - plain).mean((1, 2)) < -1).all()
    assert (hidden <= plain + 25).mean() > 0.99
    faint = draw(rows.assign(planted_contrast=0.5)).astype(float)[..., 0]
    assert (faint.std((1, 2)) < 0.7 * plain.std((1, 2))).all()
    centre = []
    for pose in (-1.0, 1.0):  # height of the light on the left minus on the right
        grey = draw(rows.assign(planted_pose=pose)).astype(float)[..., 0]
        height = (np.arange(64)[:, None] * grey**2).sum(1) / (grey**2).sum(1)
        centre.append((height[:, :16].mean(1) - height[:, -16:].mean(1)).mean())
    assert centre[0] > 4 and centre[1] < -4


def test_patients_share_their_anatomy(table):
    """Two images of a healthy patient are more alike than images of two patients."""
    rows = of_class(table, "NO", occlusion=0.0, contrast=1.0, pose=0.0)
    rows = rows[rows.groupby("group")["path"].transform("size") >= 2].groupby("group").head(2)
    grey = draw(rows).astype(float)[..., 0].reshape(len(rows) // 2, 2, -1)
    grey -= grey.mean(-1, keepdims=True)
    same = np.abs(grey[:, 0] - grey[:, 1]).mean()
    other = np.abs(grey[:, 0] - np.roll(grey[:, 1], 1, axis=0)).mean()
    assert same < 0.97 * other


def test_fits_an_image_set(table):
    rows, pictures = table.head(10), draw(table.head(10))
    samples = rows.assign(content_hash=rows["sample_id"])
    assert ImageSet("phantom_oct", "10", CLASSES, samples, pictures).size == 64
