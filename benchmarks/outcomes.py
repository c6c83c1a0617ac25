"""What an exception says of the case that raised it."""

from __future__ import annotations

import pytest
import torch

from benchmarks.survival.endings import TimedOut

LONGEST = 500
"""Characters of a reason."""


class CaseError(Exception):
    """A case failed by an exception that would end pytest's session, or that pytest cannot show."""


def outcome_of(error: BaseException, limit_s: float) -> tuple[str, str]:
    """The outcome of the record, and the reason, that stand for an exception.

    Args:
        error: Whatever a kernel raised.
        limit_s: The time limit of the case.
    """
    if isinstance(error, TimedOut):
        return "failed", f"no end within {limit_s:g} s, the limit of --case-timeout"
    text = said(error)
    if isinstance(error, NotImplementedError):
        return "unsupported", text or "its kernel raises NotImplementedError"
    if isinstance(error, torch.OutOfMemoryError):
        return "oom", text.partition(". ")[0]
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "oom", text or "MemoryError"
    return "failed", f"{type(error).__name__}: {text}".removesuffix(": ")


def said(error: BaseException) -> str:
    """The first line of an exception's text, also where it has none or cannot make it."""
    try:
        lines = str(error).strip().splitlines()
    except BaseException as another:
        return f"its text cannot be made ({type(another).__name__})"
    return lines[0][:LONGEST] if lines else ""


def showable(error: BaseException) -> bool:
    """Whether pytest can show an exception, and goes on to the next benchmark after it."""
    try:
        str(error), repr(error)
    except BaseException:
        return False
    return isinstance(error, Exception) and not isinstance(error, pytest.exit.Exception)
