"""Linear attention in Triton as an operator of torch's: the passes in order, forward and backward.

Triton is imported at the first call: where it is missing, the kernel says so instead of the package failing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention.kernels.triton_plan import FOLDED, segments, summed, tiles

SCAN_ROWS, SCAN_WIDTH = 16, 64


class State(NamedTuple):
    """Sums of the segments, ``S`` [B H, M, D, Dv] and ``z`` [B H, M, D], and what preceded: ``S0``, ``z0``.

    Scanned, the sums are those of all segments before each one (behind it in a backward), M + 1 of them.
    """

    S: Tensor | None
    z: Tensor | None
    S0: Tensor | None
    z0: Tensor | None
    scanned: bool

    def pointers(self, unused: Tensor) -> list[Tensor]:
        """What stands for the four tensors in a launch."""
        return [unused if x is None else x for x in self[:4]]

    def switches(self) -> tuple[bool, bool, bool]:
        """SCANNED, SUMS, INITIAL."""
        return self.scanned, self.S is not None, self.S0 is not None

    def total(self, *, reverse: bool) -> tuple[Tensor, Tensor]:
        """S and z over the whole sequence."""
        assert self.S is not None and self.z is not None
        if self.scanned:
            slot = 0 if reverse else -1
            return self.S[:, slot], self.z[:, slot]
        S, z = self.S.sum(1), self.z.sum(1)
        return (S, z) if self.S0 is None or self.z0 is None else (S + self.S0, z + self.z0)


class Launches:
    """The passes of one call, and what all of them take."""

    def __init__(self, q: Tensor, v: Tensor, causal: bool, phi: str, precision: str) -> None:
        from triton import language as tl

        from attention.kernels import triton_passes as passes

        self.passes = passes
        self.batch, self.heads_of_one, self.N, self.D = q.shape
        self.heads, self.E = self.batch * self.heads_of_one, v.shape[-1]
        self.causal, self.device = causal, q.device
        self.narrow = q.dtype == torch.bfloat16
        operand = tl.bfloat16 if self.narrow else tl.float32
        self.how = (phi, operand, precision)
        self.size, self.segments = segments(self.N, self.heads, q.device)
        self.shape = (self.heads_of_one, self.N, self.D, self.E, self.segments, self.size)

    def buffer(self, *shape: int) -> Tensor:
        """Float32, one for each head."""
        return torch.empty(self.heads, *shape, dtype=torch.float32, device=self.device)

    def states(
        self, x: Tensor, y: Tensor, count: int, upstream: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """S and z of the first ``count`` segments; ``upstream`` is out, inv, delta in a backward."""
        t = tiles(self.E, self.D, self.narrow)
        S, z = self.buffer(self.segments, self.D, self.E), self.buffer(self.segments, self.D)
        out, inv, delta = upstream or (y, z, z)
        self.passes.states[(self.heads * count * t.blocks,)](
            x, y, out, inv, delta, S, z, *_strides(x, y, out), *self.shape, count,
            upstream is not None, *self.how, t.C, t.block, t.whole, t.blocks, t.num_stages,
            self.N % t.C != 0, self.D % t.block != 0, t.whole != self.E, num_warps=t.num_warps,
        )  # fmt: skip
        return S, z

    def gather(
        self,
        sums: tuple[Tensor, Tensor],
        initial: tuple[Tensor | None, Tensor | None],
        count: int,
        *,
        reverse: bool,
    ) -> State:
        """The sums as the next pass wants them: few as they are, many scanned."""
        if count <= FOLDED:
            return State(*sums, *initial, scanned=False)
        prefixes = self.buffer(self.segments + 1, self.D, self.E), self.buffer(self.segments + 1, self.D)
        for partial, start, prefix in zip(sums, initial, prefixes, strict=True):
            width = prefix[0, 0].numel()
            blocks = -(-width // SCAN_WIDTH)
            self.passes.scan[(self.heads * blocks,)](
                partial, prefix, prefix if start is None else start, width, blocks, self.segments, count,
                start is not None, reverse, SCAN_ROWS, SCAN_WIDTH,
            )  # fmt: skip
        return State(*prefixes, None, None, scanned=True)

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, eps: float = 0.0, keep: bool = False,
    ) -> None:  # fmt: skip
        """The output and, to ``keep`` for a backward, its inverse normalisers; in reverse dv."""
        t = tiles(self.D, self.E, self.narrow)
        self.passes.attend[(self.heads * self.segments * t.blocks,)](
            a, b, c, out, inv, *state.pointers(inv), *_strides(a, b, c, out), *self.shape, eps,
            self.causal, reverse, keep, *state.switches(), *self.how,
            t.C, t.whole, t.block, t.blocks, t.num_stages,
            self.N % t.C != 0, t.whole != self.D, self.E % t.block != 0, num_warps=t.num_warps,
        )  # fmt: skip

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: tuple[Tensor, Tensor],
        state: State, *, reverse: bool,
    ) -> None:  # fmt: skip
        """dq, in reverse dk; ``rows`` are inv and delta."""
        t = tiles(self.E, self.D, self.narrow)
        self.passes.differentiate[(self.heads * self.segments * t.blocks,)](
            a, b, x, y, out, *rows, *state.pointers(rows[0]), *_strides(a, b, x, y, out), *self.shape,
            self.causal, reverse, *state.switches(), *self.how, t.C, t.block, t.whole, t.blocks, t.num_stages,
            self.N % t.C != 0, self.D % t.block != 0, t.whole != self.E, num_warps=t.num_warps,
        )  # fmt: skip


def _strides(*tensors: Tensor) -> list[int]:
    """Of batch, head and token; the last is 1."""
    return [stride for x in tensors for stride in x.stride()[:3]]


# Defined by hand: what ``custom_op`` wraps around each call costs more than the launches of a short sequence.
torch.library.define(
    "attention::linear_triton",
    "(Tensor q, Tensor k, Tensor v, Tensor? S0, Tensor? z0, bool causal, str phi, float eps, str precision, "
    "bool final, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "attention::linear_triton_backward",
    "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor out, Tensor inv, Tensor S, Tensor z, Tensor? S0, "
    "Tensor? z0, Tensor? dS, Tensor? dz, bool causal, str phi, str precision, bool final) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("attention::linear_triton", ("cpu", "cuda"))
def _forward(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor | None, z0: Tensor | None,
    causal: bool, phi: str, eps: float, precision: str, final: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The output, and what a backward or a continuation wants of it; what nobody wants is empty.

    out ``[B, H, N, Dv]``; to ``keep``: inverse normalisers ``[B H, N]`` and the sums of :class:`State`; if
    ``final``: S ``[B H, D, Dv]`` and z ``[B H, D]`` after the last token.
    """
    run = Launches(q, v, causal, phi, precision)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    count = summed(run.segments, causal=causal, final=final)
    state = State(None, None, S0, z0, scanned=False)
    if count:
        state = run.gather(run.states(k, v, count), (S0, z0), count, reverse=False)
    inv = run.buffer(run.N if keep else 0)
    run.attend(q, k, v, out, inv, state, reverse=False, eps=eps, keep=keep)
    sums = (x if x is not None and keep else run.buffer(0) for x in state[:2])
    last = (x.clone() for x in state.total(reverse=False)) if final else (run.buffer(0), run.buffer(0))
    return out, inv, *sums, *last


