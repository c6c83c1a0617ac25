"""The functions of attention that have an oracle here, by the names under which kernels claim them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attention.inputs import WINDOW
from attention.kernels.references.decay import (
    decay_key_gradient_rows,
    decay_output_rows,
    decay_query_gradient_rows,
    decay_reference,
)
from attention.kernels.references.linear import linear_reference
from attention.kernels.references.rows import key_gradient_rows, output_rows, query_gradient_rows
from attention.kernels.references.standard import standard_reference
from attention.kernels.references.window import window_reference
from attention.kernels.registry import Reference


def _of_family(family: str, rows: Callable[..., Any], window: int | None = None) -> Callable[..., Any]:
    """Rows of heads whose kernels may have names of any family."""
    return lambda head, *rest: rows(head._replace(family=family, window=window), *rest)


def _known(family: str, name: str, function: Callable[..., Tensor], window: int | None = None) -> Reference:
    """One of the functions whose single rows `rows` knows."""
    return Reference(
        name,
        function,
        inputs=(),
        causal_only=window is not None,
        output_rows=_of_family(family, output_rows, window),
        query_gradient_rows=_of_family(family, query_gradient_rows, window),
        key_gradient_rows=_of_family(family, key_gradient_rows, window),
    )


REFERENCES = {
    "standard": _known("standard", "softmax attention", standard_reference),
    "linear": _known("linear", "linear attention with elu + 1", linear_reference),
    "window": _known("window", "sliding-window attention", window_reference, WINDOW),
    "decay": Reference(
        "linear attention with decay",
        decay_reference,
        inputs=("g",),
        causal_only=True,
        output_rows=_of_family("linear", decay_output_rows),
        query_gradient_rows=_of_family("linear", decay_query_gradient_rows),
        key_gradient_rows=_of_family("linear", decay_key_gradient_rows),
    ),
}
