"""The passes of linear-triton compile in every form, for a Hopper card and for an Ampere one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = """
import sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from attention.kernels.linear_triton.operator import triton_forward, triton_gradients
from attention.kernels.linear_triton.step import triton_step
from attention.kernels.triton_common import card, plan
from attention.kernels.triton_common.launch import Launch

ARCH = int(sys.argv[1])
TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32"}

def compiled(launch, tensors):
    kernel, values = launch.kernel, [*tensors, *launch.values]
    signature, constants, aligned = {}, {}, {}
    for i, (parameter, value) in enumerate(zip(kernel.params, values, strict=True)):
        if parameter.is_constexpr:
            signature[parameter.name], constants[i,] = "constexpr", value
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        elif not isinstance(value, torch.Tensor):
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                aligned[i,] = [["tt.divisibility", 16]]
        elif i < len(launch.tiles):
            signature[parameter.name] = f"tensordesc<bf16{launch.tiles[i]}>"
        else:
            signature[parameter.name], aligned[i,] = "*" + TYPES[value.dtype], [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    done = triton.compile(source, target=GPUTarget("cuda", ARCH, 32), options={"num_warps": launch.num_warps})
    print(kernel.__name__, done.metadata.shared)
    return lambda tensors: None

Launch.first = compiled
card.has_gluon = lambda device: False
if ARCH < 90:
    plan.DESCRIBED = 2**62
FORMS = (
    (8, 2**16, True, None), (8, 2**16, True, (0, 2**16)), (8, 2**16, False, (0, 2**16)), (8, 64, False, None)
)
for width, forms in ((64, FORMS), (128, FORMS[1:2])):
    for heads, queries, causal, ends in forms:
        q = torch.empty(1, heads, queries, width, dtype=torch.bfloat16)
        k, v = (torch.empty(1, 2, 2**16, width, dtype=torch.bfloat16) for _ in range(2))
        ends = None if ends is None else torch.tensor(ends, dtype=torch.int32)
        out, *kept, _, _ = triton_forward(q, k, v, None, None, causal, "elu", 1e-6, "ieee", ends, False, True)
        triton_gradients(out, q, k, v, out, *kept, *(None,) * 4, causal, "elu", "ieee", ends, False)
    state = torch.empty(1, 2, width, width), torch.empty(1, 2, width)
    triton_step(q[:, :, :1], k[:, :, :1], v[:, :, :1], *state, "elu", 1e-6)
"""
SHARED_MEMORY = {90: 227 * 1024, 80: 163 * 1024}
"""Bytes of shared memory for one program on cards of a compute capability."""


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_passes_of_every_form_compile_within_the_shared_memory_of_a_card(
    capability: int, device: str
) -> None:
    """Heads that share keys in bfloat16: causal, packed of both modes, of two lengths, and a step."""
    if device == "cuda":
        pytest.skip("compiled where they run")
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(capability)], capture_output=True, text=True, env=environment,
        cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _ in lines} >= {
        "attend", "attend_sequences", "differentiate", "differentiate_sequences", "find_ends", "states",
        "step",
    }  # fmt: skip
    assert max(int(size) for _, size in lines) <= SHARED_MEMORY[capability], done.stdout
