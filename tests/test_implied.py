"""What correlations within runs imply across seeds, against what was planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from retention_lib.implied import class_share, implied_by, implied_seed_correlation, ingredients
from retention_lib.normal_copula import chain, pearson_of, spearman_of, spearman_of_overlap
from retention_lib.ties import topk_jaccard

RUNS = pd.DataFrame({"arch": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})


def test_normal_copula_and_overlap_are_consistent():
    assert spearman_of(pearson_of(0.37)) == pytest.approx(0.37, abs=1e-12)
    assert chain(0.5, 1.0) == pytest.approx(0.5, abs=1e-12)
    assert spearman_of_overlap(1.0) == 1.0
    assert spearman_of_overlap(0.0) == -1.0
    assert spearman_of_overlap(0.1 / 1.9) == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(0)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 200_000).T
    found = spearman_of_overlap(topk_jaccard(x, y, 0.1, exact=False))
    assert found == pytest.approx(spearman_of(0.7), abs=0.01)
    z = stats.norm.isf(0.1)
    normal = stats.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]])
    both = integrate.dblquad(lambda b, a: normal.pdf([a, b]), z, 8, z, 8, epsabs=1e-9)[0]
    assert spearman_of_overlap(both / (0.2 - both)) == pytest.approx(spearman_of(0.7), abs=1e-6)
    with pytest.raises(ValueError, match=r"jaccard must lie in 0\.\.1"):
        spearman_of_overlap(1.2)


def test_class_share_is_centred_without_classes_and_recovers_them():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 10)
    none = [class_share(rng.normal(size=400), labels) for _ in range(200)]
    assert abs(np.mean(none)) < 4 * np.std(none) / np.sqrt(200)
    effect = rng.normal(size=40)[labels]
    effect = (effect - effect.mean()) / effect.std() * np.sqrt(0.3)
    some = [class_share(effect + np.sqrt(0.7) * rng.normal(size=400), labels) for _ in range(50)]
    assert np.mean(some) == pytest.approx(0.29, abs=0.02)  # ranks lose a little
    assert np.isnan(class_share(np.ones(400), labels))


def test_what_the_papers_numbers_imply():
    table = implied_seed_correlation(
        rho_early=(0.30, 0.50), share_of_class=0.13, jaccard=(0.15, 0.34), measured=0.01
    )
    assert table["finding"].tolist() == [1, 4, 5]
    assert table["contradicts"].tolist() == [True] * 3
    early = table.iloc[2]
    assert early["implied_low"] == pytest.approx(0.094, abs=0.001)
    assert early["implied_high"] == pytest.approx(0.256, abs=0.001)
    unstable = implied_seed_correlation(rho_early=0.3, stability_of_early_loss=0.5).iloc[0]
    assert unstable["implied_low"] == pytest.approx(0.047, abs=0.002)
    assert unstable["contradicts"] is None
    with pytest.raises(ValueError, match=r"a number or \(low, high\), got \(1, 2, 3\)"):
        implied_seed_correlation(rho_early=(1, 2, 3))


def test_audit_meets_the_truth_where_its_assumption_holds():
    rng = np.random.default_rng(0)
    n = 4000
    labels = np.arange(n) % 10
    common = rng.normal(size=n)
    loss = np.exp(np.sqrt(0.9) * common + np.sqrt(0.1) * rng.normal(size=(4, n)))
    decay = 0.6 * np.log(loss) + 0.8 * rng.normal(size=(4, n))  # nothing but the loss is shared
    table = implied_by(ingredients(loss, decay, RUNS, labels))
    early = table[table["finding"] == 5]
    assert early["implied_low"].to_numpy() == pytest.approx(spearman_of(0.36 * 0.9), abs=0.03)
    assert early["implied_low"].to_numpy() == pytest.approx(early["measured_low"], abs=0.03)
    overlap = table[table["finding"] == 1]  # architectures are like seeds here
    assert overlap["implied_low"].to_numpy() == pytest.approx(overlap["measured_low"], abs=0.06)
    effect = np.linspace(-1.5, 1.5, 10)[labels]
    decay = effect + rng.normal(size=(4, n))  # nothing but the class is shared
    table = implied_by(ingredients(loss, decay, RUNS, labels))
    classes = table[table["finding"] == 4]
    assert classes["implied_low"].to_numpy() == pytest.approx(classes["measured_low"], abs=0.03)
    both = effect + 0.8 * np.log(loss) + rng.normal(size=(4, n))
    table = implied_by(ingredients(loss, both, RUNS, labels)).set_index(["arch", "finding"])
    row = table.loc[("a", "4 and 5")]
    assert row["implied_low"] == pytest.approx(row["measured_low"], abs=0.04)
    assert table.loc[("a", 5), "implied_low"] < row["implied_low"]
    with pytest.raises(ValueError, match="needs 2 seeds, b has 1"):
        implied_by(ingredients(loss[:3], decay[:3], RUNS[:3], labels))
