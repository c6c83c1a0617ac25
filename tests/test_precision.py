"""A kernel that computes a dtype in another precision states it, and is held to it, no less and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, Kernel, get_kernel, list_kernels, register_kernel
from attention.kernels import external, references
from attention.kernels.references import BY_PRECISION, REFERENCES, errors_against_reference, tolerances
from attention.kernels.registry import _KERNELS, PRECISIONS
from benchmarks.subjects import SUBJECTS, precision_of
from tests.conftest import compiled_together
from tests.sessions import TINY, rows, run

pytestmark = pytest.mark.usefixtures("one_thread")
MANTISSA = {"tf32": 10, "float32": 23, "less than tf32": 8}
Register = Callable[..., Kernel]
CASES = [
    Case("linear-planted", mode, 130, phase, batch=1, heads=2)
    for mode in ("causal", "bidirectional")
    for phase in ("forward", "forward_backward")
]


def cut(x: Tensor, bits: int) -> Tensor:
    """X without the last bits of its mantissa, as matrix units drop them."""
    return (x.contiguous().view(torch.int32) & -(1 << (23 - bits))).view(torch.float32)


class Product(torch.autograd.Function):
    """A product of float32 matrices on a matrix unit that keeps so many bits."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.bits = bits
        return cut(a, bits) @ cut(b, bits)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (a, b), bits = ctx.saved_tensors, ctx.bits
        return cut(grad, bits) @ cut(b.mT, bits), cut(a.mT, bits) @ cut(grad, bits), None


multiply: Callable[..., Tensor] = Product.apply


def attend_in(precision: str) -> Callable[..., Tensor]:
    """Linear attention in float32 whose products are in a precision, and whose normaliser is not."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        q, k = (torch.nn.functional.elu(x) + 1 for x in (q, k))
        weights = multiply(q, k.mT, MANTISSA[precision])
        weights = weights.tril() if causal else weights
        sums = k.cumsum(2) if causal else k.sum(2, keepdim=True)
        out: Tensor = multiply(weights, v, MANTISSA[precision])
        return out / ((q * sums).sum(-1, keepdim=True) + 1e-6)

    return attend


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register a kernel that computes in one precision and states another, for the time of a test."""
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))

    def add(computes_in: str, states: dict[str, str]) -> Kernel:
        costs = get_kernel("linear-explicit").costs
        return register_kernel("linear-planted", attend_in(computes_in), costs=costs, precision=states)

    return add


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.mode}-{case.phase}")
@pytest.mark.parametrize(
    ("computes_in", "states", "right"),
    [
        ("float32", {}, True),
        ("tf32", {"float32": "tf32"}, True),
        ("tf32", {}, False),
        ("tf32", {"bfloat16": "tf32"}, False),
        ("less than tf32", {"float32": "tf32"}, False),
        ("less than tf32", {"float32": "bfloat16"}, True),
    ],
)
def test_a_kernel_is_held_to_the_precision_that_it_states(
    computes_in: str, states: dict[str, str], right: bool, case: Case, register: Register
) -> None:
    register(computes_in, states)
    assert errors_against_reference(case).within(case) == right


def test_a_layer_is_held_to_the_precision_of_its_kernel(register: Register) -> None:
    register("tf32", {"float32": "tf32"})
    case = replace(CASES[0], subject="layer")
    errors = SUBJECTS["layer"].errors(case, REFERENCES["linear"])
    assert errors.within(case) and not errors.within(torch.float32)


def test_the_error_of_cut_products_is_four_times_what_is_cut_off_an_operand(register: Register) -> None:
    """The derivation of tf32's tolerance: 0.36 eps an operand on average, four operands."""
    register("tf32", {"float32": "tf32"})
    for case in CASES:
        errors = errors_against_reference(case)
        assert errors.output == pytest.approx(4 * 0.36 * 2**-10, rel=0.1)
        assert errors.output < tolerances(case)[0] < 2 * errors.output


def test_every_precision_has_tolerances_and_a_coarser_one_never_finer_ones() -> None:
    assert set(BY_PRECISION) == set(PRECISIONS)
    ordered = [BY_PRECISION[name] for name in ("float64", "float32", "float16", "tf32", "bfloat16")]
    assert ordered == sorted(ordered)
    assert references.TOLERANCES[torch.float32] == BY_PRECISION["float32"]


@pytest.mark.parametrize("states", [{"float32": "tf31"}, {"fp32": "tf32"}, {"tf32": "tf32"}])
def test_a_precision_that_does_not_exist_is_refused(states: dict[str, str], register: Register) -> None:
    with pytest.raises(ValueError, match="precision of linear-planted maps dtypes to what it computes in"):
        register("tf32", states)


def test_flash_linear_attention_states_that_its_float32_is_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))
    monkeypatch.setattr(external, "find_spec", lambda module: True)
    monkeypatch.setattr(external, "version", lambda package: None)
    if "linear-fla-chunk" not in list_kernels():
        external.register_installed()
    for name in (
        "linear-fla-chunk",
        "linear-fla-fused",
        "linear-decay-fla",
        "gla-fla",
        "delta-fla",
        "kda-fla",
    ):
        case = Case(name, "causal", 64, device="cuda")
        assert (precision_of(case), precision_of(replace(case, dtype="bfloat16"))) == ("tf32", "bfloat16")
        assert external.is_external(get_kernel(name))
    assert not any(external.is_external(get_kernel(name)) for name in ("linear-chunked", "standard-sdpa"))


PLUGIN = """
from attention import get_kernel, register_kernel
from tests.test_precision import attend_in

costs = get_kernel("linear-explicit").costs
register_kernel("linear-stated", attend_in("tf32"), costs=costs, precision={"float32": "tf32"})
register_kernel("linear-silent", attend_in("tf32"), costs=costs)
"""


@pytest.mark.slow
def test_a_stated_precision_is_measured_and_recorded_and_one_in_silence_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "out.json"
    kernels = ("--kernel=linear-stated", "--kernel=linear-silent")
    run(*TINY, *kernels, "-p", "plugin", f"--benchmark-json={out}", exit_code=1)
    document = json.loads(out.read_text())
    found = {(row["kernel"], row["precision"]) for row in rows(document)}
    assert found == {
        ("linear-stated", "tf32"),
        ("linear-explicit", "float32"),
        ("standard-explicit", "float32"),
    }
    assert {row["kernel"] for row in document["not_measured"]} == {"linear-silent"}
    assert all("allowed are 1e-05" in row["reason"] for row in document["not_measured"])


def test_tests_of_what_compiles_the_same_code_run_in_one_process() -> None:
    one = {"device": "cuda", "kernel": "linear-triton", "dtype": "bfloat16", "mode": "causal", "seq_len": 63}
    assert compiled_together(one) == compiled_together({**one, "seq_len": 500})
    assert compiled_together({"device": "cuda", "linear_kernel": "linear-triton"}) == compiled_together(
        {**one, "dtype": "float32"}
    )
    others = [{"dtype": "float16"}, {"mode": "bidirectional"}, {"kernel": "linear-fla-chunk"}]
    assert len({compiled_together({**one, **other}) for other in [{}, *others]}) == 4
    # Nothing is compiled on a CPU: its tests may go anywhere.
    assert (
        compiled_together({**one, "device": "cpu"}) is None and compiled_together({"device": "cuda"}) is None
    )
