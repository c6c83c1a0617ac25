"""The oracles, each written like its equation, in any dtype up to float64; and errors against them."""

from attention.kernels.references.decay import decay_reference
from attention.kernels.references.errors import (
    BY_PRECISION,
    TOLERANCES,
    Errors,
    differentiated_inputs,
    errors_against_reference,
    gradient_error,
    reference_of,
    relative_error,
    tolerances,
)
from attention.kernels.references.functions import REFERENCES
from attention.kernels.references.gated import (
    GATED_DELTA,
    GLA,
    KDA,
    gated_delta_reference,
    gla_reference,
    kda_reference,
)
from attention.kernels.references.linear import linear_reference
from attention.kernels.references.rows import (
    Head,
    Rows,
    key_gradient_rows,
    output_rows,
    query_gradient_rows,
    summed,
)
from attention.kernels.references.standard import standard_reference
from attention.kernels.references.window import window_reference

__all__ = [
    "BY_PRECISION",
    "GATED_DELTA",
    "GLA",
    "KDA",
    "REFERENCES",
    "TOLERANCES",
    "Errors",
    "Head",
    "Rows",
    "decay_reference",
    "differentiated_inputs",
    "errors_against_reference",
    "gated_delta_reference",
    "gla_reference",
    "gradient_error",
    "kda_reference",
    "key_gradient_rows",
    "linear_reference",
    "output_rows",
    "query_gradient_rows",
    "reference_of",
    "relative_error",
    "standard_reference",
    "summed",
    "tolerances",
    "window_reference",
]
