"""A layer in the place of torch.nn.MultiheadAttention: equal to it, and at work within torch's encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention import MultiheadAttention, SelfAttention
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.references import relative_error
from attention.modules import resolve_kernel
from tests.samples import sampled

pytestmark = pytest.mark.usefixtures("one_thread")

LINEAR = ("linear", "linear-explicit", "linear-chunked")
WIDTH, HEADS = 32, 4


def like_torch(kernel: str, **options: object) -> tuple[nn.MultiheadAttention, MultiheadAttention]:
    """Torch's layer and this one, with the same weights, biases among them, in float64."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **options)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases too, which start as zeros
    ours = MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, kernel=kernel, **options)  # type: ignore[arg-type]
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def right_padding(lengths: tuple[int, ...], most: int) -> Tensor:
    return torch.arange(most) >= torch.tensor(lengths)[:, None]


def causal_mask(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).triu(1)


def assert_same(ours: Tensor, theirs: Tensor, inputs: list[Tensor], others: list[Tensor]) -> None:
    """Two outputs and their gradients in float64, of inputs and of the parameters of each."""
    assert relative_error(ours, theirs) < 1e-13
    got = torch.autograd.grad(ours.sin().sum(), inputs, retain_graph=True)
    wanted = torch.autograd.grad(theirs.sin().sum(), others, retain_graph=True)
    for one, other in zip(got, wanted, strict=True):
        assert relative_error(one, other) < 1e-12


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ["standard", "standard-explicit"])
def test_with_a_standard_kernel_it_equals_torch_gradients_included(
    name: str, batch_first: bool, causal: bool, padded: bool
) -> None:
    theirs, ours = like_torch(name, batch_first=batch_first)
    x = drawn(3, 7, WIDTH) if batch_first else drawn(7, 3, WIDTH)
    padding = right_padding((7, 1, 4), 7) if padded else None
    mask = causal_mask(7) if causal else None
    expected, _ = theirs(x, x, x, padding, need_weights=False, attn_mask=mask)
    out, weights = ours(x, x, x, padding, attn_mask=mask, is_causal=causal)
    assert weights is None and out.shape == x.shape
    assert_same(out, expected, [x, *ours.parameters()], [x, *theirs.parameters()])


@pytest.mark.parametrize("widths", [{}, {"kdim": 12, "vdim": 20}, {"bias": False}])
def test_attention_across_sequences_of_two_lengths_equals_torch(widths: dict[str, int]) -> None:
    theirs, ours = like_torch("standard", **widths)
    query, memory = drawn(5, 2, WIDTH), drawn(9, 2, widths.get("kdim", WIDTH))
    values = drawn(9, 2, widths.get("vdim", WIDTH))
    padding = right_padding((9, 3), 9)
    expected, _ = theirs(query, memory, values, padding, need_weights=False)
    out, _ = ours(query, memory, values, padding)
    inputs = [query, memory, values]
    assert_same(out, expected, [*inputs, *ours.parameters()], [*inputs, *theirs.parameters()])


def test_values_of_their_own_equal_torch() -> None:
    theirs, ours = like_torch("standard")
    x, values = drawn(5, 2, WIDTH), drawn(5, 2, WIDTH)
    for inputs in ((x, x, values), (x, values, x), (values, x, x)):
        assert relative_error(ours(*inputs)[0], theirs(*inputs, need_weights=False)[0]) < 1e-13


@pytest.mark.parametrize("name", ["standard", *LINEAR])
def test_one_sequence_without_a_batch_is_a_batch_of_one(name: str) -> None:
    _, ours = like_torch(name)
    query, memory, padding = drawn(5, WIDTH), drawn(9, WIDTH), torch.arange(9) > 6
    out, _ = ours(query, memory, memory, padding)
    batch, _ = ours(query[:, None], memory[:, None], memory[:, None], padding[None])
    assert torch.equal(out, batch[:, 0])


