"""Forward mode inside of torch.compile: the true tangent or a refusal."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jacfwd, jvp

from attention import linear_attention

pytestmark = pytest.mark.usefixtures("one_thread")

BACKENDS = ("native", "chunked")
X = [torch.linspace(-1, width, 10 * width, dtype=torch.float64).view(1, 2, 5, width) for width in (3, 3, 2)]
H = [x.cos() for x in X]


@pytest.mark.parametrize("way", [jvp, jacfwd])
@pytest.mark.parametrize("backend", ["native", pytest.param("chunked", marks=pytest.mark.slow)])
def test_compiled_tangents_are_right_or_refused_and_never_zero(backend: str, way: Any) -> None:
    attend = partial(linear_attention, k=X[1], v=X[2], causal=True, backend=backend)

    forward = way is jvp

    def tangents(q: Tensor) -> Tensor:
        found: Tensor = jvp(attend, (q,), (H[0],))[1] if forward else jacfwd(attend)(q)
        return found

    wanted = tangents(X[0])
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(tangents, backend="eager")(X[0]), wanted)
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match=r"carries no tangents|Observed exception"):
        torch.compile(tangents, backend="eager", fullgraph=True)(X[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_with_a_level_of_forward_mode_is_refused(backend: str) -> None:
    attend = partial(linear_attention, k=X[1], v=X[2], backend=backend)

    make: Any = forward_ad.make_dual
    unpack: Any = forward_ad.unpack_dual

    def tangent(q: Tensor) -> Tensor | None:
        with forward_ad.dual_level():
            found: Tensor | None = unpack(attend(make(q, H[0]))).tangent
            return found

    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="carries no tangents"):
        torch.compile(tangent, backend="eager")(X[0])
