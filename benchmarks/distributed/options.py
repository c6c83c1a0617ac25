"""The options of `python -m benchmarks distributed`, and what they choose."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from attention.case import DTYPES, MODES, PHASES
from attention.profiler import clock_name
from benchmarks.analysis.reading.fields import InputError
from benchmarks.distributed.cases import STRONG, WEAK, Selection
from benchmarks.distributed.session import Plan
from benchmarks.distributed.subjects import SUBJECTS
from benchmarks.selection import DEFAULT_DTYPE, matching
from benchmarks.words import amount_of, lengths_of, present_devices, refuse_absent, shapes_of, words_of

SEQ_LENS = {"cpu": "1024,2048,4096,8192", "cuda": "16384,32768,65536,131072,262144"}
SHAPES = {"cpu": "1x8x64", "cuda": "1x32:8x128"}


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that options ask for.

    Raises:
        InputError: Options that cannot be used.
    """
    try:
        return _plan_of(options)
    except (pytest.UsageError, ValueError) as error:  # of the options that pytest has as well
        raise InputError(str(error)) from None


def _plan_of(options: argparse.Namespace) -> Plan:
    device = options.device or present_devices()[-1]
    refuse_absent(device)
    dtypes = words_of(options.dtype or DEFAULT_DTYPE[device], "dtype", DTYPES)
    if len(dtypes) > 1:
        raise ValueError(f"--dtype takes one a session, got {options.dtype}; start a session for each")
    selection = Selection(
        device,
        dtypes[0],
        matching(options.kernel or [], list(SUBJECTS)),
        words_of(options.mode or ",".join(MODES), "mode", MODES),
        words_of(options.phase or ",".join(PHASES), "phase", PHASES),
        shapes_of(options.shape or SHAPES[device]),
        lengths_of(options.seq_len or SEQ_LENS[device], "seq-len"),
        words_of(options.parallelism, "parallelism", (STRONG, WEAK)),
    )
    return Plan(
        Path(options.output), selection, options.repetitions, options.shuffle_seed,
        clock_name(device, options.clock),
        amount_of(options.case_seconds, "case-seconds"), amount_of(options.round_seconds, "round-seconds"),
        amount_of(options.case_timeout, "case-timeout"), options.threads,
    )  # fmt: skip
