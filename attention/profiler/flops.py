"""Counted FLOPs: two for each multiply-add of the matrix products that a call dispatches.

torch's ``FlopCounterMode`` counts them, by the formulas that each kernel has registered for operators that
the counter does not know. By its convention a fused attention operator costs its full N x N products, causal
or not, and its backward computes the scores once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of the matrix products that ``call()`` dispatches, backward included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


class Counted(NamedTuple):
    """Counted FLOPs; None, with the reason, where torch's counter cannot follow the call."""

    flops: int | None
    reason: str | None = None


def try_count_flops(call: Callable[[], object]) -> Counted:
    """FLOPs of the matrix products that ``call()`` dispatches, of any call that runs without being counted.

    torch's counter fails on operators of higher order such as ``flex_attention``. What its failure leaves
    behind in torch's compiler is cleared.

    Raises:
        torch.OutOfMemoryError, MemoryError: The call needs more memory than there is.
    """
    try:
        return Counted(count_flops(call))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        torch.compiler.reset()
        words = str(error).strip().splitlines() or [""]
        return Counted(None, f"torch's counter of FLOPs fails: {type(error).__name__}: {words[0]:.200}")
