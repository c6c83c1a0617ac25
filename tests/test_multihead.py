"""A layer in the place of torch.nn.MultiheadAttention: equal to it, and at work within torch's encoder."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
import torch
from torch import Tensor, nn

from attention import MultiheadAttention, SelfAttention
from attention.kernels.feature_maps import get_feature_map
from attention.kernels.references import relative_error
from tests.layers import HEADS, LINEAR, WIDTH, causal_mask, drawn, right_padding

pytestmark = pytest.mark.usefixtures("one_thread")


def like_torch(kernel: str, **options: object) -> tuple[nn.MultiheadAttention, MultiheadAttention]:
    """Torch's layer and this one, with the same weights, biases among them, in float64."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **options)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases too, which start as zeros
    ours = MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, kernel=kernel, **options)  # type: ignore[arg-type]
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


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
