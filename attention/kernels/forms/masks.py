"""Which keys a query sees, and which arguments say so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from attention.inputs import describe
from attention.torch_internals.transforms import without_numbers

NO_GRAPH = (
    "packed sequences are computed one by one here, and a graph has no values of cu_seqlens to cut them at; "
    "compile without fullgraph=True"
)

NO_NUMBERS = (
    "packed sequences are asked for, and {} holds no numbers, being of torch's FakeTensorMode or on meta; "
    "call it on real tensors, outside of that mode"
)


def check_padding(mask: object, k: Tensor) -> Tensor:
    """The padding mask ``[B, Nk]``, True where a key is ignored.

    Raises:
        TypeError: no dense tensor of bool.
        ValueError: another shape or device.
    """
    if not isinstance(mask, Tensor) or mask.layout != torch.strided or mask.is_nested:
        raise TypeError(
            f"key_padding_mask must be a bool tensor [B, Nk], True = ignore; got {describe(mask)}"
        )
    if mask.dtype != torch.bool:
        raise TypeError(f"key_padding_mask must be of dtype bool, True = ignore; got {mask.dtype}")
    wanted = (k.shape[0], k.shape[2])
    if tuple(mask.shape) != wanted or mask.device != k.device:
        raise ValueError(
            f"key_padding_mask must be [B, Nk] = {list(wanted)} on {k.device}; "
            f"got {list(mask.shape)} on {mask.device}"
        )
    return mask


def check_packed(cu_seqlens: object, q: Tensor, k: Tensor) -> Tensor:
    """Where packed sequences begin, and the last ends: ``[0, ..., total]`` in int32 or int64.

    Values are looked at on a CPU only; of a card they would have to be waited for.

    Raises:
        TypeError: no dense tensor of integers.
        ValueError: another rank or device, tokens that are no batch of 1 or of two lengths, or values that
            do not ascend from 0 to the number of tokens.
    """
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.layout != torch.strided or cu_seqlens.is_nested:
        raise TypeError(
            f"cu_seqlens must be a tensor of integers [sequences + 1]; got {describe(cu_seqlens)}"
        )
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"cu_seqlens must be of dtype int32 or int64; got {cu_seqlens.dtype}")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"cu_seqlens must be [sequences + 1], from 0 on; got {list(cu_seqlens.shape)}")
    if cu_seqlens.device.type != "cpu" and cu_seqlens.device != q.device:
        raise ValueError(f"cu_seqlens must be beside q on {q.device} or on the CPU; got {cu_seqlens.device}")
    shapes = f"got q {list(q.shape)}, k {list(k.shape)}"
    if q.shape[0] != 1 or q.shape[2] != k.shape[2]:
        raise ValueError(f"packed sequences are [1, H, total, D], as many queries as keys; {shapes}")
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        check_ends(values_of(cu_seqlens), q.shape[2])
    return cu_seqlens


def values_of(cu_seqlens: Tensor) -> list[int]:
    """The ends of packed sequences as numbers; on a card this waits for them.

    Raises:
        ValueError: a fake tensor or one on ``meta``, which has no numbers.
    """
    if without_numbers(cu_seqlens):
        raise ValueError(NO_NUMBERS.format("cu_seqlens"))
    ends: list[int] = cu_seqlens.tolist()
    return ends


def check_beside(cu_seqlens: Tensor, q: Tensor) -> None:
    """Refuse real ends beside fake queries, for a kernel that reads both in one operator.

    Raises:
        ValueError: queries of ``FakeTensorMode`` or on ``meta``, and ends that are not.
    """
    if without_numbers(q) and not without_numbers(cu_seqlens):
        raise ValueError(NO_NUMBERS.format("q beside cu_seqlens that does"))


def check_ends(ends: Sequence[int], tokens: int) -> None:
    """Refuse what are no ends of packed sequences.

    Raises:
        ValueError: values that do not ascend from 0 to the number of tokens.
    """
    if ends[0] != 0 or ends[-1] != tokens or any(a > b for a, b in pairwise(ends)):
        raise ValueError(f"cu_seqlens must ascend from 0 to the {tokens} tokens; got {f'{ends[:8]}':.60}")


def sequences(cu_seqlens: Tensor, tokens: int) -> list[slice]:
    """The places of packed sequences; on a card this waits for the values.

    Raises:
        ValueError: values that do not ascend from 0 to the number of tokens.
        RuntimeError: a compiler traces; without ``fullgraph=True`` it then leaves the call as it is.
    """
    if torch.compiler.is_compiling():
        raise RuntimeError(NO_GRAPH)
    ends = values_of(cu_seqlens)
    check_ends(ends, tokens)
    return [slice(a, b) for a, b in pairwise(ends)]


def hidden(
    queries: int, keys: int, *, causal: bool, device: torch.device, padding: Tensor | None = None
) -> Tensor:
    """Which keys are hidden from which queries: ``[1 or B, 1, Nq, Nk]``, aligned at the end where causal.

    Nq is 1 where all queries see the same.
    """
    if causal:
        found = torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries + 1)
    else:
        found = torch.zeros(1, keys, dtype=torch.bool, device=device)
    return found[None, None] if padding is None else found | padding[:, None, None, :]


def never_all(hidden: Tensor) -> Tensor:
    """A mask of hidden keys ``[..., Nq, Nk]``, in which a query that sees no key sees the first.

    Behind :func:`attention.kernels.forms.standard.attend` that key is one of zeros: the output is 0, where
    a softmax of nothing would be NaN.
    """
    first = hidden[..., :1] & ~hidden.all(-1, keepdim=True)
    return torch.cat([first, hidden[..., 1:]], -1)
