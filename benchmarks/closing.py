"""What a session says last: the answer of its own run, as the report opens, and the command for the rest."""

from __future__ import annotations

import os
import shlex
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.analysis.layout import LEAST_WIDTH, MOST_WIDTH, WIDTH, Screen
from benchmarks.analysis.reading.fields import InputError
from benchmarks.survival.writing import write

DISPLAYS = ("columns", "sort", "group-by", "name", "time-unit", "compare", "histogram", "cprofile", "verbose")
"""pytest-benchmark's options by which a user asks for its table."""


def asks_for_table(verbosity: int, words: Sequence[str]) -> bool:
    """Whether the command line or PYTEST_ADDOPTS asks for pytest-benchmark's table of 160 columns."""
    words = [*words, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    return verbosity > 0 or any(word.startswith(f"--benchmark-{one}") for word in words for one in DISPLAYS)


def screen(reporter: Any) -> Screen:
    """What pytest writes to: a terminal of some width, or a file."""
    found = shutil.get_terminal_size((WIDTH, 0)).columns if reporter.isatty() else WIDTH
    return Screen(min(MOST_WIDTH, max(LEAST_WIDTH, found)), colors=reporter.hasmarkup)


def answer(document: Mapping[str, Any], file: Path | None, shown: Screen) -> str:
    """The lines that open the report of a run, and the command for all of it.

    Args:
        document: The run as its file holds it, which is the only door to the analysis.
        file: Where it is; None where no file was asked for.
        shown: Where the lines are shown.
    """
    try:
        # A session that says no answer, as a worker or one that only collects, spares their second or two.
        from benchmarks.analysis.document import as_text
        from benchmarks.analysis.reading.records import load
        from benchmarks.analysis.report.headline import headline
        from benchmarks.analysis.report.summary import summarise
        from benchmarks.noise_store import known_run_effect

        # What overflows, and what libraries warn of, is not of this run.
        with np.errstate(all="ignore"), warnings.catch_warnings(), TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            path = Path(folder) / "run.json"
            write(document, path)
            text = as_text([headline(summarise(load([path]), known_run_effect))], shown)
    except InputError:
        text = "Nothing was measured from which something follows.\n"
    except Exception as error:
        text = f"The answer could not be made ({type(error).__name__}).\n"
    if file is None:
        return f"{text}--benchmark-json=out.json keeps a run for: python -m benchmarks report out.json"
    return f"{text}report: python -m benchmarks report {shlex.quote(str(file))}"
