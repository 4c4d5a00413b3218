"""Distances between classes and the tests that use them: slow twins, enumeration, known truth."""

import os
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from conftest import make_images
from scipy import stats

from retention_lib.data import cub, phantom_birds, phantom_oct
from retention_lib.data.imageset import ImageSet
from retention_lib.semantics import (
    confusion_excess,
    forgetting_by_distance,
    mantel,
    nearest_share,
    orders,
)
from retention_lib.similarity import (
    attribute_distances,
    centroid_distances,
    class_centroid_distances,
    known_distances,
    neighbours,
)

ROOT = os.environ.get("RETENTION_DATA", "")
needs_real = pytest.mark.skipif(
    not (Path(ROOT) / "CUB_200_2011" / "attributes").is_dir(),
    reason="RETENTION_DATA names no folder with CUB_200_2011/attributes/",
)


@pytest.fixture
def attributes(tmp_path):
    """Three listed classes of the official layout, attributes of all 200."""
    folder = tmp_path / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "classes.txt").write_text("1 001.A\n2 002.B\n7 007.C\n")
    for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        (folder / name).write_text("1 1\n")
    table = np.random.default_rng(0).uniform(0, 100, (cub.N_CLASSES, cub.N_ATTRIBUTES))
    np.savetxt(folder / "attributes" / "class_attribute_labels_continuous.txt", table)
    names = [f"{i + 1} has_part::{i}" for i in range(cub.N_ATTRIBUTES)]
    (folder / "attributes" / "attributes.txt").write_text("\n".join(names))
    return tmp_path, table


def test_attribute_distances_are_those_of_the_listed_classes(attributes):
    root, table = attributes
    found = attribute_distances(root)
    slow = np.sqrt(np.mean((table[0] - table[6]) ** 2))
    assert found.shape == (3, 3)
    assert found[0, 2] == pytest.approx(slow, rel=1e-9)
    assert attribute_distances(root, ("007.C", "001.A"))[0, 1] == pytest.approx(slow, rel=1e-9)
    with pytest.raises(ValueError, match=r"classes must be among .* got \['009.X'\]"):
        attribute_distances(root, ("009.X",))


def test_missing_attributes_are_said_and_not_swallowed(attributes, tiny):
    root, _ = attributes
    (root / "CUB_200_2011" / "attributes" / "attributes.txt").unlink()
    with pytest.raises(ValueError, match=r"lacks attributes\.txt"):
        attribute_distances(root)
    said = []
    as_cub = ImageSet("cub", "x", tiny.classes, tiny.samples, tiny.images)
    assert known_distances(as_cub, root=root, log=said.append) == {}
    assert "lacks attributes.txt" in said[0]


def test_centroid_distances_recover_the_truth_whatever_the_class_sizes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [300, 300, 6, 6])
    centre = np.array([0.0, 1.0, 0.0, 1.0])
    found, plain = [], []
    for _ in range(40):
        x = centre[labels, None] + rng.normal(size=(612, 30))
        found.append(centroid_distances(x, labels, 4) ** 2)
        means = np.stack([x[labels == k].mean(0) for k in range(4)])
        plain.append(((means[:, None] - means) ** 2).mean(-1))
    found, plain = np.mean(found, 0), np.mean(plain, 0)
    assert found[0, 1] == pytest.approx(1, abs=0.03)
    assert found[2, 3] == pytest.approx(1, abs=0.08)
    assert plain[2, 3] == pytest.approx(4 / 3, abs=0.08)  # two centroids of six: 1/6 each
    assert found[0, 2] < 0.05 < plain[0, 2]


def test_centroid_distances_do_not_depend_on_units_and_check_their_input():
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(60, 5)), np.repeat(np.arange(3), 20)
    scaled = np.column_stack([x * [1, 10, 0.1, 1, 1] + 4, np.full(60, 3.0)])  # one constant
    assert centroid_distances(scaled, labels, 3) == pytest.approx(
        centroid_distances(x, labels, 3), abs=1e-9
    )
    found = centroid_distances(x, labels, 4)
    assert np.isnan(found[3, :3]).all()
    assert found == pytest.approx(found.T, nan_ok=True)
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"must be finite.* with 1 not finite"):
        centroid_distances(x, labels, 3)
    x[0, 0] = 0.0
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 0\.\.2"):
        centroid_distances(x, labels, 2)


