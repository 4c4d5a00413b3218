"""Variance components against textbook mean squares, MixedLM and simulations with known truth."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from retention_lib.simulated_study import study
from retention_lib.variance import COMPONENTS, _components, _matrices, variance_components


def grid(archs=2, seeds=3):
    pairs = [(a, s) for a in range(archs) for s in range(seeds)]
    return pd.DataFrame(pairs, columns=["arch", "seed"]).astype({"arch": str})


def quick(x, labels, arch):
    """Estimates alone, (component,), for samples in the order of their classes."""
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    found = _components(*_matrices(x, np.ones((1, len(labels))), first), arch)
    return np.array([found[name][0] for name in COMPONENTS])


def effects(labels, runs):
    """Every term's design: for each, what each (run, sample) belongs to."""
    arch = np.repeat(runs["arch"].to_numpy(str)[:, None], len(labels), 1)
    run = np.repeat(np.arange(len(runs))[:, None].astype(str), len(labels), 1)
    label, sample = (
        np.tile(np.asarray(v).astype(str), (len(runs), 1)) for v in (labels, np.arange(len(labels)))
    )
    joined = [label, sample, arch, run]
    cross = [(label, arch), (label, run), (sample, arch), (sample, run)]
    joined += [np.char.add(np.char.add(a, "/"), b) for a, b in cross]
    return dict(zip(COMPONENTS, joined, strict=True))


def mean_squares(x, labels, arch):
    """Textbook analysis of variance of balanced data (class of k samples), by cell means."""
    n_class, n_arch = len(set(labels)), len(set(arch))
    k, s = len(labels) // n_class, len(arch) // n_arch
    y = x.reshape(n_arch, s, n_class, k)  # (arch, seed, class, sample)

    def m(*axes):
        return y.mean(axis=axes, keepdims=True)

    size = y.size

    def ms(effect, df):
        return (effect**2).sum() * size / effect.size / df

    c, i, a, r, g = m(0, 1, 3), m(0, 1), m(1, 2, 3), m(2, 3), m(0, 1, 2, 3)
    ca, cr, ia = m(1, 3), m(3), m(1)
    class_ = ms(c - g, n_class - 1)
    sample = ms(i - c, n_class * (k - 1))
    archs = ms(a - g, n_arch - 1)
    seed = ms(r - a, n_arch * (s - 1))
    class_arch = ms(ca - c - a + g, (n_class - 1) * (n_arch - 1))
    class_seed = ms(cr - ca - r + a, (n_class - 1) * n_arch * (s - 1))
    sample_arch = ms(ia - i - ca + c, n_class * (k - 1) * (n_arch - 1))
    residual = ms(y - ia - cr + ca, n_class * (k - 1) * n_arch * (s - 1))
    return {
        "class": (class_ - class_arch - sample + sample_arch) / (k * n_arch * s),
        "sample": (sample - sample_arch) / (n_arch * s),
        "architecture": (archs - class_arch - seed + class_seed) / (n_class * k * s),
        "seed": (seed - class_seed) / (n_class * k),
        "class_x_architecture": (class_arch - class_seed - sample_arch + residual) / (k * s),
        "class_x_seed": (class_seed - residual) / k,
        "sample_x_architecture": (sample_arch - residual) / s,
        "residual": residual,
    }


def planted(labels, runs, sd, rng):
    """Scores whose terms are normal with the standard deviations `sd`."""
    x = np.zeros((len(runs), len(labels)))
    for name, design in effects(labels, runs).items():
        _, at = np.unique(design, return_inverse=True)
        x += sd[name] * rng.normal(size=at.max() + 1)[at.reshape(x.shape)]
    return x


@pytest.mark.parametrize("sizes", [(3, 3), (1, 2, 5), (4, 1, 1, 3)])
@pytest.mark.parametrize("archs, seeds", [(2, 2), (3, 2)])
def test_expected_values_are_the_components_for_classes_of_any_size(sizes, archs, seeds):
    # E of a quadratic form under a term with design Z is the sum of it over the columns of Z.
    labels, runs = np.repeat(np.arange(len(sizes)), sizes), grid(archs, seeds)
    arch = runs["arch"].astype(int).to_numpy()
    for k, design in enumerate(effects(labels, runs).values()):
        columns = [(design == level).astype(float) for level in np.unique(design)]
        expected = sum(quick(z, labels, arch) for z in columns)
        np.testing.assert_allclose(expected, np.eye(len(COMPONENTS))[k], atol=1e-12)


