"""What opens a report: the answer per mode and purpose, how sure it is, and the command to make it surer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Verdict
from benchmarks.analysis.layout import WIDTH
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
FASTEST = ", the fastest standard kernel"
ORDER = ("forward", "forward_backward", "prefill", "decode")


class Answer(NamedTuple):
    """A contender in one setting, and its crossover in time with the fastest baseline, if there is one."""

    setting: Setting
    contender: str | None
    pair: PairCrossover | None


def headline(summary: Summary) -> Section:
    """The section that opens a report."""
    plain = _answers(summary)
    command = surer(summary, _pairs(plain))
    labelled = with_labels(summary)
    answers = _answers(labelled)
    if not answers:
        nothing = "Nothing was compared" if summary.series else "Nothing was measured"
        return Section("What the devices can do" if summary.ceilings else nothing, level=1)
    return Section(
        _title(labelled, answers),
        verdicts=_verdicts(answers, _missing(labelled, answers)),
        commands=[command] if command else [],
        level=1,
        brief=_brief(labelled, answers, _verdicts(plain, _missing(summary, plain), brief=True)),
    )


def _brief(
    summary: Summary, answers: Sequence[Answer], verdicts: Sequence[Verdict]
) -> tuple[str, Sequence[Verdict]]:  # fmt: skip
    """Fewer words: the contender of all rows is named once above them, else kernels without their labels."""
    contenders = {one.contender for one in answers if one.contender}
    only = contenders.pop() if len(contenders) == 1 else ""
    title = _title(summary, answers, only)
    if len(title) > WIDTH:
        title = title.partition(FASTEST)[0]
    if only:
        verdicts = _verdicts(answers, _missing(summary, answers), named=False)
    return title, verdicts


def _pairs(answers: Sequence[Answer]) -> list[PairCrossover]:
    return [one.pair for one in answers if one.pair]


def _title(summary: Summary, answers: Sequence[Answer], only: str = "") -> str:
    roles, pairs = summary.roles, [(pair.contender, pair.baseline) for pair in _pairs(answers)]
    usual = roles.against == USUAL.against and role_words(pairs) == ("linear", "standard")
    own = [kernel for kernel in roles.own if any(one.contender == kernel for one in answers)]
    others = any(one.contender and one.contender not in own for one in answers)
    listed = wording.listed(own) + (" and others" if own and others else "")
    contenders = only or listed or ("Linear attention" if usual else "All kernels")
    fastest = FASTEST if usual else f", the fastest of {wording.listed(roles.against)}"
    baselines = list(dict.fromkeys(baseline for _, baseline in pairs))
    if len(baselines) != 1:
        return f"{contenders} against {fastest.removeprefix(', ')}"
    return f"{contenders} against {baselines[0]}" + (FASTEST if usual else "")


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
    answers: Sequence[Answer], missing: Iterable[Verdict], *, named: bool = True, brief: bool = False
) -> list[Verdict]:  # fmt: skip
    """What is missing, and a line for each answer, or of too many for all places of a mode and purpose.

    ``named``: whether findings name the contender; ``brief``: not more than one of them in a line.
    """
    where = wording.telling([one.setting for one in answers], wording.purpose)
    alone, groups = len(answers) <= MOST_ROWS, dict[tuple[str, str | None], list[Answer]]()
    for one in answers:
        place = where(one.setting) if alone else ""
        name = ", ".join(filter(None, [wording.purpose(one.setting), place]))
        groups.setdefault((name, one.contender if alone else None), []).append(one)
    rows = [*missing, *(_verdict(name, group, named, brief) for (name, _), group in groups.items())]
    if len(rows) > MOST_ROWS:
        more = len(rows) - MOST_ROWS + 1
        rows[MOST_ROWS - 1 :] = [Verdict("and", f"{more} more answers, below")]
    return rows


def _verdict(name: str, answers: Sequence[Answer], named: bool, brief: bool) -> Verdict:
    pairs = _pairs(answers)
    found = list(dict.fromkeys(one.contender for one in answers if one.contender and (one.pair or not pairs)))
    kernels = wording.listed(found, most=2)
    if brief and len(found) > 1:
        kernels = f"{len(found)} kernels"
    if not pairs:
        lacking = f"no baseline for {kernels}" if named else "no baseline was measured"
        return Verdict(name, lacking if found else "no contender was measured", "open")
    sure = max((pair.firmness for pair in pairs), key=FIRMNESS.index)
    several = [pair.found for pair in pairs]
    finding = _ahead(several[0]) if len(several) == 1 else _together(several, brief)
    if brief and len(found) > 1:
        finding = finding.replace("wins", "win", 1)
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


def _together(several: Sequence[Crossover], brief: bool) -> str:
    """Where it is ahead in several settings."""
    settings = f"{len(several)}" if brief else wording.count(len(several), "setting")
    places = sorted({round(one.n) for one in several if one.n and one.ahead_beyond == "contender"})
    inside = sum(one.n is not None and one.ahead_beyond == "contender" for one in several)
    everywhere = sum(one.kind == "below" for one in several)
    if brief and everywhere and inside:
        return f"wins at the longest N in {everywhere + inside} of {settings}"
    found = []
    if everywhere:
        found.append(f"at every N in {everywhere}")
    if inside:
        found.append(f"from N={wording.ends(places)} in {inside}")
    told = " and ".join(found) or "at the longest N in none"
    return f"wins {told} of {settings}"
