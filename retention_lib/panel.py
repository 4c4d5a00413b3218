"""One run's correctness twice: by calendar epoch, and by epochs since each sample's origin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retention_lib.config import TraceConvention
from retention_lib.convention import retention_trace
from retention_lib.forgetting import tally_of


@dataclass(frozen=True, eq=False)
class Panel:
    """One run, by calendar epoch (`correct`, `seen`, `scored`) and by epochs since the origin."""

    correct: np.ndarray
    seen: np.ndarray  # in the trace
    scored: np.ndarray  # and not right by definition
    start: np.ndarray  # (sample,) the origin
    r: np.ndarray
    mask: np.ndarray


def panels_of(correct, convention: TraceConvention, shown) -> list[Panel]:
    """A panel of every run of `correct`, (epoch, sample) or (run, epoch, sample).

    A ValueError on a convention whose traces say what is to be predicted: all samples from epoch 0
    and ever-learned ones from the learned epoch do not.
    """
    learned = convention.origin == "first_learned"
    honest = {"epoch_0": "all", "first_learned": "ever_learned"}
    if convention.signal != "raw" or honest.get(convention.origin) != convention.population:
        raise ValueError(
            f"prediction needs raw correctness of (origin, population) in {list(honest.items())}, "
            f"got {convention}"
        )
    correct = np.asanyarray(correct)
    tally = tally_of(correct, shown)  # checks the input as well
    correct = correct.astype(bool).reshape(-1, *correct.shape[-2:])
    shown = np.ones(correct.shape, bool) if shown is None else shown.reshape(correct.shape)
    first = tally.first_correct.reshape(len(correct), -1)
    rows, panels = np.arange(correct.shape[1])[:, None], []
    for y, here, start in zip(correct, shown, first if learned else 0 * first, strict=True):
        r, mask = retention_trace(y, convention, here)
        seen = here & (rows >= start) & (start >= 0)
        if learned:
            mask[0] = False
        panels.append(Panel(y, seen, seen & (rows > start) if learned else seen, start, r, mask))
    return panels
