"""The subjects of a measurement: the attention operator, a self-attention layer, a ceiling of the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from attention import Case, Costs, Reference, SelfAttention, get_kernel, make_inputs
from attention.costs import cache_bytes
from attention.kernels.extra_inputs import seeded, tensors_in
from attention.kernels.references import (
    Errors,
    differentiated_inputs,
    errors_against_reference,
    gradient_error,
    relative_error,
)
from attention.modules import self_attention_costs
from benchmarks.inference import attention_of, keeps_state, refusal, step_behind

Call = Callable[[], object]


class Prepared(NamedTuple):
    """A call, its inputs made beforehand, and the bytes that it reads and writes at least.

    Those are its inputs and its output once, and with a backward these and their gradients once more.
    """

    call: Call
    min_bytes: int


@dataclass(frozen=True)
class Subject:
    """How the cases of one subject are called, checked and accounted for.

    ``prepare(case)`` makes the inputs and returns the call to time; ``errors(case, reference)`` compares its
    result with an oracle; ``costs`` (None: they are not known) and ``supports`` as a kernel's.
    """

    prepare: Callable[[Case], Prepared]
    costs: Callable[[Case], Costs | None]
    supports: Callable[[Case], str | None]
    errors: Callable[[Case, Reference], Errors]


def prepare(case: Case) -> Call:
    """The call that is timed, its inputs made beforehand."""
    return SUBJECTS[case.subject].prepare(case).call


def precision_of(case: Case) -> str:
    """What a case computes in: its dtype, unless its kernel states another precision."""
    return case.dtype if case.subject == "ceiling" else get_kernel(case.kernel).precision_of(case.dtype)


def in_theory(costs: Costs) -> dict[str, int]:
    """The fields of a record that follow from closed forms, whether its case is measured or not."""
    return {
        "flops": costs.flops,
        "macs": costs.macs,
        "useful_flops": costs.useful_flops,
        "countable_flops": costs.countable_flops,
        "min_bytes": costs.min_bytes,
        "predicted_peak_bytes": costs.peak_bytes,
    }


def input_bytes(case: Case) -> int:
    """Inputs, the gradient that enters a backward, and a state that is read and written."""
    d, dv = case.head_dim, case.value_dim
    rows = case.heads * case.queries * (d + (dv if case.backward else 0))
    rows += case.key_heads * case.seq_len * (d + dv)
    return case.batch * rows * case.itemsize + (cache_bytes(case, state=True) if stepped(case) else 0)


def stepped(case: Case) -> bool:
    """Whether a case is a step of new tokens behind a state."""
    return case.subject == "operator" and case.phase == "decode" and keeps_state(case)


def _timed(
    case: Case, function: Callable[..., Tensor], inputs: Sequence[Tensor], leaves: Sequence[Tensor]
) -> Prepared:
    """A forward without gradients, or a forward and a backward into the leaves."""
    read, gradients, written = _bytes(inputs), _bytes(leaves), _output_bytes(case)

    if not case.backward:
        return Prepared(forward_call(function, inputs), read + written)
    call = backward_call(function, inputs, leaves, upstream(function(*inputs)))
    return Prepared(call, 2 * (read + written) + written + gradients)


def forward_call(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Call:
    """A forward without gradients."""

    def forward() -> None:
        with torch.no_grad():
            function(*inputs)

    return forward


def backward_call(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], leaves: Sequence[Tensor], grad_out: Tensor
) -> Call:
    """A forward, and a backward into the leaves from a gradient of the output."""

    def forward_backward() -> None:
        function(*inputs).backward(grad_out)  # type: ignore[no-untyped-call]
        for leaf in leaves:
            leaf.grad = None

    return forward_backward


def _output_bytes(case: Case) -> int:
    return case.batch * case.heads * case.queries * case.value_dim * case.itemsize


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def upstream(out: Tensor) -> Tensor:
    """A gradient of the output, drawn beside the process's own random numbers."""
    generator = torch.Generator(out.device).manual_seed(2)
    return torch.randn(out.shape, generator=generator, device=out.device, dtype=out.dtype)


# --- the operator ------------------------------------------------------------------------------------


