"""Which numbers of notebook 03 go into its result file, beside paper and planted truth."""

from __future__ import annotations

import math

import pandas as pd

from retention_lib.config import HEADLINE_TESTS
from retention_lib.headlines import kind_of, not_run, over_seeds
from retention_lib.intervals import one_row, t_interval
from retention_lib.stability import BOTH
from retention_lib.stability_reliability import SEEDS
from retention_lib.verdicts import record

_NAME = "seed_stability"
#: What the rows of notebook 03's figure are called, from top to bottom.
STABILITY_ROWS = {
    "spearman": "both architectures",
    "spearman_cnn": "CNN",
    "spearman_vit": "ViT",
    "spearman_decay_constant": "both, decay constant",
    "spearman_within_class": "both, within classes",
    "spearman_between_classes": "both, class means",
    "spearman_held_out_cnn": "held-out images, CNN",
    "spearman_held_out_vit": "held-out images, ViT",
    "spearman_curveball_cnn": "redrawn within margins, CNN",
    "spearman_curveball_vit": "redrawn within margins, ViT",
    "spearman_class_sorted": "misaligned within classes",
    "spearman_misaligned": "misaligned",
    "spearman_of_known_reliability": "control: known reliability",
}


def stability_records(
    tables: dict[str, pd.DataFrame], scales: dict[str, str | None], score: str
) -> list[dict]:
    """Records of notebook 03.

    Parameters
    ----------
    tables : dict of DataFrame
        Each with `dataset`: `agreement` and `held_out` (`stability.seed_agreement`), `controls` and
        `redrawn` (`stability_nulls`), `ceilings`, `known` (`stability_noise`), `reliability`,
        `cross`, `variance` (`stability_reliability`), `shapes` (`overview.trace_shapes`).
    scales : dict
        As in `headlines.overlap_records`.
    score : str
        The score that carries the finding.

    Returns
    -------
    list of dict
        Of `verdicts.record`. The p of `spearman` is that of its null in `config.HEADLINE_TESTS`;
        the ceiling is what events of fixed rates would allow, none for scores without events.

    Raises
    ------
    ValueError
        If a table is missing, naming it.
    """
    wanted = ("agreement", "held_out", "controls", "redrawn", "ceilings", "known", "reliability",
              "cross", "variance", "shapes")  # fmt: skip
    if missing := [name for name in wanted if name not in tables]:
        raise ValueError(f"tables must hold {list(wanted)}; missing are {missing}")
    records = []
    for dataset, scale in scales.items():
        if scale is None:
            records += not_run(_NAME, dataset)
            continue
        of = {name: _of(table, dataset=dataset) for name, table in tables.items()}
        for part in (_agreements, _controls, _reliabilities, _known):
            found = part(of, score)
            records += [record(_NAME, dataset, *row, scale=scale, **kw) for row, kw in found]
    return records


def _of(table: pd.DataFrame, **where) -> pd.DataFrame:
    """Rows with these values; none where a column is not there (an empty table)."""
    for column, value in where.items():
        table = table[table[column] == value] if column in table else table.iloc[:0]
    return table


def _agreements(of: dict, score: str) -> list:
    """The headline and its parts: `((quantity, row, chance, ceiling), keywords)`."""
    found = []
    spearman = _of(of["agreement"], score=score, measure="spearman")
    null = HEADLINE_TESTS[_NAME, "spearman"]
    for _, row in spearman.iterrows():
        suffix = "" if row["arch"] == BOTH else f"_{kind_of(row['arch'])}"
        top = _of(of["ceilings"], score=score, arch=row["arch"])["ceiling"]
        ceiling = float(top.iloc[0]) if len(top) else math.nan
        p = _of(of["controls"], arch=row["arch"])["p"].iloc[0]
        method = f"{row['method']}; p: {null}, permuted within class"
        found.append(((f"spearman{suffix}", row.copy(), 0.0, ceiling), {}))
        found[-1][0][1]["p"], found[-1][0][1]["method"] = p, method
        if row["arch"] == BOTH:
            seeds = over_seeds(row, "jackknife over seeds, t, 95%")
            found.append((("spearman_over_seeds", seeds, 0.0, ceiling), {}))
    names = {"kendall": "kendall", "within_class": "spearman_within_class",
             "between_class": "spearman_between_classes"}  # fmt: skip
    for measure, name in names.items():
        for _, row in _of(of["agreement"], score=score, measure=measure, arch=BOTH).iterrows():
            found.append(((name, row, 0.0), {}))
    where = {"score": "decay_constant", "measure": "spearman", "arch": BOTH}
    for _, row in _of(of["agreement"], **where).iterrows():
        found.append((("spearman_decay_constant", row, 0.0), {}))
    for _, row in _of(of["held_out"], score=score, measure="spearman").iterrows():
        if row["arch"] != BOTH:
            found.append(((f"spearman_held_out_{kind_of(row['arch'])}", row, 0.0), {}))
    return found


def _controls(of: dict, score: str) -> list:
    """What wrong matching and redraws within margins leave."""
    found = []
    for _, row in _of(of["controls"], arch=BOTH).iterrows():
        for how in ("misaligned", "class_sorted"):
            ends, method = row[[f"{how}_low", f"{how}_high"]], "central 95% of permutations"
            wrong = one_row(row[how], *ends, row["n"], math.nan, method)
            found.append(((f"spearman_{how}", wrong, 0.0), {}))
    for _, row in _of(of["redrawn"], score=score).iterrows():
        if row["arch"] != BOTH:
            ends, method = row[["curveball_low", "curveball_high"]], "central 95% of redraws"
            redrawn = one_row(row["curveball"], *ends, row["draws"], row["p"], method)
            found.append(((f"spearman_curveball_{kind_of(row['arch'])}", redrawn, 0.0), {}))
    return found


def _reliabilities(of: dict, score: str) -> list:
    """Reliability of one run, seeds needed, events, what architectures share, variance shares."""
    found = []
    for quantity, name in (("ICC(1)", "icc1"), (SEEDS, "seeds_needed")):
        rows = _of(of["reliability"], score=score, quantity=quantity, scale="midranks")
        for _, row in rows.iterrows():
            chance = 0.0 if name == "icc1" else math.nan
            found.append(((f"{name}_{kind_of(row['arch'])}", row, chance), {}))
    for arch, runs in of["shapes"].groupby("arch", sort=False):
        found.append(((f"events_per_run_{kind_of(arch)}", t_interval(runs["events"])), {}))
    for _, row in _of(of["cross"], score=score).iterrows():
        found.append((("spearman_disattenuated", row, 0.0), {}))
    for _, row in _of(of["variance"], score=score).iterrows():
        ends = row[["share_low", "share_high"]]
        share = one_row(row["share"], *ends, row["n"], math.nan, row["method"])
        found.append(((f"variance_share_{row['component']}", share), {}))
    return found


def _known(of: dict, score: str) -> list:
    """The positive control, at the largest planted reliability."""
    rows = _of(of["known"], measured_on="latent").sort_values("reliability").tail(1)
    return [
        (("spearman_of_known_reliability", row, 0.0), {"planted": row["planted"]})
        for _, row in rows.iterrows()
    ]
