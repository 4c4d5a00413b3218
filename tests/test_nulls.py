"""Redraws against enumeration, a set-based twin, and data from a Rasch model."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats
from scipy.special import expit

from retention_lib.margin_test import margin_test
from retention_lib.nulls import redraws, shuffle_epochs


def slow_curveball(matrix, rng, trades):
    """The readable twin, after Strona et al.: epochs as sets of samples, two of them at a time."""
    right = [set(np.flatnonzero(row)) for row in matrix]
    for _ in range(trades):
        i, j = rng.choice(len(right), 2, replace=False)
        shared, pool = right[i] & right[j], sorted(right[i] ^ right[j])
        mine = set(rng.permutation(pool)[: len(right[i]) - len(shared)])
        right[i], right[j] = shared | mine, shared | (set(pool) - mine)
    return np.array([[s in row for s in range(matrix.shape[1])] for row in right])


def same_margins(matrix):
    """Every 0/1 matrix with the margins of this one, by trying all, as bytes."""
    rows = [
        [r for r in product((0, 1), repeat=matrix.shape[1]) if sum(r) == total]
        for total in matrix.sum(1)
    ]
    every = (np.array(m, bool) for m in product(*rows))
    return [m.tobytes() for m in every if (m.sum(0) == matrix.sum(0)).all()]


SMALL = {
    "regular": np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool),
    "skewed": np.array([[1, 1, 1, 0, 1], [1, 0, 0, 1, 1], [0, 1, 0, 0, 0]], bool),
    "full_row": np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], bool),
    "five_epochs": np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1]], bool),
}


@pytest.mark.parametrize("name", SMALL)
def test_redraws_are_uniform_over_all_matrices_with_these_margins(name):
    matrix = SMALL[name]
    every = {m: k for k, m in enumerate(same_margins(matrix))}
    known = {"regular": 90, "full_row": 6}  # 2-regular of order 4 (A001499); 3! permutations
    assert len(every) == known.get(name, len(every)) >= 6
    per_matrix = 100
    batches = redraws(matrix, np.random.default_rng(0), per_matrix * len(every), sweeps=12)
    found = [every[m.tobytes()] for batch in batches for m in batch]
    counts = np.bincount(found, minlength=len(every))
    assert counts.min() > 0 and stats.chisquare(counts).pvalue > 0.01


def test_the_slow_twin_is_uniform_on_the_same_matrices():
    matrix = SMALL["skewed"]
    every = {m: k for k, m in enumerate(same_margins(matrix))}
    rng = np.random.default_rng(1)
    found = [every[slow_curveball(matrix, rng, 12).tobytes()] for _ in range(1000)]
    assert stats.chisquare(np.bincount(found, minlength=len(every))).pvalue > 0.01


def test_a_trade_of_two_long_epochs_deals_a_uniform_subset():
    x = np.zeros((2, 403), bool)
    x[0, :90], x[1, 90:400] = True, True  # two epochs are one trade; 3 samples never vary
    draws = 4000
    first = np.concatenate([b[:, 0] for b in redraws(x, np.random.default_rng(0), draws, 1)])
    assert (first.sum(1) == 90).all() and not first[:, 400:].any()
    share, members = 90 / 400, first[:, :400].mean(0)
    chi2 = ((members - share) ** 2).sum() * draws / (share * (1 - share)) * 399 / 400
    assert 0.005 < stats.chi2.sf(chi2, 399) < 0.995
    for part in (slice(0, 100), slice(0, 400, 2)):  # of neighbours, and of every second sample
        found, law = first[:, part].sum(1), stats.hypergeom(400, 90, first[0, part].size)
        assert (
            stats.kstest(
                found + np.random.default_rng(1).random(draws),
                lambda v, law=law: (
                    law.cdf(np.floor(v) - 1) + (v - np.floor(v)) * law.pmf(np.floor(v))
                ),
            ).pvalue
            > 0.01
        )


def rasch(rng, n_epochs, n, spread=1.0):
    """Traces of which only the samples and the epochs know something."""
    return rng.random((n_epochs, n)) < expit(
        spread * rng.normal(size=n) + rng.normal(size=(n_epochs, 1))
    )


def events(c):
    return (c[..., :-1, :] & ~c[..., 1:, :]).sum((-2, -1))


def test_fast_and_slow_agree_on_the_distribution_of_a_statistic():
    rng = np.random.default_rng(2)
    x = rng.random((7, 60)) < np.linspace(0.9, 0.4, 7)[:, None]
    fast = np.concatenate([events(batch) for batch in redraws(x, rng, 400)])
    slow = np.array([events(slow_curveball(x, rng, 60)) for _ in range(400)])
    assert fast.mean() == pytest.approx(slow.mean(), abs=4 * slow.std() / np.sqrt(200))
    assert fast.std() == pytest.approx(slow.std(), rel=0.15)
    assert stats.ks_2samp(fast, slow).pvalue > 0.01


@given(
    arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)),
    st.integers(1, 4),
    st.integers(1, 3),
)
@settings(max_examples=80, deadline=None)
def test_margins_are_kept_whatever_the_matrix(x, draws, sweeps):
    before = x.copy()
    found = np.concatenate(list(redraws(x, np.random.default_rng(0), draws, sweeps)))
    assert len(found) == draws and (x == before).all()
    for y in found:
        assert y.shape == x.shape and y.dtype == bool
        assert (y.sum(0) == x.sum(0)).all() and (y.sum(1) == x.sum(1)).all()


def test_batches_add_up_and_differ():
    x = rasch(np.random.default_rng(3), 9, 50)
    batches = list(redraws(x, np.random.default_rng(0), 10, chains=4))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert len({m.tobytes() for b in batches for m in b} | {x.tobytes()}) == 11
    again = list(redraws(x.astype(int), np.random.default_rng(0), 10, chains=4))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_what_was_learned_and_never_forgotten_cannot_be_redrawn():
    learned = np.random.default_rng(4).integers(0, 12, 200)
    x = np.arange(10)[:, None] >= learned  # a Guttman scale: no other matrix has its margins
    assert all((y == x).all() for y in redraws(x, np.random.default_rng(0), 20))
    row = margin_test(events, x, np.random.default_rng(0), 99).iloc[0]
    assert row["p"] == 1 and row["null_sd"] == 0 and row["estimate"] == 0
    assert row["free"] == ((learned > 0) & (learned < 10)).sum()


def test_the_start_is_forgotten_after_the_default_sweeps():
    t, rng = np.arange(16)[:, None], np.random.default_rng(5)
    learned = rng.integers(0, 8, 400)
    x = (t >= learned) & (t < learned + rng.integers(1, 9, 400))  # each lapses once, for good
    short, long = (
        np.concatenate([events(b) for b in redraws(x, np.random.default_rng(6), 300, sweeps)])
        for sweeps in (10, 40)
    )
    assert events(x) < long.mean() - 40 * long.std()
    assert abs(short.mean() - long.mean()) < 0.25 * long.std()
    assert short.std() == pytest.approx(long.std(), rel=0.2)


@pytest.mark.parametrize("sweeps", [1, 10])
def test_p_is_uniform_under_a_rasch_model_however_few_the_sweeps(sweeps):
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(9, 40))  # hardly any two redraws are tied

    def statistic(c):
        return (weight * (c[..., :-1, :] & c[..., 1:, :])).sum((-2, -1))

    p = [
        margin_test(statistic, rasch(rng, 10, 40), rng, 39, "greater", sweeps).p[0]
        for _ in range(200)
    ]
    jittered = np.array(p) - rng.random(200) / 40  # p is k / 40: spread it over its step
    assert stats.kstest(jittered, "uniform").pvalue > 0.01


def test_the_exact_p_of_a_small_table():
    x = SMALL["regular"]
    every = [np.frombuffer(m, bool).reshape(4, 4) for m in same_margins(x)]
    exact = np.mean([events(m) <= events(x) for m in every])
    row = margin_test(events, x, np.random.default_rng(8), 1999, "less").iloc[0]
    assert row["p"] == pytest.approx(exact, abs=0.02)
    assert row["null_mean"] == pytest.approx(np.mean([events(m) for m in every]), abs=0.05)


def ones_centre(c):
    """Variance over samples of the mean epoch at which they were correct."""
    t = np.arange(c.shape[-2])[:, None]
    return ((c * t).sum(-2) / np.maximum(c.sum(-2), 1)).var(-1)


def decaying(rng, n_epochs, n):
    """Half of the samples decay, the other half is right at the same rate throughout."""
    decay = np.exp(-0.15 * np.arange(n_epochs))[:, None]
    return rng.random((n_epochs, n)) < np.where(np.arange(n) % 2, decay, decay.mean())


def persistent(rng, n_epochs, n):
    """The state of an epoch is kept with probability 0.3, or else drawn anew."""
    t, anew = np.arange(n_epochs)[:, None], rng.random((n_epochs, n)) < 0.7
    anew[0] = True
    last = np.maximum.accumulate(np.where(anew, t, 0), axis=0)
    return np.take_along_axis(rng.random((n_epochs, n)) < 0.7, last, axis=0)


@pytest.mark.parametrize(
    "plant, statistic, alternative",
    [(decaying, ones_centre, "greater"), (persistent, events, "less")],
)
def test_planted_structure_is_found(plant, statistic, alternative):
    rng = np.random.default_rng(9)
    p = [margin_test(statistic, plant(rng, 13, 150), rng, 99, alternative).p[0] for _ in range(10)]
    assert np.median(p) == 0.01 and np.mean(np.array(p) <= 0.05) >= 0.9


def test_several_quantities_and_runs_share_the_redraws():
    rng = np.random.default_rng(10)
    x = np.stack([rasch(rng, 6, 30) for _ in range(3)])
    out = margin_test(
        lambda c: {"events": events(c).sum(1), "twice": 2 * events(c).sum(1)}, x, rng, 49
    )
    assert out["quantity"].tolist() == ["events", "twice"] and (out["n"] == 30).all()
    assert out["null_mean"][1] == pytest.approx(2 * out["null_mean"][0])
    assert out["p"][0] == out["p"][1] and out["estimate"][0] == events(x).sum()
    assert out["ci_low"].isna().all()
    # seeds that share samples agree because the samples differ in difficulty: so do the redraws
    both = np.stack([rng.random((13, 400)) < expit(rng.normal(0, 2, 400)) for _ in range(1)] * 2)
    alike = margin_test(
        lambda c: [np.corrcoef(*pair)[0, 1] for pair in c.mean(2)], both, rng, 19
    ).iloc[0]
    assert alike["estimate"] == pytest.approx(alike["null_mean"]) == 1.0


def test_shuffled_epochs_keep_totals_and_lose_time():
    x = np.arange(20)[:, None] < np.full(3000, 10)
    y = shuffle_epochs(np.stack([x, x]), np.random.default_rng(0))
    assert y.shape == (2, 20, 3000) and (y.sum(1) == 10).all()
    np.testing.assert_allclose(y.mean(2), 0.5, atol=0.05)
    assert not (y[0] == y[1]).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda r: next(redraws(np.ones(3), r, 1)), r"\(epoch, sample\).*got shape \(3,\)"),
        (lambda r: next(redraws(np.ones((2, 0)), r, 1)), r"not empty, got shape \(2, 0\)"),
        (lambda r: next(redraws(np.full((2, 2), 2), r, 1)), "0 or 1, got 2..2"),
        (lambda r: next(redraws(np.full((2, 2), np.nan), r, 1)), "0 or 1, got nan"),
        (lambda r: next(redraws(np.eye(2), r, 0)), "draws must be at least 1, got 0"),
        (lambda r: next(redraws(np.eye(2), r, 1, 0)), "sweeps must be at least 1, got 0"),
        (lambda r: margin_test(np.mean, np.eye(2), r, 9), r"shape \(1,\).*got shape \(\)"),
        (lambda r: margin_test(events, np.eye(2), r, 9, level=5), "level must lie"),
        (lambda r: shuffle_epochs(np.ones(3), r), r"got shape \(3,\)"),
    ],
)
def test_broken_input_is_quoted(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
