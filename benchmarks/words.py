"""What the words of an option say: sizes, amounts, shapes and names, for one process as for ranks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch

from benchmarks.selection import Shape

MOST = 1e6
"""The most seconds, rounds or repetitions that can be asked for."""
MOST_SIZE = 2**31 - 1
"""The longest sequence, and the largest batch, that can be asked for: no machine holds it."""


def words(text: str) -> list[str]:
    """The parts of a comma-separated option."""
    return [word.strip() for word in text.split(",") if word.strip()]


def present_devices() -> list[str]:
    """The devices this machine has, the CPU first."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def words_of(text: str, option: str, known: Sequence[str]) -> list[str]:
    """The words that a text holds, each of them known.

    Raises:
        pytest.UsageError: a word that is not known, or none.
    """
    picked = words(text)
    wrong = [word for word in picked if word not in known]
    if wrong or not picked:
        found = f"does not know {', '.join(map(repr, wrong))}" if wrong else "got nothing"
        raise pytest.UsageError(f"--{option} {found}; choose out of {', '.join(known)}")
    return list(dict.fromkeys(picked))


def refuse_absent(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        pytest.UsageError: it does not.
    """
    if device not in present_devices():
        raise pytest.UsageError(
            f"--device {device} was asked for, but torch {torch.__version__} finds no CUDA device here; "
            f"choose out of {', '.join(present_devices())}"
        )


def amount_of(value: float, option: str) -> float:
    """An amount that can be asked for.

    Raises:
        pytest.UsageError: It is not above 0, or above `MOST`.
    """
    if not 0 < value <= MOST:
        raise pytest.UsageError(f"--{option} must be above 0 and at most {MOST:.0e}, got {value}")
    return float(value)


def lengths_of(text: str, option: str, example: str = "256,512") -> list[int]:
    """The lengths that a text holds, ascending.

    Raises:
        pytest.UsageError: It holds something else.
    """
    if not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", text):
        raise pytest.UsageError(f"--{option} takes lengths above 0 with commas, like {example}; got {text!r}")
    return sorted(set(_sizes(f"--{option}", text.split(","))))


def _sizes(option: str, words: Sequence[str]) -> list[int]:
    long = [word for word in words if len(word.strip()) > 10 or int(word) > MOST_SIZE]
    if long:
        raise pytest.UsageError(f"{option} takes sizes up to {MOST_SIZE}, got {long[0].strip():.40}")
    return [int(word) for word in words]


def shapes_of(text: str) -> list[Shape]:
    """The shapes that a text holds.

    Raises:
        pytest.UsageError: It holds something else.
    """
    return list(dict.fromkeys(_shape(word.strip()) for word in text.split(",")))


def _shape(text: str) -> Shape:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?::([1-9]\d*))?x([1-9]\d*)", text)
    if not match:
        raise pytest.UsageError(
            "--shape takes batch x heads x head dimension, like 1x8x64, or with heads of keys and values "
            f"1x32:8x128; got {text!r}"
        )
    batch, heads, kv_heads, head_dim = _sizes("--shape", [word or match[2] for word in match.groups()])
    if heads % kv_heads:
        raise pytest.UsageError(
            f"--shape takes a multiple of the heads of keys and values as heads of queries; got {text!r}"
        )
    return Shape(batch, heads, head_dim, 0 if kv_heads == heads else kv_heads)
