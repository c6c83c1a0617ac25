"""What kernels compute: the functions that their results were compared with, and which were with none."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section
from benchmarks.analysis.reading.fields import DECLARED, FUNCTIONS
from benchmarks.analysis.report.conclusions import Function, PairCrossover, Series, Summary
from benchmarks.analysis.report.contexts import Phase

UNCHECKED = " (unchecked)"
"""What stands behind the name of a kernel whose results were compared with no oracle."""


def functions(cases: pd.DataFrame) -> list[Function]:
    """What a series computes, by its measured cases."""
    found: dict[str | None, Function] = {}
    for case in cases.sort_values("seq_len").to_dict("records"):
        known, error = case.get("reference"), case.get("reference_error")
        reference = None if known is None or pd.isna(known) else str(known)
        worst = None if error is None or pd.isna(error) else float(error)
        near = case.get("nearest")
        nearest = None if reference or near is None or pd.isna(near) else str(near)
        before = found.setdefault(reference, Function(reference, worst, [], nearest))
        before.seq_lens.append(int(case["seq_len"]))
    return list(found.values())


def labelled(summary: Summary, cases: pd.DataFrame) -> tuple[Summary, pd.DataFrame]:
    """A summary and its cases, with `UNCHECKED` behind the names of kernels that no oracle was compared with.

    Every table and picture that is made of them therefore says it.
    """
    unchecked = _unchecked(summary)
    return with_labels(summary), _labelled(cases, unchecked) if unchecked else cases


def with_labels(summary: Summary) -> Summary:
    """The summary, with what each kernel computes in its name where that was not checked."""
    unchecked = _unchecked(summary)
    if not unchecked:
        return summary

    def label(kernel: str) -> str:
        return _label(kernel, unchecked)

    def pair(one: PairCrossover) -> PairCrossover:
        return replace(one, contender=label(one.contender), baseline=label(one.baseline))

    def phase(one: Phase) -> Phase:
        return replace(one, contender=label(one.contender), baseline=label(one.baseline))

    roles = replace(summary.roles, own=tuple(map(label, summary.roles.own)))
    return replace(
        summary,
        series=[replace(one, kernel=label(one.kernel)) for one in summary.series],
        crossovers=[pair(one) for one in summary.crossovers],
        contexts=[replace(one, phases=[phase(of) for of in one.phases]) for one in summary.contexts],
        runs=replace(summary.runs, roles=roles),
        not_measured=_labelled(summary.not_measured, unchecked),
    )


def _unchecked(summary: Summary) -> set[str]:
    return {one.kernel for one in summary.series if one.is_attention and not one.checked}


def _label(kernel: str, unchecked: Container[str]) -> str:
    return kernel + UNCHECKED if kernel in unchecked else kernel


def _labelled(rows: pd.DataFrame, unchecked: Container[str]) -> pd.DataFrame:
    if rows.empty:
        return rows
    return rows.assign(kernel=[_label(kernel, unchecked) for kernel in rows["kernel"]])


def what_they_compute(summary: Summary) -> Iterator[Section]:
    """The section on the functions of kernels that are not of this project; none without any."""
    sentences = [*_sentences(summary.series, summary.roles.own), *_unmeasured(summary)]
    if sentences:
        yield Section("What they compute", sentences)


def _sentences(series: Sequence[Series], own: Sequence[str]) -> Iterator[str]:
    """A sentence for each kernel that computes the same in all its series, else one for each of these."""
    by_kernel: dict[str, list[Series]] = {}
    for one in series:
        usual = [found.reference for found in one.functions] == [FUNCTIONS.get(one.family)]
        if one.is_attention and (one.kernel in own or not usual):
            by_kernel.setdefault(one.kernel, []).append(one)
    for kernel in sorted(by_kernel, key=lambda name: (name not in own, name)):
        every = [found for one in by_kernel[kernel] for found in one.functions]
        if len({found.reference for found in every}) == 1:
            worst = max(every, key=lambda found: found.error or 0.0)
            lengths = sorted({length for found in every for length in found.seq_lens})
            yield f"{kernel} {_words(replace(worst, seq_lens=lengths))}."
        else:
            for one in by_kernel[kernel]:
                yield f"{kernel}, {wording.what(one.setting)}, {'; '.join(map(_words, one.functions))}."


def _unmeasured(summary: Summary) -> Iterator[str]:
    """Why a user's own kernels have no times at all."""
    measured = {one.kernel for one in summary.series}
    for kernel in summary.roles.own:
        gone = summary.not_measured[summary.not_measured["kernel"] == kernel]
        if kernel not in measured and len(gone):
            reasons = list(dict.fromkeys(str(reason).rstrip(".") for reason in gone["reason"]))
            yield f"{kernel} was not measured: {wording.listed(reasons)}."


def _words(found: Function) -> str:
    where = f" (N = {wording.ranges(found.seq_lens)})"
    if found.reference == DECLARED:
        return "computes a function of its own, as it says: unchecked"
    if found.reference is None:
        nearest = f"; nearest is {found.nearest}" if found.nearest else ""
        return f"computes none of the functions known here, but another one: unchecked{where}{nearest}"
    error = "" if found.error is None else f" to a relative error of {found.error:.1g}"
    return f"computes {found.reference}{error}{where}"
