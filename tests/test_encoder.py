"""The layer in the place of torch.nn.MultiheadAttention at work within torch's encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention import MultiheadAttention
from attention.kernels.references import relative_error
from attention.modules import resolve_kernel
from tests.layers import HEADS, LINEAR, WIDTH, drawn, right_padding
from tests.samples import sampled

pytestmark = pytest.mark.usefixtures("one_thread")


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
