"""The answer of a comparison: what changed, how sure that is, and what it rests on."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

from benchmarks.analysis import wording
from benchmarks.analysis.comparison.conclusions import Comparison, Ratio, SideSummary
from benchmarks.analysis.comparison.naming import ENERGY_ORDER, ORDER, QUANTITIES, change, commits, share
from benchmarks.analysis.comparison.states import ALPHA, FARTHEST, chance
from benchmarks.analysis.document import Command, Verdict
from benchmarks.analysis.reading.roles import option_words
from benchmarks.analysis.scaling.run_effect import RUN_EFFECT

LEAST_PAIRS = 6
"""Pairs of runs that leave less than 5 % to the states of processes."""
NUMBER_WORDS = {"pair": "pair of runs measured in turn", "run": "run", "repetition": "repetition"}


class Judged(Protocol):
    """A conclusion with a verdict."""

    @property
    def verdict(self) -> str:
        """The verdict in a word."""


def count_verdicts(rows: Sequence[Judged]) -> Counter[str]:
    """How many conclusions have each verdict."""
    return Counter(row.verdict for row in rows)


def title(comparison: Comparison) -> str:
    """How many cases were compared, and how many of them changed."""
    found = {
        **{verdict: count_verdicts(comparison.cases)[verdict] for verdict in ("slower", "faster")},
        **{verdict: len({row.key for row in comparison.counts if row.verdict == verdict})
           for verdict in ("larger", "smaller")},
        "lost": count_verdicts(comparison.outcomes)["lost"],
    }  # fmt: skip
    parts = [f"{number} {verdict}" for verdict, number in found.items() if number]
    cases = wording.count(len(comparison.cases), "case")
    if any(one.moved for one in comparison.common):
        parts.append("everything moved")
    firm = any(case.verdict != "inconclusive" for case in comparison.cases)
    return f"{cases} compared: {', '.join(parts) or ('no change found' if firm else 'nothing can be told')}"


def verdicts(comparison: Comparison) -> Iterator[Verdict]:
    """The findings, a line each."""
    cases = count_verdicts(comparison.cases)
    words = {"same": f"the same within {share(comparison.margin)}"}
    parts = [f"{cases[verdict]} {words.get(verdict, verdict)}" for verdict in ORDER if cases[verdict]]
    if parts:
        yield Verdict("time", ", ".join(parts), _firmness(comparison, comparison.cases))
    energies = count_verdicts(comparison.energies)
    parts = [f"{energies[one]} {words.get(one, one)}" for one in ENERGY_ORDER if energies[one]]
    if parts:
        yield Verdict("energy", ", ".join(parts), _firmness(comparison, comparison.energies))
    yield from _sizes(comparison)
    outcomes = count_verdicts(comparison.outcomes)
    if outcomes["lost"]:
        lost = wording.count(outcomes["lost"], "case")
        yield Verdict("lost", f"{lost} of the base that can no longer be measured", "firm")
    moved = [count_verdicts(shifts)["moved"] for shifts in (comparison.exponents, comparison.crossovers)]
    if any(moved):
        found = f"{wording.count(moved[0], 'exponent')} and {wording.count(moved[1], 'crossover')}"
        yield Verdict("moved", found, _firmness(comparison, comparison.cases))
    devices = dict.fromkeys(one.device for one in comparison.common if one.moved)
    if devices:
        yield Verdict(
            "machine", f"all times moved alike on {' and '.join(devices)}: hardly the commit", "open"
        )


def _sizes(comparison: Comparison) -> Iterator[Verdict]:
    """Counts and bytes that grew or shrank, in one line."""
    found = {}
    for verdict in ("larger", "smaller"):
        rows = [row for row in comparison.counts if row.verdict == verdict]
        quantities = Counter(QUANTITIES[row.quantity][0] for row in rows)
        where = [f"{name} in {wording.count(n, 'case')}" for name, n in quantities.most_common()]
        if where:
            found[verdict] = wording.listed(where, most=2)
    if len(found) == 2:
        found = {"larger": f"{found['larger']}; smaller: {found['smaller']}"}
    for verdict, words in found.items():
        yield Verdict(verdict, words, "firm")


def _firmness(comparison: Comparison, rows: Sequence[Judged]) -> str:
    """How sure the verdicts of these rows are."""
    if all(row.verdict == "inconclusive" for row in rows):
        return "open"
    return "tentative" if comparison.tentative or _few_runs(comparison) else "firm"


def _few_runs(comparison: Comparison) -> bool:
    units = comparison.units
    by_states = float(chance(units.base + units.head))
    return comparison.unit in ("pair", "run") and by_states > ALPHA


def surer(comparison: Comparison) -> Iterator[Command]:
    """The command that measures both commits again, in more pairs; none where nothing is in doubt.

    And none where the runs do not tell their two commits or their options, or were not of commits alone.
    """
    if comparison.options is None:
        return
    sides = (comparison.base, comparison.head)
    found = [side.commits[0] for side in sides if len(side.commits) == 1 and not side.dirty]
    names = [commit[:9] for commit in found if commit]
    doubtful = any(case.verdict == "inconclusive" for case in comparison.cases)
    if (doubtful or _firmness(comparison, comparison.cases) != "firm") and len(set(names)) == len(sides):
        units = 0 if comparison.tentative else min(comparison.units.base, comparison.units.head)
        options = map(shlex.quote, option_words(comparison.options, " "))
        revisions = [f"--rev {shlex.quote(name)}" for name in names]
        yield Command(
            ["python -m benchmarks compare", *revisions, f"--pairs {max(LEAST_PAIRS, 2 * units)}", *options]
        )


def common_changes(comparison: Comparison) -> Iterator[str]:
    """Changes of all cases alike, which may not be the commit's."""
    for one in comparison.common:
        if one.moved:
            speed = "slower" if (one.change.ratio or 1) > 1 else "faster"
            yield (
                f"Everything moved on {one.device}: the median case is {speed}, "
                f"{change(one.change)}, and {wording.percent(one.share)} of "
                f"the cases are within {share(one.within)} of that. Another state of the machine (its "
                "clock, its temperature, other work) does this more often than a commit; measure both sides "
                "in turn."
            )
    ceilings = [one for one in comparison.controls if _surely(one.change, comparison.margin)]
    if ceilings:
        which = ", ".join(f"{one.kernel} {change(one.change)}" for one in ceilings)
        yield (
            "The machine itself changed: its ceilings, which no kernel touches, moved by more than the "
            f"margin ({which})."
        )


