"""How far a kernel is from its oracle, and how far it may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention.case import DTYPES, Case, make_inputs
from attention.kernels.extra_inputs import MakeInputs
from attention.kernels.forms.linear import step_of
from attention.kernels.references.functions import REFERENCES
from attention.kernels.references.linear import linear_reference
from attention.kernels.registry import Kernel, Reference, get_kernel
from attention.state import State

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


Inputs = list[Tensor]


def _run(
    function: Callable[..., Tensor], case: Case, tensors: Inputs, extra: Mapping[str, Any], leaves: Inputs
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The output of a function, and the gradients of the leaves where the case has a backward."""
    out = function(*tensors, causal=case.causal, **extra)
    gradients = torch.autograd.grad(out, leaves, _upstream(case, out)) if case.backward else ()
    return out.detach(), gradients


def _checked(function: Callable[..., Tensor], case: Case, *tensors: Tensor, **options: Any) -> Tensor:
    """What a kernel returns, if it has the shape of a result and leaves its inputs as they were."""
    before = [x.detach().clone() for x in tensors]
    out = function(*tensors, **options)
    if not isinstance(out, Tensor):
        raise AssertionError(f"wrong result: the output is no tensor but {type(out).__name__}")
    shape = (case.batch, case.heads, case.queries, case.value_dim)
    if tuple(out.shape) != shape:
        raise AssertionError(f"wrong result: the output has shape {tuple(out.shape)}, but {shape} is needed")
    for name, x, old in zip("qkv", tensors, before, strict=False):
        if not torch.equal(x.detach(), old):
            raise AssertionError(f"it changes {name} in place, which the next call would get as its input")
    return out


def _oracle(reference: Reference, *tensors: Tensor, **options: Any) -> Tensor:
    out = reference.function(*tensors, **options)
    if not isinstance(out, Tensor):
        raise AssertionError(f"the oracle {reference.name} returns no tensor but {type(out).__name__}")
    return out


def differentiated_inputs(extra: Mapping[str, Any]) -> Inputs:
    """The extra inputs of which gradients are taken."""
    return [x for x in extra.values() if isinstance(x, Tensor) and x.requires_grad]


def _exact(case: Case, reference: Reference, make: MakeInputs | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The oracle's output and gradients of a case."""
    tensors = [_widened(x) for x in make_inputs(case, seed=1)]
    every = make(case) if make else {}
    extra = {name: _widened(x) for name, x in every.items() if reference.takes(name)}
    return _run(partial(_oracle, reference), case, tensors, extra, [*tensors, *differentiated_inputs(extra)])


def _widened(x: Any) -> Any:
    """A tensor of numbers in float64, with gradients where it had them; anything else as it is."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return x
    return x.detach().double().requires_grad_(x.requires_grad)


def _upstream(case: Case, out: Tensor) -> Tensor:
    """The gradient of the output, rounded as the case rounds it."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(out.shape, generator=generator).to(case.device, case.torch_dtype).to(out.dtype)


def reference_of(kernel: Kernel) -> Reference | None:
    """The oracle that a kernel is held to; None where it claims none."""
    found = kernel.reference
    return found if isinstance(found, Reference) else REFERENCES.get(found)


def errors_against_reference(
    case: Case,
    *,
    seq_len: int = 300,
    reference: Reference | None = None,
    function: Callable[..., Tensor] | None = None,
) -> Errors:
    """Run the case's kernel on at most ``seq_len`` tokens of the case, and compare with an oracle.

    The oracle, its kernel's unless another is given, computes in float64 on the same, dtype-rounded inputs.
    300 tokens cross the chunks of every chunked kernel and end inside one. ``function`` stands for the
    kernel's own, as where a decode takes steps behind a state; without it a kernel of linear attention takes
    one. Of a prefill the state that it keeps is compared as well.

    Raises:
        ValueError: The kernel claims no function, and no oracle is given.
    """
    case, kernel = _shortened(case, seq_len), get_kernel(case.kernel)
    reference = reference or reference_of(kernel)
    if reference is None:
        raise ValueError(f"{kernel.name} claims no function that has an oracle")
    stateful = reference is REFERENCES["linear"] and kernel.takes("return_state")
    if function is None:
        function = partial(_stepping, kernel) if stateful and case.phase == "decode" else kernel.function
    attend = partial(_checked, function, case)
    tensors, extra = list(make_inputs(case, seed=1)), kernel.extra_inputs(case)
    compared = {name: x for name, x in extra.items() if reference.takes(name)}
    out, gradients = _run(attend, case, tensors, extra, [*tensors, *differentiated_inputs(compared)])
    # What kernels without inputs of their own are held to does not depend on their names.
    shared = case if kernel.make_inputs else replace(case, kernel="oracle")
    expected, expected_gradients = _exact(shared, reference, kernel.make_inputs)
    worst = gradient_error(gradients, expected_gradients) if case.backward else math.nan
    of_state = _state_error(kernel, case, tensors) if stateful and case.phase == "prefill" else 0.0
    return Errors(max(relative_error(out, expected), of_state), worst)


def _shortened(case: Case, seq_len: int) -> Case:
    """The case of at most so many keys, and of fewer, as many or more queries, as it has."""
    keys, queries = min(case.seq_len, seq_len), case.query_len
    if queries is not None:
        queries = (
            min(queries, keys) if queries <= case.seq_len else keys + min(queries - case.seq_len, seq_len)
        )
    return replace(case, seq_len=keys, query_len=queries)


def _stepping(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """The last tokens of a context, as steps behind the state of the others."""
    ahead = k.shape[2] - q.shape[2]
    context = q[:, :, :0], k[:, :, :ahead], v[:, :, :ahead]
    state = State(*kernel.function(*context, causal=False, return_state=True)[1])
    step = kernel.step or partial(step_of, kernel.function)
    out: Tensor = step(q, k[:, :, ahead:], v[:, :, ahead:], state)[0]
    return out


def _state_error(kernel: Kernel, case: Case, tensors: Inputs) -> float:
    """The larger error of S and z behind all tokens."""
    state = State(*kernel.function(*tensors, causal=case.causal, return_state=True)[1])
    exact = linear_reference(*(x.double() for x in tensors), causal=case.causal, return_state=True)[1]
    return max(relative_error(got, wanted) for got, wanted in zip(state, exact, strict=True))
