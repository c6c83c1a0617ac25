"""The fields of a record, and that each is of its kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from benchmarks.analysis.reading.texts import printable, shown

SCHEMA = 1
"""The newest record schema that is understood."""

TEXTS = ("key", "kernel", "family", "mode", "phase", "device", "device_name", "dtype", "clock")
INTEGERS = ("batch", "heads", "seq_len", "head_dim", "repetition")
AMOUNTS = ("flops", "macs", "min_bytes", "peak_bytes", "peak_rss_bytes")
OPTIONAL_TEXTS = (
    "precision", "state_changed", "reference", "nearest", "flops_unknown", "energy_unknown", "backend",
    "parallelism",
)  # fmt: skip
OPTIONAL_INTEGERS = ("value_dim", "embed_dim", "kv_heads", "query_len", "ranks")
OPTIONAL_AMOUNTS = (
    "counted_flops", "countable_flops", "predicted_peak_bytes", "reference_error", "cache_bytes",
    "energy_j", "energy_error_j", "energy_call_s", "exchanged_bytes", "predicted_exchanged_bytes",
)  # fmt: skip
DIFFERENCES = ("exposed_s",)
"""Numbers that noise may take below 0."""
SENTENCES = ("state_changed", "nearest", "flops_unknown", "energy_unknown")
"""Texts of any length."""
FUNCTIONS = {"standard": "softmax attention", "linear": "linear attention with elu + 1"}
"""What kernels of these families compute, to which those of older records were held as well."""
DECLARED = "none"
"""The reference of a kernel whose author says that its function has no oracle."""
ALWAYS = ("key", "kernel", "family", "device", "clock", "repetition")
"""The required fields that records of no family may leave null: by them rows are told apart."""
SUBJECTS = ("operator", "layer", "ceiling")
"""Subjects of a measurement: attention alone, a self-attention layer around it, a ceiling of the device."""
LEFT_OUT = (
    "kernel", "mode", "phase", "device", "dtype", "batch", "heads", "seq_len", "head_dim",
    "outcome", "reason",
)  # fmt: skip
MADE_HERE = (
    "seconds", "median_s", "rounds", "file", "run", "machine", "unit", "unit_kind", "case", "asked",
    "outcome", "reason", "energy_per_token_j",
)  # fmt: skip
"""Columns that the analysis adds to the fields of a record, which therefore may have none of these names."""
FAMILIES = ("standard", "linear")
CEILING = "ceiling"
"""The family of what is no attention: it is compared with none."""
BASELINES = ("standard-*",)
"""Patterns of the kernels that others are compared with, unless a run says so itself."""
OUTCOMES = ("unsupported", "over_memory", "over_time", "oom", "failed")
LOST = ("oom", "failed", "unsupported")
"""Outcomes that are the case's own fault; what is predicted not to fit depends on what else is running."""
UNSPLIT_BYTES = 2**20
"""By how much `peak_bytes` may differ on CUDA without any reason in the code.

A block of its caching allocator may hold, and count, so much beyond what was asked for: a cached one is not
split where less would be left (`should_split` in CUDACachingAllocator), so the peak depends on what ran
before. Lower peaks come from the pool of small blocks, which are split.
"""

SHORTEST_S, LONGEST_S = 1e-15, 1e9
"""Between these seconds lies every time that a clock can give."""
MOST_SIZE, MOST_AMOUNT, MOST_LETTERS = 2**40, 1e30, 200
"""The largest size and amount, and the longest name, with which anything can be concluded."""
LONG_ROUND_S = 0.3
"""Seconds of a call above which one round is enough: it spans many short stalls by itself."""
HOW_TO_MEASURE = "measure one with `pytest benchmarks --benchmark-json=out.json`"


class InputError(Exception):
    """The input cannot be used; the text is one sentence: what was asked, what was found, what to do.

    Attributes:
        found: The sentence without what to do, where the two are given apart.
    """

    def __init__(self, found: str, to_do: str | None = None) -> None:
        found = printable(found)
        super().__init__(found if to_do is None else f"{found}; {printable(to_do)}")
        self.found = found


def require(info: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    """Refuse a record that lacks a field."""
    missing = next((field for field in fields if field not in info), None)
    if missing:
        raise InputError(f"{where} has no field {missing!r}, so it is no record of this suite")


def checked(info: Mapping[str, Any], where: str, required: Sequence[str]) -> dict[str, Any]:
    """The record with its defaults, its known fields checked, without those that the analysis makes itself.

    Only families other than attention's may leave some of the required fields null, those of `ALWAYS` none.
    """
    record = {name: value for name, value in info.items() if name not in MADE_HERE}
    defaults = {
        "subject": SUBJECTS[0],
        "family": str(info["kernel"]).partition("-")[0],
        "value_dim": info.get("head_dim"),
        "kv_heads": info.get("heads"),
        "precision": info.get("dtype"),
    }
    record |= {name: value for name, value in defaults.items() if info.get(name) is None}
    # As many queries as keys is no number of their own, by which lengths would be of different series.
    own = record.get("phase") == "decode" or record.get("query_len") != record.get("seq_len")
    record["query_len"] = record.get("query_len") if own else None
    record.setdefault("ranks", None)
    # Null says that its function is not known, and nothing that it is an older record.
    record.setdefault(
        "reference", next((f for name, f in FUNCTIONS.items() if name == record["family"]), None)
    )
    optional = record["family"] not in FAMILIES
    for field in (
        "subject",
        *TEXTS,
        *OPTIONAL_TEXTS,
        *INTEGERS,
        *OPTIONAL_INTEGERS,
        *AMOUNTS,
        *OPTIONAL_AMOUNTS,
        *DIFFERENCES,
    ):
        value = record.get(field)
        if value is None and (field not in required or (optional and field not in ALWAYS)):
            continue
        wanted = _wanted(field, value)
        if wanted:
            raise InputError(f"{where} has {field} = {shown(value)}, but {wanted} is needed")
    return record


def _wanted(field: str, value: Any) -> str | None:
    """What a field needs instead of this value; None if that is fine."""
    if field == "subject":
        fine, wanted = value in SUBJECTS, f"one of {', '.join(SUBJECTS)}"
    elif field in SENTENCES:
        fine, wanted = isinstance(value, str), "text"
    elif field in TEXTS or field in OPTIONAL_TEXTS:
        least = 0 if field == "device_name" else 1
        fine = isinstance(value, str) and least <= len(value) <= MOST_LETTERS
        wanted = f"text of {least} to {MOST_LETTERS} characters"
    elif field in INTEGERS or field in OPTIONAL_INTEGERS:
        least = 0 if field == "repetition" else 1
        fine, wanted = is_integer(value) and least <= value <= MOST_SIZE, f"an integer from {least} to 2^40"
    elif field in DIFFERENCES:
        fine, wanted = is_number(value) and abs(value) <= LONGEST_S, f"a number up to {LONGEST_S:g}, or null,"
    else:
        fine = is_number(value) and 0 <= value <= MOST_AMOUNT
        wanted = f"a number from 0 to {MOST_AMOUNT:g}, or null,"
    return None if fine else wanted


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether JSON calls it an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether JSON calls it a number, and it is finite as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
