"""Single rows of the oracles, exact at any length: a query row sees Nk keys, and a key row Nq queries.

A row of the output or of dq takes O(N D). A row of dk or dv needs the normalisers of all queries: O(N D) for
linear attention, and for standard attention the scores of its head, of a window those of w keys a query.
Nothing is held but the weights of the rows and a block of tokens, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.kernels.feature_maps import elu

BLOCK = 2048
"""Tokens that are widened to float64 at a time."""
BLOCK_SCORES = 2**19
"""Scores that are held at a time."""
EPS = 1e-6


class Rows(NamedTuple):
    """Rows ``[R, D]`` of one head in float64, and the norms ``[R]`` that their errors are relative to.

    A norm is the root of the sum of the squared terms of a row, as if none cancelled, or the row's own if
    that is larger.
    """

    values: Tensor
    norms: Tensor

    def errors(self, got: Tensor) -> Tensor:
        """|got - row| over the norm, of each row; NaN counts as infinite."""
        distances: Tensor = torch.linalg.vector_norm(got.detach().double() - self.values, dim=-1)
        errors = distances / self.norms
        return errors.nan_to_num(nan=math.inf, posinf=math.inf)


def summed(several: Sequence[Rows]) -> Rows:
    """The sums of the same rows of several heads: gradients of the keys that these share."""
    values = torch.stack([rows.values for rows in several]).sum(0)
    norms = torch.stack([rows.norms for rows in several]).square().sum(0).sqrt()
    return Rows(values, norms.maximum(torch.linalg.vector_norm(values, dim=-1)))


class Head(NamedTuple):
    """One head of a case: q ``[Nq, D]``, k ``[Nk, D]``, v ``[Nk, Dv]`` as given, its family and its mode.

    Where causal, query i sees the keys up to i + Nk - Nq. Heads of queries that share keys are heads of their
    own; the gradients of the keys are then :func:`summed`. ``extra`` holds what belongs to this head of the
    inputs beside them; ``window`` is the number of keys that a query sees, None for all.
    """

    family: str
    causal: bool
    q: Tensor
    k: Tensor
    v: Tensor
    extra: Mapping[str, Tensor] = MappingProxyType({})
    window: int | None = None

    @property
    def scale(self) -> float:
        """What standard attention multiplies its scores by."""
        return 1 / math.sqrt(self.q.shape[-1])

    @property
    def ahead(self) -> int:
        """Keys before the one that the first query sees last, where causal; negative where it sees none."""
        return len(self.k) - len(self.q)

    @property
    def softmax(self) -> bool:
        """Whether weights are exponentials of scores."""
        return self.family != "linear"

    def hidden(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether the queries ``[R]`` at these places do not see the keys ``[S]`` at those: ``[R, S]``."""
        if not self.causal:
            return torch.zeros(len(queries), len(keys), dtype=torch.bool, device=keys.device)
        last = queries[:, None] + self.ahead
        later = keys > last
        return later if self.window is None else later | (keys <= last - self.window)

    def mapped(self, x: Tensor) -> Tensor:
        """Queries or keys in float64, as their products make the scores."""
        return elu(x.double()) if self.family == "linear" else x.double()


def with_norms(values: Tensor, squares: Tensor) -> Rows:
    """Rows with their norms; ``squares [R, D]`` are the sums of the squared terms."""
    norms = torch.linalg.vector_norm(values, dim=-1).maximum(squares.sum(-1).sqrt())
    return Rows(values, norms.clamp(min=torch.finfo(torch.float64).tiny))


