"""The one door of every command line: `python -m benchmarks run | report | compare | history`.

Whatever happens behind it ends in an exit code and, unless that is 0 or 1, in one sentence.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from benchmarks import console
from benchmarks.analysis.reading.fields import InputError

WRONG_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Raises:
        SystemExit: The arguments are wrong, which is told, or ask for help.
    """
    # Pictures are files: the backend of a notebook, which may not be installed here, has no part in them.
    os.environ["MPLBACKEND"] = "agg"
    # What matplotlib says of fonts, caches and a user's settings, also when it is imported, is not of runs.
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    try:
        # Whatever goes wrong in an import is told as any other error.
        from benchmarks.command_line import carry_out_command
        from benchmarks.survival.endings import OUTSIDE, Stop, handling

        try:
            with handling(Stop(), *OUTSIDE):
                return carry_out_command(sys.argv[1:] if arguments is None else arguments)
        finally:
            console.write("")  # what argparse may have written
    except InputError as error:
        return _end(f"error: {error}", WRONG_INPUT)
    except KeyboardInterrupt:
        words = sys.argv[1:] if arguments is None else list(arguments)
        again = "run" in words[:1] or any(word.startswith("--rev") for word in words)
        return _end(f"interrupted{'; the same command continues with what is missing' * again}", INTERRUPTED)
    except ModuleNotFoundError as error:
        return _end(f"error: {error}; install what is missing with pip install -e '.[bench]'", WRONG_INPUT)
    except Exception as error:
        return console.tell_fault(error)


def _end(sentence: str, code: int) -> int:
    console.say(sentence)
    return code


def _leave_the_current_folder() -> None:
    """Python looks there first, where a user's own attention.py may lie, unless it is this suite's folder."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.path and os.path.abspath(sys.path[0]) == os.getcwd() != here:
        del sys.path[0]


if __name__ == "__main__":
    _leave_the_current_folder()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they speak of code, not of runs
    sys.exit(main())
