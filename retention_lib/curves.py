"""The forgetting curves: what each model is called, its basis, its parameters and their limits.

Every smooth curve is an affine function of one rising function p with p(0) = 0 and p(inf) = 1,

    R(t) = c_1 + c_2 p(t; u),        p = 1 - exp(-lambda s(t)),   u = log lambda,

so a model is a clock s(t) and the convex set that (c_1, c_2) may come from: a point for the plain
exponential, a segment with a floor, a triangle with an amplitude as well. R(0) = c_1 and
R(inf) = c_1 + c_2 are probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """One model of the form c_1 + c_2 p(t; u).

    Attributes
    ----------
    n_params : int
        Free parameters, for degrees of freedom and information criteria.
    vertices : tuple of (float, float)
        Corners, in order, of the convex set of allowed (c_1, c_2).
    clock : callable
        s(t), in which p is exponential: t itself, or log(1 + t) for the power law.
    shaped : bool
        A second nonlinear parameter v = log k: p = 1 - exp(-(lambda t)^k).
    """

    n_params: int
    vertices: tuple[tuple[float, float], ...]
    clock: Callable[[Tensor], Tensor] = lambda t: t
    shaped: bool = False


_POINT = ((1.0, -1.0),)
_SEGMENT = ((1.0, 0.0), (1.0, -1.0))
_TRIANGLE = ((0.0, 0.0), (1.0, -1.0), (1.0, 0.0))  # R(0) >= R(inf)
_SQUARE = ((0.0, 0.0), (1.0, -1.0), (1.0, 0.0), (0.0, 1.0))  # R(0), R(inf) anywhere in 0..1

#: Smooth models. `constant` and `change_point` have closed forms of their own in `decay`.
CURVES = {
    "exponential": Curve(1, _POINT),
    "exponential_floor": Curve(2, _SEGMENT),
    "exponential_amplitude": Curve(3, _TRIANGLE),
    "exponential_signed": Curve(3, _SQUARE),
    "power": Curve(1, _POINT, clock=torch.log1p),
    "weibull": Curve(2, _POINT, shaped=True),
}


def lost(s: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
    """p = 1 - exp(-lambda s), or 1 - exp(-(lambda s)^k); `s` and `u`, `v` broadcast."""
    if v is None:  # in place: these passes over (epoch, trace) are a good part of a fit
        return (s * -u.exp()).expm1_().neg_()
    return (s * u.exp()).pow(v.exp()).neg_().expm1_().neg_()


def basis(s: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(1, p): the family in the form that `separable` takes; the 1 is not written out."""
    p = lost(s, u)
    return p.new_ones(()), p
