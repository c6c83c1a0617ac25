"""Gluon passes of linear-triton: run on a Hopper card, compiled for it and planned on a CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attention import Case
from attention.case import MODES
from attention.kernels.linear_triton import linear_triton
from attention.kernels.linear_triton.costs import triton_costs
from attention.kernels.linear_triton.gluon.launches import GluonLaunches
from attention.kernels.linear_triton.operator import (
    triton_forward,
    triton_gradients,
)
from attention.kernels.linear_triton.plan_cache import forget_launches, launches
from attention.kernels.references import TOLERANCES, gradient_error, linear_reference, relative_error
from attention.kernels.triton_common import card as card_at_hand
from attention.kernels.triton_common import plan as triton_plan
from attention.kernels.triton_common.launch import Launch, Repeat
from tests.interpreted import continued

FORWARD, BACKWARD = TOLERANCES[torch.bfloat16]
SHARED_MEMORY = 227 * 1024
"""Bytes of shared memory for one program on a Hopper card."""
LONG = Case("linear-triton", "causal", 131072, "forward", "cuda", "bfloat16", 1, 16, 128)


def inputs(device: str, shape: tuple[int, ...], value_dim: int) -> list[Tensor]:
    """q, k, v and do in the memory layout of a layer's projections: [B, N, H, D] seen as [B, H, N, D]."""
    generator = torch.Generator().manual_seed(3)
    batch, heads, tokens, width = shape
    made = [
        torch.randn(batch, tokens, heads, wide, generator=generator)
        .to(device, torch.bfloat16)
        .transpose(1, 2)
        for wide in (width, width, value_dim, value_dim)
    ]
    return [x.requires_grad_() for x in made[:3]] + made[3:]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("feature_map", "shape", "value_dim"),
    [
        ("elu", (1, 2, 512, 128), 128),
        ("elu", (2, 3, 4097, 128), 128),
        ("elu", (1, 2, 1000, 96), 128),
        ("elu", (1, 1, 50, 128), 72),
        ("elu", (1, 200, 700, 80), 112),
        ("relu", (1, 2, 700, 128), 128),
        ("identity", (1, 2, 700, 120), 96),
    ],
)
def test_gluon_equals_the_oracle_with_gradients_and_repeats_its_bits(
    feature_map: str, shape: tuple[int, ...], value_dim: int, mode: str, card: str
) -> None:
    q, k, v, do = inputs(card, shape, value_dim)
    if feature_map == "identity":  # whose normalisers of either sign could vanish
        q, k = (x.detach().abs().requires_grad_() for x in (q, k))
    assert isinstance(launches(q, k, v, mode == "causal", feature_map, "ieee", others=(do,)), GluonLaunches)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    reference = linear_reference(*exact, causal=mode == "causal", feature_map=feature_map)
    wanted = torch.autograd.grad(reference, exact, do.double())
    results = []
    for _ in range(2):
        out = linear_triton(q, k, v, causal=mode == "causal", feature_map=feature_map)
        results.append((out, *torch.autograd.grad(out, (q, k, v), do)))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))
    assert relative_error(results[0][0], reference) < FORWARD
    assert gradient_error(results[0][1:], wanted) < BACKWARD


