"""Linear attention by chunks: the blocks, the running sums and the two passes of the backward.

The sequence is cut into chunks of C tokens. With phi applied and A = tril(QK') within a chunk,

    num = A V + Q S        den = A 1 + Q z + eps        o = num / den
    S  += K'V              z  += K'1

so that memory is O(N D) and time O(N D (D + C)). A block of several chunks is worked on at a time,
as batched matrix products over chunks and heads: on a CPU a block stays in the cache, on a GPU it
fills the card. Gradients, with g = do / den and delta = -(g . o) per token, U and w the sums of
Q'g and Q'delta over *later* chunks, and dA = tril(g V' + delta 1'):

    dQ = dA K + g S' + delta z'        dK = dA'Q + V U' + 1 w'        dV = A'g + K U
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from attention.kernels.feature_maps import BLOCK_MAPS

# Rows (tokens times heads) worked on at a time. CPU: 1 MiB a tensor at D = 64 in float32, so that
# the working set stays in the second-level cache. CUDA: about half a GiB of scratch at D = 64.
BLOCK_ROWS = {"cpu": 2**12, "cuda": 2**18}


def default_chunk_size(head_dim: int, *, causal: bool) -> int:
    """C: the causal form spends C of D + C on masked products, so it stays near D."""
    return (64 if head_dim <= 64 else 128) if causal else 256


class Block(NamedTuple):
    """Tokens ``start`` to ``stop``: ``chunks`` chunks of ``size`` tokens, the first of index ``first``."""

    start: int
    stop: int
    first: int
    chunks: int
    size: int


def blocks(seq_len: int, chunk_size: int, rows_per_token: int, device: str) -> list[Block]:
    """The sequence in order; a ragged end is a block of one shorter chunk, so nothing is padded."""
    group = max(1, BLOCK_ROWS[device] // (chunk_size * max(1, rows_per_token)))
    whole, rest = divmod(seq_len, chunk_size)
    result = []
    for first in range(0, whole, group):
        chunks = min(group, whole - first)
        start = first * chunk_size
        result.append(Block(start, start + chunks * chunk_size, first, chunks, chunk_size))
    if rest:
        result.append(Block(seq_len - rest, seq_len, whole, 1, rest))
    return result


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the matrix products; sums over tokens are never narrower than float32.

    A CPU converts low precision to float32 in the cache for less than its narrow products cost.
    On CUDA bfloat16 has the range for the running sums; float16 overflows from 65504 on.
    """
    if x.dtype is torch.bfloat16 and x.is_cuda:
        return x.dtype
    return torch.promote_types(x.dtype, torch.float32)


class Scratch:
    """Buffers that are reused from block to block, by name: fresh memory costs page faults."""

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self._like, self._dtype = like, dtype
        self._flat: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = self._like.new_empty(size, dtype=dtype or self._dtype)
        return flat[:size].view(shape)

    def load(self, name: str, x: Tensor, block: Block) -> Tensor:
        """The block of x ``[B, H, N, W]`` as contiguous ``[chunks * B * H, C, W]``."""
        batch, heads, _, width = x.shape
        rows = self(name, block.chunks, batch, heads, block.size, width)
        rows.permute(1, 2, 0, 3, 4).copy_(_of_block(x, block))
        return rows.view(-1, block.size, width)

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """A @ b into the buffer of this name."""
        return torch.bmm(a, b, out=self(name, a.shape[0], a.shape[1], b.shape[2]))


def _of_block(x: Tensor, block: Block) -> Tensor:
    batch, heads, _, width = x.shape
    return x[:, :, block.start : block.stop].view(batch, heads, block.chunks, block.size, width)


def _store(x: Tensor, block: Block, rows: Tensor) -> None:
    batch, heads, _, width = x.shape
    rows = rows.view(block.chunks, batch, heads, block.size, width)
    _of_block(x, block).copy_(rows.permute(1, 2, 0, 3, 4))


def _prefix_sums_(sums: Tensor, terms: Tensor) -> None:
    """sums[i + 1] = sums[i] + terms[i] along the first axis, sums[0] being given."""
    if sums.is_cuda:
        sums[1:] = terms
        torch.cumsum(sums, 0, out=sums)
        return
    # torch's cumsum over a leading axis is several times slower on a CPU than these additions.
    for i in range(len(terms)):
        torch.add(sums[i], terms[i], out=sums[i + 1])


