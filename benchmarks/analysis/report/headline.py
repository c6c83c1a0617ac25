"""What opens a report: the answer per mode and purpose, how sure it is, and the command to make it surer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Verdict
from benchmarks.analysis.layout import WIDTH, fits
from benchmarks.analysis.reading.roles import USUAL, Roles, role_words
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.conclusions import PairCrossover, Series, Summary, headline_kernel
from benchmarks.analysis.report.functions import with_labels
from benchmarks.analysis.report.inference import fastest_baseline
from benchmarks.analysis.report.next_steps import surer
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.firmness import FIRMNESS

MOST_ROWS = 6
"""Answers that leave lines for a title and a command; those beyond stand in the sections."""
ORDER = ("forward", "forward_backward", "prefill", "decode")


class Answer(NamedTuple):
    """A contender in one setting, and its crossover in time with the fastest baseline, if there is one."""

    setting: Setting
    contender: str | None
    pair: PairCrossover | None


def headline(summary: Summary) -> Section:
    """The section that opens a report."""
    command = surer(summary, _pairs(_answers(summary)))
    summary = with_labels(summary)
    answers = _answers(summary)
    if not answers:
        nothing = "Nothing was compared" if summary.series else "Nothing was measured"
        return Section("What the devices can do" if summary.ceilings else nothing, level=1)
    verdicts, only = _verdicts(answers, _missing(summary, answers)), ""
    if not fits(verdicts, WIDTH):
        # The one contender of all rows is named once, above them.
        only = _only_contender(answers)
        verdicts = _verdicts(answers, _missing(summary, answers), named=not only)
    return Section(
        _title(summary, answers, only),
        verdicts=verdicts,
        commands=[command] if command else [],
        level=1,
    )


def _pairs(answers: Sequence[Answer]) -> list[PairCrossover]:
    return [one.pair for one in answers if one.pair]


def _only_contender(answers: Sequence[Answer]) -> str:
    found = {pair.contender for pair in _pairs(answers)}
    return found.pop() if len(found) == 1 else ""


def _title(summary: Summary, answers: Sequence[Answer], only: str) -> str:
    roles, pairs = summary.roles, [(pair.contender, pair.baseline) for pair in _pairs(answers)]
    usual = roles.against == USUAL.against and role_words(pairs) == ("linear", "standard")
    own = [kernel for kernel in roles.own if any(one.contender == kernel for one in answers)]
    contenders = only or wording.listed(own) or ("Linear attention" if usual else "All kernels")
    fastest = "the fastest standard kernel" if usual else f"the fastest of {wording.listed(roles.against)}"
    baselines = list(dict.fromkeys(baseline for _, baseline in pairs))
    if len(baselines) != 1:
        return f"{contenders} against {fastest}"
    return f"{contenders} against {baselines[0]}" + (f", {fastest}" if usual else "")


def _answers(summary: Summary) -> list[Answer]:
    """An answer for each setting of attention, and for each kernel of the user's own in it."""
    settings = dict.fromkeys(one.setting for one in summary.series if one.is_attention)
    found = [answer for setting in settings for answer in _of_setting(summary, setting)]
    own = {one.setting for one in found if one.contender in summary.roles.own}

    def order(one: Answer) -> tuple[bool, bool, int, bool]:
        phase = str(one.setting.phase)
        purpose = ORDER.index(phase) if phase in ORDER else len(ORDER)
        others = bool(own) and one.setting not in own
        return one.setting.subject != "operator", others, purpose, one.setting.mode != "causal"

    return sorted(found, key=order)


def _of_setting(summary: Summary, setting: Setting) -> Iterator[Answer]:
    series, roles = [one for one in summary.series if one.setting == setting], summary.roles
    baseline = fastest_baseline(series, roles)
    pairs = {
        pair.contender: pair
        for pair in summary.crossovers
        if (pair.setting, pair.quantity, pair.baseline) == (setting, "time", baseline)
    }
    contenders: list[str | None] = [*_own(series, roles)] or [headline_kernel(series, roles)]
    for contender in contenders:
        yield Answer(setting, contender, pairs.get(contender or ""))


def _own(series: Sequence[Series], roles: Roles) -> list[str]:
    return sorted((one.kernel for one in series if one.kernel in roles.own), key=roles.order)


def _missing(summary: Summary, answers: Sequence[Answer]) -> Iterator[Verdict]:
    """The user's own kernels without any time, of which the sections tell why."""
    for kernel in summary.roles.own:
        if all(one.contender != kernel for one in answers):
            yield Verdict(kernel, "not measured", "open")


def _verdicts(
    answers: Sequence[Answer], missing: Iterable[Verdict], *, named: bool = True
) -> list[Verdict]:  # fmt: skip
    """What is missing, and a line for each answer, or of too many for all places of a mode and purpose.

    ``named``: whether the findings name the contender.
    """
    where = wording.telling([one.setting for one in answers], wording.purpose)
    alone, groups = len(answers) <= MOST_ROWS, dict[tuple[str, str | None], list[Answer]]()
    for one in answers:
        place = where(one.setting) if alone else ""
        name = ", ".join(filter(None, [wording.purpose(one.setting), place]))
        groups.setdefault((name, one.contender if alone else None), []).append(one)
    rows = [*missing, *(_verdict(name, group, named) for (name, _), group in groups.items())]
    if len(rows) > MOST_ROWS:
        more = len(rows) - MOST_ROWS + 1
        rows[MOST_ROWS - 1 :] = [Verdict("and", f"{more} more answers, which stand in the sections below")]
    return rows


def _verdict(name: str, answers: Sequence[Answer], named: bool) -> Verdict:
    pairs = _pairs(answers)
    if not pairs:
        missing = "contender" if all(one.contender is None for one in answers) else "baseline"
        return Verdict(name, f"no {missing} was measured", "open")
    kernels = wording.listed(list(dict.fromkeys(pair.contender for pair in pairs)), most=2)
    sure = max((pair.firmness for pair in pairs), key=FIRMNESS.index)
    several = [pair.found for pair in pairs]
    finding = _ahead(several[0]) if len(several) == 1 else _together(several)
    return Verdict(name, f"{kernels} {finding}" if named else finding, sure)


def _ahead(found: Crossover) -> str:
    """Where a contender is ahead, after its name."""
    if found.lengths is None:
        return "has no length in common with it"
    if found.kind == "inside":
        place = f"N={wording.interval(found.n, found.low, found.high, '.0f')}"
        return f"wins from {place}" if found.ahead_beyond == "contender" else f"wins up to {place} only"
    words = {"below": "wins at N=", "above": "loses at N=", "multiple": "wins at some N only, "}
    return f"{words[found.kind]}{wording.ends(found.lengths)}"


def _together(several: Sequence[Crossover]) -> str:
    """Where it is ahead in several settings."""
    places = sorted({round(one.n) for one in several if one.n and one.ahead_beyond == "contender"})
    inside = sum(one.n is not None and one.ahead_beyond == "contender" for one in several)
    everywhere = sum(one.kind == "below" for one in several)
    settings, found = wording.count(len(several), "setting"), []
    if everywhere:
        found.append(f"at every N in {everywhere}")
    if inside:
        found.append(f"from N={wording.ends(places)} in {inside}")
    told = " and ".join(found) or "at the longest N in none"
    return f"wins {told} of {settings}"
