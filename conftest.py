"""Options that tests and benchmarks share."""

from __future__ import annotations

import pytest
import torch

from attention.case import DTYPES


def words(text: str) -> list[str]:
    """The parts of a comma-separated option."""
    return [word.strip() for word in text.split(",") if word.strip()]


def present_devices() -> list[str]:
    """The devices this machine has, the CPU first."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("attention")
    group.addoption(
        "--device",
        metavar="DEVICES",
        help="cpu, cuda, or both with a comma. Benchmarks: every one present unless given; tests: cpu.",
    )
    group.addoption(
        "--dtype",
        metavar="DTYPES",
        help=f"Out of {', '.join(DTYPES)}, several with commas. "
        "Benchmarks: float32 on the CPU and bfloat16 on CUDA unless given; tests: all.",
    )


def chosen(config: pytest.Config, option: str, known: list[str]) -> list[str] | None:
    """The words given to an option, each of them known; None where it was not given.

    Raises:
        pytest.UsageError: a word that is not known.
    """
    text = config.getoption(option)
    if text is None:
        return None
    picked = words(text)
    wrong = [word for word in picked if word not in known]
    if wrong or not picked:
        found = f"does not know {', '.join(map(repr, wrong))}" if wrong else "got nothing"
        raise pytest.UsageError(f"--{option.replace('_', '-')} {found}; choose out of {', '.join(known)}")
    return list(dict.fromkeys(picked))


def chosen_devices(config: pytest.Config) -> list[str] | None:
    """The devices asked for.

    Raises:
        pytest.UsageError: an unknown device, or one that this machine does not have.
    """
    devices = chosen(config, "device", ["cpu", "cuda"])
    for device in devices or []:
        if device not in present_devices():
            raise pytest.UsageError(
                f"--device {device} was asked for, but torch {torch.__version__} finds no CUDA device here; "
                f"choose out of {', '.join(present_devices())}"
            )
    return devices
