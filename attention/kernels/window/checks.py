"""What all kernels of a window refuse."""

from __future__ import annotations

from attention.case import Case

WINDOW = 1024
"""Keys that a query sees, its own among them, unless a window is given."""
BIDIRECTIONAL = "a sliding window looks back from each query: it is causal only; ask for causal=True"


def check_options(causal: bool, window: object) -> None:
    """Refuse what is no causal window of at least one key.

    Raises:
        TypeError: a window that is no integer.
        ValueError: a window without keys, or causal=False.
    """
    if not causal:
        raise ValueError(BIDIRECTIONAL)
    check_window(window)


def check_window(window: object) -> None:
    """Refuse what is no window of at least one key.

    Raises:
        TypeError: no integer.
        ValueError: less than 1.
    """
    if not isinstance(window, int) or isinstance(window, bool):
        raise TypeError(f"window must be an integer, the keys that a query sees; got {window!r:.60}")
    if window < 1:
        raise ValueError(f"window must be at least 1, the query's own key; got {window}")


def causal_only(case: Case) -> str | None:
    """Why a case has no window: it is bidirectional."""
    return None if case.causal else BIDIRECTIONAL
