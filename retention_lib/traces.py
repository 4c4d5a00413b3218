"""The aligned cube of runs: the same samples, in the same order, over runs and epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from retention_lib.data.imageset import SPLITS
from retention_lib.rundir import QUANTITIES, VIEWS, RunDir

#: Columns of `Traces.runs`, all of them fields of RunConfig or the key.
RUN_COLUMNS = ("dataset", "arch", "seed", "sampler")


@dataclass(frozen=True)
class Traces:
    """What was recorded of one split's samples in several runs.

    Attributes
    ----------
    samples : DataFrame
        One row per sample, the columns of `samples.parquet`.
    runs : DataFrame
        One row per run: dataset, arch, seed, sampler, key.
    epochs : ndarray, (epoch,)
        0 (after the head warm-up) to E.
    clean, online : dict of ndarray, (run, epoch, sample)
        `predicted` (int32, -1 where not shown), `loss` [nat] and `margin` [logit] (float16, NaN
        where not shown). The online view has no epoch 0 and no held-out samples.
    classes : tuple of str
    """

    samples: pd.DataFrame
    runs: pd.DataFrame
    epochs: np.ndarray
    clean: dict[str, np.ndarray]
    online: dict[str, np.ndarray]
    classes: tuple[str, ...] = ()

    @classmethod
    def from_runs(cls, folders, split: str = "train") -> Traces:
        """Read and align finished runs of one data set.

        Parameters
        ----------
        folders : sequence of Path
            Run directories.
        split : str
            `train`, or `val` for the held-out samples, which nothing was ever learned from.

        Raises
        ------
        ValueError
            If there is no run, a run is unfinished, or two runs differ in data set, split or
            number of epochs (the message names both values); if a file is missing, damaged or
            not the one that was written (the message names it).
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        dirs = [RunDir(f) for f in folders]
        if not dirs:
            raise ValueError("Traces.from_runs needs at least one run directory, got none")
        for one in dirs:
            if not one.is_done:
                raise ValueError(f"run {one.folder.name} is not finished ({one.progress()})")
        headers = [d.header for d in dirs]
        first = headers[0]
        for one, header in zip(dirs, headers, strict=True):
            _require_same(first["identity"], header["identity"], "data set and split", dirs[0], one)
            _require_same(
                first["config"]["epochs"], header["config"]["epochs"], "epochs", dirs[0], one
            )
        samples = dirs[0].samples
        for one in dirs[1:]:  # equal identities promise this; a shuffled file would break it
            _require_same_order(samples["sample_id"], one.samples["sample_id"], dirs[0], one)
        rows = np.flatnonzero(samples["split"].to_numpy() == split)
        epochs = np.arange(first["config"]["epochs"] + 1)
        views = {view: _allocate(len(dirs), len(epochs), len(rows)) for view in VIEWS}
        for r, one in enumerate(dirs):
            for t in epochs:
                table = one.table(f"trace/{one.epoch_file(t).name}", len(samples))
                _fill(views, (r, t), table, rows, one)
        runs = pd.DataFrame([{c: h["config"][c] for c in RUN_COLUMNS} for h in headers])
        runs["key"] = [d.folder.name for d in dirs]
        samples = samples.iloc[rows].reset_index(drop=True)
        return cls(samples, runs, epochs, views["clean"], views["online"], tuple(first["classes"]))

    @property
    def labels(self) -> np.ndarray:
        """Observed label of every sample, (sample,)."""
        return self.samples["label"].to_numpy()

    def predicted(self, view: str = "clean") -> np.ndarray:
        """Predicted class, (run, epoch, sample); -1 where not shown."""
        return self._view(view)["predicted"]

    def correct(self, view: str = "clean") -> np.ndarray:
        """Whether the predicted class is the label, (run, epoch, sample); False where not shown."""
        return self.predicted(view) == self.labels

    def shown(self, view: str = "clean") -> np.ndarray:
        """Whether the view has the sample in that epoch, (run, epoch, sample)."""
        return self.predicted(view) >= 0

    def loss(self, view: str = "clean") -> np.ndarray:
        """Cross-entropy [nat], float32 (run, epoch, sample); NaN where not shown."""
        return self._view(view)["loss"].astype(np.float32)

    def margin(self, view: str = "clean") -> np.ndarray:
        """Logit of the label minus the best other [logit], float32 (run, epoch, sample)."""
        return self._view(view)["margin"].astype(np.float32)

    def select(self, **columns) -> Traces:
        """Keep the runs whose columns have the given values; a ValueError if none has."""
        keep = np.ones(len(self.runs), bool)
        for name, value in columns.items():
            if name not in self.runs:
                raise ValueError(f"runs have no column {name!r}; they have {list(self.runs)}")
            keep &= self.runs[name].isin(np.atleast_1d(value)).to_numpy()
        if not keep.any():
            raise ValueError(f"no run has {columns}; the runs are\n{self.runs}")
        views = {v: {q: a[keep] for q, a in self._view(v).items()} for v in VIEWS}
        return replace(self, runs=self.runs[keep].reset_index(drop=True), **views)

    def _view(self, view: str) -> dict[str, np.ndarray]:
        if view not in VIEWS:
            raise ValueError(f"view must be one of {VIEWS}, got {view!r}")
        return self.clean if view == "clean" else self.online


def _allocate(runs: int, epochs: int, samples: int) -> dict[str, np.ndarray]:
    shape = (runs, epochs, samples)
    kinds = {
        "predicted": (np.int32, -1),
        "loss": (np.float16, np.nan),
        "margin": (np.float16, np.nan),
    }
    return {name: np.full(shape, fill, kind) for name, (kind, fill) in kinds.items()}


def _fill(views: dict, at: tuple[int, int], table: pa.Table, rows: np.ndarray, run: RunDir) -> None:
    """Put what one epoch's table says of some samples in its place in the cube."""
    wanted = {f"{view}_{name}" for view in VIEWS for name in QUANTITIES}
    if not wanted <= {*table.column_names}:
        path = run.epoch_file(at[1])
        raise ValueError(f"{path} has columns {table.column_names}, expected {sorted(wanted)}")
    for view in VIEWS:
        for name in QUANTITIES:
            column = table.column(f"{view}_{name}").combine_chunks()
            if column.null_count == len(column):
                continue
            seen = ~np.asarray(column.is_null())[rows] if column.null_count else slice(None)
            value = np.asarray(column.fill_null(0) if column.null_count else column)[rows]
            views[view][name][at][seen] = value[seen]


def _require_same(expected, got, what: str, first: RunDir, other: RunDir) -> None:
    if expected != got:
        raise ValueError(
            f"runs differ in {what} and cannot be aligned: {first.folder.name} has {expected!r}, "
            f"{other.folder.name} has {got!r}"
        )


def _require_same_order(expected: pd.Series, got: pd.Series, first: RunDir, other: RunDir) -> None:
    _require_same(len(expected), len(got), "number of samples", first, other)
    for i in np.flatnonzero(expected.to_numpy() != got.to_numpy())[:1]:
        _require_same(expected[i], got[i], f"sample_id of row {i}", first, other)
