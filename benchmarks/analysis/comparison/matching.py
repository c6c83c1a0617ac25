"""The parts of two sets of runs that may be compared: equal cases on one machine, in which units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pandas as pd

from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.machines import machine_names
from benchmarks.analysis.reading.records import Records
from benchmarks.analysis.reading.roles import USUAL, Roles
from benchmarks.analysis.reading.run_info import RunInfo, moment
from benchmarks.analysis.reading.setting import CASE, Case

PLACE = ("machine", "device", "clock")
"""Fields of the rows that share their noise."""
ANYWHERE = tuple(field for field in CASE if field not in ("machine", "device_name", "clock"))
"""Fields of a case, wherever and by whatever clock it is measured."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        rows: Those of the records, with `case` and `asked`, what is equal in rows of the same case, and in
            rows that differ in machine or clock at most; `machine` has the same name on both sides.
        left_out: The cases not measured, with the same columns.
        runs: What the records say of each file.
    """

    rows: pd.DataFrame
    left_out: pd.DataFrame
    runs: Sequence[RunInfo]


@dataclass(frozen=True)
class Stratum:
    """The rows of both sides that one device of one machine measured by one clock.

    `unit` is "pair", "run" or, where a side has one run only and so has the other, "repetition"; both frames
    have it as a number in their column of that name. A pair has the same number on both sides. `roles` say
    which kernels are compared with which.
    """

    base: pd.DataFrame
    head: pd.DataFrame
    unit: str
    roles: Roles = USUAL

    @property
    def paired(self) -> bool:
        """Whether the units of both sides belong together one by one."""
        return self.unit == "pair"

    def cases(self) -> dict[str, tuple[str, Case]]:
        """Key and fields of each case of the head, by the name that equal cases of both sides share."""
        first = self.head.drop_duplicates("case")
        return {row["case"]: (str(row["key"]), Case.of(row)) for row in first.to_dict("records")}

    def aligned(self, base: pd.DataFrame, head: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The common columns of two tables of one row per unit; paired, also their common rows."""
        columns = base.columns.intersection(head.columns, sort=False)
        base, head = base[columns].dropna(how="all"), head[columns].dropna(how="all")
        base, head = self.shared([base, head])
        return base, head

    def shared(self, tables: Sequence[pd.DataFrame]) -> Sequence[pd.DataFrame]:
        """Tables of one row per unit; paired, the rows alone of the units that all of them hold."""
        if not self.paired:
            return tables
        units = reduce(lambda common, index: common.intersection(index), (table.index for table in tables))
        return [table.loc[units] for table in tables]


def sides(base: Records, head: Records) -> tuple[Side, Side]:
    """Both sides, in which equal cases and machines have equal names."""
    names = machine_names([run.machine for run in (*base.runs, *head.runs)])
    return _side(base, names[: len(base.runs)]), _side(head, names[len(base.runs) :])


def _side(records: Records, names: Sequence[str]) -> Side:
    named = dict(zip(machine_names([run.machine for run in records.runs]), names, strict=True))
    frames = [
        frame.assign(machine=frame["machine"].map(named)).pipe(_identify) if len(frame) else frame
        for frame in (records.rows, records.not_measured)
    ]
    return Side(frames[0], frames[1], records.runs)


def _identify(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{
        name: ["|".join(map(str, fields)) for fields in frame[list(columns)].itertuples(index=False)]
        for name, columns in (("case", CASE), ("asked", ANYWHERE))
    })  # fmt: skip


def strata(base: Side, head: Side, paired: bool | None) -> Iterator[Stratum]:
    """The strata that can be compared, device by device.

    Args:
        base: One side.
        head: The other one.
        paired: Whether runs are pairs; None: they are where both sides number them, or where there are as
            many on both sides and they were measured in turn (the first two in time are one of each side, the
            next two again, and so on).

    Raises:
        InputError: Pairs are wanted, but the sides have different numbers of runs.
    """
    if base.rows.empty or head.rows.empty:
        return
    roles = Roles.of(*base.runs, *head.runs)
    others = dict(list(head.rows.groupby(list(PLACE))))
    for place, before in base.rows.groupby(list(PLACE)):
        if place in others:
            yield replace(_stratum(before, others[place], base.runs, head.runs, paired), roles=roles)


def _stratum(
    before: pd.DataFrame,
    after: pd.DataFrame,
    base_runs: Sequence[RunInfo],
    head_runs: Sequence[RunInfo],
    paired: bool | None,
) -> Stratum:
    ours, theirs = sorted(before["run"].unique()), sorted(after["run"].unique())
    if len(ours) == len(theirs) == 1:
        return Stratum(_numbered(before, "repetition"), _numbered(after, "repetition"), "repetition")
    if paired is not False:
        numbers = _pairs([base_runs[run] for run in ours], [head_runs[run] for run in theirs], bool(paired))
        if numbers:
            before = before.assign(unit=before["run"].map(dict(zip(ours, numbers[0], strict=True))))
            after = after.assign(unit=after["run"].map(dict(zip(theirs, numbers[1], strict=True))))
            return Stratum(before, after, "pair")
    return Stratum(_numbered(before, "run"), _numbered(after, "run"), "run")


def _numbered(rows: pd.DataFrame, unit: str) -> pd.DataFrame:
    return rows.assign(unit=rows[unit])


def _pairs(
    base: Sequence[RunInfo], head: Sequence[RunInfo], wanted: bool
) -> tuple[list[int], list[int]] | None:
    """The number of the pair of each run, by side; None where they are no pairs."""
    numbers = [[run.pair for run in runs if run.pair is not None] for runs in (base, head)]
    if sum(map(len, numbers)) == len(base) + len(head):
        unique = all(len(set(side)) == len(side) for side in numbers)
        if unique and len(set(numbers[0]) & set(numbers[1])) > 1:
            return numbers[0], numbers[1]
    if len(base) != len(head):
        if wanted:
            raise InputError(
                f"pairs were asked for, but there are {len(base)} runs of the base and {len(head)} of the "
                "head; give as many of either, or compare them unpaired"
            )
        return None
    moments = [moment(run.datetime) for run in (*base, *head)]
    known = [time for time in moments if time]
    if len(set(known)) == len(moments):
        in_time = np.array(sorted(range(len(known)), key=known.__getitem__))
        side = np.repeat([0, 1], len(base))[in_time]
        if (side[::2] != side[1::2]).all():
            rank = np.empty(len(in_time), dtype=int)
            rank[in_time] = np.arange(len(in_time)) // 2
            return rank[: len(base)].tolist(), rank[len(base) :].tolist()
    return (list(range(len(base))),) * 2 if wanted else None
