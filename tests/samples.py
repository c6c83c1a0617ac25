"""Matrices of parameters of which a sample is quick and the rest is marked slow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

import pytest


def sampled(*choices: Iterable[Any], quick: Collection[tuple[Any, ...]]) -> list[Any]:
    """Every combination of the choices, slow unless it is among the quick ones."""
    every = list(product(*choices))
    unknown = [one for one in quick if one not in every]
    assert not unknown, f"no combinations of the choices: {unknown}"
    return [pytest.param(*one, marks=() if one in quick else pytest.mark.slow) for one in every]