def _suffix_sums_(sums: Tensor, terms: Tensor) -> None:
    """sums[i] = sums[i + 1] + terms[i] along the first axis, the last of sums being given."""
    if sums.is_cuda:
        sums[:-1] = terms
        sums.copy_(sums.flip(0).cumsum(0).flip(0))
        return
    for i in reversed(range(len(terms))):
        torch.add(sums[i + 1], terms[i], out=sums[i])


class Passes:
    """The passes over the blocks of one call, and what they share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, phi: str, chunk_size: int) -> None:
        self.q, self.k, self.v = q, k, v
        self.phi = BLOCK_MAPS[phi]
        self.rows = q.shape[0] * q.shape[1]
        self.blocks = blocks(q.shape[2], chunk_size, self.rows, q.device.type)
        self.dtype = product_dtype(q)
        self.state_dtype = torch.promote_types(q.dtype, torch.float32)
        self.scratch = Scratch(q, self.dtype)

    def _mapped(self, name: str, x: Tensor, block: Block) -> Tensor:
        rows = self.scratch.load(name, x, block)
        return self.phi.apply_(rows, self.scratch("map", *rows.shape))

    def _state(self, *shape: int) -> Tensor:
        return self.q.new_zeros(*shape, dtype=self.state_dtype)

    def _widths(self) -> tuple[int, int]:
        return self.q.shape[-1], self.v.shape[-1]

    def _sums(self, name: str, block: Block, width: int) -> Tensor:
        shape = (block.chunks + 1, self.rows, self.q.shape[-1], width)
        return self.scratch(name, *shape, dtype=self.state_dtype)

    def _by_chunk(self, terms: Tensor) -> Tensor:
        chunks = terms.shape[0] // self.rows if self.rows else 0
        return terms.view(chunks, self.rows, *terms.shape[1:])

    def _as_factor(self, sums: Tensor) -> Tensor:
        return sums.flatten(0, 1).to(self.dtype)

    # --- bidirectional: one state for all tokens -------------------------------------------------

    def forward(self, out: Tensor, den: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        d, dv = self._widths()
        S, z = self._state(self.rows, d, dv), self._state(self.rows, d, 1)
        for block in self.blocks:
            k, v = self._mapped("k", self.k, block), self.scratch.load("v", self.v, block)
            S += self._by_chunk(self.scratch.product("kv", k.mT, v)).sum(0, dtype=self.state_dtype)
            z += self._by_chunk(k.sum(1, dtype=self.state_dtype).unsqueeze(-1)).sum(0)
        for block in self.blocks:
            q = self._mapped("q", self.q, block)
            num = self.scratch.product("num", q, self._for_each_chunk(S, block))
            below = self.scratch.product("den", q, self._for_each_chunk(z, block)).add(eps)
            _store(out, block, num.div_(below))
            _store(den, block, below)
        return S, z

    def _for_each_chunk(self, state: Tensor, block: Block) -> Tensor:
        return state.to(self.dtype).expand(block.chunks, *state.shape).flatten(0, 1)

    def backward(self, upstream: tuple[Tensor, ...], grads: tuple[Tensor, ...], S: Tensor, z: Tensor) -> None:
        d, dv = self._widths()
        U, w = self._state(self.rows, d, dv), self._state(self.rows, d, 1)
        for block in self.blocks:
            q = self._mapped("q", self.q, block)
            g, delta = self._normalised(upstream, block)
            U += self._by_chunk(self.scratch.product("qg", q.mT, g)).sum(0, dtype=self.state_dtype)
            w += self._by_chunk(self.scratch.product("qd", q.mT, delta)).sum(0, dtype=self.state_dtype)
            dq = self.scratch.product("dq", g, self._for_each_chunk(S.mT, block))
            dq.addcmul_(delta, self._for_each_chunk(z.mT, block))
            _store(grads[0], block, self.phi.backward_(dq, q))
        for block in self.blocks:
            k, v = self._mapped("k", self.k, block), self.scratch.load("v", self.v, block)
            dk = self.scratch.product("dq", v, self._for_each_chunk(U.mT, block))
            dk.add_(self._for_each_chunk(w.mT, block))
            _store(grads[2], block, self.scratch.product("dv", k, self._for_each_chunk(U, block)))
            _store(grads[1], block, self.phi.backward_(dk, k))

    def _normalised(self, upstream: tuple[Tensor, ...], block: Block) -> tuple[Tensor, Tensor]:
        """G = do / den and delta = -(g . o) of a block."""
        g, out = (self.scratch.load(name, x, block) for name, x in zip(("g", "o"), upstream, strict=False))
        below = _of_block(upstream[2], block).permute(2, 0, 1, 3, 4).reshape(-1, block.size, 1)
        g.div_(below)
        return g, out.mul_(g).sum(-1, keepdim=True).neg_()

    # --- causal: a state per chunk ---------------------------------------------------------------

    def _states(self, block: Block, k: Tensor, v: Tensor, S: Tensor, z: Tensor) -> None:
        """Running sums before each chunk of the block, and after the last; S[0] and z[0] are given."""
        _prefix_sums_(S, self._by_chunk(self.scratch.product("kv", k.mT, v)))
        _prefix_sums_(z, self._by_chunk(k.sum(1, dtype=self.state_dtype).unsqueeze(-1)))

    def causal_forward(self, out: Tensor, den: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        d, dv = self._widths()
        last_S, last_z = self._state(self.rows, d, dv), self._state(self.rows, d, 1)
        for block in self.blocks:
            q, k = self._mapped("q", self.q, block), self._mapped("k", self.k, block)
            v = self.scratch.load("v", self.v, block)
            S, z = self._sums("S", block, dv), self._sums("z", block, 1)
            S[0], z[0] = last_S, last_z
            self._states(block, k, v, S, z)
            A = self.scratch.product("A", q, k.mT).tril_()
            num = self.scratch.product("num", A, v)
            torch.baddbmm(num, q, self._as_factor(S[:-1]), out=num)
            below = self.scratch.product("den", q, self._as_factor(z[:-1])).to(self.state_dtype)
            below += A.sum(-1, keepdim=True, dtype=self.state_dtype).add_(eps)
            _store(out, block, num.div_(below))
            _store(den, block, below)
            last_S.copy_(S[-1])
            last_z.copy_(z[-1])
        return last_S, last_z

    def causal_backward(self, upstream: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> None:
        d, dv = self._widths()
        chunks = sum(block.chunks for block in self.blocks)
        # The states before every chunk, N / C of them: O(N D) memory, and no second pass over scores.
        S, z = self._state(chunks + 1, self.rows, d, dv), self._state(chunks + 1, self.rows, d, 1)
        for block in self.blocks:
            k, v = self._mapped("k", self.k, block), self.scratch.load("v", self.v, block)
            part = slice(block.first, block.first + block.chunks + 1)
            self._states(block, k, v, S[part], z[part])
        last_U, last_w = self._state(self.rows, d, dv), self._state(self.rows, d, 1)
        for block in reversed(self.blocks):
            part = slice(block.first, block.first + block.chunks)
            U, w = self._sums("U", block, dv), self._sums("w", block, 1)
            U[-1], w[-1] = last_U, last_w
            self._causal_block_backward(block, upstream, grads, (S[part], z[part]), (U, w))
            last_U.copy_(U[0])
            last_w.copy_(w[0])

    def _causal_block_backward(
        self,
        block: Block,
        upstream: tuple[Tensor, ...],
        grads: tuple[Tensor, ...],
        before: tuple[Tensor, Tensor],
        after: tuple[Tensor, Tensor],
    ) -> None:
        product = self.scratch.product
        q, k = self._mapped("q", self.q, block), self._mapped("k", self.k, block)
        v = self.scratch.load("v", self.v, block)
        g, delta = self._normalised(upstream, block)
        _suffix_sums_(after[0], self._by_chunk(product("qg", q.mT, g)))
        _suffix_sums_(after[1], self._by_chunk(product("qd", q.mT, delta)))
        S, z = (self._as_factor(sums) for sums in before)
        U, w = (self._as_factor(sums[1:]) for sums in after)

        A = product("A", q, k.mT).tril_()
        dv = product("dv", A.mT, g)
        _store(grads[2], block, torch.baddbmm(dv, k, U, out=dv))

        dA = product("A", g, v.mT).add_(delta).tril_()
        dq = product("dq", dA, k)
        torch.baddbmm(dq, g, S.mT, out=dq).addcmul_(delta, z.mT)
        _store(grads[0], block, self.phi.backward_(dq, q))
        dk = product("dq", dA.mT, q)
        torch.baddbmm(dk, v, U.mT, out=dk).add_(w.mT)
        _store(grads[1], block, self.phi.backward_(dk, k))
