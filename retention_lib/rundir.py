"""One run on disk: its settings, its samples, one Parquet file per epoch, and a checkpoint.

    <key>/config.json  samples.parquet  trace/epoch=000.parquet ...  heldout_logits.parquet
          metrics.jsonl  checkpoint.pt  done.json

Every file is written under a temporary name, flushed to the disk and renamed, so that a run killed
at any moment leaves whole files only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from retention_lib.config import SCHEMA_VERSION, RunConfig

#: What is recorded of a view: (epoch, sample) arrays of these three.
QUANTITIES = ("predicted", "loss", "margin")
VIEWS = ("clean", "online")
HALF_MAX = float(np.finfo(np.float16).max)


class RunDir:
    """A run directory being written or read.

    Parameters
    ----------
    folder : Path
        `<runs>/<key>`; need not exist before `create`.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def __repr__(self):
        return f"RunDir({self.folder.name}: {self.progress()})"

    @property
    def config(self) -> RunConfig:
        """Settings the run was started with."""
        return RunConfig.from_dict(self.header["config"])

    @property
    def header(self) -> dict:
        """`config.json`: config, identity, classes, schema version, fast-path choices."""
        return json.loads((self.folder / "config.json").read_text())

    @property
    def samples(self) -> pd.DataFrame:
        """Every sample, training and held-out, in the order of the trace files' rows."""
        return pd.read_parquet(self.folder / "samples.parquet")

    @property
    def is_done(self) -> bool:
        """True once every epoch is recorded."""
        return (self.folder / "done.json").is_file()

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per epoch: loss and accuracies of both splits, seconds."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return pd.DataFrame([json.loads(line) for line in lines])

    def progress(self) -> str:
        """`done`, `epoch t`, or `not started`."""
        if self.is_done:
            return "done"
        written = [int(f.stem[6:]) for f in (self.folder / "trace").glob("epoch=*.parquet")]
        return f"epoch {max(written)}" if written else "not started"

    def create(self, header: dict, samples: pd.DataFrame) -> dict:
        """Start the run, or resume it if the folder was started with the same settings.

        Returns
        -------
        dict
            The header in force. Fast-path choices (`choices`) of the first start are kept.

        Raises
        ------
        ValueError
            If the folder holds a run with other settings; the message says what differs.
        """
        header = {"schema": SCHEMA_VERSION, **header}
        if (self.folder / "config.json").is_file():
            stored = self.header
            was, now = _compared(stored), _compared(header)
            told = [
                f"{k}: stored {was.get(k)!r}, now {now.get(k)!r}"
                for k in sorted({*was, *now})
                if was.get(k) != now.get(k)
            ]
            if told:
                raise ValueError(
                    f"{self.folder} holds another run ({'; '.join(told)}). Move it away first."
                )
            return stored
        (self.folder / "trace").mkdir(parents=True, exist_ok=True)
        write_parquet(self.folder / "samples.parquet", pa.Table.from_pandas(samples))
        write_bytes(self.folder / "config.json", json.dumps(header, indent=1).encode())
        return header

    def epoch_file(self, epoch: int) -> Path:
        """Where an epoch's trace lies."""
        return self.folder / "trace" / f"epoch={epoch:03d}.parquet"

    def write_epoch(self, epoch: int, clean: dict, online: dict | None, shown: np.ndarray):
        """Write what was seen of every sample in one epoch.

        Parameters
        ----------
        clean : dict of ndarray (sample,)
            `predicted`, `loss` [nat], `margin` [logit] of all samples, both splits.
        online : dict of ndarray (sample,) or None
            The same from the training pass; read only where `shown` > 0.
        shown : ndarray of int, (sample,)
            How often each sample was presented in this epoch.
        """
        columns = {}
        for view, seen in (("clean", None), ("online", shown > 0)):
            values = clean if view == "clean" else online
            for name in QUANTITIES:
                columns[f"{view}_{name}"] = _column(name, values, seen, len(shown))
        columns["shown"] = pa.array(shown.astype(np.min_scalar_type(int(shown.max(initial=0)))))
        write_parquet(self.epoch_file(epoch), pa.table(columns))

    def write_metrics(self, row: dict):
        """Append one epoch's metrics; rows of epochs that are computed again are replaced."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if json.loads(line)["epoch"] < row["epoch"]]
        write_bytes(path, ("\n".join([*kept, json.dumps(row)]) + "\n").encode())

    def write_heldout_logits(self, logits: np.ndarray):
        """Keep the final logits (held-out sample, class) in half precision, for ensembles."""
        half = np.clip(logits, -HALF_MAX, HALF_MAX).astype(np.float16)
        columns = {f"class_{c:03d}": pa.array(half[:, c]) for c in range(half.shape[1])}
        write_parquet(self.folder / "heldout_logits.parquet", pa.table(columns))

    def save_checkpoint(self, state: dict):
        """Keep the state from which the run can go on."""
        path = self.folder / "checkpoint.pt"
        torch.save(state, path.with_suffix(".tmp"))
        _flush(path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def load_checkpoint(self) -> dict | None:
        """The last state kept, or None. Only tensors and plain values are unpickled."""
        path = self.folder / "checkpoint.pt"
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None

    def finish(self, done: dict):
        """Mark the run as done and delete its checkpoint."""
        write_bytes(self.folder / "done.json", json.dumps(done, indent=1).encode())
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)


def _compared(header: dict) -> dict:
    """What two starts of one run must share: no fast-path choices, no folder's path."""
    flat = {k: v for k, v in header.items() if k not in ("config", "choices")}
    flat |= {f"config.{k}": v for k, v in header.get("config", {}).items()}
    flat["config.dataset"] = str(flat.get("config.dataset")).partition(":")[0]
    return flat


def _column(name: str, values: dict | None, seen: np.ndarray | None, n: int) -> pa.Array:
    """One quantity as a column: half precision or the smallest unsigned type; null where unseen."""
    kind = np.uint8 if name == "predicted" else np.float16
    if values is None:
        return pa.nulls(n, pa.from_numpy_dtype(kind))
    value = values[name] if seen is None else values[name][seen]
    if name == "predicted":
        kind = np.min_scalar_type(int(value.max(initial=0)))
    else:
        value = np.clip(value, -HALF_MAX, HALF_MAX)
    if seen is None or seen.all():
        return pa.array(value.astype(kind))
    full = np.zeros(n, kind)
    full[seen] = value
    return pa.array(full, mask=~seen)


def write_parquet(path: Path, table: pa.Table):
    """Write a table as small as it goes: half floats split into byte streams, all else packed."""
    halves = [f.name for f in table.schema if pa.types.is_float16(f.type)]
    others = [f.name for f in table.schema if f.name not in halves]
    temporary = path.with_suffix(".tmp")
    pq.write_table(
        table,
        temporary,
        compression="zstd",
        compression_level=9,
        use_dictionary=others,
        column_encoding={name: "BYTE_STREAM_SPLIT" for name in halves},
        write_statistics=False,
        store_schema="config" not in path.name and not path.stem.startswith("epoch"),
    )
    _flush(temporary)
    os.replace(temporary, path)


def write_bytes(path: Path, content: bytes):
    """Write a whole file or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    _flush(temporary)
    os.replace(temporary, path)


def _flush(path: Path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
