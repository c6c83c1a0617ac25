"""Kernels of other projects get the layout, scale, names and normaliser that their projects want."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from attention import Case, State, get_kernel, make_inputs
from attention.kernels import external
from attention.kernels.external import (
    fla_costs,
    fla_refusals,
    flash_attention,
    flash_linear_attention,
    packages,
)
from attention.kernels.references import (
    errors_against_reference,
    linear_reference,
    relative_error,
    standard_reference,
)
from attention.kernels.registry import _KERNELS, list_kernels
from benchmarks.subjects import SUBJECTS

GATED = ["gla-fla", "delta-fla", "kda-fla"]
"""Kernels that are held to an oracle of their own."""
WITH_GATES = ["linear-decay-fla", *GATED]


def module(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    for depth in range(1, name.count(".") + 2):
        parent = ".".join(name.split(".")[:depth])
        if not hasattr(sys.modules.get(parent), "stand_in"):
            stand_in = ModuleType(parent)
            monkeypatch.setattr(stand_in, "stand_in", True, raising=False)
            monkeypatch.setitem(sys.modules, parent, stand_in)
    for member, value in members.items():
        monkeypatch.setattr(sys.modules[name], member, value, raising=False)


# Stand-ins for flash-linear-attention 0.6, each a whole matrix of weights without chunks or states. Arguments
# have its names and its layout, [B, N, H, D], and none has a default: what an adapter leaves out is missed.


def weights(x: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """The sums over d of x_id k_jd exp(g_(j+1)d + ... + g_id), ``[B, H, N, N]``, 0 for j > i."""
    sums = g.cumsum(1)
    between = (sums[:, :, None] - sums[:, None]).exp()
    return torch.einsum("bihd,bjhd,bijhd->bhij", x, k, between.expand(*between.shape[:4], k.shape[-1])).tril()


def out_of(weights: Tensor, v: Tensor) -> tuple[Tensor, None]:
    return torch.einsum("bhij,bjhe->bihe", weights, v), None


def chunk_simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float) -> tuple[Tensor, None]:
    return out_of(scale * weights(q, k, g[..., None]), v)


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float) -> tuple[Tensor, None]:
    assert q.is_contiguous() and q.shape == k.shape == g.shape
    return out_of(scale * weights(q, k, g), v)


def delta(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, normalised: bool
) -> tuple[Tensor, None]:
    """What is written at j is u_j = beta_j (v_j - what is read with k_j before): one system of equations."""
    assert normalised and beta.shape == q.shape[:3] and q.is_contiguous()
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    rates = beta.transpose(1, 2)[..., None]
    system = torch.eye(k.shape[1]).to(k) + rates * weights(k, k, g).tril(-1)
    written = torch.linalg.solve_triangular(system, rates * v.transpose(1, 2), upper=False)
    return out_of(scale * weights(q, k, g), written.transpose(1, 2))


def chunk_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, use_qk_l2norm_in_kernel: bool
) -> tuple[Tensor, None]:
    return delta(q, k, v, g[..., None], beta, scale, use_qk_l2norm_in_kernel)


def chunk_kda(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, use_qk_l2norm_in_kernel: bool
) -> tuple[Tensor, None]:
    assert g.shape == k.shape
    return delta(q, k, v, g, beta, scale, use_qk_l2norm_in_kernel)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-linear-attention is installed and registered; it computes with stand-ins."""
    for room, function in (
        ("simple_gla", chunk_simple_gla),
        ("gla", chunk_gla),
        ("gated_delta_rule", chunk_gated_delta_rule),
        ("kda", chunk_kda),
    ):
        module(monkeypatch, f"fla.ops.{room}", **{function.__name__: function})
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))
    if "gla-fla" not in list_kernels():
        flash_linear_attention.register_fla()


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("inputs_in", ["float64", "float32"])
def test_gated_kernels_equal_their_oracles_with_gradients_of_gates(name: str, inputs_in: str) -> None:
    case = Case(name, "causal", 37, "forward_backward", "cpu", inputs_in, 2, 3, 8, 5)
    extra = get_kernel(name).extra_inputs(case)
    assert all(x.requires_grad and x.dtype == case.torch_dtype for x in extra.values())
    errors = errors_against_reference(case)
    # The stand-ins compute in the dtype itself, whatever the package states of float32.
    assert errors.within(case.torch_dtype), errors


