"""The options of `python -m benchmarks distributed`, and what they choose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from attention.case import DTYPES, MODES, PHASES
from benchmarks.analysis.reading.fields import InputError
from benchmarks.distributed.cases import STRONG, WEAK, Selection, chosen_kernels
from benchmarks.distributed.session import Plan
from benchmarks.options import lengths_of, shapes_of, words
from benchmarks.selection import DEFAULT_DTYPE

SEQ_LENS = {"cpu": "1024,2048,4096,8192", "cuda": "16384,32768,65536,131072,262144"}
SHAPES = {"cpu": "1x8x64", "cuda": "1x32:8x128"}


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that options ask for.

    Raises:
        InputError: Options that cannot be used.
    """
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"--device cuda was asked for, but torch {torch.__version__} finds no CUDA device here"
        )
    dtype = options.dtype or DEFAULT_DTYPE[device]
    try:
        shapes = shapes_of(options.shape or SHAPES[device])
        seq_lens = lengths_of(options.seq_len or SEQ_LENS[device], "seq-len")
    except pytest.UsageError as error:  # whose options these are as well
        raise InputError(str(error)) from None
    selection = Selection(
        device,
        _known("dtype", dtype, DTYPES)[0],
        chosen_kernels(options.kernel or []),
        _known("mode", options.mode or ",".join(MODES), MODES),
        _known("phase", options.phase or ",".join(PHASES), PHASES),
        shapes,
        seq_lens,
        _known("parallelism", options.parallelism, (STRONG, WEAK)),
    )
    return Plan(
        Path(options.output), selection, options.repetitions, options.shuffle_seed, options.case_seconds,
        options.round_seconds, options.case_timeout, options.threads,
    )  # fmt: skip


def _known(option: str, text: str, known: Sequence[str]) -> list[str]:
    picked = words(text)
    if wrong := [word for word in picked if word not in known] or ([] if picked else [text]):
        raise InputError(f"--{option} does not know {wrong[0]!r}; choose out of {', '.join(known)}")
    return list(dict.fromkeys(picked))
