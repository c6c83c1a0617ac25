"""What changed in a history: its steps, the newest level against a baseline, and what was lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.analysis.history.lines import Timeline
from benchmarks.analysis.history.steps import Segment, change, step_cost
from benchmarks.analysis.history.storage import Revision
from benchmarks.analysis.history.traces import WORDS, Traced
from benchmarks.analysis.reading.fields import InputError

WORSE = ("slower", "larger", "lost")


def steps(traced: Sequence[Traced]) -> list[dict[str, Any]]:
    """All steps, newest first, JSON-ready.

    Returns:
        Per step `machine`, `quantity`, `name`, `after` (the last revision of the old level), `since` (the
        first of the new one), `verdict`, `size` with `low` and `high` (shares; of exponents differences),
        `old` and `new` (the levels in s, bytes, FLOPs, tokens), `commits` (revisions of the new level).
    """
    found = [
        (one, *step, segment)
        for one in traced
        for step, segment in zip(one.steps, one.segments[1:], strict=True)
    ]
    found.sort(key=lambda step: [step[0].revision(step[3].start - back) for back in (0, 1)], reverse=True)
    return [
        {
            **_identity(one),
            "after": _revision(one.revision(segment.start - 1)),
            "since": _revision(one.revision(segment.start)),
            **difference(one, old, new),
            "commits": segment.stop - segment.start,
        }
        for one, old, new, segment in found
    ]


def against_baseline(traced: Sequence[Traced], commit: str | None = None) -> list[dict[str, Any]]:
    """The newest segment of every line against its baseline.

    The baseline is the segment that holds a chosen commit, or else the one before the last step, so that what
    has grown slower does not become the measure by itself.

    Returns:
        Per line `machine`, `quantity`, `name`, `baseline` and `newest` (first and last revision of the
        segments; `baseline` is None where the commit did not measure the line), `verdict`, and unless it is
        "same" or "unknown" also `size`, `low`, `high`, `old`, `new` as in `steps`.
    """
    return [_compared(one, commit) for one in traced]


def _compared(one: Traced, commit: str | None) -> dict[str, Any]:
    newest = one.segments[-1]
    if commit is None:
        baseline: Segment | None = one.segments[-2] if one.steps else newest
    else:
        baseline = next((segment for segment in one.segments if _holds(one, segment, commit)), None)
    result = {**_identity(one), "baseline": _span(one, baseline), "newest": _span(one, newest)}
    if baseline is None:
        return {**result, "verdict": "unknown"}
    if one.steps and baseline is one.segments[-2]:
        return {**result, **difference(one, *one.steps[-1])}
    if baseline is newest or not _differ(one, baseline, newest):
        return {**result, "verdict": "same"}
    return {**result, **difference(one, baseline, newest)}


def _holds(one: Traced, segment: Segment, commit: str) -> bool:
    return any(one.revision(index).commit == commit for index in range(segment.start, segment.stop))


def _differ(one: Traced, old: Segment, new: Segment) -> bool:
    """By the same score as a step, and by the margin."""
    if one.line.exact:
        return abs(new.level - old.level) > one.line.slack
    size, cost = abs(new.level - old.level), step_cost(one.noise, len(one.line.values), one.lines)
    return size >= one.margin and size**2 >= cost * (old.error**2 + new.error**2)


def lost(timeline: Timeline) -> list[dict[str, Any]]:
    """Cases that used to run and now run out of memory or fail, as far as the newest word on them goes."""
    return [
        {
            "machine": timeline.name,
            "quantity": "outcome",
            "name": key,
            "since": _revision(timeline.revisions[place]),
            "verdict": "lost",
            "outcome": outcome,
        }
        for key, outcome, place in timeline.failures
    ]


def _identity(one: Traced) -> dict[str, Any]:
    return {"machine": one.timeline.name, "quantity": one.line.quantity, "name": one.line.name}


def _revision(revision: Revision) -> dict[str, Any]:
    return {"commit": revision.commit, "name": revision.name, "time": revision.time.isoformat()}


def _span(one: Traced, segment: Segment | None) -> list[dict[str, Any]] | None:
    if segment is None:
        return None
    return [_revision(one.revision(index)) for index in (segment.start, segment.stop - 1)]


def difference(one: Traced, old: Segment, new: Segment) -> dict[str, Any]:
    """What became of a level: `verdict`, `size`, `low`, `high`, `old` and `new` as in `steps`."""
    ends: list[float | None]
    if one.line.exact:
        share = new.level / old.level - 1 if old.level else math.inf
        ends = [share if math.isfinite(share) else None] * 3
    else:
        ends = [math.expm1(end) if one.line.logarithmic else end for end in change(old, new, one.noise)]
    rise, fall = WORDS.get(one.line.quantity, ("larger", "smaller"))
    return {
        "verdict": rise if new.level > old.level else fall,
        **dict(zip(("size", "low", "high"), ends, strict=True)),
        "old": one.natural(old.level),
        "new": one.natural(new.level),
    }


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


def moved_together(found: Sequence[Mapping[str, Any]], timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Where most of a machine's times moved the same way in one place: no kernel does that, but a machine."""
    total = sum(line.quantity == "time" for line in timeline.lines)
    places: dict[tuple[str, str], int] = {}
    for step in found:
        if step["machine"] == timeline.name and step["quantity"] == "time":
            place = step["since"]["name"], step["verdict"]
            places[place] = places.get(place, 0) + 1
    for (since, verdict), count in places.items():
        if total >= 6 and count >= 2 / 3 * total:
            yield {"machine": timeline.name, "since": since, "verdict": verdict, "count": count, "of": total}
