"""Linear attention by chunks: the running sums, and the passes of forward and backward.

The sequence is cut into chunks of C tokens. The normaliser is a column of the values: with phi applied,
V = [v | 1], S = sum k V' and A = tril(QK') within a chunk,

    [num | den] = A V + Q S        o = num / (den + eps)        S += K'V

so that memory is O(N D) and time O(N D (D + C)). A block of several chunks is worked on at a time,
as batched matrix products over chunks and heads: on a CPU a block stays in the cache, on a GPU it
fills the card. Gradients, with G = [g | -(g . o)], g = do / (den + eps), U the sum of Q'G over *later*
chunks, and dA = tril(G V'):

    dQ = dA K + G S'        dK = dA'Q + V U'        dv = A'g + K U, of U the columns of g

A state of the tokens before is where S begins, the gradient of the last state where U does; the last U is the
gradient of the state before. Heads of queries that share one of keys are rows of one product, whose sums over
rows are then sums over these heads as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attention.kernels.blocks import Block, blocks, of_block
from attention.kernels.feature_maps import BLOCK_MAPS
from attention.kernels.linear_chunked.scratch import Rows, Scratch, value_columns

Pair = tuple[Tensor, Tensor] | None
"""S and z of a state, or of a gradient of one."""


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the matrix products; sums over tokens are never narrower than float32.

    A CPU converts low precision to float32 in the cache for less than its narrow products cost.
    On CUDA bfloat16 has the range for the running sums; float16 overflows from 65504 on.
    """
    if x.dtype is torch.bfloat16 and x.is_cuda:
        return x.dtype
    return torch.promote_types(x.dtype, torch.float32)


def new_states(count: int, q: Tensor, v: Tensor) -> Tensor:
    """An empty buffer for sums of phi(k) [v | 1]', in float32 at least."""
    return q.new_empty(states_shape(count, q, v), dtype=torch.promote_types(q.dtype, torch.float32))


