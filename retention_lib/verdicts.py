"""The paper's numbers, the rule that judges ours, and what one finding must look like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

REPRODUCED, UNDECIDED, DIRECTION = "reproduced", "undecided", "same direction"
NOT_REPRODUCED, NOT_TESTED = "not reproduced", "not tested at this scale"
INSTRUMENT = "instrument check"
VERDICTS = (REPRODUCED, UNDECIDED, DIRECTION, NOT_REPRODUCED, NOT_TESTED, INSTRUMENT)
#: `paper`: the paper's data and architectures; `reduced`: smaller ones; `phantom`: drawn data.
SCALES = ("paper", "reduced", "phantom")
_TEXT, _NUMBER = ("finding", "dataset", "quantity"), ("estimate", "ci_low", "ci_high", "p")
_LEVELS = ("chance", "ceiling", "planted", "tolerance")
#: Keys of one finding, in the order they are written.
FINDING = (*_TEXT, *_NUMBER[:3], "n", "p", "method", *_LEVELS[:3], "paper", "tolerance", "verdict")
#: Keys of a result file.
RESULT = ("notebook", "profile", "producer", "commit", "runs", "versions", "findings")


@dataclass(frozen=True)
class PaperValue:
    """One number of the paper, with how close an estimate must come to count as the same.

    `value` is a number or a (low, high) range; `null` is what no effect would give (NaN: the chance
    level of the comparison itself); `tolerance` is the largest half-width of our interval.
    """

    value: float | tuple[float, float]
    tolerance: float
    null: float
    text: str


_OVERLAP = "most forgotten 10 %, two architectures: Jaccard"
_EARLY = "early loss and decay constant: Spearman"
#: The paper's numbers (arXiv 2604.11508, abstract) by (finding, dataset, quantity); `*` stands for
#: any data set, where the abstract does not tell them apart. Tolerances fixed on 2026-11-21.
PAPER = {
    ("architecture_overlap", "octdl", "jaccard"): PaperValue(0.34, 0.05, math.nan, _OVERLAP),
    ("architecture_overlap", "cub", "jaccard"): PaperValue(0.15, 0.05, math.nan, _OVERLAP),
    ("decay_structure", "*", "r2_vit"): PaperValue(0.74, 0.05, 0.0, "decay fit: mean R² of ViT"),
    ("decay_structure", "*", "r2_cnn"): PaperValue(0.52, 0.05, 0.0, "decay fit: mean R² of CNN"),
    ("decay_structure", "*", "r2_difference"): PaperValue(
        0.22, 0.05, 0.0, "decay fit: mean R² of ViT minus CNN"
    ),
    ("seed_stability", "*", "spearman"): PaperValue(
        0.01, 0.05, 0.0, "forgetting, seed against seed: Spearman"
    ),
    ("early_loss", "*", "spearman"): PaperValue((0.30, 0.50), 0.05, 0.0, _EARLY),
}


def paper_value(finding: str, dataset: str, quantity: str) -> PaperValue | None:
    """The paper's number for a quantity on a real data set; None for phantoms and all else."""
    if dataset.startswith("phantom"):
        return None
    specific = PAPER.get((finding, dataset, quantity))
    return specific or (
        PAPER.get((finding, "*", quantity)) if dataset in ("octdl", "cub") else None
    )


