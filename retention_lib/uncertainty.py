"""How sure a decay constant is: profile intervals for both losses, and an exact upper bound.

A standard error (`errors`) takes the objective for a parabola, which for ten or thirty observations
of 0 and 1 it is not. A profile interval assumes less, and is what is reported for lambda.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from retention_lib.checks import check_level

#: An estimate this near to a bound of log lambda is at it.
_AT_LIMIT = 1e-8
#: Spacing in log lambda of the search for the ends of a profile interval.
_SPACING = 0.36
#: Ends of a profile interval are found to this precision in log lambda.
_PRECISION = 1e-8


def likelihood_drop(level: float) -> float:
    """How far the profile log-likelihood may fall: half the chi-squared quantile, one degree.

    Examples
    --------
    >>> round(likelihood_drop(0.95), 4)
    1.9207
    """
    check_level(level)
    return float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)) ** 2 / 2)


def squares_drop(sse: Tensor, n: Tensor, n_params: int, level: float) -> Tensor:
    """How far the profile sum of squares may rise: sse F / (n - p), F of 1 and n - p degrees.

    `sse` and `n`, the epochs of positive weight, are (trace,). NaN for n <= p.
    """
    check_level(level)
    out = torch.full_like(sse, math.nan)
    left = (n - n_params).expand_as(sse)
    for m in left.unique().tolist():
        if m > 0:
            out = torch.where(left == m, sse * t_quantile(level, int(m)) ** 2 / m, out)
    return out


def t_quantile(level: float, degrees: int) -> float:
    """The t with P(|T| <= t) = `level` for Student's T with a whole number of degrees.

    By bisection on the finite series for P, Abramowitz & Stegun 26.7.3 and 26.7.4.

    Examples
    --------
    >>> round(t_quantile(0.95, 10), 4)
    2.2281
    """
    check_level(level)
    if degrees < 1:
        raise ValueError(f"degrees must be at least 1, got {degrees}")

    def share(angle: float) -> float:
        sine, cosine = math.sin(angle), math.cos(angle)
        odd = degrees % 2
        term, total = cosine if odd else 1.0, 0.0
        for k in range(2 + odd, degrees + 1, 2):
            total += term
            term *= cosine**2 * (k - 1) / k
        return (angle + sine * total) * 2 / math.pi if odd else sine * total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) < level else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def never_forgotten_bound(w: Tensor, s: Tensor, level: float) -> Tensor:
    """Exact upper limit of lambda, (trace,), for traces without a single error.

    All are right with probability exp(-lambda sum w s), which is at least 1 - level as long as
    lambda <= -log(1 - level) / sum w s. One-sided; `s` (epoch, trace) or (epoch, 1) is the clock
    of the curve: t, or log(1 + t) for the power law. Infinite where there is nothing to go by.

    Examples
    --------
    >>> t = torch.arange(4.0)[:, None]
    >>> round(float(never_forgotten_bound(torch.ones(4, 1), t, 0.95)), 4)  # 2.9957 / 6
    0.4993
    """
    check_level(level)
    return -math.log1p(-level) / (w * s).sum(0)


def profile_interval(
    profile: Callable[[Tensor], Tensor],
    u: Tensor,
    best: Tensor,
    drop: float | Tensor,
    bounds: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Interval of lambda in which the profile stays within `drop` of its maximum.

    Parameters
    ----------
    profile : callable
        Takes log lambda (trace,) and gives the objective (trace,), larger being better, all other
        parameters at their best: a log-likelihood, or minus a sum of squares.
    u : Tensor, (trace,)
        The estimate of log lambda, where the profile has its maximum.
    best : Tensor, (trace,)
        That maximum.
    drop : float or Tensor, (trace,)
        `likelihood_drop` or `squares_drop`.
    bounds : (float, float)
        Search range of lambda.

    Returns
    -------
    low, high : Tensor, (trace,)
        Of several stretches the hull, from the outermost crossing on either side (stretches apart
        from all others and narrower than the grid, a factor of 1.4 in lambda, may be missed). A
        bound of the search range that lies inside is no limit: `low` is then 0, `high` infinite.
        NaN where `u`, `best` or `drop` is.

    References
    ----------
    Venzon & Moolgavkar 1988, Applied Statistics 37, 87-94. Bates & Watts 1988, Nonlinear
    Regression Analysis and Its Applications, 6.1.

    Examples
    --------
    >>> u = torch.zeros(1).double()  # a parabola: the interval is exp(+-sqrt(2 drop))
    >>> low, high = profile_interval(lambda x: -x**2 / 2, u, u, 0.5, (0.01, 100.0))
    >>> round(float(low), 6), round(float(high), 6)
    (0.367879, 2.718282)
    """
    floor = best - drop
    n_nodes = max(2, math.ceil(math.log(bounds[1] / bounds[0]) / _SPACING) + 1)
    nodes = torch.linspace(*map(math.log, bounds), n_nodes, dtype=u.dtype, device=u.device)
    above = torch.stack([profile(x.expand_as(u)) >= floor for x in nodes])
    above[0] |= u - nodes[0] <= _AT_LIMIT  # the estimate itself is inside, whatever the rounding
    above[-1] |= nodes[-1] - u <= _AT_LIMIT
    place = torch.arange(n_nodes, device=u.device)[:, None]
    ends = []
    for side, flip in ((place, 1), (n_nodes - 1 - place, -1)):
        first = torch.where(above, side, n_nodes).amin(0)  # steps from the bound to the inside
        own = ((u - nodes[0] if flip > 0 else nodes[-1] - u) / (nodes[1] - nodes[0])).nan_to_num()
        inside_steps = torch.minimum(first.to(u), own)
        outside = (inside_steps.ceil() - 1).clamp_min(0)  # the node just outside
        step = flip * (nodes[1] - nodes[0])
        origin = nodes[0] if flip > 0 else nodes[-1]
        end = _crossing(profile, origin + outside * step, origin + inside_steps * step, floor)
        open_end = first == 0
        limit = 0.0 if flip > 0 else math.inf
        end = torch.where(open_end, limit, end.exp())
        ends.append(torch.where((u + floor).isnan(), math.nan, end))
    return ends[0], ends[1]


def _crossing(profile: Callable, outside: Tensor, inside: Tensor, floor: Tensor) -> Tensor:
    """Where the profile crosses `floor` between a point below it and one above, (trace,).

    The Illinois rule: a secant that halves the height of an end kept twice; every fourth step
    bisects, whatever the profile does.
    """
    below, over = profile(outside) - floor, (profile(inside) - floor).clamp_min(0.0)
    was_up = torch.full_like(over, math.nan)
    for attempt in range(120):
        width = inside - outside
        if not (width.abs() > _PRECISION).any():
            break
        share = (over / (over - below)).nan_to_num(0.5)
        share = share.clamp(0.01, 0.99) if attempt % 4 < 3 else torch.full_like(share, 0.5)
        x = inside - share * width
        height = profile(x) - floor
        up = height >= 0
        inside, outside = torch.where(up, x, inside), torch.where(up, outside, x)
        over = torch.where(up, height, torch.where(was_up == 0, over / 2, over))
        below = torch.where(up, torch.where(was_up == 1, below / 2, below), height)
        was_up = up.to(over)
    return inside
