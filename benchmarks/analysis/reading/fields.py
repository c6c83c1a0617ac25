"""The fields of a record, and that each is of its kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

SCHEMA = 1
"""The newest record schema that is understood."""

TEXTS = ("key", "kernel", "family", "mode", "phase", "device", "device_name", "dtype", "clock")
INTEGERS = ("batch", "heads", "seq_len", "head_dim", "repetition")
AMOUNTS = ("flops", "macs", "min_bytes", "peak_bytes", "peak_rss_bytes")
OPTIONAL_TEXTS = ("precision", "state_changed")
OPTIONAL_INTEGERS = ("value_dim", "embed_dim")
OPTIONAL_AMOUNTS = ("counted_flops", "predicted_peak_bytes")
SUBJECTS = ("operator", "layer", "ceiling")
"""Subjects of a measurement: attention alone, a self-attention layer around it, a ceiling of the device."""
LEFT_OUT = (
    "kernel", "mode", "phase", "device", "dtype", "batch", "heads", "seq_len", "head_dim",
    "outcome", "reason",
)  # fmt: skip
FAMILIES = ("standard", "linear")
OUTCOMES = ("unsupported", "over_memory", "over_time", "oom", "failed")
LOST = ("oom", "failed", "unsupported")
"""Outcomes that are the case's own fault; what is predicted not to fit depends on what else is running."""
UNSPLIT_BYTES = 2**20
"""By how much `peak_bytes` may differ on CUDA without any reason in the code.

A block of its caching allocator may hold, and count, so much beyond what was asked for: a cached one is not
split where less would be left (`should_split` in CUDACachingAllocator), so the peak depends on what ran
before. Lower peaks come from the pool of small blocks, which are split.
"""

LONG_ROUND_S = 0.3
"""Seconds of a call above which one round is enough: it spans many short stalls by itself."""
HOW_TO_MEASURE = "measure one with `pytest benchmarks --benchmark-json=out.json`"


class InputError(Exception):
    """The input cannot be used; the text is one sentence: what was asked, what was found, what to do.

    Attributes:
        found: The sentence without what to do, where the two are given apart.
    """

    def __init__(self, found: str, to_do: str | None = None) -> None:
        super().__init__(found if to_do is None else f"{found}; {to_do}")
        self.found = found


def require(info: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    """Refuse a record that lacks a field."""
    missing = next((field for field in fields if field not in info), None)
    if missing:
        raise InputError(
            f"{where} has no field {missing!r}, so it is no record of this suite", HOW_TO_MEASURE
        )


def checked(info: Mapping[str, Any], where: str, required: Sequence[str]) -> dict[str, Any]:
    """The record with its defaults, its known fields checked.

    Only families other than attention's may leave some of the required fields null.
    """
    record = {
        **info,
        "subject": info.get("subject") or SUBJECTS[0],
        "family": info.get("family") or str(info["kernel"]).partition("-")[0],
        "value_dim": info.get("value_dim") or info.get("head_dim"),
        "precision": info.get("precision") or info.get("dtype"),
    }
    optional = record["family"] not in FAMILIES
    for field in (
        "subject",
        *TEXTS,
        *OPTIONAL_TEXTS,
        *INTEGERS,
        *OPTIONAL_INTEGERS,
        *AMOUNTS,
        *OPTIONAL_AMOUNTS,
    ):
        value = record.get(field)
        if value is None and (field not in required or optional):
            continue
        if field == "subject":
            fine, wanted = value in SUBJECTS, f"one of {', '.join(SUBJECTS)}"
        elif field in TEXTS or field in OPTIONAL_TEXTS:
            fine, wanted = isinstance(value, str), "text"
        elif field in INTEGERS or field in OPTIONAL_INTEGERS:
            least = 0 if field == "repetition" else 1
            fine, wanted = is_integer(value) and value >= least, f"an integer of at least {least}"
        else:
            fine, wanted = is_number(value) and value >= 0, "a number of at least 0, or null"
        if not fine:
            raise InputError(f"{where} has {field} = {value!r}, but {wanted} is needed", HOW_TO_MEASURE)
    return record


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether JSON calls it an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether JSON calls it a number, and it is finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
