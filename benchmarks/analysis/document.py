"""A report's text written once and rendered twice: for the console and as markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.analysis.layout import BOLD, INDENT, Screen, columns, facts, fits, folded, wrapped

MOST_LINES = 8
"""Lines of the section that opens a text, whatever it says."""
SHORT = 100
"""Columns of a line of a command where no screen says how many."""


@dataclass
class Table:
    """Rows of text under headers; the first column names the row, and stays where a table is split.

    Attributes:
        headers: The names of the columns.
        rows: The cells of each row.
        stacks: Of each row a heading that it shares with its neighbours, and its name below that: by these
            a narrow screen shows what names a row.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    stacks: Sequence[tuple[str, str]] = ()


class Verdict(NamedTuple):
    """An answer in one line: what it is about, what was found, and how sure that is."""

    subject: str
    finding: str
    sure: str = ""

    def __str__(self) -> str:
        sure = f" ({self.sure})" if self.sure else ""
        return f"{self.subject[:1].upper()}{self.subject[1:]}: {self.finding}{sure}."


class Command(tuple[str, ...]):
    """A command that is to be copied: its words, of which an option and its value are one."""

    def __str__(self) -> str:
        return "\n".join(folded(self, SHORT))


@dataclass
class Section:
    """A heading with verdicts, sentences, commands, a table and notes to it, each of which may be absent.

    The first section of a text, of level 1, opens it with at most `MOST_LINES` lines: verdicts, a command.
    ``brief`` are its title and verdicts in fewer words, for a screen on which they would not fit.
    """

    title: str
    sentences: Sequence[str] = ()
    table: Table | None = None
    notes: Sequence[str] = field(default_factory=tuple)
    level: int = 2
    commands: Sequence[Command] = ()
    verdicts: Sequence[Verdict] = ()
    brief: tuple[str, Sequence[Verdict]] | None = None


def as_text(sections: Sequence[Section], screen: Screen | None = None) -> str:
    """Render for a screen, of `layout.WIDTH` columns without colours unless it is given."""
    screen = screen or Screen()
    blocks = [_opening(one, screen) if one.level == 1 else _block(one, screen) for one in sections]
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def _opening(section: Section, screen: Screen) -> Iterator[str]:
    """The lines that answer; findings for which no lines are left are cut, and a command stays on one."""
    words, verdicts = section.title, section.verdicts
    if section.brief and not fits(verdicts, screen.width):
        words, verdicts = section.brief
    title = wrapped(words, screen.width).splitlines()
    room = MOST_LINES - len(title) - len(section.commands)
    told = list(facts(verdicts, screen))
    if len(told) > room:
        if len(verdicts) > room:
            more = f"{len(verdicts) - room + 1} more answers, below"
            verdicts = [*verdicts[: room - 1], Verdict("and", more)]
        told = list(facts(verdicts, screen, cut=True))
    yield from (screen.painted(line, BOLD) for line in title)
    yield from told
    yield from (wrapped(sentence, screen.width) for sentence in section.sentences)
    for command in section.commands:
        parts = Command([f"surer: {command[0]}", *command[1:]])
        lines = folded(parts, screen.width)
        yield from lines if len(lines) <= 1 + room - len(told) else [" ".join(parts)]


def _block(section: Section, screen: Screen) -> Iterator[str]:
    title = wrapped(section.title, screen.width)
    yield screen.painted(title, BOLD)
    if section.level == 2:
        yield "-" * min(len(section.title), screen.width)
    yield from facts(section.verdicts, screen)
    yield from (wrapped(sentence, screen.width) for sentence in section.sentences)
    for command in section.commands:
        lines = folded(command, screen.width - len(INDENT))
        yield "\n" + textwrap.indent("\n".join(lines), INDENT)
    if section.table:
        yield from columns(section.table.headers, section.table.rows, section.table.stacks, screen.width)
    yield from (wrapped(note, screen.width, "  ") for note in section.notes)


def as_markdown(sections: Sequence[Section]) -> str:
    """Render as GitHub's markdown."""
    blocks = []
    for section in sections:
        blocks.append(f"{'#' * section.level} {_escape(section.title)}")
        told = [*map(str, section.verdicts), *section.sentences]
        told += ["This command makes it surer:"] if section.level == 1 and section.commands else []
        if told:
            blocks.append("\n".join(_item(sentence) for sentence in told))
        blocks += [_fenced(str(command)) for command in section.commands]
        if section.table and section.table.rows:
            blocks.append(_table_as_markdown(section.table))
        if section.notes:
            blocks.append("\n".join(_item(note) for note in section.notes))
    return "\n\n".join(blocks) + "\n"


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
