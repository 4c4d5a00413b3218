"""The p of a rank correlation if samples were independent, and the correlation that a p needs."""

from __future__ import annotations

import numpy as np
from scipy import special
from scipy.optimize import brentq


def nominal_log10_p(rho: float, n: int, controls: int = 0) -> float:
    """log10 of the two-sided p of t = rho sqrt(dof / (1 - rho^2)), dof = n - 2 - controls.

    Takes samples as independent, and differs from 0 for whatever makes both vectors depend on
    anything shared. Finite where p underflows: p = I_x(dof / 2, 1 / 2) at x = 1 - rho^2, whose
    hypergeometric series takes over below 1e-250.

    Examples
    --------
    >>> round(nominal_log10_p(0.2, 5994), 1)
    -54.4
    """
    x, a = max(1 - rho**2, 1e-300), max(n - 2 - controls, 1) / 2
    p = special.betainc(a, 0.5, x)
    if not p < 1e-250:  # NaN stays NaN
        return float(np.log10(p))
    series = np.log(special.hyp2f1(a + 0.5, 1.0, a + 1, min(x, 0.999)))
    tail = a * np.log(x) + np.log(abs(rho) / a) - special.betaln(a, 0.5) + series
    return float(tail / np.log(10))


def needed_rho(log10_p: float, n: int) -> float:
    """Smallest Spearman correlation of n samples whose nominal p is at most 10^log10_p.

    Examples
    --------
    >>> round(needed_rho(-45, 5994), 3)
    0.182
    """
    return float(brentq(lambda rho: nominal_log10_p(rho, n) - log10_p, 1e-9, 1 - 1e-9))
