"""Changes of a history: its steps, the newest level against a baseline, and lost cases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.history.conclusions import (
    BaselineLine,
    CommonStep,
    Difference,
    LostCase,
    MovedTogether,
    RevisionLabel,
    Step,
    Unchanged,
)
from benchmarks.analysis.history.levels import Segment, change, step_cost
from benchmarks.analysis.history.lines import Timeline
from benchmarks.analysis.history.storage import Revision
from benchmarks.analysis.history.traced import WORDS, Traced
from benchmarks.analysis.reading.fields import InputError

LEAST_RESPONSE = 1 / 4
"""A time that moves by a smaller share of what the machine does has not moved along."""
WORSE = ("slower", "larger", "lost")


def steps(traced: Sequence[Traced]) -> list[Step]:
    """All steps, newest first."""
    found = [
        (one, *step, segment)
        for one in traced
        if one.line.quantity != "machine"
        for step, segment in zip(one.steps, one.segments[1:], strict=True)
    ]
    found.sort(key=lambda step: [step[0].revision(step[3].start - back) for back in (0, 1)], reverse=True)
    return [
        Step(
            machine=one.timeline.name,
            quantity=one.line.quantity,
            name=one.line.name,
            after=label(one.revision(segment.start - 1)),
            since=label(one.revision(segment.start)),
            change=difference(one, old, new),
            commits=segment.stop - segment.start,
        )
        for one, old, new, segment in found
    ]


def common_steps(traced: Sequence[Traced]) -> list[CommonStep]:
    """All steps of a machine itself, newest first; `traced` are its lines."""
    times = [one for one in traced if one.line.quantity == "time"]
    found = [
        _common(times, one, old, new, segment)
        for one in traced
        if one.line.quantity == "machine"
        for (old, new), segment in zip(one.steps, one.segments[1:], strict=True)
    ]
    return sorted(found, key=lambda step: step.since.time, reverse=True)


def _common(times: Sequence[Traced], one: Traced, old: Segment, new: Segment, segment: Segment) -> CommonStep:
    moves: dict[bool, list[bool]] = {True: [], False: []}
    for time in times:
        before, after = (
            time.common[_within(time, one.line.places[side.start], one.line.places[side.stop - 1])]
            for side in (old, new)
        )
        if len(before) and len(after):
            share = float(np.median(after) - np.median(before)) / (new.level - old.level)
            moves[time.line.ceiling].append(share > LEAST_RESPONSE)
    return CommonStep(
        machine=one.timeline.name,
        after=label(one.revision(segment.start - 1)),
        since=label(one.revision(segment.start)),
        change=difference(one, old, new),
        commits=segment.stop - segment.start,
        count=sum(moves[False]),
        of=len(moves[False]),
        ceilings=sum(moves[True]),
        of_ceilings=len(moves[True]),
    )


def _within(one: Traced, first: int, last: int) -> NDArray[np.bool_]:
    return np.asarray((one.line.places >= first) & (one.line.places <= last))


def against_baseline(traced: Sequence[Traced], commit: str | None = None) -> list[BaselineLine]:
    """The newest segment of every line against its baseline.

    The baseline is the segment that holds a chosen commit, or else the one before the last step, so that what
    has grown slower does not become the measure by itself.
    """
    return [_compared(one, commit) for one in traced if one.line.quantity != "machine"]


def _compared(one: Traced, commit: str | None) -> BaselineLine:
    newest = one.segments[-1]
    if commit is None:
        baseline: Segment | None = one.segments[-2] if one.steps else newest
    else:
        baseline = next((segment for segment in one.segments if _holds(one, segment, commit)), None)
    found: Difference | Unchanged
    if baseline is None:
        found = Unchanged("unknown")
    elif one.steps and baseline is one.segments[-2]:
        found = difference(one, *one.steps[-1])
    elif baseline is newest or not _differ(one, baseline, newest):
        found = Unchanged("too few" if one.too_few else "same")
    else:
        found = difference(one, baseline, newest)
    return BaselineLine(
        machine=one.timeline.name,
        quantity=one.line.quantity,
        name=one.line.name,
        baseline=_span(one, baseline) if baseline else None,
        newest=_span(one, newest),
        change=found,
    )


def _holds(one: Traced, segment: Segment, commit: str) -> bool:
    return any(one.revision(index).commit == commit for index in range(segment.start, segment.stop))


def _differ(one: Traced, old: Segment, new: Segment) -> bool:
    """By the same score as a step, and by the margin."""
    if one.line.exact:
        return abs(new.level - old.level) > one.line.slack
    size, cost = abs(new.level - old.level), step_cost(one.noise, len(one.line.values), one.lines)
    return size >= one.margin and size**2 >= cost * (old.error**2 + new.error**2)


def lost(timeline: Timeline) -> list[LostCase]:
    """Cases that ran before, and whose newest outcome is that they run out of memory or fail."""
    return [
        LostCase(timeline.name, failure.key, label(timeline.revisions[failure.place]), failure.outcome)
        for failure in timeline.failures
    ]


def label(revision: Revision) -> RevisionLabel:
    """A revision as conclusions name it."""
    return RevisionLabel(revision.commit, revision.name, revision.time.isoformat())


def _span(one: Traced, segment: Segment) -> list[RevisionLabel]:
    return [label(one.revision(index)) for index in (segment.start, segment.stop - 1)]


def difference(one: Traced, old: Segment, new: Segment) -> Difference:
    """The change of a line from one level to another."""
    if one.line.exact:
        share = new.level / old.level - 1 if old.level else math.inf
        size = low = high = share if math.isfinite(share) else None
    else:
        size, low, high = (
            math.expm1(end) if one.line.logarithmic else end for end in change(old, new, one.noise)
        )
    rise, fall = WORDS.get(one.line.quantity, ("larger", "smaller"))
    verdict = rise if new.level > old.level else fall
    return Difference(verdict, size, low, high, one.natural(old.level), one.natural(new.level))


def find_commit(traced: Sequence[Traced], prefix: str) -> str:
    """The one commit of a history whose id begins so.

    Raises:
        InputError: There is none, or several.
    """
    known = {revision.commit for one in traced for revision in one.timeline.revisions if revision.commit}
    found = sorted(commit for commit in known if commit.startswith(prefix))
    if len(found) == 1 and prefix:
        return found[0]
    what = f"{len(found)} of the history's commits do" if found else "no commit of the history does"
    more = " and more" if len(known) > 5 else ""
    raise InputError(
        f"--baseline {prefix!r} must be how exactly one commit's id begins, but {what}; "
        f"it holds {', '.join(sorted(commit[:7] for commit in known)[:5]) or 'none'}{more}"
    )


def moved_together(found: Sequence[Step], timeline: Timeline) -> Iterator[MovedTogether]:
    """Places where most of a machine's times moved the same way, though not by a state of the machine."""
    times = [line for line in timeline.lines if line.quantity == "time"]
    names = {line.name for line in times if not line.ceiling}
    kernels = {line.name.kernels for line in times if not line.ceiling}
    places: dict[tuple[str, str], int] = {}
    for step in found:
        if step.machine == timeline.name and step.quantity == "time" and step.name in names:
            place = step.since.name, step.change.verdict
            places[place] = places.get(place, 0) + 1
    for (since, verdict), count in places.items():
        if len(names) >= 6 and count >= 2 / 3 * len(names):
            ceilings = len(times) - len(names)
            yield MovedTogether(timeline.name, since, verdict, count, len(names), len(kernels), ceilings)
