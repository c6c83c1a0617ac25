"""The passes of linear-decay-triton compile for a Hopper card, two programs of each to a multiprocessor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from attention.kernels.linear_decay_triton.operator import decay_forward, decay_gradients
from attention.kernels.triton_common.launch import Launch

TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32"}

def compiled(launch, tensors):
    kernel, values = launch.kernel, [*tensors, *launch.values]
    signature, constants, aligned = {}, {}, {}
    for i, (parameter, value) in enumerate(zip(kernel.params, values, strict=True)):
        if parameter.is_constexpr:
            signature[parameter.name], constants[i,] = "constexpr", value
        elif not isinstance(value, torch.Tensor):
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                aligned[i,] = [["tt.divisibility", 16]]
        elif i < len(launch.tiles):
            signature[parameter.name] = f"tensordesc<bf16{launch.tiles[i]}>"
        else:
            signature[parameter.name], aligned[i,] = "*" + TYPES[value.dtype], [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    done = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": launch.num_warps})
    print(kernel.__name__, done.metadata.shared)
    return lambda tensors: None

Launch.first = compiled
for heads, width in ((32, 64), (16, 128)):
    q, k, v = (torch.empty(1, heads, 2**18 // heads, width, dtype=torch.bfloat16) for _ in range(3))
    out, *kept = decay_forward(q, k, v, torch.empty(q.shape[:3]), "elu", "ieee", True)
    decay_gradients(out, q, k, v, *kept, "elu", "ieee")
"""
HALF_A_MULTIPROCESSOR = (228 // 2 - 1) * 1024
"""Bytes of shared memory for one of two programs on a Hopper card."""


@pytest.mark.slow
def test_two_programs_of_each_pass_fit_into_a_hopper_multiprocessor(device: str) -> None:
    """In bfloat16, which the interpreter does not know, at the widths of the published runs."""
    if device == "cuda":
        pytest.skip("compiled where they run")
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment,
        cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    sizes = [int(line.split()[1]) for line in done.stdout.splitlines()]
    # Eight passes at a width of 128; at 64 the one over states sums the gates as well.
    assert len(sizes) == 15 and max(sizes) <= HALF_A_MULTIPROCESSOR, done.stdout
