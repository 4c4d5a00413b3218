"""A study of eight classes with class effects, and distances of its classes."""

import numpy as np

from retention_lib.simulated_study import as_traces, study


def simulated(class_effect=0.3, n=480, seed=0, shared=0.8):
    made = study(
        n,
        13,
        ["resnet", "deit"],
        (10, 11, 12),
        np.random.default_rng(seed),
        reliability=0.6,
        shared=shared,
        class_effect=class_effect,
        n_classes=8,
        rate=0.05,
    )
    return as_traces(made)


def ring(k=8):
    """Distances on a ring: the nearest classes of c are c - 1 and c + 1."""
    gap = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    return np.minimum(gap, k - gap).astype(float)
