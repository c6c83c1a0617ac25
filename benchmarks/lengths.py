"""Each length of a kernel is checked before it is timed: its result is finite, and sampled rows are right.

A whole long sequence would take the oracle too long. Single rows of it are exact at any length, and take less
time than a call of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attention import Case, get_kernel, make_inputs
from attention.kernels.references import (
    Head,
    Rows,
    key_gradient_rows,
    output_rows,
    query_gradient_rows,
    tolerances,
)
from benchmarks.subjects import layer_and_input, upstream

ROOM = 4
"""How far the worst of some rows of a few numbers may be beyond what is allowed to all rows together."""
DERIVED_AT = 1000
"""Tokens up to which the tolerances hold; roundings of longer sums are a random walk and grow like √N."""
BOUNDARIES = (64, 128, 512)
"""Sizes of chunks: kernels err first where one ends, or begins."""
RANDOM_ROWS = 4


def fault(case: Case) -> str | None:
    """What is wrong with the result of a case at its own length, in words; None where nothing is found."""
    if case.subject == "ceiling" or min(case.batch, case.seq_len) == 0:
        return None
    check = _fault_of_layer if case.subject == "layer" else _fault_of_operator
    found = check(case)
    return found and f"wrong result at N = {case.seq_len}: {found}"


def _fault_of_operator(case: Case) -> str | None:
    inputs = make_inputs(case)
    with torch.set_grad_enabled(case.backward):
        out = get_kernel(case.kernel).function(*inputs, causal=case.causal)
    shape = (case.batch, case.heads, case.seq_len, case.value_dim)
    found = _unlike(out, shape, inputs[0], "the output") or _wrong_rows(case, inputs, out)
    return found or (_fault_of_gradients(case, inputs, out) if case.backward else None)


def _fault_of_gradients(case: Case, inputs: Sequence[Tensor], out: Tensor) -> str | None:
    grad_out = upstream(out)
    gradients = torch.autograd.grad(out, inputs, grad_out)
    for name, x, gradient in zip(("dq", "dk", "dv"), inputs, gradients, strict=True):
        if found := _unlike(gradient, x.shape, x, name):
            return found
    rows, (_, tolerance) = _sampled_rows(case), tolerances(case)
    for head, place in _sampled_heads(case, inputs):
        exact = query_gradient_rows(head, rows, grad_out[place])
        if found := _beyond(case, exact, gradients[0][place], rows, "dq", tolerance):
            return found
    # Of one head, because those of standard attention take all of its scores.
    pair = key_gradient_rows(head, rows, grad_out[place], out.detach()[place])
    for name, exact, gradient in zip(("dk", "dv"), pair, gradients[1:], strict=True):
        if found := _beyond(case, exact, gradient[place], rows, name, tolerance):
            return found
    return None


def _fault_of_layer(case: Case) -> str | None:
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
    found = _unlike(out, x.shape, x, "the output") or _wrong_rows(case, *seen[0])
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


def _wrong_rows(case: Case, inputs: Sequence[Tensor], out: Tensor) -> str | None:
    for head, place in _sampled_heads(case, inputs):
        rows = _sampled_rows(case)
        found = _beyond(case, output_rows(head, rows), out[place], rows, "the output", tolerances(case)[0])
        if found:
            return found
    return None


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


def _sampled_heads(case: Case, inputs: Sequence[Tensor]) -> Iterator[tuple[Head, tuple[int, int]]]:
    """The first and the last head of a case, and where they are."""
    for place in dict.fromkeys([(0, 0), (case.batch - 1, case.heads - 1)]):
        q, k, v = (x.detach()[place] for x in inputs)
        yield Head(case.family, case.causal, q, k, v), place


def _sampled_rows(case: Case) -> Tensor:
    """The first and the last row, those around a boundary of chunks in the middle and the end, and others."""
    n = case.seq_len
    ends = {n // size // part * size for size in BOUNDARIES for part in (1, 2)}
    drawn = torch.randint(n, (RANDOM_ROWS,), generator=torch.Generator().manual_seed(n)).tolist()
    rows = {0, n - 1, *(end - 1 for end in ends), *ends, *drawn}
    return torch.tensor(sorted(row for row in rows if 0 <= row < n), device=case.device)
