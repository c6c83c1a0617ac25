"""The experiment of a self-attention layer: time, memory and FLOPs by length, beside their theory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Table

THEORY = (
    ("counted_flops", "flops", "counted / closed-form FLOPs"),
    ("peak_bytes", "predicted_peak_bytes", "measured / predicted peak memory"),
)
"""A measured quantity, its theory, and their ratio in words."""

ABOUT_ERRORS = (
    "s.e. and s.d. are the standard error and the standard deviation over all rounds. Rounds of one process "
    "are not independent, so s.e. is too small to compare by; what compares are the brackets of the other "
    "tables."
)
ABOUT_PROCESS = (
    "process: by how much the resident memory of the whole process (RSS) grew, in pages. Where it uses again "
    "what it held already, it grows by less than the tensors take."
)


def experiment(cases: pd.DataFrame, name: str) -> Iterator[Section]:
    """Two tables of the cases of one setting: mean time over rounds and FLOPs, and peak memory."""
    ordered = [case for _, case in cases.sort_values(["kernel", "seq_len"]).iterrows()]
    name += _width(cases)
    stacks = [(str(case["kernel"]), f"N={case['seq_len']}") for case in ordered]
    headers = ["", "mean time ± s.e.", "s.d.", "rounds", "FLOPs theory", "counted", "ratio"]
    times = Table(headers, [[_label(case), *_times(case), *_flops(case)] for case in ordered], stacks)
    yield Section(f"Time and FLOPs, {name}", table=times, notes=[ABOUT_ERRORS], level=3)
    process = [_number(case, "peak_rss_bytes") for case in ordered]
    known = not all(map(math.isnan, process))
    rows = [[_label(case), *_peaks(case)] for case in ordered]
    if known:
        rows = [[*row, wording.amount(grew, "B")] for row, grew in zip(rows, process, strict=True)]
    headers = ["", "peak theory", "measured", "ratio", *(["process"] if known else [])]
    notes = [ABOUT_PROCESS] if known else []
    yield Section(f"Peak memory, {name}", table=Table(headers, rows, stacks), notes=notes, level=3)


def _width(cases: pd.DataFrame) -> str:
    widths = list(cases["embed_dim"].dropna().unique()) if "embed_dim" in cases else []
    return f", d_model {widths[0]}" if len(widths) == 1 else ""


def _label(case: pd.Series) -> str:
    return f"{case['kernel']} N={case['seq_len']}"


def _times(case: pd.Series) -> list[str]:
    if case["outcome"] != "measured":
        return [wording.OUTCOME_WORDS[case["outcome"]], "-", "-"]
    rounds = f"{case['rounds']:.0f}"
    if math.isnan(case["rounds_mean_s"]):
        return ["rounds not kept", "-", rounds]
    mean = wording.mean(case["rounds_mean_s"], case["rounds_stderr_s"])
    return [mean, wording.seconds(case["rounds_std_s"]), rounds]


def _flops(case: pd.Series) -> list[str]:
    flops, counted = _number(case, "flops"), _number(case, "counted_flops")
    return [wording.amount(flops, "FLOP"), wording.amount(counted, "FLOP"), _ratio_cell(counted, flops)]


def _peaks(case: pd.Series) -> list[str]:
    predicted, peak = _number(case, "predicted_peak_bytes"), _number(case, "peak_bytes")
    return [wording.amount(predicted, "B"), wording.amount(peak, "B"), _ratio_cell(peak, predicted)]


def _number(case: pd.Series, field: str) -> float:
    value = case.get(field)
    return math.nan if value is None or pd.isna(value) else float(value)


def _ratio_cell(measured: float, theory: float) -> str:
    ratio = measured / theory if theory else math.nan
    return "-" if math.isnan(ratio) else f"{ratio:.3f}"


def agreement(cases: pd.DataFrame) -> Iterator[str]:
    """Sentences on the ratio of counts and peaks to their theory, as far as both are known."""
    for measured, theory, name in THEORY:
        if not {measured, theory} <= set(cases.columns):
            continue
        ratios = pd.to_numeric(cases[measured]) / pd.to_numeric(cases[theory])
        ratios = ratios[(cases["outcome"] == "measured") & ratios.notna()]
        off = cases.loc[ratios.index].assign(ratio=ratios)[ratios != 1]
        if len(ratios) and off.empty:
            yield f"The ratio of {name} is 1 in every case."
        for kernel, group in off.groupby("kernel"):
            ends = sorted({f"{group['ratio'].min():.3f}", f"{group['ratio'].max():.3f}"})
            where = f"at N = {wording.ranges(list(group['seq_len']))}"
            yield f"{kernel}: {name} is {' to '.join(ends)} {where}."