@pytest.mark.parametrize("feature_map", [None, "relu", torch.exp])
@pytest.mark.parametrize("name", LINEAR)
def test_with_a_linear_kernel_it_is_linear_attention_to_the_keys_that_are_not_ignored(
    name: str, feature_map: str | Callable[[Tensor], Tensor] | None
) -> None:
    torch.manual_seed(0)
    layer = MultiheadAttention(
        WIDTH, HEADS, bias=False, batch_first=True, dtype=torch.float64, kernel=name, feature_map=feature_map
    )
    query, memory, lengths = drawn(3, 5, WIDTH), drawn(3, 9, WIDTH), (9, 1, 4)
    assert layer.in_proj_weight is not None
    weights, phi = layer.in_proj_weight.chunk(3), get_feature_map(feature_map or "elu")

    def expected(one: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (
            (x @ w.T).view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
            for x, w in zip((one, seen, seen), weights, strict=True)
        )
        q, k = phi(q), phi(k)
        heads = q @ (k.mT @ v) / (q @ k.sum(2)[..., None] + 1e-6)
        out: Tensor = layer.out_proj(heads.transpose(1, 2).flatten(2))
        return out

    by_hand = torch.cat([expected(query[i], memory[i, :n]) for i, n in enumerate(lengths)])
    out, _ = layer(query, memory, memory, right_padding(lengths, 9))
    assert_same(out, by_hand, [query, memory, *layer.parameters()], [query, memory, *layer.parameters()])


@pytest.mark.parametrize("name", ["standard", *LINEAR])
def test_fewer_heads_of_keys_are_as_many_that_are_equal(name: str) -> None:
    grouped = MultiheadAttention(WIDTH, HEADS, num_kv_heads=2, kernel=name, dtype=torch.float64)
    whole = MultiheadAttention(WIDTH, HEADS, kernel=name, dtype=torch.float64)
    assert grouped.in_proj_weight is not None and whole.in_proj_weight is not None
    assert grouped.in_proj_weight.shape == (2 * WIDTH, WIDTH)
    whole.out_proj.load_state_dict(grouped.out_proj.state_dict())
    q, k, v = torch.split(grouped.in_proj_weight, [WIDTH, WIDTH // 2, WIDTH // 2])
    repeated = [x.view(2, 1, 8, WIDTH).expand(2, 2, 8, WIDTH).reshape(WIDTH, WIDTH) for x in (k, v)]
    with torch.no_grad():
        whole.in_proj_weight.copy_(torch.cat([q, *repeated]))
    query, memory = drawn(5, 2, WIDTH), drawn(9, 2, WIDTH)
    out, expected = grouped(query, memory, memory)[0], whole(query, memory, memory)[0]
    assert_same(out, expected, [query, memory], [query, memory])


@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"kdim": 12}, {"kdim": 12, "vdim": 8, "bias": False}]
)
def test_its_state_dict_and_its_first_weights_of_a_seed_are_those_of_torch(options: dict[str, int]) -> None:
    torch.manual_seed(3)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, **options)
    torch.manual_seed(3)
    ours = MultiheadAttention(WIDTH, HEADS, **options)  # type: ignore[arg-type]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(x, theirs.state_dict()[name]) for name, x in ours.state_dict().items())
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


# --- within torch's encoder --------------------------------------------------------------------------


def encoder_layer(kernel: str, **options: object) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, dropout=0.0, batch_first=True, **options)  # type: ignore[arg-type]
    layer.self_attn = MultiheadAttention(WIDTH, HEADS, batch_first=True, kernel=kernel)  # type: ignore[assignment]
    return layer


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_torch_encoder_in_evaluation_computes_what_it_computes_in_training(name: str, padded: bool) -> None:
    layer = encoder_layer(name)
    x, padding = torch.randn(2, 9, WIDTH), right_padding((9, 4), 9) if padded else None
    training = layer(x, src_key_padding_mask=padding)
    layer.eval()
    with torch.no_grad():
        assert torch.equal(layer(x, src_key_padding_mask=padding), training)
        layer.self_attn.kernel = resolve_kernel("standard")  # type: ignore[assignment]
        assert relative_error(layer(x), training) > 1e-3  # what torch's fast path would have computed