def test_gluon_continued_from_a_state_equals_one_call_with_gradients(card: str) -> None:
    q, k, v, do = inputs(card, (1, 3, 1200, 128), 104)

    def losses(*parts: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        state, outputs = None, []
        for queries, keys, values in parts:
            out, state = continued(queries, keys, values, state)
            outputs.append(out)
        out, (S, z) = torch.cat(outputs, dim=2), state  # type: ignore[misc]
        loss = (out.float() * do.float()).sum() + S.sum() / 100 + z.sum() / 10
        return out, torch.autograd.grad(loss, (q, k, v))

    out, gradients = losses((q, k, v))
    joined, others = losses(
        *(tuple(x[:, :, part] for x in (q, k, v)) for part in (slice(500), slice(500, None)))
    )
    assert relative_error(joined, out) < FORWARD
    assert gradient_error(others, gradients) < BACKWARD


def test_gluon_passes_a_nan_on_to_later_tokens_only(card: str) -> None:
    q, k, v, _ = (x.detach() for x in inputs(card, (1, 2, 1000, 128), 128))
    k[0, 0, 700, 3] = float("nan")
    out = linear_triton(q, k, v, causal=True)
    assert out[0, 0, 700:].isnan().all()
    assert not out[0, 0, :640].isnan().any() and not out[0, 1].isnan().any()


def unused_barriers(code: str) -> int:
    """How many barriers a pass in Triton's intermediate code makes and does not use.

    A tile may lie on an unused one. It came back wrong where processes took turns on a card.
    """
    lines = code.splitlines()

    def uses(name: str) -> list[str]:
        return [line for line in lines if re.search(rf"{name}\b(?! =)", line)]

    unused = 0
    for made in re.findall(r"(%\w+) = ttg.local_alloc : \(\) -> !ttg.memdesc<\d+x1xi64", code):
        parts = [line.split(" = ")[0].strip() for line in uses(made) if "memdesc_index" in line]
        others = [line for name in (made, *parts) for line in uses(name)]
        unused += all("memdesc_index" in line or "init_barrier" in line for line in others)
    return unused


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.language.nvidia.hopper import tma
from attention.kernels.linear_decay_triton.gluon import attend as decay_attend, states as decay_states
from attention.kernels.linear_triton.gluon.attend import attend
from attention.kernels.linear_triton.gluon.differentiate import differentiate
from attention.kernels.linear_triton.gluon.states import states, states_back
from tests.interpreted import continued
from tests.test_gluon import unused_barriers

# Names of Triton 3.6, with which the passes have run, stand in for those of later versions when compiling.
if not hasattr(gl, "thread_barrier"):
    gl.thread_barrier = gl.barrier
if hasattr(tma, "async_load"):
    tma.async_copy_global_to_shared, tma.async_copy_shared_to_global = tma.async_load, tma.async_store

tile = f"tensordesc<bf16[1, 1, 128, 128],{gl.NVMMASharedLayout(128, 16, 4)!r}>"
pointers = "inv", "minus_delta", "S", "z", "S0", "z0", "sums", "totals"
types = dict.fromkeys((*pointers, "across"), "*fp32") | {"bounds": "*bf16", "eps": "fp32", "ends": "*i32"}
switches = dict(MAP="elu", SCANNED=False, SUMS=True, INITIAL=True, KEEP=True, PAD_D=True, RAGGED=True)
for kernel, moved, CAUSAL, REVERSE, PACKED in (
    (states, "x y", True, False, False),
    (states, "x y", True, False, True),
    (states_back, "x y o", True, False, False),
    (states_back, "x y o", True, False, True),
    (decay_states.states, "x y", True, False, False),
    (decay_states.states, "x y", True, True, False),
    (decay_attend.attend, "a b c out", True, False, False),
    (decay_attend.attend, "a b c out", True, True, False),
    (attend, "a b c out", True, False, False),
    (attend, "a b c out", True, True, False),
    (attend, "a b c out", False, True, False),
    (attend, "a b c out", True, False, True),
    (attend, "a b c out", True, True, True),
    (differentiate, "a b x y out", True, False, False),
    (differentiate, "a b x y out", True, True, False),
    (differentiate, "a b x y out", False, False, False),
    (differentiate, "a b x y out", True, False, True),
    (differentiate, "a b x y out", True, True, True),
):
    # Packed sequences begin from no state.
    known = switches | {"CAUSAL": CAUSAL, "REVERSE": REVERSE, "GROUP": 1 if REVERSE else 4}
    known |= {"PACKED": PACKED, "INITIAL": not PACKED}
    of = types | dict.fromkeys(moved.split(), tile) | dict.fromkeys(known, "constexpr")
    names = kernel.arg_names
    constants = {(i,): known[name] for i, name in enumerate(names) if name in known}
    source = GluonASTSource(kernel, {name: of.get(name, "i32") for name in names}, constants)
    options = {"num_warps": 8, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(compiled.metadata.shared, unused_barriers(compiled.asm["ttgir"]))
"""


def test_unused_barriers_are_told_from_used_ones() -> None:
    """A barrier that is made and no more is unused; one of a ring that is waited for is not."""
    code = """
        %a = ttg.local_alloc : () -> !ttg.memdesc<1x1xi64, #shared>
        %0 = ttg.memdesc_index %a[%c0] : !ttg.memdesc<1x1xi64, #shared>
        ttng.init_barrier %0, 1 : !ttg.memdesc<1xi64, #shared>
        %b = ttg.local_alloc : () -> !ttg.memdesc<2x1xi64, #shared>
        %1 = ttg.memdesc_index %b[%c0] : !ttg.memdesc<2x1xi64, #shared>
        ttng.init_barrier %1, 1 : !ttg.memdesc<1xi64, #shared>
        ttng.wait_barrier %1, %phase : !ttg.memdesc<1xi64, #shared>
    """
    assert unused_barriers(code) == 1


@pytest.mark.slow
def test_gluon_passes_compile_for_a_hopper_card_within_its_shared_memory(device: str) -> None:
    """The installed Triton compiles each Gluon pass within shared memory, and uses each of its barriers."""
    if device == "cuda":
        pytest.skip("compiled where they run")
    pytest.importorskip("triton")
    if tuple(int(part) for part in version("triton").split(".")[:2]) < (3, 6):
        pytest.skip("they were written for the Gluon of Triton 3.6")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment,
        cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    passes = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(passes) == 18 and all(0 < size <= SHARED_MEMORY and unused == 0 for size, unused in passes)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are those of a Hopper card."""
    monkeypatch.setattr(card_at_hand, "has_gluon", lambda device: device.type == "cuda")


@pytest.mark.usefixtures("planned")
def test_gluon_serves_bfloat16_of_both_widths_beyond_64() -> None:
    device = torch.device("cuda")
    assert triton_plan.gluon_serves(128, 72, torch.bfloat16, device)
    for width, value_dim, dtype, where in (
        (128, 64, torch.bfloat16, "cuda"),
        (136, 128, torch.bfloat16, "cuda"),
        (128, 128, torch.float16, "cuda"),
        (128, 128, torch.bfloat16, "cpu"),
    ):
        assert not triton_plan.gluon_serves(width, value_dim, dtype, torch.device(where))


@pytest.mark.usefixtures("planned")
def test_gluon_costs_count_scores_once_in_chunks_of_128() -> None:
    tokens, width = LONG.heads * LONG.seq_len, LONG.head_dim
    terms = triton_costs(LONG).terms
    assert terms["scores"] == terms["weighted_values"] == tokens * 128 * width
    short = triton_costs(replace(LONG, seq_len=1024)).terms
    assert short["scores"] == 2 * short["weighted_values"]  # two blocks, each with the scores


@pytest.mark.usefixtures("planned")
def test_gluon_segments_are_whole_chunks_of_one_program_a_multiprocessor() -> None:
    size, parts = triton_plan.cut(100_000, 16, torch.device("cuda"), 1, 128)
    assert size % 128 == 0 and 100_000 <= size * parts < 100_000 + size
    assert 16 * parts <= card_at_hand.MULTIPROCESSORS


@pytest.mark.parametrize("causal", [True, False])
def test_a_gluon_launch_gives_its_pass_as_many_arguments_as_that_takes(
    causal: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launches of forward and backward are recorded instead of started, on a machine without a card."""
    if device == "cuda":
        pytest.skip("launched, by the other tests")
    pytest.importorskip("triton.experimental.gluon")
    monkeypatch.setattr(card_at_hand, "has_gluon", lambda device: True)
    monkeypatch.setattr(triton_plan, "DESCRIBED", 0)
    missing: dict[str, int] = {}

    def note(launch: Launch, tensors: list[Tensor]) -> Repeat:
        def launched(tensors: list[Tensor]) -> None:
            taken = launch.kernel.arg_names
            missing[launch.kernel.__name__] = len(taken) - len(tensors) - len(launch.values)

        launched(tensors)
        return launched

    monkeypatch.setattr(Launch, "first", note)
    forget_launches()
    q, k, v, do = (torch.zeros(1, 2, 700, 128, dtype=torch.bfloat16) for _ in range(4))
    how = (causal, "elu", 1e-6, "ieee", None, False, True)
    out, inv, S, z, _, _ = triton_forward(q, k, v, None, None, *how)
    states = (out, inv, S, z, None, None, None, None)
    triton_gradients(do, q, k, v, *states, causal, "elu", "ieee", None, False)
    forget_launches()
    assert missing == {"states": 0, "states_back": 0, "attend": 0, "differentiate": 0}