def test_features_of_an_untuned_network_tell_hues_apart(one_thread):
    images = make_images(n_train=96, classes=4)
    found = class_centroid_distances(images, "phantom_resnet18")
    assert found.shape == (4, 4)
    assert found[0, 1] > 0
    near = neighbours(found)
    assert near["nearest_distance"].min() > 0  # hues lie on a circle: no two are the same
    same = class_centroid_distances(images, "phantom_resnet18")
    assert same == pytest.approx(found, abs=1e-12)  # nothing is drawn


@pytest.mark.parametrize("module", [phantom_oct, phantom_birds])
def test_planted_distances_follow_the_order_of_the_classes(module):
    table = module.sample_table(200)
    table = table.assign(content_hash=table["sample_id"])
    images = np.zeros((len(table), 16, 16, 3), np.uint8)
    name = module.__name__.rsplit(".", 1)[1]
    found = known_distances(ImageSet(name, "n", module.CLASSES, table, images))
    assert list(found) == ["planted"]
    assert found["planted"] == pytest.approx(module.class_distances())
    assert (neighbours(found["planted"])["nearest_distance"] > 0).all()


def test_neighbours_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    d = rng.random((6, 6))
    d += d.T
    table = neighbours(d, 3)
    for k in range(6):
        others = sorted((d[k, j], j) for j in range(6) if j != k)
        assert table["nearest"][k] == others[0][1]
        assert table["nearest_distance"][k] == others[0][0]
        assert table["mean_of_nearest"][k] == pytest.approx(np.mean([o[0] for o in others[:3]]))
    with pytest.raises(ValueError, match="square matrix of 2 or more"):
        neighbours(np.zeros((1, 1)))


def test_orders_are_all_or_so_many():
    few, how = orders(4, np.random.default_rng(0), 10)
    assert sorted(map(tuple, few)) == sorted(permutations(range(4)))[1:]
    assert how == "all 24 orders of classes"
    many, how = orders(30, np.random.default_rng(0), 10)
    assert many.shape == (10, 30)
    assert (np.sort(many, 1) == np.arange(30)).all()


def test_exact_p_of_forgetting_by_distance():
    rng = np.random.default_rng(0)
    scores = np.array([3.0, 1.0, 2.0, 0.0, 5.0])
    d = rng.random((5, 5))
    d += d.T
    row = forgetting_by_distance(scores, d, rng).iloc[0]
    x = neighbours(d)["nearest_distance"].to_numpy()
    rho = stats.spearmanr(scores, x)[0]
    null = np.array([stats.spearmanr(scores[list(o)], x)[0] for o in permutations(range(5))])
    assert row["estimate"] == pytest.approx(rho, abs=1e-12)
    below, above = np.mean(null <= rho + 1e-12), np.mean(null >= rho - 1e-12)
    assert row["p_negative"] == pytest.approx(below, abs=1e-12)
    assert row["p"] == pytest.approx(min(1, 2 * min(below, above)), abs=1e-12)
    assert row["n"] == 5


def test_similar_classes_forgotten_most_gives_a_negative_correlation():
    rng = np.random.default_rng(1)
    place = np.sort(rng.normal(size=(24, 2)), axis=0)
    d = np.sqrt(((place[:, None] - place) ** 2).sum(-1))
    scores = -neighbours(d)["nearest_distance"] + 0.02 * rng.normal(size=24)
    table = forgetting_by_distance(scores, d, rng, 1999).set_index("summary")
    assert table.loc["nearest_distance", "estimate"] < -0.8
    assert table.loc["nearest_distance", "p_negative"] == 1 / 2000
    assert table.loc["mean_of_nearest", "estimate"] < -0.3
    gone = forgetting_by_distance(np.where(np.arange(24) < 2, np.nan, scores), d, rng, 99)
    assert gone["n"].tolist() == [22, 22]
    flat = forgetting_by_distance(np.ones(24), d, rng, 99)
    assert flat["estimate"].isna().all() and flat["p"].isna().all()
    with pytest.raises(ValueError, match=r"class_scores must be \(24,\)"):
        forgetting_by_distance(np.ones(3), d, rng)


