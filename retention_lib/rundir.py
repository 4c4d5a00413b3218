"""One run on disk: its settings, its samples, one Parquet file per epoch, and a checkpoint.

    <key>/config.json  samples.parquet  trace/epoch=000.parquet ...  heldout_logits.parquet
          metrics.jsonl  checkpoint.pt  done.json

Every file is written under a temporary name, flushed to the disk and renamed, so that a run killed
at any moment leaves whole files only. The checksums of what was written lie in the checkpoint, then
in `done.json`: a file that changed afterwards is never taken for a trace.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from retention_lib.columns import as_half, column, to_parquet
from retention_lib.config import SCHEMA_VERSION, RunConfig
from retention_lib.lock import digest, flush_folder, is_whole_zip, whole_file

#: What is recorded of a view: (epoch, sample) arrays of these three.
QUANTITIES = ("predicted", "loss", "margin")
VIEWS = ("clean", "online")
REPAIR = "Put back a copy of it, or move the run's folder away and capture the run again."


class RunDir:
    """A run directory being written or read.

    Parameters
    ----------
    folder : Path
        `<runs>/<key>`; need not exist before `create`.

    Attributes
    ----------
    checksums : dict of str to str
        Of the files written so far, by their path below the folder.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.checksums: dict[str, str] = {}

    def __repr__(self):
        return f"RunDir({self.folder.name}: {self.progress()})"

    @property
    def config(self) -> RunConfig:
        """Settings the run was started with."""
        return RunConfig.from_dict(self.header["config"])

    @property
    def header(self) -> dict:
        """`config.json`: config, identity, classes, schema version, fast-path choices."""
        return self._json("config.json")

    @property
    def done(self) -> dict:
        """`done.json`: how the run was made, and the checksums of its files."""
        return self._json("done.json")

    @property
    def samples(self) -> pd.DataFrame:
        """Every sample, training and held-out, in the order of the trace files' rows."""
        return self.table("samples.parquet").to_pandas()

    @property
    def is_done(self) -> bool:
        """True once every epoch is recorded."""
        return (self.folder / "done.json").is_file()

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per epoch: loss and accuracies of both splits, seconds."""
        rows, broken = self._metric_rows()
        if broken:
            path = self.folder / "metrics.jsonl"
            raise ValueError(f"{path} is damaged in line {broken[0]}. {REPAIR}")
        return pd.DataFrame(rows)

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
        if started := (self.folder / "config.json").is_file():
            header, wanted = self.header, header
            told = _differences(_compared(header), _compared(wanted)) + self._other_images(samples)
            if told:
                raise ValueError(
                    f"{self.folder} holds another run ({'; '.join(told)}). Move it away first."
                )
        (self.folder / "trace").mkdir(parents=True, exist_ok=True)
        self._write_table("samples.parquet", pa.Table.from_pandas(samples))
        if not started:
            self._write("config.json", json.dumps(header, indent=1).encode())
        flush_folder(self.folder)
        return header

    def tidy(self) -> None:
        """Remove what a killed process left: half-written files, the checkpoint of a done run."""
        for file in self.leftovers():
            file.unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """What `tidy` would remove; only who holds the run's lock may."""
        found = [*self.folder.glob("*.tmp"), *self.folder.glob("trace/*.tmp")]
        checkpoint = self.folder / "checkpoint.pt"
        return [*found, checkpoint] if self.is_done and checkpoint.exists() else found

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
                columns[f"{view}_{name}"] = column(name, values, seen, len(shown))
        columns["shown"] = pa.array(shown.astype(np.min_scalar_type(int(shown.max(initial=0)))))
        self._write_table(f"trace/{self.epoch_file(epoch).name}", pa.table(columns))

    def write_metrics(self, row: dict):
        """Append one epoch's metrics; rows of epochs that are computed again are replaced."""
        kept = [old for old in self._metric_rows()[0] if old["epoch"] < row["epoch"]]
        lines = [json.dumps(one) + "\n" for one in [*kept, row]]
        self._write("metrics.jsonl", "".join(lines).encode())

    def write_heldout_logits(self, logits: np.ndarray):
        """Keep the final logits (held-out sample, class) in half precision, for ensembles."""
        half = as_half(logits)
        columns = {f"class_{c:03d}": pa.array(half[:, c]) for c in range(half.shape[1])}
        self._write_table("heldout_logits.parquet", pa.table(columns))

    def save_checkpoint(self, state: dict):
        """Keep the state from which the run can go on, and the checksums of what it stands on."""
        self._flush_folders()  # an epoch it counts as written must not be lost in a power cut
        with whole_file(self.folder / "checkpoint.pt") as file:
            torch.save({**state, "made": self._made(), "checksums": self.checksums}, file)

    def load_checkpoint(self) -> dict | None:
        """The last state kept, or None. Only tensors and plain values are unpickled.

        Raises
        ------
        ValueError
            If the file is damaged, or was written for another run or by another version.
        UnpicklingError
            If it holds anything else, which may be code.
        """
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return None
        if not is_whole_zip(path):  # torch itself does not look
            raise ValueError(f"{path} is damaged.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise UnpicklingError(
                f"{path} was not written by this library; delete it to start again ({error})"
            ) from error
        except RuntimeError as error:
            raise ValueError(f"{path} is no checkpoint ({error}).") from error
        made = state.get("made") if isinstance(state, dict) else None
        if made != self._made():
            raise ValueError(f"{path} was made by {made}, this is {self._made()}.")
        return state

    def resumable(self) -> dict | None:
        """The last state kept if all that it stands on is whole, else None, with a warning."""
        try:
            state = self.load_checkpoint()
            if state is not None:
                self._require_whole(state["epoch"], state["checksums"])
                self.checksums |= state["checksums"]
            return state
        except ValueError as error:
            warnings.warn(f"{error} The run starts again from epoch 0.", stacklevel=2)
            return None

    def finish(self, done: dict):
        """Mark the run as done and delete its checkpoint."""
        self._flush_folders()
        done = {**done, "checksums": self.checksums} if self.checksums else done
        self._write("done.json", json.dumps(done, indent=1).encode())
        flush_folder(self.folder)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def table(self, name: str, rows: int | None = None) -> pa.Table:
        """Read a Parquet file of the run; a finished run's is compared with its checksum.

        Raises
        ------
        ValueError
            Names the file, if it is missing, damaged, not of that many rows, or not the one that
            was written.
        """
        path = self.folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: the run directory is not whole. {REPAIR}")
        content = path.read_bytes()
        try:
            table = pq.read_table(pa.BufferReader(content))
        except (pa.ArrowException, OSError, ValueError) as error:
            told = " ".join(str(error).split())  # arrow ends its lines
            raise ValueError(f"{path} is damaged ({told}). {REPAIR}") from error
        if rows is not None and len(table) != rows:
            raise ValueError(f"{path} has {len(table)} rows, expected {rows}, one per sample")
        # Runs of before they were kept have none.
        checksum = self.done.get("checksums", {}).get(name) if self.is_done else None
        if checksum is not None and digest(content) != checksum:
            told = f"its checksum is {digest(content)}, expected {checksum}"
            raise ValueError(f"{path} is damaged ({told}). {REPAIR}")
        return table

    def _other_images(self, samples: pd.DataFrame) -> list[str]:
        """Say so if a file of the data set has other contents than when the run was started."""
        try:
            was = self.samples.set_index("sample_id")["content_hash"]
        except ValueError:  # damaged: written again, from images whose identity is the same
            return []
        now = samples.set_index("sample_id")["content_hash"]
        changed = now.index[was.reindex(now.index).to_numpy() != now.to_numpy()]
        return [f"contents of {len(changed)} images, first {changed[0]!r}"] if len(changed) else []

    def _write_table(self, name: str, table: pa.Table) -> None:
        content = to_parquet(table, store_schema=not name.startswith("trace"))
        self.checksums[name] = digest(content)
        self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        with whole_file(self.folder / name) as file:
            file.write(content)

    def _json(self, name: str) -> dict:
        path = self.folder / name
        try:
            return dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}). {REPAIR}") from error

    def _metric_rows(self) -> tuple[list[dict], list[int]]:
        """Rows of `metrics.jsonl`, and the numbers of the lines that are none."""
        path, rows, broken = self.folder / "metrics.jsonl", [], []
        lines = path.read_bytes().splitlines() if path.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                row["epoch"]
                rows.append(row)
            except (ValueError, TypeError, KeyError):
                broken.append(number)
        return rows, broken

    def _flush_folders(self) -> None:
        flush_folder(self.folder / "trace")
        flush_folder(self.folder)

    def _made(self) -> dict[str, str | int]:
        """What a checkpoint must agree in: run, schema, and torch, whose arithmetic may change."""
        config = self.folder / "config.json"
        run = digest(config.read_bytes()) if config.is_file() else ""
        return {"schema": SCHEMA_VERSION, "torch": str(torch.__version__), "config": run}

    def _require_whole(self, last: int, checksums: dict[str, str]) -> None:
        """Raise a ValueError unless the epochs up to the last are as they were written."""
        for epoch in range(last + 1):
            path = self.epoch_file(epoch)
            content = path.read_bytes() if path.is_file() else b""
            if digest(content) != checksums.get(f"trace/{path.name}"):
                raise ValueError(f"{path} is {'damaged' if content else 'missing'}.")
        rows, broken = self._metric_rows()
        if broken or not {*range(last + 1)} <= {row["epoch"] for row in rows}:
            raise ValueError(f"{self.folder / 'metrics.jsonl'} is damaged.")


def _differences(was: dict, now: dict) -> list[str]:
    """What differs between two headers, in words."""
    return [
        f"{k}: stored {was.get(k)!r}, now {now.get(k)!r}"
        for k in sorted({*was, *now})
        if was.get(k) != now.get(k)
    ]


def _compared(header: dict) -> dict:
    """What two starts of one run must share: no fast-path choices, no folder's path."""
    flat = {k: v for k, v in header.items() if k not in ("config", "choices")}
    flat |= {f"config.{k}": v for k, v in header.get("config", {}).items()}
    flat["config.dataset"] = str(flat.get("config.dataset")).partition(":")[0]
    return flat
