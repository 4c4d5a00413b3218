"""Samples forgotten at known hazards, for the tests of survival analyses."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.forgetting import first_forgetting, learned_epoch
from retention_lib.traces import Traces


def simulate(hazard, epochs, rng, learned=0.4):
    """Samples (sample,) of constant hazard, learned at random epochs, anything after the event."""
    hazard = np.asarray(hazard, float)
    correct = rng.random((epochs + 1, len(hazard))) < 0.5
    start = np.minimum(rng.geometric(learned, len(hazard)) - 1, epochs)
    kept = rng.geometric(hazard, len(hazard))  # epochs from learning to the first event
    t = np.arange(epochs + 1)[:, None]
    correct[t < start] = False
    correct[(t >= start) & (t < start + kept)] = True
    correct[(t == start + kept)] = False
    return correct


def traces_of(correct, archs=("resnet", "deit"), seeds=None, group=None) -> Traces:
    """Traces with the given correctness (run, epoch, sample), architecture after architecture."""
    runs, epochs, n = correct.shape
    per_arch = runs // len(archs)
    seeds = seeds or [*range(per_arch)] * len(archs)
    table = pd.DataFrame({"arch": np.repeat(archs, per_arch), "seed": seeds})
    label = np.arange(n) % 3
    samples = pd.DataFrame({"label": label, "group": np.arange(n) if group is None else group})
    view = {"predicted": np.where(correct, label, label + 1).astype(np.int32)}
    return Traces(samples, table, np.arange(epochs), view, view)


def survival_times(correct):
    """Entry, duration and status of every sample that was watched for at least one step."""
    start, event = learned_epoch(correct), first_forgetting(correct)
    end = np.where(np.isnan(event), len(correct) - 1, event)
    seen = end > start  # False for never-learned samples and those learned last
    return start[seen], end[seen], (~np.isnan(event))[seen].astype(int)
