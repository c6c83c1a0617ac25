"""The self-attention layer: equal to torch's, countable, and good for training, autocast and compile."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from attention import Case, SelfAttention, count_flops_self_attention
from attention.kernels.references import REFERENCES, relative_error
from attention.modules import self_attention_costs
from attention.profiler import count_flops, peak_memory
from benchmarks.subjects import SUBJECTS, prepare

STANDARD = ("standard", "standard-explicit", "standard-sdpa-math")


def torch_layer(bias: bool = True) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(64, 4, bias=bias, batch_first=True, dtype=torch.float64)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)  # biases too, which start as zeros
    return layer


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", STANDARD)
def test_self_attention_with_the_weights_of_torch_equals_torch(
    name: str, causal: bool, bias: bool, device: str
) -> None:
    theirs = torch_layer(bias).to(device)
    ours = SelfAttention.from_torch(theirs, kernel=name, causal=causal)
    x = torch.randn(3, 50, 64, dtype=torch.float64, device=device, requires_grad=True)
    mask = torch.ones(50, 50, dtype=torch.bool, device=device).triu(1) if causal else None
    expected, _ = theirs(x, x, x, need_weights=False, attn_mask=mask)
    assert relative_error(ours(x), expected) < 1e-13
    (got,), (wanted,) = (torch.autograd.grad(out.sin().sum(), x) for out in (ours(x), expected))
    assert relative_error(got, wanted) < 1e-12


def test_weights_of_torch_that_are_frozen_stay_frozen() -> None:
    theirs = nn.MultiheadAttention(32, 4)
    theirs.in_proj_weight.requires_grad_(False)
    theirs.out_proj.bias.requires_grad_(False)
    ours = SelfAttention.from_torch(theirs)
    trained = {name for name, x in ours.named_parameters() if x.requires_grad}
    assert trained == {"in_proj.bias", "out_proj.weight"}


@pytest.mark.parametrize("bias", [True, False])
def test_copies_of_torchs_weights_are_as_these_are(bias: bool) -> None:
    theirs = nn.MultiheadAttention(32, 4, bias=bias).eval()
    theirs.out_proj.bfloat16()
    phi = nn.Linear(8, 8)
    ours = SelfAttention.from_torch(theirs, kernel="linear", feature_map=phi)
    assert ours.in_proj.weight.dtype == torch.float32 and not ours.training and not ours.out_proj.training
    assert torch.equal(ours.out_proj.weight, theirs.out_proj.weight)
    assert (ours.in_proj.bias is not None) == (ours.out_proj.bias is not None) == bias
    assert all(x.dtype == torch.bfloat16 for x in ours.out_proj.parameters())
    assert ours.feature_map is phi and all(not x.is_meta for x in ours.parameters())
    with torch.no_grad():
        theirs.in_proj_weight.zero_()
    assert ours.in_proj.weight.any()
    on_meta = SelfAttention.from_torch(nn.MultiheadAttention(32, 4, device="meta"))
    assert all(x.is_meta for x in on_meta.parameters())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["linear-explicit", "linear-chunked", "linear"])
def test_self_attention_of_a_linear_kernel_is_linear_attention_between_its_projections(
    name: str, causal: bool, device: str
) -> None:
    theirs = torch_layer().to(device)
    ours = SelfAttention.from_torch(theirs, kernel=name, causal=causal)
    x = torch.randn(2, 50, 64, dtype=torch.float64, device=device)
    q, k, v = (
        (x @ weight.T + bias).view(2, 50, 4, 16).transpose(1, 2)
        for weight, bias in zip(theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True)
    )
    heads = REFERENCES["linear"](q, k, v, causal=causal)
    expected = theirs.out_proj(heads.transpose(1, 2).reshape(2, 50, 64))
    assert relative_error(ours(x), expected) < 1e-13


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "name", ["standard", "standard-explicit", "linear", "linear-explicit", "linear-chunked"]
)
def test_padding_is_as_if_the_ignored_tokens_were_not_there(name: str, causal: bool, device: str) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(
        64, 4, num_kv_heads=2, kernel=name, causal=causal, dtype=torch.float64, device=device
    )
    x = torch.randn(2, 50, 64, dtype=torch.float64, device=device)
    mask = torch.zeros(2, 50, dtype=torch.bool, device=device)
    mask[0, 31:], mask[1, :17] = True, True  # right and left
    out = layer(x, mask)
    assert relative_error(out[0, :31], layer(x[0, :31])) < 1e-13
    assert relative_error(out[1, 17:], layer(x[1, 17:])) < 1e-13
    assert torch.equal(layer(x[1], mask[1]), layer(x[1:], mask[1:])[0])


def test_a_feature_map_is_that_of_the_kernel() -> None:
    x, layer = torch.randn(2, 9, 64), SelfAttention(64, 4, kernel="linear", feature_map="relu")
    other = SelfAttention(64, 4, kernel="linear", feature_map=torch.relu)
    other.load_state_dict(layer.state_dict())
    assert relative_error(layer(x), other(x)) < 1e-5
    other.feature_map = None
    assert relative_error(layer(x), other(x)) > 1e-3


def test_the_state_dict_of_self_attention_is_stable_and_loads() -> None:
    layer = SelfAttention(64, 4)
    assert {name: tuple(x.shape) for name, x in layer.state_dict().items()} == {
        "in_proj.weight": (192, 64),
        "in_proj.bias": (192,),
        "out_proj.weight": (64, 64),
        "out_proj.bias": (64,),
    }
    other = SelfAttention(64, 4, kernel="linear")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.in_proj.weight, layer.in_proj.weight)
    assert set(SelfAttention(64, 4, bias=False).state_dict()) == {"in_proj.weight", "out_proj.weight"}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["standard", "linear", "linear-explicit"])
def test_self_attention_learns_a_random_target(name: str, causal: bool, device: str) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(32, 4, kernel=name, causal=causal, device=device)
    x, target = torch.randn(2, 4, 40, 32, device=device)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (layer(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["standard", "linear", "linear-explicit"])
def test_self_attention_under_autocast_computes_in_bfloat16_close_to_float32(
    name: str, causal: bool, device: str
) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(64, 4, kernel=name, causal=causal, device=device)
    x = torch.randn(2, 100, 64, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        narrow = layer(x)
    assert narrow.dtype is torch.bfloat16
    wide = layer(x)
    # Five roundings of half an eps in a row, eps = 2^-7: inputs and results of both projections and of the
    # kernel; weights are rounded too.
    assert relative_error(narrow, wide) < 2.5 * 2**-7
    (got,), (wanted,) = (torch.autograd.grad(out.float().sin().sum(), x) for out in (narrow, wide))
    assert relative_error(got, wanted) < 5 * 2**-7


@pytest.mark.parametrize("name", ["standard", "linear"])
def test_self_attention_compiles(name: str, device: str) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(32, 2, kernel=name, causal=True, device=device)
    # The eager backend traces like every other and needs no C++ compiler.
    compiled = torch.compile(layer, backend="eager")
    x = torch.randn(2, 100, 32, device=device, requires_grad=True)
    assert relative_error(compiled(x), layer(x)) < 1e-6
    (got,), (wanted,) = (torch.autograd.grad(f(x).sum(), x) for f in (compiled, layer))
    assert relative_error(got, wanted) < 1e-6


def test_flops_of_self_attention_are_the_textbook_terms() -> None:
    n, d, h = 1000, 512, 8
    standard = count_flops_self_attention(n, d, h)
    assert standard == {
        "projections": 2 * 3 * n * d * d,
        "scores": 2 * n * n * (d // h) * h,
        "weighted_values": 2 * n * n * (d // h) * h,
        "output_projection": 2 * n * d * d,
        "total": 2 * (4 * n * d * d + 2 * n * n * d),
    }
    linear = count_flops_self_attention(n, d, h, kernel="linear")
    assert linear["states"] == linear["readout"] == 2 * n * (d // h) ** 2 * h
    assert linear["normaliser"] == 2 * 2 * n * d  # k'1 and qz
    assert linear["total"] == sum(value for name, value in linear.items() if name != "total")


@pytest.mark.parametrize("num_kv_heads", [2, 4])
@pytest.mark.parametrize("name", ["standard", "standard-explicit", "linear", "linear-explicit"])
def test_counted_flops_of_self_attention_equal_the_textbook_terms(
    name: str, num_kv_heads: int, device: str
) -> None:
    layer = SelfAttention(64, 4, num_kv_heads=num_kv_heads, kernel=name, device=device)
    x = torch.randn(1, 70, 64, device=device)
    terms = count_flops_self_attention(70, 64, 4, num_kv_heads=num_kv_heads, kernel=name, device=device)
    assert count_flops(lambda: layer(x)) == terms["total"]


def test_fewer_heads_of_keys_take_narrower_projections_and_smaller_states() -> None:
    n, d, h, g = 1000, 512, 8, 2
    width = d // h
    terms = count_flops_self_attention(n, d, h, num_kv_heads=g, kernel="linear-explicit")
    assert terms["projections"] == 2 * n * d * (d + 2 * g * width)
    assert (terms["states"], terms["readout"]) == (2 * n * g * width**2, 2 * n * h * width**2)
    standard, grouped = (count_flops_self_attention(n, d, h, num_kv_heads=heads) for heads in (None, g))
    assert standard["scores"] == grouped["scores"]
    with pytest.raises(ValueError, match="num_heads must be a multiple of num_kv_heads, got 8 and 3"):
        count_flops_self_attention(n, d, h, num_kv_heads=3)


@pytest.mark.parametrize("kv_heads", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("phase", ["forward", "forward_backward"])
@pytest.mark.parametrize("name", ["standard-sdpa", "standard-explicit", "linear-chunked"])
def test_costs_of_the_layer_predict_its_counted_flops_and_peak_memory(
    name: str, phase: str, kv_heads: int, device: str
) -> None:
    torch.set_num_threads(2)  # each keeps a block of its own
    case = Case(name, "bidirectional", 1000, phase, device, subject="layer", kv_heads=kv_heads)
    costs, call = self_attention_costs(case), prepare(case)
    assert count_flops(call) == costs.countable_flops
    measured = peak_memory(call, device).tensor_bytes
    assert measured is not None and 0.75 * measured < costs.peak_bytes < 1.35 * measured


def test_the_layer_is_checked_against_the_oracle_before_it_is_timed() -> None:
    for name, kv_heads in (("standard-explicit", 0), ("linear-chunked", 2), ("linear-native", 0)):
        case = Case(name, "causal", 150, "forward_backward", subject="layer", kv_heads=kv_heads)
        errors = SUBJECTS["layer"].errors(case, REFERENCES[case.family])
        assert errors.within(torch.float32)
        assert errors.output > 0 and errors.gradients > 0


def test_self_attention_refuses_impossible_arguments() -> None:
    with pytest.raises(ValueError, match="embed_dim must be a multiple of num_heads, got 30 and 4"):
        SelfAttention(30, 4)
    with pytest.raises(ValueError, match="kernel 'fast' does not exist; choose one of standard-explicit"):
        SelfAttention(32, 4, kernel="fast")
    with pytest.raises(ValueError, match=re.escape("a MultiheadAttention with add_bias_kv, dropout has no")):
        SelfAttention.from_torch(nn.MultiheadAttention(32, 4, dropout=0.1, add_bias_kv=True))
    with pytest.raises(ValueError, match="kdim or vdim"):
        SelfAttention.from_torch(nn.MultiheadAttention(32, 4, kdim=16))
