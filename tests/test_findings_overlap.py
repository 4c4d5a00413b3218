"""Notebook 01, continued: conventions, and samples that one architecture alone forgets."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats
from simulated import CNN, VIT, simulated, with_correct

from retention_lib import findings, simulated_study
from retention_lib import findings_overlap as fo
from retention_lib.config import EQUIVALENCE_MARGIN, HEADLINE_TESTS
from retention_lib.one_sided import gallery, only_one_forgets
from retention_lib.verdicts import PAPER


@pytest.fixture(scope="module")
def traces():
    return simulated(300)


@pytest.fixture(scope="module")
def table(traces):
    return fo.overlap_specification(traces, np.random.default_rng(0), draws=40)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_primary_convention_is_the_headline(traces, table, rng):
    primary = table[table["primary"]]
    assert len(primary) == 1
    headline = findings.architecture_overlap(traces, rng, draws=50).iloc[0]
    assert primary["cross"].iloc[0] == pytest.approx(headline["estimate"], abs=1e-5)
    missing = fo.missing_share(traces, rng, draws=50).iloc[0]
    assert primary["missing"].iloc[0] == pytest.approx(missing["estimate"], nan_ok=True)
    assert missing["groups"] == 150  # patients of two samples


def test_every_convention_is_there_once(table):
    readings = [(s, c) for s, how in fo.READINGS.items() for c in how]
    assert len(table) == len(readings) * 2 * len(fo.SHARES)
    assert not table.duplicated(["score", "never_learned", "view", "share"]).any()
    assert table["excess"].is_monotonic_increasing
    assert table["excess"].to_numpy() == pytest.approx(
        (table["cross"] - table["chance"]).to_numpy()
    )
    assert (table["ci_low"] <= table["ci_high"]).all()
    assert (table["missing"].isna() == (table["why_not"] != "")).all()
    left_out = table["never_learned"] == "nan"
    assert (table["n"][~left_out] == 300).all() and (table["n"][left_out] < 300).all()


def test_readings_by_hand():
    correct = np.zeros((2, 4, 3), bool)
    correct[:, :, 0] = [1, 0, 1, 0]  # forgotten twice
    correct[:, :, 1] = [0, 1, 1, 1]  # learned at epoch 1
    traces = with_correct(correct)
    expected = {
        ("forgetting_score", "n_presentations"): [2, 0, 4],
        ("forgetting_score", "max"): [2, 0, 2],
        ("forgetting_score", "zero"): [2, 0, 0],
        ("forgetting_score", "nan"): [2, 0, np.nan],
        ("mean_error", "kept"): [0.5, 0.25, 1],
        ("learned_epoch", "kept"): [0, 1, 4],
        ("learned_epoch", "nan"): [0, 1, np.nan],
    }
    for (score, how), values in expected.items():
        found = fo.reading(traces, score, how, "clean")
        np.testing.assert_array_equal(found, [values, values], err_msg=f"{score}, {how}")
    with pytest.raises(ValueError, match=r"reading must be one of .*got \('mean_error', 'max'\)"):
        fo.reading(traces, "mean_error", "max", "clean")


def test_readings_are_the_scores_of_notebook_01(traces):
    for score in fo.READINGS:
        found = fo.reading(traces, score, fo.READINGS[score][0], "clean")
        known = findings.score_matrix(traces, score)
        np.testing.assert_allclose(found, known, err_msg=score)


def test_a_view_that_was_not_recorded_has_no_rows(rng):
    made = simulated_study.study(200, 8, [CNN, VIT], [0, 1], rng)
    table = fo.overlap_specification(simulated_study.as_traces(made), rng, 10, (0.001, 0.1))
    assert set(table["view"]) == {"clean"} and set(table["share"]) == {0.1}


def test_rank_correlations_are_those_of_scipy(traces, rng):
    found = fo.rank_correlations(traces, rng, ("events", "mean_error"), draws=30)
    assert len(found) == 2 * 2 * 3 and (found["ci_low"] < found["ci_high"]).all()
    values = findings.score_matrix(traces, "events")
    pairs = [(i, j) for i in range(3) for j in range(3, 6)]
    for measure, slow in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        of = found[(found["score"] == "events") & (found["measure"] == measure)]
        cross = of[of["kind"] == "cross_architecture"].iloc[0]
        by_hand = np.mean([slow(values[i], values[j]).statistic for i, j in pairs])
        assert cross["estimate"] == pytest.approx(by_hand, abs=1e-9)
        same = of[of["kind"] == "same_architecture"]["estimate"]
        assert cross["ceiling"] == pytest.approx(np.sqrt(same.prod()))
        assert same.isin(of["estimate"]).all() and of["ceiling"].notna().sum() == 1
    hard = found[found["score"] == "mean_error"]["estimate"]
    assert found["control"].abs().max() < 0.1 and hard.min() > 0.5


def test_pair_table_shows_every_pair(traces, rng):
    pairs = fo.pair_table(traces, rng, "mean_error", draws=30)
    assert len(pairs) == 15 and (pairs["kind"] == "same_architecture").sum() == 6


def events_at(runs_with_event):
    """Traces (run, epoch 3, sample) in which the named samples are forgotten, others never."""
    forgotten = np.array(runs_with_event, bool)
    correct = np.ones((len(forgotten), 3, forgotten.shape[1]), bool)
    correct[:, 1] = ~forgotten
    return with_correct(correct)


def slow_shares(forgotten, seeds, m):
    """Means over every choice of m runs of A and of B, and of m and m others of one."""
    out = {}
    runs = {CNN: range(seeds), VIT: range(seeds, 2 * seeds)}
    for strength, hold in (("any", np.any), ("all", np.all)):

        def share(first, second, hold=hold):
            found = hold(forgotten[list(first)], 0) & ~forgotten[list(second)].any(0)
            return found.mean()

        for one, other in ((CNN, VIT), (VIT, CNN)):
            choices = [
                share(x, y)
                for x in combinations(runs[one], m)
                for y in combinations(runs[other], m)
            ]
            out[strength, f"{one}, not {other}"] = np.mean(choices)
            halves = [(p[:m], p[m : 2 * m]) for p in permutations(runs[one])]
            out[strength, f"{one}, not other seeds"] = np.mean([share(*h) for h in halves])
    return out


@pytest.mark.parametrize(("seeds", "m"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_shares_are_means_over_every_choice_of_runs(rng, seeds, m):
    forgotten = rng.random((2 * seeds, 40)) < rng.random(40)
    found = only_one_forgets(events_at(forgotten), rng, draws=20)
    assert (found["runs"] == m).all()
    values = found.set_index(["strength", "quantity"])["estimate"]
    slow = slow_shares(forgotten, seeds, m)
    for key, value in slow.items():
        assert values[key] == pytest.approx(value), key
    across = [slow["any", f"{a}, not {b}"] for a, b in ((CNN, VIT), (VIT, CNN))]
    within = [slow["any", f"{a}, not other seeds"] for a in (CNN, VIT)]
    assert values["any", "excess"] == pytest.approx(np.mean(across) - np.mean(within))
    assert values["any", "one architecture"] == pytest.approx(np.mean(across))
    assert values["any", "one set of seeds"] == pytest.approx(np.mean(within))
    assert (found["ci_low"] <= found["estimate"]).all()
    assert found["samples"].tolist() == pytest.approx((40 * found["estimate"]).tolist())


def test_excess_is_zero_without_and_positive_with_an_architecture_effect():
    rng = np.random.default_rng(1)

    def excess(own):
        rate = 1 / (1 + np.exp(1 - rng.normal(size=1000) - own * rng.normal(size=(2, 1000))))
        forgotten = rng.random((8, 1000)) < np.repeat(rate, 4, axis=0)
        found = only_one_forgets(events_at(forgotten), rng, draws=300)
        return found[(found["quantity"] == "excess") & (found["strength"] == "any")].iloc[0]

    none, some = excess(0.0), excess(2.0)
    assert none["ci_low"] < 0 < none["ci_high"]
    assert some["ci_low"] > 0.02


@pytest.mark.slow
def test_an_architecture_that_forgets_more_of_all_alike_has_an_excess_by_rate():
    rng = np.random.default_rng(4)
    forgotten = rng.random((8, 4000)) < np.repeat([[0.1], [0.5]], 4, axis=0)
    found = only_one_forgets(events_at(forgotten), rng, draws=100)
    excess = found[(found["quantity"] == "excess") & (found["strength"] == "any")].iloc[0]
    # Chances in any of two runs: 1 - 0.9^2 and 1 - 0.5^2.
    assert excess["by_rate"] == pytest.approx((0.19 - 0.75) ** 2 / 2, abs=0.01)
    assert excess["ci_low"] - 0.01 < excess["by_rate"] < excess["ci_high"] + 0.01
    assert found["by_rate"].notna().sum() == 1


@pytest.mark.slow
def test_interval_of_the_excess_covers():
    rng, hits = np.random.default_rng(2), []

    def draw(n):
        rate = 1 / (1 + np.exp(1 - rng.normal(size=n) - rng.normal(size=(2, n))))
        return rng.random((4, n)) < np.repeat(rate, 2, axis=0)

    def value(forgotten, draws):
        found = only_one_forgets(events_at(forgotten), rng, draws=draws)
        return found[(found["quantity"] == "excess") & (found["strength"] == "any")].iloc[0]

    truth = value(draw(100_000), 1)["estimate"]
    for _ in range(150):
        row = value(draw(200), 200)
        hits.append(row["ci_low"] <= truth <= row["ci_high"])
    assert 0.90 <= np.mean(hits) <= 0.99


def test_one_seed_has_nothing_to_stand_beside(rng):
    found = only_one_forgets(events_at(rng.random((2, 30)) < 0.4), rng, draws=20)
    values = found.set_index(["strength", "quantity"])["estimate"]
    assert np.isfinite(values["any", f"{CNN}, not {VIT}"])
    assert np.isnan([values["any", "excess"], values["all", f"{CNN}, not other seeds"]]).all()
    with pytest.raises(ValueError, match="two architectures are needed"):
        only_one_forgets(simulated(40).select(arch=CNN), rng)


def test_gallery_shows_the_clearest_first():
    forgotten = np.zeros((4, 6), bool)  # two runs of each architecture
    forgotten[:2, 3] = True  # every run of the first, none of the second
    forgotten[0, 1] = True
    forgotten[:, 4] = True  # all runs of both
    forgotten[2:, 5] = True
    table = gallery(events_at(forgotten))
    first = table[table["forgets"] == CNN]
    assert first["row"].tolist() == [3, 1] and first["rank"].tolist() == [1, 2]
    assert first["strict"].tolist() == [True, False]
    assert first["events"].tolist() == [1.0, 0.5] and (first["events_keeps"] == 0).all()
    assert first["class"].tolist() == ["d", "b"] and not first["noisy"].any()
    assert first["runs_forgets"].tolist() == [1.0, 0.5] and (first["runs_keeps"] == 0).all()
    assert table[table["forgets"] == VIT]["row"].tolist() == [5]
    assert table["sample_id"].iloc[0] == f"{3:016x}"
    assert len(gallery(events_at(forgotten), count=1)) == 2
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        gallery(events_at(forgotten), count=0)


def test_headline_tests_are_five_one_per_finding():
    assert len(HEADLINE_TESTS) == 5 == len({finding for finding, _ in HEADLINE_TESTS})
    known = {(finding, quantity) for finding, _, quantity in PAPER}
    assert sum(key in known for key in HEADLINE_TESTS) == 4  # the paper has no W
    assert EQUIVALENCE_MARGIN == 0.01
