"""standard_attention() and linear_attention(): equalities that theory promises, backends and refusals."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

import attention
from attention import Case, linear_attention, make_inputs, standard_attention
from attention.case import MODES
from attention.kernels.references import relative_error
from attention.kernels.registry import _KERNELS

pytestmark = pytest.mark.usefixtures("one_thread")

CASE = Case("linear-chunked", "causal", 50, dtype="float64", batch=2, heads=2, head_dim=8)


@pytest.mark.parametrize("causal", [False, True])
def test_linear_equals_standard_attention_for_identical_keys(causal: bool, device: str) -> None:
    """Identical keys weigh all visible values alike, so either output is their mean."""
    q, k, v = (x.to(device) for x in make_inputs(CASE))
    k = k[:, :, :1].expand_as(k)
    linear, standard = (
        linear_attention(q, k, v, causal=causal, eps=0.0),
        standard_attention(q, k, v, causal=causal),
    )
    assert relative_error(linear, standard) < 1e-12


def test_linear_equals_standard_attention_for_one_token(device: str) -> None:
    q, k, v = (x[:, :, :1].to(device) for x in make_inputs(CASE))
    for causal in (False, True):
        linear, standard = (
            linear_attention(q, k, v, causal=causal, eps=0.0),
            standard_attention(q, k, v, causal=causal),
        )
        assert relative_error(linear, v) < 1e-14
        assert relative_error(standard, v) < 1e-14


def test_linear_equals_standard_attention_under_the_feature_map_of_the_exponential(device: str) -> None:
    """exp(s) is 1 + s + O(s^2) at small scores, and 1 + q.k is the feature map [1, x]."""
    q, k, v = (x.to(device) for x in make_inputs(CASE))
    differences = []
    for size in (1e-2, 1e-3):
        linear = linear_attention(
            size * q,
            size * k,
            v,
            feature_map=lambda x: torch.cat([torch.ones_like(x[..., :1]), x], -1),
            eps=0.0,
        )
        differences.append(relative_error(linear, standard_attention(size * q, size * k, v, scale=1.0)))
    # Scores shrink by 100, the difference with their square by 10000.
    assert differences[1] < differences[0] / 5e3


@pytest.mark.parametrize("causal", [False, True])
def test_the_difference_between_linear_and_standard_attention_is_reported(
    causal: bool, device: str, record_property: Callable[[str, object], None]
) -> None:
    """The difference of the two functions on normal inputs is recorded, within wide bounds."""
    q, k, v = (x.to(device) for x in make_inputs(CASE))
    difference = relative_error(
        linear_attention(q, k, v, causal=causal), standard_attention(q, k, v, causal=causal)
    )
    record_property("relative_difference", difference)
    print(f"linear and standard attention differ by {difference:.1%}, causal={causal}")
    assert 0.05 < difference < 2


def test_backend_auto_gives_the_bits_of_linear_native_and_standard_sdpa() -> None:
    q, k, v = make_inputs(CASE)
    assert torch.equal(linear_attention(q, k, v), linear_attention(q, k, v, backend="native"))
    assert torch.equal(standard_attention(q, k, v), standard_attention(q, k, v, backend="sdpa"))


@pytest.mark.parametrize("mode", MODES)
def test_scale_is_the_factor_of_the_scores_in_standard_attention(mode: str) -> None:
    q, k, v = make_inputs(CASE)
    for backend in ("explicit", "sdpa", "sdpa-math"):
        scaled = standard_attention(q, k, v, causal=mode == "causal", scale=0.5, backend=backend)
        expected = standard_attention(
            q * 0.5 * CASE.head_dim**0.5, k, v, causal=mode == "causal", backend=backend
        )
        assert relative_error(scaled, expected) < 1e-12


def test_eps_is_added_to_the_normaliser() -> None:
    q, k, v = make_inputs(CASE)
    outputs = [linear_attention(q, k, v, eps=eps) for eps in (0.0, 1e3, 1e6)]
    assert outputs[0].norm() > outputs[1].norm() > 100 * outputs[2].norm()


def refusal(message: str) -> pytest.RaisesExc[ValueError]:
    return pytest.raises(ValueError, match=re.escape(message))


def test_unknown_backends_are_refused_with_the_list_of_known_ones() -> None:
    q, k, v = make_inputs(CASE)
    with refusal(
        "backend 'flash' does not exist for linear attention; choose auto or one of chunked, explicit, native"
    ):
        linear_attention(q, k, v, backend="flash")
    with refusal("choose auto or one of explicit, sdpa, sdpa-math, sdpa-flash, sdpa-efficient, sdpa-cudnn"):
        standard_attention(q, k, v, backend="chunked")


def test_unknown_feature_maps_are_refused_with_the_list_of_known_ones() -> None:
    q, k, v = make_inputs(CASE)
    with refusal("feature map 'gelu' does not exist; choose one of elu, relu, identity, or pass a callable"):
        linear_attention(q, k, v, feature_map="gelu")
    with pytest.raises(TypeError, match="feature_map must be a name or a callable, got int"):
        linear_attention(q, k, v, feature_map=3)  # type: ignore[call-overload]


def test_inputs_of_unfit_shape_dtype_or_device_are_refused_by_name() -> None:
    q, k, v = make_inputs(CASE)
    with refusal("q, k and v must be [batch, heads, seq_len, head_dim]; got q (2, 50, 8)"):
        linear_attention(q[0], k, v)
    with refusal("q must be [B, Hq, Nq, D], k [B, Hkv, Nk, D] and v [B, Hkv, Nk, Dv]"):
        standard_attention(q, k[:, :, :10], v)
    with refusal("v [B, Hkv, Nk, Dv], of one batch and one D; got q (2, 2, 50, 8), k (2, 2, 50, 8), v (2, 1"):
        standard_attention(q, k, v[:, :1])
    with refusal("head_dim must be at least 1"):
        linear_attention(q[..., :0], k[..., :0], v)
    with refusal(
        "must share one dtype out of float64, float32, bfloat16, float16; got torch.float64, torch.float32"
    ):
        standard_attention(q, k.float(), v)
    with refusal("must share one dtype"):
        standard_attention(q.long(), k.long(), v.long())
    with refusal("must be on one device; got cpu, meta, cpu"):
        linear_attention(q, k.to("meta"), v)


def test_a_pinned_backend_that_cannot_serve_is_refused_with_the_reason_of_torch() -> None:
    q, k, v = make_inputs(CASE)
    with refusal(
        "standard-sdpa-flash cannot serve q (2, 2, 50, 8), k (2, 2, 50, 8), v (2, 2, 50, 5) "
        "in torch.float64: torch refuses"
    ):
        standard_attention(q, k, v[..., :5], backend="sdpa-flash")
    with pytest.raises(ValueError, match="Flash attention requires q,k,v to have the same last dimension"):
        standard_attention(q, k, v[..., :5], backend="sdpa-flash")
    with refusal("standard-sdpa-cudnn cannot serve"):
        standard_attention(q, k, v, backend="sdpa-cudnn")


def test_chunk_sizes_below_one_are_refused() -> None:
    with refusal("chunk_size must be at least 1, got 0"):
        attention.get_kernel("linear-chunked").function(*make_inputs(CASE), chunk_size=0)


def test_cases_of_impossible_fields_are_refused() -> None:
    with refusal("mode 'both' does not exist; choose one of bidirectional, causal"):
        Case("linear-chunked", "both", 10)
    with refusal("seq_len must be at least 0, got -1"):
        Case("linear-chunked", "causal", -1)


def test_keys_and_ids_of_a_case_are_made_from_its_fields() -> None:
    case = Case("linear-chunked", "causal", 4096)
    assert case.key == "linear-chunked/causal/forward/cpu/float32/B1-H8-N4096-D64"
    assert case.id == "linear-chunked-causal-forward-N4096-B1-H8-D64-float32-cpu"
    assert Case("linear-chunked", "causal", 4096, value_dim=32).key.endswith("/B1-H8-N4096-D64-V32")


def test_kernels_are_registered_once_and_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))
    known = attention.get_kernel("linear-explicit")
    mine = attention.register_kernel("linear-mine", known.function, costs=known.costs)
    assert attention.get_kernel("linear-mine") is mine
    assert (mine.family, mine.backend) == ("linear", "mine")
    assert attention.list_kernels("linear") == [
        "linear-chunked",
        "linear-decay-chunked",
        "linear-decay-explicit",
        "linear-decay-native",
        "linear-decay-triton",
        "linear-explicit",
        "linear-native",
        "linear-triton",
        "linear-mine",
    ]
    q, k, v = make_inputs(CASE)
    assert torch.equal(
        linear_attention(q, k, v, backend="mine"), linear_attention(q, k, v, backend="explicit")
    )
    with refusal("kernel 'linear-mine' is registered already"):
        attention.register_kernel("linear-mine", known.function, costs=known.costs)
    with refusal("kernel name 'linear/fast' must be up to 60 letters, digits"):
        attention.register_kernel("linear/fast", known.function, costs=known.costs)
    with refusal("kernel 'linear-slow' does not exist; choose one of standard-explicit"):
        attention.get_kernel("linear-slow")


def test_explain_names_the_kernel_that_auto_takes_and_the_kernels_passed_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    attention.explain(Case("linear-auto", "causal", 4096))
    assert capsys.readouterr().out == "linear-native: the fastest measured on cpu that serves the case\n"
    attention.explain(Case("linear-auto", "causal", 4096, device="cuda", dtype="float64"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("not linear-triton: ")
    assert second == "linear-chunked: the fastest measured on cuda that serves the case"
    with pytest.raises(
        TypeError, match=r"^explain takes a Case, as Case\('linear-auto', .*\); got an object of type str"
    ):
        attention.explain("linear-auto")  # type: ignore[arg-type]
