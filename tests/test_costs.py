"""FLOPs and peak memory: the closed forms against what torch counts, and their exponents."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from attention import Case, costs, get_kernel, list_kernels, make_inputs
from attention.case import MODES, PHASES
from attention.kernels.blocks import BLOCK_ROWS, default_chunk_size
from attention.kernels.linear_chunked.costs import backward_terms, forward_terms
from attention.kernels.linear_chunked.passes import Passes, new_states
from attention.profiler import count_flops, peak_memory
from benchmarks.subjects import prepare
from tests.samples import sampled

pytestmark = pytest.mark.usefixtures("one_thread")

FUSED = ("standard-sdpa", "standard-sdpa-flash", "standard-sdpa-efficient", "standard-sdpa-cudnn")
MATRIX_IN_MEMORY = ("standard-explicit", "standard-sdpa-math", "linear-decay-explicit")
IN_BLOCKS = ("linear-chunked", "linear-decay-chunked")
ONEDNN_SCRATCH = 107_652
"""Bytes that a thread of a CPU with AVX512 takes for a tile of up to 64 queries, of heads of 64 and wider."""


def exponent(low: float, high: float) -> float:
    """p of t ~ N^p between a length and its double."""
    return math.log2(high / low)


def served(case: Case) -> bool:
    """Whether the kernel serves the case, if perhaps in another dtype."""
    narrow = replace(case, dtype="bfloat16")
    return any(get_kernel(case.kernel).supports(one) is None for one in (case, narrow))


def peak_bytes(case: Case) -> int:
    peak = peak_memory(prepare(case), case.device).tensor_bytes
    assert peak is not None
    return peak


@pytest.mark.parametrize("seq_len", [1, 100, 128, 300])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", MODES)
def test_counted_flops_equal_the_closed_form(
    kernel: str, mode: str, phase: str, seq_len: int, device: str
) -> None:
    case = Case(kernel, mode, seq_len, phase, device, batch=2, heads=3, head_dim=16)
    if get_kernel(kernel).supports(case):
        case = replace(case, dtype="bfloat16")
    for value_dim in (16, 24):
        case = replace(case, value_dim=value_dim)
        if get_kernel(kernel).supports(case) is None:
            assert count_flops(prepare(case)) == get_kernel(kernel).costs(case).countable_flops


MORE, FEWER = {"query_len": 400}, {"kv_heads": 2, "query_len": 90}
HALF = {"kv_heads": 2, "query_len": 500}
FORMS = ({"kv_heads": 2}, {"query_len": 1}, {"query_len": 90}, MORE, FEWER)
STANDARD = [name for name in list_kernels("standard") if get_kernel(name).has_costs]


@pytest.mark.parametrize(
    ("mode", "phase", "form"),
    sampled(
        MODES, PHASES, FORMS,
        quick=[("causal", "forward", MORE), ("causal", "forward_backward", FEWER),
               ("bidirectional", "forward", FEWER)],
    ),
)  # fmt: skip
@pytest.mark.parametrize("name", STANDARD)
def test_counted_flops_equal_the_closed_form_of_shared_keys_and_unequal_lengths(
    name: str, mode: str, phase: str, form: dict[str, Any], device: str
) -> None:
    case = Case(name, mode, 300, phase, device, batch=2, heads=8, head_dim=16, **form)
    if get_kernel(name).supports(case):
        case = replace(case, dtype="bfloat16")
    for value_dim in (16, 24):
        case = replace(case, value_dim=value_dim)
        if get_kernel(name).supports(case) is None:
            costs = get_kernel(name).costs(case)
            assert count_flops(call_of(case)) == costs.countable_flops
            # What is useful is the same in every kernel, but for the scores that a fused backward repeats.
            if phase == "forward":
                assert costs.useful_flops == 2 * 16 * seen_pairs(case) * (16 + value_dim)


def seen_pairs(case: Case) -> int:
    """Pairs of a query and a key that it sees, of one head."""
    ahead = case.seq_len - case.queries
    each = (max(0, i + 1 + ahead) if case.causal else case.seq_len for i in range(case.queries))
    return sum(each)


def call_of(case: Case) -> Callable[[], object]:
    """The call of a case of any shape."""
    tensors, function = make_inputs(case), get_kernel(case.kernel).function

    def call() -> None:
        with torch.set_grad_enabled(case.backward):
            out = function(*tensors, causal=case.causal)
            if case.backward:
                torch.autograd.grad(out, tensors, torch.ones_like(out))

    return call


@pytest.mark.parametrize(
    ("mode", "phase", "form"),
    sampled(
        MODES,
        PHASES,
        ({"kv_heads": 2}, {"query_len": 500}, HALF),
        quick=[("causal", "forward_backward", HALF)],
    ),
)
@pytest.mark.parametrize("name", STANDARD)
def test_predicted_peak_memory_of_shared_keys_and_unequal_lengths_is_close(
    name: str, mode: str, phase: str, form: dict[str, Any], device: str
) -> None:
    case = Case(name, mode, 1024, phase, device, heads=8, **form)
    if reason := get_kernel(name).supports(case):
        pytest.skip(reason)
    measured = peak_memory(call_of(case), device).tensor_bytes
    assert measured is not None
    constant = 2 * 2**20
    assert 0.8 * measured - constant < get_kernel(name).costs(case).peak_bytes < 1.35 * measured + constant


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["standard-sdpa", "standard-sdpa-math"])
def test_predicted_peak_memory_of_few_queries_on_a_cpu_is_close_without_a_constant(
    name: str, phase: str
) -> None:
    """Scratch of each thread, masks of blocks and copies of the keys are most of it.

    Where oneDNN multiplies bfloat16, a backward has its scratch besides, which depends on the CPU.
    """
    threads = 2
    torch.set_num_threads(threads)
    for dtype, queries, kv_heads in (
        ("float32", 1, 1), ("float32", 4, 8), ("bfloat16", 1, 2), ("bfloat16", 64, 1), ("float16", 4, 2),
    ):  # fmt: skip
        shape: dict[str, Any] = {"heads": 8, "kv_heads": kv_heads, "query_len": queries}
        case = Case(name, "causal", 1024, phase, "cpu", dtype, **shape)
        measured = peak_memory(call_of(case), "cpu").tensor_bytes
        assert measured is not None
        predicted = get_kernel(name).costs(case).peak_bytes
        of_onednn = threads * ONEDNN_SCRATCH if dtype == "bfloat16" and case.backward else 0
        assert 0.8 * (measured - of_onednn) < predicted < 1.35 * measured


@pytest.mark.parametrize("seq_len", [1, 100, 300])
@pytest.mark.parametrize("mode", MODES)
def test_flops_of_the_linear_chunked_operator_equal_those_of_the_products_inside(
    mode: str, seq_len: int
) -> None:
    """torch counts each product inside of the operator where its passes are called directly."""
    case = Case("linear-chunked", mode, seq_len, batch=2, heads=3, head_dim=16, value_dim=24)
    q, k, v = make_inputs(case)
    chunk = default_chunk_size(16, causal=case.causal)
    out, den = torch.empty_like(v), torch.ones(2, 3, seq_len, 1)
    passes = Passes(q, k, v, "elu", chunk)
    shape = (costs.Sizes.of(q, v), case.causal, chunk, "cpu")
    states = new_states(-(-seq_len // chunk), q, v)
    grads, upstream = (q.clone(), k.clone(), v.clone()), (v, out, den)
    if case.causal:
        forward = count_flops(lambda: passes.causal_forward(out, den, 1e-6, states))
        backward = count_flops(lambda: passes.causal_backward(upstream, grads, states))
    else:
        forward = count_flops(lambda: passes.forward(out, den, 1e-6, states[0]))
        backward = count_flops(lambda: passes.backward(upstream, grads, states[0]))
    assert forward == 2 * sum(forward_terms(*shape).values())
    assert backward == 2 * sum(backward_terms(*shape).values())


def test_causal_flops_are_counted_as_executed_and_as_useful() -> None:
    """The useful products are those of the N (N + 1) / 2 scores that are not masked, in every causal form."""
    n, d = 320, 64
    for phase, products in (("forward", 1), ("forward_backward", 3)):
        explicit = get_kernel("standard-explicit").costs(
            Case("standard-explicit", "causal", n, phase, heads=1)
        )
        assert explicit.flops == 2 * products * 2 * n * n * d
        assert explicit.useful_flops == 2 * products * n * (n + 1) * d
    fused = get_kernel("standard-sdpa").costs(Case("standard-sdpa", "causal", n, heads=1))
    assert fused.useful_flops == fused.flops == 2 * n * (n + 1) * d
    chunked = get_kernel("linear-chunked").costs(Case("linear-chunked", "causal", n, heads=1))
    # Five chunks of 64: in each, 64 * 63 / 2 masked scores, one product with keys, one with values and 1.
    assert chunked.flops - chunked.useful_flops == 2 * 5 * (64 * 63 // 2) * (2 * d + 1)
    for kernel in ("standard-explicit", "linear-chunked"):
        costs = get_kernel(kernel).costs(Case(kernel, "bidirectional", n))
        assert costs.useful_flops == costs.flops


def test_every_difference_between_counted_and_closed_flops_has_a_name(kernel: str, device: str) -> None:
    for mode in MODES:
        costs = get_kernel(kernel).costs(Case(kernel, mode, 100, device=device))
        names = (set(costs.uncounted), set(costs.overcounted))
        if kernel == "window-flex":
            assert costs.countable_flops == 0
        elif (mode == "causal" and kernel in FUSED) or kernel == "window-sdpa":
            assert names == (set(), {"masked_half"})
            assert costs.countable_flops == pytest.approx(2 * costs.flops, rel=0.01)
        elif mode == "causal" and kernel == "linear-explicit":
            assert names == ({"states", "normaliser"}, set())
        else:
            assert costs.countable_flops == costs.flops


def test_flops_have_exponent_two_for_standard_and_one_for_linear_kernels(kernel: str, device: str) -> None:
    """Exponents of FLOPs are exact, except for the diagonal of a causal fused kernel: N (N + 1) / 2.

    Causal linear-triton and kernels in C++ do not sum their last segment beforehand, a quarter of the
    products of one segment of 66.
    """
    if kernel.startswith("window-"):
        pytest.skip("FLOPs of a window have a bend")
    quadratic = kernel.startswith("standard-") or kernel in MATRIX_IN_MEMORY
    for mode in MODES:
        short = Case(kernel, mode, 2**20, device=device)
        if not served(short):
            continue
        costs = get_kernel(kernel).costs
        closed = exponent(costs(short).flops, costs(replace(short, seq_len=2**21)).flops)
        segmented = kernel in ("linear-triton", "linear-native", "linear-decay-native") and mode == "causal"
        # log2((2N + 1) / (N + 1)) is 1 - O(1/N); log2(1 + 1 / 66 / 4) is 0.0055.
        assert closed == pytest.approx(2 if quadratic else 1, abs=0.0056 if segmented else 2 / 2**20)
        if mode == "bidirectional" or not (segmented or kernel in FUSED):
            short = replace(short, seq_len=256, heads=1)
            if get_kernel(kernel).supports(short):
                short = replace(short, dtype="bfloat16")
            counted = exponent(count_flops(prepare(short)), count_flops(prepare(replace(short, seq_len=512))))
            assert counted == pytest.approx(closed, abs=4e-6)


def test_least_bytes_are_four_tensors_forward_and_twelve_with_backward() -> None:
    case = Case("linear-chunked", "causal", 1000, batch=2, heads=3, head_dim=64)
    tensor = 2 * 3 * 1000 * 64 * 4
    assert get_kernel(case.kernel).costs(case).min_bytes == 4 * tensor
    backward = replace(case, phase="forward_backward")
    assert get_kernel(case.kernel).costs(backward).min_bytes == 12 * tensor


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", MODES)
def test_peak_memory_is_quadratic_only_where_the_matrix_is_in_memory(
    kernel: str, mode: str, phase: str, device: str
) -> None:
    """The second difference over three lengths shows N^2 without the constant, because a + bN has none."""
    if kernel.startswith("window-"):
        pytest.skip("the results of a window are copied beyond it")
    # Enough rows fill a card; with few rows a fused kernel splits the sequence and holds partial results.
    heads = 1 if device == "cpu" else 128
    case = Case(kernel, mode, 0, phase, device, batch=1, heads=heads, head_dim=32)
    if not served(replace(case, seq_len=8)):
        pytest.skip(str(get_kernel(kernel).supports(case)))
    if get_kernel(kernel).supports(replace(case, seq_len=8)):
        case = replace(case, dtype="bfloat16")
    # From 768 tokens on scratch of kernels in blocks has its constant size and a fused kernel its last size
    # of tile; kernels that hold far more memory show its growth at 512 tokens.
    large = kernel in (*MATRIX_IN_MEMORY, "linear-explicit")
    unit = 2 * BLOCK_ROWS[device] // heads if kernel in IN_BLOCKS else 512 if large else 1024
    lengths = (unit, 2 * unit, 3 * unit)
    first, second, third = (peak_bytes(replace(case, seq_len=n)) for n in lengths)
    curvature = (third - 2 * second + first) / (second - first)
    if kernel in MATRIX_IN_MEMORY:
        # aN^2 + bN: (9 - 8 + 1) / (4 - 1) = 2/3, less what bN adds to the difference.
        assert 0.5 < curvature < 0.7
    else:
        # A block more or less of the running states of a chunk, and float32 for a last incomplete one.
        assert abs(curvature) < 0.06


def test_peak_memory_of_the_textbook_causal_form_is_head_dim_times_larger(device: str) -> None:
    case = Case("linear-explicit", "causal", 512, device=device, heads=1, head_dim=32)
    tensor = case.seq_len * case.head_dim * case.itemsize
    assert peak_bytes(case) > 2 * 32 * tensor
    assert peak_bytes(replace(case, mode="bidirectional")) < 8 * tensor


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", MODES)
def test_predicted_peak_memory_is_close_to_measured_peak_memory(
    kernel: str, mode: str, phase: str, device: str
) -> None:
    case = Case(kernel, mode, 1024, phase, device, heads=4)
    if get_kernel(kernel).supports(case):
        pytest.skip(str(get_kernel(kernel).supports(case)))
    predicted, measured = get_kernel(kernel).costs(case).peak_bytes, peak_bytes(case)
    # Buffers of threads that do not grow with N are not predicted of every kernel.
    constant = 2 * 2**20
    assert 0.8 * measured - constant < predicted < 1.35 * measured + constant


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", MODES)
def test_predicted_peak_memory_of_linear_chunked_names_every_buffer(mode: str, phase: str) -> None:
    """A tolerance of 5 % shows a missing buffer: the smallest is a state a chunk beside 7 to 13 inputs."""
    for seq_len in (1000, 1024, 5000):
        case = Case("linear-chunked", mode, seq_len, phase, heads=4)
        predicted = get_kernel(case.kernel).costs(case).peak_bytes
        assert predicted == pytest.approx(peak_bytes(case), rel=0.05)


def test_two_readings_of_peak_memory_are_equal(kernel: str, device: str) -> None:
    case = Case(kernel, "causal", 300, "forward_backward", device, heads=2)
    if get_kernel(kernel).supports(case):
        case = replace(case, dtype="bfloat16")
    assert peak_bytes(case) == peak_bytes(case)


def test_the_worked_examples_of_costs_hold() -> None:
    failed, tried = doctest.testmod(costs)
    assert failed == 0 and tried >= 4
