"""How a process ends: by Ctrl-C, TERM and HUP alike, at a time limit, and with the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# On Windows there is no terminal that hangs up.
OUTSIDE = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals by which a program is ended from outside."""
ENDINGS = (signal.SIGINT, *OUTSIDE)
PARENT = "ATTENTION_PARENT"
"""Variable that holds the number of the process with which this one ends."""
# A call that swallows what is raised into it is asked again after so long.
AGAIN_S = 5.0
_PR_SET_PDEATHSIG = 1

Handler = Callable[[int, Any], None] | signal.Handlers


class TimedOut(BaseException):
    """A call did not end within its time limit.

    No `Exception`: a call that goes on after any of those shall end at this one.
    """


@contextmanager
def handling(handler: Handler, *signals: int) -> Iterator[None]:
    """Signals go to a handler meanwhile, unless they are ignored, as `nohup` has it."""
    before = {one: signal.getsignal(one) for one in signals}
    for one, handled in before.items():
        if handled != signal.SIG_IGN:
            signal.signal(one, handler)
    try:
        yield
    finally:
        for one, handled in before.items():
            with suppress(TypeError):  # a handler that was not set from Python cannot be set again
                signal.signal(one, handled)


class Stop:
    """A handler of signals that ends this process as Ctrl-C does.

    Attributes:
        asked: Whether a signal came; a kernel may raise a KeyboardInterrupt of its own, or swallow this one.
        insistent: Whether a further signal interrupts again. It does where a call may go on after the first;
            elsewhere it would disturb what the first one set off, as the writing of a file.
    """

    def __init__(self, *, patient: bool = False) -> None:
        """No signal came yet; a patient handler interrupts where it is insistent only, and else notes it."""
        self.asked = False
        self.insistent = False
        self._patient = patient

    def __call__(self, number: int, frame: object) -> None:
        first, self.asked = not self.asked, True
        if self.insistent or (first and not self._patient):
            raise KeyboardInterrupt

    def renew(self) -> None:
        """Take the signals back from libraries that took them past Python, as LLVM does when it compiles."""
        for one in ENDINGS:
            if signal.getsignal(one) is self:
                signal.signal(one, self)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimedOut` in a block that takes longer.

    A call that never returns to Python, as an extension in C that hangs, is not ended so. Windows has no
    such timer, nor has a thread other than the main one.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # it may have gone off on the way here
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def with_parent(environment: dict[str, str]) -> dict[str, str]:
    """The variables of a child process that ends when this process does: see `end_with_parent`."""
    return {**environment, PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Be killed when the process that `with_parent` named ends, however that ends."""
    parent = int(os.environ.pop(PARENT, 0))
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before it was watched
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
