"""Kernels of other projects are registered where installed, and say which cases they do not serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from attention import Case
from attention.kernels import external
from attention.kernels.external import fla_refusals, flash_attention, packages

GLA = Case("gla-fla", "causal", 9, "forward_backward", "cuda", "bfloat16")


def test_an_external_kernel_is_registered_where_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[str] = []
    monkeypatch.setattr(flash_attention, "register_kernel", lambda name, function, **_: added.append(name))
    monkeypatch.setattr(external, "find_spec", lambda module: None)
    monkeypatch.setattr(external, "version", lambda package: "4" if package == "flash-attn-4" else None)
    external.register_installed()
    assert added == ["standard-flash-attn-4"]


def test_external_kernels_installed_and_missing_are_told_apart() -> None:
    assert packages.version("pytest") == pytest.__version__
    assert packages.version("no-such-package") is None


@pytest.mark.parametrize(
    ("supports", "case", "word"),
    [
        (fla_refusals.refusal, replace(GLA, mode="bidirectional"), "bidirectional"),
        (fla_refusals.refusal, replace(GLA, device="cpu"), "CUDA"),
        (fla_refusals.refusal, replace(GLA, dtype="float64"), "float64"),
        (fla_refusals.refusal, replace(GLA, kv_heads=2), "not 2 and 8"),
        (fla_refusals.refusal, replace(GLA, query_len=3), "as many keys as queries"),
        (fla_refusals.refusal, replace(GLA, phase="prefill"), "keeps no state"),
        (fla_refusals.linear_refusal, replace(GLA, query_len=3), "as many keys as queries"),
        (fla_refusals.linear_refusal, replace(GLA, phase="decode", kv_heads=2), "not 2 and 8"),
        (fla_refusals.decay_refusal, replace(GLA, head_dim=63), "even widths"),
        (fla_refusals.decay_refusal, replace(GLA, value_dim=63), "even widths"),
        (fla_refusals.delta_refusal, replace(GLA, head_dim=264), "at most 256, not 264"),
        (fla_refusals.kda_refusal, replace(GLA, head_dim=264), "at most 256, not 264"),
        (flash_attention.flash_attn_supports, replace(GLA, dtype="float32"), "float32"),
    ],
)
def test_an_external_kernel_gives_a_reason_for_a_case_that_it_does_not_serve(
    supports: Callable[[Case], str | None], case: Case, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fla_refusals, "_on_hopper", lambda: False)
    assert supports(GLA) is None
    assert word in str(supports(case))


@pytest.mark.parametrize(
    ("triton", "refused"), [("3.3.1", False), ("3.4.0", True), ("3.6.0+git1", True), ("3.7.1", False)]
)
def test_a_gated_backward_that_triton_miscompiles_on_hopper_is_refused(
    triton: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fla_refusals, "_on_hopper", lambda: True)
    monkeypatch.setattr(fla_refusals, "version", lambda package: triton)
    monkeypatch.setattr(fla_refusals, "find_spec", lambda module: None)
    for supports in (fla_refusals.decay_refusal, fla_refusals.delta_refusal):
        assert ("Triton 3.7.1 or later" in str(supports(GLA))) is refused
        assert supports(replace(GLA, phase="forward")) is None
    assert fla_refusals.kda_refusal(GLA) is fla_refusals.refusal(GLA) is None
    monkeypatch.setattr(fla_refusals, "find_spec", lambda module: module == "tilelang")
    assert fla_refusals.delta_refusal(GLA) is None
    assert (fla_refusals.decay_refusal(GLA) is not None) is refused
