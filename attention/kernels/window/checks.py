"""What all kernels of a window refuse."""

from __future__ import annotations

from attention.case import Case
from attention.inputs import check_window

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


def causal_only(case: Case) -> str | None:
    """Why a case has no window: it is bidirectional."""
    return None if case.causal else BIDIRECTIONAL
