"""Loss and decay of different runs: planted attenuation, and tables that agree."""

import numpy as np
import pytest
from simulated import simulated

from retention_lib import transfer
from retention_lib.link_tables import ALL
from retention_lib.normal_copula import spearman_of
from retention_lib.simulated_study import as_traces, study
from retention_lib.transfer import transfer_means, transfer_pairs


def planted(n=800, seeds=(10, 11, 12), seed=0, **kwargs):
    options = {"class_effect": 0.0, "early_loss": 0.5, "rate": 0.08} | kwargs
    rng = np.random.default_rng(seed)
    made = study(n, 21, ["cnn", "vit"], seeds, rng, group_size=2, **options)
    return made, as_traces(made)


@pytest.fixture(scope="module")
def traces():
    return simulated(n=120, epochs=6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_transfer_follows_its_planted_attenuation():
    made, _ = planted(3000, (10, 11), reliability=0.6, shared=0.5)
    pairs = transfer_pairs(made.loss, made.truth.latent, made.runs, np.random.default_rng(0))
    assert len(pairs) == 16 + 12
    table = transfer_means(pairs).set_index(["kind", "arch_loss", "arch_decay"])
    for kind, second, r in (
        ("same_run", "cnn", 0.5),
        ("same_architecture", "cnn", 0.5 * 0.6),
        ("cross_architecture", "vit", 0.5 * 0.3),
        ("misaligned", "vit", 0.0),
    ):
        row = table.loc[(kind, "cnn", second)]
        assert row["estimate"] == pytest.approx(spearman_of(r), abs=0.03)
    same = table.loc[("same_architecture", "cnn", "cnn")]
    assert same["via_decay"] == pytest.approx(spearman_of(0.5 * 0.6), abs=0.03)  # true here
    assert same["via_loss"] == pytest.approx(spearman_of(0.25 * 0.6 * 0.5), abs=0.03)  # is not
    assert same["retained"] == pytest.approx(0.6, abs=0.06)
    assert same["disattenuated"] == pytest.approx(1, abs=0.1)  # both stable parts are the latent's
    assert np.isnan(table.loc[("same_run", "cnn", "cnn"), "disattenuated"])
    with pytest.raises(ValueError, match=r"must be \(3 runs, sample\)"):
        transfer_pairs(made.loss, made.truth.latent, made.runs[:3], np.random.default_rng(0))


def test_transfer_table_agrees_with_the_pairs(traces, rng):
    table = transfer.transfer_table(traces, rng, 10).set_index(["kind", "arch"])
    means = transfer.mean_transfer(traces, rng).set_index(["kind", "arch_decay"])
    for kind in ("same_run", "same_architecture", "cross_architecture"):
        for arch in traces.runs["arch"].unique():
            expected = means.loc[(kind, arch), "estimate"]
            assert table.loc[(kind, arch), "estimate"] == pytest.approx(expected)
    assert abs(table.loc[("misaligned", ALL), "estimate"]) < 0.2
    one = traces.select(arch="phantom_deit", seed=0)
    assert set(transfer.transfer_table(one, rng, 5)["kind"]) == {"same_run", "misaligned"}
