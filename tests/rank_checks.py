"""What ranks that share a sequence compute, held to the oracle of the whole one: run by `tests.ranks`."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import _functional_collectives as functional
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import attention
from attention import fast_path
from attention.distributed import linear_attention
from attention.kernels.references import linear_reference
from attention.kernels.references.errors import TOLERANCES, gradient_error, relative_error
from attention.torch_internals import collectives
from benchmarks.distributed.counting import Counting
from benchmarks.distributed.subjects import SUBJECTS
from tests.rank_failures import FAILURES

TOKENS, UNEQUAL = 130, {1: [130], 2: [63, 67], 4: [1, 0, 64, 65]}
PACKED = [
    [0, TOKENS],
    [0, 30, 30, 80, TOKENS],
    [0, 1, 63, 70, TOKENS],  # ends where a rank does
    [0, 5, 10, 20, 63, 64, 65, 66, 129, TOKENS],
]


def inputs(batch: int = 2, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v of four heads of queries and two of keys, and a gradient of the output, on all ranks alike."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 16), (2, 16), (2, 8), (4, 8)]
    return [torch.randn(batch, h, TOKENS, d, generator=generator, dtype=dtype) for h, d in shapes]


def with_gradients(function: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, do: Tensor) -> list[Tensor]:
    """The output of a function and the gradients of q, k and v."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out = function(*leaves)
    out.backward(do)
    return [out.detach(), *(x.grad for x in leaves)]


def place(parts: Sequence[int]) -> slice:
    """The tokens of this rank."""
    return [slice(*ends) for ends in pairwise(accumulate(parts, initial=0))][dist.get_rank()]


def holds(got: Sequence[Tensor], exact: Sequence[Tensor], here: slice, dtype: torch.dtype) -> None:
    """The results of this rank are those of its tokens in the whole sequence, within the tolerance."""
    forward, backward = TOLERANCES[dtype]
    wanted = [x[:, :, here] for x in exact]
    if not wanted[0].numel():
        assert not got[0].numel()
        return
    assert relative_error(got[0], wanted[0]) <= forward
    if any(x.any() for x in wanted[1:]):
        assert gradient_error(got[1:], wanted[1:]) <= backward


def equals_the_whole(
    parts: Sequence[int], dtype: torch.dtype, backend: str, batch: int = 2, **options: Any
) -> None:
    """Output and gradients in parts are those of the oracle over the whole sequence."""
    tensors, here = inputs(1 if "cu_seqlens" in options else batch, dtype), place(parts)
    exact = with_gradients(partial(linear_reference, **options), *(x.double() for x in tensors))
    if "cu_seqlens" in options:
        options["parts"] = parts
    ours = partial(linear_attention, backend=backend, **options)
    got = with_gradients(ours, *(x[:, :, here] for x in tensors))
    holds(got, exact, here, dtype)


def unequal_parts(causal: bool, backend: str) -> None:
    for dtype in (torch.float64, torch.float32):
        equals_the_whole(UNEQUAL[dist.get_world_size()], dtype, backend, causal=causal)


def packed(causal: bool) -> None:
    for ends in PACKED:
        parts = UNEQUAL[dist.get_world_size()]
        equals_the_whole(parts, torch.float64, "native", causal=causal, cu_seqlens=torch.tensor(ends))


def a_map_of_ones_own() -> None:
    equals_the_whole(
        UNEQUAL[dist.get_world_size()], torch.float64, "chunked", causal=True, feature_map=torch.exp
    )


def two_calls_give_the_same_bits() -> None:
    here = place(UNEQUAL[dist.get_world_size()])
    for causal in (True, False):
        mine = [x[:, :, here] for x in inputs(dtype=torch.float32)]
        once, again = (with_gradients(partial(linear_attention, causal=causal), *mine) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def without_private_names_the_public_collectives_do_the_same() -> None:
    here = place(UNEQUAL[dist.get_world_size()])
    for causal in (True, False):
        mine = [x[:, :, here] for x in inputs(dtype=torch.float32)]
        ours = partial(linear_attention, causal=causal)
        found = [with_gradients(ours, *mine)]
        for names in (("_GatherOptions", "_SumOptions"), ("_group_of_name",), ("_wait",)):
            with pytest.MonkeyPatch.context() as patch:
                for name in names:
                    patch.setattr(collectives, name, None)
                found.append(with_gradients(ours, *mine))
                with Counting():  # where operators are observed
                    found.append(with_gradients(ours, *mine))
        assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def a_single_rank_is_the_plain_operator() -> None:
    alone = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
    for causal in (True, False):
        tensors = inputs(dtype=torch.float32)
        plain = with_gradients(partial(attention.linear_attention, causal=causal), *tensors)
        ours = with_gradients(partial(linear_attention, causal=causal, group=alone), *tensors)
        assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))


