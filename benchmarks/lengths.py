"""Each length of a kernel is checked before it is timed: its result is finite, and sampled rows are right.

A whole long sequence would take the oracle too long. Single rows of it are exact at any length, and take less
time than a call of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attention import Case, Reference, get_kernel, make_inputs
from attention.kernels.references import Head, Rows, summed, tolerances
from benchmarks.inference import attention_of
from benchmarks.subjects import layer_and_input, upstream

ROOM = 4
"""How far the worst of some rows of a few numbers may be beyond what is allowed to all rows together."""
DERIVED_AT = 1000
"""Tokens up to which the tolerances hold; roundings of longer sums are a random walk and grow like √N."""
BOUNDARIES = (64, 128, 512)
"""Sizes of chunks: kernels err first where one ends, or begins."""
RANDOM_ROWS = 4
FIRST_ROWS = 600


def fault(case: Case, reference: Reference | None) -> str | None:
    """What is wrong with the result of a case at its own length, in words; None where nothing is found.

    Args:
        case: The case.
        reference: The function that it should compute; None, if nobody knows it: its result is then only
            looked at, as a tensor of finite numbers.
    """
    if case.subject == "ceiling" or min(case.batch, case.seq_len, case.queries) == 0:
        return None
    check = _fault_of_layer if case.subject == "layer" else _fault_of_operator
    found = check(case, reference)
    return found and f"wrong result at N = {case.seq_len}: {found}"


def _fault_of_operator(case: Case, reference: Reference | None) -> str | None:
    inputs, kernel = make_inputs(case), get_kernel(case.kernel)
    extra = kernel.extra_inputs(case)
    with torch.set_grad_enabled(case.backward):
        out = attention_of(case)(*inputs, causal=case.causal, **extra)
    shape = (case.batch, case.heads, case.queries, case.value_dim)
    found = _unlike(out, shape, inputs[0], "the output")
    if not found and reference:
        found = _wrong_rows(case, reference, inputs, out, extra)
    return found or (_fault_of_gradients(case, reference, inputs, out, extra) if case.backward else None)


def _fault_of_gradients(
    case: Case, reference: Reference | None, inputs: Sequence[Tensor], out: Tensor, extra: Mapping[str, Any]
) -> str | None:
    grad_out = upstream(out)
    leaves = dict(zip(("dq", "dk", "dv"), inputs, strict=True))
    leaves |= {f"d{name}": x for name, x in extra.items() if isinstance(x, Tensor) and x.requires_grad}
    gradients = dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), grad_out), strict=True))
    for name, x in leaves.items():
        if found := _unlike(gradients[name], x.shape, x, name):
            return found
    if not (reference and reference.query_gradient_rows and reference.key_gradient_rows):
        return None
    rows, (_, tolerance) = _sampled_rows(case.queries, case.device), tolerances(case)
    for head, place in _sampled_heads(case, inputs, extra):
        exact = reference.query_gradient_rows(head, rows, grad_out[place])
        if found := _beyond(case, exact, gradients["dq"][place], rows, "dq", tolerance):
            return found
    # Of one head of keys, because those of standard attention take all of its scores.
    rows, (batch, last) = _sampled_rows(case.seq_len, case.device), place
    group = case.heads // case.key_heads
    pairs = [
        reference.key_gradient_rows(_head(case, inputs, extra, one), rows, grad_out[one], out.detach()[one])
        for one in ((batch, i) for i in range(last + 1 - group, last + 1))
    ]
    for name, several in zip(("dk", "dv"), zip(*pairs, strict=True), strict=True):
        got = gradients[name][batch, last // group]
        if found := _beyond(case, summed(several), got, rows, name, tolerance):
            return found
    return None


def _fault_of_layer(case: Case, reference: Reference | None) -> str | None:
    """The attention inside of a layer, with the queries, keys and values that the layer makes."""
    layer, x = layer_and_input(case)
    seen: list[tuple[tuple[Tensor, ...], Tensor]] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        out = kernel.function(q, k, v, causal=causal)
        seen.append(((q.detach(), k.detach(), v.detach()), out.detach()))
        return out

    kernel, layer.kernel = layer.kernel, replace(layer.kernel, function=attend)
    with torch.set_grad_enabled(case.backward):
        out = layer(x)
    found = _unlike(out, x.shape, x, "the output")
    if not found and reference:
        found = _wrong_rows(case, reference, *seen[0], {})
    if found or not case.backward:
        return found
    leaves = {"dx": x} | {f"the gradient of {name}": leaf for name, leaf in layer.named_parameters()}
    gradients = torch.autograd.grad(out, list(leaves.values()), upstream(out))
    faults = (
        _unlike(gradient, leaf.shape, leaf, name)
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    )
    return next((found for found in faults if found), None)


def _unlike(got: object, shape: Sequence[int], like: Tensor, name: str) -> str | None:
    """Whether something is no tensor of this shape, of the dtype and device of another, or not finite."""
    if not isinstance(got, Tensor):
        return f"{name} is no tensor but {type(got).__name__}"
    for what, found, wanted in (
        ("shape", tuple(got.shape), tuple(shape)),
        ("dtype", got.dtype, like.dtype),
        ("device", got.device, like.device),
    ):
        if found != wanted:
            return f"{name} has {what} {found}, but {wanted} is needed"
    # A sum takes no memory, and is finite only if all numbers are. If it alone overflows, they are counted.
    if math.isfinite(float(got.detach().sum())):
        return None
    count = int((~got.isfinite()).sum())
    return f"{count} of {got.numel()} numbers of {name} are not finite" if count else None


def _wrong_rows(
    case: Case, reference: Reference, inputs: Sequence[Tensor], out: Tensor, extra: Mapping[str, Any]
) -> str | None:
    for head, place in _sampled_heads(case, inputs, extra):
        if reference.output_rows:
            rows = _sampled_rows(case.queries, case.device)
            exact, got = reference.output_rows(head, rows), out[place]
        elif case.causal and not extra and case.queries == case.seq_len:
            rows = torch.arange(min(case.seq_len, FIRST_ROWS), device=case.device)
            exact, got = _first_rows(reference, head, len(rows)), out[place]
        else:
            return None
        if found := _beyond(case, exact, got, rows, "the output", tolerances(case)[0]):
            return found
    return None


def _first_rows(reference: Reference, head: Head, count: int) -> Rows:
    """The first rows of an oracle, which at any length of a causal function are those of so few tokens."""
    q, k, v = (x[None, None, :count].double() for x in (head.q, head.k, head.v))
    values = reference.function(q, k, v, causal=True)[0, 0]
    # A row may be what is left of larger ones that cancel: it is held against the typical norm as well.
    norms = torch.linalg.vector_norm(values, dim=-1)
    return Rows(
        values, norms.maximum(norms.square().mean().sqrt()).clamp(min=torch.finfo(torch.float64).tiny)
    )


def _beyond(case: Case, exact: Rows, got: Tensor, rows: Tensor, name: str, tolerance: float) -> str | None:
    """The worst row, where it is farther from the exact one than its precision explains."""
    errors = exact.errors(got[rows])
    worst = int(errors.argmax())
    growth = 1.0
    if get_kernel(case.kernel).precision_of(case.dtype) in ("float64", "float32"):
        growth = max(1.0, math.sqrt(case.seq_len / DERIVED_AT))
    allowed = ROOM * growth * tolerance
    if float(errors[worst]) <= allowed:
        return None
    return (
        f"relative error {float(errors[worst]):.2g} in row {int(rows[worst])} of {name}; "
        f"allowed is {allowed:.2g} in one row"
    )


def _sampled_heads(
    case: Case, inputs: Sequence[Tensor], extra: Mapping[str, Any]
) -> Iterator[tuple[Head, tuple[int, int]]]:
    """The first and the last head of a case, and where they are."""
    for place in dict.fromkeys([(0, 0), (case.batch - 1, case.heads - 1)]):
        yield _head(case, inputs, extra, place), place


def _head(case: Case, inputs: Sequence[Tensor], extra: Mapping[str, Any], place: tuple[int, int]) -> Head:
    """A head of queries with the keys and values that it shares."""
    shared = place[0], place[1] // (case.heads // case.key_heads)
    q, k, v = (x.detach()[at] for x, at in zip(inputs, (place, shared, shared), strict=True))
    return Head(case.family, case.causal, q, k, v, _of_head(case, extra, place))


def _of_head(case: Case, extra: Mapping[str, Any], place: tuple[int, int]) -> dict[str, Tensor]:
    """What belongs to one head of the extra inputs that are ``[B, H, ...]``."""
    return {
        name: x.detach()[place]
        for name, x in extra.items()
        if isinstance(x, Tensor) and x.shape[:2] == (case.batch, case.heads)
    }


def _sampled_rows(n: int, device: str) -> Tensor:
    """The first and the last row, those around a boundary of chunks in the middle and the end, and others."""
    ends = {n // size // part * size for size in BOUNDARIES for part in (1, 2)}
    drawn = torch.randint(n, (RANDOM_ROWS,), generator=torch.Generator().manual_seed(n)).tolist()
    rows = {0, n - 1, *(end - 1 for end in ends), *ends, *drawn}
    return torch.tensor(sorted(row for row in rows if 0 <= row < n), device=device)
