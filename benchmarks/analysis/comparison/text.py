"""The text of a comparison: what changed first, then what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.analysis import wording
from benchmarks.analysis.comparison.judging import RUN_NOISE
from benchmarks.analysis.comparison.naming import ORDER, Row, by_verdict, change, commits, namer, share
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.setting import SERIES, Setting

MOST_ROWS, MOST_OPEN = 40, 10
"""Where tables are cut, and their inconclusive cases; comparison.json holds everything."""
QUANTITIES = {
    "flops": ("FLOPs", "FLOP"),
    "macs": ("MACs", "MAC"),
    "min_bytes": ("least bytes", "B"),
    "peak_bytes": ("peak memory", "B"),
    "counted_flops": ("counted FLOPs", "FLOP"),
    "predicted_peak_bytes": ("predicted peak memory", "B"),
}
OUTCOMES = {
    "lost": "no longer measured, a regression",
    "left out": "left out now",
    "gained": "measured only now",
    "vanished": "not asked for in the head",
    "new": "not asked for in the base",
    "incomparable": "incomparable, measured on another machine or by another clock",
}
NUMBER_WORDS = {"pair": "pair of runs measured in turn", "run": "run", "repetition": "repetition"}


def sections(comparison: Mapping[str, Any]) -> list[Section]:
    """The whole text of what `regression.compare` found."""
    name = namer(comparison)
    return [
        Section(_title(comparison), [*_answer(comparison), *_ground(comparison)], level=1),
        *_times(comparison, name),
        *_counts(comparison["counts"], name),
        *_shifts(comparison, name),
        *_uncompared(comparison["outcomes"], name),
    ]


def _count(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row["verdict"] for row in rows)


def _title(comparison: Mapping[str, Any]) -> str:
    found = {
        **{verdict: _count(comparison["cases"])[verdict] for verdict in ("slower", "faster")},
        **{verdict: len({row["key"] for row in comparison["counts"] if row["verdict"] == verdict})
           for verdict in ("larger", "smaller")},
        "lost": _count(comparison["outcomes"])["lost"],
    }  # fmt: skip
    parts = [f"{number} {verdict}" for verdict, number in found.items() if number]
    cases = wording.count(len(comparison["cases"]), "case")
    if any(one["moved"] for one in comparison["common"]):
        parts.append("everything moved")
    firm = any(case["verdict"] != "inconclusive" for case in comparison["cases"])
    return f"{cases} compared: {', '.join(parts) or ('no change found' if firm else 'nothing can be told')}"


def _answer(comparison: Mapping[str, Any]) -> Iterator[str]:
    """What a reader wants to know in a sentence each."""
    margin, cases = share(comparison["margin"]), _count(comparison["cases"])
    words = {"same": f"the same within {margin}"}
    parts = [f"{cases[verdict]} {words.get(verdict, verdict)}" for verdict in ORDER if cases[verdict]]
    if parts:
        yield f"Time: {', '.join(parts)}."
    for verdict in ("larger", "smaller"):
        rows = [row for row in comparison["counts"] if row["verdict"] == verdict]
        quantities = Counter(QUANTITIES[row["quantity"]][0] for row in rows)
        if quantities:
            where = ", ".join(f"{name} in {wording.count(n, 'case')}" for name, n in quantities.items())
            yield f"{verdict.capitalize()}: {where}."
    outcomes = _count(comparison["outcomes"])
    if outcomes["lost"]:
        lost = wording.count(outcomes["lost"], "case")
        yield f"Lost: {lost} of the base that can no longer be measured."
    moved = [_count(comparison[what])["moved"] for what in ("exponents", "crossovers")]
    if any(moved):
        yield f"Moved: {wording.count(moved[0], 'exponent')} and {wording.count(moved[1], 'crossover')}."
    yield from _everything(comparison)


def _everything(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Where all cases moved alike, it may not be the commit."""
    for one in comparison["common"]:
        if one["moved"]:
            speed = "slower" if one["ratio"] > 1 else "faster"
            yield (
                f"Everything moved on {one['device']}: the median case is {speed}, "
                f"{change(one['ratio'], one['low'], one['high'])}, and {wording.percent(one['share'])} of "
                f"the cases are within {share(one['within'])} of that. Another state of the machine (its "
                "clock, its temperature, other work) does this more often than a commit; measure both sides "
                "in turn."
            )
    ceilings = [one for one in comparison["controls"] if _surely(one, comparison["margin"])]
    if ceilings:
        which = ", ".join(
            f"{one['kernel']} {change(one['ratio'], one['low'], one['high'])}" for one in ceilings
        )
        yield (
            "The machine itself changed: its ceilings, which no kernel touches, moved by more than the "
            f"margin ({which})."
        )


