"""The plan of linear-triton, from which launches, FLOPs and costs follow, of misaligned tensors too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from attention import Case
from attention.case import MODES
from attention.costs import Terms
from attention.kernels.linear_triton.costs import (
    backward_terms,
    forward_terms,
    of_all_heads,
    plan_of_case,
    triton_costs,
)
from attention.kernels.linear_triton.gluon.launches import GluonLaunches
from attention.kernels.linear_triton.operator import (
    triton_forward,
    triton_gradients,
    triton_inference,
)
from attention.kernels.linear_triton.plan_cache import forget_launches, launches
from attention.kernels.linear_triton.triton.launches import TritonLaunches
from attention.kernels.triton_common import card, plan
from attention.kernels.triton_common.launch import Launch, Repeat
from attention.kernels.triton_common.plan import Plan, make_plan, plan_of
from attention.profiler import count_flops

WIDTH, TOKENS = 96, 700
NAMES = ("q", "k", "v", "do")


@pytest.fixture(autouse=True)
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Plans are those of a Hopper card; passes are not launched, but their modules recorded and yielded."""
    pytest.importorskip("triton.experimental.gluon")
    monkeypatch.setattr(card, "has_gluon", lambda device: True)
    monkeypatch.setattr(plan, "DESCRIBED", 0)
    launched: list[str] = []

    def first(launch: Launch, tensors: list[Tensor]) -> Repeat:
        def again(tensors: list[Tensor]) -> None:
            launched.append(launch.kernel.fn.__module__)

        again(tensors)
        return again

    monkeypatch.setattr(Launch, "first", first)
    forget_launches()
    yield launched
    forget_launches()


def inputs(*misaligned: str, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """q, k, v and do; tensors of the given names begin 2 bytes past a multiple of 16."""
    size = 2 * TOKENS * WIDTH
    return {
        name: torch.zeros(size + 1, dtype=dtype)[1 if name in misaligned else 0 :][:size].view(
            1, 2, TOKENS, WIDTH
        )
        for name in NAMES
    }


def counted(x: dict[str, Tensor], causal: bool) -> tuple[int, int, int]:
    """FLOPs that torch's counter finds in a call without gradients, in a forward and in its backward."""
    q, k, v, do = (x[name] for name in NAMES)
    results: list[Tensor] = []
    inference = count_flops(lambda: triton_inference(q, k, v, causal, "elu", 1e-6, "ieee", None))
    how = (causal, "elu", 1e-6, "ieee", None, False, True)
    forward = count_flops(lambda: results.extend(triton_forward(q, k, v, None, None, *how)))
    out, inv, S, z, _, _ = results
    saved = (do, q, k, v, out, inv, S, z, None, None, None, None)
    return (
        inference,
        forward,
        count_flops(lambda: triton_gradients(*saved, causal, "elu", "ieee", None, False)),
    )


def expected(planned: Plan, terms: tuple[Terms, Terms]) -> int:
    return 2 * sum(of_all_heads(planned, terms).values())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("misaligned", [(), ("q",), ("k",), ("v",), ("q", "k", "v"), ("do",)])
def test_counted_flops_follow_the_plan_of_the_launched_passes(
    misaligned: tuple[str, ...], mode: str, hopper: list[str]
) -> None:
    x, causal = inputs(*misaligned), mode == "causal"
    inference, forward, backward = counted(x, causal)
    ahead, behind = (plan_of(x["q"], x["k"], x["v"], others, causal=causal) for others in ((), (x["do"],)))
    languages = ["gluon" if one.gluon else "triton" for one in (ahead, behind)]
    assert languages == [
        "triton" if misaligned not in ((), ("do",)) else "gluon",
        "triton" if misaligned else "gluon",
    ]
    assert {name.split(".")[3] for name in hopper} == set(languages)
    assert inference == forward == expected(ahead, forward_terms(ahead))
    assert backward == expected(behind, backward_terms(behind))


def test_a_plan_of_misaligned_wide_tensors_computes_scores_in_each_block_of_the_values() -> None:
    """Aligned wide tensors compute scores once, misaligned ones once in each block of the values."""
    aligned, misaligned = (plan_of(x["q"], x["k"], x["v"]) for x in (inputs(), inputs("k")))
    once, twice = (forward_terms(one)[0] for one in (aligned, misaligned))
    assert once["scores"] == once["weighted_values"]
    assert twice["scores"] == 2 * twice["weighted_values"]


def test_a_plan_has_the_launches_of_its_language() -> None:
    for misaligned, kind in (((), GluonLaunches), (("v",), TritonLaunches)):
        x = inputs(*misaligned)
        assert type(launches(x["q"], x["k"], x["v"], True, "elu", "ieee")) is kind


def test_segments_of_a_plan_do_not_depend_on_alignment() -> None:
    plans = [plan_of(x["q"], x["k"], x["v"], (x["do"],)) for x in (inputs(), inputs("k"), inputs("do"))]
    assert len({(one.segments, one.segment_tokens) for one in plans}) == 1
    assert [one.aligned for one in plans] == [True, False, False]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 6, 8, 12, 32])
@pytest.mark.parametrize("width", [32, 64, 80, 128, 256])
def test_a_backward_finds_the_sums_where_its_forward_left_them(heads: int, width: int, causal: bool) -> None:
    """Gradients of any strides and alignment, whose passes another language may compute."""
    shape, on = (1, heads, 8192, width), torch.device("cuda")
    plain = (heads * 8192 * width, 8192 * width, width, 1)
    layouts = [(on, torch.bfloat16, strides) for strides in (plain, plain, plain)]
    expanded, odd = (0, 0, 0, 0), (plain[0], plain[1], width + 3, 1)
    plans = [
        make_plan(
            shape, shape, (*layouts, *((on, torch.bfloat16, one) for one in others)), aligned, causal=causal
        )
        for others in ((), (expanded,), (odd,))
        for aligned in (True, False)
    ]
    assert len({one.gluon for one in plans}) == (2 if 64 < width <= 128 else 1)
    for final in (False, True):
        counts = {one.summed(final=final) for one in plans}
        assert len(counts) == len({one.slots(one.summed(final=final)) for one in plans}) == 1


def test_a_plan_of_fake_tensors_equals_that_of_aligned_tensors() -> None:
    """Tensors of a compiler have no address that could be misaligned."""
    real = inputs()
    with FakeTensorMode() as mode:
        q, k, v = (mode.from_tensor(real[name]) for name in NAMES[:3])
        assert plan_of(q, k, v) == plan_of(real["q"], real["k"], real["v"])


@pytest.mark.parametrize("mode", MODES)
def test_costs_of_a_case_follow_from_the_plan_of_contiguous_inputs(mode: str) -> None:
    case = Case("linear-triton", mode, TOKENS, "forward", "cpu", "bfloat16", 1, 2, WIDTH)
    x, causal = inputs(), mode == "causal"
    planned = plan_of(x["q"], x["k"], x["v"], causal=causal)
    assert plan_of_case(case) == planned
    inference, _, backward = counted(x, causal)
    assert triton_costs(case).countable_flops == inference
    both = replace(case, phase="forward_backward")
    assert triton_costs(both).countable_flops == inference + backward


def test_a_plan_of_tensors_on_several_devices_is_refused() -> None:
    x = inputs()
    with pytest.raises(ValueError, match="one device; got cpu, meta"):
        plan_of(x["q"], x["k"], x["v"].to("meta"))
