"""The conclusions of a report: series, crossovers and their summary, as summary.json holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from benchmarks.analysis.reading.fields import CEILING, DECLARED
from benchmarks.analysis.reading.machines import Machine
from benchmarks.analysis.reading.roles import Roles, named_in_json
from benchmarks.analysis.reading.setting import Case, Row, Setting
from benchmarks.analysis.report.ceilings import Ceiling
from benchmarks.analysis.report.contexts import Contexts
from benchmarks.analysis.report.floors import Verdict
from benchmarks.analysis.report.over_ranks import OverRanks
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.exponent import Exponent
from benchmarks.analysis.scaling.firmness import Firmness, Unit
from benchmarks.analysis.scaling.fitted import Laws
from benchmarks.analysis.serialization import FLAT

Quantity = Literal["time", "peak_bytes", "energy_j"]


@dataclass(frozen=True)
class RatedExponent(Exponent):
    """An exponent and how firm it is."""

    firmness: Firmness = field(kw_only=True)


@dataclass(frozen=True)
class Function:
    """What a kernel computes at some of its lengths.

    Attributes:
        reference: Name of the oracle that its results were compared with; None where it computes none of the
            functions that have one, `fields.DECLARED` where its author says so.
        error: Relative error of its output against that oracle on a few tokens, None where not known.
        seq_lens: The lengths.
        nearest: Of the functions that it does not compute the nearest, and how far off it is.
    """

    reference: str | None
    error: float | None
    seq_lens: list[int]
    nearest: str | None = None

    @property
    def checked(self) -> bool:
        """Whether its results were compared with an oracle."""
        return self.reference not in (None, DECLARED)


@dataclass(frozen=True)
class Series:
    """All lengths of one kernel in one setting.

    Attributes:
        kernel: Its name.
        family: The part of the name before the first "-".
        functions: What it computes, by the lengths at which it does.
        setting: What all its cases agree in.
        unit: The unit of sampling.
        seq_lens: Its lengths, ascending.
        median_s: Median seconds at each.
        floor_share: The floor over the median, at each; None without ceilings.
        floor_low_s: The floor by the fastest units of the ceilings, at each, likewise.
        floor_high_s: The floor by their slowest units, likewise.
        floor_verdict: What the floor says of each case, likewise.
        exponent: How its time grows.
        local_slopes: Slopes of log time on log N between neighbouring lengths; None where no unit has both.
        overhead_s: The c of t = c + a N^p, None where it cannot be told.
        flops_exponent: Exponent of its FLOPs, None where they are not known at two lengths.
        min_bytes_exponent: Exponent of the bytes that it reads and writes at least, likewise.
        peak_bytes_exponent: Exponent of its peak memory, likewise.
        energy_j: Joules of a call at each length; empty where none is known.
        energy_exponent: How its energy grows, with the run as the unit; None where no energy is known.
        cache_bytes: Bytes that are kept of each context between two calls; empty where nothing is.
        cache_bytes_exponent: Exponent of these.
        laws: What it says of the laws of growth.
        laws_firmness: How firm it is that they are tenable, or untenable.
        best_law: Name of the law of least error, None where none can be judged.
    """

    kernel: str
    family: str
    functions: list[Function]
    setting: Setting = field(metadata=FLAT)
    unit: Unit
    seq_lens: list[int]
    median_s: list[float]
    floor_share: list[float | None]
    floor_low_s: list[float | None]
    floor_high_s: list[float | None]
    floor_verdict: list[Verdict | None]
    exponent: RatedExponent
    local_slopes: list[float | None]
    overhead_s: float | None
    flops_exponent: float | None
    min_bytes_exponent: float | None
    peak_bytes_exponent: float | None
    energy_j: list[float | None]
    energy_exponent: RatedExponent | None
    cache_bytes: list[float | None]
    cache_bytes_exponent: float | None
    laws: Laws
    laws_firmness: Firmness
    best_law: str | None

    @property
    def checked(self) -> bool:
        """Whether its results were compared with an oracle at all of its lengths."""
        return all(one.checked for one in self.functions)

    @property
    def is_attention(self) -> bool:
        """Whether it is a kernel of attention, in a mode."""
        return self.family != CEILING and self.setting.is_attention


@dataclass(frozen=True)
class PairCrossover:
    """The crossover of a contender and a baseline in one setting, in time, peak memory or energy."""

    contender: str
    baseline: str
    setting: Setting = field(metadata=FLAT)
    quantity: Quantity
    found: Crossover = field(metadata=FLAT)
    firmness: Firmness

    def in_json(self, found: dict[str, Any]) -> dict[str, Any]:
        """The object in JSON, which names linear and standard kernels by their families."""
        return named_in_json(found, self.contender, self.baseline)


@dataclass(frozen=True)
class LeftOut:
    """A case that was asked for and not measured."""

    case: Case
    outcome: str
    reason: str

    @classmethod
    def of(cls, row: Row) -> LeftOut:
        """The case of a row of `Summary.not_measured`."""
        return cls(Case.of(row), str(row["outcome"]), str(row["reason"]))


@dataclass(frozen=True)
class FileSummary:
    """One file of a report: what it says of its run, and the index of its machine in the summary."""

    file: str
    datetime: str | None
    commit: str | None
    node: str | None
    run: Mapping[str, object]
    machine: int


@dataclass(frozen=True)
class MachineSummary:
    """One machine of a report, and the words that tell it from others."""

    machine: Machine = field(metadata=FLAT)
    fingerprint: str


@dataclass(frozen=True)
class Runs:
    """The files, machines and units of sampling of a report.

    Attributes:
        files: Its files.
        machines: The different machines among them.
        unit: The unit of sampling, "mixed" where it differs between settings, None without measured rows.
        units: The most units of any setting.
        run_effect: The effect of a run on the log of each of its times, as a standard deviation, that is
            assumed where a single run measured a setting; None where several runs show it.
        options: The options by which all runs chose their cases; None where they differ or are not known.
        roles: Which kernels are compared with which.
    """

    files: list[FileSummary]
    machines: list[MachineSummary]
    unit: Unit | Literal["mixed"] | None
    units: int
    run_effect: float | None
    options: str | None
    roles: Roles = field(metadata=FLAT)


@dataclass(frozen=True, eq=False)
class Summary:
    """All conclusions of a report.

    Attributes:
        schema: Version of this object in summary.json.
        runs: What it rests on.
        series: Every series, in the order of its fields.
        crossovers: Every pair of a contender and a baseline in each setting.
        contexts: Of each shape that is decoded, from which context on which phase is cheaper.
        over_ranks: Of each kernel that ranks computed together, how it scales over them.
        ceilings: What each device can do at most.
        warnings: Sentences naming what is missing, and what cannot be.
        quality: Sentences naming what was unstable, and what to try.
        not_measured: One row per case that was asked for and not measured.
    """

    schema: int
    runs: Runs
    series: list[Series]
    crossovers: list[PairCrossover]
    contexts: list[Contexts]
    over_ranks: list[OverRanks]
    ceilings: list[Ceiling]
    warnings: list[str]
    quality: list[str]
    not_measured: pd.DataFrame

    @property
    def roles(self) -> Roles:
        """Which kernels are compared with which."""
        return self.runs.roles


def headline_kernel(series: Sequence[Series], roles: Roles) -> str | None:
    """The kernel of one setting that is spoken of first: the user's own, else the fastest linear contender.

    It is the fastest at the longest length of any; without a linear one, of all contenders.
    """
    own = sorted((one.kernel for one in series if one.kernel in roles.own), key=roles.order)
    if own:
        return own[0]
    contenders = [one for one in series if not roles.is_baseline(one.kernel)]
    linear = [one for one in contenders if one.family == "linear"] or contenders
    if not linear:
        return None
    longest = max(one.seq_lens[-1] for one in linear)
    finalists = [one for one in linear if one.seq_lens[-1] == longest]
    return min(finalists, key=lambda one: one.median_s[-1]).kernel
