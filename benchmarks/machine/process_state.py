"""What a case changes for those that come after it: read before it, put back after it, and told."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.machine.state_parts import PARTS, Part

FIELD = "state_changed"
"""The field of a record that tells what its case changed, as text; null where it changed nothing."""
UNREADABLE = object()


@contextmanager
def put_back(record: MutableMapping[str, Any], device: str = "cpu") -> Iterator[None]:
    """Put the state of the process back after the body, and note in the record what the body changed.

    Args:
        record: Gets the field `state_changed`.
        device: Where the body computes; a card has state of its own once it is in use.
    """
    if device == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
    before = read()
    try:
        yield
    finally:
        record[FIELD] = "; ".join(changes(before)) or None


def read(parts: Sequence[Part] = PARTS) -> dict[Part, Any]:
    """The state of the process: a value that equals itself read later for each part of it."""
    return {part: _value(part) for part in parts}


def changes(before: dict[Part, Any]) -> list[str]:
    """Put the state back; returns what had changed in words, as in "torch threads 2 -> 7"."""
    found = []
    for part, value in before.items():
        now = _value(part)
        if value is UNREADABLE or now == value:
            continue
        name = f"{part.name}{part.tell(value, now) if now is not UNREADABLE else ''}"
        try:
            part.write(value)
        except Exception as error:
            name += f" (could not be put back: {type(error).__name__})"
        found.append(name)
    return found


def _value(part: Part) -> Any:
    try:
        return part.read()
    except Exception:  # a folder that is gone, settings of torch's that contradict each other, no card in use
        return UNREADABLE
