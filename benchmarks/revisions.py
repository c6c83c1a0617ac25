"""Two revisions measured in pairs of fresh processes, under the same benchmark code."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.analysis.reading.fields import InputError
from benchmarks.cache import replacing
from benchmarks.own.sessions import of_each_side, own_content, own_functions
from benchmarks.runs import ROOT, SETTINGS_FILE, measure, time_left
from benchmarks.survival.leftovers import complete, set_aside, set_in_order
from benchmarks.worktrees import (
    KERNELS,
    WORKING_TREE,
    Revision,
    checked_out,
    environment,
    find_revision,
    has_changes,
    named,
)

SIDES = ("base", "head")
UNPAIRED = "unpaired"
"""The word in the names of files of runs whose pair was not completed."""


@dataclass(frozen=True)
class Pairs:
    """A plan of pairs of runs of two revisions, the folder of their files, and what is measured of each.

    `content` names files or folders of the repository: those of a user's own, where `root` is not this suite.
    """

    base: Revision
    head: Revision
    pairs: int
    pytest_options: Sequence[str]
    folder: Path
    content: Sequence[str] = (KERNELS,)

    @property
    def same_code(self) -> bool:
        """Whether both sides measure the same code, so that what differs between their times is noise."""
        own = own_functions(self.pytest_options) and self.content == (KERNELS,)
        return self.base.same_kernels(self.head) and not own

    @property
    def of_own_files(self) -> bool:
        """Whether revisions of a user's own files are compared, and not of the kernels here."""
        return self.content != (KERNELS,)

    def file(self, side: str, pair: int) -> Path:
        """The JSON of one run; pairs count from 1."""
        return self.folder / f"{side}-{pair:02d}.json"

    def files(self, side: str) -> list[Path]:
        """The JSON files of one side, in the order of their pairs."""
        return [self.file(side, pair) for pair in range(1, self.pairs + 1)]

    def missing(self) -> list[int]:
        """The pairs that are not complete; half a pair is measured again, for its halves belong together."""
        return [
            pair for pair in range(1, self.pairs + 1) if not all(self._complete(side, pair) for side in SIDES)
        ]

    def _complete(self, side: str, pair: int) -> bool:
        try:
            return complete(self.file(side, pair))
        except InputError:
            return False

    def settings(self) -> dict[str, Any]:
        """By which an interrupted comparison is known again."""
        return {
            "base": self.base.label,
            "head": self.head.label,
            "pairs": self.pairs,
            "pytest_options": list(self.pytest_options),
        }


def plan_pairs(
    names: Sequence[str], pairs: int, pytest_options: Sequence[str], output: Path, root: Path = ROOT
) -> Pairs:
    """Find the revisions, and the folder below `output` that takes their runs.

    That is a new one, numbered, unless the last one was interrupted and is continued: a folder holds one
    comparison, and none is overwritten.

    Raises:
        InputError: Not two revisions were named, or one of them cannot be measured.
    """
    if len(names) != 2:
        raise InputError(
            f"--rev was given {len(names)} times, but twice is needed: first the base, then the revision "
            "that is compared with it"
        )
    content = own_content(pytest_options, root) if root != ROOT else (KERNELS,)
    base, head = (find_revision(name, root, content) for name in names)
    folders = sorted(
        path for path in output.glob("runs-*") if path.is_dir() and re.fullmatch(r"runs-\d{3,9}", path.name)
    )
    if folders:
        last = Pairs(base, head, pairs, pytest_options, folders[-1], content)
        # Changes that are not committed have no name by which they are known to be the same.
        if (
            last.missing()
            and not (base.changed or head.changed)
            and _settings(last.folder) == last.settings()
        ):
            return last
    number = int(folders[-1].name.partition("-")[2]) + 1 if folders else 1
    return Pairs(base, head, pairs, pytest_options, output / f"runs-{number:03d}", content)


def _settings(folder: Path) -> Any:
    try:
        settings = folder / SETTINGS_FILE
        return json.loads(settings.read_text()) if settings.is_file() else None
    except (OSError, ValueError):
        return None


