"""What ranks compute together: our sequence-parallel linear attention, and torch's context parallelism.

Each is a function of this rank's part of q, k and v. How a sequence is cut into parts is its own: ours are
contiguous, torch's causal ones are two blocks each, one from either end, so that all ranks have equal work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

from torch import Tensor
from torch import distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional as F

from attention import Case, Reference, distributed, linear_attention
from attention.choosing import choose
from attention.costs import Costs
from attention.kernels.references import REFERENCES
from attention.kernels.registry import Kernel
from attention.torch_internals.collectives import context_parallelism

Attend = Callable[..., Tensor]
Around = Callable[[bool, Sequence[Tensor], ProcessGroup], AbstractContextManager[Sequence[Tensor]]]


@dataclass(frozen=True)
class Subject:
    """A function that ranks compute together.

    Attributes:
        reference: The oracle of the whole sequence.
        plain: The family of the kernel that one rank alone would call, whose costs are shared.
        attend: ``attend(q, k, v, *, causal, group)`` of this rank's parts, within ``around``.
        around: ``around(causal, tensors, group)`` is a block in which it is called; the tensors, whole
            sequences ``[B, H, N, D]``, are cut to this rank's parts by it.
        supports: Why it cannot serve a case, or None.
        exchanged: Bytes that a rank receives in a call of a case, by the law; None where none is stated.
    """

    reference: Reference
    plain: str
    attend: Attend
    around: Around
    supports: Callable[[Case], str | None]
    exchanged: Callable[[Case, int], int | None]

    def costs(self, case: Case) -> Costs | None:
        """The costs of the whole sequence on one rank."""
        return _plain(case, self.plain)[0].known_costs(_plain(case, self.plain)[1])


def plain(case: Case, **changes: object) -> Case:
    """A case as one of a single rank, with these fields changed."""
    return Case(**{**{name: getattr(case, name) for name in Case.__dataclass_fields__}, **changes})


def _plain(case: Case, family: str) -> tuple[Kernel, Case]:
    """The kernel that one rank alone would call, and its case."""
    kernel = choose(plain(case, kernel=f"{family}-auto"))
    return kernel, plain(case, kernel=kernel.name)


# --- linear attention --------------------------------------------------------------------------------


@contextmanager
def _contiguous(causal: bool, tensors: Sequence[Tensor], group: ProcessGroup) -> Iterator[Sequence[Tensor]]:
    """Parts of neighbouring tokens."""
    yield [x.chunk(group.size(), 2)[group.rank()].contiguous() for x in tensors]


def _linear_supports(case: Case) -> str | None:
    try:
        _plain(case, "linear")
    except ValueError as error:
        return str(error)
    return None


def state_bytes(case: Case) -> int:
    """Bytes of the states of a batch: B Hkv D (Dv + 1) numbers of float32, of float64 where tokens are."""
    wide = max(4, case.itemsize)
    return case.batch * case.key_heads * case.head_dim * (case.value_dim + 1) * wide


def _linear_exchanged(case: Case, ranks: int) -> int:
    """One exchange of states a pass, whatever the length."""
    each = (ranks - 1) * state_bytes(case)
    return (2 if case.backward else 1) * (each if case.causal else 2 * each // ranks)


# --- standard attention ------------------------------------------------------------------------------


@cache
def _mesh_of(group: ProcessGroup, device: str) -> DeviceMesh:
    """The mesh that torch's context parallelism takes."""
    return DeviceMesh.from_group(group, device, mesh_dim_names=("cp",))


def _rotating(method: str) -> Around:
    """Torch's context parallelism; keys and values go round by this method, ``allgather`` or ``alltoall``."""

    @contextmanager
    def around(causal: bool, tensors: Sequence[Tensor], group: ProcessGroup) -> Iterator[Sequence[Tensor]]:
        from torch.distributed.tensor.experimental import context_parallel

        parts = [x.detach().clone() for x in tensors]
        mesh = _mesh_of(group, tensors[0].device.type)
        dimensions = [2] * len(parts)
        blocks = context_parallel(
            mesh, buffers=parts, buffer_seq_dims=dimensions, no_restore_buffers=set(parts)
        )
        with context_parallelism(balanced=causal, rotation=method), blocks:
            yield parts

    def alone(
        causal: bool, tensors: Sequence[Tensor], group: ProcessGroup
    ) -> AbstractContextManager[Sequence[Tensor]]:
        return nullcontext(tensors) if group.size() == 1 else around(causal, tensors, group)

    return alone


def _sdpa(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, group: ProcessGroup) -> Tensor:
    # Looked up at each call: torch's context parallelism puts its own function in the place of this one.
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def _standard_supports(case: Case) -> str | None:
    if case.device == "cpu" and dist.get_world_size() > 1:
        return "torch's context parallelism has kernels for CUDA alone"
    return None


def _standard_exchanged(case: Case, ranks: int) -> int | None:
    """Keys and values of all other ranks, forward; what torch sends in a backward is counted alone."""
    if case.backward:
        return 0 if ranks == 1 else None
    kept = case.batch * case.key_heads * case.seq_len * (case.head_dim + case.value_dim) * case.itemsize
    return (ranks - 1) * kept // ranks


def _linear(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, group: ProcessGroup) -> Tensor:
    if group.size() == 1:
        return linear_attention(q, k, v, causal=causal)
    return distributed.linear_attention(q, k, v, causal=causal, group=group)


SUBJECTS = {
    "linear-sequence-parallel": Subject(
        REFERENCES["linear"], "linear", _linear, _contiguous, _linear_supports, _linear_exchanged
    ),
    "standard-context-parallel": Subject(
        REFERENCES["standard"], "standard", _sdpa, _rotating("allgather"), _standard_supports,
        _standard_exchanged,
    ),
    "standard-context-parallel-ring": Subject(
        REFERENCES["standard"], "standard", _sdpa, _rotating("alltoall"), _standard_supports,
        _standard_exchanged,
    ),
}  # fmt: skip
"""By the names under which they are recorded."""
