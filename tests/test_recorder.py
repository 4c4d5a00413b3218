"""The recorder of the training pass against a loop over batches that looks at each at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from retention_lib import recorder
from retention_lib.recorder import Recorder

CPU = torch.device("cpu")


def slow(n, batches):
    """Sample by sample, in the order of presentation."""
    seen = {name: np.zeros(n) for name in ("predicted", "loss", "margin")}
    shown = np.zeros(n, int)
    for rows, logits, labels in batches:
        for row, x, label in zip(rows.tolist(), logits, labels.tolist(), strict=True):
            others = torch.cat([x[:label], x[label + 1 :]])
            seen["predicted"][row] = int(x.argmax())
            seen["loss"][row] = float(F.cross_entropy(x[None], torch.tensor([label])))
            seen["margin"][row] = float(x[label] - others.max())
            shown[row] += 1
    return seen, shown


def batches_of(n, classes, shown_rows, batch, seed=0):
    source = torch.Generator().manual_seed(seed)
    rows = torch.as_tensor(shown_rows)
    logits = torch.randn(len(rows), classes, generator=source)
    labels = torch.randint(classes, (len(rows),), generator=source)
    return [(rows[b], logits[b], labels[b]) for b in torch.arange(len(rows)).split(batch)]


@pytest.mark.parametrize("block", [1, 40, recorder.BLOCK])
@pytest.mark.parametrize("classes", [2, 7])
def test_blocks_see_what_a_loop_sees(monkeypatch, block, classes):
    """Also with samples shown several times, within a block and across blocks, and never."""
    monkeypatch.setattr(recorder, "BLOCK", block)
    rows = np.random.default_rng(1).integers(0, 30, 50)
    batches = batches_of(40, classes, rows, 8)
    one = Recorder(40, CPU)
    for where, logits, labels in batches:
        one.add(where, logits, labels)
    seen, shown = one.finish()
    expected, times = slow(40, batches)
    np.testing.assert_array_equal(shown, times)
    np.testing.assert_array_equal(seen["predicted"], expected["predicted"])
    for name in ("loss", "margin"):
        np.testing.assert_allclose(seen[name], expected[name], rtol=1e-5, atol=1e-6)


def test_ties_take_the_first_class_and_gradients_are_let_go():
    one, logits = Recorder(2, CPU), torch.zeros(1, 3, requires_grad=True)
    one.add(torch.tensor([1]), logits * 2, torch.tensor([2]))
    seen, shown = one.finish()
    assert seen["predicted"].tolist() == [0, 0] and shown.tolist() == [0, 1]
    assert seen["loss"][1] == pytest.approx(np.log(3)) and seen["margin"][1] == 0


def test_nothing_shown_is_nothing_seen():
    seen, shown = Recorder(3, CPU).finish()
    assert not shown.any() and not any(values.any() for values in seen.values())
