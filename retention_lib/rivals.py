"""Does a forgetting curve predict better than simpler accounts? Log-loss on entries not yet seen.

Two schemes, both scored entry by entry on raw correctness, with losses in nats:

* one step ahead: each entry from the same run up to the epoch before;
* cross-seed: each entry of run B from run A of the same architecture, the same sample.

Nothing of the epoch that is predicted enters a prediction. Under a convention that starts at the
learned epoch a sample enters when it is learned, and its first entry, right by definition, is
neither scored nor counted by a rival (it is a state that `last` can start from).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from retention_lib.config import RETENTION, TraceConvention
from retention_lib.convention import retention_trace
from retention_lib.curves import CURVES
from retention_lib.decay import fit_decay
from retention_lib.forgetting import tally_of
from retention_lib.intervals import bootstrap, t_interval
from retention_lib.rasch import fit_rasch
from retention_lib.shrinkage import shrink
from retention_lib.traces import Traces

#: (r, mask, t) -> P(correct): r, mask (epoch, sample) from the origin on, r NaN outside the mask;
#: t (sample,) or (epoch, sample) epochs since the origin; the result has the shape of t.
Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
#: Predictions are clipped to 0.01 .. 0.99, the same for every model, or one surprise after a
#: certain prediction would be infinitely bad. It binds no smoothed rate of up to 49 entries.
CLIP = 0.01
#: Entries that a trace must have before anything is predicted from it: more than any curve's
#: parameters.
LEAST = 4


@dataclass(frozen=True, eq=False)
class Losses:
    """Log-losses summed per sample: all that a table with a bootstrap over samples needs.

    Attributes
    ----------
    scheme : str
        `one_step` or `cross_seed`.
    total : dict of ndarray, (row, sample)
        Sum of -log P(what happened) [nat] per model; a row is a run, or an ordered pair of runs.
    count : ndarray of int, (row, sample)
        Entries scored, the same for all models.
    run : ndarray of int, (row,)
        The run that was predicted.
    """

    scheme: str
    total: dict[str, np.ndarray]
    count: np.ndarray
    run: np.ndarray


@dataclass(frozen=True, eq=False)
class _Panel:
    """One run, by calendar epoch (`correct`, `seen`, `scored`) and by epochs since the origin."""

    correct: np.ndarray
    seen: np.ndarray  # in the trace
    scored: np.ndarray  # and not right by definition
    start: np.ndarray  # (sample,) the origin
    r: np.ndarray
    mask: np.ndarray


def decay_predictor(
    model: str = "exponential", *, pooled: bool = False, smoothing: float = 1.0, **options
) -> Predictor:
    """A forgetting curve R fitted by Bernoulli likelihood, read off at the times asked for.

    P = (n R(t) + a / 2) / (n + a), with n the entries that were fitted and a = `smoothing`. With
    a = 1 a constant curve gives exactly the smoothed rate of `constant`, so that the two differ in
    nothing but shape; with a = 0 a fit that is certain meets only the clip.

    Parameters
    ----------
    model : str
        A key of `decay.MODELS`. Where the curve is 1 at t = 0 by construction, that entry is left
        out of the fit: it says nothing of the rate, and a wrong one would have probability 0.
    pooled : bool
        One curve for all traces together, instead of one for each.
    smoothing : float
        Pseudo-observations, half of them right.
    **options
        Go to `decay.fit_decay`.

    Returns
    -------
    callable
        A `Predictor`.
    """
    if smoothing < 0:
        raise ValueError(f"smoothing must not be negative, got {smoothing}")
    from_one = model in CURVES and all(first == 1 for first, _ in CURVES[model].vertices)

    def predict(r, mask, t):
        mask = mask.copy()
        if from_one:
            mask[0] = False
        n, weights = mask.sum(0), None
        if pooled:
            count, n = mask.sum(1, keepdims=True), n.sum()
            r = np.where(mask, r, 0).sum(1, keepdims=True) / np.maximum(count, 1)
            mask, weights = count > 0, count.astype(float)
        fit = fit_decay(r, mask=mask, model=model, loss="bernoulli", weights=weights, **options)
        times, at = np.unique(t, return_inverse=True)
        column = np.zeros(1, int) if pooled else np.arange(r.shape[1])
        curve = fit.predict(times)[at.reshape(np.shape(t)), column]
        return (n * curve + smoothing / 2) / (n + smoothing)

    return predict


def shrunk_predictor(labels=None, **options) -> Predictor:
    """The exponential again, its decay constants shrunk towards their class as `rasch` shrinks.

    P is exp(-lambda t) averaged over the posterior of lambda (`shrinkage.shrink`), so that a few
    entries do not pass for certainty. A rival of `rasch` on equal terms.

    Parameters
    ----------
    labels : array, (sample,), optional
        Class of each sample; without them all samples share one distribution.
    **options
        Go to `shrinkage.shrink`.
    """

    def predict(r, mask, t):
        known = mask.copy()
        known[0] = False  # the curve is 1 there, whatever lambda
        found = shrink(np.where(known, r, 1.0), known, labels, **options)
        times, at = np.unique(t, return_inverse=True)
        return found.predict(times)[at.reshape(np.shape(t)), np.arange(r.shape[1])]

    return predict


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
        See `Predictor` and `decay_predictor`.
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
    panels = _panels(correct, convention, shown)
    predictors = _named(predictors)
    runs = [_one_step_run(panel, predictors, least, clip) for panel in panels]
    total = {name: np.stack([t[name] for t, _ in runs]) for name in runs[0][0]}
    return Losses("one_step", total, np.stack([c for _, c in runs]), np.arange(len(runs)))


def _one_step_run(panel: _Panel, predictors, least: int, clip) -> tuple[dict, np.ndarray]:
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
                total[name][who] += _log_loss(name, p[name], right[who], n[who], clip)
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
    panels = _panels(correct, convention, shown)
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
                loss = _log_loss(name, p, target.correct[at, who], n[who], clip)
                total.setdefault(name, []).append(np.bincount(who, loss, len(n)))
    total = {name: np.stack(rows) for name, rows in total.items()}
    return Losses("cross_seed", total, np.stack(count), np.array(run))


def _from_run(panel: _Panel, predictors, usable: np.ndarray) -> tuple[dict, dict]:
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


def _panels(correct, convention: TraceConvention, shown) -> list[_Panel]:
    learned = convention.origin == "first_learned"
    honest = {"epoch_0": "all", "first_learned": "ever_learned"}
    if convention.signal != "raw" or honest.get(convention.origin) != convention.population:
        raise ValueError(
            f"prediction needs raw correctness of (origin, population) in {list(honest.items())}, "
            f"got {convention}"
        )
    correct = np.asanyarray(correct)
    tally = tally_of(correct, shown)  # checks the input as well
    correct = correct.astype(bool).reshape(-1, *correct.shape[-2:])
    shown = np.ones(correct.shape, bool) if shown is None else shown.reshape(correct.shape)
    first = tally.first_correct.reshape(len(correct), -1)
    rows, panels = np.arange(correct.shape[1])[:, None], []
    for y, here, start in zip(correct, shown, first if learned else 0 * first, strict=True):
        r, mask = retention_trace(y, convention, here)
        seen = here & (rows >= start) & (start >= 0)
        if learned:
            mask[0] = False
        panels.append(_Panel(y, seen, seen & (rows > start) if learned else seen, start, r, mask))
    return panels


def _named(predictors: dict[str, Predictor] | None) -> dict[str, Predictor]:
    taken = {"constant", "sample", "epoch", "difficulty", "rasch", "last"} & set(predictors or {})
    if taken:
        raise ValueError(f"predictors need names of their own, got {sorted(taken)}")
    return predictors or {}


def _log_loss(name: str, p, right, n, clip: float | None) -> np.ndarray:
    """-log P(what happened) [nat] of clipped predictions, elementwise."""
    if np.shape(p) != right.shape:
        raise ValueError(
            f"model {name!r} must predict shape {right.shape}, got shape {np.shape(p)}"
        )
    bad = ~((p > -1e-9) & (p < 1 + 1e-9))  # rounding is no crime, NaN is
    if bad.any():
        raise ValueError(
            f"model {name!r} must predict probabilities in 0..1, got {bad.sum():,} others or NaN "
            f"out of {p.size:,}, the first {p[bad].flat[0]}"
        )
    edge = clip if clip is not None else 0.5 / (n + 1)
    p = np.clip(p, edge, 1 - edge)
    return -np.log(np.where(right, p, 1 - p))


def skill_table(
    losses: Losses, groups, strata, rng: np.random.Generator, draws: int = 1000
) -> pd.DataFrame:
    """Log-loss per model and its skill over `constant`, with intervals over groups of samples.

    skill = 1 - logloss(model) / logloss(constant); gain = logloss(constant) - logloss(model).

    Parameters
    ----------
    losses : Losses
    groups, strata : array, (sample,)
        See `intervals.resamples`.
    rng : Generator
    draws : int

    Returns
    -------
    DataFrame
        One row per model: `scheme`, `model`, `log_loss` [nat per entry], `skill`, `ci_low`,
        `ci_high`, `gain` [nat per entry], `gain_low`, `gain_high`, `n` (entries), `samples`
        (scored at least once), `groups`, `seed_low`, `seed_high`, `seeds` (t over predicted runs,
        the seeds as draws; in the scheme `cross_seed` they share what they are predicted from).
        Without a scored entry, as where no trace is long enough, all numbers but the counts are
        NaN.
    """
    names = list(losses.total)
    base = names.index("constant")
    sums = np.stack([losses.total[name].sum(0) for name in names], 1)  # (sample, model)
    count = losses.count.sum(0)

    def statistic(rows) -> dict[str, float]:
        mean = sums[rows].sum(0) / (count[rows].sum() or np.nan)
        found = {f"skill {m}": 1 - x / mean[base] for m, x in zip(names, mean, strict=True)}
        return found | {f"gain {m}": mean[base] - x for m, x in zip(names, mean, strict=True)}

    found = bootstrap(statistic, groups, strata, rng, draws).set_index("quantity")
    scored = [b for b in np.unique(losses.run) if losses.count[losses.run == b].any()]
    per_run = {m: np.array([losses.total[m][losses.run == b].sum() for b in scored]) for m in names}
    rows = []
    for m, total in zip(names, sums.sum(0), strict=True):
        skill, gain = found.loc[f"skill {m}"], found.loc[f"gain {m}"]
        seeds = t_interval(1 - per_run[m] / per_run["constant"]).iloc[0]
        rows.append(
            {
                "scheme": losses.scheme,
                "model": m,
                "log_loss": total / (count.sum() or np.nan),
                "skill": skill["estimate"],
                "ci_low": skill["ci_low"],
                "ci_high": skill["ci_high"],
                "gain": gain["estimate"],
                "gain_low": gain["ci_low"],
                "gain_high": gain["ci_high"],
                "n": int(count.sum()),
                "samples": int((count > 0).sum()),
                "groups": skill["groups"],
                "seed_low": seeds["ci_low"],
                "seed_high": seeds["ci_high"],
                "seeds": seeds["n"],
            }
        )
    return pd.DataFrame(rows)


def one_step(
    traces: Traces,
    rng: np.random.Generator,
    convention: TraceConvention = RETENTION,
    predictors: dict[str, Predictor] | None = None,
    draws: int = 1000,
    **options,
) -> pd.DataFrame:
    """`skill_table` of `one_step_losses` per architecture, in the column `arch`.

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
    """`skill_table` of `cross_seed_losses` per architecture, in the column `arch`.

    `options` go to `cross_seed_losses`; the bootstrap is over groups within class. A ValueError if
    an architecture has a single run.
    """
    return _by_arch(cross_seed_losses, traces, rng, convention, predictors, draws, options)


