"""Text within the width of a screen: sentences wrapped, tables stacked, commands folded, words coloured."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH = 80
"""Columns of a screen that says nothing else."""
MOST_WIDTH, LEAST_WIDTH = 120, 60
"""Longer lines are hard to read, and shorter ones hold no table."""
LEAST_ROOM = 20
"""Columns of a finding beside a long subject."""
INDENT = "    "
BOLD, RED, GREEN, YELLOW = 1, 31, 32, 33
COLORS = {
    "firm": GREEN, "tentative": YELLOW, "open": RED,
    "slower": RED, "larger": RED, "lost": RED, "worse": RED,
    "faster": GREEN, "smaller": GREEN, "better": GREEN,
}  # fmt: skip
"""The colours of words that a verdict consists of."""


@dataclass(frozen=True)
class Screen:
    """Where a text is shown.

    Attributes:
        width: Its columns. What cannot be broken, as a path, is longer rather than cut.
        colors: Whether it takes the escape sequences of a terminal.
    """

    width: int = WIDTH
    colors: bool = False

    def painted(self, text: str, color: int | None) -> str:
        """A text in a colour, or as it is."""
        return f"\x1b[{color}m{text}\x1b[0m" if self.colors and color and text.strip() else text


def wrapped(sentence: str, width: int, indent: str = "") -> str:
    """A sentence over lines of this width, all but the first one indented further."""
    # A number stays on one line with its name and its interval.
    unbroken = re.sub(r"[Np] ?= ?[\d.]+( \[[^\]]*\])?", lambda found: found[0].replace(" ", "\xa0"), sentence)
    lines = textwrap.fill(
        unbroken,
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines.replace("\xa0", " ")


def folded(parts: Sequence[str], width: int) -> list[str]:
    """A command over lines of a shell, broken between its parts only."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + len("  \\") > width:
            lines.append(f"{INDENT}{part}")
        else:
            lines[-1] += f" {part}"
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def facts(rows: Sequence[tuple[str, str, str]], screen: Screen, *, cut: bool = False) -> Iterator[str]:
    """Rows of a subject, a finding and how sure it is, in columns; long findings over lines, or cut."""
    first, second, last = (max((len(row[column]) for row in rows), default=0) for column in range(3))
    alone = screen.width - first - 2
    room = max(LEAST_ROOM, alone - (last + 2 if last else 0))

    def width(sure: str) -> int:
        return room if sure else max(LEAST_ROOM, alone)

    if cut:
        rows = [(subject, _cut(finding, width(sure)), sure) for subject, finding, sure in rows]
        second = max((len(finding) for _, finding, sure in rows if sure), default=second)
    second = min(second, room)
    for subject, finding, sure in rows:
        lines = wrapped(finding, width(sure)).splitlines() or [""]
        head = screen.painted(subject.ljust(first), COLORS.get(subject))
        yield f"{head}  {lines[0].ljust(second)}  {screen.painted(sure, COLORS.get(sure))}".rstrip()
        yield from (f"{' ' * (first + 2)}{line}" for line in lines[1:])


def _cut(finding: str, width: int) -> str:
    """A finding without its interval, and if that is still too long its first words."""
    short = finding if len(finding) <= width else re.sub(r" \[[^\]]*\]", "", finding)
    return short if len(short) <= width else f"{short[: width - 2]}.."


def fits(rows: Sequence[tuple[str, str, str]], width: int) -> bool:
    """Whether each of these rows of `facts` is a line."""
    first, second, last = (max((len(row[column]) for row in rows), default=0) for column in range(3))
    return first + 2 + second + (2 + last if last else 0) <= width


def columns(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    stacks: Sequence[tuple[str, str]],
    width: int,
) -> list[str]:
    """A table of which every line fits, as far as its words do.

    One that is too wide is split between columns, and the parts stand one below the other, each behind the
    first column. Its rows stand below headings, if it has `stacks` and fewer parts by them.

    Args:
        headers: The names of the columns.
        rows: The cells of each row, the first of which names it.
        stacks: Of each row a heading that it shares with its neighbours, and its name below that.
        width: Columns of the screen.
    """
    cells, headings = [list(headers), *map(list, rows)], [""] * len(rows)
    if stacks:
        below = [cells[0], *([f"  {name}", *row[1:]] for (_, name), row in zip(stacks, rows, strict=True))]
        if _fits(cells, width) > _fits(below, width):
            cells, headings = below, [heading for heading, _ in stacks]
    widths = _widths(cells)
    if math.isinf(_fits(cells, width)):
        return list(_one_below_the_other(cells, headings, width))
    lines: list[str] = []
    for part in _parts(widths, width):
        lines += [""] if lines else []
        lines += _side_by_side(cells, headings, widths, part, width)
    return lines


def _fits(cells: Sequence[Sequence[str]], width: int) -> float:
    """In how many parts a table fits; infinite where its first column leaves no room for another."""
    first, *others = _widths(cells)
    too_wide = others and first + 2 + max(others) > width
    return math.inf if too_wide else len(_parts([first, *others], width))


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns beside the first one, in as few parts as fit, of about as many columns each."""
    fewest = _split(widths, width, len(widths))
    found = (_split(widths, width, most) for most in range(1, len(widths) + 1))
    return next(one for one in found if len(one) == len(fewest))


def _split(widths: Sequence[int], width: int, most: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        wide = widths[0] + sum(widths[one] + 2 for one in [*parts[-1], column]) > width
        if parts[-1] and (wide or len(parts[-1]) == most):
            parts.append([])
        parts[-1].append(column)
    return parts


def _side_by_side(
    cells: Sequence[Sequence[str]],
    headings: Sequence[str],
    widths: Sequence[int],
    part: Sequence[int],
    width: int,
) -> Iterator[str]:
    heading = ""
    for row, own in zip(cells, ["", *headings], strict=True):
        if own != heading:
            yield wrapped(own, width)
            heading = own
        line = row[0].ljust(widths[0]) + "".join("  " + row[column].rjust(widths[column]) for column in part)
        yield line.rstrip()


def _one_below_the_other(
    cells: Sequence[Sequence[str]], headings: Sequence[str], width: int
) -> Iterator[str]:
    """Each row as a list of its cells, for names that leave no room beside them."""
    heading = ""
    for row, own in zip(cells[1:], headings, strict=True):
        if own != heading:
            yield wrapped(own, width)
            heading = own
        yield wrapped(row[0].strip(), width, "  " if own else "")
        for header, cell in zip(cells[0][1:], row[1:], strict=True):
            yield wrapped(f"{header}: {cell}" if header else cell, width, INDENT)