def test_an_encoder_and_a_decoder_of_torch_equal_themselves_with_a_standard_kernel_in_their_place() -> None:
    torch.manual_seed(0)
    sizes = {"nhead": HEADS, "dim_feedforward": 64, "dropout": 0.0, "batch_first": True}
    theirs = nn.Transformer(WIDTH, num_encoder_layers=2, num_decoder_layers=2, **sizes).double()  # type: ignore[arg-type]
    source, target = drawn(2, 9, WIDTH), drawn(2, 6, WIDTH)
    masks = {
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64),
        "src_key_padding_mask": right_padding((9, 4), 9).double().masked_fill(right_padding((9, 4), 9), -inf),
    }
    expected = theirs(source, target, **masks)
    for layer in [*theirs.encoder.layers, *theirs.decoder.layers]:
        for name in ("self_attn", "multihead_attn"):
            if old := getattr(layer, name, None):
                new = MultiheadAttention(
                    WIDTH, HEADS, batch_first=True, dtype=torch.float64, kernel="standard"
                )
                new.load_state_dict(old.state_dict())
                setattr(layer, name, new)
    assert relative_error(theirs(source, target, **masks), expected) < 1e-12


def losses_of_training(
    call: Callable[..., Tensor], layer: nn.Module, steps: int = 50, autocast: bool = False, **masks: Any
) -> list[float]:
    torch.manual_seed(1)
    x, target = torch.randn(2, 4, 20, WIDTH)
    optimiser, losses = torch.optim.Adam(layer.parameters(), lr=3e-3), []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = call(x, **masks)
        loss = (out.float() - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


CAUSAL = {"src_mask": nn.Transformer.generate_square_subsequent_mask(20), "is_causal": True}
PADDED = {"src_key_padding_mask": right_padding((20, 11, 20, 5), 20)}
MASKS: dict[str, dict[str, Any]] = {"plain": {}, "causal": CAUSAL, "padded": PADDED}


@pytest.mark.parametrize(
    ("name", "masks", "autocast"),
    sampled(
        ["linear", "standard"],
        ["causal", "padded"],
        [False, True],
        quick=[("linear", "padded", False), ("linear", "causal", True), ("standard", "padded", True)],
    ),
)
def test_an_encoder_layer_learns_in_fifty_steps(name: str, masks: str, autocast: bool) -> None:
    layer = encoder_layer(name)
    losses = losses_of_training(layer, layer, autocast=autocast, **MASKS[masks])
    assert losses[-1] < 0.7 * losses[0]


def assert_compiled_training_equals_eager_training(
    kernel: str, masks: dict[str, Any], backend: str, steps: int
) -> None:
    layer, other = encoder_layer(kernel), encoder_layer(kernel)
    compiled = torch.compile(other, backend=backend, fullgraph=True)
    got = losses_of_training(compiled, other, steps, **masks)
    # Another order of sums in float32: Adam's steps of 3e-3 may differ where a gradient is next to nothing.
    assert got == pytest.approx(losses_of_training(layer, layer, steps, **masks), rel=1e-2)


def test_an_encoder_layer_trains_in_one_compiled_graph() -> None:
    # The eager backend traces like every other and needs no C++ compiler.
    assert_compiled_training_equals_eager_training("linear", PADDED, "eager", steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", [*LINEAR, "standard"])
def test_an_encoder_layer_trains_in_one_compiled_graph_of_any_kernel(name: str, masks: str) -> None:
    torch.compiler.reset()
    assert_compiled_training_equals_eager_training(name, MASKS[masks], "aot_eager", steps=50)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "standard"])
