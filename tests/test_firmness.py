"""Firmness of conclusions (firm, tentative or open) and the mark of it in a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.analysis.document import Section
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from benchmarks.analysis.scaling.crossover import Crossover
from benchmarks.analysis.scaling.exponent import Exponent
from benchmarks.analysis.scaling.firmness import RULE, Unit, of_crossover, of_exponent
from tests.synthetic import Law, Noise, Run

INSIDE = Crossover("inside", 1000, 900, 1100, "contender", (256, 8192), units=3)
BELOW = Crossover("below", ahead_beyond="contender", lengths=(256, 8192), units=3)
QUADRATIC = Exponent(2.0, 1.95, 2.05, "quadratic", (256, 8192), 3)


@pytest.mark.parametrize(
    ("found", "unit", "expected"),
    [
        (INSIDE, "run", "firm"),
        (INSIDE, "repetition", "tentative"),
        (replace(INSIDE, units=2), "run", "tentative"),
        (replace(INSIDE, low=700), "run", "tentative"),  # wider than a factor of 1.5
        (replace(INSIDE, within_noise=[1024]), "run", "firm"),  # outside of it one kernel is ahead
        (replace(INSIDE, within_noise=[256]), "run", "tentative"),  # the crossover may lie below
        (replace(INSIDE, within_noise=[256, 8192]), "run", "open"),
        (replace(INSIDE, low=None, high=None, units=1), "run", "open"),
        (BELOW, "run", "firm"),
        (replace(BELOW, kind="above"), "run", "firm"),
        (replace(BELOW, within_noise=[512]), "run", "tentative"),
        (replace(BELOW, within_noise=[256, 512, 8192]), "run", "open"),
        (replace(BELOW, kind="multiple"), "run", "firm"),
        (replace(BELOW, kind="multiple", within_noise=[512]), "run", "tentative"),
        (Crossover("none"), "run", "open"),
    ],
)
def test_a_crossover_is_as_firm_as_its_units_and_its_interval(
    found: Crossover, unit: Unit, expected: str
) -> None:
    assert of_crossover(found, unit) == expected


def test_a_crossover_of_bytes_is_exact_and_firm() -> None:
    assert of_crossover(replace(BELOW, units=1), "repetition", exact=True) == "firm"


@pytest.mark.parametrize(
    ("exponent", "unit", "expected"),
    [
        (QUADRATIC, "run", "firm"),
        (QUADRATIC, "repetition", "tentative"),
        (replace(QUADRATIC, units=2), "run", "tentative"),
        (replace(QUADRATIC, verdict="undetermined"), "run", "open"),
        (replace(QUADRATIC, verdict="not reached"), "run", "open"),
    ],
)
def test_an_exponent_is_as_firm_as_its_units_and_its_verdict(
    exponent: Exponent, unit: Unit, expected: str
) -> None:
    assert of_exponent(exponent, unit) == expected


LAWS = {
    ("standard-sdpa", "causal"): Law(1.2e-8, 2),
    ("linear-chunked", "causal"): Law(1.6e-5, 1),
}


def report(folder: Path, files: int, repetitions: int = 3) -> list[Section]:
    """Sections of a report over a number of runs."""
    paths = [
        Run(LAWS, repetitions=repetitions, noise=Noise(), seed=seed).write(folder / f"{seed}.json")
        for seed in range(files)
    ]
    records = load(paths)
    return sections(summarise(records), case_table(records))


@pytest.mark.parametrize(("files", "mark"), [(1, "tentative"), (2, "tentative"), (3, "firm")])
def test_every_conclusion_of_the_answer_has_its_mark_of_firmness(
    files: int, mark: str, tmp_path: Path
) -> None:
    opening, answer, *others = report(tmp_path, files)
    (about,) = (one for one in others if one.title == "About these numbers")
    assert any(RULE in sentence for sentence in about.sentences)
    assert [one.sure for one in opening.verdicts] == [mark]
    time, memory, growth = answer.sentences
    assert time.startswith(f"Time ({mark}): linear-chunked beats standard-sdpa from N = ")
    assert memory.startswith("Peak memory (firm): ")
    assert growth.startswith(f"Growth ({mark}): ") and "linear-chunked linear, p = " in growth
    assert "standard-sdpa quadratic, p = " in growth


def test_conclusions_on_time_from_a_single_repetition_are_open_and_have_no_interval(tmp_path: Path) -> None:
    opening, answer, *others = report(tmp_path, 1, repetitions=1)
    assert not any("Brackets" in sentence for one in others for sentence in one.sentences)
    assert [one.sure for one in opening.verdicts] == ["open"]
    assert [sentence.partition(":")[0] for sentence in answer.sentences] == [
        "Time (open)", "Peak memory (firm)", "Growth (open)",
    ]  # fmt: skip


def test_laws_of_growth_are_all_shown_with_the_evidence_against_each(tmp_path: Path) -> None:
    (laws,) = [part for part in report(tmp_path, 3) if part.title.startswith("Laws of growth")]
    assert laws.table is not None
    rows = {row[0].removesuffix(" *"): row[1] for row in laws.table.rows}
    assert len(rows) == 2 * 4 and sum(row[0].endswith(" *") for row in laws.table.rows) == 2
    assert rows["standard-sdpa: c + a N²"] == rows["linear-chunked: c + a N"] == "tenable"
    assert rows["standard-sdpa: c + a N"] == rows["linear-chunked: c + a N²"] == "untenable (firm)"
