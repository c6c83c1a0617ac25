"""Processes that measure for this one, and end when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.survival.endings import ENDINGS, handling, with_parent

# Ctrl-C reaches the child as well; one that was told so by us alone is asked a moment later. It may have a
# long call to end before it writes its file.
OWN_END_S, ASKED_END_S = 2.0, 60.0


def run_child(
    command: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str] | None = None
) -> int:
    """Run a command to its end, which comes no later than that of this process.

    Args:
        command: The words of its command line.
        log: Takes what it prints.
        folder: Its working folder.
        environment: Its variables; this process's own unless given.

    Returns:
        Its exit code; the negative number of the signal that ended it.
    """
    variables = with_parent(dict(os.environ if environment is None else environment))
    with log.open("w") as stream:
        child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=folder, env=variables)
        try:
            return child.wait()
        except BaseException:
            with handling(signal.SIG_IGN, *ENDINGS):
                _end(child)
            raise


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        child.wait(OWN_END_S)
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(ASKED_END_S)
    child.kill()
    child.wait()


def how_ended(code: int) -> str:
    """An exit code of a process in words: "exit code 4", "SIGSEGV"."""
    if code >= 0:
        return f"exit code {code}"
    names = {one.value: one.name for one in signal.Signals}
    return names.get(-code, f"signal {-code}")
