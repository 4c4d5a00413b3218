"""What was seen of every sample as Parquet columns, as small as they go."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HALF_MAX = float(np.finfo(np.float16).max)


def as_half(values: np.ndarray) -> np.ndarray:
    """Half precision; what is beyond its range is clipped to it."""
    return np.clip(values, -HALF_MAX, HALF_MAX).astype(np.float16)


def column(name: str, values: dict | None, seen: np.ndarray | None, n: int) -> pa.Array:
    """One quantity as a column: half precision or the smallest unsigned type; null where unseen.

    Parameters
    ----------
    name : str
        `predicted`, `loss` [nat] or `margin` [logit].
    values : dict of ndarray (sample,), or None if there was no such pass
    seen : bool, (sample,), or None for all
    n : int
        Samples.
    """
    if values is None:
        kind = np.uint8 if name == "predicted" else np.float16
        return pa.nulls(n, pa.from_numpy_dtype(kind))
    value = values[name] if seen is None else values[name][seen]
    if name == "predicted":
        value = value.astype(np.min_scalar_type(int(value.max(initial=0))))
    else:
        value = as_half(value)
    if seen is None or seen.all():
        return pa.array(value)
    full = np.zeros(n, value.dtype)
    full[seen] = value
    return pa.array(full, mask=~seen)


def to_parquet(table: pa.Table, store_schema: bool = True) -> bytes:
    """A table as small as it goes: half floats split into byte streams, all else packed."""
    halves = [f.name for f in table.schema if pa.types.is_float16(f.type)]
    others = [f.name for f in table.schema if f.name not in halves]
    stream = pa.BufferOutputStream()
    pq.write_table(
        table,
        stream,
        compression="zstd",
        compression_level=9,
        use_dictionary=others,
        column_encoding={name: "BYTE_STREAM_SPLIT" for name in halves},
        write_statistics=False,
        store_schema=store_schema,
    )
    return stream.getvalue().to_pybytes()