def verdict(
    estimate: float,
    ci_low: float,
    ci_high: float,
    paper: float | tuple[float, float] | None,
    tolerance: float,
    scale: str,
    null: float = math.nan,
) -> str | None:
    """The fixed rule that sets an estimate beside the paper's value.

    Parameters
    ----------
    estimate, ci_low, ci_high : float
    paper : float, (low, high) or None
        A range counts as inside if any of it is inside the interval.
    tolerance : float
        Largest half-width of the interval that still decides.
    scale : {"paper", "reduced", "phantom"}
    null : float
        What no effect would give: chance level or 0. NaN: direction cannot be judged.

    Returns
    -------
    str or None
        `instrument check` for phantoms, whatever the numbers; `not tested at this scale` for
        reduced data or networks; None if the paper has no value; `undecided` without an interval.
        Else: inside and half-width below tolerance, `reproduced`; inside but wider, `undecided`;
        outside with the whole interval on the paper's side of `null`, `same direction`; otherwise
        `not reproduced`.

    Examples
    --------
    >>> verdict(0.33, 0.30, 0.36, paper=0.34, tolerance=0.05, scale="paper")
    'reproduced'
    >>> verdict(0.22, 0.19, 0.25, paper=0.34, tolerance=0.05, scale="paper", null=0.053)
    'same direction'
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {SCALES}, got {scale!r}")
    if scale == "phantom":
        return INSTRUMENT
    if paper is None:
        return None
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance!r}")
    if scale == "reduced":
        return NOT_TESTED
    if not all(map(math.isfinite, (estimate, ci_low, ci_high))):
        return UNDECIDED
    if ci_low > ci_high:
        raise ValueError(f"ci_low must not exceed ci_high, got {ci_low!r} > {ci_high!r}")
    low, high = paper if isinstance(paper, tuple | list) else (paper, paper)
    if ci_low <= high and low <= ci_high:
        return REPRODUCED if (ci_high - ci_low) / 2 < tolerance else UNDECIDED
    same = (ci_low > null and low > null) or (ci_high < null and high < null)
    return DIRECTION if same else NOT_REPRODUCED


def record(
    finding: str,
    dataset: str,
    quantity: str,
    row: pd.DataFrame | pd.Series,
    chance: float = math.nan,
    ceiling: float = math.nan,
    planted: float = math.nan,
    scale: str | None = None,
) -> dict:
    """One finding for `save_result`: a one-row result with its levels, the paper and a verdict.

    Parameters
    ----------
    finding, dataset, quantity : str
        A key of `PAPER`, or new names for what the paper does not report.
    row : DataFrame of one row, or Series
        `estimate, ci_low, ci_high, n, p, method`.
    chance, ceiling, planted : float
        Chance level, noise ceiling, planted truth; NaN where there is none.
    scale : str, optional
        One of `SCALES`; default `phantom` for phantoms, else `paper`.
    """
    if isinstance(row, pd.DataFrame):
        if len(row) != 1:
            raise ValueError(f"{finding}/{quantity}: row must have one row, got {len(row)}")
        row = row.iloc[0]
    scale = scale or ("phantom" if dataset.startswith("phantom") else "paper")
    known = paper_value(finding, dataset, quantity)
    value, tolerance = (known.value, known.tolerance) if known else (None, math.nan)
    null = chance if known is None or math.isnan(known.null) else known.null
    found = {"finding": finding, "dataset": dataset, "quantity": quantity}
    found |= {key: row[key] for key in ("estimate", "ci_low", "ci_high", "n", "p", "method")}
    found |= {"chance": chance, "ceiling": ceiling, "planted": planted}
    judged = verdict(*(row[k] for k in _NUMBER[:3]), value, tolerance, scale, null)
    return found | {"paper": value, "tolerance": tolerance, "verdict": judged}


def check(result: dict, path: Path) -> None:
    """Raise a ValueError naming the key where a result (made by `path`) breaks the schema."""
    _check_keys(result, RESULT, str(path))
    for key in ("notebook", "profile", "producer"):
        _expect(isinstance(result[key], str), path, key, result[key], "text")
    for key, kind in (("runs", list), ("versions", dict), ("findings", list)):
        _expect(isinstance(result[key], kind), path, key, result[key], f"a {kind.__name__}")
    _expect(result["commit"] is None or isinstance(result["commit"], str), path, "commit",
            result["commit"], "text or null")  # fmt: skip
    for number, found in enumerate(result["findings"]):
        where = f"{path}: findings[{number}]"
        _check_keys(found, FINDING, where)
        for key in (*_TEXT, "method"):
            _expect(
                isinstance(found[key], str) and found[key] != "", where, key, found[key], "text"
            )
        for key in (*_NUMBER, *_LEVELS):
            good = found[key] is None or (_is_number(found[key]) and math.isfinite(found[key]))
            _expect(good, where, key, found[key], "a finite number or null")
        n, p, paper = found["n"], found["p"], found["paper"]
        _expect(type(n) is int and n >= 0, where, "n", n, "a whole number >= 0")
        _expect(p is None or 0 <= p <= 1, where, "p", p, "in 0..1")
        low, high = found["ci_low"], found["ci_high"]
        _expect((low is None) == (high is None), where, "ci_low", low, "given or null as ci_high")
        _expect(low is None or low <= high, where, "ci_low", low, f"<= ci_high = {high}")
        ranged = isinstance(paper, list) and len(paper) == 2 and all(map(_is_number, paper))
        _expect(paper is None or _is_number(paper) or ranged, where, "paper", paper,
                "a number, [low, high] or null")  # fmt: skip
        phantom, judged = found["dataset"].startswith("phantom"), found["verdict"]
        allowed = (INSTRUMENT,) if phantom else (None, *VERDICTS[:-1])
        _expect(judged in allowed, where, "verdict", judged, f"one of {allowed}")
        _expect(not phantom or paper is None, where, "paper", paper, "null for a phantom")


def _check_keys(given, wanted: tuple[str, ...], where: str) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{where}: must be an object with {list(wanted)}, got {given!r}")
    for key in wanted:
        if key not in given:
            raise ValueError(f"{where}: key {key!r} is missing; it has {list(given)}")
    for key in given:
        if key not in wanted:
            raise ValueError(f"{where}: key {key!r} is not known; known are {list(wanted)}")


def _expect(holds: bool, where, key: str, value, expected: str) -> None:
    if not holds:
        raise ValueError(f"{where}: {key!r} must be {expected}, got {value!r}")


def _is_number(value) -> bool:
    return type(value) in (int, float)
