"""Notebook 05's controls: held-out images, redraws with the same margins, a planted association."""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib import early_predictors as early
from retention_lib.config import LITERAL
from retention_lib.decay import fit_decay
from retention_lib.decay_result import tied
from retention_lib.held_out import of_same_runs
from retention_lib.intervals import permutation_p
from retention_lib.link_tables import members, within_runs
from retention_lib.normal_copula import pearson_of
from retention_lib.nulls import redraws
from retention_lib.partial_correlation import Link
from retention_lib.rank_agreement import standard_ranks
from retention_lib.simulated_study import as_traces, misalign, study
from retention_lib.traces import Traces


def placebos(
    traces: Traces, held_out: dict[str, Traces], rng, draws: int = 1000, redrawn: int = 199
) -> pd.DataFrame:
    """The correlation on held-out images, and what margins alone give.

    Parameters
    ----------
    held_out : dict of Traces
        Held-out samples of the same runs, by data set.
    redrawn : int
        Curveball redraws of every run, which keep the accuracy of every epoch and the total of
        every sample: decay constants are fitted anew, the loss stays.

    Returns
    -------
    DataFrame
        Per architecture and over all runs: `held_out` with `ci_low`, `ci_high`, `held_out_n`;
        `spearman` of the training samples; `curveball` (mean of the redraws) with its central 95 %
        from `curveball_low` to `curveball_high`; `p`, two-sided, of `spearman` among the redraws.
    """
    outside = of_same_runs(traces, held_out)
    vectors = {"x": early.early_loss(outside), "y": early.decay_constants(outside)}
    table = within_runs(vectors, {"": Link("x", "y")}, outside, rng, draws, "what")
    table = table[["arch", "estimate", "ci_low", "ci_high", "n"]]
    table = table.rename(columns={"estimate": "held_out", "n": "held_out_n"})
    x, y = map(standard_ranks, (early.early_loss(traces), early.decay_constants(traces)))
    correct = traces.correct(LITERAL.view)
    null = np.stack([_redrawn(*pair, rng, redrawn) for pair in zip(x, correct, strict=True)])
    for i, member in enumerate(members(traces.runs).values()):
        values, found = null[member].mean(0), (x * y).sum(1)[member].mean()
        ends = np.quantile(values, [0.025, 0.975])
        columns = ["spearman", "curveball", "curveball_low", "curveball_high", "p"]
        p = permutation_p(found, values, "two-sided")
        table.loc[i, columns] = [found, values.mean(), *ends, p]
    return table.assign(draws=redrawn)


def _redrawn(loss: np.ndarray, correct: np.ndarray, rng, draws: int) -> np.ndarray:
    """Spearman of standardised ranks of the loss with constants of redrawn traces, (draw,)."""
    free = correct.any(0) & ~correct.all(0)
    constants, parts = tied(fit_decay(correct).decay_constant), []
    for batch in redraws(correct, rng, draws):  # (draw, epoch, sample)
        many = np.repeat(constants[None], len(batch), axis=0)
        together = batch[:, :, free].transpose(1, 0, 2).reshape(batch.shape[1], -1)
        if free.any():
            found = tied(fit_decay(together).decay_constant)
            many[:, free] = found.reshape(len(batch), -1)
        parts.append(standard_ranks(many) @ loss)
    return np.concatenate(parts)


def known_association(
    traces: Traces, rng: np.random.Generator, draws: int = 500, planted: float = 0.40
) -> pd.DataFrame:
    """Positive control: a simulated study, as large as the real one, whose correlation is planted.

    Returns
    -------
    DataFrame
        `constants` (`true`; `literal` and `retention`: fitted to 0/1 traces as long as the study's,
        which costs some of the correlation; `misaligned` true ones), `planted`, and `summarise`.
    """
    arch, seeds = traces.runs["arch"].unique(), sorted(traces.runs["seed"].unique())
    size = len(traces.samples), len(traces.epochs), list(arch), seeds
    made = study(*size, rng, early_loss=float(pearson_of(planted)), class_effect=0.0)
    simulated = as_traces(made)
    vectors = {"loss": made.loss, "true": made.truth.latent}
    vectors |= {name: early.decay_constants(simulated, name) for name in ("literal", "retention")}
    vectors["misaligned"] = misalign(made.truth.latent, rng)
    links = {name: Link("loss", name) for name in vectors if name != "loss"}
    table = within_runs(vectors, links, simulated, rng, draws, "constants")
    table.insert(1, "planted", np.where(table["constants"] == "misaligned", 0.0, planted))
    return table