def test_an_encoder_layer_trains_in_compiled_code(name: str) -> None:
    torch.compiler.reset()
    assert_compiled_training_equals_eager_training(name, PADDED, "inductor", steps=50)


@pytest.mark.parametrize("name", ["linear", "linear-explicit", "standard"])
def test_activations_computed_again_give_the_same_gradients(name: str) -> None:
    layer, x = encoder_layer(name), torch.randn(4, 20, WIDTH, requires_grad=True)

    call = partial(layer, **PADDED)
    got, wanted = (
        torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()])
        for out in (checkpoint(call, x, use_reentrant=False), call(x))
    )
    assert all(torch.equal(again, kept) for again, kept in zip(got, wanted, strict=True))


# --- masks and refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear-explicit", "standard"])
def test_a_mask_of_floats_hides_keys_with_minus_infinity_and_holds_nothing_else(name: str) -> None:
    layer, x = MultiheadAttention(WIDTH, HEADS, batch_first=True, kernel=name), torch.randn(2, 5, WIDTH)
    hidden = right_padding((5, 2), 5)
    floats = torch.zeros(2, 5).masked_fill(hidden, -inf)
    assert torch.equal(layer(x, x, x, floats)[0], layer(x, x, x, hidden)[0])
    floats[0, 0] = 0.5
    with pytest.raises(
        ValueError, match="or hold -inf where a key is ignored and 0 elsewhere; other numbers"
    ):
        layer(x, x, x, floats)


def test_a_compiled_graph_makes_the_output_nan_where_a_mask_of_floats_holds_other_numbers() -> None:
    layer = MultiheadAttention(WIDTH, HEADS, batch_first=True, kernel="linear-explicit")
    compiled, x = torch.compile(layer, backend="eager", fullgraph=True), torch.randn(2, 5, WIDTH)
    floats = torch.zeros(2, 5)
    assert relative_error(compiled(x, x, x, floats)[0], layer(x, x, x)[0]) < 1e-6
    floats[1, 1] = -1e9
    assert compiled(x, x, x, floats)[0].isnan().all()


def test_causal_attention_of_two_lengths_is_aligned_at_the_end() -> None:
    layer, x = MultiheadAttention(WIDTH, HEADS, batch_first=True), torch.randn(2, 9, WIDTH)
    whole, _ = layer(x, x, x, is_causal=True)
    assert relative_error(layer(x[:, 4:], x, x, is_causal=True)[0], whole[:, 4:]) < 1e-5


def refused(error: type[Exception], words: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=re.escape(words)) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"need_weights": True}, "no attention weights to return; call it with need_weights=False"),
        ({"attn_mask": causal_mask(5)}, "takes no attn_mask but the causal one, beside is_causal=True"),
        (
            {"attn_mask": causal_mask(4), "is_causal": True},
            "must be the causal mask [N, N] of as many queries as keys; got [4, 4] for 5 queries and 5 keys",
        ),
        (
            {"query": torch.ones(2, 3, WIDTH), "attn_mask": causal_mask(5)[:3], "is_causal": True},
            "got [3, 5] for 3 queries and 5 keys: leave it out, is_causal says all",
        ),
        (
            {"value": torch.ones(2, 4, WIDTH)},
            "as many values as keys; got (2, 5, 32), (2, 5, 32), (2, 4, 32)",
        ),
        ({"value": torch.ones(2, 5, 8)}, "[B, N, width] or [N, width] of the widths 32, 32, 32"),
        ({"query": torch.ones(5, WIDTH)}, "got (5, 32), (2, 5, 32), (2, 5, 32)"),
        (
            {"value": torch.ones(2, 5, WIDTH, dtype=torch.float64)},
            "takes tensors like its weights, torch.float32 on cpu; got torch.float64 on cpu for value",
        ),
        (
            {"key_padding_mask": torch.ones(2, 4, dtype=torch.bool)},
            "must be [B, Nk] = [2, 5] on cpu; got [2, 4]",
        ),
    ],
)
def test_a_call_that_it_cannot_serve_is_refused_in_a_sentence(options: dict[str, Any], words: str) -> None:
    layer, x = (
        MultiheadAttention(WIDTH, HEADS, batch_first=True, kernel="linear-explicit"),
        torch.ones(2, 5, WIDTH),
    )
    refused(ValueError, words, lambda: layer(**{"query": x, "key": x, "value": x, **options}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"add_zero_attn": True}, "add_zero_attn has no counterpart in MultiheadAttention here"),
        ({"add_bias_kv": True}, "add_bias_kv has no counterpart in MultiheadAttention here"),
        ({"num_kv_heads": 3}, "num_heads must be a multiple of num_kv_heads, got 4 and 3"),
        ({"num_kv_heads": 0}, "num_heads must be a multiple of num_kv_heads, got 4 and 0"),
        (
            {"kernel": "standard", "feature_map": "elu"},
            "feature_map is of linear kernels; standard-auto has none",
        ),
        ({"feature_map": "fast"}, "feature map 'fast' does not exist; choose one of elu, relu, identity"),
        ({"kernel": "fast"}, "kernel 'fast' does not exist; choose one of standard-explicit"),
    ],
)
def test_a_layer_that_cannot_be_is_refused_in_a_sentence(options: dict[str, Any], words: str) -> None:
    refused(ValueError, words, lambda: MultiheadAttention(WIDTH, HEADS, **options))


