"""Studies whose missing agreement is known, and how often intervals hold it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from retention_lib import attainable, missing_agreement

#: How scores are drawn, by the `case` of `COVERAGE`; `rate` None: no ties.
CASES = {
    "no ties": {"n": 400, "rate": None},
    "77 % zeros": {"n": 400, "rate": 0.3},
    "89 % zeros": {"n": 800, "rate": 0.13},
    "patients of 3 samples": {"n": 400, "rate": 0.5, "group_size": 3},
    "10 samples per class": {"n": 400, "rate": 0.5, "n_classes": 40},
}


def draw_study(rng, n, rate, n_classes=8, group_size=1, shared=0.5, seeds=2):
    """Scores (run, sample) of two architectures that share a part of what makes samples hard."""
    groups = np.arange(n) // group_size
    labels = groups % n_classes
    by_class = np.linspace(-0.5, 0.5, n_classes)[labels]
    by_group = rng.standard_normal(groups[-1] + 1)[groups] if group_size > 1 else 0
    own = rng.standard_normal(n) * (1 if group_size == 1 else np.sqrt(0.7))
    hard = own + np.sqrt(0.3) * by_group
    z = np.sqrt(shared) * hard + np.sqrt(1 - shared) * rng.standard_normal((2, n))
    z = np.repeat(z, seeds, axis=0)
    if rate is None:
        scores = by_class + np.sqrt(0.6) * z + np.sqrt(0.4) * rng.standard_normal(z.shape)
    else:
        scores = rng.poisson(rate * np.exp(z + by_class - 0.5)).astype(float)
    runs = pd.DataFrame([(a, s) for a in "AB" for s in range(seeds)], columns=["arch", "seed"])
    return scores, runs, groups, labels


@lru_cache
def truth(case: str) -> dict:
    """Quantities of the population, from 240,000 samples."""
    rng = np.random.default_rng(7)
    settings = CASES[case] | {"n": 240_000, "seeds": 3}
    scores, runs, groups, labels = draw_study(rng, **settings)
    whole, _ = attainable.measured(scores, groups, labels, 0.1, [np.ones((1, len(labels)))])
    return attainable.quantities(*whole, runs["arch"].to_numpy(), "A", "B")


def coverage(case: str, simulations: int, draws: int, seed: int = 1) -> dict:
    """How often 95 % intervals hold the truth of the population, networks fixed."""
    rng, known = np.random.default_rng(seed), truth(case)
    hits = {"missing": [], "cross": [], "same_a": []}
    for _ in range(simulations):
        found = missing_agreement.missing_agreement(
            *draw_study(rng, **CASES[case]), rng, draws=draws
        ).iloc[0]
        for name in ("cross", "same_a"):
            hits[name].append(found[f"{name}_low"] <= known[name] <= found[f"{name}_high"])
        if np.isfinite(found["estimate"]):
            hits["missing"].append(found["ci_low"] <= known["missing"] <= found["ci_high"])
    row = {"case": case, "n": CASES[case]["n"], "truth": float(known["missing"])}
    row |= {name: float(np.mean(value)) for name, value in hits.items()}
    return row | {"no_value": 1 - len(hits["missing"]) / simulations, "simulations": simulations}
