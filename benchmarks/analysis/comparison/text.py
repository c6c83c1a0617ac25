"""The text of a comparison: the answer first, then the tables it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple

from benchmarks.analysis import wording
from benchmarks.analysis.comparison.answer import (
    common_changes,
    count_verdicts,
    ground,
    surer,
    title,
    verdicts,
)
from benchmarks.analysis.comparison.conclusions import (
    Comparison,
    CountChange,
    OutcomeChange,
    OutcomeVerdict,
    Place,
    Ratio,
)
from benchmarks.analysis.comparison.naming import (
    ORDER,
    OUTCOMES,
    QUANTITIES,
    Namer,
    by_verdict,
    change,
    namer,
    share,
)
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.setting import Case

MOST_ROWS, MOST_OPEN = 40, 10
"""Where tables are cut, and their inconclusive cases; comparison.json holds everything."""


def sections(comparison: Comparison) -> list[Section]:
    """The whole text of what `regression.compare` found."""
    name = namer(comparison)
    return [
        Section(
            title(comparison),
            verdicts=list(verdicts(comparison)),
            commands=list(surer(comparison)),
            level=1,
        ),
        Section("About this comparison", [*common_changes(comparison), *ground(comparison)]),
        *_warned(comparison),
        *_conditions(comparison),
        *_times(comparison, name),
        *_energies(comparison, name),
        *_counts(comparison.counts, name),
        *_shifts(comparison, name),
        *_uncompared(comparison.outcomes, name),
    ]


def _warned(comparison: Comparison) -> Iterator[Section]:
    """What is missing; none where nothing is."""
    if comparison.warnings:
        yield Section("Warnings", comparison.warnings)


def _conditions(comparison: Comparison) -> Iterator[Section]:
    """What differed between the sides, and what disturbed each; none where all runs were quiet."""
    sides = (("Base", comparison.base), ("Head", comparison.head))
    of_sides = [f"{name}: {sentence}" for name, side in sides for sentence in side.conditions]
    if comparison.conditions or of_sides:
        yield Section("Quality of the measurements", [*comparison.conditions, *of_sides])


def _times(comparison: Comparison, name: Namer) -> Iterator[Section]:
    """The changes, then the cases that remain most open; the rest is counted."""
    cases = by_verdict(comparison.cases)
    changed = [case for case in cases if case.verdict in ("slower", "faster")]
    still_open = [case for case in cases if case.verdict == "inconclusive"]
    listed = changed[:MOST_ROWS] + still_open[:MOST_OPEN]
    rows = [
        [
            name(case.case.kernel, case.case.setting, case.case.seq_len),
            wording.seconds(case.base_s),
            wording.seconds(case.head_s),
            change(case.change),
            case.verdict,
        ]
        for case in listed
    ]
    rest = count_verdicts([case for case in cases if case not in listed])
    words = {"same": f"the same within {share(comparison.margin)}"}
    notes = [f"Not listed: {', '.join(f'{rest[one]} {words.get(one, one)}' for one in ORDER if rest[one])}."]
    if still_open:
        notes.append("Inconclusive: not sure beyond the margin among so many cases; more runs tell.")
    if rows:
        notes.append("Times are geometric means over the units, so that the change is head over base.")
        stacks = [_stacked(case.case, name) for case in listed]
        table = Table(["case", "base", "head", "change of the time", "verdict"], rows, stacks)
        yield Section("Time", table=table, notes=notes if rest else notes[1:])


def _energies(comparison: Comparison, name: Namer) -> Iterator[Section]:
    """The energies that changed, the largest changes first; the rest is counted."""
    changed = [one for one in comparison.energies if one.verdict in ("larger", "smaller")]
    changed.sort(key=lambda one: (one.verdict, -abs((one.change.ratio or 1) - 1)))
    rows = [
        [
            name(one.case.kernel, one.case.setting, one.case.seq_len),
            wording.joules(one.base_j),
            wording.joules(one.head_j),
            change(one.change),
            one.verdict,
        ]
        for one in changed[:MOST_ROWS]
    ]
    if rows:
        notes = ["Energy alone raises no alarm: how often its verdicts are right has not been simulated."]
        stacks = [_stacked(one.case, name) for one in changed[:MOST_ROWS]]
        table = Table(["case", "base", "head", "change of the energy", "verdict"], rows, stacks)
        yield Section("Energy of a call", table=table, notes=[*notes, *_cut(len(changed))])


def _stacked(case: Case, name: Namer) -> tuple[str, str]:
    """The name of a case in two parts."""
    return name(case.kernel, case.setting), "" if case.seq_len is None else f"N={case.seq_len}"


def _counts(counts: Sequence[CountChange], name: Namer) -> Iterator[Section]:
    flops = {row.key for row in counts if row.quantity == "flops"}
    # A FLOP count is twice a MAC count: saying both would say it twice.
    rows = [row for row in counts if row.quantity != "macs" or row.key not in flops]
    rows.sort(key=_place_in_table)
    if rows:
        cells = [
            [
                name(row.case.kernel, row.case.setting, row.case.seq_len),
                QUANTITIES[row.quantity][0],
                wording.amount(row.base, QUANTITIES[row.quantity][1]),
                wording.amount(row.head, QUANTITIES[row.quantity][1]),
                _difference(row.base, row.head, QUANTITIES[row.quantity][1]),
                row.verdict,
            ]
            for row in rows[:MOST_ROWS]
        ]
        stacks = [_stacked(row.case, name) for row in rows[:MOST_ROWS]]
        table = Table(["case", "quantity", "base", "head", "change", "verdict"], cells, stacks)
        yield Section("Counts and bytes, which have no noise", table=table, notes=list(_cut(len(rows))))


def _place_in_table(row: CountChange) -> list[str]:
    case = row.case
    return [row.verdict, case.kernel, case.family, *map(str, astuple(case.setting)), f"{case.seq_len or 0:9}"]


def _difference(base: float, head: float, unit: str) -> str:
    """The difference of two counts: "+100.0 %"; where a share says too little, in full: "+512 B"."""
    small = base == 0 or abs(head - base) < 5e-3 * base
    return f"{head - base:+,.0f} {unit}" if small else change(Ratio(head / base))


def _shifts(comparison: Comparison, name: Namer) -> Iterator[Section]:
    """Exponents and crossovers that moved, and the verdicts of the others."""
    cells = [
        [
            f"exponent of {name(one.kernel, one.setting)}",
            f"{one.base:.3f}",
            f"{one.head:.3f}",
            "-" if one.low is None else f"{one.shift:+.3f} [{one.low:+.3f}, {one.high:+.3f}]",
            one.verdict,
        ]
        for one in comparison.exponents
    ]
    cells += [
        [
            f"N* of {name(one.contender, one.setting)} against {one.baseline}",
            _place(one.base),
            _place(one.head),
            change(one.change),
            one.verdict,
        ]
        for one in comparison.crossovers
    ]
    moved = [row for row in cells if row[-1] == "moved"]
    rest = Counter(row[-1] for row in cells if row[-1] != "moved")
    notes = [
        f"{'Not listed: ' if moved else ''}{wording.count(len(comparison.exponents), 'exponent')} and "
        f"{wording.count(len(comparison.crossovers), 'crossover')} were compared"
        + "".join(f", {number} {verdict}" for verdict, number in rest.items())
        + "."
    ]
    if cells:
        names = [row[0].partition(" against ") for row in moved[:MOST_ROWS]]
        stacks = [(name, f"{against.lstrip()}{other}") for name, against, other in names]
        table = Table(["", "base", "head", "shift", "verdict"], moved[:MOST_ROWS], stacks) if moved else None
        yield Section("Exponents and crossovers", table=table, notes=[*_cut(len(moved)), *notes])


def _place(crossover: Place) -> str:
    """Where a crossover is, in a cell."""
    if crossover.kind == "inside":
        return f"{crossover.n:.0f}"
    assert crossover.lengths is not None
    shortest, longest = crossover.lengths
    return {"below": f"below {shortest}", "above": f"above {longest}"}.get(crossover.kind, "several")


def _uncompared(outcomes: Sequence[OutcomeChange], name: Namer) -> Iterator[Section]:
    """The cases that one side alone measured, lengths of the same outcome together."""
    lengths: dict[tuple[OutcomeVerdict, str, str], list[int]] = {}
    for row in sorted(outcomes, key=lambda row: list(OUTCOMES).index(row.verdict)):
        subject = name(row.case.kernel, row.case.setting)
        reason = f": {row.reason.rstrip('.')}" if row.reason else ""
        lengths.setdefault((row.verdict, subject, reason), []).append(row.case.seq_len or 0)
    sentences = [
        f"{subject}, N = {wording.ranges(ns)}: {OUTCOMES[verdict]}{reason}."
        for (verdict, subject, reason), ns in lengths.items()
    ]
    if sentences:
        yield Section("Not compared", sentences)


def _cut(rows: int) -> Iterator[str]:
    if rows > MOST_ROWS:
        yield f"{rows - MOST_ROWS} more rows are in comparison.json."
