"""What a kernel says of itself is looked at before it is measured: no record holds costs that cannot be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attention import Case, Costs, Kernel, get_kernel, register_kernel
from attention.kernels.registry import _KERNELS
from benchmarks.ledger import Ledger
from tests.sessions import TINY, rows, run

Register = Callable[..., Kernel]
SOUND: dict[str, Any] = {"terms": {"scores": 4}, "min_bytes": 2, "peak_bytes": 1}
UNSOUND: list[tuple[str, Any]] = [
    (name, value)
    for name in ("min_bytes", "peak_bytes", "masked_macs")
    for value in (-1, math.nan, math.inf, 10**400, 1.5, None, "7", True)
]
UNSOUND += [
    (name, {"scores": value}) for name in ("terms", "uncounted") for value in (-1, 1.5, 10**400, None)
]
UNSOUND += [("terms", None), ("terms", 7), ("masked_macs", 5), ("uncounted", {"more than there are": 5})]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register a kernel for the time of a test."""
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))

    def add(**given: Any) -> Kernel:
        options = {"costs": get_kernel("linear-explicit").costs, **given}
        return register_kernel("linear-planted", get_kernel("linear-explicit").function, **options)

    return add


@pytest.mark.parametrize(("name", "value"), UNSOUND)
def test_costs_that_cannot_be_are_refused_by_the_name_of_the_amount(name: str, value: Any) -> None:
    Costs(**SOUND)
    with pytest.raises((TypeError, ValueError), match="of costs must") as refusal:
        Costs(**{**SOUND, name: value})
    text = str(refusal.value)
    assert len(text) < 120 and (name in text or "useful_flops" in text or "countable_flops" in text)


@pytest.mark.parametrize("subject", ["operator", "layer"])
@pytest.mark.parametrize("costs", [None, {}, 7, math.nan])
def test_a_kernel_without_costs_is_refused_before_it_is_measured(
    costs: object, subject: str, register: Register
) -> None:
    register(costs=lambda case: costs)
    case = Case("linear-planted", "causal", 16, subject=subject)
    with pytest.raises(TypeError, match=r"costs of linear-planted must return attention\.Costs, got"):
        Ledger([case]).refuse(case, 1)


def test_costs_beyond_what_a_reader_counts_are_refused(register: Register) -> None:
    register(costs=lambda case: Costs({"scores": 2**62}, 1, 1))
    case = Case("linear-planted", "causal", 16)
    with pytest.raises(ValueError, match="beyond 2\\^63 - 1"):
        Ledger([case]).refuse(case, 1)


def test_a_length_whose_costs_are_beyond_that_and_its_memory_too_is_left_out_by_its_memory() -> None:
    case = Case("standard-explicit", "causal", 10**10)
    assert "predicted to need" in str(Ledger([case]).refuse(case, 1))


@pytest.mark.parametrize("answer", [5, False, ["no"]])
def test_a_reason_that_is_no_text_is_refused(answer: object, register: Register) -> None:
    register(supports=lambda case: answer)
    case = Case("linear-planted", "causal", 16)
    with pytest.raises(TypeError, match="supports of linear-planted must return None or a reason as text"):
        Ledger([case]).refuse(case, 1)


PLUGIN = """
from attention import Costs, get_kernel, register_kernel

explicit = get_kernel("linear-explicit")
amounts = {"negative": -1, "nan": float("nan"), "huge": 10**400, "float": 1.5, "none": None}
for name, amount in amounts.items():
    costs = lambda case, amount=amount: Costs({"states": amount}, 8, 8)
    register_kernel(f"linear-{name}", explicit.function, costs=costs)
"""


@pytest.mark.slow
def test_cases_of_costs_that_cannot_be_are_failures_and_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "out.json"
    kernels = [f"--kernel=linear-{name}" for name in ("negative", "nan", "huge", "float", "none")]
    run(*TINY, *kernels, "-p", "plugin", f"--benchmark-json={out}", exit_code=1)
    document = json.loads(out.read_text())
    assert {row["kernel"] for row in rows(document)} == {"linear-explicit", "standard-explicit"}
    assert len(document["not_measured"]) == 10
    for row in document["not_measured"]:
        assert row["outcome"] == "failed" and "terms['states'] of costs must be" in row["reason"]
