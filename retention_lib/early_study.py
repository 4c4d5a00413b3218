"""Notebook 05's measurements: one function per table, each over the `Traces` of one data set.

Numbers are means over runs, by architecture and over all runs; images are redrawn and networks kept
for `ci_low`, `ci_high`, seeds are drawn for `seed_low`, `seed_high`.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from retention_lib import early_predictors as early
from retention_lib import transfer
from retention_lib.config import LITERAL
from retention_lib.data.imageset import ImageSet
from retention_lib.decay import fit_decay
from retention_lib.decay_result import tied
from retention_lib.early_loss import Link, needed_rho, nominal_log10_p, redrawn_correlations
from retention_lib.findings import score_matrix
from retention_lib.implied import pearson_of
from retention_lib.intervals import permutation_p
from retention_lib.nulls import redraws
from retention_lib.resampled import percentile_interval, units
from retention_lib.simulated_study import as_traces, misalign, study
from retention_lib.traces import Traces
from retention_lib.transfer import ALL, members, within_runs

#: p of the paper, and the samples of one run that it may be about: OCTDL's training split holds
#: 1,444 to 1,651 images by how it is split, that of CUB 5,994.
PAPER_LOG10_P, PAPER_N = -45.0, {"octdl, smaller": 1444, "octdl, larger": 1651, "cub": 5994}


def shuffled_within(labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int):
    """Permutations of samples within class that keep groups together, each int (sample,).

    Whole groups change places with groups that hold as many samples of every class, and samples
    with those of their own group and class. Where every sample is a group of its own this is any
    permutation within class.
    """
    _, group = np.unique(groups, return_inverse=True)
    _, code = np.unique(labels, return_inverse=True)
    table = np.zeros((group.max() + 1, code.max() + 1), np.int32)
    np.add.at(table, (group, code), 1)
    cell = np.unique(table, axis=0, return_inverse=True)[1].ravel()[group]
    place = np.lexsort((code, group, cell))
    for _ in range(draws):
        moved, own = rng.random(group.max() + 1)[group], rng.random(len(code))
        out = np.empty(len(code), int)
        out[place] = np.lexsort((own, code, moved, cell))
        yield out


def headline(
    traces: Traces, rng: np.random.Generator, draws: int = 2000, permutations: int = 1999
) -> pd.DataFrame:
    """Spearman of early loss and literal decay constant, with the test of its named null.

    Returns
    -------
    DataFrame
        Per architecture and over all runs: `summarise`, with `p` (two-sided, samples of all runs
        permuted alike by `shuffled_within`), `null_mean`, `null_low`, `null_high` of those
        permutations, `misaligned` (each run's samples in an order of their own), `weakest` and
        `strongest` log10 of the nominal p among the runs.
    """
    loss, constants = early.early_loss(traces), early.decay_constants(traces)
    vectors = {"x": loss, "y": constants}
    table = within_runs(vectors, {"spearman": Link("x", "y")}, traces, rng, draws, "quantity")
    x, y = _standard_ranks(loss), _standard_ranks(constants)
    own, wrong = (x * y).sum(1), (misalign(x, rng) * y).sum(1)
    order = shuffled_within(traces.labels, units(traces.samples), rng, permutations)
    null = np.array([np.einsum("rs,rs->r", x[:, at], y) for at in order])  # (draw, run)
    nominal = np.array([nominal_log10_p(rho, x.shape[1]) for rho in own])
    for i, member in enumerate(members(traces.runs).values()):
        values = null[:, member].mean(1)
        table.loc[i, "p"] = permutation_p(own[member].mean(), values, "two-sided")
        table.loc[i, "null_mean"] = values.mean()
        ends = np.quantile(values, [0.025, 0.975]) if np.isfinite(values).all() else [np.nan] * 2
        table.loc[i, ["null_low", "null_high"]] = ends
        table.loc[i, "misaligned"] = wrong[member].mean()
        table.loc[i, ["weakest", "strongest"]] = nominal[member].max(), nominal[member].min()
    return table


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Midranks with mean 0 and sum of squares 1, (run, sample); NaN for a constant run."""
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(1, keepdims=True))
    return ranks / np.where(norm > 0, norm, np.nan)


def nominal(table: pd.DataFrame, log10_p: float = PAPER_LOG10_P) -> pd.DataFrame:
    """Which rho the paper's p needs: at its numbers of samples, and at those of `headline` here.

    Returns
    -------
    DataFrame
        `samples`, `n`, `needed` (smallest Spearman with p <= 10^log10_p), `found` (all runs) and
        `log10_p` (weakest and strongest run); NaN for the paper's n.
    """
    rows = [{"samples": name, "n": n} for name, n in PAPER_N.items()]
    here = table[table["arch"] == ALL] if len(table) else table
    for _, row in here.iterrows():
        found = {"found": row["estimate"], "weakest": row["weakest"], "strongest": row["strongest"]}
        rows.append({"samples": f"{row['dataset']}, here", "n": row["n"]} | found)
    out = pd.DataFrame(rows)
    out.insert(2, "needed", [needed_rho(log10_p, n) for n in out["n"]])
    return out


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
    outside = held_out[traces.runs["dataset"].iloc[0]]
    if traces.runs["key"].tolist() != outside.runs["key"].tolist():
        raise ValueError(
            "training and held-out traces must be of the same runs in the same order, got "
            f"{traces.runs['key'].tolist()} and {outside.runs['key'].tolist()}"
        )
    vectors = {"x": early.early_loss(outside), "y": early.decay_constants(outside)}
    table = within_runs(vectors, {"": Link("x", "y")}, outside, rng, draws, "what")
    table = table[["arch", "estimate", "ci_low", "ci_high", "n"]]
    table = table.rename(columns={"estimate": "held_out", "n": "held_out_n"})
    x, y = map(_standard_ranks, (early.early_loss(traces), early.decay_constants(traces)))
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
        parts.append(_standard_ranks(many) @ loss)
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


