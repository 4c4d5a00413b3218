"""Held-out samples beside the training samples of the same runs: the placebo of forgetting."""

from __future__ import annotations

from retention_lib.traces import Traces


def of_same_runs(traces: Traces, held_out: dict[str, Traces]) -> Traces:
    """Held-out samples of the runs of `traces`.

    Parameters
    ----------
    traces : Traces
        Training samples of one data set's runs.
    held_out : dict of Traces
        By data set.

    Raises
    ------
    ValueError
        If they are not of the same runs, in the same order.
    """
    outside = held_out[traces.runs["dataset"].iloc[0]]
    if traces.runs["key"].tolist() != outside.runs["key"].tolist():
        raise ValueError(
            "training and held-out traces must be of the same runs in the same order, got "
            f"{traces.runs['key'].tolist()} and {outside.runs['key'].tolist()}"
        )
    return outside