def _surely(found: Ratio, margin: float) -> bool:
    ratio, low, high = found.ratio, found.low, found.high
    if ratio is None or low is None or high is None:
        return False
    return max(ratio, 1 / ratio) > 1 + margin and not low <= 1 <= high


def ground(comparison: Comparison) -> Iterator[str]:
    """The runs, units and margin that the answer rests on."""
    base, head = (_side(side) for side in (comparison.base, comparison.head))
    places = list(dict.fromkeys(wording.place(case.case.setting) for case in comparison.cases))
    where = f" On {wording.listed(places)}." if places else ""
    yield f"Base: {base}. Head: {head}.{where}"
    units = comparison.units
    many = f"{units.base}" if units.base == units.head else f"{units.base} and {units.head}"
    unit = NUMBER_WORDS.get(comparison.unit, "pair, run or repetition, by device")
    yield (
        f"The unit of sampling is the {unit}; there are {many}. Changes are head against base, with 95 % "
        "intervals; alarms are corrected for the number of cases."
    )
    noise = comparison.noise
    known = f" (A/A noise here: {share(noise)})" if noise is not None else ""
    yield f"Margin {share(comparison.margin)}{known}: smaller changes raise no alarm."
    if _few_runs(comparison):
        odds = wording.percent(float(chance(units.base + units.head)))
        yield (
            f"Few runs: in {odds} of such comparisons a case looks changed if its processes have two "
            f"states. Only a change surely beyond {share(FARTHEST - 1)} raises an alarm."
        )
    if comparison.tentative:
        yield (
            f"Tentative: there is one run a side, so {share(RUN_EFFECT)} are assumed for what a run "
            "does to each of its cases. Several runs a side, best measured in turn, say what it is."
        )


def _side(side: SideSummary) -> str:
    of = f" of {commits(side)}" if commits(side) else ""
    return f"{wording.count(len(side.files), 'run')}{of}"