def _prepare_operator(case: Case) -> Prepared:
    if stepped(case):
        return _prepare_step(case)
    attention, extra = attention_of(case), get_kernel(case.kernel).extra_inputs(case)

    def attend(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
        return attention(q, k, v, causal=case.causal, **extra)

    inputs = make_inputs(case)
    prepared = _timed(case, attend, [*inputs, *tensors_in(extra)], [*inputs, *differentiated_inputs(extra)])
    return prepared._replace(min_bytes=prepared.min_bytes + _state_written(case))


def _prepare_step(case: Case) -> Prepared:
    q, k, v = make_inputs(case)
    tokens = case.batch * case.key_heads * case.queries * (case.head_dim + case.value_dim) * case.itemsize
    least = _bytes([q]) + tokens + _output_bytes(case) + 2 * cache_bytes(case, state=True)
    return Prepared(step_behind(get_kernel(case.kernel), q, k, v), least)


def _state_written(case: Case) -> int:
    """Bytes of the state that a prefill returns; keys and values are kept as they were given."""
    return cache_bytes(case, state=True) if case.phase == "prefill" and keeps_state(case) else 0


# --- the layer ---------------------------------------------------------------------------------------


def layer_and_input(case: Case) -> tuple[SelfAttention, Tensor]:
    """The layer of a case and its input, equal on every call."""
    with seeded(case.device):
        return _draw_layer_and_input(case)


def _draw_layer_and_input(case: Case) -> tuple[SelfAttention, Tensor]:
    layer = SelfAttention(
        case.heads * case.head_dim,
        case.heads,
        num_kv_heads=case.key_heads,
        kernel=case.kernel,
        causal=case.causal,
        device=case.device,
        dtype=case.torch_dtype,
    )
    size = (case.batch, case.seq_len, layer.embed_dim)
    x = torch.randn(size, device=case.device, dtype=case.torch_dtype, requires_grad=case.backward)
    return layer, x


def _prepare_layer(case: Case) -> Prepared:
    layer, x = layer_and_input(case)
    return _timed(case, layer, [x], [x, *layer.parameters()])


def _layer_supports(case: Case) -> str | None:
    kernel = get_kernel(case.kernel)
    if kernel.make_inputs:
        return f"a layer makes q, k and v, and {case.kernel} takes more"
    return kernel.supports(case)


def _layer_costs(case: Case) -> Costs | None:
    return self_attention_costs(case) if get_kernel(case.kernel).has_costs else None


def _layer_errors(case: Case, reference: Reference) -> Errors:
    """Against the same weights in float64 around the oracle."""
    layer, x = layer_and_input(case)
    exact = deepcopy(layer).double()
    exact.kernel = replace(layer.kernel, function=reference.function)
    wide = x.detach().double().requires_grad_(case.backward)
    with torch.set_grad_enabled(case.backward):  # a kernel may have no backward
        out, expected = layer(x), exact(wide)
    gradients = float("nan")
    if case.backward:
        grad_out = upstream(out)
        got = torch.autograd.grad(out, [x, *layer.parameters()], grad_out)
        wanted = torch.autograd.grad(expected, [wide, *exact.parameters()], grad_out.double())
        gradients = gradient_error(got, wanted)
    return Errors(relative_error(out, expected), gradients)


# --- the ceilings ------------------------------------------------------------------------------------

COPY, MATMUL = "ceiling-copy", "ceiling-matmul"
IN_CACHE = 512


def ceiling_cases(device: str, dtype: str) -> list[Case]:
    """A copy of arrays far larger than the caches, and products large enough to fill the device.

    In float32 on a CPU there is one more product, which stays in the caches, as chunked kernels do. It is a
    convolution, which torch gives to oneDNN: the MKL of `torch.mm` reaches half as much on some cores.
    """
    rows, sizes = 2**22, [8192 if device == "cuda" else 2048]
    if (device, dtype) == ("cpu", "float32"):
        sizes.append(IN_CACHE)
    common = {"mode": "bidirectional", "device": device, "dtype": dtype, "batch": 1, "heads": 1}
    return [
        Case(COPY, seq_len=rows, head_dim=64, value_dim=64, subject="ceiling", **common),  # type: ignore[arg-type]
        *(
            Case(MATMUL, seq_len=size, head_dim=size, value_dim=size, subject="ceiling", **common)  # type: ignore[arg-type]
            for size in sizes
        ),
    ]


def _random(case: Case, *shape: int) -> Tensor:
    # Random numbers, because a product of zeros runs faster than one of data; a block repeated is enough.
    count = shape[0] * shape[1]
    generator = torch.Generator(case.device).manual_seed(0)
    block = torch.randn(min(count, 2**16), generator=generator, device=case.device).to(case.torch_dtype)
    return block.repeat(-(-count // block.numel()))[:count].view(shape)


def _prepare_ceiling(case: Case) -> Prepared:
    return Prepared(_ceiling_call(case), _ceiling_costs(case).min_bytes)


def _ceiling_call(case: Case) -> Call:
    source = _random(case, case.seq_len, case.head_dim)
    target = torch.empty_like(source)
    if case.kernel == COPY:
        return lambda: target.copy_(source)
    if case.seq_len == IN_CACHE:
        pixels = source[None, :, :, None].contiguous(memory_format=torch.channels_last)
        return lambda: torch.conv2d(pixels, source[:, :, None, None])
    return lambda: torch.mm(source, source.mT, out=target)


def _no_errors(case: Case, reference: Reference) -> Errors:
    raise TypeError(f"{case.kernel} is no kernel that could be compared with an oracle")


def _ceiling_costs(case: Case) -> Costs:
    array = case.seq_len * case.head_dim
    terms = {"product": case.seq_len**2 * case.head_dim} if case.kernel == MATMUL else {}
    return Costs(terms=terms, min_bytes=2 * array * case.itemsize, peak_bytes=0)


SUBJECTS = {
    "operator": Subject(
        prepare=_prepare_operator,
        costs=lambda case: get_kernel(case.kernel).known_costs(case),
        supports=lambda case: get_kernel(case.kernel).supports(case) or refusal(case),
        errors=lambda case, reference: errors_against_reference(
            case, seq_len=case.seq_len, reference=reference, function=attention_of(case)
        ),
    ),
    "layer": Subject(
        prepare=_prepare_layer, costs=_layer_costs, supports=_layer_supports, errors=_layer_errors
    ),
    "ceiling": Subject(
        prepare=_prepare_ceiling, costs=_ceiling_costs, supports=lambda case: None, errors=_no_errors
    ),
}
