"""The share of the attainable agreement that is missing, on studies whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from overlap_study import CASES, coverage, draw_study

from retention_lib import attainable, counted, missing_agreement
from retention_lib.agreement import CROSS, SAME, jaccard_chance_stratified, topk_jaccard
from retention_lib.missing_agreement import COVERAGE, overlap_of_pairs


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def slow_membership(score, counts, k):
    """Chance of each copy to be among the k largest rows, by sorting the repeated rows."""
    rows = np.repeat(score, counts)
    edge = np.sort(rows)[::-1][k - 1]
    above, tied = (rows > edge).sum(), (rows == edge).sum()
    return np.where(score > edge, 1.0, np.where(score == edge, (k - above) / tied, 0.0))


def slow_overlap(a, b, groups, labels, counts, share):
    """Jaccard and chance level of one resample, by loops over samples and pairs of samples."""
    k = max(1, int(np.floor(counts.sum() * share + 0.5)))
    m_a, m_b = slow_membership(a, counts, k), slow_membership(b, counts, k)
    overlap = sum(w * x * y for w, x, y in zip(counts, m_a, m_b, strict=True))
    chance = 0.0
    for c in np.unique(labels):
        of = np.flatnonzero(labels == c)
        size, total, pairs = counts[of].sum(), 0.0, 0
        for i in of:
            for j in of:
                if groups[i] != groups[j]:
                    total += counts[i] * counts[j] * m_a[i] * m_b[j]
                    pairs += counts[i] * counts[j]
        chance += size * total / pairs if pairs else 0.0
    return overlap / (2 * k - overlap), chance / (2 * k - chance)


@pytest.mark.parametrize("rate", [None, 0.2, 1.5])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_overlaps_are_those_of_loops(rng, rate, share):
    scores, _, groups, labels = draw_study(rng, 60, rate, n_classes=3, group_size=2)
    counts = rng.integers(0, 4, (4, 30))[:, groups]
    jaccard, chance = counted.overlaps(scores, groups, labels, share, counts.astype(float))
    for draw in range(4):
        for i, j in ((0, 1), (0, 3), (2, 3)):
            slow = slow_overlap(scores[i], scores[j], groups, labels, counts[draw], share)
            assert (jaccard[draw, i, j], chance[draw, i, j]) == pytest.approx(slow, abs=1e-12)
    assert jaccard == pytest.approx(jaccard.transpose(0, 2, 1), abs=1e-12)


def test_a_class_with_one_group_is_compared_with_itself(rng):
    scores = rng.normal(size=(2, 6))
    groups, labels = np.array([0, 0, 0, 1, 2, 3]), np.array([0, 0, 0, 1, 1, 1])
    _, chance = counted.overlaps(scores, groups, labels, 0.5, np.ones((1, 6)))
    held = (-scores).argsort(1).argsort(1) < 3
    alone = held[0, :3].sum() * held[1, :3].sum() / 3
    rest = sum(held[0, i] * held[1, j] for i in (3, 4, 5) for j in (3, 4, 5) if i != j) / 2
    assert chance[0, 0, 1] == pytest.approx((alone + rest) / (6 - alone - rest))


def test_estimates_are_means_of_expected_jaccard(rng):
    scores, runs, groups, labels = draw_study(rng, 300, 0.3, seeds=3)
    row = missing_agreement.missing_agreement(scores, runs, groups, labels, rng, draws=200).iloc[0]
    slow = {(i, j): topk_jaccard(scores[i], scores[j]) for i in range(6) for j in range(i)}
    cross = np.mean([slow[j, i] for i in range(3) for j in range(3, 6)])
    same = [np.mean([slow[s + 1, s], slow[s + 2, s], slow[s + 2, s + 1]]) for s in (0, 3)]
    assert row[["cross", "same_a", "same_b"]].tolist() == pytest.approx([cross, *same], abs=1e-5)
    assert row["ceiling"] == pytest.approx(np.sqrt(same[0] * same[1]), abs=1e-5)
    by_hand = 1 - (cross - row["chance"]) / (row["ceiling"] - row["chance"])
    assert row["estimate"] == pytest.approx(by_hand, abs=1e-3)
    assert row["ci_low"] < row["estimate"] < row["ci_high"]
    assert row["cross_low"] < row["cross"] < row["cross_high"]
    assert row["n"] == 300 and np.isnan(row["p"])


def test_chance_is_that_of_permutations_without_their_fixed_points(rng):
    scores, runs, groups, labels = draw_study(rng, 2000, 0.5, n_classes=4)
    row = missing_agreement.missing_agreement(scores, runs, groups, labels, rng, draws=2).iloc[0]
    null = jaccard_chance_stratified(scores[:2], scores[2:], labels, rng=rng, draws=400).iloc[0]
    # Of 500 samples per class, one stays in its place: 1 / 500 of the excess.
    own = (row["cross"] - row["chance"]) / 500
    assert row["chance"] == pytest.approx(null["chance"] - own, abs=3e-4)


def test_architectures_that_rank_alike_lack_nothing(rng):
    study = draw_study(rng, 3000, 0.5, shared=1.0, seeds=3)
    row = missing_agreement.missing_agreement(*study, rng, draws=300).iloc[0]
    assert row["ci_low"] < 0 < row["ci_high"] < 0.15
    assert row["seed_low"] < row["estimate"] < row["seed_high"]


def test_architectures_that_share_classes_alone_lack_all(rng):
    study = draw_study(rng, 3000, 0.5, shared=0.0, seeds=3)
    row = missing_agreement.missing_agreement(*study, rng, draws=300).iloc[0]
    assert 0.85 < row["ci_low"] < 1 < row["ci_high"]
    assert row["cross"] == pytest.approx(row["chance"], abs=0.01)


@pytest.mark.parametrize(("rate_a", "rate_b"), [(0.5, 0.5), (0.5, 0.15), (2.0, 0.2), (None, None)])
def test_what_unequal_noise_gives_under_one_difficulty(rng, rate_a, rate_b):
    """Two architectures that rank by the same difficulty, with noise of their own."""
    n = 300_000
    hard = rng.normal(size=n)
    if rate_a is None:
        part = np.repeat([0.9, 0.3], 4)[:, None]
        scores = np.sqrt(part) * hard + np.sqrt(1 - part) * rng.normal(size=(8, n))
    else:
        scale = np.repeat([rate_a, rate_b], 4)[:, None]
        scores = rng.poisson(scale * np.exp(hard - 0.5)).astype(float)
    ones = [np.ones((1, n))]
    whole, _ = attainable.measured(scores, np.arange(n), np.zeros(n), 0.1, ones)
    found = attainable.quantities(*whole, np.repeat(["A", "B"], 4), "A", "B")
    levels = [float(found[name]) for name in ("same_a", "same_b", "chance")]
    expected = attainable.same_difficulty(*levels, 0.1)
    assert expected == pytest.approx(float(found["missing"]), abs=0.02)
    assert np.isnan(attainable.same_difficulty(0.01, 0.3, 0.053, 0.1))


def test_no_value_where_seeds_agree_no_better_than_chance(rng):
    scores, runs, groups, labels = draw_study(rng, 400, 0.5)
    scores[:2] = rng.normal(size=(2, 400))  # A's seeds have nothing in common
    row = missing_agreement.missing_agreement(scores, runs, groups, labels, rng, draws=200).iloc[0]
    assert row[["estimate", "ci_low", "ci_high", "seed_low"]].isna().all()
    assert row["method"].startswith("no value: A between seeds, ")
    assert "reaches chance" in row["method"]
    assert row["same_a_low"] <= row["chance_a"] and row["same_b_low"] > row["chance_b"]
    assert np.isfinite([row["cross"], row["ceiling"]]).all() and row["n"] == 400


def test_no_value_with_one_seed_and_no_seed_interval_with_two(rng):
    two = missing_agreement.missing_agreement(*draw_study(rng, 300, 0.8), rng, draws=50).iloc[0]
    assert np.isfinite(two["estimate"]) and np.isnan(two["seed_low"]) and two["seeds"] == 2
    one = draw_study(rng, 300, 0.8, seeds=1)
    row = missing_agreement.missing_agreement(*one, rng, draws=50).iloc[0]
    assert np.isnan(row["estimate"]) and row["method"] == "no value: A has one seed only"


def test_leave_one_seed_out_by_hand(rng):
    scores, runs, groups, labels = draw_study(rng, 400, 0.8, seeds=4)
    args = groups, labels, rng
    whole = missing_agreement.missing_agreement(scores, runs, *args, draws=50).iloc[0]
    left = []
    for s in range(4):
        keep = (runs["seed"] != s).to_numpy()
        part = missing_agreement.missing_agreement(
            scores[keep], runs[keep].reset_index(drop=True), *args, draws=50
        )
        left.append(part["estimate"][0])
    pseudo = 4 * whole["estimate"] - 3 * np.array(left)
    half = 3.182446 * pseudo.std(ddof=1) / 2
    assert whole["seed_low"] == pytest.approx(pseudo.mean() - half, rel=1e-6)
    assert whole["seed_high"] == pytest.approx(pseudo.mean() + half, rel=1e-6)


@pytest.mark.slow
def test_seed_interval_covers_the_mean_over_seeds():
    """Images fixed, seeds drawn: the truth is the mean over many seeds of the same images."""
    rng = np.random.default_rng(3)
    n, hits = 250, []  # k = 25 takes the expansion, which is faster
    rate = 0.8 * np.exp(rng.normal(size=n) + 0.7 * rng.normal(size=(2, n)))
    groups, labels = np.arange(n), np.zeros(n, int)

    def study(seeds):
        runs = pd.DataFrame([(a, s) for a in "AB" for s in range(seeds)], columns=["arch", "seed"])
        return rng.poisson(np.repeat(rate, seeds, axis=0)).astype(float), runs

    scores, runs = study(60)
    whole, _ = attainable.measured(scores, groups, labels, 0.1, [np.ones((1, n))])
    known = attainable.quantities(*whole, runs["arch"].to_numpy(), "A", "B")["missing"]
    for _ in range(100):
        row = missing_agreement.missing_agreement(*study(5), groups, labels, rng, draws=20).iloc[0]
        hits.append(row["seed_low"] <= known <= row["seed_high"])
    assert 0.90 <= np.mean(hits) <= 0.99


def test_every_pair_is_shown_with_interval_and_chance(rng):
    scores, runs, groups, labels = draw_study(rng, 400, 0.8, seeds=3)
    scores[0] = rng.normal(size=400)
    pairs = overlap_of_pairs(scores, runs, groups, labels, rng, draws=200)
    assert pairs["kind"].tolist() == [SAME] * 6 + [CROSS] * 9
    assert (pairs["ci_low"] < pairs["estimate"]).all()
    assert (pairs["estimate"] < pairs["ci_high"]).all()
    spoilt = ((pairs["arch_a"] == "A") & (pairs["seed_a"] == 0)).to_numpy()
    assert pairs["reaches_chance"][spoilt].mean() > 0.6
    assert not pairs["reaches_chance"][:6][~spoilt[:6]].any()
    assert pairs["estimate"][0] == pytest.approx(topk_jaccard(scores[0], scores[1]), abs=1e-5)


def test_excess_is_the_overlap_above_chance(rng):
    row = missing_agreement.missing_agreement(*draw_study(rng, 400, 0.8), rng, draws=200).iloc[0]
    assert row["excess"] == row["cross"] - row["chance"]
    assert row["excess_low"] < row["excess"] < row["excess_high"]


def check_coverage(case, simulations, draws, slack):
    row = coverage(case, simulations, draws)
    known = next(c for c in COVERAGE if c["case"] == case)
    assert row["truth"] == pytest.approx(known["truth"], abs=1e-4)
    for name in ("missing", "cross", "same_a"):
        assert row[name] == pytest.approx(known[name], abs=slack), name


@pytest.mark.slow
def test_coverage_in_few_simulations():
    check_coverage("10 samples per class", 100, 150, 0.06)


@pytest.mark.slow
@pytest.mark.simulation
@pytest.mark.parametrize("case", CASES)
def test_coverage_is_as_tabulated(case):
    check_coverage(case, 2000, 300, 0.015)


def test_bad_input_is_named(rng):
    scores, runs, groups, labels = draw_study(rng, 40, 0.5)
    measure = missing_agreement.missing_agreement
    with pytest.raises(ValueError, match=r"scores must be \(4 runs, sample\), got shape \(3, 40\)"):
        measure(scores[:3], runs, groups, labels, rng)
    with pytest.raises(ValueError, match="one value per sample"):
        measure(scores, runs, groups[:5], labels, rng)
    with pytest.raises(ValueError, match="must not hold NaN"):
        measure(np.where(scores > 0, np.nan, scores), runs, groups, labels, rng)
    with pytest.raises(ValueError, match=r"each \(arch, seed\) must be one run"):
        measure(scores, runs.assign(seed=0), groups, labels, rng)
