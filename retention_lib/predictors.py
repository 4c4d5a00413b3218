"""Forgetting curves as predictors: fitted to the entries so far, read off at any later time.

Rivals, such as `constant`, and the losses of both are in `rivals`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retention_lib.curves import CURVES
from retention_lib.decay import fit_decay
from retention_lib.shrinkage import NoScaleError, shrink

#: (r, mask, t) -> P(correct): r, mask (epoch, sample) from the origin on, r NaN outside the mask;
#: t (sample,) or (epoch, sample) epochs since the origin; the result has the shape of t.
Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def decay_predictor(
    model: str = "exponential", *, pooled: bool = False, smoothing: float = 1.0, **options
) -> Predictor:
    """A forgetting curve R fitted by Bernoulli likelihood, read off at the times asked for.

    P = (n R(t) + a / 2) / (n + a), with n the entries that were fitted and a = `smoothing`. With
    a = 1 a constant curve gives exactly the smoothed rate of `constant`, so that the two differ in
    nothing but shape; with a = 0 a fit that is certain meets only the clip.

    Parameters
    ----------
    model : str
        A key of `decay.MODELS`. Where the curve is 1 at t = 0 by construction, that entry is left
        out of the fit: it says nothing of the rate, and a wrong one would have probability 0.
    pooled : bool
        One curve for all traces together, instead of one for each.
    smoothing : float
        Pseudo-observations, half of them right.
    **options
        Go to `decay.fit_decay`.

    Returns
    -------
    callable
        A `Predictor`.
    """
    if smoothing < 0:
        raise ValueError(f"smoothing must not be negative, got {smoothing}")
    from_one = model in CURVES and all(first == 1 for first, _ in CURVES[model].vertices)

    def predict(r, mask, t):
        mask = mask.copy()
        if from_one:
            mask[0] = False
        n, weights = mask.sum(0), None
        if pooled:
            count, n = mask.sum(1, keepdims=True), n.sum()
            r = np.where(mask, r, 0).sum(1, keepdims=True) / np.maximum(count, 1)
            mask, weights = count > 0, count.astype(float)
        fit = fit_decay(r, mask=mask, model=model, loss="bernoulli", weights=weights, **options)
        times, at = np.unique(t, return_inverse=True)
        column = np.zeros(1, int) if pooled else np.arange(r.shape[1])
        curve = fit.predict(times)[at.reshape(np.shape(t)), column]
        return (n * curve + smoothing / 2) / (n + smoothing)

    return predict


#: Where most samples are never forgotten, the distribution of log lambda reaches far down.
WIDE = (1e-14, 1e3)


def shrunk_predictor(labels=None, **options) -> Predictor:
    """The exponential again, its decay constants shrunk towards their class as `rasch` shrinks.

    P is exp(-lambda t) averaged over the posterior of lambda (`shrinkage.shrink`), so that a few
    entries do not pass for certainty. A rival of `rasch` on equal terms. Where a run
    holds too few mistakes for a distribution of lambda (`NoScaleError`), P is its rate.

    Parameters
    ----------
    labels : array, (sample,), optional
        Class of each sample; without them all samples share one distribution.
    **options
        Go to `shrinkage.shrink`.
    """

    def predict(r, mask, t):
        known = mask.copy()
        known[0] = False  # the curve is 1 there, whatever lambda
        filled = np.where(known, r, 1.0)
        try:
            found = shrink(filled, known, labels, **({"bounds": WIDE} | options))
        except NoScaleError:
            right = (known & (r == 1)).sum()
            return np.full(np.shape(t), (right + 0.5) / (known.sum() + 1))
        times, at = np.unique(t, return_inverse=True)
        return found.predict(times)[at.reshape(np.shape(t)), np.arange(r.shape[1])]

    return predict
