"""The costs of a call in closed form, and the terms that they are made of.

What each kernel makes of them stands in the kernel's room.

N, D, Dv are the lengths of the sequence, of a key and of a value; everything is multiplied by B x H. A term
is the MACs of one matrix product as the kernel executes it, forward and backward together. Where torch's
``FlopCounterMode`` sees more or less than that, the difference is a named entry of ``uncounted`` (less) or
``overcounted`` (more).

Two worked examples. Bidirectional linear attention, written as phi(Q) (phi(K)' V) over phi(Q) (phi(K)' 1):

>>> from attention import Case
>>> def relu_costs(case):
...     n, d, dv = case.seq_len, case.head_dim, case.value_dim
...     terms = {"state": n * d * dv, "readout": n * d * dv, "normaliser": n * d}
...     # phi(Q) and phi(K), the output before and after its division.
...     peak = (2 * n * d + 2 * n * dv) * case.itemsize
...     return costs_of_heads(case, terms, peak)
>>> relu_costs(Case("linear-relu", "bidirectional", 1000, heads=1, head_dim=64)).flops
16512000

A causal window of 256 keys, in blocks of 256 queries that each see their own block and the one before, where
half of the products falls on masked scores:

>>> def window_costs(case, w=256):
...     n, widths = case.seq_len, case.head_dim + case.value_dim
...     blocks = -(-n // w)
...     executed, seen = (2 * blocks - 1) * w * w, sum(min(i + 1, w) for i in range(n))
...     terms = {"scores": executed * case.head_dim, "weighted_values": executed * case.value_dim}
...     return costs_of_heads(case, terms, 0, masked_macs=(executed - seen) * widths)
>>> costs = window_costs(Case("window-mine", "causal", 1024, heads=1, head_dim=64))
>>> costs.flops, round(costs.useful_flops / costs.flops, 2)
(117440512, 0.5)

A kernel is registered with ``costs=relu_costs``. What it declares is compared with what torch counts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from attention.case import Case

Terms = Mapping[str, int]
"""Multiply-adds by name."""


@dataclass(frozen=True)
class Costs:
    """The costs of one call of a kernel, in closed form.

    ``terms`` are the multiply-adds of its matrix products by name, as executed; elementwise work
    (feature maps, exponentials, sums) is left out, as in torch's ``FlopCounterMode``. That counter
    misses the ``uncounted`` and adds the ``overcounted``. ``min_bytes`` reads each input once and
    writes each output once. ``peak_bytes`` is the most memory held above the inputs, results included.
    ``masked_macs`` of the executed ones fall on masked scores.

    Raises:
        TypeError: an amount that is no ``int``, or terms that are no mapping.
        ValueError: an amount that is negative or beyond every float, or more masked MACs than executed ones.
    """

    terms: Mapping[str, int]
    min_bytes: int
    peak_bytes: int
    uncounted: Mapping[str, int] = field(default_factory=dict)
    overcounted: Mapping[str, int] = field(default_factory=dict)
    masked_macs: int = 0

    def __post_init__(self) -> None:
        amounts: dict[str, Any] = {
            name: getattr(self, name) for name in ("min_bytes", "peak_bytes", "masked_macs")
        }
        for part in ("terms", "uncounted", "overcounted"):
            terms = getattr(self, part)
            if not isinstance(terms, Mapping):
                raise TypeError(f"{part} of costs must map names to amounts, got {shown(terms)}")
            amounts |= {f"{part}[{name!r}]": amount for name, amount in terms.items()}
        for name, amount in amounts.items():
            if not isinstance(amount, int) or isinstance(amount, bool):
                raise TypeError(f"{name} of costs must be an int, got {shown(amount)}")
        derived = {name: getattr(self, name) for name in ("flops", "useful_flops", "countable_flops")}
        for name, amount in (amounts | derived).items():
            if not 0 <= amount <= sys.float_info.max:
                raise ValueError(
                    f"{name} of costs must be at least 0 and a finite float, got {shown(amount)}"
                )

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(self.terms.values())

    @property
    def flops(self) -> int:
        """FLOPs: two for each multiply-add."""
        return 2 * self.macs

    @property
    def useful_flops(self) -> int:
        """FLOPs without the products of masked scores, which a causal kernel executes and throws away."""
        return 2 * (self.macs - self.masked_macs)

    @property
    def countable_flops(self) -> int:
        """FLOPs that torch's counter finds."""
        return 2 * (self.macs - sum(self.uncounted.values()) + sum(self.overcounted.values()))


