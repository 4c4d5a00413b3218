"""Curves with closed forms: a constant rate, and one change from a rate to another."""

from __future__ import annotations

import torch
from torch import Tensor

#: Traces at a time, so that the passes over them stay in the processor's cache.
_BLOCK = 8192


def entropy_loss(hits: Tensor, total: Tensor) -> Tensor:
    """Minus the largest Bernoulli log-likelihood of a constant rate [nat], 0 log 0 being 0."""
    misses = total - hits
    return torch.xlogy(total, total) - torch.xlogy(hits, hits) - torch.xlogy(misses, misses)


def constant(y: Tensor, w: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Best constant rate and its loss (weighted SSE, or minus log-likelihood), each (trace,).

    Parameters
    ----------
    y, w : Tensor, (epoch, trace)
        `w` may be (epoch, 1).
    """
    if y.shape[1] > _BLOCK:
        parts = [
            constant(y[:, i : i + _BLOCK], w if w.shape[1] == 1 else w[:, i : i + _BLOCK], loss)
            for i in range(0, y.shape[1], _BLOCK)
        ]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))
    total, hits = w.sum(0).expand(y.shape[1]), (w * y).sum(0)
    level = hits / total
    if loss == "bernoulli":
        return level, entropy_loss(hits, total)
    return level, (w * (y - level) ** 2).sum(0)


def change_point(y: Tensor, w: Tensor, t: Tensor, loss: str) -> tuple[Tensor, ...]:
    """Best single change of the rate, by trying every place for it.

    Parameters
    ----------
    y, w : Tensor, (epoch, trace)
    t : Tensor, (epoch,) or (epoch, trace)

    Returns
    -------
    change, before, after, loss : Tensor, (trace,)
        `change` is the first time that has the rate `after`; of equals the earliest is taken. At
        least one weighted epoch lies on either side; all NaN where there are fewer than two.
    """
    w = w.expand_as(y)
    total, hits = w.cumsum(0), (w * y).cumsum(0)
    left_total, left_hits = total[:-1], hits[:-1]
    right_total, right_hits = total[-1] - left_total, hits[-1] - left_hits
    if loss == "bernoulli":
        losses = entropy_loss(left_hits, left_total) + entropy_loss(right_hits, right_total)
    else:  # the sum about each mean, which does not cancel as sums of squares would
        mean = (w * y).sum(0) / total[-1]
        left, right = left_hits - mean * left_total, right_hits - mean * right_total
        between = left**2 / left_total + right**2 / right_total
        losses = (w * (y - mean) ** 2).sum(0) - between
    # A change before an epoch without weight is the same change as before the next one with it.
    usable = (left_total > 0) & (right_total > 0) & (w[1:] > 0)
    losses = torch.where(usable, losses, torch.inf)
    best, k = losses.min(0)
    pick = k[None]
    before = (left_hits / left_total).gather(0, pick)[0]
    after = (right_hits / right_total).gather(0, pick)[0]
    times = t[1:, None].expand_as(losses) if t.ndim == 1 else t[1:]
    found = best.isfinite()
    values = (times.gather(0, pick)[0], before, after, best.clamp_min(0))
    return tuple(torch.where(found, v, torch.nan) for v in values)
