"""Notebook 06: does an arm outperform uniform sampling? One function per measurement.

Each takes run directories or the `Traces` of one data set whose runs differ in sampler and seed,
and returns a tidy DataFrame, unrounded. Arms are compared within a seed: the same network, the same
warm-up, the same augmentation stream.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from retention_lib import equivalence, overview, parallel, study
from retention_lib.checks import check_names
from retention_lib.config import (
    ALL_ARMS,
    EQUIVALENCE_MARGIN,
    PRIMARY_SCORE,
    PROFILES,
    THRESHOLDED,
    TOP_SHARE,
    Profile,
    RunConfig,
)
from retention_lib.config import profile as find_profile
from retention_lib.findings import score_matrix
from retention_lib.held_out import of_same_runs
from retention_lib.intervals import t_interval
from retention_lib.rundir import RunDir
from retention_lib.samplers import pilot_constants
from retention_lib.session import default_device
from retention_lib.ties import top_count
from retention_lib.traces import Traces

REFERENCE = "uniform"
#: What an arm is judged by, and whether more is better.
MEASURES = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "hard_retention": True,
    "events": False,
    "epochs_to_level": False,
}
#: Measures on the scale of accuracy, to which the margin applies.
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "hard_retention")
#: "A fixed accuracy": this share of what uniform sampling reaches in the end, mean over seeds.
LEVEL = 0.95
#: Which epochs a run's accuracy is read from.
READINGS = {"last": "the last epoch", "last_3": "mean of the last three", "best": "best epoch"}


def choose(
    profile: str, datasets: str = "all", arms: str = "profile"
) -> tuple[Profile, dict[str, list[RunConfig]]]:
    """A profile and its sampling runs, data set by data set.

    Parameters
    ----------
    datasets : str
        `all`, or names of the profile's sampling study with commas between them.
    arms : str
        `profile` (those of the study), `all` (`config.ALL_ARMS`), or names with commas between
        them; uniform sampling is always among them.

    Raises
    ------
    ValueError
        On an unknown profile, data set or arm, listing the known ones.

    Examples
    --------
    >>> {c.sampler for c in choose("smoke")[1]["phantom_oct"]} == {"uniform", "spaced"}
    True
    """
    chosen = find_profile(profile)
    grid = chosen.sampling
    names = list(grid.datasets)
    if datasets != "all":
        names = [name.strip() for name in datasets.split(",")]
        check_names(names, list(grid.datasets), f"datasets of profile {profile}")
    if arms != "profile":
        wanted = ALL_ARMS if arms == "all" else tuple(a.strip() for a in arms.split(","))
        check_names(wanted, list(ALL_ARMS), "arms")
        grid = grid.replace(arms=tuple(dict.fromkeys((REFERENCE, *wanted))))
    configs = grid.configs()
    return chosen, {name: [c for c in configs if c.dataset == name] for name in names}


def design(configs: dict[str, list[RunConfig]]) -> pd.DataFrame:
    """What is trained: one row per data set, architecture and arm, with its settings."""
    rows = {}
    for name, runs in configs.items():
        for c in runs:
            row = {"seeds": 0, "epochs": c.epochs, "presentations": c.presentations}
            row["recall_threshold"] = c.recall_threshold if c.sampler in THRESHOLDED else np.nan
            row["pilot"] = {True: "another seed", False: "own seed"}[c.pilot_seed is not None]
            row["pilot"] = row["pilot"] if c.pilot() is not None else ""
            rows.setdefault((name, c.arch, c.sampler), row)["seeds"] += 1
    index = pd.MultiIndex.from_tuples(rows, names=["dataset", "arch", "arm"])
    return pd.DataFrame(list(rows.values()), index=index)


def find_or_capture(profile: Profile, configs: dict[str, list[RunConfig]], log=print) -> dict:
    """Run directories per data set; phantoms are trained where missing, real data is only read.

    A notebook must not begin a study of days: on real data `log` says which command trains it
    (`main`). Finished runs without the uniform run of their seed are left out.
    """
    if profile.is_phantom:
        return overview.find_or_capture(configs, log)
    folders = {}
    for name, wanted in configs.items():
        done = {c for c in wanted if _is_finished(c)}
        known = {(c.arch, c.seed) for c in done if c.sampler == REFERENCE}
        usable = [c for c in wanted if c in done and (c.arch, c.seed) in known]
        spaced = any(c.sampler == "spaced" for c in usable)
        folders[name] = study.capture_or_load(usable, log=log) if spaced else []
        if len(usable) < len(wanted):
            log(f"{name}: {len(wanted) - len(usable)} of {len(wanted)} runs are not there yet; "
                f"python -m retention_lib.sampler_study {profile.name} trains them")  # fmt: skip
    return folders


def _is_finished(config: RunConfig) -> bool:
    if overview.has_images(config):
        return study.find_run(config).is_done
    return overview.is_available(config)


def left_out(configs: dict[str, list[RunConfig]]) -> list[str]:
    """Arms that could be run and are not among these."""
    have = {c.sampler for runs in configs.values() for c in runs}
    return [arm for arm in ALL_ARMS if arm not in have]


def class_measures(predicted: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy and macro-F1 of many predictions of the same samples.

    Parameters
    ----------
    predicted : ndarray of int, (..., sample)
    labels : ndarray of int, (sample,)

    Returns
    -------
    dict of ndarray, (...)
        Balanced accuracy is the mean recall, macro-F1 the mean F1 = 2 TP / (2 TP + FP + FN), both
        over the classes that `labels` has; a class that is predicted nowhere has F1 = 0.

    Examples
    --------
    >>> {k: float(v) for k, v in class_measures(np.array([0, 0, 0, 1]), [0, 0, 1, 1]).items()}
    {'accuracy': 0.75, 'balanced_accuracy': 0.75, 'macro_f1': 0.7333333333333334}
    """
    labels = np.asarray(labels)
    recall, f1 = [], []
    for c in np.unique(labels):
        mine, said = labels == c, predicted == c
        hit = said[..., mine].sum(-1)
        recall.append(hit / mine.sum())
        f1.append(2 * hit / (mine.sum() + said.sum(-1)))  # TP + FN and TP + FP
    accuracy = (predicted == labels).mean(-1)
    measures = {"balanced_accuracy": np.mean(recall, 0), "macro_f1": np.mean(f1, 0)}
    return {"accuracy": accuracy, **measures}


