"""A sliding window through torch's ``flex_attention``, compiled, with a mask of blocks."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from importlib.util import find_spec
from types import FunctionType

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from attention.case import Case
from attention.inputs import WINDOW
from attention.kernels.registry import register_kernel
from attention.kernels.tensors import check_inputs, differentiated, dtype_name
from attention.kernels.window.checks import causal_only, check_options
from attention.kernels.window.costs import TILE, flex_costs
from attention.torch_internals.transforms import constant_when_compiled, transformed, without_modes

LEAST_WIDTH = 16
"""The least D and Dv of flex_attention on CUDA, where a product of matrices has no smaller tile."""


def window_flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int = WINDOW,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale QK') V over the last ``window`` keys of each query, by torch's ``flex_attention``.

    The first call of a dtype, a pair of widths and a scale compiles for some seconds; other lengths, windows
    and batches use the same code. The mask of a length is kept; it holds some numbers for each pair of tiles
    of 128 tokens. Inputs that are not contiguous are copied.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``. ``scale`` is 1/sqrt(D) unless
    given.

    Raises:
        TypeError: a window that is no integer.
        ValueError: shapes, dtypes or devices that do not fit together, ``causal=False``, a window without
            keys, or inputs that flex_attention does not serve.
    """
    check_inputs("window-flex", q, k, v, autocast=False)
    check_options(causal, window)
    compiling = torch.compiler.is_compiling()
    if not compiling and transformed():
        raise ValueError("window-flex has no transforms of torch.func and no forward mode; take window-sdpa")
    backward = differentiated(q, k, v)
    if reason := _refusal(q.device.type, dtype_name(q.dtype), min(q.shape[-1], v.shape[-1]), backward):
        raise ValueError(f"window-flex cannot serve q {tuple(q.shape)}, v {tuple(v.shape)}: {reason}")
    batch, heads, seq_len, _ = q.shape
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if compiling:
        return _attend(q, k, v, block_mask(seq_len, window, q.device), scale)
    if v.numel() == 0:
        return q @ (k.mT @ v)
    # Heads are a batch, so that their number is no constant of the code.
    q, k, v = (x.contiguous().flatten(0, 1).unsqueeze(1) for x in (q, k, v))
    shapes = q.shape[-1], v.shape[-1], batch * heads > 1, min(seq_len, 2), seq_len > TILE
    form = q.device, q.dtype, *shapes, scale, backward
    # torch compiles once more where gradients are enabled, also where nothing wants any.
    with torch.set_grad_enabled(backward), without_modes(), _quiet_at_first(form):
        out = _compiled(form)(q, k, v, _kept_mask(seq_len, window, q.device), scale)
    return out.reshape(batch, heads, seq_len, -1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float) -> Tensor:
    out: Tensor = flex_attention(q, k, v, block_mask=mask, scale=scale)
    return out


_SEEN: set[tuple[object, ...]] = set()


def _quiet_at_first(form: tuple[object, ...]) -> AbstractContextManager[object]:
    """A block for a call that compiles: what torch warns about meanwhile is no finding of a measurement."""
    if form in _SEEN:
        return nullcontext()
    _SEEN.add(form)
    return warnings.catch_warnings(action="ignore")


@cache
def _compiled(form: tuple[object, ...]) -> Callable[..., Tensor]:
    """The compiled function of one form of inputs.

    torch compiles a code object a few times at most and then refuses; so each form has a code of its own.
    """
    code = _attend.__code__.replace(co_name=f"window_flex_{abs(hash(form))}")
    function = FunctionType(code, _attend.__globals__)
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=True, fullgraph=True)
    return compiled


def block_mask(seq_len: int, window: int, device: torch.device) -> BlockMask:
    """Which tiles of 128 queries and 128 keys are seen as a whole, and which in part.

    torch's ``create_block_mask`` makes the N x N mask for that; here the tiles are told by their places.
    """
    tiles = torch.arange(-(-seq_len // TILE), device=device)
    distance = TILE * (tiles[:, None] - tiles)
    nearest, furthest = distance - (TILE - 1), distance + (TILE - 1)
    seen, whole = (furthest >= 0) & (nearest < window), (nearest >= 0) & (furthest < window)
    # As a tensor, it is no constant of the code, which then holds for every window.
    keys = window if torch.compiler.is_compiling() else torch.tensor(window, device=device)

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query - key < keys)

    return BlockMask.from_kv_blocks(
        *_listed(seen & ~whole),
        *_listed(whole),
        BLOCK_SIZE=TILE,
        mask_mod=visible,
        seq_lengths=(seq_len, seq_len),
    )


def _listed(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """How many tiles of each row are marked, and their columns first of all."""
    columns = tiles.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return tiles.sum(-1, dtype=torch.int32)[None, None], columns.to(torch.int32)[None, None]


_kept_mask = lru_cache(maxsize=32)(block_mask)


@constant_when_compiled
def _refusal(device: str, dtype: str, width: int, backward: bool) -> str | None:
    """Why torch's flex_attention does not serve such inputs; None where it does."""
    if dtype == "float64":
        return "torch's flex_attention computes in float32, bfloat16 and float16, not float64"
    if device == "cuda":
        if width < LEAST_WIDTH:
            return f"torch's flex_attention needs widths of at least {LEAST_WIDTH} on CUDA, got {width}"
        return None if find_spec("triton") else "torch compiles flex_attention by Triton, which is missing"
    if device != "cpu":
        return f"torch's flex_attention is served on CPU and CUDA, not on {device}"
    if backward:
        return "torch's flex_attention has no backward on the CPU"
    if "AVX" not in torch.backends.cpu.get_cpu_capability():
        return "torch's flex_attention needs a CPU with AVX2"
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"torch compiles flex_attention by {compiler}, which is not found: install it, or set CXX"
    return None


def _supports(case: Case) -> str | None:
    width = min(case.head_dim, case.value_dim)
    return causal_only(case) or _refusal(case.device, case.dtype, width, case.backward)


register_kernel("window-flex", window_flex, costs=flex_costs, supports=_supports)
