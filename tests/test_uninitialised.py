"""Whatever memory holds when it is allocated, no kernel's results depend on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from attention import Case, get_kernel, make_inputs
from attention.case import DTYPES, MODES

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = [(1, 1, 1, 1, 1), (1, 3, 65, 17, 33), (2, 1, 700, 8, 3), (1, 2, 0, 4, 4)]
"""B, H, N, D and Dv: about a token, a chunk of 64 and a segment of 256; and no tokens."""


@pytest.fixture
def filled() -> Iterator[None]:
    """torch fills what is allocated with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def results(case: Case) -> list[Tensor]:
    inputs, extra = make_inputs(case), get_kernel(case.kernel).extra_inputs(case)
    out = get_kernel(case.kernel).function(*inputs, causal=case.causal, **extra)
    return [out.detach(), *torch.autograd.grad(out.sum(), [*inputs, *extra.values()])]


@pytest.mark.parametrize("storage", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", ["linear-chunked", "linear-native", "linear-decay-chunked", "linear-decay-native"]
)
def test_no_uninitialised_memory_reaches_a_result(
    name: str, mode: str, shape: tuple[int, ...], storage: str, filled: None
) -> None:
    B, H, N, D, E = shape
    case = Case(name, mode, N, "forward_backward", "cpu", storage, B, H, D, E)
    if reason := get_kernel(name).supports(case):
        pytest.skip(reason)
    poisoned = results(case)
    torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, poisoned, results(case)))
    assert not any(x.isnan().any() for x in poisoned)
