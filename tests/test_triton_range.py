"""linear-triton on numbers far from 1, and what float16 keeps of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attention.case import MODES
from attention.kernels.linear_triton.kernel import linear_triton
from attention.kernels.references import TOLERANCES, linear_reference, relative_error
from tests.interpreted import inputs

pytestmark = pytest.mark.usefixtures("triton_passes")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("of_q", "of_k", "of_v"), [(30, 30, 1), (1, 1, 2e4), (1e3, 1e3, 1e3), (0.01, 1e3, 1e-2), (1e4, 0.01, 1)]
)
def test_float16_of_any_size_gives_what_float64_gives(
    of_q: float, of_k: float, of_v: float, mode: str, device: str
) -> None:
    """Scores and sums pass the largest float16, 65504, and its smallest."""
    q, k, v = (x.detach() * size for x, size in zip(inputs(device), (of_q, of_k, of_v), strict=True))
    assert_float16_equals_float64(q, k, v, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("of_q", "of_first", "of_rest"), [(0, -16, -16), (-14, -14, -14), (0, -17, 2), (0, 3, -17)]
)
@pytest.mark.parametrize("width", [16, 24])
def test_float16_keeps_features_below_its_smallest_number(
    width: int, of_q: float, of_first: float, of_rest: float, mode: str, device: str
) -> None:
    """e^-17 is 4e-8, where float16 has one bit; keys in the first half of the sequence, and in the rest."""
    q, k, v = (x.detach() for x in inputs(device, (1, 1, 150, width)))
    k[:, :, :75] += of_first
    k[:, :, 75:] += of_rest
    assert_float16_equals_float64(q + of_q, k, v, mode)


def assert_float16_equals_float64(q: Tensor, k: Tensor, v: Tensor, mode: str) -> None:
    """The output of float16, and that of its first and last rows, which see few keys and many."""
    q, k, v = (x.clamp(-6e4, 6e4).half() for x in (q, k, v))
    out = linear_triton(q, k, v, causal=mode == "causal").double()
    expected = linear_reference(*(x.double() for x in (q, k, v)), causal=mode == "causal", eps=1e-6)
    for rows in (slice(None), slice(40), slice(-40, None)):
        assert relative_error(out[:, :, rows], expected[:, :, rows]) < TOLERANCES[torch.float16][0]


def test_a_float16_normaliser_of_linear_triton_beyond_65504_does_not_overflow(device: str) -> None:
    q, k, v = (x.detach().half() for x in inputs(device))
    out = linear_triton(q, k + 2000, v, causal=True)  # z reaches 100 x 2000
    reference = linear_reference(q, k + 2000, v, causal=True)
    assert relative_error(out, reference) < TOLERANCES[torch.float16][0]


def test_linear_triton_keeps_the_small_features_of_strongly_negative_inputs(device: str) -> None:
    """phi = e^-12 would be rounded away by adding 1 to elu, and eps outweighs the rest."""
    q, k, v = (x.detach() for x in inputs(device))
    out = linear_triton(q - 12, k - 12, v)
    assert relative_error(out, linear_reference(q - 12, k - 12, v)) < 1e-5
