"""Image folders, and the grouped split that every reader shares."""

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retention_lib.data import folder
from retention_lib.data.imageset import split_hash


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 26, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def plain(tmp_path):
    """Two classes with 10 images each, one of them in a folder below."""
    root = tmp_path / "pets"
    for c, name in enumerate(("cat", "dog")):
        for k in range(10):
            save(root / name / ("more" if k == 9 else "") / f"{k}.png", 100 * c + k)
    return root


@pytest.fixture
def given_split(tmp_path):
    root = tmp_path / "pets"
    for s, side in enumerate(("train", "val")):
        for c, name in enumerate(("cat", "dog")):
            for k in range(3):
                save(root / side / name / f"{k}.png", 1000 * s + 100 * c + k)
    return root


def test_a_plain_folder_is_split_by_content(plain, tmp_path):
    samples, classes, variant, excluded = folder.sample_table(plain)
    assert classes == ("cat", "dog") and variant == "hash-split" and len(excluded) == 0
    assert samples.groupby(["label", "split"]).size().to_dict() == {
        (0, "train"): 8, (0, "val"): 2, (1, "train"): 8, (1, "val"): 2,
    }  # fmt: skip
    assert "cat/more/9.png" in set(samples["path"])
    data = folder.load(plain, 8, tmp_path / "cache")
    assert data.name == "folder:pets" and data.images.shape == (20, 8, 8, 3)
    assert data.identity == f"folder:pets/hash-split/{split_hash(samples)}"


def test_the_split_follows_the_content_not_the_place(plain):
    before = folder.sample_table(plain)[0].set_index("content_hash")["split"]
    for path in sorted((plain / "cat").glob("*.png")):
        path.rename(path.with_name(f"renamed-{path.name}"))
    after = folder.sample_table(plain)[0].set_index("content_hash")["split"]
    assert after.to_dict() == before.to_dict()


def test_identical_files_stay_together(plain):
    for k in range(4):
        shutil.copy(plain / "cat/0.png", plain / f"cat/copy-{k}.png")
    samples = folder.sample_table(plain)[0]
    assert samples.groupby("content_hash")["split"].nunique().max() == 1
    assert samples["group"].nunique() == 20


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_given_splits(given_split, name):
    (given_split / "val").rename(given_split / name)
    samples, classes, variant, _ = folder.sample_table(given_split)
    assert variant == "given-split" and classes == ("cat", "dog")
    held = samples["path"].str.startswith(f"{name}/")
    assert held.sum() == 6 and ((samples["split"] == "val") == held).all()


def test_a_leak_in_a_given_split_is_kept_with_a_warning(given_split):
    shutil.copy(given_split / "train/cat/0.png", given_split / "val/dog/0.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(folder.sample_table(given_split)[0]) == 12
    told = sorted(str(w.message) for w in caught)
    assert told == [
        "folder:pets: 1 sets of byte-identical images lie on both sides of the split",
        "folder:pets: 1 sets of byte-identical images lie under two classes",
    ]


def test_unusable_files_are_listed(plain, given_split):
    (plain / "cat/1.png").write_bytes((plain / "cat/1.png").read_bytes()[:100])
    (plain / "cat/notes.txt").write_text("x")
    (plain / "dog/.hidden.png").write_bytes(b"")
    (plain / "dog/link.png").symlink_to(plain / "nowhere.png")
    (plain / "README.md").write_text("x")
    shutil.rmtree(plain / "train"), shutil.rmtree(plain / "val")
    with pytest.warns(UserWarning, match="left out"):
        samples, _, _, excluded = folder.sample_table(plain)
    assert {path: reason.split(":")[0] for path, reason in excluded.itertuples(index=False)} == {
        "README.md": "outside",
        "cat/1.png": "broken image",
        "cat/notes.txt": "not an image",
        "dog/link.png": "unreadable file",
    }
    assert len(samples) == 19


def test_what_lies_beside_a_given_split_is_listed(given_split):
    save(given_split / "test/cat/0.png", 5)
    with pytest.warns(UserWarning, match="1 x outside"):
        excluded = folder.sample_table(given_split)[3]
    assert excluded["path"].tolist() == ["test"]


def _single(root):
    for path in sorted((root / "dog").rglob("*.png"))[1:]:
        path.unlink()


def _copies_only(root):
    for path in (root / "dog").rglob("*.png"):
        shutil.copy(root / "cat/0.png", path)


@pytest.mark.filterwarnings("ignore:folder.pets")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root), "no folder"),
        (lambda root: shutil.rmtree(root / "dog"), r"two class folders, found \['cat'\]"),
        (lambda root: (root / "owl").mkdir(), r"needs 2 or more usable images, found {'owl': 0}"),
        (_single, r"found {'dog': 1}"),
        (_copies_only, "class dog has 10 images in 1 independent groups"),
        (lambda root: (root / "cat").rename(root / "train"), "train/ but none of"),
    ],
)
def test_layouts_that_cannot_be_used(plain, damage, message):
    damage(plain)
    with pytest.raises(ValueError, match=message):
        folder.sample_table(plain)


