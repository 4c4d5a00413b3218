"""Early loss, its rivals and decay constants follow what was planted."""

import numpy as np
import pytest
from scipy import stats

from retention_lib.early_predictors import (
    CONSTANTS,
    decay_constants,
    early_loss,
    input_norm,
    predictors,
)
from retention_lib.findings import score_matrix
from retention_lib.link_tables import correlations
from retention_lib.out_of_sample import over_seeds
from retention_lib.simulated_study import as_traces, study


def planted(n=800, seeds=(10, 11, 12), seed=0, **kwargs):
    options = {"class_effect": 0.0, "early_loss": 0.5, "rate": 0.08} | kwargs
    rng = np.random.default_rng(seed)
    made = study(n, 21, ["cnn", "vit"], seeds, rng, group_size=2, **options)
    return made, as_traces(made)


def test_simulated_early_loss_is_recovered_and_survives_the_class():
    made, traces = planted(class_effect=0.25)
    loss = early_loss(traces)
    assert loss == pytest.approx(made.loss, rel=1e-3)  # half precision
    groups = traces.samples["group"].to_numpy()
    rng = np.random.default_rng(0)
    rows = correlations(loss, made.truth.latent, traces.runs, traces.labels, groups, rng, 100)
    plain = rows[rows["quantity"] == "spearman"]
    assert len(plain) == 6
    assert plain["estimate"].mean() == pytest.approx(made.truth.early_loss_spearman, abs=0.03)
    # given class: cov and both variances lose 0.25 (loss: its square of 0.5)
    r = 0.5 * 0.75 / np.sqrt(0.75 * (1 - 0.25 * 0.25))
    given = rows[rows["quantity"] == "given class"]
    assert given["estimate"].mean() == pytest.approx(6 / np.pi * np.arcsin(r / 2), abs=0.03)
    table = over_seeds(rows, ("arch", "quantity"))
    assert table[["arch", "quantity"]].to_numpy().tolist()[:2] == [
        ["cnn", "spearman"],
        ["cnn", "given class"],
    ]
    mean = plain.loc[plain["arch"] == "cnn", "estimate"]
    assert table["estimate"].iloc[0] == pytest.approx(mean.mean(), abs=1e-12)
    assert table["n"].tolist() == [3] * 4


@pytest.mark.parametrize("convention", CONSTANTS)
def test_decay_constants_follow_the_planted_ones(convention):
    made, traces = planted(200, (10,), seed=3, n_classes=3)
    found = decay_constants(traces, convention)
    assert found.shape == (2, 200)
    never = ~traces.correct().any(1)
    assert (np.isnan(found) == (never if convention != "literal" else False)).all()
    for a, b in zip(found, made.truth.latent, strict=True):
        assert stats.spearmanr(a, b, nan_policy="omit")[0] > 0.8
    with pytest.raises(ValueError, match="convention must be one of"):
        decay_constants(traces, "paper")


def test_predictors_and_input_norm():
    _, traces = planted(120, (10, 11))
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), np.uint8)
    found = predictors(traces, images)
    slow = [np.linalg.norm(image / 255.0) / np.sqrt(image.size) for image in images]
    assert found["input norm"] == pytest.approx(slow, abs=1e-12)
    assert input_norm(images, chunk=7) == pytest.approx(found["input norm"], abs=1e-15)
    sizes = [(traces.labels == k).sum() for k in traces.labels]
    assert found["class frequency"].tolist() == [-size for size in sizes]
    constants = decay_constants(traces)
    raw = score_matrix(traces, "decay_constant")
    assert constants == pytest.approx(raw, rel=2e-6)
    with pytest.raises(ValueError, match="119 images do not match 120 samples"):
        predictors(traces, images[1:])
    with pytest.raises(ValueError, match="images must be uint8"):
        input_norm(images.astype(float))
