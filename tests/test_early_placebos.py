"""Controls of early loss: margins alone, and an association that was planted."""

import numpy as np
import pytest
from simulated import simulated, with_correct

from retention_lib import early_placebos
from retention_lib.link_tables import ALL


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def all_runs(table, what):
    return table[table["arch"] == ALL].set_index(what)


def test_placebos_of_margins_alone_are_not_exceeded(rng):
    order = rng.normal(size=150)  # a Rasch model: difficulty and epoch, nothing else
    logit = np.linspace(0, 2, 8)[:, None] - 1.5 * order
    correct = rng.random((4, 8, 150)) < 1 / (1 + np.exp(-logit))
    base = with_correct(correct)
    base.clean["loss"][:] = np.logaddexp(0, order).astype(np.float16)
    table = early_placebos.placebos(base, {"sim": base}, rng, 10, 60)
    assert (table["p"] > 0.03).all() and (table["spearman"] > 0.3).all()
    assert (table["curveball"] - table["spearman"]).abs().max() < 0.06
    assert table["held_out"].tolist() == pytest.approx(table["spearman"].tolist())
    with pytest.raises(ValueError, match="same runs in the same order"):
        early_placebos.placebos(base, {"sim": base.select(seed=0)}, rng, 10, 9)


def test_known_association_is_recovered(rng):
    base = simulated(n=800, epochs=20, seeds=(0, 1))
    rows = all_runs(early_placebos.known_association(base, rng, 30, 0.45), "constants")
    assert rows.loc["true", "estimate"] == pytest.approx(0.45, abs=0.05)
    assert rows.loc["misaligned", "estimate"] == pytest.approx(0, abs=0.06)
    assert 0.2 < rows.loc["literal", "estimate"] < rows.loc["true", "estimate"]
    assert rows["planted"].to_dict() == {"true": 0.45, "literal": 0.45, "retention": 0.45,
                                         "misaligned": 0.0}  # fmt: skip
