"""The profiler against programs whose memory, FLOPs and time are known by hand."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from mmap import PAGESIZE, mmap

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attention import Case, Profile, profile
from attention.profiler import count_flops, peak_memory
from benchmarks.subjects import prepare

pytestmark = pytest.mark.usefixtures("one_thread")

UNIT = 1024
"""Bytes, a multiple of the 512 that a GPU's allocator rounds up to."""


def vector(units: int, device: str = "cpu") -> torch.Tensor:
    return torch.ones(units * UNIT // 4, device=device)


def view(device: str) -> object:
    """A vector holds 8 units; its views hold none."""
    x = vector(8, device)
    return x.view(-1, 2).T[:1], x[::2]


def in_place(device: str) -> object:
    return vector(8, device).neg_().abs_().relu_()


def freed_temporary(device: str) -> object:
    """Two summands of 8 and their sum of 8 are alive at the peak; then the sum and a result of 8 are."""
    total = vector(8, device) + vector(8, device)
    return total.exp()


def nested_call(device: str) -> object:
    """Peak inside of the call: 8 given, 16 for the concatenation, 8 for the copy; 8 and 4 are left."""

    def inner(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x]).view(2, -1)[0].clone()

    kept = inner(vector(8, device))
    return kept, vector(4, device)


def output_kept(device: str) -> object:
    return [vector(8, device) for _ in range(5)]


def dropped_one_by_one(device: str) -> object:
    """Two vectors are alive at a time, because the name holds the old one until the new one is made."""
    x = vector(8, device)
    for _ in range(5):
        x = vector(8, device)
    return x


def backward(device: str) -> object:
    """y = x * w saves x and w; at the peak x, w, y, the gradient of y and those of x and w are alive."""
    x, w = vector(8, device).requires_grad_(), vector(8, device).requires_grad_()
    y = x * w
    return torch.autograd.grad(y, (x, w), vector(8, device))


