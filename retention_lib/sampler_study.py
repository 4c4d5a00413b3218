"""Notebook 06: which arms are trained, with what budget, and the command that trains them all."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from retention_lib import overview, parallel, study
from retention_lib.checks import check_names
from retention_lib.config import (
    ALL_ARMS,
    PROFILES,
    REFERENCE,
    THRESHOLDED,
    Profile,
    RunConfig,
)
from retention_lib.config import profile as find_profile
from retention_lib.session import default_device


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
