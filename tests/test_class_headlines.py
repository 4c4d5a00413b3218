"""Records of notebook 04: names that other notebooks rely on, with the p of the named null."""

import numpy as np
import pandas as pd
import pytest

from retention_lib import class_agreement, class_headlines, class_likeness, class_rivals
from retention_lib.config import HEADLINE_TESTS
from retention_lib.simulated_study import as_traces, study


def tables(draws=60):
    """The tables that the records are made of, of one simulated phantom."""
    rng = np.random.default_rng(0)
    made = study(
        240,
        9,
        ["phantom_resnet18", "phantom_deit"],
        (0, 1, 2),
        rng,
        reliability=0.6,
        shared=0.8,
        class_effect=0.3,
        n_classes=6,
        rate=0.08,
    )
    traces = as_traces(made)
    gap = np.abs(np.subtract.outer(np.arange(6.0) ** 1.5, np.arange(6.0) ** 1.5))
    near = {"simulated": {"planted": gap, "features of phantom_deit": gap**2}}
    found = [
        class_agreement.consistency(traces, rng, draws=draws, permutations=draws),
        class_agreement.consistency(traces, rng, draws=draws, permutations=draws),
        class_agreement.between_architectures(traces, rng, draws=draws, permutations=draws),
        class_rivals.rivals(traces, {"simulated": traces}, rng, draws=draws),
        class_rivals.beyond_margins(traces, rng, 19),
        class_likeness.forgetting_by_likeness(traces, near, rng, draws=draws),
        class_likeness.confused_with_nearest(traces, near, rng, draws, draws),
        class_likeness.measures_agree(traces, near, rng, draws),
    ]
    return traces, near, [table.assign(dataset="phantom_x") for table in found]


@pytest.fixture(scope="module")
def made():
    return tables()


def test_records_have_the_agreed_names_and_levels(made):
    *_, found = made
    records = class_headlines.class_records(*found, {"phantom_x": "phantom"})
    by_name = {r["quantity"]: r for r in records}
    assert len(by_name) == len(records)
    for name in (
        "kendall_w",
        "kendall_w_over_seeds",
        "kendall_w_cnn",
        "kendall_w_vit",
        "kendall_w_misaligned",
        "kendall_w_dealt",
        "kendall_w_held_out",
        "kendall_w_beyond_margins",
        "icc_of_class_means",
        "class_rank_correlation_between_architectures",
        "class_rank_correlation_between_architectures_over_seeds",
        "class_frequency_correlation",
        "epoch_0_error_correlation",
        "forgetting_by_similarity_planted",
        "forgetting_by_similarity_features_vit",
        "confused_with_nearest_planted",
        "planted_similarity_recovered_features_vit",
    ):
        assert name in by_name, name
    whole, row = by_name["kendall_w"], found[0].iloc[0]
    assert (whole["p"], whole["estimate"]) == (row["p"], row["estimate"])
    assert (whole["chance"], whole["n"], whole["ceiling"]) == (1 / 6, 6, row["ceiling"])
    assert by_name["kendall_w_cnn"]["chance"] == pytest.approx(1 / 3)
    assert by_name["kendall_w_dealt"]["p"] == row["p_placebo"]
    assert by_name["kendall_w_over_seeds"]["n"] == 3
    assert by_name["planted_similarity_recovered_features_vit"]["planted"] == 1
    assert ("class_forgetting", "kendall_w") in HEADLINE_TESTS
    assert {r["verdict"] for r in records} == {"instrument check"}


def test_without_runs_or_images_records_say_so(made):
    empty = pd.DataFrame({"dataset": []})
    records = class_headlines.class_records(*[empty] * 8, {"octdl": None, "cub": None})
    assert [(r["dataset"], r["quantity"], r["n"]) for r in records] == [
        ("octdl", "kendall_w", 0),
        ("cub", "kendall_w", 0),
    ]
    *_, found = made
    records = class_headlines.class_records(*found[:5], *[empty] * 3, {"phantom_x": "phantom"})
    names = {r["quantity"] for r in records}
    assert "kendall_w" in names and not any("similarity" in name for name in names)


def test_rows_of_the_figure_are_quantities(made):
    *_, found = made
    records = class_headlines.class_records(*found, {"phantom_x": "phantom"})
    assert set(class_headlines.CONSISTENCY_ROWS) <= {r["quantity"] for r in records}
    assert class_headlines.measure_name("attributes") == "attributes"
