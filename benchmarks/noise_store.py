"""The noise floor of each machine on which one was measured, kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.analysis.comparison.noise_floor import NoiseFloor
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.machines import Machine
from benchmarks.cache import cache_folder, replacing


def floor_file(machine: Machine) -> Path:
    """The file of a machine's noise floor.

    Raises:
        FileNotFoundError: There is no home to keep it in.
    """
    name = hashlib.sha256(machine.fingerprint.encode()).hexdigest()[:16]
    return cache_folder() / f"noise-{name}.json"


def store_floor(machine: Machine, floor: NoiseFloor) -> Path:
    """Keep the noise floor of a machine in the place of an earlier one.

    Args:
        machine: Where it was measured.
        floor: What was found.

    Returns:
        The file that holds it.

    Raises:
        InputError: It cannot be written.
    """
    content = json.dumps({"machine": machine.fingerprint, **asdict(floor)}, indent=2) + "\n"
    try:
        file = floor_file(machine)
    except FileNotFoundError as error:
        raise InputError(f"the noise floor cannot be stored: {error}") from None
    try:
        with replacing(file) as provisional:
            provisional.write_text(content)
    except OSError as error:
        raise InputError(
            f"the noise floor cannot be stored in {file} ({error.strerror}); "
            "name another folder with XDG_CACHE_HOME"
        ) from None
    return file


def stored_floor(machine: Machine) -> NoiseFloor | None:
    """The noise floor of a machine, or None where it was never measured.

    Raises:
        InputError: The file that holds it is damaged.
    """
    try:
        file = floor_file(machine)
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


def known_run_effect(machine: Machine) -> float | None:
    """The effect of a run by the noise floor of a machine: see `NoiseFloor.run_effect`; None without one.

    Raises:
        InputError: The file that holds the floor is damaged.
    """
    floor = stored_floor(machine)
    return floor.run_effect if floor else None
