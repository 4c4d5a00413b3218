"""The consistency audit from result files: Holm within a data set, implied correlations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from simulated import CNN, simulated
from statsmodels.stats.multitest import multipletests

from retention_lib import audit, audit_plots, consistency, headlines
from retention_lib.config import HEADLINE_TESTS
from retention_lib.implied import INGREDIENTS, implied_by, ingredients
from retention_lib.normal_copula import chain, spearman_of

P = [0.04, 0.0005, 0.3, 0.012, 0.0005]


def family(dataset, p) -> pd.DataFrame:
    """Findings with the p-values of the five headline tests, and one that is not in the family."""
    rows = [
        {
            "profile": "real",
            "dataset": dataset,
            "finding": f,
            "quantity": q,
            "estimate": 0.1,
            "p": x,
        }
        for (f, q), x in zip(HEADLINE_TESTS, p, strict=True)
    ]
    other = {"finding": "early_loss", "quantity": "spearman_cnn", "estimate": 0.1, "p": 1e-9}
    return pd.DataFrame([*rows, {"profile": "real", "dataset": dataset, **other}])


def test_holm_is_within_a_data_set_and_as_statsmodels_has_it():
    found = pd.concat([family("octdl", P), family("cub", P[::-1])], ignore_index=True)
    table = consistency.holm_table(found)
    assert len(table) == 10 and (table["tests"] == 5).all()
    for dataset, p in (("octdl", P), ("cub", P[::-1])):
        of = table[table["dataset"] == dataset]
        rejected, adjusted, *_ = multipletests(p, method="holm")
        np.testing.assert_allclose(of["p_holm"], adjusted, rtol=1e-12)
        assert of["rejected"].tolist() == rejected.tolist()


def test_a_missing_p_counts_as_a_test_to_come():
    p = [None, 0.012, None, 0.3, None]
    table = consistency.holm_table(family("octdl", p)).set_index("quantity")
    assert table["tests"].eq(2).all()
    assert table.loc["r2_difference", "p_holm"] == pytest.approx(5 * 0.012)
    assert (
        table.loc["r2_difference", "rejected"] is False
        or not table.loc["r2_difference", "rejected"]
    )
    assert math.isnan(table.loc["jaccard", "p_holm"]) and table.loc["jaccard", "rejected"] is None


def test_ingredients_survive_the_way_through_records():
    """From traces over records to the table: the same as directly from the traces."""
    traces = simulated(seed=4)
    table = consistency.study_ingredients(traces).assign(dataset="octdl")
    excess = consistency.study_excess(traces, np.random.default_rng(0), draws=40)
    records = consistency.ingredient_records(
        table, excess.assign(dataset="octdl"), {"octdl": "reduced", "cub": None}, {"octdl": 240}
    )
    assert len(records) == 2 * (len(INGREDIENTS) + 1 + 4)
    found = pd.DataFrame(records).assign(profile="real")
    by_records = consistency.implied_table(found)
    values = consistency.early_loss(traces), consistency.decay_constants(traces)
    directly = implied_by(ingredients(*values, traces.runs, traces.labels))
    for column in ("implied_low", "implied_high", "measured_low", "measured_high"):
        np.testing.assert_allclose(by_records[column], directly[column], rtol=1e-12)
    gap = directly["implied_low"] - directly["measured_high"]
    np.testing.assert_allclose(excess["estimate"], gap, rtol=1e-12)
    for end in ("low", "high"):
        np.testing.assert_allclose(by_records[f"excess_{end}"], excess[f"ci_{end}"], rtol=1e-9)
    assert by_records["contradicts"].tolist() == (excess["ci_low"] > 0).tolist()
    assert set(by_records["network"]) == {"cnn", "vit"}
    without = consistency.implied_table(found[~found["quantity"].str.startswith("excess")])
    assert without["contradicts"].isna().all()  # result files of before: no interval, no verdict


@pytest.mark.parametrize("opposed", [False, True])
def test_only_what_sampling_cannot_explain_contradicts(monkeypatch, opposed):
    """All seeds share the early loss, which decay follows; opposed, seeds share nothing else and
    what each has of its own is set against the others, so that they do not agree at all."""
    traces, found = simulated(n=400), []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        common, own = rng.normal(size=400), rng.normal(size=(2, 3, 400))
        if opposed:  # covariance -1 between seeds, which cancels that of the loss
            own = np.sqrt(3) * (own - own.mean(1, keepdims=True))
        decay = (common + own).reshape(6, 400)
        monkeypatch.setattr(consistency, "early_loss", lambda _, x=common: np.tile(x, (6, 1)))
        monkeypatch.setattr(consistency, "decay_constants", lambda _, x=decay: x)
        table = consistency.study_excess(traces, rng, draws=20).set_index(["arch", "finding"])
        found.append(table.loc[(CNN, "5")])
    implied = chain(spearman_of(1 / np.sqrt(3)), 1.0, spearman_of(1 / np.sqrt(3)))
    excess = implied if opposed else 0.0  # else what is implied is what seeds share
    assert np.mean([row["estimate"] for row in found]) == pytest.approx(excess, abs=0.07)
    assert [bool(row["ci_low"] > 0) for row in found] == [opposed] * 2


def test_paper_contradicts_itself_by_its_early_loss():
    """chain(.3, 1, .3) and chain(.5, 1, .5) on the normal scale, against .01."""
    table = consistency.implied_by_paper()
    early = table[table["finding"] == 5]
    expected = [6 / np.pi * np.arcsin((2 * np.sin(np.pi * r / 6)) ** 2 / 2) for r in (0.3, 0.5)]
    for _, row in early.iterrows():
        np.testing.assert_allclose(row[["implied_low", "implied_high"]].astype(float), expected)
        assert row["contradicts"]
    assert table["dataset"].tolist() == ["octdl", "octdl", "cub", "cub"]


def test_nothing_recorded_gives_nothing():
    empty = pd.DataFrame(columns=["profile", "dataset", "finding", "quantity", "estimate", "p"])
    assert consistency.implied_table(empty).empty and consistency.holm_table(empty).empty
    assert consistency.audit_records(pd.DataFrame()) == []


def test_figure_marks_what_contradicts():
    paper = consistency.implied_by_paper()
    _, axes = audit_plots.summary_figure({"paper": 3, "implied": len(paper)})
    ax = audit_plots.implied(axes["implied"], paper, pd.DataFrame())
    crosses = next(line for line in ax.get_lines() if line.get_marker() == "x")
    assert len(crosses.get_xdata()) == paper["contradicts"].sum() == 4
    assert [t.get_text() for t in ax.get_yticklabels()][1] == "paper, octdl: finding 5"


def test_what_is_not_yet_run_is_nan_in_the_papers_rows():
    """As read from JSON, whose null is None."""
    found = pd.DataFrame(headlines.not_run("seed_stability", "octdl")).assign(profile="real")
    found = found.astype(object).where(found.notna(), None)
    rows = audit.paper_rows(found).set_index("label")
    row = rows.loc["forgetting, seed against seed: Spearman, octdl"]
    assert np.isnan(row["estimate"]) and row["n"] == 0 and row["paper"] == 0.01
    assert rows["estimate"].dtype == float