@torch.library.register_fake("attention::linear_triton")  # type: ignore[untyped-decorator]
def _(
    q: Tensor, k: Tensor, v: Tensor, S0: Tensor | None, z0: Tensor | None,
    causal: bool, phi: str, eps: float, precision: str, final: bool, keep: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    heads, N, D, E = q.shape[0] * q.shape[1], q.shape[2], q.shape[3], v.shape[3]
    _, parts = segments(N, heads, q.device)
    count = summed(parts, causal=causal, final=final)
    slots = parts + 1 if count > FOLDED else parts

    def empty(*shape: int) -> Tensor:
        return q.new_empty(heads, *shape, dtype=torch.float32)

    sums = (empty(slots, D, E), empty(slots, D)) if keep and count else (empty(0), empty(0))
    last = (empty(D, E), empty(D)) if final else (empty(0), empty(0))
    return torch.empty_like(v, memory_format=torch.contiguous_format), empty(N if keep else 0), *sums, *last


@torch.library.impl("attention::linear_triton_backward", ("cpu", "cuda"))
def _differentiate(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, inv: Tensor, S: Tensor, z: Tensor,
    S0: Tensor | None, z0: Tensor | None, dS: Tensor | None, dz: Tensor | None,
    causal: bool, phi: str, precision: str, final: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, dS0, dz0, from what the forward took and returned, and dS, dz of its end."""
    run = Launches(q, v, causal, phi, precision)
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty_like(inv)
    count = summed(run.segments, causal=causal, final=final)
    before = State(S if count else None, z if count else None, S0, z0, scanned=count > FOLDED)
    if before.scanned:
        before = before._replace(S0=None, z0=None)
    sums = run.states(q, do, run.segments, (out, inv, delta))
    behind = run.gather(sums, (dS, dz), run.segments, reverse=True)
    run.differentiate(do, v, q, k, dq, (inv, delta), before, reverse=False)
    run.differentiate(v, do, k, q, dk, (inv, delta), behind, reverse=True)
    run.attend(k, q, do, dv, inv, behind, reverse=True)
    first = (
        (x.clone() for x in behind.total(reverse=True)) if S0 is not None else (run.buffer(0), run.buffer(0))
    )
    return dq, dk, dv, *first


@torch.library.register_fake("attention::linear_triton_backward")  # type: ignore[untyped-decorator]
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    contiguous = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    S0, z0 = rest[4:6]
    heads = q.shape[0] * q.shape[1]
    first = [
        q.new_empty(heads, 0, dtype=torch.float32) if x is None else torch.empty_like(x) for x in (S0, z0)
    ]
    return (*contiguous, *first)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, S0, z0, ctx.causal, ctx.phi, _, ctx.precision, ctx.final, _ = inputs
    ctx.save_for_backward(q, k, v, *output[:4], S0, z0)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, do: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, inv, S, z, S0, z0 = ctx.saved_tensors
    dS, dz = (x if ctx.final else None for x in others[3:])
    if do is None and dS is None and dz is None:
        return (None,) * 11
    if do is None:
        do = torch.zeros_like(out)
    if (dS is None) != (dz is None):
        dS = torch.zeros(z.shape[0], q.shape[-1], v.shape[-1], device=q.device) if dS is None else dS
        dz = torch.zeros(z.shape[0], q.shape[-1], device=q.device) if dz is None else dz
    dS, dz = (x if x is None else x.contiguous() for x in (dS, dz))
    grads = triton_backward(
        unit_stride(do),
        q,
        k,
        v,
        out,
        inv,
        S,
        z,
        S0,
        z0,
        dS,
        dz,
        ctx.causal,
        ctx.phi,
        ctx.precision,
        ctx.final,
    )
    initial = (None, None) if S0 is None else grads[3:]
    return *grads[:3], *initial, *(None,) * 6


def unit_stride(x: Tensor) -> Tensor:
    """Itself if its last stride is 1, which is all that the passes ask for."""
    return x if x.stride(-1) == 1 else x.contiguous()


torch.library.register_autograd("attention::linear_triton", _backward, setup_context=_setup_context)
triton_forward = torch.ops.attention.linear_triton.default
triton_backward = torch.ops.attention.linear_triton_backward.default
