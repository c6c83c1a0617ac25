"""The noise floor of a machine: how far apart measurements of the same code come out on it (A/A)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.machines import Machine

QUANTILE = 0.95


@dataclass(frozen=True)
class NoiseFloor:
    """What a comparison of some code with itself found.

    Attributes:
        share: By this share of the time, or less, 19 of 20 cases changed although nothing had.
        cases: How many cases were compared.
        pairs: From how many pairs of runs.
        date: When, as in "2026-01-31".
    """

    share: float
    cases: int
    pairs: int
    date: str


def share_of(ratios: Sequence[float]) -> float:
    """The share that 19 of 20 ratios stay within, in either direction; with fewer than 20, all of them."""
    changes = np.expm1(np.abs(np.log(ratios)))
    return float(np.quantile(changes, QUANTILE, method="higher"))


def floor_file(machine: Machine) -> Path:
    """Where the floor of a machine is stored: below XDG_CACHE_HOME, by default `~/.cache`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(machine.fingerprint.encode()).hexdigest()[:16]
    return cache / "attention-scaling" / f"noise-{name}.json"


def store_floor(machine: Machine, floor: NoiseFloor) -> Path:
    """Keep the floor of a machine in the place of an earlier one.

    Args:
        machine: Where it was measured.
        floor: What was found.

    Returns:
        The file that holds it.

    Raises:
        InputError: It cannot be written.
    """
    file = floor_file(machine)
    content = json.dumps({"machine": machine.fingerprint, **asdict(floor)}, indent=2) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        provisional = file.with_name(f".{file.name}")
        provisional.write_text(content)
        os.replace(provisional, file)
    except OSError as error:
        raise InputError(
            f"the noise floor cannot be stored in {file} ({error.strerror}); "
            "name another folder with XDG_CACHE_HOME"
        ) from None
    return file


def stored_floor(machine: Machine) -> NoiseFloor | None:
    """The floor of a machine, or None where it was never measured.

    Raises:
        InputError: The file that holds it is damaged.
    """
    file = floor_file(machine)
    try:
        content = json.loads(file.read_text())
        return NoiseFloor(
            float(content["share"]), int(content["cases"]), int(content["pairs"]), str(content["date"])
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(
            f"{file} holds no noise floor that can be read; remove it, or measure it again"
        ) from None
