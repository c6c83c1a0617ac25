"""Did it change? Two sets of runs compared, case by case, and in what follows from the cases."""

from __future__ import annotations

from benchmarks.analysis.comparison.conclusions import Comparison, SideSummary, UnitCounts
from benchmarks.analysis.comparison.counts import compare_counts, compare_outcomes
from benchmarks.analysis.comparison.energies import compare_energies
from benchmarks.analysis.comparison.judging import (
    find_common,
    find_controls,
    judge_cases,
)
from benchmarks.analysis.comparison.matching import Side, sides, strata
from benchmarks.analysis.comparison.moves import judge_shifts
from benchmarks.analysis.conditions.quality import name_quality
from benchmarks.analysis.conditions.sides import name_differences
from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.machines import differences
from benchmarks.analysis.reading.records import Records
from benchmarks.analysis.reading.run_info import common_options
from benchmarks.analysis.serialization import CONCLUSIONS_SCHEMA

MARGIN = 0.05


def compare(
    base: Records,
    head: Records,
    *,
    margin: float = MARGIN,
    paired: bool | None = None,
    noise: float | None = None,
) -> Comparison:
    """Compare two sets of runs.

    The unit of sampling is the pair of runs, or the run, or with a single run a side its repetitions; then
    an effect of the run of `RUN_EFFECT` is assumed, and the verdicts are `tentative`. On time they are

    - "slower", "faster": Holm's correction over all cases leaves less than 5 % for a change so sure by
      chance, and the mean change is beyond the margin;
    - "same": the 95 % interval lies inside the margin, so a change beyond it is excluded;
    - "inconclusive": neither; "incomparable": measured on different machines or by different clocks.

    Of fewer than 6 runs, only changes beyond what the states of processes may do are called: see `states`.

    Counts and bytes have no noise: any difference is one. An exponent or crossover "moved" by the same two
    conditions, its margin being what times that change by the margin in opposite directions do to it; Holm's
    correction is over all of them. A crossover beyond the measured lengths moved where a length's lead surely
    changed hands: see `moves.judge_shifts`.

    Args:
        base: The runs compared with.
        head: The runs compared.
        margin: The share by which times may differ and be called the same.
        paired: Whether runs are pairs; None: see `matching.strata`.
        noise: The known noise of this machine between equal commits; a larger one replaces the margin.

    Raises:
        InputError: Nothing is comparable, or pairs are wanted of different numbers of runs.
    """
    wide = max(margin, noise or 0.0)
    before, after = sides(base, head)
    parts = list(strata(before, after, paired))
    cases = judge_cases(parts, wide)
    outcomes = compare_outcomes(before, after)
    if not cases and not any(one.verdict in ("lost", "gained") for one in outcomes):
        raise InputError(_why_nothing(before, after))
    exponents, crossovers = judge_shifts(parts, wide)
    counts = [one for part in parts for one in compare_counts(part)]
    units = sorted({part.unit for part in parts})
    verdicts: set[str] = {one.verdict for one in cases}
    verdicts |= {one.verdict for one in counts} | {one.verdict for one in outcomes}
    return Comparison(
        schema=CONCLUSIONS_SCHEMA,
        margin=wide,
        noise=noise,
        unit=units[0] if len(units) == 1 else "mixed",
        units=UnitCounts(
            max((part.base["unit"].nunique() for part in parts), default=0),
            max((part.head["unit"].nunique() for part in parts), default=0),
        ),
        tentative="repetition" in units,
        base=_summary(before, name_quality(base)),
        head=_summary(after, name_quality(head)),
        cases=cases,
        energies=compare_energies(parts, wide),
        counts=counts,
        outcomes=outcomes,
        exponents=exponents,
        crossovers=crossovers,
        common=[one for part in parts for one in find_common(part, wide)],
        controls=[one for part in parts for one in find_controls(part)],
        conditions=name_differences(base, head),
        warnings=[*base.warnings, *head.warnings],
        options=common_options([*base.runs, *head.runs]),
        regressed=not verdicts.isdisjoint(("slower", "larger", "lost")),
    )


def _summary(side: Side, conditions: list[str]) -> SideSummary:
    return SideSummary(
        files=[run.file for run in side.runs],
        commits=list(dict.fromkeys(run.commit.id for run in side.runs)),
        dirty=any(run.commit.dirty for run in side.runs),
        machines=list(dict.fromkeys(run.machine.fingerprint for run in side.runs)),
        conditions=conditions,
    )


def _why_nothing(base: Side, head: Side) -> str:
    found = differences(base.runs[0].machine, head.runs[0].machine)
    if found:
        return (
            f"nothing is comparable: {base.runs[0].file} and {head.runs[0].file} were measured on "
            f"different machines ({'; '.join(found)}); measure both on one"
        )
    return (
        f"nothing is comparable: {base.runs[0].file} and {head.runs[0].file} have no measured case in "
        "common; measure both with the same options"
    )
