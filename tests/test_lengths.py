"""A kernel that is wrong at one length alone is found before that length is timed, and the others go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, get_kernel, register_kernel
from attention.case import MODES, PHASES
from attention.kernels.references import reference_of
from attention.kernels.registry import _KERNELS
from benchmarks import lengths
from tests.sessions import rows, run

pytestmark = pytest.mark.usefixtures("one_thread")

Change = Callable[[Tensor], Any]
LENGTH = 128


def fault(case: Case) -> str | None:
    """What is wrong with a case by the function that its kernel claims."""
    return lengths.fault(case, reference_of(get_kernel(case.kernel)))


def with_row(out: Tensor, row: int, value: float) -> Tensor:
    changed = out.clone()
    changed[:, :, row] = value * changed[:, :, row]
    return changed


def with_gradient(x: Tensor, change: Change) -> Tensor:
    """The tensor, whose gradient is changed."""
    x = x * 1
    if x.requires_grad:
        x.register_hook(change)  # type: ignore[no-untyped-call]
    return x


OUTPUTS: dict[str, tuple[Change, str]] = {
    "nan": (lambda out: out * float("nan"), "numbers of the output are not finite"),
    "one nan": (
        lambda out: with_row(out, 77, float("nan")),
        "32 of 4096 numbers of the output are not finite",
    ),
    "infinite": (lambda out: out / 0, "numbers of the output are not finite"),
    "twice": (lambda out: 2 * out, "relative error"),
    "one percent": (lambda out: 1.01 * out, "relative error"),
    "last row": (lambda out: with_row(out, -1, 1.01), "in row 127 of the output"),
    "first row of a chunk": (lambda out: with_row(out, 64, 2.0), "in row 64 of the output"),
    "last row of a chunk": (lambda out: with_row(out, 63, 0.0), "in row 63 of the output"),
    "zeros": (torch.zeros_like, "relative error"),
    "short": (
        lambda out: out[:, :, 1:],
        "the output has shape (1, 2, 127, 16), but (1, 2, 128, 16) is needed",
    ),
    "without heads": (lambda out: out[:, 0], "has shape"),
    "dtype": (lambda out: out.double(), "the output has dtype torch.float64, but torch.float32 is needed"),
    "device": (lambda out: out.to("meta"), "the output has device meta, but cpu is needed"),
    "none": (lambda out: None, "the output is no tensor but NoneType"),
    "tuple": (lambda out: (out, None), "the output is no tensor but tuple"),
}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Register kernels that are wrong at one length, for the time of a test."""
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))

    def add(family: str, output: Change = lambda out: out, **gradients: Change) -> None:
        whole = get_kernel(f"{family}-explicit")

        def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Any:
            if q.shape[2] != LENGTH:
                return whole.function(q, k, v, causal=causal)
            given = {"q": q, "k": k, "v": v}
            given = {name: with_gradient(x, gradients.get(name, lambda g: g)) for name, x in given.items()}
            return output(whole.function(*given.values(), causal=causal))

        register_kernel(f"{family}-planted", attend, costs=whole.costs)

    return add


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["standard", "linear"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_wrong_output_at_one_length_is_found_there_and_only_there(
    name: str, family: str, mode: str, plant: Callable[..., None]
) -> None:
    change, words = OUTPUTS[name]
    plant(family, change)
    for seq_len in (64, LENGTH, 200):
        found = fault(Case(f"{family}-planted", mode, seq_len, heads=2, head_dim=16))
        assert (found is None) == (seq_len != LENGTH), found
        if found:
            assert found.startswith(f"wrong result at N = {LENGTH}: ") and words in found, found


GRADIENTS: dict[str, tuple[Change, str]] = {
    "twice": (lambda g: 2 * g, "relative error"),
    "zeros": (torch.zeros_like, "relative error"),
    "nan": (lambda g: g * float("nan"), "are not finite"),
    "chunk": (lambda g: with_row(g, 64, 1.1), "in row 64 of"),
    "last": (lambda g: with_row(g, -1, 3.0), "in row 127 of"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["standard", "linear"])
@pytest.mark.parametrize("of", ["q", "k", "v"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_wrong_gradient_at_one_length_is_found_where_gradients_are_timed(
    name: str, of: str, family: str, mode: str, plant: Callable[..., None]
) -> None:
    change, words = GRADIENTS[name]
    plant(family, **{of: change})
    for phase in PHASES:
        found = fault(Case(f"{family}-planted", mode, LENGTH, phase, heads=2, head_dim=16))
        assert (found is None) == (phase == "forward"), found
        assert not found or (f"d{of}" in found and words in found), found


SHAPES: tuple[dict[str, Any], ...] = ({"kv_heads": 2}, {"query_len": 30}, {"kv_heads": 1, "query_len": 300})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["standard", "linear"])
def test_faults_of_shared_keys_and_unequal_lengths_are_found(
    family: str, mode: str, shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))
    whole, wrong = get_kernel(f"{family}-explicit").function, {"of": ""}

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        given = {"q": q, "k": k, "v": v}
        given = {
            name: with_gradient(x, (lambda g: with_row(g, -1, 1.5)) if name == wrong["of"] else lambda g: g)
            for name, x in given.items()
        }
        out = whole(*given.values(), causal=causal)
        return with_row(out, -1, 1.01) if wrong["of"] == "output" else out

    register_kernel(f"{family}-planted", attend)
    case = Case(f"{family}-planted", mode, 128, "forward_backward", heads=4, head_dim=16, **shape)
    for of, words in (("output", "of the output"), ("q", "of dq"), ("k", "of dk"), ("v", "of dv")):
        wrong["of"] = of
        found = fault(case)
        assert found is not None and words in found
    wrong["of"] = ""
    assert fault(case) is None


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["nan", "twice", "one percent", "last row"])
def test_a_layer_is_checked_at_each_length_too(name: str, phase: str, plant: Callable[..., None]) -> None:
    plant("linear", OUTPUTS[name][0])
    wrong, right = (
        fault(Case("linear-planted", "causal", n, phase, heads=2, head_dim=16, subject="layer"))
        for n in (LENGTH, 100)
    )
    assert wrong is not None and right is None


@pytest.mark.parametrize("mode", MODES)
def test_a_right_kernel_passes_at_every_length_and_dtype(
    kernel: str, mode: str, dtype: str, device: str
) -> None:
    for seq_len, heads, head_dim in ((1, 3, 16), (150, 2, 16), (70, 1, 1)):
        case = Case(kernel, mode, seq_len, "forward_backward", device, dtype, 1, heads, head_dim)
        if get_kernel(kernel).supports(case) is None:
            assert fault(case) is None


def test_a_float16_sum_that_overflows_at_a_long_length_is_found_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The normaliser of a long sequence is beyond 65504, the largest number of float16."""
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        q, k = (torch.nn.functional.elu(x) + 1 for x in (q, k))
        return (q @ (k.mT @ v)) / (q @ k.sum(2, keepdim=True).mT)

    register_kernel("linear-halves", attend, costs=get_kernel("linear-explicit").costs)
    case: dict[str, Any] = {"mode": "bidirectional", "dtype": "float16", "heads": 1, "head_dim": 64}
    assert fault(Case("linear-halves", seq_len=500, **case)) is None
    found = fault(Case("linear-halves", seq_len=5000, **case))
    assert found is not None and found.startswith("wrong result at N = 5000: ")


PLUGIN = """
from attention import get_kernel, register_kernel

explicit = get_kernel("linear-explicit")

def odd(q, k, v, **options):
    out = explicit.function(q, k, v, **options)
    return out * float("nan") if q.shape[2] == 32 else out

register_kernel("linear-odd", odd, costs=explicit.costs)
"""


@pytest.mark.slow
def test_a_wrong_length_is_a_failure_and_the_other_lengths_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "out.json"
    options = (
        "--device=cpu",
        "--mode=causal",
        "--seq-len=16,32,64",
        "--case-seconds=0.001",
        "--repetitions=2",
    )
    run(*options, "-p", "plugin", "--kernel=linear-odd", f"--benchmark-json={out}", exit_code=1)
    document = json.loads(out.read_text())
    assert {record["seq_len"] for record in rows(document)} == {16, 64}
    (row,) = document["not_measured"]
    assert (row["seq_len"], row["outcome"]) == (32, "failed")
    assert "wrong result at N = 32: 16384 of 16384 numbers of the output are not finite" in row["reason"]
