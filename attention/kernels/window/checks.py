"""What all kernels of a window refuse."""

from __future__ import annotations

from attention.case import Case
from attention.inputs import check_window
from attention.kernels.forms.plain import plain_refusal

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
    """Why no kernel of a window serves a case, or None."""
    return plain_refusal(case) if case.causal else BIDIRECTIONAL
