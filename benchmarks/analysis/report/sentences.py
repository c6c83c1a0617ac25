"""How crossovers, growth and laws read in a report: in its text and in its pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.analysis import wording
from benchmarks.analysis.report.conclusions import PairCrossover
from benchmarks.analysis.scaling.bends import Bend
from benchmarks.analysis.scaling.exponent import Exponent
from benchmarks.analysis.scaling.forms import Term

VERBS = {
    "time": ("beats", "is faster than"),
    "peak_bytes": ("needs less memory than",) * 2,
    "energy_j": ("takes less energy than",) * 2,
}
"""How a contender is ahead of a baseline, from some length on and up to some length."""


class Predicate(NamedTuple):
    """A statement about a contender: a verb, the baseline as its object, and the rest."""

    verb: str
    baseline: str
    rest: str


def predicate(pair: PairCrossover) -> Predicate:
    """The statement of a crossover about its contender."""
    found, baseline = pair.found, pair.baseline
    verb, comparison = VERBS[pair.quantity]
    if found.lengths is None:
        return Predicate("has no length in common with", baseline, "")
    if found.kind == "inside":
        place = wording.interval(found.n, found.low, found.high, ".0f")
        if found.ahead_beyond == "contender":
            return Predicate(verb, baseline, f" from N = {place}")
        return Predicate(comparison, baseline, f" only up to N = {place}, and not beyond")
    shortest, longest = found.lengths
    where = f"N = {shortest}" + (f" to {longest}" if longest > shortest else "")
    if found.within_noise:
        where += f", within the noise at {', '.join(map(str, found.within_noise))}"
    if found.kind == "below":
        return Predicate(verb, baseline, f" at every length measured ({where})")
    if found.kind == "above":
        return Predicate(f"never {verb}", baseline, f" ({where})")
    ahead = pair.contender if found.ahead_beyond == "contender" else baseline
    return Predicate(
        "changes places with", baseline, f" more than once ({where}; in the end {ahead} is ahead)"
    )


def crossover(pair: PairCrossover) -> str:
    """A crossover as a sentence without its full stop."""
    verb, baseline, rest = predicate(pair)
    return f"{pair.contender} {verb} {baseline}{rest}"


def joined(predicates: Iterable[Predicate]) -> str:
    """Predicates of one contender in one sentence without its subject.

    Baselines of which the same is said stand together, and no verb stands twice in a row.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for verb, baseline, rest in predicates:
        alike.setdefault((verb, rest), []).append(baseline)
    sentence, last = "", ""
    for (verb, rest), baselines in sorted(alike.items(), key=lambda item: item[0][0]):
        objects = " and ".join(filter(None, [", ".join(baselines[:-1]), baselines[-1]])) + rest
        joint = ", " if verb == last else f"; {verb} " if sentence else f"{verb} "
        sentence, last = sentence + joint + objects, verb
    return sentence


def short_crossover(pair: PairCrossover) -> str:
    """A crossover in the few words of a legend."""
    against, found = f"{pair.contender} against {pair.baseline}", pair.found
    if found.kind == "inside":
        place = f"N* = {wording.interval(found.n, found.low, found.high, '.0f')}"
        return f"{against}: {place}" + ("" if found.ahead_beyond == "contender" else ", ahead only below")
    words = {
        "below": "ahead at every length",
        "above": "never ahead",
        "multiple": "several crossovers",
        "none": "no common length",
    }
    return f"{against}: {words[found.kind]}"


GROWTH_WORDS = {
    "constant": "does not grow (constant)",
    "like linear": "grows like N (N² is ruled out)",
    "like quadratic": "grows like N² (N is ruled out)",
}
"""The verdicts on growth that are no names of powers."""


def growth(found: Exponent) -> str:
    """The verdict on an exponent with its interval, as far as there is something to say by a number."""
    words = GROWTH_WORDS.get(found.verdict, found.verdict)
    if found.reason:
        return words
    return f"{words}, p = {wording.interval(found.value, found.low, found.high)}"


def bend(found: Bend) -> str:
    """Where growth turns from N² to N, without its subject and full stop."""
    counted = "" if found.counted_n is None else f"FLOPs bend at N = {found.counted_n:.0f}"
    if found.kind == "inside":
        place = wording.interval(found.n, found.low, found.high, ".0f")
        return f"time grows like N² up to N = {place} and like N beyond" + (counted and f"; {counted}")
    if found.kind == "below":
        return f"{counted}, before every length measured, and grow like N from there on"
    return f"{counted}, and the times do not tell where they bend"


def law(terms: Iterable[Term]) -> str:
    """A fitted law with its numbers, without terms that are zero: "47.4 µs + 9.83 ns · N²"."""
    return " + ".join(
        wording.seconds(term.seconds) + (f" · {term.growth}" if term.growth else "")
        for term in terms
        if term.seconds
    )