@pytest.mark.usefixtures("stand_ins")
def test_decay_is_simple_gated_linear_attention_of_mapped_inputs_without_a_scale() -> None:
    case = Case("linear-decay-fla", "causal", 20, dtype="float64", head_dim=4, value_dim=3)
    kernel, inputs = get_kernel("linear-decay-fla"), make_inputs(case)
    gates = kernel.extra_inputs(case)
    assert kernel.reference == "decay" and set(gates) == {"g"}
    q, k, v = inputs
    phi = [torch.where(x > 0, x + 1, x.exp()) for x in (q, k)]
    sums = gates["g"].cumsum(-1)
    expected = ((phi[0] @ phi[1].mT) * (sums[..., :, None] - sums[..., None, :]).exp()).tril() @ v
    assert relative_error(kernel.function(*inputs, causal=True, **gates), expected) < 1e-14


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
def test_gates_are_negative_logarithms_in_float32_of_which_none_forgets_at_once(name: str) -> None:
    case = Case(name, "causal", 500, dtype="bfloat16")
    made, again = (get_kernel(name).extra_inputs(case) for _ in range(2))
    for gate, x in made.items():
        assert x.dtype == torch.float32 and not x.requires_grad and torch.equal(x, again[gate])
        width = (case.head_dim,) if gate == "gk" else ()
        assert x.shape == (case.batch, case.heads, case.seq_len, *width)
        low, high = (0, 1) if gate == "beta" else (-0.5, 0)
        assert low < float(x.min()) and float(x.max()) < high


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
def test_no_tokens_have_a_result_and_gradients_of_all_inputs(name: str) -> None:
    case = Case(name, "causal", 0, "forward_backward", value_dim=32)
    inputs, extra = make_inputs(case), get_kernel(name).extra_inputs(case)
    out = get_kernel(name).function(*inputs, causal=True, **extra)
    assert out.shape == inputs[2].shape
    leaves = [*inputs, *extra.values()]
    for x, gradient in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
        assert gradient.shape == x.shape


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
def test_gated_kernels_count_their_gates_in_the_least_bytes(name: str, phase: str) -> None:
    case = Case(name, "causal", 128, phase, dtype="bfloat16", heads=2, value_dim=32)
    costs = get_kernel(name).costs(case)
    # The stand-ins take one dtype only, in which q, k, v and the output are twice as wide.
    prepared = SUBJECTS["operator"].prepare(replace(case, dtype="float32")).min_bytes
    gates = sum(x.nbytes for x in get_kernel(name).extra_inputs(case).values())
    factor = 3 if case.backward else 1
    assert costs.min_bytes == (prepared - factor * gates) // 2 + factor * gates
    assert costs.countable_flops == 0 < costs.flops


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", WITH_GATES)
def test_gated_kernels_refuse_a_bidirectional_mode(name: str) -> None:
    case = Case(name, "causal", 3)
    with pytest.raises(ValueError, match="causal only"):
        get_kernel(name).function(*make_inputs(case), causal=False, **get_kernel(name).extra_inputs(case))


COSTS = [fla_costs.decay_costs, fla_costs.gla_costs, fla_costs.delta_costs, fla_costs.kda_costs]


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
def test_costs_of_whole_chunks_are_linear_in_the_length(costs: Callable[..., Any], phase: str) -> None:
    case = Case("gla-fla", "causal", 640, phase)
    one, four = costs(case), costs(replace(case, seq_len=2560))
    assert (four.flops, four.min_bytes, four.peak_bytes) == (
        4 * one.flops,
        4 * one.min_bytes,
        4 * one.peak_bytes,
    )
    assert one.peak_bytes > case.heads * case.seq_len * case.value_dim * case.itemsize


def test_flops_are_those_of_the_products_of_one_chunk() -> None:
    case = Case("gla-fla", "causal", 64, heads=1, head_dim=64)
    cube = 64**3
    assert fla_costs.gla_costs(case).macs == fla_costs.decay_costs(case).macs == 4 * cube
    substitution = sum(i - j for i in range(64) for j in range(i))
    assert fla_costs.delta_costs(case).macs == fla_costs.kda_costs(case).macs == 8 * cube + substitution


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
    module(monkeypatch, "fla.ops.linear_attn", **members)
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

    module(monkeypatch, "fla.ops.linear_attn", fused_recurrent_linear_attn=old)
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
        module(monkeypatch, flash_attention.FLASH_ATTN[package], **{name: members[name] for name in has})
        assert relative_error(attend(q, k, v, causal=True), expected) < 1e-6
        assert called.pop() == wanted
        monkeypatch.delattr(
            sys.modules[flash_attention.FLASH_ATTN[package]], "flash_attn_with_kvcache", raising=False
        )
    module(monkeypatch, flash_attention.FLASH_ATTN[package], **members)
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

    module(monkeypatch, flash_attention.FLASH_ATTN[package], flash_attn_func=flash_attn_func)
    q, k, v = (torch.randn(2, 3, 9, 4) for _ in range(3))
    out = flash_attention.flash_attn(flash_attention.FLASH_ATTN[package])(q, k, v, causal=True, scale=0.3)
    assert torch.equal(out, standard_reference(q, k, v, causal=True, scale=0.3))


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


GLA = Case("gla-fla", "causal", 9, "forward_backward", "cuda", "bfloat16")


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
