"""Cases of a kernel, and how its results are compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import Tensor

from attention import Case, get_kernel
from attention.kernels.references import relative_error

SMALL: dict[str, Any] = {"batch": 2, "heads": 2}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "tokens before heads": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "transposed last axes": lambda x: x.mT.contiguous().mT,
    "every second token of a longer tensor": lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2],
    "one head expanded to all": lambda x: x[:, :1].expand(-1, x.shape[1], -1, -1),
}


def usable(case: Case) -> Case:
    """The case; the test is skipped with the kernel's reason where that does not serve it."""
    reason = get_kernel(case.kernel).supports(case)
    if reason:
        pytest.skip(reason)
    return case


def attention_of(case: Case) -> Callable[..., Tensor]:
    """The kernel of a case, in its mode and with its inputs beside q, k and v."""
    kernel = get_kernel(case.kernel)
    return partial(kernel.function, causal=case.causal, **kernel.extra_inputs(case))


def assert_close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    error = relative_error(got, expected)
    assert error <= tolerance, f"{what}: relative error {error:.2g}, allowed {tolerance:.2g}"
