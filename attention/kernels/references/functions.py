"""The functions of attention that have an oracle here, by the names under which kernels claim them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attention.kernels.references.linear import linear_reference
from attention.kernels.references.rows import key_gradient_rows, output_rows, query_gradient_rows
from attention.kernels.references.standard import standard_reference
from attention.kernels.registry import Reference


def _known(family: str, name: str, function: Callable[..., Tensor]) -> Reference:
    """One of the two functions whose single rows `rows` knows."""

    def of_family(rows: Callable[..., Any]) -> Callable[..., Any]:
        return lambda head, *rest: rows(head._replace(family=family), *rest)

    return Reference(
        name,
        function,
        output_rows=of_family(output_rows),
        query_gradient_rows=of_family(query_gradient_rows),
        key_gradient_rows=of_family(key_gradient_rows),
    )


REFERENCES = {
    "standard": _known("standard", "softmax attention", standard_reference),
    "linear": _known("linear", "linear attention with elu + 1", linear_reference),
}
