"""Notebook 03: how much seeds could agree at all, with as few events as there are, and controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from retention_lib import forgetting
from retention_lib.beta_binomial import beta_binomial
from retention_lib.findings import score_matrix
from retention_lib.intervals import one_row
from retention_lib.noise_ceiling import noise_ceiling
from retention_lib.normal_copula import spearman_of
from retention_lib.reliability import icc
from retention_lib.resampled import units
from retention_lib.simulated_study import as_traces, study
from retention_lib.stability import BOTH, agreement_rows, seed_pairs
from retention_lib.traces import Traces

#: Scores made of forgetting events, whose noise ceiling the beta-binomial model gives.
COUNTED = ("forgetting_score", "events")
#: What is quoted of earlier simulations: mean events per run -> Spearman of two runs.
QUOTED = {0.1: 0.11, 1.0: 0.44, 10.0: 0.88}
#: Shape of the Beta distribution of rates: 1, rates exponential; less, most samples hardly any.
SHAPES = {"counts, exponential rates": 1.0, "counts, unequal rates": 0.25}


def _events(traces: Traces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Events, opportunities (epochs before the last with a right answer), never learned; (run, i).

    Every event ends an epoch at which the sample was right, so there are no more than these.
    """
    correct = traces.correct()
    tally = forgetting.tally_of(correct)
    return tally.events, correct[:, :-1].sum(1), tally.first_correct < 0


def event_counts(traces: Traces, rng: np.random.Generator, draws: int = 2000) -> pd.DataFrame:
    """Forgetting events of a run, and their reliability if every sample has a rate of its own.

    Parameters
    ----------
    draws : int
        Of the bootstrap over units within class.

    Returns
    -------
    DataFrame
        Two rows per architecture, `fit` within_runs and across_runs: `arch`, `events` (mean per
        sample and run), `with_event` (share of samples with any, mean over runs), `fit`, and the
        columns of `beta_binomial`. Opportunities are the epochs at which a sample was right, but
        the last one.
    """
    y, m, _ = _events(traces)
    arch, rows = traces.runs["arch"].to_numpy(), []
    for name in list(seed_pairs(traces.runs))[1:]:
        own = arch == name
        part = beta_binomial(y[own], m[own], units(traces.samples), traces.labels, rng, draws)
        part.insert(0, "arch", name)
        part.insert(1, "events", y[own].mean())
        part.insert(2, "with_event", (y[own] > 0).mean())
        rows.append(part)
    return pd.concat(rows, ignore_index=True)


def ceilings(
    traces: Traces, rng: np.random.Generator, counts: pd.DataFrame, pairs: int = 100
) -> pd.DataFrame:
    """Spearman of two runs if chance in the events were all that tells seeds apart.

    Two runs get binomial events, with the same rates for both, drawn from the Beta distribution
    fitted to single runs (`within_runs`, which knows of no agreement). For `forgetting_score` the
    never-learned samples are those of two real runs and keep their score.

    Parameters
    ----------
    counts : DataFrame
        `event_counts`; of several data sets with `dataset`, by which the own rows are found.
    pairs : int
        Simulated pairs of runs per score and architecture.

    Returns
    -------
    DataFrame
        `score` of `COUNTED`, `arch` (the last: `BOTH`, the mean), `events`, `ceiling`,
        `ceiling_low`, `ceiling_high` (95 % of single pairs; of `BOTH` NaN). NaN where the events
        cannot be fitted.
    """
    if "dataset" in counts:
        counts = counts[counts["dataset"] == traces.runs["dataset"].iloc[0]]
    _, m, never = _events(traces)
    arch, rows = traces.runs["arch"].to_numpy(), []
    single = counts[counts["fit"] == "within_runs"]
    weight = {name: len(p) for name, p in seed_pairs(traces.runs).items()}
    for score in COUNTED:
        fixed = np.where(never & (score == COUNTED[0]), float(len(traces.epochs)), np.nan)
        found = []
        for _, fit in single.iterrows():
            own, level = arch == fit["arch"], dict.fromkeys(("estimate", "ci_low", "ci_high"))
            if np.isfinite([fit["alpha"], fit["beta"]]).all():
                args = fit["alpha"], fit["beta"], m[own], rng
                of = noise_ceiling(*args, draws=pairs, fixed=fixed[own]).set_index("quantity")
                level = of.loc["spearman"]
            found.append({"score": score, "arch": fit["arch"], "events": fit["events"],
                          "ceiling": level["estimate"], "ceiling_low": level["ci_low"],
                          "ceiling_high": level["ci_high"]})  # fmt: skip
        table = pd.DataFrame(found).astype(dict.fromkeys(("ceiling", "ceiling_low",
                                                          "ceiling_high"), float))  # fmt: skip
        share = table["arch"].map(weight) / weight[BOTH]
        mean = {name: (table[name] * share).sum(skipna=False) for name in ("events", "ceiling")}
        rows += [table, pd.DataFrame([{"score": score, "arch": BOTH} | mean])]
    return pd.concat(rows, ignore_index=True)