def test_balanced_data_give_the_textbook_mean_squares():
    rng, runs = np.random.default_rng(0), grid(3, 2)
    labels = np.repeat(np.arange(5), 4)
    x = planted(labels, runs, dict.fromkeys(COMPONENTS, 1.0), rng) + 50
    out = variance_components(x, runs, np.arange(20), labels, rng, draws=0)
    slow = mean_squares(x, labels, runs["arch"].to_numpy())
    for row in out.itertuples():
        assert row.estimate == pytest.approx(slow[row.component], abs=1e-9)
    assert out["share"].sum() == pytest.approx(1)
    shuffled = rng.permutation(20)
    again = variance_components(x[:, shuffled], runs, shuffled, labels[shuffled], rng, draws=0)
    np.testing.assert_allclose(again["estimate"], out["estimate"], atol=1e-9)


def test_mixed_model_by_restricted_likelihood_agrees_where_nothing_is_negative():
    rng, runs = np.random.default_rng(3), grid(1, 3)
    labels = np.repeat(np.arange(6), 4)
    sd = dict.fromkeys(COMPONENTS, 0.0) | {"class": 1.5, "sample": 1.0, "residual": 0.6}
    x = planted(labels, runs, sd | {"class_x_seed": 0.8}, rng)
    x -= x.mean(1, keepdims=True)
    frame = pd.DataFrame({"y": x.ravel(), "c": np.tile(labels, 3), "i": np.tile(np.arange(24), 3)})
    frame["cr"] = frame["c"] * 3 + np.repeat(np.arange(3), 24)
    frame["r"] = np.repeat(np.arange(3), 24)
    model = smf.mixedlm("y ~ C(r)", frame, groups="c", re_formula="1",
                        vc_formula={"i": "0 + C(i)", "cr": "0 + C(cr)"})  # fmt: skip
    fit = model.fit(reml=True)
    out = variance_components(x, runs, np.arange(24), labels, rng, draws=0)
    found = out.set_index("component")["estimate"]
    named = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    wanted = {"class": fit.cov_re.iloc[0, 0], "sample": named["i"], "class_x_seed": named["cr"]}
    for name, value in (wanted | {"residual": fit.scale}).items():
        assert found[name] > 0 and found[name] == pytest.approx(value, rel=2e-3), name


