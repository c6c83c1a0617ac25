"""Texts of an input that are safe to show: without control characters, escape sequences, reversed writing."""

from __future__ import annotations

from typing import Any
from unicodedata import category

MOST_CHARACTERS = 1000
"""Longer texts of an input are cut."""
MOST_LEVELS = 20
"""Lists and objects nested deeper hold nothing that this suite wrote."""


def printable(text: str) -> str:
    r"""A text on one line, whose unprintable characters are escaped as in ``\x1b`` and ``\u202e``.

    Unprintable are control and format characters, among them those that reverse the direction of writing,
    lone surrogates, private and unassigned code points, and separators of lines; other white space becomes
    a space.
    """
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    if character in "\t\n\r" or category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")


def shown(value: object, most: int = 80) -> str:
    """A value of an input in a sentence, as Python writes it, cut where it is long."""
    if isinstance(value, str):
        value = value[: most + 1]
    text = printable(repr(value))
    return text if len(text) <= most else f"{text[:most]}..."


def clean(value: Any, levels: int = MOST_LEVELS) -> Any:
    """A JSON value whose texts, names of fields included, are printable and not too long.

    Args:
        value: As `json.loads` returns it.
        levels: How deep lists and objects may be nested; what is deeper is replaced by None.
    """
    if isinstance(value, str):
        text = printable(value[: MOST_CHARACTERS + 1])
        return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."
    if not isinstance(value, list | dict):
        return value
    if not levels:
        return None
    if isinstance(value, list):
        # Rounds are floats by the thousand.
        return [one if type(one) is float else clean(one, levels - 1) for one in value]
    return {clean(name): clean(one, levels - 1) for name, one in value.items()}
