"""Log-loss of rivals: by hand, against loops, and on simulations where the best model is known."""

import numpy as np
import pandas as pd
import pytest
from rivalry import own_rate, simulate, table_of

from retention_lib.config import LITERAL, RETENTION, TraceConvention
from retention_lib.rasch import fit_rasch
from retention_lib.rivals import (
    CLIP,
    LEAST,
    cross_seed,
    cross_seed_losses,
    one_step,
    one_step_losses,
)
from retention_lib.traces import Traces

CONVENTIONS = (LITERAL, RETENTION)
#: Decay constants of the stand-in for a fitted curve.
RATES = np.geomspace(0.001, 3, 40)


def posterior_exponential(r, mask, t):
    """exp(-lambda t) averaged over a flat posterior of log lambda: a shrunken decay fit."""
    right = np.where(mask, r, 0)
    curve = np.clip(np.exp(-RATES * np.arange(len(r))[:, None]), 1e-12, 1 - 1e-12)
    weight = right.T @ np.log(curve) + (mask - right).T @ np.log1p(-curve)  # (sample, rate)
    weight = np.exp(weight - weight.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    return (np.exp(-np.asarray(t)[..., None] * RATES) * weight).sum(-1)


def slow_one_step(correct, learned: bool, predictors) -> dict[str, np.ndarray]:
    """The readable twin: sample by sample, epoch by epoch; no clip needed for these rivals."""
    n_epochs, n_samples = correct.shape
    start = [
        int(np.argmax(c)) if learned and c.any() else (n_epochs if learned else 0)
        for c in correct.T
    ]
    first = [s + 1 if learned else s for s in start]  # the first entry that counts
    out = {name: np.zeros(n_samples) for name in ("constant", "epoch", "last", *predictors)}
    for now in range(n_epochs):
        before = [correct[now - 1, i] for i in range(n_samples) if first[i] <= now - 1]
        moves = [
            (correct[s, i], correct[s + 1, i])
            for i in range(n_samples)
            for s in range(start[i], now - 1)
        ]
        for i in range(n_samples):
            past = correct[first[i] : now, i]
            if len(past) < LEAST:
                continue
            out_of = [b for a, b in moves if a == correct[now - 1, i]]
            p = {
                "constant": (past.sum() + 0.5) / (len(past) + 1),
                "epoch": (sum(before) + 0.5) / (len(before) + 1),
                "last": (sum(out_of) + 0.5) / (len(out_of) + 1),
            }
            for name, predict in predictors.items():
                r = correct[start[i] : now, i, None].astype(float)
                mask = np.ones(r.shape, bool)
                mask[0] = not learned
                p[name] = predict(r, mask, np.array([now - start[i]]))[0]
            for name, value in p.items():
                value = np.clip(value, CLIP, 1 - CLIP)
                out[name][i] -= np.log(value if correct[now, i] else 1 - value)
    return out


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_one_step_losses_are_those_of_a_loop(convention):
    correct = simulate("rasch", np.random.default_rng(0), 2, 9, 25)
    predictors = {"exponential": posterior_exponential, "own": own_rate}
    found = one_step_losses(correct, convention, predictors)
    for run in range(2):
        slow = slow_one_step(correct[run], convention is RETENTION, predictors)
        for name, want in slow.items():
            np.testing.assert_allclose(found.total[name][run], want, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(found.total["own"], found.total["constant"], atol=1e-12)
    assert found.run.tolist() == [0, 1] and found.scheme == "one_step"


def test_one_step_by_hand():
    """Six epochs, predicted from the fifth on (four entries behind); two samples."""
    correct = np.array([[1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]], bool).T
    found = one_step_losses(correct, LITERAL)
    # sample 0: P = 3.5 / 5, right; then 4.5 / 6, wrong. Sample 1: 4.5 / 5, 5.5 / 6, both right
    want = [-np.log(0.7) - np.log(0.25), -np.log(0.9) - np.log(5.5 / 6)]
    np.testing.assert_allclose(found.total["constant"][0], want, rtol=1e-12)
    assert found.count.tolist() == [[2, 2]]
    # epochs 3 and 4: both right, P = 2.5 / 3
    want = [-np.log(2.5 / 3) - np.log(0.5 / 3), -2 * np.log(2.5 / 3)]
    np.testing.assert_allclose(found.total["epoch"][0], want, rtol=1e-12)
    # moves from 1 up to epoch 3: 1 of sample 0 stays, 1 leaves, 3 of sample 1 stay: 4.5 / 6;
    # epoch 4 adds one that stays for each: 6.5 / 8
    want = [-np.log(4.5 / 6) - np.log(1.5 / 8), -np.log(4.5 / 6) - np.log(6.5 / 8)]
    np.testing.assert_allclose(found.total["last"][0], want, rtol=1e-12)
    table = table_of(found).loc["epoch"]
    ours, base = (found.total[m].sum() / 4 for m in ("epoch", "constant"))
    assert table["log_loss"] == pytest.approx(ours) and table["n"] == 4
    assert table["skill"] == pytest.approx(1 - ours / base)
    assert table["gain"] == pytest.approx(base - ours)


def test_cross_seed_by_hand():
    """RETENTION, entries since the learned epoch: that entry itself is never scored."""
    a = np.array([[1, 1, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1]], bool).T  # 4 of 5, 4 of 4 right
    b = np.array([[0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 1]], bool).T  # 2 of 3, 1 of 1; too short
    found = cross_seed_losses(np.stack([a, b]), RETENTION, {"falling": falling_by_age})
    assert found.count.tolist() == [[3, 1], [0, 0]] and found.run.tolist() == [1, 0]
    rate, own = 8.5 / 10, np.array([4.5 / 6, 4.5 / 5])
    want = {
        "constant": [-2 * np.log(rate) - np.log(1 - rate), -np.log(rate)],
        "sample": [-2 * np.log(own[0]) - np.log(1 - own[0]), -np.log(own[1])],
        # epochs 3, 4, 5 of A: 1 of 2, 2 of 2 and 2 of 2 right
        "epoch": [-np.log(1.5 / 3) - np.log(0.5 / 3) - np.log(2.5 / 3), -np.log(2.5 / 3)],
        # ages 1, 2, 3 of sample 0 and 1 of sample 1, since B's own learned epoch
        "falling": [-np.log(0.9) - np.log(0.2) - np.log(0.7), -np.log(0.9)],
    }
    for name, values in want.items():
        np.testing.assert_allclose(found.total[name][0], values, rtol=1e-12, err_msg=name)
        assert found.total[name][1].tolist() == [0, 0]


def falling_by_age(r, mask, t):
    return 1 - np.asarray(t) / 10


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_rasch_across_seeds_is_its_fit_read_off_at_the_same_epoch(convention):
    correct = simulate("rasch", np.random.default_rng(1), 2, 8, 40)
    found = cross_seed_losses(correct, convention)
    for a, b in ((0, 1), (1, 0)):
        scored = np.ones((2, 8, 40), bool)
        if convention is RETENTION:
            scored = np.cumsum(correct, 1) - correct > 0  # after the first that is right
        p = np.clip(fit_rasch(correct[a], scored[a]).predict(), CLIP, 1 - CLIP)
        loss = -np.log(np.where(correct[b], p, 1 - p))
        use = scored[b] & (scored[a].sum(0) >= LEAST)
        np.testing.assert_allclose(found.total["rasch"][a], (loss * use).sum(0), atol=1e-9)
        np.testing.assert_array_equal(found.count[a], use.sum(0))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_prediction_knows_what_is_still_to_come(convention):
    """Other outcomes in the last epochs change no loss of the epochs before."""
    rng = np.random.default_rng(2)
    correct = simulate("rasch", rng, 1, 12, 60)[0]
    other = correct.copy()
    other[9:] = rng.random((3, 60)) < 0.5
    predictors = {"exponential": posterior_exponential}
    until = one_step_losses(correct[:9], convention, predictors)
    step = one_step_losses(correct[:10], convention, predictors)
    changed = one_step_losses(other[:10], convention, predictors)
    for name in until.total:
        loss = [x.total[name] - until.total[name] for x in (step, changed)]
        same = correct[9] == other[9]
        np.testing.assert_allclose(loss[0][0, same], loss[1][0, same], atol=1e-9, err_msg=name)
        p = np.exp(-np.array(loss))[:, 0, ~same & (step.count > until.count)[0]]
        np.testing.assert_allclose(p.sum(0), 1, atol=1e-9, err_msg=name)  # P(right) + P(wrong)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_rasch_data_are_best_predicted_by_rasch(convention):
    correct = simulate("rasch", np.random.default_rng(3))
    predictors = {"exponential": posterior_exponential}
    for losses_of in (one_step_losses, cross_seed_losses):
        table = table_of(losses_of(correct, convention, predictors))
        assert table["log_loss"].idxmin() == "rasch"
        assert table.loc["rasch", "ci_low"] > table["ci_high"].drop("rasch").max()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_decay_with_rates_of_its_own_is_best_predicted_by_its_curve(convention):
    correct = simulate("decay", np.random.default_rng(4), samples=3000)
    predictors = {"exponential": posterior_exponential}
    for losses_of in (one_step_losses, cross_seed_losses):
        losses = losses_of(correct, convention, predictors)
        table = table_of(losses)
        assert table["log_loss"].idxmin() == "exponential"
        # Rasch comes close: log(-log R) = log lambda + log t is additive, if in another link
        lead = (losses.total["rasch"] - losses.total["exponential"]).sum(0)
        assert lead.mean() > 2.5 * lead.std() / np.sqrt(len(lead))


def test_rates_that_seeds_do_not_share_do_not_carry_over():
    correct = simulate("unshared decay", np.random.default_rng(5))
    predictors = {"exponential": posterior_exponential}
    along = table_of(one_step_losses(correct, RETENTION, predictors))
    across = table_of(cross_seed_losses(correct, RETENTION, predictors))
    assert along["log_loss"].idxmin() == "exponential"
    assert across["log_loss"].idxmin() == "epoch"  # all that is common
    assert across.loc["exponential", "ci_high"] < 0 and across.loc["sample", "ci_high"] < 0


def test_constant_rates_leave_nothing_to_win():
    predictors = {"exponential": posterior_exponential}
    rng = np.random.default_rng(6)
    table = table_of(one_step_losses(simulate("rate", rng, samples=3000), LITERAL, predictors))
    assert table["skill"].max() < 0.01  # the smoothing is the best there is for these rates
    assert table.loc[["epoch", "last", "exponential"], "ci_high"].max() < 0
    across = simulate("one rate", rng, samples=3000)
    table = table_of(cross_seed_losses(across, LITERAL, predictors))
    assert table["skill"].max() < 1e-3
    assert table.loc[["epoch", "difficulty", "rasch"], "skill"].min() > -1e-3
    assert table.loc[["sample", "exponential"], "ci_high"].max() < 0
    truth = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)  # nats
    assert table.loc["constant", "log_loss"] == pytest.approx(truth, abs=0.01)


def test_unshown_entries_count_nowhere():
    correct = simulate("rasch", np.random.default_rng(7), 2, 10, 50)
    shown = np.random.default_rng(8).random(correct.shape) < 0.8
    for losses_of in (one_step_losses, cross_seed_losses):
        one, two = (losses_of(c, LITERAL, shown=shown) for c in (correct, correct ^ ~shown))
        np.testing.assert_array_equal(one.count, two.count)
        for name in one.total:
            np.testing.assert_allclose(one.total[name], two.total[name], atol=1e-6, err_msg=name)
    behind = np.cumsum(shown, 1) - shown
    one = one_step_losses(correct, LITERAL, shown=shown)
    np.testing.assert_array_equal(one.count, (shown & (behind >= LEAST)).sum(1))


def test_clip_is_shared_by_all_and_bounds_a_loss():
    correct = np.ones((1, 8, 3), bool)
    correct[0, -1] = False

    def sure(r, mask, t):
        return np.ones(np.shape(t))

    fixed = one_step_losses(correct, LITERAL, {"sure": sure}).total["sure"]
    np.testing.assert_allclose(fixed, -np.log(CLIP) - 3 * np.log(1 - CLIP), rtol=1e-12)
    by_trace = one_step_losses(correct, LITERAL, {"sure": sure}, clip=None).total
    np.testing.assert_allclose(by_trace["sure"], by_trace["constant"], rtol=1e-12)


def make_traces(correct, archs, seeds) -> Traces:
    n = correct.shape[2]
    samples = pd.DataFrame({"label": np.arange(n) % 2, "group": np.arange(n) // 2})
    predicted = np.where(correct, samples["label"], 2).astype(np.int32)
    runs = pd.DataFrame({"arch": archs, "seed": seeds})
    none = {"predicted": np.full_like(predicted, -1)}
    clean = {"predicted": predicted}
    return Traces(samples, runs, np.arange(correct.shape[1]), clean, none)


def test_tables_have_a_row_per_architecture_and_model():
    rng = np.random.default_rng(10)
    correct = np.concatenate([simulate("rasch", rng, 3, 8, 60), simulate("rate", rng, 2, 8, 60)])
    order = [0, 3, 1, 4, 2]
    traces = make_traces(correct[order], ["a", "b", "a", "b", "a"], [0, 0, 1, 1, 2])
    table = one_step(traces, rng, draws=50)
    assert table.groupby("arch")["seeds"].first().to_dict() == {"a": 3, "b": 2}
    models = ["constant", "epoch", "difficulty", "rasch", "last"]
    assert table["model"].tolist() == 2 * models and table["groups"].unique().tolist() == [30]
    across = cross_seed(traces, rng, LITERAL, {"own": own_rate}, draws=50)
    assert across["n"].tolist() == 6 * [6 * 8 * 60] + 6 * [2 * 8 * 60]
    want = cross_seed_losses(correct[:3], LITERAL)
    rows = across[across["arch"] == "a"].set_index("model")
    for name, total in want.total.items():
        assert rows.loc[name, "log_loss"] == pytest.approx(total.sum() / (6 * 8 * 60))
    assert rows.loc["own", "log_loss"] == rows.loc["sample", "log_loss"]
    assert np.all((across["ci_low"] <= across["skill"]) & (across["skill"] <= across["ci_high"]))
    with pytest.raises(ValueError, match="at least 2 runs, got 1"):
        cross_seed(traces.select(seed=2), rng)


def test_bad_input_is_named():
    correct = simulate("rate", np.random.default_rng(12), 1, 8, 20)
    with pytest.raises(ValueError, match="cross-seed losses need at least 2 runs, got 1"):
        cross_seed_losses(correct)
    for bad in (
        TraceConvention(signal="ema"),
        TraceConvention(population="ever_forgotten"),
        TraceConvention(origin="first_learned", population="all"),
        TraceConvention(origin="peak", population="ever_learned"),
    ):
        with pytest.raises(ValueError, match="prediction needs raw correctness"):
            one_step_losses(correct, bad)
    with pytest.raises(ValueError, match=r"names of their own, got \['last'\]"):
        one_step_losses(correct, predictors={"last": own_rate})
    for wrong, message in (
        (lambda r, mask, t: 2 * np.ones(np.shape(t)), "model 'x' must predict probabilities"),
        (lambda r, mask, t: np.nan * t, "got 20 others or NaN out of 20, the first nan"),
        (lambda r, mask, t: 0.5, r"must predict shape \(20,\), got shape \(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            one_step_losses(correct, LITERAL, {"x": wrong})
