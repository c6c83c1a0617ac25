"""What the kernels of other packages have in common: how they are found, imported and given their layout."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from types import ModuleType

from torch import Tensor


def version(package: str) -> str | None:
    """The version of an installed package; its module tells nothing, as packages share modules' names."""
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None


def quietly(module: str) -> ModuleType:
    """Import a module; what it warns about meanwhile is no finding of a measurement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(module)


def empty_result(q: Tensor, k: Tensor, v: Tensor, *others: Tensor) -> Tensor:
    """The result for inputs without tokens or sequences, which kernels are not launched for."""
    out = q @ (k.mT @ v)
    # Whoever takes gradients takes those of all inputs.
    return out + sum(x.sum() for x in others) * 0 if others else out
