"""What ranks compute by linear-triton, run by `tests.ranks` with TRITON_INTERPRET=1."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import attention
from attention.distributed import linear_attention
from attention.kernels.references import linear_reference
from attention.kernels.references.errors import TOLERANCES, relative_error
from attention.profiler import count_flops
from tests.interpreted import forget_every_launch, set_rules
from tests.rank_checks import (
    TOKENS,
    a_destroyed_group_is_refused_and_let_go,
    equals_the_whole,
    inputs,
    place,
    with_gradients,
)


def frozen_keys_and_values(causal: bool) -> None:
    """Where only q wants a gradient no rank exchanges anything for it, whether or not it holds tokens."""
    for parts in ([0, TOKENS], [63, 67]):
        tensors = inputs(1, torch.float32)
        q, k, v, do = (x[:, :, place(parts)] for x in tensors)
        reference = partial(linear_reference, causal=causal, eps=1e-3)
        exact = with_gradients(reference, *(x.double() for x in tensors))[1]
        leaf = q.clone().requires_grad_()
        linear_attention(leaf, k, v, causal=causal, eps=1e-3, backend="triton").backward(do)  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        wanted = exact[:, :, place(parts)]
        assert not wanted.numel() or relative_error(leaf.grad, wanted) <= TOLERANCES[torch.float32][1]


def interpreted(causal: bool) -> None:
    """linear-triton exchanges states between its passes: sums folded and scanned, and of no tokens."""
    for folded, parts in ((2**30, [63, 67]), (0, [63, 67]), (2**30, [0, TOKENS])):
        with pytest.MonkeyPatch.context() as patch:
            set_rules(patch, LEAST_TOKENS=32, FOLDED=folded)
            equals_the_whole(parts, torch.float32, "triton", batch=1, causal=causal, eps=1e-3)
    forget_every_launch()


def flops_are_counted(causal: bool) -> None:
    """A rank computes what the plain operator does of its tokens with the state behind them."""
    q, k, v, do = (x[:, :, place([63, 67])] for x in inputs(1, torch.float32))

    def shared(*tensors: Tensor) -> Tensor:
        return linear_attention(*tensors, causal=causal, backend="triton")

    def plain(*tensors: Tensor) -> Tensor:
        out, state = attention.linear_attention(*tensors, causal=causal, backend="triton", return_state=True)
        return out + 0 * state.S.sum()

    with torch.no_grad():
        alone = count_flops(lambda: plain(q, k, v))
        assert count_flops(lambda: shared(q, k, v)) == alone > 0
    both = count_flops(lambda: with_gradients(plain, q, k, v, do))
    assert count_flops(lambda: with_gradients(shared, q, k, v, do)) == both > 2 * alone
    leaf = q.clone().requires_grad_()
    assert alone < count_flops(lambda: shared(leaf, k, v).backward(do)) < both  # type: ignore[no-untyped-call]


INTERPRETED: dict[str, Callable[[], None]] = {
    f"{check.__name__}_{'causal' if causal else 'bidirectional'}": partial(check, causal)
    for check in (interpreted, frozen_keys_and_values, flops_are_counted)
    for causal in (True, False)
}
INTERPRETED["a_destroyed_group"] = partial(a_destroyed_group_is_refused_and_let_go, "triton")