def test_given_splits_need_the_same_classes(given_split):
    shutil.rmtree(given_split / "val/dog")
    with pytest.raises(ValueError, match=r"pets/val: every class needs 1 .*{'dog': 0}"):
        folder.sample_table(given_split)


def _slow_components(*keys):
    """Readable twin of `components`: merge sets until no two share anything."""
    sets = [({i}, {(k, key[i]) for k, key in enumerate(keys)}) for i in range(len(keys[0]))]
    merged = True
    while merged:
        merged = False
        for a in range(len(sets)):
            for b in range(a + 1, len(sets)):
                if sets[a][1] & sets[b][1]:
                    sets[a] = (sets[a][0] | sets[b][0], sets[a][1] | sets[b][1])
                    del sets[b]
                    merged = True
                    break
            if merged:
                break
    names = {i: min(keys[0][j] for j in rows) for rows, _ in sets for i in rows}
    return [names[i] for i in range(len(keys[0]))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=25))
def test_components_agree_with_the_twin(pairs):
    patients = [f"p{a:02d}" for a, _ in pairs]
    files = [f"f{b:02d}" for _, b in pairs]
    fast = folder.components(pd.Series(patients), pd.Series(files))
    assert fast.tolist() == _slow_components(patients, files)


@st.composite
def tables(draw):
    """A few classes, each with at least four groups of its own, in any row order."""
    rows = []
    for label in range(draw(st.integers(1, 4))):
        sizes = draw(st.lists(st.integers(1, 30), min_size=4, max_size=12))
        rows += [(label, f"g{label}-{k}") for k, size in enumerate(sizes) for _ in range(size)]
    order = draw(st.permutations(range(len(rows))))
    return pd.DataFrame(rows, columns=["label", "group"]), list(order)


@settings(max_examples=50, deadline=None)
@given(tables())
def test_grouped_split_properties(drawn):
    table, order = drawn
    classes = tuple("abcd")
    split = folder.grouped_split(table["label"], table["group"], classes, at_least=2)
    table["split"] = split
    assert table.groupby("group")["split"].nunique().max() == 1  # no group on both sides
    groups = table.groupby(["label", "split"])["group"].nunique().unstack(fill_value=0)
    assert set(groups.columns) == {"train", "val"} and groups.to_numpy().min() >= 2
    shuffled = table.iloc[order]
    again = folder.grouped_split(shuffled["label"], shuffled["group"], classes, at_least=2)
    assert (again == shuffled["split"]).all()  # a function of the set of rows, not of their order
    for _, one in table.groupby("label"):  # near 20 %, unless the least number of groups forbids it
        sizes = one.groupby("group").size().sort_values()
        slack = max(sizes.iloc[-1], sizes.iloc[:2].sum())
        assert abs((one["split"] == "val").sum() - 0.2 * len(one)) <= slack


def test_groups_in_two_classes_count_for_both():
    label = pd.Series([0] * 20 + [1] * 20)
    group = pd.Series([f"g{k % 10}" for k in range(40)])
    split = folder.grouped_split(label, group, ("a", "b"), at_least=2)
    assert (split[:20] == split[20:]).all() and (split == "val").sum() == 8


def test_too_few_groups_name_the_class():
    with pytest.raises(
        ValueError, match=r"class b has 3 images in 3 independent groups; .* needs 2"
    ):
        folder.grouped_split(
            pd.Series([0] * 4 + [1] * 3), pd.Series(list("abcdefg")), ("a", "b"), at_least=2
        )
