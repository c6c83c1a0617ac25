"""Which cases a run holds, and in which order."""

from __future__ import annotations

import random
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from attention import Case, get_kernel, list_kernels
from attention.case import DTYPES, INFERENCE, MODES
from attention.choosing import choose
from attention.kernels import BUILT_IN
from attention.kernels.registry import FAMILIES, backends
from benchmarks.selection import (
    DECODE_CONTEXT,
    HEAD_DIM,
    HEADS,
    Preset,
    Selection,
    Shape,
    doublings,
    dtypes_of,
    forms_of,
    matching,
    refuse_misfits,
)
from benchmarks.subjects import ceiling_cases


def foreign_kernels() -> list[str]:
    """The kernels that do not come with this project: a user's own."""
    return [name for name in list_kernels() if name not in BUILT_IN]


def select_kernels(patterns: Sequence[str], option: str = "--kernel") -> list[str]:
    """The registered kernels that match any of the shell patterns.

    Raises:
        ValueError: a pattern that matches none; the message lists the names.
    """
    return matching(patterns, list_kernels(), option)


def build_cases(selection: Selection) -> list[Case]:
    """All cases of a selection, lengths ascending within a series.

    Raises:
        ValueError: options that leave a phase without a case, or fit none of the phases.
    """
    refuse_misfits(selection)
    cases = []
    for device in selection.devices:
        for kernel in _kernels(selection, device):
            for dtype in dtypes_of(selection, device):
                for phase in selection.phases or selection.preset.phases:
                    for shape, queries, mode in forms_of(selection, device, phase):
                        batch, heads, head_dim, kv_heads = shape
                        series = Case(
                            kernel, mode, 0, phase, device, dtype, batch, heads, head_dim,
                            kv_heads=kv_heads, query_len=queries,
                        )  # fmt: skip
                        lengths = selection.seq_lens or _seq_lens(selection.preset, series)
                        cases += [_of_length(series, n) for n in sorted(set(lengths))]
    return list(dict.fromkeys(cases))


def _of_length(series: Case, seq_len: int) -> Case:
    """A case of the series; with as many queries as keys it is a plain one."""
    plain = series.query_len == seq_len and series.phase != "decode"
    return replace(series, seq_len=seq_len, query_len=None if plain else series.query_len)


def _kernels(selection: Selection, device: str) -> list[str]:
    """Kernels asked for by name, whatever they refuse; of a preset's, the ones that serve the device.

    A user's own come first, and are measured in any case.
    """
    if selection.kernels:
        others = select_kernels(selection.kernels)
    else:
        preset = selection.preset
        patterns = preset.kernels + (preset.kernels_on_cuda if device == "cuda" else ())
        others = [name for name in select_kernels(patterns) if serves(name, device)]
        others = [name for name in others if name not in BUILT_IN or _plain(name)]
    return list(dict.fromkeys([*selection.own, *others]))


def _plain(kernel: str) -> bool:
    """Whether a kernel computes the function of its family from q, k and v alone."""
    return get_kernel(kernel).backend in backends(get_kernel(kernel).family)


def serves(kernel: str, device: str) -> bool:
    """Whether a kernel serves the plainest case of a device in any mode and dtype."""
    cases = (Case(kernel, mode, 64, device=device, dtype=dtype) for mode in MODES for dtype in DTYPES)
    return any(get_kernel(kernel).supports(case) is None for case in cases)


def build_layer_cases(selection: Selection) -> list[Case]:
    """The profiling experiment: a whole self-attention layer at four decades of lengths, bidirectional.

    A layer has as many heads of keys as of queries, and as many queries as keys; it is measured in no phase
    of inference.

    Its kernels are those of the preset, else what "standard" and "linear" stand for on the device; the
    explicit forms, which at N = 10000 take seconds a call and gigabytes, are measured with --kernel.
    """
    preset = selection.preset
    phases = [one for one in selection.phases or preset.phases if one not in INFERENCE]
    shapes = selection.shapes and [shape for shape in selection.shapes if not shape.kv_heads]
    if not preset.layer_seq_lens or not phases or shapes == [] or selection.query_lens:
        return []
    if shapes is None and preset.layer_batch:
        shapes = [Shape(preset.layer_batch, HEADS, HEAD_DIM)]
    layers = replace(
        selection,
        phases=phases,
        shapes=shapes,
        tokens=None,
        modes=selection.modes or ("bidirectional",),
        seq_lens=selection.seq_lens or preset.layer_seq_lens,
    )
    cases = []
    for device in selection.devices:
        plain = (Case(f"{family}-auto", "bidirectional", 0, device=device) for family in FAMILIES)
        kernels = selection.kernels or preset.layer_kernels or [choose(case).name for case in plain]
        cases += build_cases(replace(layers, devices=[device], kernels=kernels))
    return [replace(case, subject="layer") for case in cases]


def build_ceilings(selection: Selection) -> list[Case]:
    """The ceilings of every device and dtype that the selection measures.

    And on a CPU of float32, in which a kernel may multiply narrower inputs faster.
    """
    cases = []
    for device in selection.devices:
        dtypes = list(dtypes_of(selection, device))
        if device == "cpu" and not {"bfloat16", "float16"}.isdisjoint(dtypes):
            dtypes.append("float32")
        cases += [case for dtype in dict.fromkeys(dtypes) for case in ceiling_cases(device, dtype)]
    return cases


def _seq_lens(preset: Preset, series: Case) -> tuple[int, ...]:
    """Longer lengths on cards that hold them, and for the linear kernels as far as memory goes."""
    if series.phase == "decode" and preset.grows_on_cuda:
        return doublings(preset.seq_lens[0], DECODE_CONTEXT[series.device])
    if series.device == "cuda" and preset.seq_lens_on_cuda:
        return preset.seq_lens_on_cuda
    if series.device != "cuda" or not preset.grows_on_cuda:
        return preset.seq_lens
    card = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    last = 32768 if card > 40e9 else 16384 if card > 20e9 else preset.seq_lens[-1]
    return doublings(preset.seq_lens[0], 131072 if series.family == "linear" else last)


def series_of(case: Case) -> Case:
    """The series of a case, as a case of length 0."""
    return replace(case, seq_len=0)


def seed_of(given: int | None) -> int:
    """The seed of an order: a new one unless it was given."""
    return secrets.randbelow(2**31) if given is None else given


def schedule(
    cases: Sequence[Case],
    repetitions: int,
    seed: int,
    *,
    known: bool = False,
    series: Callable[[Any], Case] = series_of,
) -> list[tuple[Case, int]]:
    """The whole grid once a repetition, shuffled, so that drift spreads over all cases.

    In the first repetition every series still ascends, because what a long case will take is
    predicted from the shorter ones; the series are interleaved at random. Where an earlier run has
    made the times known, it is shuffled as well: a machine that warms up would bend the growth of
    every series alike. ``series`` is what cases have in common of which one predicts another.
    """
    rng = random.Random(seed)
    if known:
        return [(case, number + 1) for number in range(repetitions) for case in rng.sample(cases, len(cases))]
    waiting: dict[Case, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda c: -c.seq_len):
        waiting[series(case)].append(case)
    turns = [series(case) for case in cases]
    rng.shuffle(turns)
    order = [(waiting[turn].pop(), 1) for turn in turns]
    for repetition in range(2, repetitions + 1):
        again = list(cases)
        rng.shuffle(again)
        order += [(case, repetition) for case in again]
    return order
