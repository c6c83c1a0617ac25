"""window-flex alone: what it compiles, the tiles of its mask, and which cases it does not serve."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attention import Case, get_kernel, window_attention
from attention.kernels.references import gradient_error, relative_error
from attention.kernels.window import costs
from attention.kernels.window import flex as flex_room
from attention.kernels.window.flex import block_mask
from tests.windows import exact, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_window_flex_equals_the_oracle_at_many_lengths_and_windows_in_one_process(device: str) -> None:
    """More shapes than torch compiles of one function: no one is refused, and few are compiled."""
    for seq_len in (1, 100, 2, 127, 128, 129, 200, 255, 256, 257, 400, 600, 777):
        for window in (1, 100, 128, 129, 500):
            inputs = inputs_of(seq_len, "float32", device)
            out = window_attention(*inputs, window=window, backend="flex")
            assert relative_error(out, exact(inputs, window)[0]) < 1e-5, (seq_len, window)
    for batch, heads in ((1, 1), (1, 3), (3, 2), (4, 5)):
        inputs = inputs_of(200, "float32", device, batch=batch, heads=heads)
        out = window_attention(*inputs, window=9, backend="flex")
        assert relative_error(out, exact(inputs, 9)[0]) < 1e-5
    assert flex_room._compiled.cache_info().currsize < 12


@pytest.mark.parametrize(("narrow", "allowed"), [("bfloat16", 8e-3), ("float16", 1e-3)])
def test_window_flex_equals_the_oracle_in_narrow_dtypes_and_of_two_widths(
    narrow: str, allowed: float, device: str
) -> None:
    inputs = inputs_of(300, narrow, device, value_dim=24)
    out = window_attention(*inputs, window=70, backend="flex")
    assert out.dtype == inputs[0].dtype and relative_error(out, exact(inputs, 70)[0]) <= allowed


def test_window_flex_has_gradients_on_a_card(device: str) -> None:
    if device == "cpu":
        pytest.skip("torch has no backward of flex_attention on the CPU")
    inputs = inputs_of(500, "float32", device, "forward_backward")
    out = window_attention(*inputs, window=100, backend="flex")
    expected, gradients = exact(inputs, 100, torch.ones_like(out))
    assert relative_error(out, expected) < 1e-5
    assert gradient_error(torch.autograd.grad(out, inputs, torch.ones_like(out)), gradients) <= 5e-5


@pytest.mark.parametrize("window", [1, 2, 128, 129, 200, 256, 257, 2000])
def test_the_tiles_of_window_flex_are_those_of_the_whole_mask(window: int) -> None:
    for seq_len in (1, 128, 129, 500, 700):
        place = torch.arange(seq_len)
        shown = ((place[:, None] - place) >= 0) & ((place[:, None] - place) < window)
        mask = block_mask(seq_len, window, torch.device("cpu"))
        tiles = -(-seq_len // 128)
        padded = torch.zeros(128 * tiles, 128 * tiles, dtype=torch.bool)
        padded[:seq_len, :seq_len] = shown
        by_tile = padded.view(tiles, 128, tiles, 128).transpose(1, 2)
        any_shown, none_left_out = by_tile.any(-1).any(-1), torch.zeros(tiles, tiles, dtype=torch.bool)
        for numbers, columns in (
            (mask.kv_num_blocks, mask.kv_indices),
            (mask.full_kv_num_blocks, mask.full_kv_indices),
        ):
            assert numbers is not None and columns is not None
            for row in range(tiles):
                none_left_out[row, columns[0, 0, row, : int(numbers[0, 0, row])].long()] = True
        assert torch.equal(none_left_out, any_shown)
        sides = torch.tensor([min(128, seq_len - 128 * tile) for tile in range(tiles)])
        assert costs.tile_scores(seq_len, window) == int((any_shown * sides[:, None] * sides).sum())
        assert costs.window_scores(seq_len, window) == int(shown.sum())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mode": "bidirectional"}, "causal only"),
        ({"dtype": "float64"}, "not float64"),
        ({"phase": "forward_backward"}, "no backward on the CPU"),
        ({"device": "cuda", "head_dim": 8}, "widths of at least 16 on CUDA, got 8"),
        ({"device": "mps"}, "not on mps"),
    ],
)
def test_window_flex_says_why_it_does_not_serve_a_case(changed: dict[str, str], reason: str) -> None:
    case = Case("window-flex", "causal", 100)
    assert get_kernel("window-flex").supports(case) is None
    assert reason in str(get_kernel("window-flex").supports(replace(case, **changed)))  # type: ignore[arg-type]


def test_window_flex_refuses_to_compile_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    x = torch.ones(1, 1, 3, 4)
    with pytest.raises(ValueError, match="by no-such-compiler, which is not found: install it, or set CXX"):
        window_attention(x, x, x, backend="flex")