def states_shape(count: int, q: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    """``[count, B Hkv, D, columns]``."""
    batch, heads, _, width = v.shape
    return count, batch * heads, q.shape[-1], value_columns(width, q.device.type)


def _accumulate(sums: Tensor, a: Tensor, b: Tensor) -> None:
    """Sums += a @ b. Not by the method ``baddbmm_``, of which torch's ``FlopCounterMode`` knows nothing."""
    torch.baddbmm(sums, a, b, out=sums)


def _load(target: Tensor, operation: Callable[..., Tensor], x: Tensor, other: Tensor) -> Tensor:
    """Target = operation(x, other), in one pass where nothing is converted."""
    return operation(x if x.dtype == target.dtype else target.copy_(x), other, out=target)


def _store(target: Tensor, operation: Callable[..., Tensor], a: Tensor, b: Tensor, room: Tensor) -> None:
    """Target = operation(a, b), by way of ``room`` where the target is narrower than the buffers."""
    if target.dtype == a.dtype:
        operation(a, b, out=target)
    else:
        target.copy_(operation(a, b, out=room))


class Passes:
    """The passes over the blocks of one call, and what they share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, phi: str, chunk_size: int) -> None:
        self.q, self.k, self.v = q, k, v
        self.phi = BLOCK_MAPS[phi]
        self.rows = k.shape[0] * k.shape[1]
        self.width = v.shape[-1]
        self.columns = value_columns(self.width, q.device.type)
        self.blocks, self.key_blocks = (
            blocks(x.shape[2], chunk_size, q.shape[0] * q.shape[1], q.device.type) for x in (q, k)
        )
        self.dtype = product_dtype(q)
        self.scratch = Scratch(k, self.dtype)
        self.group = self.scratch.group(q)

    def _mapped(self, name: str, x: Tensor, block: Block) -> Rows:
        """Phi of a block."""
        rows = self.scratch.load(name, x, block)
        work = self.scratch("work", block, x.shape[-1], self.scratch.group(x))
        self.phi.apply_(rows.all, work.all)
        return rows

    def _values(self, block: Block) -> Rows:
        """[v | 1] of a block."""
        rows = self.scratch("v", block, self.columns, fill=1)
        rows.tokens[..., : self.width] = of_block(self.v, block)
        return rows

    def _begun(self, before: Pair, sums: Tensor | None = None) -> Tensor:
        """Sums ``[B Hkv, D, columns]`` that begin with S ``[B, Hkv, D, Dv]`` and z ``[B, Hkv, D]``, or 0."""
        sums = (new_states(1, self.q, self.v)[0] if sums is None else sums).zero_()
        if before is not None:
            S, z = (x.flatten(0, 1) for x in before)
            sums[..., : self.width], sums[..., self.width] = S, z
        return sums

    def parts(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """S ``[B, Hkv, D, Dv]`` and z ``[B, Hkv, D]`` of such sums, in memory of their own."""
        sums = sums.view(*self.k.shape[:2], self.k.shape[3], self.columns)
        parts = sums[..., : self.width], sums[..., self.width]
        S, z = (x.clone(memory_format=torch.contiguous_format) for x in parts)
        return S, z

    def _store_output(self, out: Tensor, den: Tensor, eps: float, block: Block, num: Rows) -> None:
        """From [num | den] of a block; phi(q) is lost."""
        w, below = self.width, of_block(den, block)
        torch.add(num.tokens[..., w : w + 1], eps, out=below)
        # Without the column of den between them rows are converted in one run.
        room = self.scratch("q", block, w, self.group).tokens
        _store(of_block(out, block), torch.div, num.tokens[..., :w], below, room)

    def _store_gradient(self, grad: Tensor, block: Block, of_map: Rows, mapped: Rows) -> None:
        """From the gradient with respect to phi(x), and phi(x), which is lost."""
        self.phi.derivative_(mapped.all)
        _store(of_block(grad, block), torch.mul, of_map.tokens, mapped.tokens, of_map.tokens)

    def _normalised(self, upstream: tuple[Tensor, ...], block: Block) -> Rows:
        """G = [g | -(g . o)] of a block, g = do / den."""
        grad_out, out, den = (of_block(x, block) for x in upstream)
        w, rows = self.width, self.scratch("g", block, self.columns, self.group, fill=0)
        g = _load(rows.tokens[..., :w], torch.div, grad_out, den)
        product = _load(self.scratch("work", block, w, self.group).tokens, torch.mul, out, g)
        rows.tokens[..., w : w + 1] = product.sum(-1, keepdim=True).neg_()
        return rows

    # --- bidirectional: one state for all tokens -------------------------------------------------

    def forward(self, out: Tensor, den: Tensor, eps: float, state: Tensor, before: Pair = None) -> Tensor:
        """The state becomes the sum over all tokens, and is returned."""
        self._begun(before, state)
        for block in self.key_blocks:
            self._add_(state, self._mapped("k", self.k, block), self._values(block))
        for block in self.blocks:
            q = self._mapped("q", self.q, block)
            num = self.scratch.product("work", block, q.all, self._for_each_chunk(state, block))
            self._store_output(out, den, eps, block, num)
        return state

    def _add_(self, state: Tensor, left: Rows, right: Rows) -> None:
        """State += the sum of left'right over all tokens of a block."""
        if state.is_cuda:
            state += self._terms(left, right).sum(0, dtype=state.dtype)
            return
        for a, b in zip(left.chunks, right.chunks, strict=True):
            _accumulate(state, a.mT, b)

    def _terms(self, left: Rows, right: Rows) -> Tensor:
        terms = torch.bmm(left.all.mT, right.all)
        return terms.view(len(left.chunks), self.rows, *terms.shape[1:])

    def _for_each_chunk(self, state: Tensor, block: Block) -> Tensor:
        return state.to(self.dtype).expand(block.chunks, *state.shape).flatten(0, 1)

    def backward(
        self, upstream: tuple[Tensor, ...], grads: tuple[Tensor, ...], S: Tensor, behind: Pair = None
    ) -> Tensor:
        """U, with the gradient ``behind`` of the last state; it is that of the state before as well."""
        product, U = self.scratch.product, self._begun(behind)
        for block in self.blocks:
            g, q = self._normalised(upstream, block), self._mapped("q", self.q, block)
            self._add_(U, q, g)
            dq = product("work", block, g.all, self._for_each_chunk(S, block).mT)
            self._store_gradient(grads[0], block, dq, q)
        for block in self.key_blocks:
            k, v = self._mapped("k", self.k, block), self._values(block)
            later = self._for_each_chunk(U, block)
            dv = product("work", block, k.all, later[..., : self.width])
            of_block(grads[2], block).copy_(dv.tokens)
            dk = product("work", block, v.all, later.mT)
            self._store_gradient(grads[1], block, dk, k)
        return U

    # --- causal: a state per chunk ---------------------------------------------------------------

    def _walk(self, state: Tensor, left: Rows, right: Rows, *, reverse: bool = False) -> Iterator[Tensor]:
        """For each part of a block the sum of left'right over all chunks before it (in reverse: after it).

        The state given is that before the block, and has become the one after it when the walk ends. A
        CPU goes from chunk to chunk and keeps one state in its cache; CUDA takes all chunks at once.
        """
        if state.is_cuda:
            terms = self._terms(left, right)
            sums = torch.cat([state[None], terms.flip(0) if reverse else terms]).cumsum(0)
            state.copy_(sums[-1])
            sums = sums[:-1].flip(0) if reverse else sums[:-1]
            yield sums.flatten(0, 1).to(self.dtype)
            return
        for a, b in zip(*self._parts(left, right, reverse=reverse), strict=True):
            yield state
            _accumulate(state, a.mT, b)

    def _parts(self, *blocks: Rows, reverse: bool = False) -> list[tuple[Tensor, ...]]:
        """The parts of a walk over each of these buffers, in the order of the walk."""
        parts = [(x.all,) if x.all.is_cuda else x.chunks for x in blocks]
        return [x[::-1] for x in parts] if reverse else parts

    def causal_forward(
        self, out: Tensor, den: Tensor, eps: float, kept: Tensor, before: Pair = None
    ) -> Tensor:
        """The last state. Into ``kept``, unless it is empty, go those before each chunk, for the backward."""
        state = self._begun(before)
        for block in self.blocks:
            q, k = self._mapped("q", self.q, block), self._mapped("k", self.k, block)
            v = self._values(block)
            A = self._scores(block, q.all, k.all)
            num = self.scratch.product("work", block, A, v.all)
            states = self._walk(state, k, v)
            if len(kept):
                states = self._keep(states, kept[block.first : block.first + block.chunks])
            for S, num_, q_ in zip(states, *self._parts(num, q), strict=True):
                _accumulate(num_, q_, S)
            self._store_output(out, den, eps, block, num)
        return state

    def _scores(self, block: Block, a: Tensor, b: Tensor) -> Tensor:
        """tril(a b') of each chunk and head of queries."""
        scores = self.scratch.product("A", block, a, b.mT).all
        scores.view(-1, block.size, block.size).tril_()
        return scores

    def _keep(self, states: Iterator[Tensor], kept: Tensor) -> Iterator[Tensor]:
        """The states of a walk as they pass, copied."""
        parts = (kept.flatten(0, 1),) if kept.is_cuda else kept.unbind()
        for S, part in zip(states, parts, strict=True):
            part.copy_(S)
            yield S

    def causal_backward(
        self, upstream: tuple[Tensor, ...], grads: tuple[Tensor, ...], states: Tensor, behind: Pair = None
    ) -> Tensor:
        """U, as :meth:`backward`."""
        later = self._begun(behind)
        for block in reversed(self.blocks):
            S = states[block.first : block.first + block.chunks].flatten(0, 1).to(self.dtype)
            self._causal_block_backward(block, upstream, grads, S, later)
        return later

    def _causal_block_backward(
        self,
        block: Block,
        upstream: tuple[Tensor, ...],
        grads: tuple[Tensor, ...],
        S: Tensor,
        later: Tensor,
    ) -> None:
        product = self.scratch.product
        g, v = self._normalised(upstream, block), self._values(block)
        q, k = self._mapped("q", self.q, block), self._mapped("k", self.k, block)

        A = self._scores(block, q.all, k.all)
        dv = product("dv", block, A.mT, g.all[..., : self.width])
        dA = self._scores(block, g.all, v.all)
        dq, dk = product("dq", block, dA, k.all), product("work", block, dA.mT, q.all)
        _accumulate(dq.all, g.all, S.mT)
        walk, parts = self._walk(later, q, g, reverse=True), self._parts(dk, v, dv, k, reverse=True)
        for U, dk_, v_, dv_, k_ in zip(walk, *parts, strict=True):
            _accumulate(dk_, v_, U.mT)
            _accumulate(dv_, k_, U[..., : self.width])
        of_block(grads[2], block).copy_(dv.tokens)
        self._store_gradient(grads[0], block, dq, q)
        self._store_gradient(grads[1], block, dk, k)
