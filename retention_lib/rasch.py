"""The Rasch model of a correctness matrix: some epochs are worse, some samples harder, no more.

    logit P(correct[t, i]) = e_t - d_i,      d_i ~ Normal(0, s^2)

The epoch effects e_t and the spread s maximise the marginal likelihood; a sample's difficulty d_i
is then described by its posterior. Estimating every d_i jointly with e_t is no alternative: the
estimates of e_t stay biased however many samples there are (Neyman & Scott 1948), and d_i is
infinite for every sample that was always right or always wrong, which most samples are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

#: Pseudo-observations per epoch, half of them right, for a sample of difficulty 0: they keep the
#: effect of an epoch in which all were right finite, and weigh nothing beside hundreds of samples.
PSEUDO = 1.0
#: Search range of s [logit]. At 20 the samples are as good as always right or always wrong.
SPREAD_BOUNDS = (0.0, 20.0)
#: Samples at a time, which bounds the memory: about 10 kB each.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class _Groups:
    """Samples that the model cannot tell apart: the same epochs seen, the same number right."""

    mask: np.ndarray  # float (group, epoch)
    total: np.ndarray  # float (group,)
    size: np.ndarray  # float (group,)
    of: np.ndarray  # int (sample,)


@dataclass(frozen=True, eq=False)
class RaschFit:
    """A fitted Rasch model.

    Attributes
    ----------
    epoch_effect : ndarray, (epoch,) or (run, epoch)
        e_t [logit]: how easy the epoch is for a sample of difficulty 0; 0 in an epoch without any
        entry.
    difficulty, difficulty_sd : ndarray, (sample,)
        Posterior mean and standard deviation of d_i [logit], given e and s. A sample without any
        entry has the prior's: 0 and s.
    prior_sd : float
        s [logit]; 0 if the samples differ no more than chance makes them.
    log_likelihood : float
        Marginal log-likelihood [nat], without the pseudo-observations.
    n_params : int
        Epoch effects and s.
    """

    epoch_effect: np.ndarray
    difficulty: np.ndarray
    difficulty_sd: np.ndarray
    prior_sd: float
    log_likelihood: float
    n_params: int
    _groups: _Groups

    def predict(self, epoch_effect=None) -> np.ndarray:
        """P(correct) for each sample, averaged over the posterior of its difficulty.

        Parameters
        ----------
        epoch_effect : float or array, (epoch,), optional
            Epochs to predict [logit], the fitted ones by default.

        Returns
        -------
        ndarray, (epoch, sample)
            Without the last-but-one axis for a number, with a run axis for fitted runs.
        """
        effect = np.asarray(self.epoch_effect if epoch_effect is None else epoch_effect, float)
        fitted = self.epoch_effect.ravel()
        parts = [
            post @ expit(effect.ravel() - d[:, None])
            for _, _, d, post, _ in _posteriors(self._groups, fitted, self.prior_sd)
        ]
        p = np.concatenate(parts).T[:, self._groups.of]
        return p.reshape(*effect.shape, -1)

    def __repr__(self):
        return (
            f"RaschFit({self.epoch_effect.size} epoch effects, {len(self.difficulty):,} samples, "
            f"prior_sd {self.prior_sd:.3g}, log-likelihood {self.log_likelihood:.6g})"
        )


def fit_rasch(correct, mask=None, *, equal_epochs: bool = False) -> RaschFit:
    """Fit logit P(correct) = e_t - d_i by marginal maximum likelihood.

    The sum of correct entries is sufficient for d_i, so samples of equal sum and mask are one
    group: without a mask there are at most epochs + 1. The likelihood is maximised by L-BFGS with
    its exact gradient, which needs no more than an EM step does (Fisher's identity).

    Parameters
    ----------
    correct : bool or 0/1, (epoch, sample) or (run, epoch, sample)
        With a run axis every run has its own epoch effects and the difficulties are shared; fit
        runs one by one for difficulties of their own.
    mask : bool, same shape, optional
        Entries to use; all by default.
    equal_epochs : bool
        One effect for all epochs: nothing but samples' own rates, shrunk towards the common rate.

    Returns
    -------
    RaschFit

    Raises
    ------
    ValueError
        On values other than 0 and 1 inside the mask, or shapes that do not fit together.
    RuntimeError
        If the search ends before it has converged.

    References
    ----------
    Rasch 1960, Probabilistic models for some intelligence and attainment tests. Bock & Aitkin
    1981, Psychometrika 46, 443-459 (marginal likelihood). Neyman & Scott 1948, Econometrica 16,
    1-32 (why not joint likelihood).

    Examples
    --------
    >>> correct = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [1, 0, 0, 1]])
    >>> fit_rasch(correct).difficulty.argsort().tolist()[0], fit_rasch(correct).n_params
    (0, 4)
    """
    y, m, shape = _check(correct, mask)
    groups = _group(y, m)
    n, right = m.sum(1), y.sum(1)  # (epoch,)
    scale = max(m.any(0).sum(), 1)  # samples with data: the objective is per sample

    def negative(x):
        e = np.full(len(n), x[0]) if equal_epochs else x[:-1]
        value, by_effect, by_spread = _marginal(groups, e, x[-1])
        value += right @ e + PSEUDO * (e / 2 - np.logaddexp(0, e)).sum()
        by_effect = right - by_effect + PSEUDO * (0.5 - expit(e))
        by_effect = by_effect.sum(keepdims=True) if equal_epochs else by_effect
        return -value / scale, -np.append(by_effect, by_spread) / scale

    rate = (right + PSEUDO / 2) / (n + PSEUDO)
    first = np.log(rate / (1 - rate))
    x0 = np.append(first.mean() if equal_epochs else first, 1.0)
    limits = [(None, None)] * (len(x0) - 1) + [SPREAD_BOUNDS]
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-7, "maxcor": 20}
    found = minimize(negative, x0, jac=True, method="L-BFGS-B", bounds=limits, options=options)
    slope = _slope(found.x, found.jac)
    if slope > 1e-4:
        raise RuntimeError(f"Rasch fit has not converged: gradient {slope:.1e} ({found.message})")
    e, s = np.full(len(n), found.x[0]) if equal_epochs else found.x[:-1], float(found.x[-1])
    mean, sd = _moments(groups, e, s)
    value = float(_marginal(groups, e, s)[0] + right @ e)
    difficulty, sd = mean[groups.of], sd[groups.of]
    return RaschFit(e.reshape(shape), difficulty, sd, s, value, len(found.x), groups)


def _slope(x: np.ndarray, gradient: np.ndarray) -> float:
    """Steepest way down that the bounds of s, the last of `x`, leave open."""
    slope = np.abs(gradient)
    low, high = SPREAD_BOUNDS
    if (x[-1] <= low and gradient[-1] > 0) or (x[-1] >= high and gradient[-1] < 0):
        slope[-1] = 0
    return float(slope.max())


def _check(correct, mask):
    """`correct` and `mask` as float (run x epoch, sample), and the shape of the epoch effects."""
    correct = np.asanyarray(correct)
    if correct.ndim not in (2, 3) or 0 in correct.shape:
        raise ValueError(
            "correct must be (epoch, sample) or (run, epoch, sample) and not empty, "
            f"got shape {correct.shape}"
        )
    mask = np.ones(correct.shape, bool) if mask is None else np.asanyarray(mask)
    if mask.shape != correct.shape or mask.dtype != bool:
        raise ValueError(
            f"mask must be bool of shape {correct.shape}, got {mask.dtype} {mask.shape}"
        )
    strange = np.unique(correct[mask & (correct != 0) & (correct != 1)])
    if len(strange):
        raise ValueError(f"correct must hold only 0 and 1 inside the mask, got {strange[:5]}")
    flat = (-1, correct.shape[-1])
    y = np.where(mask, correct, 0).astype(float).reshape(flat)
    return y, mask.astype(float).reshape(flat), correct.shape[:-1]


def _group(y: np.ndarray, m: np.ndarray) -> _Groups:
    keys = np.column_stack([np.packbits(m.T.astype(bool), axis=1), y.sum(0).astype("<u4")])
    _, first, of, size = np.unique(
        keys, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    return _Groups(m.T[first], y.sum(0)[first], size.astype(float), of)


def _posteriors(groups: _Groups, e: np.ndarray, s: float) -> Iterator[tuple]:
    """Block by block: rows, P(correct) (epoch, node), nodes d, weights (group, node), log integral.

    The integral over d = s z is a trapezoidal sum over equally spaced nodes, the same for all
    groups: its error falls as exp(-2 (pi sd / h)^2) with h the spacing and sd the narrowest
    posterior's. Gauss-Hermite nodes of the prior lie too far apart for a posterior of many epochs.
    """
    n = max(groups.mask.sum(1).max(), 1.0)
    far = max(1.0, np.abs(e).max() + np.log1p(n * s * s))
    mode = min(s * n, far / max(s, 1e-6))  # no posterior's mode has a larger |z|
    step = min(0.8 / np.sqrt(1 + n * s * s / 4), 0.6 / max(s, 1e-6))
    half = int(np.ceil((9 + mode) / step))
    z = step * np.arange(-half, half + 1)
    d = s * z
    prior = np.log(step) - 0.5 * z * z - 0.5 * np.log(2 * np.pi)
    log_odds = np.logaddexp(0, e[:, None] - d)  # (epoch, node)
    for start in range(0, len(groups.total), _BLOCK):
        rows = slice(start, start + _BLOCK)
        log_w = prior - np.outer(groups.total[rows], d) - groups.mask[rows] @ log_odds
        top = log_w.max(1, keepdims=True)
        w = np.exp(log_w - top)
        area = w.sum(1, keepdims=True)
        yield rows, z, d, w / area, (top + np.log(area))[:, 0]


def _marginal(groups: _Groups, e: np.ndarray, s: float) -> tuple[float, np.ndarray, float]:
    """Sum over samples of log integral, -its gradient by e (epoch,), its derivative by s."""
    value, by_effect, by_spread = 0.0, np.zeros(len(e)), 0.0
    for rows, z, d, post, log_integral in _posteriors(groups, e, s):
        size = groups.size[rows]
        p = expit(e[:, None] - d)
        share = (groups.mask[rows] * size[:, None]).T @ post  # (epoch, node) expected samples
        value += size @ log_integral
        by_effect += (share * p).sum(1)
        by_spread += (share * p).sum(0) @ z - (size * groups.total[rows]) @ (post @ z)
    return value, by_effect, by_spread


def _moments(groups: _Groups, e: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and standard deviation of d, (group,) each."""
    mean, square = [], []
    for _, _, d, post, _ in _posteriors(groups, e, s):
        mean.append(post @ d)
        square.append(post @ (d * d))
    mean, square = np.concatenate(mean), np.concatenate(square)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
