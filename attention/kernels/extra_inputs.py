"""Inputs of a kernel beside q, k and v: gates, decays, biases, masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from attention.case import Case

MakeInputs = Callable[[Case], Mapping[str, Any]]
"""From a case to its extra inputs, by the names of the function's arguments."""
LETTERS = {"B": "batch", "H": "heads", "N": "seq_len", "D": "head_dim", "Dv": "value_dim"}
"""Sizes of a case as they are written in shapes."""
LIKE = "like {'g': '[B, H, N]'}"


def from_shapes(kernel: str, shapes: Mapping[str, str]) -> MakeInputs:
    """Standard normal tensors of these shapes, in the dtype of the case and with gradients where it has them.

    Args:
        kernel: Its name, for messages.
        shapes: For each argument a list of the letters of `LETTERS` and of numbers: ``"[B, H, N]"``.

    Raises:
        TypeError: no mapping of names to text.
        ValueError: a shape with another letter.
    """
    if not isinstance(shapes, Mapping):
        raise TypeError(
            f"inputs of {kernel} must map arguments to shapes, {LIKE}, got {type(shapes).__name__}"
        )
    sizes = {name: _sizes(kernel, name, shape) for name, shape in shapes.items()}

    def make_inputs(case: Case) -> dict[str, Tensor]:
        generator = torch.Generator(case.device).manual_seed(3)
        return {
            name: torch.randn(
                [getattr(case, LETTERS[size]) if size in LETTERS else int(size) for size in shape],
                generator=generator,
                dtype=case.torch_dtype,
                device=case.device,
                requires_grad=case.backward,
            )
            for name, shape in sizes.items()
        }

    return make_inputs


def _sizes(kernel: str, name: object, shape: object) -> list[str]:
    if not isinstance(name, str) or not isinstance(shape, str):
        raise TypeError(
            f"inputs of {kernel} must map arguments to shapes, {LIKE}, got {name!r:.60}: {shape!r:.60}"
        )
    words = [word.strip() for word in shape.strip().removeprefix("[").removesuffix("]").split(",")]
    wrong = [word for word in words if word not in LETTERS and not (word.isdecimal() and int(word) > 0)]
    if wrong:
        raise ValueError(
            f"the shape {shape!r:.60} of {name} of {kernel} holds {wrong[0]!r:.20}; write it with "
            f"{', '.join(LETTERS)} and numbers, {LIKE}"
        )
    return words


def checked_inputs(kernel: str, make_inputs: MakeInputs) -> MakeInputs:
    """A maker of inputs that draws equal ones on every call, and refuses what is no mapping of names."""

    def make(case: Case) -> Mapping[str, Any]:
        with seeded(case.device):
            found = make_inputs(case)
        if isinstance(found, Mapping) and all(isinstance(name, str) for name in found):
            return found
        raise TypeError(
            f"make_inputs of {kernel} must return the inputs beside q, k and v by the names of their "
            f"arguments, like {{'g': gates}}, got {type(found).__name__}"
        )

    return make


@contextmanager
def seeded(device: str) -> Iterator[None]:
    """Random numbers from seed 0 on a device; the process's own go on afterwards where they were."""
    cards = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(cards):
        torch.default_generator.manual_seed(0)
        if cards:
            torch.cuda.manual_seed(0)
        yield


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors of a value, also of those in lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)
