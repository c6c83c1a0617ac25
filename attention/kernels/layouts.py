"""How tensors lie in memory: results that lie like them, and what cannot be written in its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from attention.kernels.tensors import differentiated
from attention.torch_internals.transforms import transformed


def contiguous_like(x: Tensor) -> Tensor:
    """An empty contiguous tensor like x: an expanded one, say, has no room for a gradient."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def result_like(x: Tensor) -> Tensor:
    """An empty tensor that lies in memory as x does, so far as rows of last stride 1 can."""
    out = torch.empty_like(x)
    # torch keeps the order of the strides, which of a tensor with gaps or overlaps may end with another.
    return out if out.stride()[-1] == 1 else contiguous_like(x)


def output_like(q: Tensor, v: Tensor) -> Tensor:
    """An empty output ``[B, Hq, Nq, Dv]`` that lies as the tensor of its shape, v or else q, if one is."""
    if q.shape[:3] == v.shape[:3]:
        return result_like(v)
    return result_like(q) if q.shape[3] == v.shape[3] else q.new_empty(*q.shape[:3], v.shape[3])


def contiguous_output(q: Tensor, v: Tensor) -> Tensor:
    """An empty contiguous output ``[B, Hq, Nq, Dv]``."""
    return output_maker(q, v)(v)


def output_maker(q: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
    """How the output of such queries and values is made, of other values that are like these."""
    if q.shape[1] == v.shape[1] and q.shape[2] == v.shape[2]:  # the faster way, for a short sequence
        return torch.empty_like if v.is_contiguous() else contiguous_like
    shape = (*q.shape[:3], v.shape[3])
    return lambda v: v.new_empty(shape)


def unit_stride(x: Tensor) -> Tensor:
    """The tensor if its last stride is 1, else a contiguous copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def overlaps(x: Tensor, *, expanded: bool) -> bool:
    """Whether elements of a tensor may share memory; dimensions of stride 0 count where ``expanded``."""
    return not x.is_contiguous() and _overlap(x.shape, x.stride(), expanded)


@lru_cache
def _overlap(shape: tuple[int, ...], strides: tuple[int, ...], expanded: bool) -> bool:
    reach = 0
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and (stride or expanded):
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def apart(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, copied where several of their elements are one in memory.

    torch writes outputs and gradients in the layouts of inputs. Expanded ones are copied only where gradients
    may be wanted, as torch reads them well.
    """
    if all(x.is_contiguous() for x in tensors):
        return tensors
    if torch.compiler.is_compiling():
        return tensors  # a compiler lays gradients out itself
    written = differentiated(*tensors)
    return tuple(
        x.clone(memory_format=torch.contiguous_format) if overlaps(x, expanded=written) else x
        for x in tensors
    )


def why_kept(*tensors: Tensor) -> str | None:
    """Why tensors cannot be overwritten one by one, or None.

    Of a compiler's tensors, and within a transform, it is not known where they lie.
    """
    if torch.compiler.is_compiling() or transformed():
        return None
    frozen, places = not torch.is_inference_mode_enabled(), []
    for x in tensors:  # written out, as a token waits for it
        if frozen and x.is_inference():
            return "torch lets tensors of inference mode be written within inference mode only"
        if not x.is_contiguous():
            if overlaps(x, expanded=True):
                return "several elements of an expanded or overlapping tensor are one in memory"
        elif type(x) is Tensor and (start := x.data_ptr()):  # 0: no memory
            places.append((start, start + x.nbytes))
    places.sort()
    if any(stop > start for (_, stop), (start, _) in pairwise(places)):
        return "its tensors share memory"
    return None
