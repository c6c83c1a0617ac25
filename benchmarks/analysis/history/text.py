"""The text of a history: steps newest first, the newest level against the baseline, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section
from benchmarks.analysis.history.changes import WORSE
from benchmarks.analysis.history.conclusions import (
    BaselineLine,
    Difference,
    History,
    MachineHistory,
    MovedTogether,
    Step,
)
from benchmarks.analysis.history.disturbed import capped, disturbances, label, quality
from benchmarks.analysis.history.opening import opening

MOST_PLACES = 12
"""Steps at older commits are counted only."""
ORDER = ("machine", "time", "crossover", "exponent", "peak_bytes", "flops", "min_bytes")
TOO_FEW = "Nothing can be told of times from"
LOST_WORDS = {"oom": "runs out of memory", "failed": "fails", "unsupported": "is unsupported"}
QUANTITY_WORDS = {
    "min_bytes": "least bytes",
    "peak_bytes": "peak memory",
    "flops": "FLOPs",
    "machine": "all times",
}


def sections(history: History) -> list[Section]:
    """The whole text of what `writing.conclude` concluded."""
    return [
        opening(history),
        _ground(history),
        *_machines(history),
        *_steps(history),
        *_baseline(history),
        *quality(history),
        *_left_out(history.left_out),
    ]


def _ground(history: History) -> Section:
    sentences = []
    machines = history.machines
    for machine in machines:
        first, last = machine.revisions[0], machine.revisions[-1]
        runs = wording.count(machine.runs, "run")
        revisions = wording.count(len(machine.revisions), "revision")
        sentences.append(
            f"{machine.name.capitalize()} ({machine.fingerprint}): {runs} "
            f"of {revisions}, {label(first)} to {label(last)}; {wording.count(machine.lines, 'line')}."
        )
        sentences += _sight(machine)
    if any(sentence.startswith(TOO_FEW) for sentence in sentences):
        sentences.append("`python -m benchmarks compare BASE.json --against HEAD.json` compares two.")
    if len(machines) > 1:
        sentences.append("Machines that differ stay apart.")
    sentences.append(
        f"Steps of {wording.percent(history.margin)} or more, in exponents of {history.margin:g}, are "
        "named; of bytes and FLOPs any. Brackets hold 95 % intervals."
    )
    return Section("About this history", sentences)


def _sight(machine: MachineHistory) -> Iterator[str]:
    """The smallest step that could have shown."""
    smallest = machine.smallest_step
    if smallest is not None and smallest <= 1:
        yield (
            f"A typical time could have shown a step of {wording.percent(smallest)} "
            "in the middle of these revisions, and a larger one near their ends."
        )
    elif machine.enough is not None:
        yield (
            f"{TOO_FEW} {wording.count(len(machine.revisions), 'revision')}: "
            f"even a doubling shows from {machine.enough} on at the earliest."
        )


def _machines(history: History) -> Iterator[Section]:
    """What moved whole machines, newest first: no kernel is judged by it."""
    several = len(history.machines) > 1
    sentences = []
    for step in history.common_steps:
        name = step.machine if several else "the machine"
        ceilings = (
            f" and {step.ceilings} of {wording.count(step.of_ceilings, 'ceiling')}"
            if step.of_ceilings
            else ""
        )
        sentences.append(
            f"{name.capitalize()} became {step.change.verdict} at {label(step.since)}, "
            f"{change_words('machine', step.change)} "
            f"({step.count} of {wording.count(step.of, 'time')}{ceilings})."
        )
        sentences += disturbances(history, step)
    if sentences:
        yield Section("The machine", [*capped(sentences), "Every line below is judged by what is left."])


def _place(step: Step) -> tuple[str, str, str]:
    return step.machine, step.after.name, step.since.name


def _steps(history: History) -> Iterator[Section]:
    """A section for each place in the history, and in it a row for each step."""
    found = history.steps
    if not found:
        enough = all(len(machine.revisions) >= (machine.enough or 0) for machine in history.machines)
        seen = "no line changed its level" if enough else "no count changed, and times cannot show any yet"
        yield Section("Steps", [f"None: {seen}."])
        return
    several = len(history.machines) > 1
    places = [list(group) for _, group in groupby(found, key=_place)]
    for place in places[:MOST_PLACES]:
        first = place[0]
        where = f" on {first.machine}" if several else ""
        title = f"{first.after.name} .. {label(first.since)}{where}"
        rows = capped(_lines([(step, step.change) for step in place]))
        yield Section(title, [*_together(history, first), *disturbances(history, first), *rows])
    if len(places) > MOST_PLACES:
        older = sum(map(len, places[MOST_PLACES:]))
        yield Section("Older steps", [f"{older} at {len(places) - MOST_PLACES} places: see history.json."])


def _together(history: History, step: Step) -> Iterator[str]:
    for moved in history.moved_together:
        if (moved.machine, moved.since) == (step.machine, step.since.name):
            yield (f"{moved.count} of {moved.of} times became {moved.verdict} together: " + _reason(moved))


def _reason(moved: MovedTogether) -> str:
    if moved.ceilings:
        return "no ceiling did, so rather a library or shared code than the machine."
    if moved.kernels <= 2:
        return "without ceilings, one or two kernels cannot tell a commit from the machine."
    return "rather the machine or a library than one kernel."


def _lines(changes: Sequence[tuple[Step | BaselineLine, Difference]]) -> list[str]:
    """A line for each series and quantity that changed, its lengths together; what is worse first."""
    together: dict[tuple[str, str, str], list[tuple[int | None, Difference]]] = {}
    for one, change in changes:
        key = one.quantity, change.verdict, one.name.series
        together.setdefault(key, []).append((one.name.seq_len, change))

    def prominence(key: tuple[str, str, str]) -> tuple[bool, int, float, str]:
        quantity, verdict, name = key
        largest = max(abs(change.size or math.inf) for _, change in together[key])
        return verdict not in WORSE, ORDER.index(quantity), -largest, name

    lines = []
    for quantity, verdict, name in sorted(together, key=prominence):
        lengths, own = zip(*together[quantity, verdict, name], strict=True)
        what = QUANTITY_WORDS.get(quantity, quantity)
        lines.append(f"{verdict}: {name}{_lengths(lengths)}, {what} {_sizes(quantity, own)}")
    return lines


def _lengths(lengths: Sequence[int | None]) -> str:
    known = [length for length in lengths if length is not None]
    return f" at N = {wording.ranges(known)}" if known else ""


def _sizes(quantity: str, changes: Sequence[Difference]) -> str:
    """One change with its interval and levels, the smallest and the largest of several."""
    ordered = sorted((one for one in changes if one.size is not None), key=lambda one: one.size or 0.0)
    if len(changes) == 1 or not ordered:
        one = changes[0]
        return f"{change_words(quantity, one)} ({level(quantity, one.old)} -> {level(quantity, one.new)})"
    ends = [change_words(quantity, one, interval=False) for one in (ordered[0], ordered[-1])]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def change_words(quantity: str, change: Difference, *, interval: bool = True) -> str:
    """A size and its interval: "+10.2 % [9.1, 11.4]", "+0.12 [0.09, 0.15]", "larger" from nothing."""
    if change.size is None or change.low is None or change.high is None:
        return change.verdict
    scale, digits, unit = (1, 2, "") if quantity == "exponent" else (100, 1, " %")
    size, low, high = (scale * value for value in (change.size, change.low, change.high))
    bounds = f" [{low:.{digits}f}, {high:.{digits}f}]" if interval and low < high else ""
    return f"{size:+.{digits}f}{unit}{bounds}"


def level(quantity: str, value: float) -> str:
    """A level in the unit of its quantity: "12.3 ms", "1.98", "N = 1040", "4.19 MB"."""
    if quantity == "time":
        return wording.seconds(value)
    if quantity in ("exponent", "machine"):
        return f"{value:.2f}"
    if quantity == "crossover":
        return f"N = {value:.0f}"
    return wording.amount(value, "FLOP" if quantity == "flops" else "B")


def _baseline(history: History) -> Iterator[Section]:
    """The newest segments against the baseline: the changes line by line, the rest as a count."""
    verdicts = history.baseline.lines
    chosen = history.baseline.revision
    what = (
        f"the segment of {chosen[:7]}, as chosen"
        if chosen
        else "the segment before the last step of each line"
    )
    sentences = [f"The baseline is {what}."]
    changed = [(one, one.change) for one in verdicts if isinstance(one.change, Difference)]
    counts = {
        verdict: sum(one.change.verdict == verdict for one in verdicts)
        for verdict in ("same", "unknown", "too few")
    }
    if counts["same"]:
        sentences.append(f"{wording.count(counts['same'], 'line')} of {len(verdicts)} did not change.")
    if counts["too few"]:
        sentences.append(f"{wording.count(counts['too few'], 'line')} have too few values to tell.")
    if counts["unknown"]:
        sentences.append(f"{wording.count(counts['unknown'], 'line')} were not measured at the baseline.")
    sentences += [
        f"Lost: {one.name} used to run, and since {label(one.since)} it {LOST_WORDS[one.outcome]}."
        for one in history.lost
    ]
    yield Section("Newest against baseline", [*sentences, *capped(_lines(changed))])


def _left_out(reasons: Sequence[str]) -> Iterator[Section]:
    if reasons:
        yield Section("Left out", list(capped([f"{reason}." for reason in reasons])))
