"""Counted FLOPs: two for each multiply-add of the matrix products that a call dispatches.

torch's ``FlopCounterMode`` counts them, by the formulas that each kernel has registered for operators that
the counter does not know. By its convention a fused attention operator costs its full N x N products, causal
or not, and its backward computes the scores once more.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of the matrix products that ``call()`` dispatches, backward included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
