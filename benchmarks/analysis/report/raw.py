"""All rounds of the layer's experiment as NumPy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.fields import AMOUNTS, OPTIONAL_AMOUNTS
from benchmarks.analysis.reading.records import Records

TEXTS = ("kernel", "mode", "phase", "device", "device_name", "dtype", "clock")
INTEGERS = ("batch", "heads", "head_dim", "seq_len", "embed_dim", "repetition", "run")
REASONS = ("outcome", "reason")


def save_raw(records: Records, path: Path) -> Path | None:
    """Write all rounds of the layer, and the ceilings beside them, as a NumPy archive without pickles.

    Arrays of equal length, one entry per timed round, in the order of the files:

    - `seconds` (float64): how long the round took;
    - `round` (int64): its number within its case and repetition, from 0;
    - `kernel`, `mode`, `phase`, `device`, `device_name`, `dtype`, `clock` (fixed-width text);
    - `batch`, `heads`, `head_dim`, `seq_len`, `embed_dim`, `repetition`, `run` (int64, -1 where a record does
      not hold it; `run` is the index of the file);
    - `flops`, `macs`, `min_bytes`, `peak_bytes`, `peak_rss_bytes`, `counted_flops`, `predicted_peak_bytes`
      (float64, NaN where a record does not hold it), of the round's case.

    The same names with `ceiling_` before them hold the rounds of the ceilings, and `left_out_` with the
    texts, the integers but `repetition` and `run`, and `left_out_outcome`, `left_out_reason` the cases of the
    layer that were not measured. Either group may be empty.

    Returns:
        The path; None, and no file, without a measured round of the layer.
    """
    rows = records.rows
    if rows.empty or not (rows["subject"] == "layer").any():
        return None
    arrays = _rounds(rows[rows["subject"] == "layer"])
    ceilings = _rounds(rows[rows["subject"] == "ceiling"])
    arrays |= {f"ceiling_{name}": array for name, array in ceilings.items()}
    gone = records.not_measured
    gone = gone[gone["subject"] == "layer"]
    arrays |= {f"left_out_{name}": _text(gone, name) for name in (*TEXTS, *REASONS)}
    arrays |= {f"left_out_{name}": _integers(gone, name) for name in INTEGERS[:-2]}
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return path


def _rounds(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    counts = [len(seconds) for seconds in rows["seconds"]]
    columns: dict[str, np.ndarray] = {name: _text(rows, name) for name in TEXTS}
    columns |= {name: _integers(rows, name) for name in INTEGERS}
    columns |= {name: _column(rows, name).to_numpy(dtype=float) for name in (*AMOUNTS, *OPTIONAL_AMOUNTS)}
    return {
        "seconds": np.concatenate([np.empty(0), *rows["seconds"]]),
        "round": np.concatenate([np.empty(0, int), *map(np.arange, counts)]),
        **{name: np.repeat(column, counts) for name, column in columns.items()},
    }


def _column(rows: pd.DataFrame, name: str) -> pd.Series[Any]:
    column = rows[name] if name in rows else pd.Series(np.nan, rows.index)
    return pd.to_numeric(column).astype(float)


def _integers(rows: pd.DataFrame, name: str) -> np.ndarray:
    return _column(rows, name).fillna(-1).to_numpy(dtype=np.int64)


def _text(rows: pd.DataFrame, name: str) -> np.ndarray:
    return np.array(rows[name].fillna("").to_list(), dtype=np.str_)
