"""What opens a history: what is worse now, the steps, and how small a step could have shown."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator

from benchmarks.analysis import wording
from benchmarks.analysis.document import Command, Section, Verdict
from benchmarks.analysis.history.changes import WORSE
from benchmarks.analysis.history.conclusions import History
from benchmarks.analysis.history.disturbed import label
from benchmarks.analysis.history.names import is_ceiling

BETTER = ("faster", "smaller")


def opening(history: History) -> Section:
    """The newest level against the baseline, the steps, and how small a step could have shown."""
    return Section("History", verdicts=list(_verdicts(history)), commands=list(_surer(history)), level=1)


def _verdicts(history: History) -> Iterator[Verdict]:
    lines = [one for one in history.baseline.lines if not is_ceiling(one.name)]
    found = Counter(one.change.verdict for one in lines)
    found["lost"] = len(history.lost)
    changed = [f"{found[word]} {word}" for word in (*WORSE, *BETTER) if found[word]]
    rest = f"{found['same']} of {wording.count(len(lines), 'line')} as at the baseline"
    yield Verdict("worse" if any(found[word] for word in WORSE) else "now", ", ".join([*changed, rest]))
    if history.steps:
        places = {(one.machine, one.since) for one in history.steps}
        newest = label(history.steps[0].since)
        steps = f"{wording.count(len(history.steps), 'step')} at {wording.count(len(places), 'place')}"
        yield Verdict("steps", f"{steps}, the newest at {newest}")
    else:
        yield Verdict("steps", "none was found")
    if history.common_steps:
        newest = label(history.common_steps[0].since)
        times = wording.count(len(history.common_steps), "time")
        yield Verdict("machine", f"it changed {times}, the last time at {newest}")
    smallest = [one.smallest_step for one in history.machines if one.smallest_step is not None]
    if smallest:
        yield Verdict("sight", f"a typical time shows a step of {wording.percent(min(smallest))} or more")
    else:
        yield Verdict("sight", "of times nothing can be told yet: there are too few revisions")


def _surer(history: History) -> Iterator[Command]:
    """The command that measures both sides of the newest step that made something worse."""
    for step in history.steps:
        if step.change.verdict in WORSE and step.after.commit and step.since.commit:
            revisions = [f"--rev {shlex.quote(one.commit[:9])}" for one in (step.after, step.since)]
            yield Command(["python -m benchmarks compare", *revisions])
            return
