"""What a session may choose: the presets of its grid, the options over them, and the forms of its cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import NamedTuple

from attention.case import MODES, PHASES

DEFAULT_DTYPE = {"cpu": "float32", "cuda": "bfloat16"}
DEFAULT_BATCH = {"cpu": 1, "cuda": 4}
HEADS, HEAD_DIM = 8, 64
DECODE_BATCHES = (1, 8, 64)
"""Batches of a decode without a shape: a single user's, a few, and as many as a server has."""
DECODE_CONTEXT = {"cpu": 32768, "cuda": 131072}
"""The longest context of a decode; what does not fit into memory is left out with its reason."""


class Shape(NamedTuple):
    """The sizes of a case but its lengths: as many heads of keys as of queries where ``kv_heads`` is 0."""

    batch: int
    heads: int
    head_dim: int
    kv_heads: int = 0


def doublings(first: int, last: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ... up to last."""
    lengths = [first]
    while 2 * lengths[-1] <= last:
        lengths.append(2 * lengths[-1])
    return tuple(lengths)


def matching(patterns: Sequence[str], names: Sequence[str], option: str = "--kernel") -> list[str]:
    """The names of kernels that match any of the shell patterns, in the order of the names.

    Raises:
        ValueError: a pattern that matches none; the message lists the names.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{option} {pattern!r} matches no kernel; there are {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Preset:
    """The cases of a ``--grid``; every part can be overridden by its own option.

    Without ``dtype``, ``batch``, ``layer_batch`` or ``layer_kernels`` the device decides; without ``rounds``
    and ``warmup`` the time that a call takes.
    """

    seq_lens: tuple[int, ...]
    kernels: tuple[str, ...]
    layer_seq_lens: tuple[int, ...]
    phases: tuple[str, ...]
    repetitions: int
    case_seconds: float
    round_seconds: float
    grows_on_cuda: bool
    # torch picks one of its fused backends for standard-sdpa; cuDNN's is the fastest on recent
    # cards and is not always the one picked, so it stands beside it where there is a GPU.
    kernels_on_cuda: tuple[str, ...] = ("standard-sdpa-cudnn",)
    seq_lens_on_cuda: tuple[int, ...] = ()
    dtype: str | None = None
    batch: int | None = None
    layer_batch: int | None = None
    layer_kernels: tuple[str, ...] = ()
    rounds: int | None = None
    warmup: int | None = None


_UNPINNED = ("standard-explicit", "standard-sdpa", "linear-*")
_FASTEST = ("standard-sdpa", "linear-native", "linear-triton")
_DECADES = (10, 100, 1000, 10000)

PRESETS = {
    "smoke": Preset((64, 128, 256), _UNPINNED, (10, 100), ("forward",), 2, 0.02, 0.5, False),
    "default": Preset(doublings(256, 8192), _UNPINNED, _DECADES, ("forward",), 6, 0.3, 2.0, True),
    "try": Preset(doublings(256, 4096), _FASTEST, (), ("forward",), 3, 0.1, 1.0, True),
    "full": Preset(doublings(64, 16384), ("*",), _DECADES, PHASES, 5, 1.0, 20.0, True),
    # The two experiments that the field teaches with. Rounds are in three repetitions, because an interval
    # needs three, and a repetition of the shortest experiment needs three rounds.
    "seed": Preset(
        doublings(256, 8192),
        ("standard-explicit", "linear-explicit"),
        _DECADES,
        ("forward",),
        repetitions=3,
        case_seconds=0.3,
        round_seconds=5.0,
        grows_on_cuda=False,
        kernels_on_cuda=(),
        seq_lens_on_cuda=doublings(256, 32768),
        dtype="float32",
        batch=4,
        layer_batch=1,
        layer_kernels=("standard-explicit",),
        rounds=10,
        warmup=3,
    ),
}


@dataclass(frozen=True)
class Selection:
    """The options that choose cases; None stands for the preset's choice."""

    preset: Preset
    devices: Sequence[str]
    dtypes: Sequence[str] | None = None
    kernels: Sequence[str] | None = None
    modes: Sequence[str] | None = None
    phases: Sequence[str] | None = None
    seq_lens: Sequence[int] | None = None
    shapes: Sequence[Shape] | None = None
    own: Sequence[str] = ()
    query_lens: Sequence[int] | None = None
    tokens: Sequence[int] | None = None


def refuse_misfits(selection: Selection) -> None:
    """Refuse options that leave a phase without a case, or fit none of the phases.

    Raises:
        ValueError: such options.
    """
    phases = selection.phases or selection.preset.phases
    if "decode" in phases and selection.modes and "causal" not in selection.modes:
        raise ValueError("--phase decode is causal, as a new token sees those before it; leave --mode out")
    if selection.tokens and "decode" not in phases:
        raise ValueError("--tokens counts the new tokens of a decode; add --phase decode, or leave it out")
    if selection.query_lens and set(phases) == {"decode"}:
        raise ValueError("--phase decode has as many queries as new tokens; give --tokens, not --query-len")
    lengths, most = selection.seq_lens or selection.preset.seq_lens, max(selection.tokens or [1])
    if "decode" in phases and min(lengths) < most:
        raise ValueError(
            f"--tokens {most} counts among the keys of its context, of which there are but {min(lengths)}; "
            "give longer ones with --seq-len"
        )


def forms_of(selection: Selection, device: str, phase: str) -> Iterator[tuple[Shape, int | None, str]]:
    """The shapes of a phase, each with its numbers of queries and its modes."""
    shapes, queries, modes = selection.shapes, selection.query_lens, selection.modes
    if phase == "decode":
        shapes = shapes or [Shape(batch, HEADS, HEAD_DIM) for batch in DECODE_BATCHES]
        queries, modes = selection.tokens or (1,), ("causal",)
    elif phase == "prefill":
        modes = modes or ("causal",)
    batch = selection.preset.batch or DEFAULT_BATCH[device]
    return product(shapes or [Shape(batch, HEADS, HEAD_DIM)], queries or (None,), modes or MODES)


def dtypes_of(selection: Selection, device: str) -> Sequence[str]:
    """The dtypes on a device."""
    return selection.dtypes or (selection.preset.dtype or DEFAULT_DTYPE[device],)
