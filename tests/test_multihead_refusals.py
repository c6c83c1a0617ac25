"""What the layer in the place of torch.nn.MultiheadAttention refuses, in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from attention import MultiheadAttention, SelfAttention
from tests.layers import HEADS, WIDTH, causal_mask, right_padding

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("name", ["linear-decay-native", "linear-decay-chunked"])
def test_a_layer_refuses_a_kernel_whose_gates_it_does_not_have(name: str) -> None:
    with pytest.raises(ValueError, match=f"and {name} takes more; choose another kernel"):
        SelfAttention(16, 4, kernel=name, causal=True)


def test_a_layer_of_no_width_says_that_it_has_none() -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 4"):
        SelfAttention(0, 4)
