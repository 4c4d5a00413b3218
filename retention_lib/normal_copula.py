"""Rank correlations on the scale of a normal copula: chained, and from the overlap of top sets."""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats
from scipy.integrate import quad
from scipy.optimize import brentq

from retention_lib.config import TOP_SHARE


def pearson_of(rho):
    """Correlation r of a bivariate normal whose Spearman correlation is rho: 2 sin(pi rho / 6)."""
    return 2 * np.sin(np.pi * np.asarray(rho, float) / 6)


def spearman_of(r):
    """Spearman correlation of a bivariate normal with correlation r: (6 / pi) arcsin(r / 2).

    Examples
    --------
    >>> float(np.round(spearman_of(1.0), 12)), float(np.round(spearman_of(pearson_of(0.3)), 12))
    (1.0, 0.3)
    """
    return 6 / np.pi * np.arcsin(np.asarray(r, float) / 2)


def chain(*rhos) -> float:
    """Spearman of the ends of a Markov chain whose neighbours correlate by `rhos`: r = product.

    Examples
    --------
    >>> round(float(chain(0.5, 0.5)), 4)
    0.2566
    """
    return float(spearman_of(np.prod([pearson_of(rho) for rho in rhos])))


def spearman_of_overlap(jaccard: float, share: float = TOP_SHARE) -> float:
    """Spearman correlation of two normal scores whose top sets have this Jaccard overlap.

    Solves for the correlation at which both exceed their threshold with probability
    share x 2 J / (1 + J).

    Parameters
    ----------
    jaccard, share : float

    Examples
    --------
    >>> round(spearman_of_overlap(0.3), 3)
    0.675
    """
    if not 0 <= jaccard <= 1 or not 0 < share < 1:
        raise ValueError(f"jaccard must lie in 0..1, share in (0, 1), got {jaccard!r}, {share!r}")
    if jaccard in (0, 1):
        return 2.0 * jaccard - 1
    both, z = share * 2 * jaccard / (1 + jaccard), stats.norm.isf(share)

    def excess(r):
        def integrand(x):
            return math.exp(-x * x / 2) * special.ndtr((r * x - z) / math.sqrt(1 - r * r))

        # beyond z + 10 less than 1e-20 is left
        return quad(integrand, z, z + 10, limit=200)[0] / math.sqrt(2 * math.pi) - both

    edge = 1 - 1e-6
    if excess(edge) <= 0:  # so near to 0 or 1 that no correlation inside the edges gives it
        return 1.0
    if excess(-edge) >= 0:
        return -1.0
    return float(spearman_of(brentq(excess, -edge, edge, xtol=1e-10)))