def _surely(one: Row, margin: float) -> bool:
    if one["low"] is None:
        return False
    beyond = max(one["ratio"], 1 / one["ratio"]) > 1 + margin
    return beyond and not one["low"] <= 1 <= one["high"]


def _ground(comparison: Mapping[str, Any]) -> Iterator[str]:
    """What the answer rests on."""
    base, head = (_side(comparison[side]) for side in ("base", "head"))
    places = list(dict.fromkeys(wording.place(Setting.of(case)) for case in comparison["cases"]))
    where = f" On {wording.listed(places)}." if places else ""
    yield f"Base: {base}. Head: {head}.{where}"
    units = comparison["units"]
    many = f"{units['base']}" if units["base"] == units["head"] else f"{units['base']} and {units['head']}"
    unit = NUMBER_WORDS.get(comparison["unit"], "pair, run or repetition, by device")
    yield (
        f"The unit of sampling is the {unit}; there are {many}. Changes are head against base, with 95 % "
        "intervals; alarms are corrected for the number of cases."
    )
    noise = comparison["noise"]
    known = f" (A/A noise here: {share(noise)})" if noise is not None else ""
    yield f"Margin {share(comparison['margin'])}{known}: smaller changes raise no alarm."
    if comparison["tentative"]:
        yield (
            f"Tentative: there is one run a side, so {share(RUN_NOISE)} are assumed for what a run "
            "does to each of its cases. Several runs a side, best measured in turn, say what it is."
        )


def _side(side: Row) -> str:
    of = f" of {commits(side)}" if commits(side) else ""
    return f"{wording.count(len(side['files']), 'run')}{of}"


def _times(comparison: Mapping[str, Any], name: Callable[[Row], str]) -> Iterator[Section]:
    """The changes, then what remains most open; of the rest only how many."""
    cases = by_verdict(comparison["cases"])
    changed = [case for case in cases if case["verdict"] in ("slower", "faster")]
    still_open = [case for case in cases if case["verdict"] == "inconclusive"]
    listed = changed[:MOST_ROWS] + still_open[:MOST_OPEN]
    rows = [
        [
            name(case),
            wording.seconds(case["base_s"]),
            wording.seconds(case["head_s"]),
            change(case["ratio"], case["low"], case["high"]),
            case["verdict"],
        ]
        for case in listed
    ]
    rest = _count([case for case in cases if case not in listed])
    words = {"same": f"the same within {share(comparison['margin'])}"}
    notes = [f"Not listed: {', '.join(f'{rest[one]} {words.get(one, one)}' for one in ORDER if rest[one])}."]
    if still_open:
        notes.append("Inconclusive: the interval reaches beyond the margin; more runs narrow it.")
    if rows:
        table = Table(["case", "base", "head", "change of the time", "verdict"], rows)
        yield Section("Time", table=table, notes=notes if rest else notes[1:])


