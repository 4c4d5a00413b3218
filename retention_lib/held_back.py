"""Penalised regression on one predictor and the class, fitted to some groups, tested on others.

Class effects are penalised, so that a class of a dozen samples does not predict with certainty.
Groups are never split between fitting and testing.
"""

from __future__ import annotations

import numpy as np
from scipy import special

MODELS = ("log loss", "class", "log loss and class")
#: Penalty of the class effects and of the slope of the standardised predictor: prior variance 1 on
#: the logit scale, one sample's worth of evidence for a linear target.
RIDGE = 1.0


def group_folds(
    groups: np.ndarray, labels: np.ndarray, rng: np.random.Generator, folds: int = 5
) -> np.ndarray:
    """Fold of every sample, (sample,): whole groups, dealt in turn within classes.

    A group of several classes counts with its most frequent one.

    Examples
    --------
    >>> group_folds([0, 0, 1, 1], [3, 3, 3, 3], np.random.default_rng(0), 2).tolist() in (
    ...     [0, 0, 1, 1], [1, 1, 0, 0])
    True
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    _, code = np.unique(np.asarray(labels), return_inverse=True)
    if not 2 <= folds <= group.max() + 1:
        raise ValueError(f"folds must lie in 2..{group.max() + 1} groups, got {folds!r}")
    votes = np.zeros((group.max() + 1, code.max() + 1), int)
    np.add.at(votes, (group, code), 1)
    home = votes.argmax(1)
    order = np.lexsort((rng.random(len(home)), home))  # classes one after another, shuffled inside
    fold = np.empty(len(home), int)
    fold[order] = np.arange(len(home)) % folds
    return fold[group]


def fit_ridge(
    x: np.ndarray, code: np.ndarray, y: np.ndarray, n_classes: int, logistic: bool
) -> tuple[float, float, np.ndarray]:
    r"""Intercept, slope and class effects that minimise a penalised loss, by Newton's method.

    .. math:: \sum_i \ell(y_i, a + b x_i + g_{c_i}) + \tfrac{1}{2} R (b^2 + \sum_c g_c^2),

    l being the logistic loss or half the squared error and R `RIDGE`. The classes' block of the
    Hessian is diagonal, so a step costs one pass over the samples whatever their number.

    Parameters
    ----------
    x : array, (sample,)
        Standardised predictor; zeros leave it out.
    code : array of int, (sample,)
        Class; -1 leaves the class effects out.
    y : array, (sample,)
        0 and 1 if logistic.
    n_classes : int
    logistic : bool

    Raises
    ------
    RuntimeError
        If 100 steps do not suffice.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    mean = y.mean()
    if logistic and mean in (0.0, 1.0):
        raise ValueError(f"logistic regression needs both outcomes, got only {mean:g}")
    theta, effect = np.array([special.logit(mean) if logistic else mean, 0.0]), np.zeros(n_classes)
    design, known = np.stack([np.ones_like(x), x]), code >= 0
    at = np.where(known, code, 0)
    ridge = np.array([0.0, RIDGE])
    for _ in range(100):
        eta = theta @ design + np.where(known, effect[at], 0)
        p = special.expit(eta) if logistic else eta
        w = p * (1 - p) if logistic else np.ones_like(p)
        d = np.bincount(at, w * known, n_classes) + RIDGE
        b = np.stack([np.bincount(at, w * known * row, n_classes) for row in design])
        slope = design @ (y - p) - ridge * theta  # minus the gradient
        slope_c = np.bincount(at, (y - p) * known, n_classes) - RIDGE * effect
        inner = (w * design) @ design.T + np.diag(ridge) - (b / d) @ b.T
        step = np.linalg.solve(inner, slope - b @ (slope_c / d))
        step_c = (slope_c - step @ b) / d
        largest = max(np.abs(step).max(), np.abs(step_c).max())
        shorter = min(1.0, 4 / largest) if logistic and largest > 0 else 1.0
        theta, effect = theta + shorter * step, effect + shorter * step_c
        if largest < 1e-10 * (1 + np.abs(theta).max()):
            return float(theta[0]), float(theta[1]), effect
    raise RuntimeError(f"regression not converged in 100 steps, last step {largest:.2g}")


def held_back(
    x: np.ndarray, labels: np.ndarray, y: np.ndarray, fold: np.ndarray, logistic: bool
) -> dict[str, np.ndarray]:
    """Prediction of every sample by each of `MODELS`, fitted to the other folds, (sample,).

    Linear predictors: logits, or the target itself. Also `mean`, that of the other folds (logit if
    logistic). Where the others have one outcome only all is NaN.
    """
    names, code = np.unique(labels, return_inverse=True)
    x, y = np.asarray(x, float), np.asarray(y, float)
    out = {name: np.full(len(y), np.nan) for name in (*MODELS, "mean")}
    for k in np.unique(fold):
        test, fit = fold == k, fold != k
        mean = y[fit].mean()
        if logistic and mean in (0.0, 1.0):
            continue
        out["mean"][test] = special.logit(mean) if logistic else mean
        z = (
            (x - x[fit].mean()) / max(x[fit].std(), 1e-300)
            if np.ptp(x[fit]) > 0
            else np.zeros(len(x))
        )
        for name in MODELS:
            used = z if "loss" in name else np.zeros(len(z))
            classes = code if "class" in name else np.full(len(code), -1)
            a, b, effect = fit_ridge(used[fit], classes[fit], y[fit], len(names), logistic)
            out[name][test] = a + b * used[test]
            if "class" in name:
                out[name][test] += effect[code[test]]
    return out
