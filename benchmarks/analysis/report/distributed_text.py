"""The sections of a report on kernels that ranks computed together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.over_ranks import OfRanks, OverRanks, RankPoint
from benchmarks.analysis.report.sentences import crossover
from benchmarks.analysis.scaling.crossover import Crossover

HEADERS = ("", "median", "speedup", "efficiency", "weak", "received", "exposed")
NOTES = (
    "A time is that of the slowest rank, the median of rounds. Speedup is the time of one rank over it; "
    "efficiency divides that by the ranks, and weak efficiency is the time of one rank with one part of the "
    "sequence over it: at most 1 / ranks for work that grows like N².",
    "Received is what a rank receives, counted from the collectives that were issued. Exposed is the share "
    "of the time that goes when the exchange is left out; noise may take it below 0.",
)
CONSTANT = 0.01
"""Exponents of counts this near to a whole number are that number."""


def over_ranks(summary: Summary) -> Iterator[Section]:
    """A section for each setting in which ranks computed together."""
    for setting in dict.fromkeys(one.setting for one in summary.over_ranks):
        ours = [one for one in summary.over_ranks if one.setting == setting]
        sentences = [sentence for one in ours for sentence in _scaling(one)]
        sentences += _compared(summary, setting)
        yield Section(f"Over ranks, {wording.what(setting)} on {wording.place(setting)}", sentences)


def rank_tables(found: Iterable[OverRanks]) -> Iterator[Section]:
    """A table for each setting in which ranks computed together."""
    settings: dict[Setting, list[OverRanks]] = {}
    for one in found:
        settings.setdefault(one.setting, []).append(one)
    for setting, ours in settings.items():
        points = [(one.kernel, point) for one in ours for point in one.points]
        stacks = [(kernel, _name(point)) for kernel, point in points]
        rows = [_row(kernel, point) for kernel, point in points]
        title = f"Over ranks, {wording.what(setting)} on {wording.place(setting)}: the numbers"
        yield Section(title, table=Table(HEADERS, rows, stacks), notes=NOTES)


def _compared(summary: Summary, setting: Setting) -> Iterator[str]:
    """From which length on contenders beat baselines, at each number of ranks."""
    for pair in summary.crossovers:
        ranks = pair.setting.ranks
        if ranks and pair.quantity == "time" and replace(pair.setting, ranks=None) == setting:
            yield f"On {wording.count(ranks, 'rank')} ({pair.firmness}): {crossover(pair)}."


def _scaling(one: OverRanks) -> Iterator[str]:
    for ranks in one.of_ranks:
        if ranks.ranks > 1:
            yield f"{one.kernel} on {ranks.ranks} ranks: {'; '.join(_parts(one, ranks))}."


def _parts(one: OverRanks, ranks: OfRanks) -> Iterator[str]:
    points = one.at(ranks.ranks)
    yield _received(ranks, points)
    if ranks.beats_one is not None:
        yield f"{_beats_one(ranks.beats_one)} ({ranks.firmness})"
    if known := [point for point in points if point.speedup is not None]:
        best = max(known, key=lambda point: point.speedup or 0)
        yield (
            f"the largest speedup is {wording.times(best.speedup or 0)} at N = {best.seq_len}, an efficiency "
            f"of {wording.percent(best.efficiency)}"
        )


def _received(ranks: OfRanks, points: Sequence[RankPoint]) -> str:
    """How what is exchanged grows."""
    known = [point for point in points if point.exchanged_bytes is not None]
    if not known:
        return "what a rank receives is not known"
    first, last = known[0], known[-1]
    law = "" if last.predicted_exchanged_bytes is None else _held(known)
    if ranks.bytes_exponent is not None and abs(ranks.bytes_exponent) < CONSTANT:
        return f"a rank receives {wording.amount(last.exchanged_bytes, 'B')}, whatever N is (exponent 0){law}"
    grows = "" if ranks.bytes_exponent is None else f", which grows like N^{ranks.bytes_exponent:.2g}"
    grows = (
        grows.replace("N^1", "N (exponent 1)") if abs((ranks.bytes_exponent or 0) - 1) < CONSTANT else grows
    )
    amounts = [wording.amount(point.exchanged_bytes, "B") for point in (first, last)]
    span = f"{amounts[0]} at N = {first.seq_len} and {amounts[1]} at N = {last.seq_len}"
    return f"a rank receives {span}{grows}{law}"


def _held(points: Sequence[RankPoint]) -> str:
    exact = all(point.exchanged_bytes == point.predicted_exchanged_bytes for point in points)
    return ", exactly what the law says" if exact else ", which is not what the law says"


def _beats_one(found: Crossover) -> str:
    if found.lengths is None:
        return "it has no length in common with one rank"
    if found.kind == "inside":
        place = wording.interval(found.n, found.low, found.high, ".0f")
        return (
            f"it beats one rank {'from' if found.ahead_beyond == 'contender' else 'only up to'} N = {place}"
        )
    words = {"below": "it beats one rank", "above": "one rank beats it"}
    where = f"at every length measured, N = {found.lengths[0]} to {found.lengths[1]}"
    return f"{words[found.kind]} {where}" if found.kind in words else "it changes places with one rank"


def _name(point: RankPoint) -> str:
    return f"N={point.seq_len} on {point.ranks}"


def _row(kernel: str, point: RankPoint) -> list[str]:
    return [
        f"{kernel}, {_name(point)}",
        wording.seconds(point.median_s),
        *("-" if value is None else wording.times(value) for value in (point.speedup,)),
        wording.percent(point.efficiency),
        wording.percent(point.weak_efficiency),
        wording.amount(point.exchanged_bytes, "B"),
        share(point.exposed_share),
    ]


def share(value: float | None) -> str:
    """A share that may be below 0: "4.1 %", "-0.8 %"."""
    if value is None:
        return "-"
    return wording.percent(value) if value >= 0 else f"-{wording.percent(-value)}"