def describe(plan: Pairs, root: Path = ROOT) -> str:
    """The two revisions and the number of pairs, in a sentence or two."""
    sides = f"{plan.base.name} ({plan.base.label}) and of {plan.head.name} ({plan.head.label})"
    text = f"{named(plan.content)} of {sides}"
    if plan.same_code:
        return f"{text}: the same code, so whatever differs is the noise of this machine."
    if WORKING_TREE not in (plan.base.name, plan.head.name) and has_changes(root, plan.content):
        return (
            f"{text}. The changes in your working tree are not in either; --rev {WORKING_TREE} measures them."
        )
    return f"{text}."


def measure_pairs(plan: Pairs, say: Callable[[str], None] = print, root: Path = ROOT) -> None:
    """Measure what is missing of a plan in the order base, head, head, base, base, head ...

    So a machine that grows slower all the while slows both sides alike. Every run is a fresh process that
    imports the kernels of its revision, or refuses; the benchmark code is that of the tree run from.

    Raises:
        InputError: A revision cannot be checked out, or the benchmark code does not fit its kernels.
    """
    missing = plan.missing()
    if not missing:
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    set_in_order(plan.folder, say)
    with replacing(plan.folder / SETTINGS_FILE) as provisional:
        provisional.write_text(json.dumps(plan.settings(), indent=2) + "\n")
    for file in (plan.file(side, pair) for pair in missing for side in SIDES):
        if file.exists():
            say(f"{file} lacks the other run of its pair: it is {set_aside(file, UNPAIRED).name} now.")
    revisions = dict(zip(SIDES, (plan.base, plan.head), strict=True))
    suite = ROOT if plan.of_own_files else root
    with checked_out(list(revisions.values()), root, plan.content, suite) as (harness, folders):
        places = dict(zip(SIDES, folders, strict=True))
        told = _options_of_sides(plan, root, places)
        began, total = time.monotonic(), 2 * len(missing)
        for done, (pair, side) in enumerate(order(missing)):
            left = time_left(time.monotonic() - began, done, total - done)
            say(f"pair {pair} of {plan.pairs}: {side} {revisions[side].label}{left}")
            options = (*told[side], f"--pair={pair}", f"--side={side}")
            kernels = suite if plan.of_own_files else places[side]
            _measure(plan.file(side, pair), options, harness, kernels, revisions[side])
            if side == "base":
                _refuse_nothing(plan.file(side, pair), plan.base)


def _options_of_sides(plan: Pairs, root: Path, places: Mapping[str, Path]) -> dict[str, list[str]]:
    """What the runs of both sides are told: where their kernels and their own functions are."""
    named = {side: getattr(plan, side).name for side in SIDES}
    # The working tree's own files are copied beside those of a commit where they are what is compared.
    current = [side for side in SIDES if named[side] == WORKING_TREE and not plan.of_own_files]
    told = of_each_side(plan.pytest_options, root, places, current)
    own = {side: f"--commit-of={places[side]}" for side in SIDES}
    kernels = {side: f"--kernels-from={places[side]}" for side in SIDES}
    return {side: [*told[side], (own if plan.of_own_files else kernels)[side]] for side in SIDES}


def order(pairs: Sequence[int]) -> list[tuple[int, str]]:
    """The runs of these pairs, each side first in every other one."""
    return [(pair, side) for pair in pairs for side in (SIDES if pair % 2 else reversed(SIDES))]


def _measure(file: Path, options: Sequence[str], harness: Path, kernels: Path, revision: Revision) -> None:
    inherited = environment()
    paths = [str(harness), str(kernels), *filter(None, [inherited.get("PYTHONPATH")])]
    try:
        measure(file, options, harness, {**inherited, "PYTHONPATH": os.pathsep.join(paths)})
    except InputError as error:
        raise InputError(
            f"--rev {revision.name} ({revision.label}) cannot be measured by the benchmark code of this "
            f"tree: {error}"
        ) from None


def _refuse_nothing(file: Path, base: Revision) -> None:
    content = json.loads(file.read_text())
    if not content["benchmarks"]:
        file.unlink()
        left_out = content["not_measured"]
        raise InputError(
            f"--rev {base.name} ({base.label}): none of its {len(left_out)} cases could be measured, so "
            f"there is nothing to compare with; the first, {left_out[0]['key']}: {left_out[0]['reason']}"
        )
