"""Linear attention with decay by chunks: the passes of forward and backward.

With phi applied, D_ij what the gates keep between two tokens of a chunk of C, a_i all up to token i, b_j all
behind token j, S the state before the chunk, and A = QK' * D:

    O = A V + a (Q S)        S <- a_C S + (b K)'V

so that memory is O(N D) and time O(N D (D + C)). A block of several chunks is worked on at a time, as batched
matrix products. Gradients, with G = dO, dA = GV' * D, and U the state of *later* chunks:

    dQ = dA K + a (G S')    dK = dA'Q + b (V U')    dV = A'G + b (K U)    U <- a_C U + (a Q)'G

The gradient of gate t sums P_ij = D_ij (q_i k_j)(G_i v_j) over all i >= t > j. With i and j each before, in
or after the chunk of t that is four sums of its own chunk and no difference of sums, whose error would grow
with N.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.kernels.blocks import Block, blocks, of_block
from attention.kernels.feature_maps import BLOCK_MAPS
from attention.kernels.gates import decays


class Inputs(NamedTuple):
    """q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` and g ``[B, H, N]`` of a call, or of a block, in chunks."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor

    def cut(self, chunk_size: int) -> list[Block]:
        """The blocks in order."""
        return blocks(self.q.shape[2], chunk_size, self.q.shape[0] * self.q.shape[1], self.q.device.type)

    def of(self, block: Block, phi: str) -> Inputs:
        """A block ``[B, H, chunks, C, W]`` in the dtype of the gates, with phi applied."""
        q, k, v, g = (of_block(x, block).to(self.g.dtype, copy=True) for x in self)
        for x in (q, k):
            BLOCK_MAPS[phi].apply_(x, torch.empty_like(x))
        if not block.first:
            g[:, :, 0, 0] = 0  # before the first token is nothing to keep
        return Inputs(q, k, v, g)


def new_states(x: Inputs, *count: int) -> Tensor:
    """An empty buffer of states ``[B, H, *count, D, Dv]`` in the dtype of the gates."""
    return x.g.new_empty(*x.q.shape[:2], *count, x.q.shape[-1], x.v.shape[-1])


def forward(x: Inputs, phi: str, chunk_size: int, out: Tensor, kept: Tensor) -> None:
    """Into ``kept``, unless it is empty, go the states before each chunk, which the backward reads."""
    state = new_states(x).zero_()
    for block in x.cut(chunk_size):
        num, states = _block_forward(x.of(block, phi), state)
        of_block(out, block).copy_(num)
        if kept.numel():
            kept[:, :, block.first : block.first + block.chunks] = states


def _block_forward(x: Inputs, state: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a block, and the states before each of its chunks."""
    q, k, v, g = x
    D, since = decays(g), g.cumsum(-1).exp_()
    states = _walk(state, since[..., -1], (k * D[..., -1, :, None]).mT @ v)
    out = (q @ k.mT).mul_(D) @ v
    return out.add_(q.mul_(since[..., None]) @ states), states


def backward(x: Inputs, phi: str, chunk_size: int, grad_out: Tensor, grads: Inputs, states: Tensor) -> None:
    """Into ``grads`` go those of the inputs."""
    state = new_states(x).zero_()
    for block in reversed(x.cut(chunk_size)):
        S = states[:, :, block.first : block.first + block.chunks]
        do = of_block(grad_out, block).to(x.g.dtype)
        found = _block_backward(x.of(block, phi), do, S, state, BLOCK_MAPS[phi].derivative_)
        for grad, of_block_ in zip(grads, found, strict=True):
            of_block(grad, block).copy_(of_block_)


def _block_backward(
    x: Inputs, do: Tensor, S: Tensor, state: Tensor, derivative_: Callable[[Tensor], Tensor]
) -> Inputs:
    """The gradients of a block; S are the states before each chunk, and ``state`` that after the block."""
    q, k, v, g = x
    D, since = decays(g), g.cumsum(-1).exp_()[..., None]
    until, keep = D[..., -1, :, None].clone(), since[..., -1, 0]
    U = _walk(state, keep, (q * since).mT @ do, reverse=True)

    A, dA = q @ k.mT, (do @ v.mT).mul_(D)
    pairs, A = A * dA, A.mul_(D)
    dv = (A.mT @ do).add_((k * until) @ U)
    dq, dk = (do @ S.mT).mul_(since), (v @ U.mT).mul_(until)
    across = keep * (S * U).sum((-2, -1))
    dg = _gate_gradients((q * dq).sum(-1), (k * dk).sum(-1), pairs, across)
    dq, dk = dq.add_(dA @ k), dk.add_(dA.mT @ q)
    return Inputs(dq.mul_(derivative_(q)), dk.mul_(derivative_(k)), dv, dg)


def _walk(state: Tensor, keep: Tensor, terms: Tensor, *, reverse: bool = False) -> Tensor:
    """For each chunk of a block the state before it (in reverse: after it), S <- keep S + terms.

    The state given is that before the block, and has become the one after it.
    """
    states, chunks = torch.empty_like(terms), range(terms.shape[2])
    for i in reversed(chunks) if reverse else chunks:
        states[:, :, i] = state
        state.mul_(keep[:, :, i, None, None]).add_(terms[:, :, i])
    return states


def _gate_gradients(of_queries: Tensor, of_keys: Tensor, pairs: Tensor, across: Tensor) -> Tensor:
    """Dg ``[..., C]`` by pairs i >= t > j.

    Args:
        of_queries: sums of the pairs of each i in the chunk with all j before it.
        of_keys: sums of the pairs of each j in the chunk with all i after it.
        pairs: ``[..., i, j]``, both in the chunk.
        across: ``[...]``, sums of the pairs of all i after the chunk and all j before it.
    """
    within = pairs.cumsum(-1).tril_(-1).sum(-2)  # of j up to t - 1, over i from t on
    later = of_queries.flip(-1).cumsum(-1).flip(-1)
    return later.add_(pad(within.add_(of_keys.cumsum(-1)), (1, 0))[..., :-1]).add_(across[..., None])