def slow_mantel(a, b):
    upper = np.triu_indices(len(a), 1)
    return stats.spearmanr(a[upper], b[upper])[0]


def test_mantel_against_a_slow_twin_over_all_orders():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 5, 5)).astype(float)
    a, b = a + a.T, b + b.T
    row = mantel(a, b, rng).iloc[0]
    null = np.array([slow_mantel(a, b[np.ix_(o, o)]) for o in permutations(range(5))])
    rho = null[0]
    assert row["estimate"] == pytest.approx(rho, abs=1e-12)
    assert row["p_negative"] == pytest.approx(np.mean(null <= rho + 1e-12), abs=1e-12)
    assert (row["n"], row["pairs"]) == (5, 10)


def test_mantel_p_is_uniform_where_pairs_share_classes():
    rng = np.random.default_rng(2)
    p = []
    for _ in range(200):  # a class effect on all its pairs: pairs are not independent
        one, two = rng.normal(size=(2, 12))
        a, b = one[:, None] + one, two[:, None] + two
        p.append(mantel(a, b, rng, 99).p[0])
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_mantel_refuses_what_is_not_symmetric_and_keeps_n():
    a = np.arange(16.0).reshape(4, 4)
    with pytest.raises(ValueError, match="a must be symmetric"):
        mantel(a, a + a.T, np.random.default_rng(0))
    row = mantel(np.ones((4, 4)), a + a.T, np.random.default_rng(0)).iloc[0]
    assert np.isnan(row["estimate"])
    assert row["n"] == 4


def test_confusion_excess_ignores_how_often_a_class_is_named():
    popular = np.array([1.0, 2.0, 8.0, 4.0])
    counts = 1000 * np.outer([3.0, 1.0, 2.0, 5.0], popular)  # no preference whatever
    assert np.abs(confusion_excess(counts)[~np.eye(4, dtype=bool)]).max() < 1e-3
    counts[0, 1] *= 4
    found = confusion_excess(counts)
    assert np.nanargmax(found) == 1
    assert found == pytest.approx(found.T, nan_ok=True)
    nothing = confusion_excess(np.zeros((3, 3)))
    assert (nothing[~np.eye(3, dtype=bool)] == 0).all()


def test_confusions_with_neighbours_are_found():
    rng = np.random.default_rng(0)
    place = rng.normal(size=(12, 2))
    d = np.sqrt(((place[:, None] - place) ** 2).sum(-1))
    counts = rng.poisson(200 * np.exp(-3 * d)) * (1 - np.eye(12, dtype=int))
    row = mantel(confusion_excess(counts), d, rng, 999).iloc[0]
    assert row["estimate"] < -0.5
    assert row["p_negative"] == 1 / 1000
    near = nearest_share(counts, d, rng, 999).iloc[0]
    slow = sum(counts[k, np.argsort(d[k])[1]] for k in range(12)) / counts.sum()
    assert near["estimate"] == pytest.approx(slow, abs=1e-12)
    assert near["p"] == 1 / 1000
    assert near["chance"] == pytest.approx(1 / 11, abs=0.03)
    assert near["n"] == counts.sum()
    empty = nearest_share(np.zeros((12, 12)), d, rng, 9).iloc[0]
    assert np.isnan(empty["estimate"]) and empty["n"] == 0


def test_nearest_share_over_all_orders():
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 9, (4, 4)) * (1 - np.eye(4, dtype=int))
    d = rng.random((4, 4))
    d += d.T
    null = []
    for o in permutations(range(4)):
        moved = neighbours(d[np.ix_(o, o)], 1)["nearest"]
        null.append(sum(counts[k, moved[k]] for k in range(4)) / counts.sum())
    row = nearest_share(counts, d, rng).iloc[0]
    assert row["estimate"] == pytest.approx(null[0], abs=1e-12)
    assert row["chance"] == pytest.approx(np.mean(null), abs=1e-12)
    assert row["p"] == pytest.approx(np.mean(np.array(null) >= null[0] - 1e-12), abs=1e-12)


@pytest.mark.real
@needs_real
def test_attributes_of_the_real_birds_put_albatrosses_together():
    near = neighbours(attribute_distances(ROOT), 1)["nearest"]
    assert near[0] in (1, 2) and near[2] in (0, 1)  # 001, 002 and 003 are albatrosses
