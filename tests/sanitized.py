"""Calls of kernels in C++ on odd shapes and strides, for a process whose C++ is compiled with sanitizers.

``python -m tests.sanitized`` prints how many calls it made, and how many were refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import torch
from torch import Tensor

from attention.kernels.linear_decay_native import costs as decay
from attention.kernels.linear_decay_native import linear_decay_native
from attention.kernels.linear_native import costs as linear
from attention.kernels.linear_native import linear_native
from attention.kernels.linear_native.kernel import native_step
from attention.kernels.native import build
from attention.kernels.native.library import missing
from attention.state import State
from tests.misfits import MISFITS, three

SHAPES = [
    (1, 1, 1, 1, 1), (1, 2, 63, 3, 5), (2, 1, 64, 16, 16), (1, 3, 65, 17, 33), (2, 2, 129, 31, 2),
    (1, 1, 700, 8, 9), (0, 2, 5, 4, 4), (1, 0, 5, 4, 4), (1, 2, 0, 4, 4),
]  # fmt: skip
"""B, H, N, D and Dv: about chunks of 64 tokens, vectors of up to 16 floats and segments of 256 tokens."""
THREADS = (1, 3)
MAPS = ("elu", "relu", "identity")
"""They take turns: a map changes numbers, and no address."""
LINEAR, GATED = (torch.float32, torch.bfloat16, torch.float64), (torch.float16, torch.float64)
"""The dtypes of each program, which take most of the time to compile: vectors of both widths are in each."""
LARGE = (1, 2, 150_000, 32, 32)
"""Results so large that pages of 2 MB are asked for."""


def laid_out(x: Tensor) -> Iterator[Tensor]:
    """A tensor in several layouts, of which some hold other numbers."""
    batch, heads, _, width = x.shape
    yield x
    yield x.transpose(1, 2).contiguous().transpose(1, 2)  # as a layer has it
    yield x.repeat(1, 1, 1, 3)[..., width : 2 * width]  # with gaps
    yield x[:, :, :1].expand_as(x)  # one row for all
    yield torch.zeros(x.numel() + 1, dtype=x.dtype)[1:].copy_(x.flatten()).view_as(x)  # at an odd address
    yield x.flatten().as_strided(x.shape, (1, width, heads * width, 1))  # rows that overlap
    one = batch == heads == 1
    yield x.as_strided(x.shape, (2**61, 2**61, width, 1)) if one else x  # strides that no row takes


def served(dtype: torch.dtype) -> int:
    """Calls forward and backward, each with other threads; how many."""
    calls = 0
    for (B, H, N, D, E), causal in product(SHAPES, (False, True)):
        made = [torch.randn(B, H, N, width).to(dtype) for width in (D, D, E)]
        for q, k, v in zip(*map(laid_out, made), strict=True):
            call(q, k, v, causal, MAPS[calls % 3], threads=(THREADS[calls % 2], THREADS[calls // 2 % 2]))
            calls += 1
    return calls


def served_with_gates(dtype: torch.dtype) -> int:
    """Calls forward and backward with gates, of which some keep nothing; how many."""
    calls = 0
    for B, H, N, D, E in SHAPES:
        made = [torch.randn(B, H, N, width).to(dtype) for width in (D, D, E)]
        for q, k, v in zip(*map(laid_out, made), strict=True):
            g = torch.randn(B, N, H, dtype=torch.promote_types(dtype, torch.float32)).transpose(1, 2) - 1
            inputs = [x.detach().requires_grad_() for x in (q, k, v, g.masked_fill(g < -3, -torch.inf))]
            torch.set_num_threads(THREADS[calls % 2])
            out = linear_decay_native(*inputs[:3], g=inputs[3], feature_map=MAPS[calls % 3])
            torch.set_num_threads(THREADS[calls // 2 % 2])
            torch.autograd.grad(out.sum() if calls % 3 else (out * out).sum(), inputs)
            calls += 1
    return calls


def served_forms(dtype: torch.dtype) -> int:
    """Calls of grouped heads, of other lengths and behind states, and steps; how many."""
    calls = 0
    lengths = ((1, 1), (65, 130), (130, 65), (0, 70), (70, 0), (700, 700), (3, 3))
    for (Nq, Nk), (D, E), causal in product(lengths, ((1, 1), (17, 33), (64, 64)), (False, True)):
        q, k, v, S = (
            torch.randn(2, heads, rows, width).to(dtype)
            for heads, rows, width in ((6, Nq, D), (2, Nk, D), (2, Nk, E), (2, D, E))
        )
        wide = torch.promote_types(dtype, torch.float32)
        state = State(S.to(wide), torch.rand(2, 2, D, dtype=wide))
        inputs = [x.requires_grad_() for x in (q, k, v, *state)]
        torch.set_num_threads(THREADS[calls % 2])
        given: dict[str, Any] = {"initial_state": state, "return_state": True, "eps": 1.0}
        out, last = linear_native(*inputs[:3], causal=causal, **given)
        torch.autograd.grad(out.sum() + last.S.sum(), inputs, allow_unused=True)
        linear_native(q.detach(), k.detach(), v.detach(), causal=causal)
        if Nq == Nk:
            with torch.no_grad():
                for count in (1, min(3, Nq)):
                    q_, k_, v_ = (x[:, :, :count] for x in (q, k, v))
                    native_step(q_, k_, v_, state, in_place=True)
        calls += 1
    return calls


def served_packed(dtype: torch.dtype) -> int:
    """Calls on packed sequences, with and without states; how many."""
    calls = 0
    packed = ((), (0, 0), (1, 64, 0, 65, 3), (700, 1, 0, 300))
    for lengths, (D, E), causal, behind in product(packed, ((1, 1), (17, 33)), (False, True), (False, True)):
        heads, total, count = (6, 2, 2), sum(lengths), len(lengths)
        inputs = [torch.randn(1, h, total, w).to(dtype) for h, w in zip(heads, (D, D, E), strict=True)]
        wide = torch.promote_types(dtype, torch.float32)
        state = State(torch.randn(count, 2, D, E, dtype=wide), torch.rand(count, 2, D, dtype=wide))
        inputs = [x.requires_grad_() for x in (*inputs, *state)]
        given: dict[str, Any] = {
            "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0),
            "causal": causal,
            "eps": 1.0,
        }
        torch.set_num_threads(THREADS[calls % 2])
        if behind:
            out, last = linear_native(*inputs[:3], initial_state=state, return_state=True, **given)
            total_of = out.sum() + last.S.sum()
        else:
            total_of = linear_native(*inputs[:3], **given).sum()
        torch.set_num_threads(THREADS[calls // 2 % 2])
        torch.autograd.grad(total_of, inputs, allow_unused=True)
        calls += 1
    return calls


def call(q: Tensor, k: Tensor, v: Tensor, causal: bool, phi: str, threads: tuple[int, int]) -> None:
    """A forward and a backward; of a sum the gradient has strides of 0."""
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    torch.set_num_threads(threads[0])
    out = linear_native(*inputs, causal=causal, feature_map=phi, eps=1.0)
    torch.set_num_threads(threads[1])
    torch.autograd.grad(out.sum() if threads[0] == 1 else (out * out).sum(), inputs)


def refused() -> int:
    """Calls on tensors that do not fit together, which are all refused; how many."""
    found = 0
    for misfit, causal in product(MISFITS.values(), (False, True)):
        for operator in (linear_native, torch.ops.attention.linear_native):
            options = () if operator is linear_native else (causal, "elu", 1e-6, None, True)
            try:
                operator(*misfit(*three(tokens=700)), *options)
            except ValueError:
                found += 1
    return found


if __name__ == "__main__":
    # Addresses are those of -O2, and compiling takes two thirds of its time.
    build.FLAGS = tuple("-O1" if flag == "-O2" else flag for flag in build.FLAGS)  # type: ignore[assignment]
    with ThreadPoolExecutor(2) as pool:
        programs = [linear.PROGRAM] * len(LINEAR) + [decay.PROGRAM] * len(GATED)
        reasons = [reason for reason in pool.map(missing, programs, LINEAR + GATED) if reason]
    assert not reasons, reasons
    calls = sum(map(served, LINEAR)) + sum(map(served_with_gates, GATED))
    calls += sum(map(served_forms, LINEAR)) + sum(map(served_packed, LINEAR))
    q, k, v = (torch.randn(LARGE[:3] + (width,)) for width in LARGE[3:] + LARGE[4:])
    call(q, k, v, True, "elu", (3, 3))
    print(calls, refused())
