"""Curves as predictors: a level curve is the constant, and each is read at its own time."""

import numpy as np
import pytest
from rivalry import simulate

from retention_lib import predictors
from retention_lib.config import RETENTION
from retention_lib.predictors import decay_predictor, shrunk_predictor
from retention_lib.rivals import cross_seed_losses


class Constant:
    """What `fit_decay` returns, as far as a predictor needs it, for a level curve."""

    def __init__(self, r, mask=None, model=None, loss=None, weights=None):
        assert loss == "bernoulli"
        w = mask * (1.0 if weights is None else weights)
        self.level = np.where(mask, r * w, 0).sum(0) / w.sum(0)

    def predict(self, t):
        return np.repeat(self.level[None], len(t), 0)


class Falling(Constant):
    def predict(self, t):
        return np.exp(-np.asarray(t)[:, None] / 10) * np.ones_like(self.level)


@pytest.mark.parametrize("pooled", [False, True])
def test_decay_predictor_with_smoothing_one_makes_a_level_curve_the_constant(monkeypatch, pooled):
    monkeypatch.setattr(predictors, "fit_decay", Constant)
    correct = simulate("rasch", np.random.default_rng(9), 2, 10, 40)
    level = {"level": decay_predictor("constant", pooled=pooled)}
    found = cross_seed_losses(correct, RETENTION, level, least=1).total
    twin = "constant" if pooled else "sample"
    # pooled leaves nobody out with least = 1: all with an entry to count
    np.testing.assert_allclose(found["level"], found[twin], rtol=1e-9)


def test_decay_predictor_reads_each_curve_at_its_own_time(monkeypatch):
    monkeypatch.setattr(predictors, "fit_decay", Falling)
    r = np.ones((4, 3))
    mask = np.ones((4, 3), bool)
    t = np.array([4, 7, 5])
    p = decay_predictor("exponential", smoothing=0)(r, mask, t)
    np.testing.assert_allclose(p, np.exp(-t / 10))
    p = decay_predictor("exponential")(r, mask, np.tile(t, (2, 1)))  # three fitted: t = 0 is not
    np.testing.assert_allclose(p, np.tile((3 * np.exp(-t / 10) + 0.5) / 4, (2, 1)))
    assert mask.all()  # the caller's
    with pytest.raises(ValueError, match="smoothing must not be negative, got -1"):
        decay_predictor(smoothing=-1)


def test_shrunk_predictor_falls_back_on_the_rate_where_nothing_is_forgotten():
    r, mask = np.ones((5, 8), np.float32), np.ones((5, 8), bool)
    predicted = shrunk_predictor()(r, mask, np.full(8, 2))
    np.testing.assert_allclose(predicted, (32 + 0.5) / (32 + 1))
    rng = np.random.default_rng(0)
    r = (rng.random((13, 300)) < 0.9 ** np.arange(13)[:, None]).astype(np.float32)
    r[0] = 1
    predicted = shrunk_predictor()(r, np.ones(r.shape, bool), np.full(300, 5))
    assert abs(predicted.mean() - 0.9**5) < 0.03 and predicted.std() > 0.01
