"""A sliding window through torch's ``scaled_dot_product_attention``, by blocks of queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attention.inputs import WINDOW
from attention.kernels.layouts import apart
from attention.kernels.registry import register_kernel
from attention.kernels.scales import with_positive_scale
from attention.kernels.tensors import checked
from attention.kernels.window.checks import causal_only, check_options
from attention.kernels.window.costs import block_size, sdpa_costs
from attention.torch_internals.transforms import in_forward_mode


@checked("window-sdpa")
def window_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int = WINDOW,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale QK') V over the last ``window`` keys of each query, in time and memory of N.

    Three calls of ``scaled_dot_product_attention`` at most: the first w queries see all keys before them;
    the others go in blocks of c queries, each of which sees a band of the c + w keys that end with its last;
    the rest is a shorter block. The blocks are views of the tokens, which they share.

    Shapes: q, k ``[B, H, N, D]``, v ``[B, H, N, Dv]`` -> ``[B, H, N, Dv]``. ``scale`` is 1/sqrt(D) unless
    given.

    Raises:
        TypeError: a window that is no integer.
        ValueError: shapes, dtypes or devices that do not fit together, ``causal=False``, or a window without
            keys.
    """
    check_options(causal, window)
    q, scale = with_positive_scale(q, q.shape[-1] ** -0.5 if scale is None else scale)
    q, k, v = apart(q, k, v)
    width = v.shape[-1]
    if q.device.type == "cpu" and q.shape[-1] != width:  # no fused kernel of a CPU has two widths
        q, k, v = (F.pad(x, (0, max(q.shape[-1], width) - x.shape[-1])) for x in (q, k, v))
    if in_forward_mode() and not torch.compiler.is_compiling():  # of torch's backends one carries tangents
        with sdpa_kernel([SDPBackend.MATH]):
            return _by_blocks(q, k, v, window, scale)[..., :width]
    return _by_blocks(q, k, v, window, scale)[..., :width]


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None) -> Tensor:
    (batch, heads, n, width), size = q.shape, block_size(window)
    first = min(n, window)
    blocks, rest = (n - first) // size, (n - first) % size  # torch's compiler has no divmod of symbols
    head, middle, tail = torch.split(q, [first, blocks * size, rest], dim=2)
    keys, values = k[:, :, :first], v[:, :, :first]
    outputs = [scaled_dot_product_attention(head, keys, values, is_causal=True, scale=scale)]
    if first == n:
        return outputs[0]
    # Query a of a block sees the keys a + 1 to a + w of the c + w.
    band = torch.ones(size, window + size, dtype=torch.bool, device=q.device).tril(window).triu(1)
    if blocks:
        queries = middle.reshape(batch * heads, blocks, size, width)
        keys, values = (x[:, :, : n - rest].unfold(2, window + size, size).mT.flatten(0, 1) for x in (k, v))
        out = scaled_dot_product_attention(queries, keys, values, attn_mask=band, scale=scale)
        outputs.append(out.reshape(batch, heads, blocks * size, v.shape[3]))
    if rest:
        keys, values = (x[:, :, n - rest - window :] for x in (k, v))
        shown = band[:rest, : window + rest]
        outputs.append(scaled_dot_product_attention(tail, keys, values, attn_mask=shown, scale=scale))
    return torch.cat(outputs, dim=2)


register_kernel("window-sdpa", window_sdpa, costs=sdpa_costs, supports=causal_only)
