"""Notebook 05: is the association due to the class, epoch 0, late learning, another predictor?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib import early_predictors as early
from retention_lib.config import LITERAL
from retention_lib.data.imageset import ImageSet
from retention_lib.decay import fit_decay
from retention_lib.decay_result import tied
from retention_lib.findings import score_matrix
from retention_lib.link_tables import within_runs
from retention_lib.partial_correlation import Link
from retention_lib.traces import Traces

#: What is taken out or held fixed, and what is left of the correlation if it rests on that alone.
CONDITIONS = {
    "as it is": Link("loss", "constant"),
    "given class": Link("loss", "constant", None, True),
    "given wrong at epoch 0": Link("loss", "constant", "wrong at epoch 0"),
    "right at epoch 0 only": Link("loss right at epoch 0", "constant"),
    "wrong at epoch 0 only": Link("loss wrong at epoch 0", "constant"),
    "epoch 0 masked": Link("loss", "constant, masked"),
    "trace from epoch 1": Link("loss", "constant from epoch 1"),
    "given learned epoch": Link("loss", "constant", "learned epoch"),
    "from learned epoch": Link("loss", "constant since learned"),
    "without planted label noise": Link("loss of clean labels", "constant"),
}


def conditions(traces: Traces, rng: np.random.Generator, draws: int = 1000) -> pd.DataFrame:
    """How much of the correlation is there because of the class, of epoch 0, of late learning.

    Returns
    -------
    DataFrame
        A row per key of `CONDITIONS` (without planted noise only where there is some) and
        architecture; `n` is the mean number of samples of a run.
    """
    loss, correct = early.early_loss(traces), traces.correct(LITERAL.view)
    right, rest = correct[:, 0], correct[:, 1:]
    vectors = {
        "loss": loss,
        "constant": early.decay_constants(traces),
        "wrong at epoch 0": (~right).astype(float),
        "loss right at epoch 0": np.where(right, loss, np.nan),
        "loss wrong at epoch 0": np.where(right, np.nan, loss),
        "constant, masked": tied(fit_decay(rest, t=1 + np.arange(rest.shape[1])).decay_constant),
        "constant from epoch 1": tied(fit_decay(rest).decay_constant),
        "learned epoch": score_matrix(traces, "learned_epoch"),
        "constant since learned": early.decay_constants(traces, "retention"),
    }
    links, noisy = dict(CONDITIONS), traces.samples.get("planted_noisy")
    if noisy is None or not noisy.any():
        del links["without planted label noise"]
    else:
        vectors["loss of clean labels"] = np.where(noisy.to_numpy(bool), np.nan, loss)
    return within_runs(vectors, links, traces, rng, draws, "condition")


def rivals(
    traces: Traces, images: dict[str, ImageSet], rng: np.random.Generator, draws: int = 1000
) -> pd.DataFrame:
    """Early loss beside what else is known at epoch 0 or before, and the learned epoch.

    Parameters
    ----------
    images : dict of ImageSet
        By data set; without one the input norm is absent. So is what is the same for all samples.

    Returns
    -------
    DataFrame
        `predictor`, `quantity` (`spearman`; `given class`, NaN for what is the same in a class;
        `early loss given it`), `arch` and `summarise`.
    """
    shape, target = (len(traces.runs), len(traces.samples)), early.decay_constants(traces)
    found = early.predictors(traces) | _input_norm(traces, images)
    found = {name: np.broadcast_to(v, shape) for name, v in found.items()}
    found = {name: v for name, v in found.items() if np.nanmax(np.ptp(v, axis=1)) > 0}
    links = {}
    for name in found:
        links[name, "spearman"] = Link(name, "target")
        links[name, "given class"] = Link(name, "target", None, True)
        if name != "early loss":
            links[name, "early loss given it"] = Link("early loss", "target", name)
    table = within_runs(found | {"target": target}, links, traces, rng, draws, "link")
    table.insert(0, "predictor", [link[0] for link in table["link"]])
    table.insert(1, "quantity", [link[1] for link in table.pop("link")])
    return table


def _input_norm(traces: Traces, images: dict[str, ImageSet]) -> dict[str, np.ndarray]:
    """Input norm of the training images in the order of the samples, if there are images."""
    found = images.get(traces.runs["dataset"].iloc[0])
    if found is None:
        return {}
    train, wanted = found.rows("train"), traces.samples["sample_id"].tolist()
    if found.samples["sample_id"].to_numpy()[train].tolist() != wanted:
        raise ValueError(f"{len(train)} training images are not the {len(wanted)} recorded samples")
    return {"input norm": early.input_norm(found.images)[train]}
