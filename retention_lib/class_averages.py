"""Class means of scores: of the data as they are, and of resamples given as counts."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def means_by_class(values: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Plain class means (run, class) of `values` (run, sample); NaN for an empty class."""
    values = np.atleast_2d(np.asarray(values, float))
    cell = (labels + n_classes * np.arange(len(values))[:, None]).ravel()
    shape = (len(values), n_classes)
    total = np.bincount(cell, values.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    n = np.bincount(labels, minlength=n_classes)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def redrawn_means(values: np.ndarray, code: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Class means (draw, run, class) of resamples given as counts; NaN where a class is missing.

    Parameters
    ----------
    values : array, (run, sample)
    code : array of int, (sample,)
        0 .. classes - 1.
    counts : array, (draw, sample)
        How often a resample holds a sample (`resampled.count_batches`).

    Examples
    --------
    >>> redrawn_means([[1.0, 3.0, 5.0]], [0, 0, 1], np.array([[2, 0, 1], [1, 1, 0]])).tolist()
    [[[1.0, 5.0]], [[2.0, nan]]]
    """
    values, code = np.atleast_2d(np.asarray(values, float)), np.asarray(code)
    (m, n), k = values.shape, int(np.max(code)) + 1
    rows = np.tile(np.arange(n), m)
    columns = (np.arange(m)[:, None] * k + code).ravel()
    spread = sparse.csr_array((values.ravel(), (rows, columns)), shape=(n, m * k))
    member = sparse.csr_array((np.ones(n), (np.arange(n), code)), shape=(n, k))
    total, size = counts @ spread, counts @ member
    size = np.where(size > 0, size, np.nan)[:, None]
    return total.reshape(-1, m, k) / size