def dtensors_and_a_mesh_of_data_and_sequence() -> None:
    ranks = dist.get_world_size()
    data = 2 if ranks == 4 else 1
    mesh = init_device_mesh("cpu", (data, ranks // data), mesh_dim_names=("dp", "cp"))
    tensors = inputs()
    exact = with_gradients(partial(linear_reference, causal=True), *tensors)
    cut = [distribute_tensor(x, mesh, [Shard(0), Shard(2)]) for x in tensors]
    got = with_gradients(partial(linear_attention, causal=True), *cut)
    whole = [x.full_tensor() for x in got]  # type: ignore[attr-defined]
    assert got[0].placements == (Shard(0), Shard(2))  # type: ignore[attr-defined]
    holds(whole, exact, slice(None), torch.float64)
    local = [x.to_local() for x in cut]
    again = linear_attention(*local[:3], mesh=mesh["cp"], causal=True)
    assert torch.equal(again, got[0].to_local())  # type: ignore[attr-defined]


def heads_cut_as_well() -> None:
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("tp", "cp"))
    tensors = inputs()
    cut = [distribute_tensor(x, mesh, [Shard(1), Shard(2)]) for x in tensors[:3]]
    got = linear_attention(*cut)
    assert relative_error(got.full_tensor(), linear_reference(*tensors[:3])) <= TOLERANCES[torch.float64][0]  # type: ignore[attr-defined]


def compiled() -> None:
    """torch.compile takes the whole call, collectives included, into one graph."""
    here = place(UNEQUAL[dist.get_world_size()])
    mine = [x[:, :, here] for x in inputs(dtype=torch.float32)]
    for causal in (True, False):
        ours = partial(linear_attention, causal=causal)
        eager = with_gradients(ours, *mine)
        traced = with_gradients(torch.compile(ours, backend="aot_eager", fullgraph=True), *mine)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(eager, traced, strict=True))