def blocks_of(x: Tensor, size: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Tokens a block at a time, and their places."""
    for start in range(0, len(x), size):
        place = slice(start, start + size)
        yield place, x[place]


def _weights(head: Head, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``[R, Nk]`` of query rows before they are normalised, and their normalisers ``[R, 1]``."""
    queries = head.mapped(head.q[rows])
    weights = torch.cat([queries @ head.mapped(keys).mT for _, keys in blocks_of(head.k)], dim=1)
    hidden = head.hidden(rows, torch.arange(len(head.k), device=rows.device))
    if not head.softmax:
        weights = weights.masked_fill_(hidden, 0)
        return weights, weights.sum(-1, keepdim=True) + EPS
    weights = weights.masked_fill_(hidden, -math.inf)
    # Of a query that sees no key all weights are 0, and so is what they sum to, whatever divides them.
    largest = weights.amax(-1, keepdim=True).clamp_(min=torch.finfo(weights.dtype).min)
    weights = weights.sub_(largest).mul_(head.scale).exp_()
    sums = weights.sum(-1, keepdim=True)
    return weights, sums.masked_fill_(sums == 0, 1)


def weighted_sums(weights: Tensor, x: Tensor, power: int = 1) -> Tensor:
    """Sums ``[R, D]`` of a power of the rows x ``[N, D]`` by weights ``[R, N]``."""
    total = weights.new_zeros(len(weights), x.shape[-1])
    for place, block in blocks_of(x):
        total += weights[:, place] @ block.double() ** power
    return total


def output_rows(head: Head, rows: Tensor) -> Rows:
    """The output in these query rows."""
    weights, normalisers = _weights(head, rows)
    weights /= normalisers
    return with_norms(weighted_sums(weights, head.v), weighted_sums(weights.square(), head.v, power=2))


def query_gradient_rows(head: Head, rows: Tensor, grad_out: Tensor) -> Rows:
    """The rows of dq that belong to these queries, from the gradient ``[Nq, Dv]`` of the output."""
    weights, normalisers = _weights(head, rows)
    grad, probabilities = grad_out[rows].double(), weights / normalisers
    out = weighted_sums(probabilities, head.v)
    moved, squares = (grad * out).sum(-1, keepdim=True), (grad * out).square().sum(-1, keepdim=True)
    value, square = grad.new_zeros(len(rows), head.q.shape[-1]), grad.new_zeros(len(rows), head.q.shape[-1])
    for place, keys in blocks_of(head.k):
        values, keys = head.v[place].double(), head.mapped(keys)
        # d of a weight: 1/normaliser in linear attention, and the weight itself times that behind a softmax.
        of_weight = _slopes(head, weights[:, place], normalisers)
        value += (of_weight * (grad @ values.mT - moved)) @ keys
        square += (of_weight.square() * (grad.square() @ values.square().mT + squares)) @ keys.square()
    return mapped_back(head, head.q[rows], value, square)


def _slopes(head: Head, weights: Tensor, normalisers: Tensor) -> Tensor:
    """The factor from the gradient of a normalised weight to that of its score; 0 where it is hidden."""
    if head.softmax:
        return weights / normalisers * head.scale
    return (weights != 0) / normalisers


def mapped_back(head: Head, x: Tensor, values: Tensor, squares: Tensor) -> Rows:
    """Gradients of mapped queries or keys as those of the queries or keys themselves."""
    if head.softmax:
        return with_norms(values, squares)
    with torch.enable_grad():
        leaf = x.detach().double().requires_grad_()
        (slope,) = torch.autograd.grad(elu(leaf).sum(), leaf)
    return with_norms(values * slope, squares * slope.square())


def key_gradient_rows(head: Head, rows: Tensor, grad_out: Tensor, out: Tensor) -> tuple[Rows, Rows]:
    """The rows of dk and dv that belong to these keys.

    Args:
        head: The head.
        rows: Places of the keys.
        grad_out: The gradient ``[Nq, Dv]`` of the output.
        out: The output ``[Nq, Dv]`` itself.
    """
    keys, values = head.mapped(head.k[rows]), head.v[rows].double()
    sums = [keys.new_zeros(len(rows), x.shape[-1]) for x in (keys, keys, values, values)]
    for place, queries, normalisers, weights in _columns(head, rows, keys):
        grad, mine = grad_out[place].double(), out[place].double()
        probabilities = weights / normalisers
        products = grad * mine
        inner = grad @ values.mT - products.sum(-1, keepdim=True)
        squares = grad.square() @ values.square().mT + products.square().sum(-1, keepdim=True)
        of_weight = _slopes(head, weights, normalisers)
        for total, left, right in zip(
            sums,
            (of_weight * inner, of_weight.square() * squares, probabilities, probabilities.square()),
            (queries, queries.square(), grad, grad.square()),
            strict=True,
        ):
            total += left.mT @ right
    return mapped_back(head, head.k[rows], *sums[:2]), with_norms(*sums[2:])


def _columns(head: Head, rows: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Blocks of queries: their place, mapped queries, normalisers and weights ``[n, R]`` of these keys."""
    normalised = _standard_blocks(head) if head.softmax else _linear_blocks(head)
    places = torch.arange(len(head.q), device=rows.device)
    for place, queries, normalisers in normalised:
        weights = queries @ keys.mT
        if head.softmax:
            weights, normalisers = (weights * head.scale - normalisers).exp(), torch.ones_like(normalisers)
        weights = weights.masked_fill_(head.hidden(places[place], rows), 0)
        yield place, queries, normalisers, weights


def _linear_blocks(head: Head) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of mapped queries and their normalisers, phi(q).z + eps."""
    before = head.k[: max(0, head.ahead)] if head.causal else head.k
    z = sum((head.mapped(keys).sum(0) for _, keys in blocks_of(before)), head.mapped(head.k[:1]).sum(0) * 0)
    for place, block in blocks_of(head.q):
        queries, seen = head.mapped(block), z
        if head.causal:
            start, stop = (max(0, place.start + shift) for shift in (head.ahead, head.ahead + len(block)))
            sums = head.mapped(head.k[start:stop]).cumsum(0)
            seen = z + pad(sums, (0, 0, len(block) - len(sums), 0))  # the first may see no key
            z = seen[-1]
        yield place, queries, (queries * seen).sum(-1, keepdim=True) + EPS


def _standard_blocks(head: Head) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of queries and the logarithms of their normalisers, to the precision of float32 at least."""
    wide = torch.promote_types(head.k.dtype, torch.float32)
    keys, device = head.k.to(wide), head.k.device
    queries, places = (torch.arange(len(x), device=device) for x in (head.q, head.k))
    for place, block in blocks_of(head.q, max(1, BLOCK_SCORES // min(len(keys), head.window or len(keys)))):
        # Of a window, only the keys that the block sees.
        seen = slice(max(0, place.start - head.window), place.stop) if head.window else slice(None)
        scores = (block.to(wide) * head.scale) @ keys[seen].mT
        scores.masked_fill_(head.hidden(queries[place], places[seen]), -math.inf)
        yield place, block.double(), scores.logsumexp(-1, keepdim=True).double()