PROGRAMS: dict[Callable[[str], object], int] = {
    view: 8,
    in_place: 8,
    freed_temporary: 24,
    nested_call: 32,
    output_kept: 40,
    dropped_one_by_one: 16,
    backward: 48,
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_peak_memory_equals_the_value_derived_by_hand(program: Callable[[str], object], device: str) -> None:
    peaks = [peak_memory(lambda: program(device), device).tensor_bytes for _ in range(2)]
    assert peaks == [PROGRAMS[program] * UNIT] * 2


def test_peak_memory_leaves_out_tensors_alive_before_the_call(device: str) -> None:
    before = vector(64, device)
    assert peak_memory(lambda: before.exp(), device).tensor_bytes == 64 * UNIT


def test_counting_flops_does_not_change_peak_memory(kernel: str, device: str) -> None:
    case = Case(kernel, "causal", 300, "forward_backward", device, dtype="bfloat16", heads=2)
    call = prepare(case)
    counted = peak_memory(lambda: count_flops(call), device)
    assert counted.tensor_bytes == peak_memory(call, device).tensor_bytes


def test_the_resident_set_counts_memory_that_no_tensor_holds() -> None:
    def allocate() -> None:
        # A new mapping with every page written, because an allocator may reuse resident memory.
        with mmap(-1, 200 * 2**20) as hidden:
            for page in range(0, len(hidden), PAGESIZE):
                hidden[page] = 1
            time.sleep(0.05)

    peak = peak_memory(allocate, "cpu")
    assert peak.tensor_bytes == 0
    assert peak.rss_bytes is not None and 190 * 2**20 < peak.rss_bytes < 260 * 2**20
    assert peak.rss_after_bytes is not None and peak.rss_peak_bytes is not None
    assert peak.rss_after_bytes < peak.rss_peak_bytes - 150 * 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory as they like")
def test_the_resident_set_grows_by_the_tensors_of_a_call_also_where_freed_memory_would_do() -> None:
    torch.ones(30 * 2**18)  # 30 MiB: once they were freed, glibc keeps what is less
    call = prepare(Case("standard-explicit", "bidirectional", 100, subject="layer"))
    peak_memory(call, "cpu")  # the first one sets up torch's profiler
    peak = peak_memory(call, "cpu")
    assert peak.tensor_bytes and peak.rss_bytes and peak.rss_bytes > 0.5 * peak.tensor_bytes


def test_flops_of_matrix_products_are_two_a_multiply_add(device: str) -> None:
    a, b = torch.ones(30, 40, device=device, requires_grad=True), torch.ones(40, 50, device=device)
    assert count_flops(lambda: a @ b) == 2 * 30 * 40 * 50
    assert count_flops(lambda: torch.autograd.grad((a @ b).sum(), a)) == 2 * 2 * 30 * 40 * 50
    assert count_flops(lambda: a.exp() + 1) == 0


def test_flops_of_fused_attention_on_a_cpu_are_counted() -> None:
    case = Case("standard-sdpa", "causal", 64, "forward_backward", heads=2, head_dim=16)
    call = prepare(case)
    with FlopCounterMode(display=False) as counter:  # torch's own, without this profiler around it
        call()
    # 2 products forward, 5 backward, N^2 D each.
    assert counter.get_total_flops() == 2 * 7 * 2 * 64 * 64 * 16


def test_a_profile_holds_every_round_with_counts_median_and_rates(device: str) -> None:
    a, b = torch.randn(2, 256, 256, device=device)
    measured = profile(torch.mm, a, b, rounds=7)
    assert len(measured.times_s) == 7 and min(measured.times_s) > 0
    assert measured.flops == 2 * 256**3
    assert measured.min_bytes == 3 * 256 * 256 * 4
    assert measured.peak_bytes == 256 * 256 * 4
    assert min(measured.times_s) <= measured.median_s <= max(measured.times_s)
    assert measured.flops_per_s == pytest.approx(measured.flops / measured.median_s)
    record = measured.asdict()
    assert json.loads(json.dumps(record)) == record
    assert not any(isinstance(value, dict | list | tuple) for value in record.values())
    assert len(str(measured)) == len(Profile.header())
    assert "peak MB" in Profile.header() and f"{measured.peak_bytes / 1e6:.4g}" in str(measured).split()
    assert measured.clock == ("device" if device == "cuda" else "wall")


def test_mean_median_deviation_and_standard_error_are_those_of_the_rounds() -> None:
    known = replace(profile(vector, 1, rounds=1, device="cpu"), times_s=(1.0, 2.0, 3.0, 6.0))
    assert (known.mean_s, known.median_s) == (3.0, 2.5)
    # Sample variance (4 + 1 + 0 + 9) / 3, over 4 rounds.
    assert known.standard_deviation_s == pytest.approx((14 / 3) ** 0.5)
    assert known.standard_error_s == pytest.approx((14 / 3 / 4) ** 0.5)
    assert replace(known, times_s=(1.0,)).asdict()["standard_error_s"] is None


def test_a_profile_on_a_cpu_measures_wall_clock_time() -> None:
    measured = profile(time.sleep, 0.01, rounds=5, device="cpu")
    assert min(measured.times_s) >= 0.01 and measured.median_s < 0.02


def test_the_profiler_costs_under_half_a_second_beyond_the_rounds() -> None:
    start = time.perf_counter()
    measured = profile(time.sleep, 0.001, rounds=20, device="cpu")
    beyond = time.perf_counter() - start - sum(measured.times_s)
    assert beyond < 0.5


def test_the_profiler_refuses_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        profile(vector, 1, rounds=0)
    with pytest.raises(ValueError, match="device must be cpu or cuda, got 'tpu'"):
        profile(vector, 1, device="tpu")


def test_a_profile_of_asynchronous_work_waits_for_its_end(device: str) -> None:
    if device != "cuda":
        pytest.skip("calls on a CPU are synchronous; run with --device cuda")
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    enqueued = waited = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        enqueued = min(enqueued, time.perf_counter() - start)
        torch.cuda.synchronize()
        waited = min(waited, time.perf_counter() - start)
    for clock in ("device", "wall"):
        measured = profile(torch.mm, a, a, clock=clock)
        assert measured.median_s > 10 * enqueued
        assert 0.5 * waited < measured.median_s < 1.5 * waited


def test_a_profile_refuses_work_left_on_another_stream_and_times_work_waited_for(device: str) -> None:
    if device != "cuda":
        pytest.skip("a CPU has no streams; run with --device cuda")
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def leave() -> None:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.mm(a, a)

    def wait() -> None:
        leave()
        torch.cuda.current_stream().wait_stream(side)

    with pytest.raises(ValueError, match="the function leaves work on another CUDA stream"):
        profile(leave, device=device)
    one_product = profile(torch.mm, a, a)
    assert profile(wait, device=device).median_s == pytest.approx(one_product.median_s, rel=0.3)


def test_a_profile_of_a_function_that_synchronises_inside_holds_all_of_its_work(device: str) -> None:
    if device != "cuda":
        pytest.skip("calls on a CPU are synchronous; run with --device cuda")
    a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)

    def twice() -> None:
        torch.mm(a, a)
        torch.cuda.synchronize()
        torch.mm(a, a)

    one_product = profile(torch.mm, a, a)
    assert 1.7 * one_product.median_s < profile(twice, device=device).median_s < 4 * one_product.median_s
