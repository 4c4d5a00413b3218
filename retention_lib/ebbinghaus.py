"""Ebbinghaus's own forgetting curve of 1885, fitted by every model of this library."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.decay import MODELS, DecayFit, fit_decay

#: Retention interval [hour]: 20 minutes, 1 and 9 hours, 1, 2, 6 and 31 days.
HOURS = np.array([1 / 3, 1, 9, 24, 48, 144, 744])
#: Share of the work that relearning a list saved.
SAVINGS = np.array([0.582, 0.442, 0.358, 0.337, 0.278, 0.254, 0.211])
#: Search range of the decay constant [1 / hour], and of the exponent of the power law.
BOUNDS = (1e-6, 100.0)


def own_formula(hours) -> np.ndarray:
    """Ebbinghaus's b = k / ((log10 minutes)^c + k), k = 1.84, c = 1.25; for more than a minute."""
    return 1.84 / (np.log10(60 * np.asarray(hours, float)) ** 1.25 + 1.84)


def curves(*models: str) -> dict[str, DecayFit]:
    """Fits of the savings against hours; by default of four curves that tell them apart."""
    chosen = models or ("exponential", "exponential_amplitude", "power", "weibull")
    return {m: fit_decay(SAVINGS[:, None], HOURS, model=m, bounds=BOUNDS) for m in chosen}


def compare() -> pd.DataFrame:
    """Every model fitted to the seven savings by least squares, and his own formula.

    The savings are percentages of work, not right-or-wrong answers, so there is no likelihood but a
    Gaussian one. Seven points leave AICc next to no room: it is infinite or missing for models of
    five and more parameters, the variance included.

    Returns
    -------
    DataFrame
        Sorted by `sse`: `model`, `parameters` (free), `sse`, `r2`, `aicc`, and the fitted
        `decay_constant` [1 / hour], `exponent`, `shape`, `floor`, `amplitude`; NaN where a model
        has none, or for his formula, whose two constants he fixed himself.

    References
    ----------
    Ebbinghaus 1885, Über das Gedächtnis, section 29 (data and formula). Murre & Dros 2015, PLoS ONE
    10, e0120644 (replication, and a comparison of curves).

    Examples
    --------
    >>> compare().set_index("model").loc["exponential", "r2"] < 0  # worse than a constant
    True
    """
    rows = []
    for model, found in curves(*MODELS).items():
        rows.append(
            {"model": model, "parameters": MODELS[model]}
            | {name: float(getattr(found, name)[0]) for name in ("sse", "r2", "aicc")}
            | {name: float(values[0]) for name, values in found.params.items()}
        )
    sse = float(((SAVINGS - own_formula(HOURS)) ** 2).sum())
    r2 = 1 - sse / float(((SAVINGS - SAVINGS.mean()) ** 2).sum())
    rows.append({"model": "own formula of 1885", "parameters": 2, "sse": sse, "r2": r2})
    return pd.DataFrame(rows).sort_values("sse", ignore_index=True)