def shown(value: object) -> str:
    """A value in a message: numbers as they are, unless they are long, and the type of anything else."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


def min_bytes(case: Case) -> int:
    """Bytes of a call that reads each input once and writes each output once.

    Forward: q, k, v read and o written. Backward: q, k, v, o and do read, dq, dk and dv written.
    """
    # Backward: q and do read and dq written where q and o were, o once more; k, v and dk, dv.
    query = (2 * case.head_dim + 2 * case.value_dim) if case.backward else 0
    query += case.head_dim + case.value_dim
    key = (case.head_dim + case.value_dim) * (3 if case.backward else 1)
    rows = case.heads * case.queries * query + case.key_heads * case.seq_len * key
    return case.batch * rows * case.itemsize


def cache_bytes(case: Case, *, state: bool) -> int:
    """Bytes that one layer keeps of a context of ``seq_len`` tokens.

    Args:
        case: the case.
        state: whether that is the state of linear attention, Hkv D (Dv + 1) numbers of float32 at least, or
            keys and values, Hkv N (D + Dv) numbers of the case's dtype.
    """
    d, dv = case.head_dim, case.value_dim
    if state:
        return case.batch * case.key_heads * d * (dv + 1) * max(4, case.itemsize)
    return case.batch * case.key_heads * case.seq_len * (d + dv) * case.itemsize


def result_elements(case: Case) -> int:
    """Elements that a call leaves behind, by the heads of queries: o, and with a backward dq, dk, dv, do.

    Those of dk and dv are a share of theirs where several heads of queries share one of keys, rounded up.
    """
    d, dv = case.head_dim, case.value_dim
    if not case.backward:
        return case.queries * dv
    return case.queries * (d + 2 * dv) + -(-case.key_heads * case.seq_len * (d + dv) // case.heads)


class Sizes(NamedTuple):
    """What the products of a call are counted by: heads of the whole batch, tokens and widths."""

    query_heads: int
    key_heads: int
    queries: int
    keys: int
    width: int
    value_width: int

    @classmethod
    def of_case(cls, case: Case) -> Sizes:
        """The sizes of a case."""
        heads = case.batch * case.heads, case.batch * case.key_heads
        return cls(*heads, case.queries, case.seq_len, case.head_dim, case.value_dim)

    @classmethod
    def of(cls, q: Tensor, v: Tensor) -> Sizes:
        """The sizes of q ``[B, Hq, Nq, D]`` and v ``[B, Hkv, Nk, Dv]``."""
        batch, heads, queries, width = q.shape
        return cls(batch * heads, batch * v.shape[1], queries, v.shape[2], width, v.shape[3])

    @property
    def query_rows(self) -> int:
        """Tokens times heads of the queries."""
        return self.query_heads * self.queries

    @property
    def key_rows(self) -> int:
        """Tokens times heads of the keys."""
        return self.key_heads * self.keys


def seen_scores(case: Case) -> int:
    """Scores that are not masked, of one head of queries; where causal, the last query sees the last key."""
    queries, keys = case.queries, case.seq_len
    if not case.causal:
        return queries * keys
    seeing = min(queries, keys)
    return seeing * (keys - seeing) + seeing * (seeing + 1) // 2


def masked_scores(n: int) -> int:
    """Scores of an n x n block above its diagonal."""
    return n * (n - 1) // 2


def chunk_scores(n: int, chunk: int) -> int:
    """Scores of all chunks of a sequence, the masked ones too; the last chunk may be shorter."""
    complete, rest = divmod(n, chunk)
    return complete * chunk * chunk + rest * rest


def masked_chunk_scores(n: int, chunk: int) -> int:
    """Scores above the diagonals of all chunks of a sequence."""
    complete, rest = divmod(n, chunk)
    return complete * masked_scores(chunk) + masked_scores(rest)


def add(*several: Terms) -> dict[str, int]:
    """The sums of several sets of terms, by name."""
    names = dict.fromkeys(name for terms in several for name in terms)
    return {name: sum(terms.get(name, 0) for terms in several) for name in names}


def costs_of(
    case: Case, terms: Terms, peak_bytes: int, *, uncounted: Terms | None = None, masked_macs: int = 0
) -> Costs:
    """The costs of a case from those of all its heads together, with the bytes that it reads and writes."""
    return Costs(terms, min_bytes(case), peak_bytes, uncounted or {}, masked_macs=masked_macs)


def times(factor: int, terms: Terms) -> dict[str, int]:
    """Each term multiplied by a factor."""
    return {name: factor * macs for name, macs in terms.items()}


def costs_of_heads(
    case: Case,
    terms: Terms,
    peak_bytes: int,
    *,
    of_keys: Terms | None = None,
    uncounted: Terms | None = None,
    overcounted: Terms | None = None,
    masked_macs: int = 0,
) -> Costs:
    """The costs of all heads of a case, from those of one head.

    Args:
        case: the case.
        terms: the products of one head of queries.
        peak_bytes: of one head of queries.
        of_keys: the products of one head of keys and values, which several heads of queries may share.
        uncounted: of one head, of keys where the name is one ``of_keys``.
        overcounted: likewise.
        masked_macs: of one head of queries.
    """
    heads, key_heads = case.batch * case.heads, case.batch * case.key_heads
    shared = of_keys or {}

    def of_all(several: Terms | None) -> dict[str, int]:
        return {
            name: (key_heads if name in shared else heads) * macs for name, macs in (several or {}).items()
        }

    return Costs(
        terms=of_all({**shared, **terms}),
        min_bytes=min_bytes(case),
        peak_bytes=heads * peak_bytes,
        uncounted=of_all(uncounted),
        overcounted=of_all(overcounted),
        masked_macs=heads * masked_macs,
    )


def unseen(costs: Costs) -> Costs:
    """The costs of a kernel of which torch's counter sees nothing."""
    return replace(costs, uncounted=costs.terms, overcounted={}, masked_macs=0)
