"""The content of a page: tabs of plots and tables, sections of sentences, and the records of its cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.analysis.document import Section
from benchmarks.analysis.plots.looks import Look


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: What it shows.
        unit: The unit of its ticks, which take a prefix: "s" shows 0.03 as "30 ms".
        ticks: Words of ticks at fixed places; empty where the ticks are to be found.
        log: Whether it begins as a logarithmic axis.
        switched: Whether a reader may switch between logarithmic and linear.
    """

    label: str
    unit: str = ""
    ticks: Mapping[float, str] = field(default_factory=dict)
    log: bool = True
    switched: bool = True


@dataclass(frozen=True)
class Point:
    """A point of a line: its place, the ends of its bar, what it says, and the number of its record."""

    x: float
    y: float
    says: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    record: int | None = None


@dataclass(frozen=True)
class Line:
    """Points in one look.

    Attributes:
        name: What its points are called.
        look: Its colour, marker and line; an empty marker draws none.
        points: In the order of drawing.
        kernels: Those that must be switched on for it to show; none of a guide, which always does.
        joined: Whether a line joins them.
        filled: Whether its markers are.
    """

    name: str
    look: Look
    points: Sequence[Point]
    kernels: tuple[str, ...] = ()
    joined: bool = True
    filled: bool = True


@dataclass(frozen=True)
class Band:
    """A shaded range of an axis, with what it means."""

    axis: str
    low: float
    high: float
    color: str


@dataclass(frozen=True)
class Chart:
    """A live plot.

    Attributes:
        title: Its heading.
        about: What to see in it, for those who do not.
        x: The horizontal axis.
        y: The vertical axis.
        lines: What it draws.
        says: The names of what a point says.
        bands: Shaded ranges behind the lines.
        notes: Sentences below the plot.
    """

    title: str
    about: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    says: tuple[str, ...] = ()
    bands: Sequence[Band] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Cell:
    """A cell of a table, and the number by which its column is sorted; without one its text is."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table that a reader sorts and filters; `records` holds the number of the record of each row."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    records: Sequence[int | None] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Tab:
    """What belongs together: a phase on a machine, with the kernels that its plots switch."""

    name: str
    about: str
    charts: Sequence[Chart] = ()
    grids: Sequence[Grid] = ()
    sections: Sequence[Section] = ()
    kernels: Mapping[str, Look] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A page: its first section opens it, with those of `answer`; then tabs, and what they rest on."""

    answer: Sequence[Section]
    tabs: Sequence[Tab]
    ground: Sequence[Section] = ()
    grids: Sequence[Grid] = ()
    records: Sequence[Mapping[str, Any]] = ()
