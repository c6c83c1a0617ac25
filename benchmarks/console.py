"""What a command writes to its terminal, in safe letters, also where nobody reads it or no room is left."""

from __future__ import annotations

import io
import os
import shutil
import sys
import traceback
from typing import TextIO

from benchmarks.analysis.layout import LEAST_WIDTH, MOST_WIDTH, WIDTH, Screen
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.texts import printable

OUR_FAULT = 3
"""The exit code of a fault of this suite, and of a run that is not where it was asked for."""
DEBUG = "ATTENTION_DEBUG"
"""The environment variable that shows where an error comes from."""


def screen(width: int | None = None) -> Screen:
    """The terminal, or the file that the standard output goes to.

    Args:
        width: The columns asked for. Unless given they are those of the terminal, at most `MOST_WIDTH`, and
            of a file `WIDTH`.
    """
    terminal = sys.stdout is not None and sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    if width is None:
        found = shutil.get_terminal_size((WIDTH, 0)).columns if terminal else WIDTH
        width = min(MOST_WIDTH, max(LEAST_WIDTH, found))
    return Screen(width, colors=terminal and not plain)


def write(text: str) -> None:
    """Write to the standard output at once; where its reader is gone, nothing more is written there.

    Raises:
        InputError: It cannot be written for another reason.
    """
    out = sys.stdout
    if out is None:  # closed by the caller
        return
    if isinstance(out, io.TextIOWrapper):
        # A terminal without the signs for µ and ± shall show "?" rather than end the report.
        out.reconfigure(errors="replace")
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        _silence(out)
    except OSError as error:
        _silence(out)
        raise InputError(
            f"the standard output cannot be written ({error.strerror}); send it elsewhere"
        ) from None


def say(line: str) -> None:
    """Write a line to the standard error, beside the output, which may be read by a program."""
    err = sys.stderr
    if err is None:
        return
    try:
        err.write(f"{printable(line)}\n")
        err.flush()
    except OSError:
        _silence(err)


def tell_fault(error: Exception) -> int:
    """Tell an error of which nobody knows, and return the exit code."""
    place = f"{DEBUG}=1 shows where"
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
        place = "see above"
    say(f"error: {_words(error)}; this is a fault of this suite, not of its input: {place}")
    return OUR_FAULT


def _words(error: Exception) -> str:
    """The name of an error and what it says, if it can."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _silence(stream: TextIO) -> None:
    """Let what is left in a stream go nowhere, so that the interpreter does not fail with it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
