"""Kernels of other projects get the layout, scale, names and normaliser that their projects want."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, State
from attention.kernels.external import fla_refusals, flash_attention, flash_linear_attention
from attention.kernels.references import linear_reference, relative_error, standard_reference
from tests.stand_ins import install


def test_flash_linear_attention_gets_its_layout_and_mapped_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk_linear_attn(
        q: Tensor, k: Tensor, v: Tensor, scale: float, normalize: bool
    ) -> tuple[Tensor, None]:
        assert scale == 1 and normalize
        assert q.shape == (2, 9, 3, 4) and q.is_contiguous()
        turned = (x.transpose(1, 2) for x in (q, k, v))
        out = linear_reference(*turned, causal=True, feature_map="identity", eps=1e-10)
        return out.transpose(1, 2), None

    install(monkeypatch, "fla.ops.linear_attn", chunk_linear_attn=chunk_linear_attn)
    q, k, v = (torch.randn(2, 3, 9, 4) for _ in range(3))
    attend = flash_linear_attention.fla("chunk_linear_attn")
    assert relative_error(attend(q, k, v, causal=True), linear_reference(q, k, v, causal=True)) < 1e-5
    with pytest.raises(ValueError, match="causal only"):
        attend(q, k, v, causal=False)


def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    initial_state: Any,
    output_final_state: bool,
    normalize: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Linear attention of flash-linear-attention 0.6 behind a state, whose z is ``[B, 1, H, D]``."""
    assert scale == 1 and normalize and output_final_state and q.is_contiguous() and q.shape == k.shape
    S, z = initial_state or (torch.einsum("bnhd,bnhe->bhde", k[:, :0], v[:, :0]), k.new_zeros(1))
    z = z + k.cumsum(1)
    seen = torch.einsum("bihd,bjhd->bhij", q, k).tril()
    num = torch.einsum("bhij,bjhe->bihe", seen, v) + torch.einsum("bihd,bhde->bihe", q, S)
    return num / ((q * z).sum(-1, keepdim=True) + 1e-10), (
        S + torch.einsum("bnhd,bnhe->bhde", k, v),
        z[:, -1:],
    )


def test_a_step_of_flash_linear_attention_continues_a_state_with_its_normaliser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = {"fused_recurrent_linear_attn": recurrent, "chunk_linear_attn": recurrent}
    install(monkeypatch, "fla.ops.linear_attn", **members)
    q, k, v = (torch.randn(2, 3, 9, 4, dtype=torch.float64) for _ in range(3))
    attend = flash_linear_attention.fla("chunk_linear_attn")
    _, state = attend(*(x[:, :, :7] for x in (q, k, v)), causal=True, return_state=True)
    for token in (7, 8):
        now = slice(token, token + 1)
        out, same = flash_linear_attention.linear_step(
            q[:, :, now], k[:, :, now], v[:, :, now], state, in_place=True
        )
        assert same is state
    phi = torch.where(k > 0, k + 1, k.exp())
    assert relative_error(out, linear_reference(q, k, v, causal=True, eps=1e-10)[:, :, 8:]) < 1e-13
    assert relative_error(state.S, phi.mT @ v) < 1e-13 and relative_error(state.z, phi.sum(2)) < 1e-13


def test_a_flash_linear_attention_without_a_normaliser_in_its_state_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def old(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        out, (S, _) = recurrent(q, k, v, **options)
        return out, S

    install(monkeypatch, "fla.ops.linear_attn", fused_recurrent_linear_attn=old)
    q, k, v = (torch.randn(2, 3, 1, 4) for _ in range(3))
    with pytest.raises(ValueError, match="no sum of keys"):
        flash_linear_attention.linear_step(q, k, v, State.empty(2, 3, 4))
    case = Case("linear-fla-chunk", "causal", 9, "decode", "cuda", "bfloat16")
    monkeypatch.setattr(fla_refusals, "version", lambda package: "0.5.1")
    assert "0.5.1 keeps no sum of keys" in str(fla_refusals.linear_refusal(case))
    assert fla_refusals.linear_refusal(replace(case, phase="forward")) is None


@pytest.mark.parametrize("package", flash_attention.FLASH_ATTN)
def test_a_decode_of_flash_attention_takes_its_kernel_for_caches_where_it_has_one(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def attention(name: str) -> Callable[..., Tensor]:
        def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, softmax_scale: float | None) -> Tensor:
            called.append(name)
            assert q.shape == (2, 1, 3, 4) and k.shape == v.shape == (2, 9, 3, 4)
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            return ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2)

        return attend

    members = {name: attention(name) for name in ("flash_attn_func", "flash_attn_with_kvcache")}
    q, k, v = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 9, 4), torch.randn(2, 3, 9, 4)
    expected = (q @ k.mT / 2).softmax(-1) @ v
    attend = flash_attention.flash_attn(flash_attention.FLASH_ATTN[package])
    for has, wanted in ((members, "flash_attn_with_kvcache"), ({"flash_attn_func": None}, "flash_attn_func")):
        install(monkeypatch, flash_attention.FLASH_ATTN[package], **{name: members[name] for name in has})
        assert relative_error(attend(q, k, v, causal=True), expected) < 1e-6
        assert called.pop() == wanted
        monkeypatch.delattr(
            sys.modules[flash_attention.FLASH_ATTN[package]], "flash_attn_with_kvcache", raising=False
        )
    install(monkeypatch, flash_attention.FLASH_ATTN[package], **members)
    attend(q.requires_grad_(), k, v, causal=True)
    assert called == ["flash_attn_func"]


@pytest.mark.parametrize("package", flash_attention.FLASH_ATTN)
def test_flash_attention_gets_its_layout_and_scale(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, causal: bool, softmax_scale: float | None
    ) -> Tensor | tuple[Tensor, None]:
        turned = (x.transpose(1, 2) for x in (q, k, v))
        out = standard_reference(*turned, causal=causal, scale=softmax_scale).transpose(1, 2)
        return out if package == "flash-attn" else (out, None)

    install(monkeypatch, flash_attention.FLASH_ATTN[package], flash_attn_func=flash_attn_func)
    q, k, v = (torch.randn(2, 3, 9, 4) for _ in range(3))
    out = flash_attention.flash_attn(flash_attention.FLASH_ATTN[package])(q, k, v, causal=True, scale=0.3)
    assert torch.equal(out, standard_reference(q, k, v, causal=True, scale=0.3))