def test_masks_of_another_kind_and_of_kernels_without_any_are_refused() -> None:
    x, integers = torch.ones(5, 2, WIDTH), torch.zeros(2, 5, dtype=torch.int64)
    layer = MultiheadAttention(WIDTH, HEADS, kernel="linear-explicit")
    refused(
        TypeError, "must be of dtype bool, True = ignore; got torch.int64", lambda: layer(x, x, x, integers)
    )
    window = MultiheadAttention(WIDTH, HEADS, kernel="window-sdpa")
    words = "window-sdpa takes no key_padding_mask; 'standard' and 'linear' do"
    refused(ValueError, words, lambda: window(x, x, x, integers > 0, is_causal=True))


def test_dropout_of_weights_is_refused_in_training_and_means_nothing_in_evaluation() -> None:
    layer, x = MultiheadAttention(WIDTH, HEADS, dropout=0.1), torch.randn(2, 5, WIDTH)
    words = "dropout = 0.1 cannot drop any in training; build the layer with dropout=0.0"
    refused(ValueError, words, lambda: layer(x, x, x))
    assert layer.eval()(x, x, x)[0].shape == x.shape


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_of_torch_encoder_are_refused_with_the_way_round() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    for one in encoder.layers:
        one.self_attn = MultiheadAttention(WIDTH, HEADS, batch_first=True)
    x, padding = torch.randn(2, 5, WIDTH), right_padding((5, 2), 5)
    with torch.no_grad():
        words = "a nested tensor for query; torch's encoder makes none with enable_nested_tensor=False"
        refused(TypeError, words, lambda: encoder(x, src_key_padding_mask=padding))


def test_a_state_dict_of_torch_loads_into_self_attention_beside_its_own() -> None:
    theirs, own, second = nn.MultiheadAttention(WIDTH, HEADS), *(SelfAttention(WIDTH, HEADS) for _ in "12")
    held = nn.Sequential(theirs).state_dict()
    nn.Sequential(own).load_state_dict(held)
    assert torch.equal(own.in_proj.weight, theirs.in_proj_weight)
    assert "0.in_proj_weight" in held  # the caller's is left as it was
    second.load_state_dict(own.state_dict())
    assert torch.equal(second.out_proj.weight, theirs.out_proj.weight)
    with pytest.raises(RuntimeError, match="size mismatch for in_proj"):
        SelfAttention(WIDTH, HEADS, num_kv_heads=2).load_state_dict(theirs.state_dict())