def _counts(counts: Sequence[Row], name: Callable[[Row], str]) -> Iterator[Section]:
    flops = {row["key"] for row in counts if row["quantity"] == "flops"}
    # A FLOP count is twice a MAC count: saying both would say it twice.
    rows = [row for row in counts if row["quantity"] != "macs" or row["key"] not in flops]
    rows.sort(key=lambda row: [str(row[field]) for field in ("verdict", *SERIES)] + [f"{row['seq_len']:9}"])
    if rows:
        cells = [
            [
                name(row),
                QUANTITIES[row["quantity"]][0],
                wording.amount(row["base"], QUANTITIES[row["quantity"]][1]),
                wording.amount(row["head"], QUANTITIES[row["quantity"]][1]),
                _difference(row["base"], row["head"], QUANTITIES[row["quantity"]][1]),
                row["verdict"],
            ]
            for row in rows[:MOST_ROWS]
        ]
        table = Table(["case", "quantity", "base", "head", "change", "verdict"], cells)
        yield Section("Counts and bytes, which have no noise", table=table, notes=list(_cut(len(rows))))


def _difference(base: float, head: float, unit: str) -> str:
    """Of two counts: "+100.0 %"; where a share says too little, in full: "+512 B"."""
    small = base == 0 or abs(head - base) < 5e-3 * base
    return f"{head - base:+,.0f} {unit}" if small else change(head / base, None, None)


def _shifts(comparison: Mapping[str, Any], name: Callable[[Row], str]) -> Iterator[Section]:
    """Exponents and crossovers that moved, and what became of the others."""
    cells = [
        [
            f"exponent of {name(one)}",
            f"{one['base']:.3f}",
            f"{one['head']:.3f}",
            "-" if one["low"] is None else f"{one['shift']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]",
            one["verdict"],
        ]
        for one in comparison["exponents"]
    ]
    cells += [
        [
            f"N* of {name({**one, 'kernel': one['linear']})} against {one['standard']}",
            _place(one["base"]),
            _place(one["head"]),
            change(one["ratio"], one["low"], one["high"]),
            one["verdict"],
        ]
        for one in comparison["crossovers"]
    ]
    moved = [row for row in cells if row[-1] == "moved"]
    rest = Counter(row[-1] for row in cells if row[-1] != "moved")
    notes = [
        f"{'Not listed: ' if moved else ''}{wording.count(len(comparison['exponents']), 'exponent')} and "
        f"{wording.count(len(comparison['crossovers']), 'crossover')} were compared"
        + "".join(f", {number} {verdict}" for verdict, number in rest.items())
        + "."
    ]
    if cells:
        table = Table(["", "base", "head", "shift", "verdict"], moved[:MOST_ROWS]) if moved else None
        yield Section("Exponents and crossovers", table=table, notes=[*_cut(len(moved)), *notes])


def _place(crossover: Row) -> str:
    """Where a crossover is, in a cell."""
    if crossover["kind"] == "inside":
        return f"{crossover['n']:.0f}"
    shortest, longest = crossover["lengths"]
    return {"below": f"below {shortest}", "above": f"above {longest}"}.get(crossover["kind"], "several")


def _uncompared(outcomes: Sequence[Row], name: Callable[[Row], str]) -> Iterator[Section]:
    """What was measured on one side only, lengths of the same fate together."""
    lengths: dict[tuple[str, str, str], list[int]] = {}
    for row in sorted(outcomes, key=lambda row: list(OUTCOMES).index(row["verdict"])):
        subject = name({field: value for field, value in row.items() if field != "seq_len"})
        reason = f": {row['reason'].rstrip('.')}" if row["reason"] else ""
        lengths.setdefault((row["verdict"], subject, reason), []).append(row["seq_len"])
    sentences = [
        f"{subject}, N = {wording.ranges(ns)}: {OUTCOMES[verdict]}{reason}."
        for (verdict, subject, reason), ns in lengths.items()
    ]
    if sentences:
        yield Section("Not compared", sentences)


def _cut(rows: int) -> Iterator[str]:
    if rows > MOST_ROWS:
        yield f"{rows - MOST_ROWS} more rows are in comparison.json."
