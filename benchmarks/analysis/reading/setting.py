"""The setting of a measurement: what two of them must agree in to be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import pandas as pd

from benchmarks.analysis.reading.fields import CEILING
from benchmarks.analysis.serialization import FLAT

Row: TypeAlias = "Mapping[Any, Any] | pd.Series[Any]"


@dataclass(frozen=True)
class Setting:
    """Everything that decides a measurement, but its kernel and its length.

    Attributes:
        subject: One of `fields.SUBJECTS`.
        mode: "bidirectional" or "causal".
        phase: "forward", "forward_backward", "prefill" or "decode".
        device: "cpu" or "cuda".
        device_name: The name that the device gives itself; empty where no record tells it.
        machine: Short name of the machine; empty where all runs are of one.
        dtype: Name of the dtype of the inputs.
        clock: "device" or "wall"; empty where no record tells it.
        batch: Sequences in a batch.
        heads: Heads of each sequence.
        head_dim: Width of a query and a key.
        value_dim: Width of a value.
        kv_heads: Heads of keys and values of each sequence; as many as heads unless given.
        query_len: Queries of each sequence, in a decode its new tokens; None where they are as many as keys.
        ranks: Processes that share each sequence; None of what one process measured by itself.

    Records of attention hold all of them; ceilings and other families may lack any but `subject` and
    `machine`, which then is None.
    """

    subject: str
    mode: str | None
    phase: str | None
    device: str | None
    device_name: str | None
    machine: str
    dtype: str | None
    clock: str | None
    batch: int | None
    heads: int | None
    head_dim: int | None
    value_dim: int | None
    kv_heads: int | None = None
    query_len: int | None = None
    ranks: int | None = None

    def __post_init__(self) -> None:
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)

    @property
    def is_attention(self) -> bool:
        """Whether it is one of attention: no ceiling's, and with a mode."""
        return self.subject != CEILING and self.mode is not None

    @classmethod
    def of(cls, row: Row) -> Setting:
        """The setting of a row, which holds all of these fields; NaN and NA become None."""
        known: dict[str, Any] = {name: row[name] for name in SETTING if not pd.isna(row[name])}
        integers = {name: int(known[name]) for name in SHAPE if name in known}
        return cls(**{**dict.fromkeys(SETTING), **known, **integers})


SETTING = tuple(field.name for field in fields(Setting))
"""The names of these fields, which are columns of every table of rows."""
SHAPE = ("batch", "heads", "head_dim", "value_dim", "kv_heads", "query_len", "ranks")
"""The fields that are integers."""

SERIES = ("kernel", "family", *SETTING)
"""Fields in which the rows of one series agree: everything but the length."""
CASE = (*SERIES, "seq_len")
"""Fields in which the rows of one case agree."""


@dataclass(frozen=True)
class Case:
    """One measured point: a kernel in a setting, at a length."""

    kernel: str
    family: str
    setting: Setting = field(metadata=FLAT)
    seq_len: int | None

    @classmethod
    def of(cls, row: Row) -> Case:
        """The case of a row, which holds the fields of `CASE`."""
        length: Any = row["seq_len"]
        known = None if pd.isna(length) else int(length)
        return cls(str(row["kernel"]), str(row["family"]), Setting.of(row), known)


def by_setting(rows: pd.DataFrame) -> Iterator[tuple[Setting, pd.DataFrame]]:
    """The rows of each setting, in the order of its fields."""
    for group in _groups(rows, SETTING):
        yield Setting.of(group.iloc[0]), group


def by_series(rows: pd.DataFrame) -> Iterator[tuple[str, str, Setting, pd.DataFrame]]:
    """Kernel, family, setting and rows of each series, in the order of these fields."""
    for group in _groups(rows, SERIES):
        first = group.iloc[0]
        yield str(first["kernel"]), str(first["family"]), Setting.of(first), group


def _groups(rows: pd.DataFrame, names: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The rows that agree in these columns, by those of them that differ: each takes pandas its time."""
    # Without rows there may be no columns either.
    varying = [name for name in names if len(rows) > 1 and rows[name].nunique(dropna=False) > 1]
    if varying:
        yield from (group for _, group in rows.groupby(varying, dropna=False))
    elif len(rows):
        yield rows


def attention(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of attention: no ceilings, and none that lack a mode or a length."""
    if rows.empty:
        return rows
    apart = (rows["subject"] == CEILING) | (rows["family"] == CEILING)
    return rows[~apart & rows["mode"].notna() & rows["seq_len"].notna()]