def specification(traces: Traces, rng: np.random.Generator, draws: int = 100) -> pd.DataFrame:
    """The correlation over all runs under every convention, one row each, sorted.

    Conventions under which some run has no correlation (all samples alike, too few left) have none.

    Returns
    -------
    DataFrame
        `early` (view of the loss: `clean` at epoch 0, `online` at epoch 1), `view` of the trace,
        `early_predictors.CHOICES`, `given` (`nothing` or `class`), `primary`, then `estimate`,
        `ci_low`, `ci_high` and `n` (mean over runs of the samples used).
    """
    losses, rows = early.early_losses(traces), []
    pairs = [(r, r) for r in range(len(traces.runs))]
    about = pairs, units(traces.samples), traces.labels, rng, draws
    for view in losses:
        vectors = early.readings(traces, view)
        choices = list(product(losses, vectors, ("nothing", "class")))
        links = {(e, view, *key, given): Link(e, key, None, given == "class")
                 for e, key, given in choices}  # fmt: skip
        for key, found in redrawn_correlations(losses | vectors, links, *about).items():
            mean = found.mean(1)
            low, high = percentile_interval(mean[1:])
            n = np.mean([(~np.isnan(vectors[key[2:-1]] + losses[key[0]])).sum(1)])
            primary = key == ("clean", "clean", *early.PRIMARY, "nothing")
            rows.append([*key, primary, mean[0], low, high, round(n)])
    names = ["early", "view", *early.CHOICES, "given", "primary", "estimate", "ci_low", "ci_high"]
    table = pd.DataFrame(rows, columns=[*names, "n"]).dropna(subset="estimate")
    return table.sort_values("estimate", ignore_index=True)


def agreement_of_conventions(table: pd.DataFrame) -> pd.DataFrame:
    """How far the conventions of `specification` agree, one row per data set.

    Returns
    -------
    DataFrame
        `conventions`, `above` and `below` 0 (share whose whole interval is), `smallest`, `median`,
        `largest`, `primary`.
    """
    if table.empty:
        return table
    rows = []
    for name, of in table.groupby("dataset", sort=False):
        rho = of["estimate"]
        row = {"dataset": name, "conventions": len(of), "above": (of["ci_low"] > 0).mean()}
        row |= {"below": (of["ci_high"] < 0).mean(), "smallest": rho.min()}
        row |= {"median": rho.median(), "largest": rho.max()}
        rows.append(row | {"primary": rho[of["primary"]].squeeze()})
    return pd.DataFrame(rows)


def by_decile(traces: Traces, parts: int = 10) -> pd.DataFrame:
    """Mean rank of the decay constant against the rank of the early loss, both in percent.

    Returns
    -------
    DataFrame
        `arch`, `loss` and `decay` (mean percentile of the samples in the part), `low`, `high`
        (smallest and largest run), `n` samples of the part in a run. No relation: 50 everywhere.
    """
    loss, constants = early.early_loss(traces), early.decay_constants(traces)
    n = loss.shape[1]
    rank, decay = (100 * (rankdata(v, axis=1) - 0.5) / n for v in (loss, constants))
    part = np.minimum((rank * parts / 100).astype(int), parts - 1)
    rows = []
    for arch, member in members(traces.runs).items():
        for k in range(parts) if arch != ALL else ():
            inside = part[member] == k
            size = np.maximum(inside.sum(1), 1)
            mean = np.where(inside.any(1), (decay[member] * inside).sum(1) / size, np.nan)
            row = {"arch": arch, "loss": 100 * (k + 0.5) / parts, "decay": np.nanmean(mean)}
            row |= {"low": np.nanmin(mean), "high": np.nanmax(mean)}
            rows.append(row | {"n": size.mean()})
    return pd.DataFrame(rows)


def transferred(traces: Traces, rng: np.random.Generator, draws: int = 500) -> pd.DataFrame:
    """`transfer.transfer_table` of one data set."""
    loss, constants = early.early_loss(traces), early.decay_constants(traces)
    return transfer.transfer_table(loss, constants, traces, rng, draws)


def transfer_means(traces: Traces, rng: np.random.Generator) -> pd.DataFrame:
    """`transfer.transfer_means` of one data set."""
    loss, constants = early.early_loss(traces), early.decay_constants(traces)
    return transfer.transfer_means(transfer.transfer_pairs(loss, constants, traces.runs, rng))
