"""Energy in a report: its exponent, its crossover, its tables, and that it is told only where it is known."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.analysis import wording
from benchmarks.analysis.comparison.conclusions import Comparison
from benchmarks.analysis.comparison.regression import compare
from benchmarks.analysis.comparison.text import sections as comparison_sections
from benchmarks.analysis.document import as_text
from benchmarks.analysis.layout import MOST_WIDTH
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.pictures.drawing import drawings
from benchmarks.analysis.report.summary import summarise
from tests.concluded import conclude, console, find
from tests.synthetic import Law, Machine, Noise, Run

LINEAR, STANDARD = ("linear-triton", "causal"), ("standard-sdpa", "causal")
POWER_W = {LINEAR[0]: 200.0, STANDARD[0]: 600.0}
TIME_CROSSOVER, ENERGY_CROSSOVER = 2048, 2048 / 3
"""Where t = 1e-8 N^2 meets 2.048e-5 N, and three times the one the other."""
LAWS = {LINEAR: Law(2.048e-5, 1), STANDARD: Law(1e-8, 2)}


def write(path: Path, seed: int, *, known: bool = True, laws: Any = LAWS) -> Path:
    """A run whose kernels draw a constant power, with a noise of 1 % on the energy of each case."""
    run = Run(laws, noise=Noise(0.01, 0.01, 0.02), machine=Machine("cuda", "NVIDIA H200", batch=4), seed=seed)
    content, random = run.content(), np.random.default_rng(seed)
    content["run"]["gpu_idle_w"] = 112.0
    found: dict[str, float] = {}
    for row in content["benchmarks"]:
        fields, median = row["extra_info"], row["stats"]["median"]
        noisy = POWER_W[fields["kernel"]] * median * (1 + 0.01 * random.standard_normal())
        joules = found.setdefault(fields["key"], noisy)
        fields |= {"energy_j": joules, "energy_error_j": 0.01 * joules, "energy_call_s": median}
        if not known:
            fields |= {"energy_j": None, "energy_error_j": None, "energy_call_s": None}
            fields["energy_unknown"] = "no counter here"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("energy")
    return [write(folder / f"run-{seed}.json", seed) for seed in range(4)]


def test_exponent_and_crossover_of_energy_are_those_of_its_law(files: list[Path]) -> None:
    found = conclude(*files)
    for kernel, power in ((LINEAR[0], 1), (STANDARD[0], 2)):
        exponent = find(found["series"], kernel=kernel)["energy_exponent"]
        assert exponent["low"] <= power <= exponent["high"] and exponent["units"] == 4
    for quantity, n in (("time", TIME_CROSSOVER), ("energy_j", ENERGY_CROSSOVER)):
        pair = find(found["crossovers"], quantity=quantity)
        assert pair["kind"] == "inside" and pair["low"] <= n <= pair["high"]
        assert pair["firmness"] == "firm" and pair["units"] == 4


def test_a_single_run_has_one_value_of_energy_and_no_interval(files: list[Path]) -> None:
    """Its repetitions repeat the one reading, and are no units of it."""
    found = conclude(files[0])
    pair = find(found["crossovers"], quantity="energy_j")
    assert (pair["units"], pair["low"], pair["firmness"]) == (1, None, "open")
    assert find(found["series"], kernel=LINEAR[0])["energy_exponent"]["units"] == 1
    assert find(found["crossovers"], quantity="time")["units"] == 3


def test_tables_and_the_csv_hold_the_energy_of_a_call_and_of_a_token(files: list[Path]) -> None:
    cases = case_table(load(files))
    tokens = cases["seq_len"].astype(float) * cases["batch"].astype(float)
    assert cases["energy_per_token_j"].to_numpy() == pytest.approx((cases["energy_j"] / tokens).to_numpy())
    # The error is that of a measurement, or half of what the runs span if that is more.
    assert (cases["energy_error_j"] >= 0.0099 * cases["energy_j"]).all()
    text = console(*files, width=MOST_WIDTH)
    row = cases[(cases["kernel"] == LINEAR[0]) & (cases["seq_len"] == 4096)].iloc[0]
    assert f" {wording.joules(row['energy_j'])} ±" in text
    assert f" {wording.joules(row['energy_per_token_j'])} " in text
    assert "Energy (firm): linear-triton takes less energy than standard-sdpa from N = " in text
    assert "At rest the device draws 112 W." in text
    summary = summarise(load(files))
    assert drawings(summary, cases)["energy_scaling.png"]() is not None


def test_energy_that_is_not_known_is_told_once_with_its_reason(tmp_path: Path) -> None:
    file = write(tmp_path / "out.json", 1, known=False)
    text, found = console(file), conclude(file)
    assert text.count("The energy of calls on cuda is not known: no counter here.") == 1
    assert "Energy" not in text.replace("The energy", "")
    assert {one["quantity"] for one in found["crossovers"]} == {"time", "peak_bytes"}
    assert [one["energy_j"] for one in found["series"]] == [[], []]
    drawn = drawings(summarise(load([file])), case_table(load([file])))
    assert drawn["energy_scaling.png"]() is None


# --- compared ------------------------------------------------------------------------------------------


def factor(change: float) -> dict[tuple[str, str], Law]:
    return {name: Law(change * law.coefficient, law.power) for name, law in LAWS.items()}


def energies(base: Sequence[Path], head: Sequence[Path]) -> Comparison:
    return compare(load(base), load(head))


def test_energy_changed_only_by_more_than_its_noise(files: list[Path], tmp_path: Path) -> None:
    alike = [write(tmp_path / f"alike-{seed}.json", seed) for seed in range(10, 16)]
    before = [write(tmp_path / f"before-{seed}.json", seed) for seed in range(20, 26)]
    after = [write(tmp_path / f"after-{seed}.json", seed, laws=factor(1.2)) for seed in range(30, 36)]
    same, more = energies(alike, before), energies(alike, after)
    assert len(same.energies) == len(more.energies) == 12
    assert {one.verdict for one in same.energies} <= {"same", "inconclusive"}
    assert {one.verdict for one in more.energies} == {"larger"}
    for one in more.energies:
        assert one.change.ratio == pytest.approx(1.2, rel=0.05)


def test_of_single_runs_the_stated_errors_and_an_effect_of_the_run_are_the_noise(tmp_path: Path) -> None:
    """Half-widths of 1 % each and a run effect of 2 % each: 5.7 %."""
    one, other = write(tmp_path / "a.json", 1), write(tmp_path / "b.json", 2)
    found = energies([one], [other])
    half = np.hypot(0.01 * 2**0.5, 1.96 * 0.02 * 2**0.5)
    for case in found.energies:
        assert case.change.ratio is not None and case.change.high is not None
        assert np.log(case.change.high / case.change.ratio) == pytest.approx(half, rel=0.01)
    assert {one.verdict for one in found.energies} <= {"same", "inconclusive"}


def test_energy_alone_is_no_regression_and_nothing_is_said_where_it_is_not_known(tmp_path: Path) -> None:
    """The kernels take as long and twice the energy."""
    base = write(tmp_path / "a.json", 1)
    content = json.loads(base.read_text())
    for row in content["benchmarks"]:
        row["extra_info"]["energy_j"] *= 2
    head = tmp_path / "b.json"
    head.write_text(json.dumps(content))
    found = energies([base], [head])
    assert {one.verdict for one in found.energies} == {"larger"} and not found.regressed
    text = as_text(comparison_sections(found))
    assert re.search("energy +12 larger +tentative", text) and "Energy alone raises no alarm" in text
    without = energies([base], [write(tmp_path / "c.json", 2, known=False)])
    assert without.energies == [] and "nergy" not in as_text(comparison_sections(without))
