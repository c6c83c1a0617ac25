"""The text of a report: the answer in sentences first, then the tables it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.cases import spread
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.records import SETTING
from benchmarks.analysis.summary import agreeing, best_linear, same

MOST_NAMES = 5
"""Files are named up to here; many runs of one experiment need no list."""
QUANTITIES = {"time": "Time", "peak_bytes": "Peak memory"}


def sections(summary: Mapping[str, Any], cases: pd.DataFrame) -> list[Section]:
    """The whole text.

    Args:
        summary: What `summary.summarise` concluded.
        cases: What `cases.case_table` made of the same records.
    """
    settings = [{field: one[field] for field in SETTING} for one in summary["series"] if one["mode"]]
    unique = list({tuple(setting.values()): setting for setting in settings}.values())
    return [
        _head(summary),
        *(_answer(summary, setting) for setting in unique),
        _warned(summary),
        *(section for setting in unique for section in _evidence(summary, cases, setting)),
        *_left_out(summary),
    ]


def _head(summary: Mapping[str, Any]) -> Section:
    names = [one["file"] for one in summary["runs"]["files"]]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    files = f"From {wording.count(len(names), 'file')}: {', '.join(names[:MOST_NAMES])}{more}."
    return Section("Linear against standard attention", [files, *_units(summary["runs"])], level=1)


def _units(runs: Mapping[str, Any]) -> Iterator[str]:
    """What a unit of sampling is, without which no interval means anything."""
    if runs["unit"] == "mixed":
        yield "The unit of sampling is the run where several files measured a setting, else the repetition."
    elif runs["unit"]:
        yield f"The unit of sampling is the {runs['unit']}; there are {runs['units']} of them."
    if runs["unit"]:
        yield "Brackets hold 95 % intervals over the units."


def _answer(summary: Mapping[str, Any], setting: Mapping[str, Any]) -> Section:
    """Who wins from which length on, the best linear kernel first."""
    crossovers = [one for one in summary["crossovers"] if same(one, setting)]
    best = best_linear([one for one in summary["series"] if same(one, setting)])
    sentences = []
    for quantity, name in QUANTITIES.items():
        ours = [one for one in crossovers if one["quantity"] == quantity]
        ours.sort(key=lambda one: (one["linear"] != best, one["linear"]))
        for linear in dict.fromkeys(one["linear"] for one in ours):
            sentences.append(f"{name}: {linear} {_merged(ours, linear)}.")
    where = f"{setting['mode'].capitalize()} {wording.phase(setting['phase'])} on {wording.place(setting)}"
    return Section(where, sentences or ["No linear and standard kernel were measured at the same lengths."])


def _merged(crossovers: Sequence[Mapping[str, Any]], linear: str) -> str:
    """One sentence per kernel: rivals with the same fate together, and no verb twice in a row."""
    fates: dict[tuple[str, str], list[str]] = {}
    for one in crossovers:
        if one["linear"] == linear:
            head, _, tail = wording.crossover(one, subject=False).partition(f" {one['standard']}")
            fates.setdefault((head, tail), []).append(one["standard"])
    sentence, verb = "", ""
    for (head, tail), standards in sorted(fates.items(), key=lambda fate: fate[0][0]):
        rivals = " and ".join(filter(None, [", ".join(standards[:-1]), standards[-1]])) + tail
        joint = ", " if head == verb else f"; {head} " if sentence else f"{head} "
        sentence, verb = sentence + joint + rivals, head
    return sentence


def _warned(summary: Mapping[str, Any]) -> Section:
    return Section("Warnings", summary["warnings"] or ["None."])


def _evidence(
    summary: Mapping[str, Any], cases: pd.DataFrame, setting: Mapping[str, Any]
) -> Iterator[Section]:
    ours = agreeing(cases, setting)
    series = [one for one in summary["series"] if same(one, setting)]
    name = f"{setting['mode']} {wording.phase(setting['phase'])}"
    heading = f"{name.capitalize()} on {wording.place(setting)}: the numbers"
    yield Section(heading)
    yield Section(f"Median time and its spread, {name}", table=_medians(ours), level=3)
    pairs = [one for one in summary["crossovers"] if same(one, setting) and one["quantity"] == "time"]
    if pairs:
        yield Section(f"Speedup of linear over standard, {name}", table=_speedups(series, pairs), level=3)
    exponents, notes = _exponents(series), _undetermined(series)
    yield Section(f"Exponent p of t ~ N^p, {name}", table=exponents, notes=notes, level=3)
    yield Section(f"Fits by relative error, {name}", table=_fits(series), level=3)


def _medians(cases: pd.DataFrame) -> Table:
    lengths = sorted(cases["seq_len"].dropna().unique())
    rows = []
    for kernel, group in cases.groupby("kernel"):
        cells = {case["seq_len"]: _median_cell(case) for _, case in group.iterrows()}
        rows.append([str(kernel), *(cells.get(length, "-") for length in lengths)])
    return Table(["kernel", *(f"N={length}" for length in lengths)], rows)


def _median_cell(case: pd.Series) -> str:
    if case["outcome"] != "measured":
        return wording.OUTCOME_WORDS[case["outcome"]]
    percent = 100 * spread(case)
    words = ">99" if percent > 99 else f"{percent:.{int(percent < 1)}f}"
    return f"{wording.seconds(case['median_s'])} ±{words}%"


def _speedups(series: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> Table:
    medians = {one["kernel"]: dict(zip(one["seq_lens"], one["median_s"], strict=True)) for one in series}
    common = {n for pair in pairs for n in medians[pair["linear"]] if n in medians[pair["standard"]]}
    lengths = sorted(common)
    rows = []
    for pair in pairs:
        linear, standard = medians[pair["linear"]], medians[pair["standard"]]
        cells = [
            wording.times(standard[n] / linear[n]) if n in linear and n in standard else "-" for n in lengths
        ]
        rows.append([f"{pair['linear']} over {pair['standard']}", *cells])
    return Table(["", *(f"N={length}" for length in lengths)], rows)


def _exponents(series: Sequence[Mapping[str, Any]]) -> Table:
    headers = ["kernel", "p", "verdict", "window", "FLOPs", "peak bytes", "overhead", "local slopes"]
    rows = []
    for one in series:
        p = one["exponent"]
        rows.append([
            one["kernel"],
            wording.interval(p["value"], p["low"], p["high"]),
            p["verdict"],
            "-" if p["window"] is None else f"{p['window'][0]}..{p['window'][1]}",
            wording.interval(one["flops_exponent"], None, None),
            wording.interval(one["peak_bytes_exponent"], None, None),
            wording.seconds(one["overhead_s"]),
            " ".join(map(wording.slope, one["local_slopes"])) or "-",
        ])  # fmt: skip
    return Table(headers, rows)


def _undetermined(series: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why, once per reason."""
    kernels: dict[str, list[str]] = {}
    for one in series:
        if one["exponent"]["reason"]:
            kernels.setdefault(one["exponent"]["reason"], []).append(one["kernel"])
    return [f"{', '.join(names)}: undetermined, because {reason}." for reason, names in kernels.items()]


