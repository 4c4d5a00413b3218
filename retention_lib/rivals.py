"""Does a forgetting curve predict better than simpler accounts? Log-loss on entries not yet seen.

Two schemes, both scored entry by entry on raw correctness, with losses in nats:

* one step ahead: each entry from the same run up to the epoch before;
* cross-seed: each entry of run B from run A of the same architecture, the same sample.

Nothing of the epoch that is predicted enters a prediction. Under a convention that starts at the
learned epoch a sample enters when it is learned, and its first entry, right by definition, is
neither scored nor counted by a rival (it is a state that `last` can start from).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from retention_lib.config import RETENTION, TraceConvention
from retention_lib.panel import Panel, panels_of
from retention_lib.predictors import Predictor
from retention_lib.rasch import fit_rasch
from retention_lib.resampled import units
from retention_lib.skill import Losses, log_loss, skill_table
from retention_lib.traces import Traces

#: Predictions are clipped to 0.01 .. 0.99, the same for every model, or one surprise after a
#: certain prediction would be infinitely bad. It binds no smoothed rate of up to 49 entries.
CLIP = 0.01
#: Entries that a trace must have before anything is predicted from it: more than any curve's
#: parameters.
LEAST = 4


def one_step_losses(
    correct,
    convention: TraceConvention = RETENTION,
    predictors: dict[str, Predictor] | None = None,
    shown=None,
    *,
    least: int = LEAST,
    clip: float | None = CLIP,
) -> Losses:
    """Log-loss of every entry as predicted from the same run up to the epoch before.

    With h of a sample's n entries so far right, the rivals are

    * `constant`: its own rate (h + 1/2) / (n + 1) (Krichevsky & Trofimov);
    * `epoch`: the previous epoch's accuracy over all samples in a trace, the same for all;
    * `difficulty`: its own rate shrunk towards the common one (`fit_rasch` with equal epochs);
    * `rasch`: posterior of its difficulty, and the previous epoch's effect (the coming epoch's is
      not known);
    * `last`: a Markov chain, the rates of 1 -> 1 and 0 -> 1 being those of all samples so far;

    and each of `predictors`, given the traces so far of the samples to be predicted.

    Parameters
    ----------
    correct : bool, (epoch, sample) or (run, epoch, sample)
    convention : TraceConvention
        Raw signal; all samples from epoch 0, or ever-learned samples from the learned epoch. Any
        other population is chosen by what is to be predicted.
    predictors : dict of callable, optional
        See `predictors.Predictor` and `predictors.decay_predictor`.
    shown : bool, same shape, optional
    least : int
        Entries a sample must have behind it; all models score the same entries.
    clip : float or None
        Predictions are clipped to clip .. 1 - clip; None: to 1 / (2 (n + 1)), the most extreme
        prediction of `constant`.

    Raises
    ------
    ValueError
        On another convention, a name that is taken, or predictions that are no probabilities.

    Examples
    --------
    >>> alternating = np.tile([[True], [False]], (6, 30))  # (epoch, sample)
    >>> found = one_step_losses(alternating, TraceConvention()).total
    >>> bool(found["last"].sum() < 0.2 * found["constant"].sum())
    True
    """
    panels = panels_of(correct, convention, shown)
    predictors = _named(predictors)
    runs = [_one_step_run(panel, predictors, least, clip) for panel in panels]
    total = {name: np.stack([t[name] for t, _ in runs]) for name in runs[0][0]}
    return Losses("one_step", total, np.stack([c for _, c in runs]), np.arange(len(runs)))


def _one_step_run(panel: Panel, predictors, least: int, clip) -> tuple[dict, np.ndarray]:
    n_samples = len(panel.start)
    names = ["constant", "epoch", "difficulty", "rasch", "last", *predictors]
    total = {name: np.zeros(n_samples) for name in names}
    count, hits, n = (np.zeros(n_samples, int) for _ in range(3))
    state, moves = np.full(n_samples, -1), np.zeros((2, 2))
    newest, rate = 0, 0.5
    for now, (right, seen, scored) in enumerate(
        zip(panel.correct, panel.seen, panel.scored, strict=True)
    ):
        who = np.flatnonzero(scored & (n >= least))
        if len(who):
            stay = (moves[:, 1] + 0.5) / (moves.sum(1) + 1)
            past = panel.correct[:now], panel.scored[:now]
            alike, rasch = fit_rasch(*past, equal_epochs=True), fit_rasch(*past)
            p = {
                "constant": (hits[who] + 0.5) / (n[who] + 1),
                "epoch": np.full(len(who), rate),
                "difficulty": alike.predict(alike.epoch_effect[0])[who],
                "rasch": rasch.predict(rasch.epoch_effect[newest])[who],
                "last": stay[state[who]],
            }
            t = now - panel.start[who]
            behind = panel.mask[:now, who] & (np.arange(now)[:, None] < t)
            r = np.where(behind, panel.r[:now, who], np.nan)
            p |= {name: predict(r, behind, t) for name, predict in predictors.items()}
            for name in names:
                total[name][who] += log_loss(name, p[name], right[who], n[who], clip)
            count[who] += 1
        if scored.any():
            newest, rate = now, (right[scored].sum() + 0.5) / (scored.sum() + 1)
        known = seen & (state >= 0)
        np.add.at(moves, (state[known], right[known].astype(int)), 1)
        state = np.where(seen, right, state)
        hits += right & scored
        n += scored
    return total, count


def cross_seed_losses(
    correct,
    convention: TraceConvention = RETENTION,
    predictors: dict[str, Predictor] | None = None,
    shown=None,
    *,
    least: int = LEAST,
    clip: float | None = CLIP,
) -> Losses:
    """Log-loss of every entry of run B as predicted from run A, for all ordered pairs of runs.

    The rivals, each known from A alone:

    * `constant`: one rate for all samples and epochs;
    * `sample`: each sample's own rate (h + 1/2) / (n + 1);
    * `epoch`: the accuracy at the same epoch;
    * `difficulty`: each sample's rate shrunk towards the common one;
    * `rasch`: effect of the same epoch and posterior of the sample's difficulty;

    and each of `predictors`, fitted to A's trace of the sample. Epochs are matched by number, but
    for curves by epochs since the origin: A's since it was learned in A, B's since in B. Scored
    are the entries of samples with at least `least` entries in A. Parameters are those of
    `one_step_losses`, `correct` with at least two runs of one architecture.
    """
    panels = panels_of(correct, convention, shown)
    if len(panels) < 2:
        raise ValueError(f"cross-seed losses need at least 2 runs, got {len(panels)}")
    predictors = _named(predictors)
    total, count, run = {}, [], []
    for a, source in enumerate(panels):
        n = source.scored.sum(0)
        curves, fitted = _from_run(source, predictors, n >= least)
        for b, target in enumerate(panels):
            if a == b:
                continue
            scored = target.scored & (n >= least)
            at, who = np.nonzero(scored)
            since = at - target.start[who]
            count.append(scored.sum(0))
            run.append(b)
            for name, p in (curves | fitted).items():
                p = p[since if name in fitted else at, who]
                loss = log_loss(name, p, target.correct[at, who], n[who], clip)
                total.setdefault(name, []).append(np.bincount(who, loss, len(n)))
    total = {name: np.stack(rows) for name, rows in total.items()}
    return Losses("cross_seed", total, np.stack(count), np.array(run))


def _from_run(panel: Panel, predictors, usable: np.ndarray) -> tuple[dict, dict]:
    """What one run says of another: P by calendar epoch, and P by epochs since the origin."""
    right, scored = panel.correct & panel.scored, panel.scored
    n_epochs, n_samples = shape = right.shape
    alike, rasch = fit_rasch(right, scored, equal_epochs=True), fit_rasch(right, scored)
    rate = (right.sum() + 0.5) / (scored.sum() + 1)
    own = (right.sum(0) + 0.5) / (scored.sum(0) + 1)
    by_epoch = (right.sum(1, keepdims=True) + 0.5) / (scored.sum(1, keepdims=True) + 1)
    rivals = {
        "constant": np.broadcast_to(rate, shape),
        "sample": np.broadcast_to(own, shape),
        "epoch": np.broadcast_to(by_epoch, shape),
        "difficulty": alike.predict(),
        "rasch": rasch.predict(),
    }
    t = np.broadcast_to(np.arange(n_epochs)[:, None], (n_epochs, usable.sum()))
    fitted = {}
    for name, predict in predictors.items():
        fitted[name] = np.full((n_epochs, n_samples), np.nan)
        if usable.any():
            fitted[name][:, usable] = predict(panel.r[:, usable], panel.mask[:, usable], t)
    return rivals, fitted


def _named(predictors: dict[str, Predictor] | None) -> dict[str, Predictor]:
    taken = {"constant", "sample", "epoch", "difficulty", "rasch", "last"} & set(predictors or {})
    if taken:
        raise ValueError(f"predictors need names of their own, got {sorted(taken)}")
    return predictors or {}


def one_step(
    traces: Traces,
    rng: np.random.Generator,
    convention: TraceConvention = RETENTION,
    predictors: dict[str, Predictor] | None = None,
    draws: int = 1000,
    **options,
) -> pd.DataFrame:
    """`skill.skill_table` of `one_step_losses` per architecture, in the column `arch`.

    `options` go to `one_step_losses`; the bootstrap is over groups within class.
    """
    return _by_arch(one_step_losses, traces, rng, convention, predictors, draws, options)


def cross_seed(
    traces: Traces,
    rng: np.random.Generator,
    convention: TraceConvention = RETENTION,
    predictors: dict[str, Predictor] | None = None,
    draws: int = 1000,
    **options,
) -> pd.DataFrame:
    """`skill.skill_table` of `cross_seed_losses` per architecture, in the column `arch`.

    `options` go to `cross_seed_losses`; the bootstrap is over groups within class. A ValueError if
    an architecture has a single run.
    """
    return _by_arch(cross_seed_losses, traces, rng, convention, predictors, draws, options)


def _by_arch(losses_of, traces, rng, convention, predictors, draws, options) -> pd.DataFrame:
    groups, tables = units(traces.samples), []
    for arch in dict.fromkeys(traces.runs["arch"]):
        runs = traces.select(arch=arch)
        view = runs.correct(convention.view), runs.shown(convention.view)
        losses = losses_of(view[0], convention, predictors, view[1], **options)
        table = skill_table(losses, groups, traces.labels, rng, draws)
        table.insert(1, "arch", arch)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