def what_is_exchanged_does_not_depend_on_the_length() -> None:
    """The bytes of the collectives that were issued are those of the law, at every length, both ways."""
    ranks, found = dist.get_world_size(), set()
    batch, heads, width, value_width = 2, 2, 16, 8
    state = batch * heads * width * (value_width + 1) * 4
    for tokens in (1, 7, 64, 130):
        mine = [x[:, :, :tokens] for x in inputs(dtype=torch.float32)]
        for causal in (True, False):
            with Counting() as counted:
                with_gradients(partial(linear_attention, causal=causal), *mine)
            found.add((causal, counted.bytes))
    each_way = {True: (ranks - 1) * state, False: 2 * (ranks - 1) * state // ranks}
    assert found == {(causal, 2 * one) for causal, one in each_way.items()}


def other_collectives_are_counted_as_they_are_issued() -> None:
    """What torch's context parallelism issues: keys and values gathered, or handed round a ring."""
    ranks, group = dist.get_world_size(), dist.group.WORLD
    assert group is not None
    x = torch.ones(24)
    with Counting() as counted:
        assert len(collectives.gathered(x, group)()) == 24 * ranks
        assert functional.permute_tensor(x, [*range(1, ranks), 0], group).sum() == 24
    assert (counted.bytes, counted.calls, counted.unknown) == ((ranks - 1) * 96 + 96, 2, set())


def calls_without_their_exchange_return_at_once() -> None:
    """With nothing exchanged a rank reads its own state in the place of the others', and waits for nobody."""
    if dist.get_rank() == 0:  # the others take no part
        mine = [x[:, :, :7] for x in inputs(dtype=torch.float32)]
        for causal in (True, False):
            with Counting(leave_out=True):
                out, *_ = with_gradients(partial(linear_attention, causal=causal), *mine)
            assert out.isfinite().all()
    dist.barrier()


def torch_cuts_sequences_as_its_context_parallelism_does() -> None:
    """Causal, a rank has a block from either end; the function that it puts in torch's place goes again."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    x = torch.arange(4.0 * ranks).view(1, 1, -1, 1)
    blocks = x.chunk(2 * ranks, 2)
    balanced = torch.cat([blocks[rank], blocks[2 * ranks - 1 - rank]], 2)
    before, world = torch.nn.functional.scaled_dot_product_attention, dist.group.WORLD
    assert world is not None
    for name in ("standard-context-parallel", "standard-context-parallel-ring"):
        for causal, wanted in ((True, balanced), (False, x.chunk(ranks, 2)[rank])):
            with SUBJECTS[name].around(causal, [x, 2 * x], world) as parts:
                assert torch.equal(parts[0], wanted) and torch.equal(parts[1], 2 * wanted)
    assert torch.nn.functional.scaled_dot_product_attention is before


def misfits_are_refused_before_anything_is_sent() -> None:
    q, k, v, _ = inputs()
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("dp", "cp"))
    for words, options in (
        ("slice of it", {"mesh": mesh}),
        ("give one of them", {"mesh": mesh["cp"], "group": dist.group.WORLD}),
        ("must be a DeviceMesh", {"mesh": "cp"}),
        ("must be a ProcessGroup", {"group": [0, 1]}),
        ("of packed sequences", {"parts": [1]}),
        ("ascend from 0", {"cu_seqlens": torch.tensor([0, 3])}),
        ("int32 or int64", {"cu_seqlens": [0, 3]}),
        ("of each of", {"cu_seqlens": torch.tensor([0, 3]), "parts": [3]}),
    ):
        one = [x[:1] for x in (q, k, v)]
        refuses(words, *one, **options)
    refuses("a key for each", q[:, :, :3], k, v, causal=True)
    refuses("as many queries as keys", q, k, v, cu_seqlens=torch.tensor([0, TOKENS]))
    cut = distribute_tensor(q, mesh, [Shard(0), Shard(1)])
    refuses("Shard(2)", cut, cut, cut)
    refuses("or none of them", cut, k, v)


def a_destroyed_group_is_refused_and_let_go(backend: str = "auto") -> None:
    """What was planned for its calls keeps none of its threads and files."""
    x = [one[:, :, :50].contiguous() for one in inputs(1, torch.float32)[:3]]
    group = dist.new_group()
    let_go = weakref.ref(group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_path, "DEVICES", ["cpu"])
        for causal in (True, False):
            for _ in range(3):
                linear_attention(*x, group=group, causal=causal, backend=backend)
        assert sum(map(len, fast_path._CALLS.values())) == (2 if backend == "triton" else 0)
        dist.destroy_process_group(group)
        with pytest.raises(RuntimeError, match="process group"):
            linear_attention(*x, group=group, causal=True, backend=backend)
    del group
    gc.collect()
    assert let_go() is None
    fast_path.forget_calls()


def refuses(words: str, *tensors: Any, **options: Any) -> None:
    """The call is refused in a sentence that holds these words."""
    try:
        linear_attention(*tensors, **options)
    except (TypeError, ValueError) as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"nothing was refused: {words}")


CHECKS: dict[str, Callable[[], None]] = {
    **{
        f"unequal_parts_{backend}_{'causal' if causal else 'bidirectional'}": partial(
            unequal_parts, causal, backend
        )
        for backend in ("explicit", "chunked", "native")
        for causal in (True, False)
    },
    "packed_causal": partial(packed, True),
    "packed_bidirectional": partial(packed, False),
    **{
        check.__name__: check
        for check in (
            a_map_of_ones_own,
            two_calls_give_the_same_bits,
            without_private_names_the_public_collectives_do_the_same,
            a_single_rank_is_the_plain_operator,
            dtensors_and_a_mesh_of_data_and_sequence,
            heads_cut_as_well,
            what_is_exchanged_does_not_depend_on_the_length,
            other_collectives_are_counted_as_they_are_issued,
            calls_without_their_exchange_return_at_once,
            torch_cuts_sequences_as_its_context_parallelism_does,
            misfits_are_refused_before_anything_is_sent,
            a_destroyed_group_is_refused_and_let_go,
        )
    },
    **FAILURES,  # in one group, whose start takes seconds
}
COMPILED: dict[str, Callable[[], None]] = {"compiled": compiled}