def learning_curves(held_out: Traces) -> pd.DataFrame:
    """Held-out measures of every run and epoch: `arch`, `arm`, `seed`, `epoch`, measures."""
    measures = class_measures(held_out.predicted(), held_out.labels)
    runs, epochs = len(held_out.runs), held_out.epochs
    table = _runs(held_out).loc[np.repeat(np.arange(runs), len(epochs))].reset_index(drop=True)
    table["epoch"] = np.tile(epochs, runs)
    return table.assign(**{name: value.ravel() for name, value in measures.items()})


def outcomes(traces: Traces, held_out: dict[str, Traces]) -> pd.DataFrame:
    """What every run came to.

    Parameters
    ----------
    traces : Traces
        Training samples of one data set.
    held_out : dict
        Data set -> `Traces` of its held-out samples.

    Returns
    -------
    DataFrame
        One row per run: `arch`, `arm`, `seed`; held-out `accuracy`, `balanced_accuracy` and
        `macro_f1` after the last epoch; `events`, forgetting events per training sample (clean
        view, so that samples not shown count as well); `hard_retention`, share right after the last
        epoch of the most forgotten tenth of the training samples (`hard_weights`; NaN with one
        seed); `epochs_to_level`, first epoch whose held-out accuracy reaches `LEVEL` of what
        uniform sampling of that architecture ends with, one more than the last if none does.
    """
    curves = learning_curves(of_same_runs(traces, held_out))
    table = _runs(traces)
    last = curves[curves["epoch"] == curves["epoch"].max()].reset_index(drop=True)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        table[name] = last[name]
    table["events"] = score_matrix(traces, "events").mean(1)
    right = traces.correct()[:, -1]
    weights = hard_weights(traces)
    table["hard_retention"] = (right * weights).sum(1) / weights.sum(1)
    by_run = curves["accuracy"].to_numpy().reshape(len(table), -1)
    uniform = table[table["arm"] == REFERENCE].groupby("arch")["accuracy"].mean()
    reached = by_run >= LEVEL * table["arch"].map(uniform).to_numpy()[:, None]
    epochs = np.append(traces.epochs, traces.epochs[-1] + 1)
    first = np.where(reached.any(1), reached.argmax(1), len(epochs) - 1)
    return table.assign(epochs_to_level=epochs[first].astype(float))


