"""What R^2 of a decay curve measures on 0/1 traces: their shape, mostly. Simulated, truth known."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib.checks import check_level
from retention_lib.decay import Status, fit_decay

#: What is drawn; none but the second is a decay of anything by an exponential law.
SHAPES = {
    "one step": "right until a random epoch, wrong ever after",
    "exponential": "right with probability exp(-t / tau), every epoch a new coin",
    "exponential, shuffled": "the same traces, each with its epochs in random order",
    "coin": "right with probability one half, no decay",
    "coin, running mean": "cumulative mean of such coins: smoothed, and still no decay",
    "constant": "always right: R² is undefined",
}


def r2_of_shapes(
    rng: np.random.Generator,
    epochs: int = 30,
    n: int = 4000,
    tau: float = 8.0,
    models: tuple[str, ...] = ("exponential", "exponential_amplitude", "exponential_floor"),
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean R^2 that each curve reaches on traces of a known kind, by least squares.

    Parameters
    ----------
    epochs : int
        Length of the traces.
    n : int
        Traces of each kind.
    tau : float
        Of the exponential [epochs].
    models : tuple of str
        Keys of `decay.MODELS`; `exponential_amplitude` is a exp(-t / tau).

    Returns
    -------
    DataFrame
        `shape`, `meaning`, `model`, `r2` (mean over traces that have one), `ci_low`, `ci_high`
        (normal, of the mean), `undefined` (share of traces without R^2), `n`.
    """
    check_level(level)
    z, rows = stats.norm.ppf((1 + level) / 2), []
    for shape, traces in drawn(rng, epochs, n, tau).items():
        for model in models:
            found = fit_decay(traces, model=model)
            constant = np.isin(found.status, [int(Status.FLAT), int(Status.NEVER_LEARNED)])
            r2 = found.r2[np.isfinite(found.r2) & ~constant]
            mean = r2.mean() if len(r2) else np.nan
            half = z * r2.std(ddof=1) / np.sqrt(len(r2)) if len(r2) > 1 else np.nan
            row = {"shape": shape, "meaning": SHAPES[shape], "model": model, "r2": mean}
            row |= {"ci_low": mean - half, "ci_high": mean + half}
            rows.append(row | {"undefined": 1 - len(r2) / n, "n": n})
    return pd.DataFrame(rows)


def drawn(rng: np.random.Generator, epochs: int, n: int, tau: float) -> dict[str, np.ndarray]:
    """Traces of every kind of `SHAPES`, float64 (epoch, sample)."""
    t = np.arange(epochs)[:, None]
    decaying = (rng.random((epochs, n)) < np.exp(-t / tau)).astype(float)
    coin = (rng.random((epochs, n)) < 0.5).astype(float)
    return {
        "one step": (t < rng.integers(1, epochs, n)).astype(float),
        "exponential": decaying,
        "exponential, shuffled": rng.permuted(decaying, axis=0),
        "coin": coin,
        "coin, running mean": np.cumsum(coin, 0) / (t + 1),
        "constant": np.ones((epochs, n)),
    }