def events_curve(
    traces: Traces,
    rng: np.random.Generator,
    events: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    rates: Sequence[float] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3),
    n: int = 2000,
    pairs: int = 40,
) -> pd.DataFrame:
    """Spearman of two runs against events per run, in simulations whose samples never change.

    Whatever a simulated sample is like in one run, it is like in every other: only chance differs.
    A low correlation is then a matter of few events, not of difficulty being the run's own.

    Parameters
    ----------
    traces : Traces
        Only its number of epochs is used, for the simulated traces.
    events : sequence of float
        Mean events per run of the simulated counts: binomial of 1,000 opportunities with rates of
        `SHAPES`.
    rates : sequence of float
        Median decay constants [1 / epoch] of the simulated traces (`simulated_study.study`).
    n, pairs : int
        Samples and pairs of runs per point; traces get a pair of 2 n samples.

    Returns
    -------
    DataFrame
        `simulator`, `rate` (NaN for counts), `events`, `spearman`, `low`, `high` (95 % of single
        pairs; NaN for traces) and `quoted` (`QUOTED`; NaN elsewhere).
    """
    rows = []
    for name, shape in SHAPES.items():
        for mean in events:
            beta = shape * (1000 / mean - 1)
            of = noise_ceiling(shape, beta, np.full(n, 1000), rng, draws=pairs)
            found = of.set_index("quantity").loc["spearman"]
            row = {"simulator": name, "rate": np.nan, "events": mean}
            row |= {"spearman": found["estimate"], "low": found["ci_low"]}
            quoted = QUOTED.get(mean, np.nan) if shape == 1 else np.nan
            rows.append(row | {"high": found["ci_high"], "quoted": quoted})
    for rate in rates:
        made = study(2 * n, len(traces.epochs), ["simulated"], [0, 1], rng, reliability=1,
                     shared=1, class_effect=0, rate=rate)  # fmt: skip
        y = forgetting.forgetting_events(made.correct)
        rho = np.corrcoef(stats.rankdata(y, axis=1))[0, 1] if np.ptp(y, 1).min() else np.nan
        row = {"simulator": f"traces, {len(traces.epochs)} epochs", "rate": rate}
        rows.append(row | {"events": y.mean(), "spearman": rho})
    columns = ["simulator", "rate", "events", "spearman", "low", "high", "quoted"]
    return pd.DataFrame(rows)[columns]


def known_reliability(
    traces: Traces,
    rng: np.random.Generator,
    planted: Sequence[float] = (0.0, 0.3, 0.6),
    draws: int = 200,
) -> pd.DataFrame:
    """Positive control: a study like this one whose decay constants are as reliable as planted.

    Parameters
    ----------
    planted : sequence of float
        ICC(1) of the latent log decay constants over seeds of one architecture.
    draws : int

    Returns
    -------
    DataFrame
        Three rows per planted reliability, `measured_on` the latent constants, the constants
        fitted to the simulated traces, and their events: `reliability` (planted), `measured_on`, a
        one-row result (Spearman, mean over all pairs of seeds), `planted` (the Spearman of normal
        scores with that correlation; NaN but for the latent), `icc1` (midranks for events and
        fits; mean over architectures).
    """
    names, seeds = list(seed_pairs(traces.runs))[1:], sorted(set(traces.runs["seed"]))
    size, rows = (len(traces.samples), len(traces.epochs)), []
    for truth in planted:
        made = study(*size, names, seeds, rng, reliability=truth, class_effect=0)
        simulated = as_traces(made)
        of = {
            "latent": made.truth.latent,
            "decay_constant": score_matrix(simulated, "decay_constant"),
            "events": score_matrix(simulated, "events"),
        }
        for on, values in of.items():
            where = made.runs, made.groups, made.labels
            found = agreement_rows(values, *where, rng, ("spearman",), draws)[0]
            scale = "score" if on == "latent" else "midranks"
            reached = [_icc1(values[made.runs["arch"] == a], made, scale, rng) for a in names]
            row = one_row(*found[["estimate", "ci_low", "ci_high", "n"]].iloc[0], np.nan,
                          found["method"].iloc[0])  # fmt: skip
            row.insert(0, "reliability", truth)
            row.insert(1, "measured_on", on)
            row["planted"] = spearman_of(truth) if on == "latent" else np.nan
            rows.append(row.assign(icc1=np.mean(reached)))
    return pd.concat(rows, ignore_index=True)


def _icc1(values: np.ndarray, made, scale: str, rng) -> float:
    rows = icc(values, made.groups, made.labels, rng, draws=2)
    return rows["estimate"][(rows["quantity"] == "ICC(1)") & (rows["scale"] == scale)].iloc[0]
