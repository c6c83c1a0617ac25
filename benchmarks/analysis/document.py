"""A report's text written once and rendered twice: for the console and as markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH = 120


@dataclass
class Table:
    """Rows of text under headers; the first column names the row, and stays where a table is split."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """A heading with sentences, commands, a table and notes to the table, each of which may be absent.

    A command is to be copied, so that it stays as it is.
    """

    title: str
    sentences: Sequence[str] = ()
    table: Table | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    level: int = 2
    commands: Sequence[str] = ()


def as_text(sections: Sequence[Section]) -> str:
    """Render for a terminal of 120 columns."""
    blocks = []
    for section in sections:
        lines = [_wrap(section.title), *_underline(section)]
        lines += [_wrap(sentence) for sentence in section.sentences]
        lines += [f"\n{textwrap.indent(command, '    ')}" for command in section.commands]
        if section.table:
            lines += [_table_as_text(section.table)]
        lines += [_wrap(note, "  ") for note in section.notes]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def as_markdown(sections: Sequence[Section]) -> str:
    """Render as GitHub's markdown."""
    blocks = []
    for section in sections:
        blocks.append(f"{'#' * section.level} {_escape(section.title)}")
        if section.sentences:
            blocks.append("\n".join(_item(sentence) for sentence in section.sentences))
        blocks += [_fenced(command) for command in section.commands]
        if section.table and section.table.rows:
            blocks.append(_table_as_markdown(section.table))
        if section.notes:
            blocks.append("\n".join(_item(note) for note in section.notes))
    return "\n\n".join(blocks) + "\n"


def _underline(section: Section) -> list[str]:
    rule = {1: "=", 2: "-"}.get(section.level)
    return [rule * min(len(section.title), WIDTH)] if rule else []


def _wrap(sentence: str, indent: str = "") -> str:
    # A number stays on one line with its name and its interval.
    unbroken = re.sub(r"N = \d+( \[[^\]]*\])?", lambda found: found[0].replace(" ", "\xa0"), sentence)
    lines = textwrap.fill(
        unbroken, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )
    return lines.replace("\xa0", " ")


def _table_as_text(table: Table) -> str:
    """Columns side by side; those beyond the width follow below, beside the first column again."""
    widths = [
        max(len(row[column]) for row in [table.headers, *table.rows]) for column in range(len(table.headers))
    ]
    parts: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        if parts[-1] and widths[0] + sum(widths[one] + 2 for one in [*parts[-1], column]) > WIDTH:
            parts.append([])
        parts[-1].append(column)
    blocks = []
    for part in parts:
        lines = [
            row[0].ljust(widths[0]) + "".join("  " + row[column].rjust(widths[column]) for column in part)
            for row in [table.headers, *table.rows]
        ]
        blocks.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(blocks)


def _table_as_markdown(table: Table) -> str:
    rule = ["---"] + ["---:"] * (len(table.headers) - 1)
    rows = [
        [_escape(cell) for cell in table.headers],
        rule,
        *([_escape(cell) for cell in row] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _fenced(command: str) -> str:
    """A command in a fence that is longer than any row of backticks in it."""
    fence = "`" * max(3, *(1 + len(row) for row in re.findall("`+", command)), 0)
    return f"{fence}\n{command}\n{fence}"


ENTITIES = {"&": "&amp;", "<": "&lt;", "\n": " ", "@": "@<!-- -->"}
INLINE = re.compile(
    r"[\\`|$#&<\n]"  # escapes, code, cells, formulas, issues, entities and HTML
    r"|[*~](?=\S)|(?<![^\W_])_(?=\S)"  # what may open bold, struck or slanted text
    r"|\](?=[(\[:])|:(?=//)|(?<=www)\.|@(?=\w)"  # links, pictures, addresses and people
)
BLOCK = re.compile(r"^(?:[-+*>]|\[(?=[ xX]\])|\d+[.)])")
"""What begins a list, a quotation or a box to tick."""


def _item(sentence: str) -> str:
    sentence = _escape(sentence.strip())
    return f"- {BLOCK.sub(lambda found: found[0][:-1] + _literal(found[0][-1]), sentence)}"


def _escape(text: str) -> str:
    """A text that GitHub's markdown renders as it is, on one line."""
    return INLINE.sub(lambda found: _literal(found[0]), text)


def _literal(character: str) -> str:
    return ENTITIES.get(character, f"\\{character}")
