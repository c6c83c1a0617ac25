"""What kernels refuse that have none of the forms."""

from __future__ import annotations

from attention.case import INFERENCE, Case


def plain_refusal(case: Case) -> str | None:
    """Why a kernel that has one key and one head of keys for each query cannot serve a case, or None."""
    if case.key_heads != case.heads:
        return f"it takes as many heads of keys as of queries, not {case.key_heads} and {case.heads}"
    if case.queries != case.seq_len:
        return f"it takes as many keys as queries, not {case.seq_len} and {case.queries}"
    if case.phase in INFERENCE:
        return f"it keeps no state and no cache for a {case.phase}"
    return None
