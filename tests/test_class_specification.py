"""The agreement on classes under every convention."""

import numpy as np
import pandas as pd
import pytest
from many_classes import simulated

from retention_lib import class_specification
from retention_lib.class_averages import means_by_class
from retention_lib.concordance import kendall_w
from retention_lib.findings import score_matrix


@pytest.fixture(scope="module")
def traces():
    return simulated()


def test_specification_marks_the_primary_and_agrees_with_w(traces):
    table = class_specification.specification(traces, np.random.default_rng(0), 60)
    first = table[table["primary"]].iloc[0]
    values = score_matrix(traces)
    w = kendall_w(means_by_class(values, traces.labels, 8)).estimate[0]
    assert first["kendall_w"] == pytest.approx(w, abs=1e-12)
    assert first["scope"] == "all" and first["ci_low"] <= first["estimate"] <= first["ci_high"]
    assert set(table["scope"]) == {"all", "resnet", "deit", "between"}
    assert set(table["view"]) == {"clean"}  # the simulation has no online view
    known = table[["ci_low", "ci_high"]].dropna()
    assert (known["ci_low"] > -1).all()  # an interval that is not known is not -1 to 1
    row = class_specification.agreement_of_conventions(table.assign(dataset="x")).iloc[0]
    assert row["conventions"] == len(table) and row["primary_w"] == first["kendall_w"]
    assert row["smallest"] <= row["median"] <= row["largest"]
    assert class_specification.agreement_of_conventions(pd.DataFrame({"dataset": []})).empty
