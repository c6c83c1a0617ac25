"""Kernels of other projects get the layout, scale and normaliser that their projects want."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from attention import Case
from attention.kernels import external
from attention.kernels.references import linear_reference, relative_error, standard_reference


def module(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    for depth in range(1, name.count(".") + 2):
        monkeypatch.setitem(sys.modules, ".".join(name.split(".")[:depth]), ModuleType(name))
    for member, value in members.items():
        monkeypatch.setattr(sys.modules[name], member, value, raising=False)


def test_flash_linear_attention_gets_its_layout_and_mapped_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk_linear_attn(
        q: Tensor, k: Tensor, v: Tensor, scale: float, normalize: bool
    ) -> tuple[Tensor, None]:
        assert scale == 1 and normalize
        assert q.shape == (2, 9, 3, 4) and q.is_contiguous()
        turned = (x.transpose(1, 2) for x in (q, k, v))
        out = linear_reference(*turned, causal=True, feature_map="identity", eps=1e-10)
        return out.transpose(1, 2), None

    module(monkeypatch, "fla.ops.linear_attn", chunk_linear_attn=chunk_linear_attn)
    q, k, v = (torch.randn(2, 3, 9, 4) for _ in range(3))
    attend = external.fla("chunk_linear_attn")
    assert relative_error(attend(q, k, v, causal=True), linear_reference(q, k, v, causal=True)) < 1e-5
    with pytest.raises(ValueError, match="causal only"):
        attend(q, k, v, causal=False)


@pytest.mark.parametrize("package", external.FLASH_ATTN)
def test_flash_attention_gets_its_layout_and_scale(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, causal: bool, softmax_scale: float | None
    ) -> Tensor | tuple[Tensor, None]:
        turned = (x.transpose(1, 2) for x in (q, k, v))
        out = standard_reference(*turned, causal=causal, scale=softmax_scale).transpose(1, 2)
        return out if package == "flash-attn" else (out, None)

    module(monkeypatch, external.FLASH_ATTN[package], flash_attn_func=flash_attn_func)
    q, k, v = (torch.randn(2, 3, 9, 4) for _ in range(3))
    out = external.flash_attn(external.FLASH_ATTN[package])(q, k, v, causal=True, scale=0.3)
    assert torch.equal(out, standard_reference(q, k, v, causal=True, scale=0.3))


def test_an_external_kernel_is_registered_where_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[str] = []
    monkeypatch.setattr(external, "register_kernel", lambda name, function, **_: added.append(name))
    monkeypatch.setattr(external, "find_spec", lambda module: None)
    monkeypatch.setattr(external, "_installed", lambda package: package == "flash-attn-4")
    external.register_installed()
    assert added == ["standard-flash-attn-4"]


def test_external_kernels_installed_and_missing_are_told_apart() -> None:
    assert external._installed("pytest")
    assert not external._installed("no-such-package")


@pytest.mark.parametrize(
    ("supports", "case", "word"),
    [
        (
            external._fla_supports,
            Case("linear-fla-chunk", "bidirectional", 9, device="cuda"),
            "bidirectional",
        ),
        (external._fla_supports, Case("linear-fla-chunk", "causal", 9), "CUDA"),
        (external._flash_attn_supports, Case("standard-flash-attn", "causal", 9, device="cuda"), "float32"),
    ],
)
def test_an_external_kernel_gives_a_reason_for_a_case_that_it_does_not_serve(
    supports: object, case: Case, word: str
) -> None:
    assert callable(supports)
    assert word in str(supports(case))
