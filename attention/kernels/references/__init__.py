"""The oracles, each written like its equation, in any dtype up to float64; and errors against them."""

from attention.kernels.references.errors import (
    BY_PRECISION,
    REFERENCES,
    TOLERANCES,
    Errors,
    errors_against_reference,
    gradient_error,
    relative_error,
    tolerances,
)
from attention.kernels.references.linear import linear_reference
from attention.kernels.references.standard import standard_reference

__all__ = [
    "BY_PRECISION",
    "REFERENCES",
    "TOLERANCES",
    "Errors",
    "errors_against_reference",
    "gradient_error",
    "linear_reference",
    "relative_error",
    "standard_reference",
    "tolerances",
]