def _by_arch(losses_of, traces, rng, convention, predictors, draws, options) -> pd.DataFrame:
    groups, tables = traces.samples["group"].to_numpy(), []
    for arch in dict.fromkeys(traces.runs["arch"]):
        runs = traces.select(arch=arch)
        view = runs.correct(convention.view), runs.shown(convention.view)
        losses = losses_of(view[0], convention, predictors, view[1], **options)
        table = skill_table(losses, groups, traces.labels, rng, draws)
        table.insert(1, "arch", arch)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def aicc_weights(
    log_likelihood: dict[str, np.ndarray], n_params: dict[str, int], n_epochs
) -> pd.DataFrame:
    """How often each model has the smallest AICc of a trace, and its mean Akaike weight.

    AICc = -2 log L + 2k + 2k (k + 1) / (n - k - 1), weight = exp(-AICc / 2) over its sum over
    models. A secondary column beside log-loss on new entries: with a dozen binary points, not
    independent of each other, the weights mostly show how many parameters a model has. Models
    must be fitted by one likelihood to the same entries, or they cannot be compared at all.

    Parameters
    ----------
    log_likelihood : dict of array, (...)
        Bernoulli log-likelihood [nat] per trace; minus infinity where a trace is impossible.
    n_params : dict of int
        k per model.
    n_epochs : array, (...)
        n, the entries of each trace. A model with n <= k + 1 has no AICc and cannot win.

    Returns
    -------
    DataFrame
        One row per model: `model`, `n_params`, `wins` (share of traces, ties shared), `weight`
        (mean), `n` (traces), `left_out` (a likelihood is NaN, or no model has an AICc).

    References
    ----------
    Hurvich & Tsai 1989, Biometrika 76, 297-307. Burnham & Anderson 2002, Model Selection and
    Multimodel Inference, 2.9.

    Examples
    --------
    >>> table = aicc_weights({"a": [-5.0], "b": [-5.0]}, {"a": 1, "b": 2}, [13])
    >>> table["wins"].tolist()
    [1.0, 0.0]
    """
    if list(log_likelihood) != list(n_params) or not n_params:
        raise ValueError(
            "log_likelihood and n_params must name the same models in the same order, "
            f"got {list(log_likelihood)} and {list(n_params)}"
        )
    n = np.ravel(n_epochs).astype(float)
    ll = np.stack([np.ravel(v) for v in log_likelihood.values()]).astype(float)  # (model, trace)
    if ll.shape[1] != len(n):
        raise ValueError(f"n_epochs must name all {ll.shape[1]} traces, got {len(n)}")
    k = np.array(list(n_params.values()), float)[:, None]
    room = n - k - 1
    aicc = -2 * ll + 2 * k + 2 * k * (k + 1) / np.where(room > 0, room, np.nan)
    aicc = np.where((room > 0) | np.isnan(ll), aicc, np.inf)
    best = aicc.min(0)  # NaN if any is
    used = np.isfinite(best)
    behind = aicc[:, used] - best[used]
    won = behind < 1e-9
    weight = np.exp(-behind / 2)
    return pd.DataFrame(
        {
            "model": list(n_params),
            "n_params": list(n_params.values()),
            "wins": (won / won.sum(0)).mean(1) if used.any() else np.nan,
            "weight": (weight / weight.sum(0)).mean(1) if used.any() else np.nan,
            "n": int(used.sum()),
            "left_out": int((~used).sum()),
        }
    )
