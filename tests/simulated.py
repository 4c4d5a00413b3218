"""Traces whose truth is known, for the tests of measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.traces import Traces

CNN, VIT = "phantom_resnet18", "phantom_deit"


def simulated(n=240, epochs=12, seeds=(0, 1, 2), shared=1.0, own=0.5, seed=0) -> Traces:
    """Traces of a difficulty that is partly shared, partly the architecture's, partly noise.

    Margins rise over the epochs, from which the difficulty is taken away; planted mistakes (5 %)
    are harder by 4 logits.
    """
    rng = np.random.default_rng(seed)
    runs = pd.DataFrame(
        [
            {"dataset": "sim", "arch": a, "seed": s, "sampler": "uniform", "key": f"{a}{s}"}
            for a in (CNN, VIT)
            for s in seeds
        ]
    )
    label, noisy = np.arange(n) % 4, np.arange(n) % 20 == 7
    common = shared * rng.normal(size=n) + 4.0 * noisy
    of = {a: common + own * rng.normal(size=n) for a in (CNN, VIT)}
    rise = np.linspace(-0.5, 3.5, epochs + 1)[:, None]
    margin = np.stack(
        [rise - of[a] + 0.5 * rng.normal(size=(epochs + 1, n)) for a in runs["arch"]]
    ).astype(np.float16)
    view = {
        "predicted": np.where(margin > 0, label, (label + 1) % 4).astype(np.int32),
        "loss": np.logaddexp(0, -margin.astype(np.float32)).astype(np.float16),
        "margin": margin,
    }
    samples = pd.DataFrame(
        {
            "sample_id": [f"{i:016x}" for i in range(n)],
            "label": label,
            "group": [f"patient_{i // 2}" for i in range(n)],
            "planted_noisy": noisy,
        }
    )
    return Traces(samples, runs, np.arange(epochs + 1), view, view, tuple("abcd"))


def with_correct(correct: np.ndarray, archs=(CNN, VIT)) -> Traces:
    """Traces with the given correctness (run, epoch, sample); runs alternate between seeds."""
    per_arch = len(correct) // len(archs)
    base = simulated(correct.shape[2], correct.shape[1] - 1, tuple(range(per_arch)))
    labels = base.labels
    view = {**base.clean, "predicted": np.where(correct, labels, labels + 1).astype(np.int32)}
    return Traces(base.samples, base.runs, base.epochs, view, view, base.classes)


def decaying(rate: dict[str, float], n=300, epochs=20, seeds=2) -> Traces:
    """Right up to a random epoch, wrong afterwards: exponential survival at each rate."""
    rng = np.random.default_rng(1)
    steps = np.concatenate(
        [rng.exponential(1 / rate[a], (seeds, n)) for a in (CNN, VIT)]
    )  # (run, sample)
    return with_correct(np.arange(epochs + 1)[:, None] < steps[:, None, :])
