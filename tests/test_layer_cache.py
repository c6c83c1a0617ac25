"""A causal layer token by token: behind what it keeps of a context it goes on as if the whole were there."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from attention import Case, KVCache, SelfAttention, State
from attention.costs import cache_bytes
from attention.kernels.references import relative_error

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, HEADS = 32, 4
LINEAR = ("linear", "linear-explicit", "linear-chunked", "linear-native")
KERNELS = (*LINEAR, "standard", "standard-explicit")


def causal_layer(name: str, num_kv_heads: int = 2, dtype: torch.dtype = torch.float64) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(WIDTH, HEADS, num_kv_heads=num_kv_heads, kernel=name, causal=True, dtype=dtype)


def drawn(*shape: int, requires_grad: bool = False) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=requires_grad)


def split(tokens: int, seed: int) -> list[slice]:
    """A random first part, which may be empty, and random further ones of one or a few tokens."""
    draw = random.Random(seed)
    ends = [0, draw.randrange(tokens)]
    while ends[-1] < tokens:
        ends.append(min(tokens, ends[-1] + draw.choice((1, 1, 1, 2, 5))))
    return [slice(a, b) for a, b in pairwise(ends)]


def in_parts(layer: SelfAttention, x: Tensor, parts: list[slice], **options: object) -> Tensor:
    y, cache = layer.prefill(x[:, parts[0]], **options)  # type: ignore[arg-type]
    outputs = [y]
    for part in parts[1:]:
        y, cache = layer.step(x[:, part], cache)
        outputs.append(y)
    return torch.cat(outputs, 1)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("name", KERNELS)
def test_a_prefill_and_steps_equal_the_whole(name: str, num_kv_heads: int) -> None:
    layer, x = causal_layer(name, num_kv_heads), drawn(3, 23, WIDTH)
    with torch.no_grad():
        whole = layer(x)
        for seed in range(4):
            assert relative_error(in_parts(layer, x, split(23, seed)), whole) < 1e-13


@pytest.mark.parametrize("name", KERNELS)
def test_keys_ignored_in_the_prefill_stay_ignored(name: str) -> None:
    layer, x = causal_layer(name), drawn(2, 12, WIDTH)
    left = torch.arange(12) < torch.tensor([[0], [4]])
    with torch.no_grad():
        out = in_parts(layer, x, [slice(0, 7), slice(7, 8), slice(8, 12)], key_padding_mask=left[:, :7])
        assert relative_error(out, layer(x, left)) < 1e-13
        assert relative_error(out[1, 4:], layer(x[1, 4:])) < 1e-13


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_flow_through_what_is_kept(name: str) -> None:
    layer, x = causal_layer(name), drawn(2, 12, WIDTH, requires_grad=True)
    leaves = [x, *layer.parameters()]
    parts = in_parts(layer, x, [slice(0, 5), slice(5, 6), slice(6, 9), slice(9, 12)])
    got, wanted = (torch.autograd.grad(out.sin().sum(), leaves) for out in (parts, layer(x)))
    for one, other in zip(got, wanted, strict=True):
        assert relative_error(one, other) < 1e-12


@pytest.mark.parametrize("name", ["linear", "standard"])
def test_steps_under_autocast_stay_close_to_float32(name: str) -> None:
    layer, x = causal_layer(name, dtype=torch.float32), drawn(2, 12, WIDTH).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = in_parts(layer, x, split(12, 0))
    assert narrow.dtype is torch.bfloat16
    # Five roundings of half an eps in a row, eps = 2^-7: see the same of the whole sequence.
    assert relative_error(narrow, layer(x)) < 2.5 * 2**-7


@pytest.mark.parametrize("feature_map", ["relu", torch.exp, torch.nn.Linear(8, 5, dtype=torch.float64)])
def test_a_state_is_that_of_the_layer_and_of_its_feature_map(
    feature_map: str | Callable[[Tensor], Tensor],
) -> None:
    layer = SelfAttention(
        WIDTH, HEADS, kernel="linear-explicit", causal=True, dtype=torch.float64, feature_map=feature_map
    )
    x = drawn(2, 9, WIDTH)
    with torch.no_grad():
        assert relative_error(in_parts(layer, x, [slice(0, 4), slice(4, 9)]), layer(x)) < 1e-12
    assert any("feature_map" in key for key in layer.state_dict()) == isinstance(feature_map, torch.nn.Module)


# --- what is kept, and where -------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("num_kv_heads", [1, 4])
@pytest.mark.parametrize("name", ["linear-explicit", "standard-explicit"])
def test_a_cache_takes_the_bytes_of_the_closed_form(
    name: str, num_kv_heads: int, precision: torch.dtype
) -> None:
    layer = causal_layer(name, num_kv_heads, precision)
    _, cache = layer.prefill(torch.randn(3, 23, WIDTH).to(precision))
    case = Case(
        name, "causal", 23, batch=3, heads=HEADS, kv_heads=num_kv_heads, head_dim=8,
        dtype=str(precision).removeprefix("torch."),
    )  # fmt: skip
    assert isinstance(cache, State) == name.startswith("linear")
    assert cache.bytes == cache_bytes(case, state=isinstance(cache, State))


@torch.no_grad()
def test_a_state_is_overwritten_by_a_step_and_its_clone_is_not() -> None:
    layer, x = causal_layer("linear"), drawn(2, 6, WIDTH)
    _, state = layer.prefill(x[:, :4])
    assert isinstance(state, State)
    kept, place = state.clone(), state.S.data_ptr()
    first, state = layer.step(x[:, 4:5], state)
    assert isinstance(state, State) and state.S.data_ptr() == place
    again, _ = layer.step(x[:, 4:5], kept)
    assert torch.equal(first, again)


@torch.no_grad()
def test_a_cache_of_keys_doubles_where_it_is_full_and_is_written_in_place_where_it_is_not() -> None:
    cache, rows = KVCache(2, 3, 4, 5, dtype=torch.float64), drawn(2, 3, 40, 9)
    k, v = torch.split(rows, [4, 5], -1)
    rooms, places = [], set()
    for i in range(40):
        cache.append(k[:, :, i : i + 1], v[:, :, i : i + 1])
        rooms.append(cache.bytes // (8 * 2 * 3 * 9))
        places.add(cache.keys.data_ptr())
    assert rooms == [1, 2, *[4] * 2, *[8] * 4, *[16] * 8, *[32] * 16, *[64] * 8]
    assert len(places) <= len(set(rooms)) and cache.length == 40
    assert torch.equal(cache.keys, k) and torch.equal(cache.values, v) and cache.key_padding_mask is None


@torch.no_grad()
def test_a_cache_of_known_length_takes_its_memory_once_and_refuses_more_tokens() -> None:
    layer, x = causal_layer("standard-explicit", HEADS), drawn(2, 6, WIDTH)
    _, cache = layer.prefill(x[:, :4], max_len=5)
    assert isinstance(cache, KVCache)
    place, held = cache.keys.data_ptr(), cache.bytes
    assert held == 2 * 8 * 2 * 5 * WIDTH
    other = cache.clone()
    _, cache = layer.step(x[:, 4:5], cache)
    assert isinstance(cache, KVCache)
    assert (cache.keys.data_ptr(), cache.bytes, cache.length, other.length) == (place, held, 5, 4)
    kept = cache.keys.clone()
    layer.step(x[:, :1], other)
    assert torch.equal(cache.keys, kept)
    with pytest.raises(ValueError, match=re.escape("the cache holds max_len = 5 tokens; 6 are too many")):
        layer.step(x[:, 5:], cache)


@pytest.mark.parametrize("name", ["linear", "standard"])
def test_what_was_kept_without_or_with_gradients_is_continued_with_or_without(name: str) -> None:
    layer, x = causal_layer(name), drawn(2, 6, WIDTH)
    whole = layer(x)
    with torch.inference_mode():
        _, cache = layer.prefill(x[:, :4])
    with torch.no_grad():  # where a tensor of inference mode may not be written to
        y, _ = layer.step(x[:, 4:], cache)
    assert relative_error(y, whole[:, 4:]) < 1e-12
    y, cache = layer.prefill(x[:, :4])
    before = y.sum()
    with torch.no_grad():
        z, _ = layer.step(x[:, 4:], cache)
    before.backward()  # type: ignore[no-untyped-call] # nothing that it reads was overwritten
    assert relative_error(z, whole[:, 4:]) < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("name", ["linear", pytest.param("standard", marks=pytest.mark.slow)])
def test_a_step_compiles_to_one_graph(name: str) -> None:
    layer, x = causal_layer(name), drawn(2, 6, WIDTH)
    compiled = torch.compile(layer.step, backend="eager", fullgraph=True)
    _, cache = layer.prefill(x[:, :4])
    y, _ = compiled(x[:, 4:], cache)
    assert relative_error(y, layer(x)[:, 4:]) < 1e-13


# --- refusals ----------------------------------------------------------------------------------------


def test_what_cannot_go_on_token_by_token_is_refused_in_a_sentence() -> None:
    x = torch.randn(2, 3, WIDTH)
    linear, standard = (causal_layer(name, HEADS, torch.float32) for name in ("linear-explicit", "standard"))
    (_, state), (_, cache) = linear.prefill(x), standard.prefill(x)
    both_ways = SelfAttention(WIDTH, HEADS, kernel="linear")
    window = SelfAttention(WIDTH, HEADS, kernel="window-sdpa", causal=True)
    words = (
        "a bidirectional layer cannot go on token by token, as each token sees all; build it with causal=True"
    )
    not_state, not_cache = "got an object of type State", "got an object of type KVCache"
    refused: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ValueError, words, lambda: both_ways.step(x, state)),
        (ValueError, words, lambda: both_ways.prefill(x)),
        (ValueError, "window-sdpa keeps no context; 'standard' and 'linear' do", lambda: window.prefill(x)),
        (TypeError, f"continues a KVCache, as of prefill(); {not_state}", lambda: standard.step(x, state)),
        (TypeError, f"continues a State, as of prefill(); {not_cache}", lambda: linear.step(x, cache)),
        (ValueError, "takes a tensor [batch, seq_len, 32]; got [3, 32]", lambda: linear.step(x[0], state)),
        (ValueError, "the cache keeps keys [2, 4, T, 8] in", lambda: standard.step(x[:1], cache)),
        (ValueError, "initial_state must be S [B, Hkv, D, Dv] = [1, 4,", lambda: linear.step(x[:1], state)),
        (TypeError, "max_len must be an integer, the most", lambda: standard.prefill(x, max_len=2.5)),  # type: ignore[arg-type]
        (ValueError, "max_len must be at least 1 token, got 0", lambda: standard.prefill(x, max_len=0)),
    ]
    for error, sentence, call in refused:
        with pytest.raises(error, match=re.escape(sentence)) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_cache_refuses_keys_and_values_that_do_not_fit_together() -> None:
    cache, k = KVCache(2, 3, 4), torch.ones(2, 3, 1, 4)
    with pytest.raises(ValueError, match=re.escape("the cache keeps values [2, 3, T, 4] in torch.float32")):
        cache.append(k, torch.ones(2, 3, 2, 4))
    with pytest.raises(ValueError, match=re.escape("got [2, 3, 1, 4] in torch.float64 on cpu")):
        cache.append(k, k.double())
    with pytest.raises(
        ValueError, match=re.escape("key_padding_mask must be [B, Nk] = [2, 1] on cpu; got [2, 2]")
    ):
        cache.append(k, k, torch.ones(2, 2, dtype=torch.bool))
    assert cache.length == cache.bytes == 0
