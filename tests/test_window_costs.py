"""FLOPs and peak memory of sliding-window attention: quadratic up to the window, and linear beyond."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attention import Case, get_kernel, window_attention
from attention.kernels.window import costs
from attention.profiler import count_flops, peak_memory
from benchmarks.subjects import prepare
from tests.windows import inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("seq_len", [100, 1024, 1025, 1500, 2600])
@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
def test_counted_flops_of_window_sdpa_equal_the_closed_form(seq_len: int, phase: str, device: str) -> None:
    for value_dim in (16, 24):
        case = Case("window-sdpa", "causal", seq_len, phase, device, heads=1, head_dim=16)
        case = replace(case, value_dim=value_dim)
        found = get_kernel(case.kernel).costs(case)
        assert count_flops(prepare(case)) == found.countable_flops
        products = 1 if phase == "forward" else 3.5
        width = 2 * max(16, value_dim) if device == "cpu" else 16 + value_dim
        if value_dim == 16:
            assert found.useful_flops == 2 * products * costs.window_scores(seq_len, 1024) * width


def test_a_counter_of_flops_sees_nothing_of_window_flex_and_spoils_nothing(device: str) -> None:
    inputs = inputs_of(200, "float32", device)
    before = window_attention(*inputs, window=9, backend="flex")
    assert count_flops(lambda: window_attention(*inputs, window=9, backend="flex")) == 0
    assert torch.equal(window_attention(*inputs, window=9, backend="flex"), before)


@pytest.mark.parametrize("name", ["window-sdpa", "window-flex"])
def test_flops_of_a_window_are_quadratic_up_to_it_and_linear_beyond(name: str) -> None:
    def useful(seq_len: int) -> int:
        return get_kernel(name).costs(Case(name, "causal", seq_len)).useful_flops

    assert useful(1024) == pytest.approx(4 * useful(512), rel=2 / 512)
    steps = [useful(n + 1) - useful(n) for n in (1024, 2000, 100000)]
    assert steps[0] == steps[1] == steps[2] == 2 * 8 * 1024 * 2 * 64
    far = get_kernel(name).costs(Case(name, "causal", 2**17))
    assert 1 < far.flops / far.useful_flops < 1.26


@pytest.mark.parametrize("seq_len", [1024, 2048, pytest.param(8192, marks=pytest.mark.slow)])
@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
def test_predicted_peak_memory_of_window_sdpa_is_close_to_the_measured_one(
    phase: str, seq_len: int, device: str
) -> None:
    case = Case("window-sdpa", "causal", seq_len, phase, device, heads=4)
    predicted = get_kernel(case.kernel).costs(case).peak_bytes
    measured = peak_memory(prepare(case), device).tensor_bytes
    assert measured is not None
    # A constant for the buffers of the threads, and for the band.
    assert 0.8 * measured - 4 * 2**20 < predicted < 1.35 * measured + 4 * 2**20


def test_predicted_peak_memory_of_window_flex_is_close_to_the_measured_one(device: str) -> None:
    for head_dim, value_dim in ((16, 16), (16, 24)):
        case = Case("window-flex", "causal", 6000, "forward", device, head_dim=head_dim, value_dim=value_dim)
        call = prepare(case)
        call()  # which compiles
        measured = peak_memory(call, device).tensor_bytes
        assert measured == pytest.approx(get_kernel(case.kernel).costs(case).peak_bytes, rel=0.1)


def test_memory_of_window_sdpa_is_linear_beyond_the_window(device: str) -> None:
    """torch's allocator on CUDA gives a tensor up to 1 MiB more than it asks for: there all are larger."""
    heads = 2 if device == "cpu" else 32
    case = Case("window-sdpa", "causal", 0, "forward_backward", device, heads=heads, head_dim=32)
    peaks = [peak_memory(prepare(replace(case, seq_len=1024 * n)), device).tensor_bytes for n in (3, 6, 9)]
    first, second, third = (float(peak or 0) for peak in peaks)
    assert abs(third - 2 * second + first) < 0.06 * (second - first), peaks
