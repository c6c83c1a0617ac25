"""How far a kernel is from its oracle, and how far it may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from attention.case import DTYPES, Case, make_inputs
from attention.kernels.references.linear import linear_reference
from attention.kernels.references.standard import standard_reference
from attention.kernels.registry import get_kernel

REFERENCES: dict[str, Callable[..., Tensor]] = {"standard": standard_reference, "linear": linear_reference}
"""The oracle of each family."""

BY_PRECISION = {
    "float64": (1e-12, 5e-12),
    "float32": (1e-5, 5e-5),
    "tf32": (2e-3, 4e-3),
    "float16": (1e-3, 2e-3),
    "bfloat16": (8e-3, 1.6e-2),
}
"""Largest norm ratio |x - oracle| / |oracle| by precision, forward and gradients.

In the narrow dtypes roundings of half an eps (of the scores, the weights, the output) dominate and add up in
quadrature: an eps forward, two backward. In the wide ones the length of the sums does, so there is room for
it. tf32 has the eps of float16, but matrix units cut off the bits that it lacks: that takes 0.36 eps off each
operand on average, always towards zero. A result has four operands behind it, which makes 1.4 eps: two are
allowed forward, four backward.
"""
TOLERANCES = {getattr(torch, dtype): BY_PRECISION[dtype] for dtype in DTYPES}
"""Norm ratios of a kernel that computes in its dtype, forward and gradients, by the dtype."""


def tolerances(case: Case) -> tuple[float, float]:
    """The norm ratios that a case is held to, forward and gradients: those of its kernel's precision."""
    return BY_PRECISION[get_kernel(case.kernel).precision_of(case.dtype)]


class Errors(NamedTuple):
    """Norm ratios against the oracle: the output's, and the largest of dq, dk, dv (nan: no backward)."""

    output: float
    gradients: float

    def within(self, allowed: Case | torch.dtype, *, room: float = 1) -> bool:
        """Whether both stay inside the tolerances of a case or a dtype, times ``room``; a NaN never does."""
        both = tolerances(allowed) if isinstance(allowed, Case) else TOLERANCES[allowed]
        forward, backward = (room * tolerance for tolerance in both)
        return self.output <= forward and (math.isnan(self.gradients) or self.gradients <= backward)


def relative_error(x: Tensor, reference: Tensor) -> float:
    """|x - reference| / |reference| in float64; where the reference is zero, |x|. NaN counts as infinite."""
    difference = torch.linalg.vector_norm(x.detach().double() - reference.detach().double())
    norm = torch.linalg.vector_norm(reference.detach().double())
    ratio = float(difference / norm if norm > 0 else difference)
    return math.inf if math.isnan(ratio) else ratio


def gradient_error(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative error among several gradients of one function.

    A gradient below a tenth of the largest is what is left of larger terms that cancel (dq where
    D = 1, and the output hardly depends on q): it is held against that tenth.
    """
    least = max(float(torch.linalg.vector_norm(x.double())) for x in expected) / 10
    errors = []
    for x, reference in zip(got, expected, strict=True):
        norm = float(torch.linalg.vector_norm(reference.double()))
        errors.append(relative_error(x, reference) * (norm / least if 0 < norm < least else 1))
    return max(errors)


def _exact(case: Case) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The oracle's output and gradients of a case, whatever kernel of its family it names."""
    inputs = [x.detach().double().requires_grad_(case.backward) for x in make_inputs(case, seed=1)]
    out = REFERENCES[case.family](*inputs, causal=case.causal)
    gradients = torch.autograd.grad(out, inputs, _upstream(case).double()) if case.backward else ()
    return out.detach(), gradients


def _upstream(case: Case) -> Tensor:
    """The gradient of the output."""
    shape = (case.batch, case.heads, case.seq_len, case.value_dim)
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator).to(case.device, case.torch_dtype)


def errors_against_reference(case: Case, *, seq_len: int = 300) -> Errors:
    """Run the case's kernel on at most ``seq_len`` tokens of the case, and compare with the oracle.

    The oracle computes in float64 on the same, dtype-rounded inputs. 300 tokens cross the chunks
    of every chunked kernel and end inside one.
    """
    case = replace(case, seq_len=min(case.seq_len, seq_len))
    inputs = make_inputs(case, seed=1)
    out = get_kernel(case.kernel).function(*inputs, causal=case.causal)
    reference, expected = _exact(replace(case, kernel=f"{case.family}-oracle"))
    gradients = math.nan
    if case.backward:
        gradients = gradient_error(torch.autograd.grad(out, inputs, _upstream(case)), expected)
    return Errors(relative_error(out.detach(), reference), gradients)