def _fits(series: Sequence[Mapping[str, Any]]) -> Table:
    headers = ["kernel"]
    for law in ("a N² + b", "a N + b"):
        headers += [f"{law}: a", "b", "R²", "error"]
    return Table(headers, [[one["kernel"], *_fit(one, "quadratic"), *_fit(one, "linear")] for one in series])


def _fit(series: Mapping[str, Any], law: str) -> list[str]:
    fit = series["fits"][law]
    if fit is None:
        return ["-"] * 4
    r2 = "-" if fit["r2"] is None else f"{fit['r2']:.4f}"
    return [wording.seconds(fit["a"]), wording.seconds(fit["b"]), r2, f"{100 * fit['relative_error']:.0f} %"]


def _left_out(summary: Mapping[str, Any]) -> Iterator[Section]:
    """What was not measured and why, lengths of the same reason together."""
    places = {wording.place(one) for one in (*summary["not_measured"], *summary["series"]) if one["heads"]}
    lengths: dict[tuple[str, ...], list[int]] = {}
    for one in summary["not_measured"]:
        kind = (one["kernel"], one["mode"], wording.phase(one["phase"]), wording.place(one))
        lengths.setdefault((*kind, wording.OUTCOME_WORDS[one["outcome"]], one["reason"]), []).append(
            one["seq_len"]
        )
    sentences = [
        f"{kernel}, {mode} {phase}, N = {wording.ranges(ns)} ({outcome}): {reason.rstrip('.')}."
        + (f" [{where}]" if len(places) > 1 else "")
        for (kernel, mode, phase, where, outcome, reason), ns in lengths.items()
    ]
    if sentences:
        yield Section("Not measured", sentences)