def hard_weights(traces: Traces, share: float = TOP_SHARE) -> np.ndarray:
    """Which samples count as most forgotten for each run, weights (run, sample).

    The tenth with the highest mean score in the uniform runs of the *other* seeds of the same
    architecture. Its own uniform run must not choose: what was forgotten in it by chance would be
    remembered in every other arm by regression to the mean. Samples tied at the threshold share
    what is left of the tenth. NaN where there is no other seed.
    """
    score = score_matrix(traces, PRIMARY_SCORE)
    runs, k = traces.runs, top_count(len(traces.samples), share)
    out = np.full(score.shape, np.nan)
    for i, run in runs.iterrows():
        others = (runs["sampler"] == REFERENCE) & (runs["arch"] == run["arch"])
        others &= runs["seed"] != run["seed"]
        if others.any():
            mean = score[others.to_numpy()].mean(0)
            limit = np.partition(mean, -k)[-k]
            above, at = mean > limit, mean == limit
            out[i] = above + at * (k - above.sum()) / at.sum()
    return out


def by_dataset(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each data set, without the column that names it; nothing of an empty table."""
    groups = table.groupby("dataset", sort=False) if len(table) else ()
    return {name: of.drop(columns="dataset").reset_index(drop=True) for name, of in groups}


def differences(
    table: pd.DataFrame, margin: float = EQUIVALENCE_MARGIN, measures=tuple(MEASURES)
) -> pd.DataFrame:
    """Every arm minus uniform sampling, paired by seed.

    Parameters
    ----------
    table : DataFrame
        `arch`, `arm`, `seed` and measures, one row per run, as `outcomes` returns it.

    Returns
    -------
    DataFrame
        One row per architecture (and `all`: the mean over architectures of each seed, where there
        are several), arm and measure. For `SHARES` the row of `equivalence.tost_paired` with its
        verdict; `p` is the equivalence test's. Others have no margin: their `p` is the two-sided
        t test's, and `verdict` says `better` or `worse` where the 95 % interval excludes 0.
        `seeds_needed`: as `seeds_for_equivalence`.
    """
    kinds = {arch: of for arch, of in table.groupby("arch", sort=False)}
    if len(kinds) > 1:
        means = table.groupby(["arm", "seed"], sort=False).mean(numeric_only=True).reset_index()
        kinds["all"] = means
    rows = []
    for arch, of in kinds.items():
        for arm in [name for name in of["arm"].unique() if name != REFERENCE]:
            for measure in measures:
                wide = of.pivot(index="seed", columns="arm", values=measure)
                row = _difference(wide[arm], wide[REFERENCE], measure, margin)
                for place, value in enumerate((arch, arm, measure)):
                    row.insert(place, ("arch", "arm", "measure")[place], value)
                rows.append(row.assign(uniform=wide[REFERENCE].mean()))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _difference(a: pd.Series, b: pd.Series, measure: str, margin: float) -> pd.DataFrame:
    more = MEASURES.get(measure, True)
    if measure in SHARES:
        row = equivalence.tost_paired(a.to_numpy(), b.to_numpy(), margin, more)
        return row.assign(seeds_needed=seeds_for_equivalence(row["sd"].iloc[0], margin))
    row = t_interval((a - b).to_numpy(), null=0.0)
    low, high = row[["ci_low", "ci_high"]].iloc[0]
    sign = (low > 0) - (high < 0)  # NaN: neither
    names = {1: equivalence.BETTER, -1: equivalence.WORSE, 0: equivalence.OPEN}
    return row.assign(verdict=names[sign if more else -sign])


def seeds_for_equivalence(sd: float, margin: float, power: float = equivalence.POWER) -> float:
    """Pairs with which two methods that do not differ would be found equivalent.

    Parameters
    ----------
    sd : float
        Standard deviation of the paired differences, taken as known.
    power : float
        Wanted chance of that finding.

    Returns
    -------
    float
        At least 2; infinite above 10,000; NaN where `sd` is not positive.

    Examples
    --------
    >>> seeds_for_equivalence(sd=0.01, margin=0.01)
    11.0
    """
    if not sd > 0:
        return np.nan
    low, high = 1, 2  # too few, perhaps enough

    def enough(n):
        return equivalence.equivalence_power(margin, sd / np.sqrt(n), n - 1) >= power

    while not enough(high):
        low, high = high, 2 * high
        if high > 10_000:
            return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high)


def conventions(held_out: Traces) -> pd.DataFrame:
    """The difference of every arm under every reading of "accuracy".

    Returns
    -------
    DataFrame
        Rows of `differences` with `reading`, a key of `READINGS`: from which epoch of the curve
        the measure is taken. `primary` marks held-out accuracy after the last epoch.
    """
    curves, rows = learning_curves(held_out), []
    by = [curves[name] for name in ("arch", "arm", "seed")]
    names = ["accuracy", "balanced_accuracy", "macro_f1"]
    readings = {
        "last": curves[names].groupby(by, sort=False).last(),
        "last_3": curves[curves["epoch"] > curves["epoch"].max() - 3][names]
        .groupby(by, sort=False)
        .mean(),
        "best": curves[names].groupby(by, sort=False).max(),
    }
    for reading, table in readings.items():
        found = differences(table.reset_index(), measures=names)
        rows.append(found.assign(reading=reading))
    table = pd.concat(rows, ignore_index=True)
    primary = (table["reading"] == "last") & (table["measure"] == "accuracy")
    return table.assign(primary=primary)


def shown_counts(folders: list[Path]) -> np.ndarray:
    """How often every training sample was shown, repeats counted, (run, sample)."""
    counts = []
    for run in map(RunDir, folders):
        train = (run.samples["split"] == "train").to_numpy()
        epochs = range(1, run.config.epochs + 1)
        read = (pq.read_table(run.epoch_file(t), columns=["shown"]) for t in epochs)
        counts.append(sum(t.column("shown").to_numpy().astype(np.int64) for t in read)[train])
    return np.array(counts)


def budgets(folders: list[Path]) -> pd.DataFrame:
    """What every run spent, counted from its traces.

    Returns
    -------
    DataFrame
        `arch`, `arm`, `seed`, `presentations` (repeats counted) and `distinct`, the training
        samples that were shown at least once.

    Raises
    ------
    ValueError
        If two runs of an architecture differ in their presentations.
    """
    if not folders:
        return pd.DataFrame()
    counts, configs = shown_counts(folders), [RunDir(f).config for f in folders]
    table = pd.DataFrame(
        [{"arch": c.arch, "arm": c.sampler, "seed": c.seed} for c in configs]
    ).assign(presentations=counts.sum(1), distinct=(counts > 0).sum(1))
    for arch, of in table.groupby("arch", sort=False):
        if of["presentations"].nunique() > 1:
            raise ValueError(f"{arch}: arms must show equally many, got\n{of}")
    return table


def shown_by_constant(folders: list[Path], groups: int = 5) -> pd.DataFrame:
    """How often samples were shown, by the decay constant that their pilot gave them.

    Returns
    -------
    DataFrame
        `arch`, `arm`, `seed`, `group` (1: smallest constants; equal ones stay together, so that
        groups differ in size or are missing), `constant` (median, 1 / epoch), `samples`, `shown`
        (mean per sample and run) and `ratio` to what uniform sampling would show.
    """
    dirs = list(map(RunDir, folders))
    pilots = {(d.config.arch, d.config.seed): d for d in dirs if d.config.sampler == REFERENCE}
    constants = {of: pilot_constants(d) for of, d in pilots.items()}
    rows = []
    for run, counts in zip(dirs, shown_counts(folders), strict=True):
        own = constants[run.config.arch, run.config.seed]
        edges = np.unique(np.quantile(own, np.linspace(0, 1, groups + 1)[1:-1]))
        group = np.searchsorted(edges, own, side="left")
        for g in np.unique(group):
            here = group == g
            row = {"arch": run.config.arch, "arm": run.config.sampler, "seed": run.config.seed}
            row |= {"group": int(g) + 1, "constant": np.median(own[here])}
            row |= {"samples": int(here.sum()), "shown": counts[here].mean()}
            rows.append(row | {"ratio": counts[here].mean() / counts.mean()})
    return pd.DataFrame(rows)


def class_balance(folders: list[Path]) -> pd.DataFrame:
    """How much of what is shown is of which class.

    Returns
    -------
    DataFrame
        `arch`, `arm`, `seed`, `class`, `samples` (training images of the class), `share` of all
        presentations, `ratio` to the class's share of the training samples.
    """
    rows = []
    for run, counts in zip(map(RunDir, folders), shown_counts(folders), strict=True):
        samples = run.samples
        label = samples.loc[samples["split"] == "train", "label"].to_numpy()
        names = run.header["classes"]
        n, shown = np.bincount(label, minlength=len(names)), np.bincount(label, counts, len(names))
        share = shown / counts.sum()
        config = run.config
        for c in np.flatnonzero(n):
            row = {"arch": config.arch, "arm": config.sampler, "seed": config.seed}
            row |= {"class": names[c], "samples": n[c], "share": share[c]}
            rows.append(row | {"ratio": share[c] / (n[c] / n.sum())})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    return table.sort_values("samples", ascending=False, kind="stable", ignore_index=True)


def _runs(traces: Traces) -> pd.DataFrame:
    return traces.runs[["arch", "sampler", "seed"]].rename(columns={"sampler": "arm"})


def summary_of_conventions(table: pd.DataFrame) -> pd.DataFrame:
    """Per data set, architecture and arm: how the readings decide, and their differences."""
    if table.empty:
        return table
    rows = []
    index = ["dataset", "arch", "arm"]
    for names, of in table.groupby(index, sort=False):
        low, high, estimate = of["ci_low"], of["ci_high"], of["estimate"]
        row = dict(zip(index, names, strict=True)) | {"readings": len(of)}
        row |= {"above": (low > 0).mean(), "below": (high < 0).mean()}
        row |= {"smallest": estimate.min(), "median": estimate.median(), "largest": estimate.max()}
        rows.append(row | {"primary": of.loc[of["primary"], "estimate"].mean()})
    return pd.DataFrame(rows)


def ratio_table(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Mean `ratio` for the eye: a row per data set, architecture and `by`, a column per arm."""
    if table.empty:
        return table
    return table.pivot_table("ratio", ["dataset", "arch", *by], "arm", sort=False)


def main(argv: list[str] | None = None) -> None:
    """Train the arms of a profile's sampling study: `python -m retention_lib.sampler_study`."""
    parser = argparse.ArgumentParser(
        prog="python -m retention_lib.sampler_study",
        description="Train the runs of notebook 06; runs that exist are found.",
    )
    parser.add_argument("profile", choices=list(PROFILES))
    parser.add_argument("--datasets", default="all", help="names with commas between them, or all")
    parser.add_argument("--arms", default="profile", help="samplers, or profile, or all")
    parser.add_argument("--workers", type=int, help="runs at a time (default: one per core)")
    args = parser.parse_args(argv)
    _, configs = choose(args.profile, args.datasets, args.arms)
    workers = args.workers or parallel.default_workers(default_device())
    runs = [config for of in configs.values() for config in of]
    study.capture_or_load(runs, log=study.print_flushed, workers=workers)


if __name__ == "__main__":
    main()
