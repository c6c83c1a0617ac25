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
    "s.e. is the standard error over all rounds. Rounds of one process are not independent, so it is too "
    "small to compare by; what compares are the brackets of the other tables."
)


def experiment(cases: pd.DataFrame, name: str) -> Section:
    """Mean time with its standard error over rounds, FLOPs and peak memory of each case of one setting."""
    headers = [
        "", "mean time ± s.e.", "rounds", "FLOPs theory", "counted", "ratio",
        "peak theory", "measured", "ratio",
    ]  # fmt: skip
    ordered = [case for _, case in cases.sort_values(["kernel", "seq_len"]).iterrows()]
    rows = list(map(_row, ordered))
    stacks = [(str(case["kernel"]), f"N={case['seq_len']}") for case in ordered]
    notes = [ABOUT_ERRORS]
    return Section(_title(cases, name), table=Table(headers, rows, stacks), notes=notes, level=3)


def _title(cases: pd.DataFrame, name: str) -> str:
    widths = list(cases["embed_dim"].dropna().unique()) if "embed_dim" in cases else []
    width = f", d_model {widths[0]}" if len(widths) == 1 else ""
    return f"Time, FLOPs and memory, {name}{width}"


def _row(case: pd.Series) -> list[str]:
    label = f"{case['kernel']} N={case['seq_len']}"
    if case["outcome"] != "measured":
        return [label, wording.OUTCOME_WORDS[case["outcome"]], *["-"] * 7]
    row = [label, _mean_cell(case), f"{case['rounds']:.0f}"]
    flops, counted = _number(case, "flops"), _number(case, "counted_flops")
    predicted, peak = _number(case, "predicted_peak_bytes"), _number(case, "peak_bytes")
    row += [wording.amount(flops, "FLOP"), wording.amount(counted, "FLOP"), _ratio_cell(counted, flops)]
    row += [wording.amount(predicted, "B"), wording.amount(peak, "B"), _ratio_cell(peak, predicted)]
    return row


def _number(case: pd.Series, field: str) -> float:
    value = case.get(field)
    return math.nan if value is None or pd.isna(value) else float(value)


def _mean_cell(case: pd.Series) -> str:
    if math.isnan(case["rounds_mean_s"]):
        return "rounds not kept"
    return wording.mean(case["rounds_mean_s"], case["rounds_stderr_s"])


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
