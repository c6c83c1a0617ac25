"""The end of a session that a rank cannot bring about itself: it waits for another one that never comes.

A collective holds the main thread, in which Python handles signals. A thread of its own is woken by them past
Python, and by the time limit of a case.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import NoReturn

from benchmarks.console import tell_fault
from benchmarks.survival.endings import OUTSIDE, handling

ASKED = "it was asked to end, as torchrun asks when another rank has ended"
TICK_S = 0.2


class Limits:
    """A block in which the process ends at a signal, or when a case takes longer than its limit.

    It calls ``ending(sentence)`` in a thread, and exits with its result. The sentence begins with
    ``cause()``, which says what the other ranks are waited for, if that is known.
    """

    def __init__(self, ending: Callable[[str], int], cause: Callable[[], str | None]) -> None:
        """Nothing is watched before the block begins."""
        self._ending, self._cause = ending, cause
        self._until: float | None = None
        self._limit_s = 0.0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._turn = threading.Lock()
        self._signals = ExitStack()

    def __enter__(self) -> Limits:
        self._woken, self._wakes = socket.socketpair()
        self._woken.settimeout(TICK_S)
        self._wakes.setblocking(False)
        # The number reaches the thread by the socket, and Python's own handler has nothing to do.
        self._signals.enter_context(handling(lambda number, frame: None, *OUTSIDE))
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()
        signal.set_wakeup_fd(-1)
        self._signals.close()
        self._woken.close()
        self._wakes.close()

    def begin(self, limit_s: float) -> None:
        """From now on a case has so many seconds."""
        self._limit_s, self._until = limit_s, monotonic() + limit_s

    def end(self) -> None:
        """The case is at its end."""
        self._until = None

    def _watch(self) -> None:
        while not self._left.is_set():
            until = self._until
            if until is not None and monotonic() > until:
                self._end(f"the ranks did not come to its end within {self._limit_s:g} s")
            try:
                asked = set(self._woken.recv(64)) & set(OUTSIDE)
            except TimeoutError:
                continue
            if asked:
                self._end(ASKED)

    def _end(self, sentence: str) -> NoReturn:
        cause = self._cause()
        self.finish(f"{cause}; {sentence}" if cause else sentence)

    def finish(self, sentence: str) -> NoReturn:
        """End this process, whatever its other thread does; the first sentence is the one that is told."""
        self._turn.acquire()
        code = 1
        try:
            code = self._ending(sentence)
        except Exception as error:
            code = tell_fault(error)
        finally:
            os._exit(code)