def test_resampling_small_classes_does_not_move_the_estimates():
    rng, runs = np.random.default_rng(1), grid()
    labels = np.repeat(np.arange(60), 4)
    sd = dict.fromkeys(COMPONENTS, 0.3) | {"sample": 1.0}
    x = planted(labels, runs, sd, rng)
    out = variance_components(x, runs, np.arange(240), labels, rng, 400).set_index("component")
    width = (out["ci_high"] - out["ci_low"]) / 3.9
    assert (out["bias"].abs() < 0.25 * width).all()  # 4 draws of 4 samples: naively 25 % of sample
    grouped = variance_components(x, runs, np.arange(240) // 2, labels, rng, 400)
    assert (grouped["ci_low"] < grouped["estimate"]).all()
    assert (grouped["estimate"] < grouped["ci_high"]).all()


def truth_of(made):
    """Planted variances; classes are fixed, hence the class share by the notes' formula."""
    of = dict.fromkeys(COMPONENTS, 0.0) | {k: v for k, v in made.truth.shares.items() if k in
                                           COMPONENTS}  # fmt: skip
    weight = np.bincount(made.labels) / len(made.labels)
    of["class"] /= 1 - (weight**2).sum()
    return of


def coverage(simulations, draws, n, rng):
    names = ["class", "sample", "sample_x_architecture", "residual"]
    hits = {name: [] for name in names} | {"share of sample": []}
    for _ in range(simulations):
        made = study(n, 1, ["a", "b"], [1, 2, 3], rng, reliability=0.6, shared=0.5)
        truth = truth_of(made)
        out = variance_components(
            made.truth.latent, made.runs, made.groups, made.labels, rng, draws
        ).set_index("component")
        for name in names:
            hits[name].append(out.ci_low[name] <= truth[name] <= out.ci_high[name])
        share = truth["sample"] / sum(truth.values())
        row = out.loc["sample"]
        hits["share of sample"].append(row["share_low"] <= share <= row["share_high"])
    return {name: np.mean(hit) for name, hit in hits.items()}


@pytest.mark.slow
def test_a_study_is_recovered_and_covered():
    rng = np.random.default_rng(2)
    made = study(8000, 1, ["a", "b"], [1, 2, 3], rng, reliability=0.7, shared=0.6, n_classes=40)
    out = variance_components(made.truth.latent, made.runs, made.groups, made.labels, rng, 100)
    truth = truth_of(made)
    for row in out.itertuples():
        assert row.estimate == pytest.approx(truth[row.component], abs=0.02)
        assert row.ci_low <= row.estimate <= row.ci_high
        assert row.truncated == max(row.estimate, 0)
    reached = coverage(60, 120, 200, rng)
    assert all(0.85 <= rate <= 1 for rate in reached.values()), reached


@pytest.mark.slow
@pytest.mark.simulation
def test_intervals_cover_at_the_nominal_rate():
    reached = coverage(2000, 500, 300, np.random.default_rng(4))
    assert all(0.93 <= rate <= 0.97 for rate in reached.values()), reached


def test_negative_estimates_stay_and_seeds_are_left_out():
    rng, runs = np.random.default_rng(5), grid(2, 3)
    labels = np.repeat(np.arange(4), 5)
    out = variance_components(rng.normal(size=(6, 20)), runs, np.arange(20), labels, rng, 50)
    negative = out[out["estimate"] < 0]
    assert len(negative) and (negative["truncated"] == 0).all() and (negative["share"] < 0).all()
    assert np.isfinite(out[["seed_low", "seed_high"]]).all(axis=None)
    assert (out["seeds"] == 3).all()
    two = variance_components(rng.normal(size=(4, 20)), grid(2, 2), range(20), labels, rng, 20)
    assert two["seed_low"].isna().all()


def test_terms_that_the_design_lacks_are_nan():
    rng = np.random.default_rng(6)
    x, labels = rng.normal(size=(3, 12)), np.repeat([0, 1], 6)
    one = variance_components(x, grid(1, 3), range(12), labels, rng, 20).set_index("component")
    for name in ("architecture", "class_x_architecture", "sample_x_architecture"):
        assert np.isnan(one.estimate[name]) and np.isnan(one.ci_low[name])
    assert np.isfinite(one.estimate[["class", "sample", "seed", "residual"]]).all()
    alone = variance_components(x, grid(1, 3), range(12), np.zeros(12), rng, 20)
    alone = alone.set_index("component")
    assert np.isnan(alone.estimate["class"]) and alone.share[["sample", "residual"]].notna().all()


@pytest.mark.parametrize(
    "runs, labels, message",
    [
        (grid(2, 1), [0, 0, 1], r"as many seeds, at least 2, got \{'0': 1, '1': 1\}"),
        (grid(1, 2).assign(seed=1), [0, 0, 1], "each \\(arch, seed\\) must be one run"),
        (grid(1, 3), [0, 0, 1], "one row for each of 2 runs, got 3"),
        (grid(1, 2), [0, 1, 2], "two samples or more, got 3 of one each"),
        (grid(1, 2), [0, 1], r"must be \(run, 2 samples\) like labels, got \(2, 3\)"),
    ],
)
def test_broken_input_is_quoted(runs, labels, message):
    with pytest.raises(ValueError, match=message):
        x = np.random.default_rng(0).normal(size=(2, 3))
        variance_components(x, runs, range(len(labels)), labels, np.random.default_rng(0), 5)
