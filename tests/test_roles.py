"""A report of a user's own kernels: contenders and baselines, what is unchecked, and who stands first."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.history.storage import read_storage
from benchmarks.analysis.plots.looks import BACKGROUND
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.reading.roles import USUAL, Roles, role_words
from benchmarks.analysis.report.functions import UNCHECKED, labelled
from benchmarks.analysis.report.pictures.speedup import speedup_picture
from benchmarks.analysis.report.pictures.views import MOST_COLOURS, View, views
from benchmarks.analysis.report.summary import summarise
from tests.concluded import FULL, NOISE, conclude, concluded, console
from tests.hostile import undrawn
from tests.synthetic import Law, Run

OWN = {("mine", "causal"): Law(1e-5, 1), ("mine", "bidirectional"): Law(1e-5, 1)}
BESIDE = replace(FULL, laws={**FULL.laws, **OWN})
Change = Callable[[dict[str, Any]], None]


def written(path: Path, change: Change | None = None, *, base: Run = BESIDE, **facts: Any) -> Path:
    """A run with a user's own kernel, its records and its facts changed."""
    content = base.content()
    content["run"] |= facts
    for one in content["benchmarks"]:
        if one["extra_info"]["kernel"] == "mine":
            one["extra_info"]["reference"] = "softmax attention"
            if change:
                change(one["extra_info"])
    path.write_text(json.dumps(content))
    return path


def view_of(path: Path) -> View:
    ((_, view),) = views(*labelled(*concluded(path)))
    return view


def test_by_default_every_other_kernel_is_compared_with_the_standard_ones(tmp_path: Path) -> None:
    alone = conclude(FULL.write(tmp_path / "alone.json"))["crossovers"]
    found = conclude(written(tmp_path / "beside.json"))["crossovers"]
    assert [one for one in found if one["linear"]] == alone
    own = [one for one in found if not one["linear"]]
    assert {(one["contender"], one["baseline"]) for one in own} == {
        ("mine", "standard-explicit"),
        ("mine", "standard-sdpa"),
    }
    assert {one["ahead_beyond"] for one in own} <= {"contender", "baseline"}
    assert {one["ahead_beyond"] for one in alone} <= {"linear", "standard"}


def test_a_run_names_its_own_baselines(tmp_path: Path) -> None:
    path = written(tmp_path / "out.json", own="mine", against="linear-*,standard-sdpa")
    found = conclude(path)
    pairs = {(one["contender"], one["baseline"]) for one in found["crossovers"]}
    baselines = {"linear-chunked", "linear-explicit", "standard-sdpa"}
    assert {pair for pair in pairs if pair[0] == "mine"} == {("mine", name) for name in baselines}
    assert {pair[0] for pair in pairs} == {"mine", "standard-explicit"}
    assert found["runs"]["against"] == ["linear-*", "standard-sdpa"] and found["runs"]["own"] == ["mine"]
    text = console(path)
    assert text.startswith("mine against the fastest of linear-*, standard-sdpa\n")
    assert "Speedup of contender over baseline" in text


def test_a_kernel_of_ones_own_is_a_contender_whatever_its_name() -> None:
    roles = Roles(("standard-*",), ("standard-mine", "b", "a"))
    pairs = list(roles.pairs(["a", "standard-mine", "standard-sdpa", "linear-x", "b"]))
    assert pairs == [(name, "standard-sdpa") for name in ("standard-mine", "b", "a", "linear-x")]


def test_history_and_compare_follow_a_user_s_own_kernels_across_baselines(tmp_path: Path) -> None:
    for number in (1, 2):
        content = json.loads(written(tmp_path / "x", own="mine").read_text())
        content["commit_info"] = {"id": f"{number:040d}", "time": f"2025-01-0{number}T00:00:00"}
        content["datetime"] = f"2025-01-0{number}T00:00:00"
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    (tmp_path / "x").unlink()
    runs, _ = read_storage(tmp_path)
    assert {run.roles.own for run in runs} == {("mine",)}
    files = [str(tmp_path / f"{number}.json") for number in (1, 2)]
    out = tmp_path / "out"
    with undrawn():
        assert main(["history", str(tmp_path), "-o", str(out)]) in (0, 1)
    lines = pd.read_csv(out / "history.csv")
    assert any("mine" in name for name in lines.loc[lines["quantity"] == "crossover", "name"])
    with undrawn():
        assert main(["compare", files[0], "--against", files[1], "-o", str(out)]) in (0, 1)
    shifts = json.loads((out / "comparison.json").read_text())["crossovers"]
    assert {one["contender"] for one in shifts} >= {"mine", "linear-chunked"}
    assert {one["linear"] for one in shifts if one["contender"] == "mine"} == {None}
    assert {one["linear"] for one in shifts if one["contender"] == "linear-chunked"} == {"linear-chunked"}


def unchecked(record: dict[str, Any]) -> None:
    record.update(reference=None, reference_error=None)


def declared(record: dict[str, Any]) -> None:
    record.update(reference="none", reference_error=None)


@pytest.mark.parametrize("change", [unchecked, declared])
def test_unchecked_is_said_in_every_table_picture_and_file(
    change: Change, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = written(tmp_path / "out.json", change, own="mine"), tmp_path / "report"
    with undrawn():
        assert main(["report", str(path), "-o", str(out)]) == 0
    text = capsys.readouterr().out
    tables = [line for line in text.splitlines() if line.startswith("mine")]
    assert len(tables) > 10
    assert all(line.startswith(f"mine{UNCHECKED}") or "unchecked" in line for line in tables), tables
    view = view_of(path)
    assert f"mine{UNCHECKED}" in view.looks and "mine" not in view.looks
    summary = json.loads((out / "summary.json").read_text())
    own = [one for one in summary["series"] if one["kernel"] == "mine"]
    assert {found["reference"] for one in own for found in one["functions"]} == {
        None if change is unchecked else "none"
    }
    table = pd.read_csv(out / "complexity_analysis.csv")
    assert table.loc[table["kernel"] == "mine", "reference"].isin(["none"]).all() == (change is declared)
    assert "unchecked" in (out / "summary.md").read_text()


def test_the_function_of_a_kernel_stands_in_the_report_with_its_error(tmp_path: Path) -> None:
    def checked(record: dict[str, Any]) -> None:
        record.update(reference="softmax attention", reference_error=3e-7)

    text = " ".join(console(written(tmp_path / "out.json", checked, own="mine")).split())
    assert "mine computes softmax attention to a relative error of 3e-07 (N = 256 to 8192)." in text
    assert "unchecked" not in text


def test_a_kernel_that_is_another_function_beyond_some_length_is_told_so(tmp_path: Path) -> None:
    def changing(record: dict[str, Any]) -> None:
        known = record["seq_len"] <= 512
        record.update(
            reference="softmax attention" if known else None, reference_error=3e-7 if known else None
        )

    text = " ".join(console(written(tmp_path / "out.json", changing, own="mine")).split())
    known = "computes softmax attention to a relative error of 3e-07 (N = 256, 512)"
    assert f"{known}; computes none of the functions known here" in text


def test_records_from_before_functions_were_recorded_are_those_of_their_families(tmp_path: Path) -> None:
    text = console(FULL.write(tmp_path / "out.json"))
    assert "unchecked" not in text and "What they compute" not in text


def test_costs_that_are_not_those_of_what_is_executed_are_a_warning(tmp_path: Path) -> None:
    def borrowed(record: dict[str, Any]) -> None:
        record.update(
            counted_flops=record["flops"] * record["seq_len"] // 64, countable_flops=record["flops"]
        )

    def own(record: dict[str, Any]) -> None:
        record.update(counted_flops=record["flops"], countable_flops=int(1.019 * record["flops"]))

    found = conclude(written(tmp_path / "borrowed.json", borrowed))["warnings"]
    (warning,) = [one for one in found if "declares" in one]
    assert warning.startswith(
        "mine declares 0.00781 to 0.25 times the FLOPs that torch counts, at N = 256 to"
    )
    assert not [one for one in conclude(written(tmp_path / "own.json", own))["warnings"] if "declares" in one]


def test_a_kernel_of_ones_own_stands_first(tmp_path: Path) -> None:
    path = written(tmp_path / "out.json", own="mine")
    view = view_of(path)
    assert next(iter(view.looks)) == "mine"
    figure = speedup_picture(view)
    assert figure is not None
    assert all(axes.get_title(loc="left").endswith("speedup of mine") for axes in figure.axes)
    answer = console(path).partition("Causal forward")[2]
    assert answer.index("mine beats") < answer.index("linear-chunked beats")


@pytest.mark.parametrize("known", [True, False])
def test_commands_for_more_certainty_name_where_a_kernel_of_ones_own_is(known: bool, tmp_path: Path) -> None:
    own = "--kernel-from='my file.py:mine'"
    path = written(tmp_path / "out.json", own="mine", own_options=own, options=own if known else None)
    text = console(path)
    assert ("Give this command the options of this run:" in " ".join(text.split())) is not known
    assert "python -m benchmarks run -o runs/ '--kernel-from=my file.py:mine'" in text
    assert "--kernel mine" not in text


def test_a_kernel_that_was_not_measured_is_told_with_its_reason(tmp_path: Path) -> None:
    gone = [("mine", "causal", length, "failed", "wrong result") for length in (256, 512)]
    content = Run(FULL.laws, noise=NOISE, not_measured=gone).content()
    content["run"]["own"] = "mine"
    (tmp_path / "out.json").write_text(json.dumps(content))
    assert "mine was not measured: wrong result." in console(tmp_path / "out.json")


def test_of_many_kernels_the_slowest_are_grey_and_no_own_one_is(tmp_path: Path) -> None:
    laws = {
        (f"linear-{letter}", "causal"): Law(1e-6 * 2**place, 1) for place, letter in enumerate("abcdefghijk")
    }
    slow = {("mine", "causal"): Law(1, 1), ("standard-sdpa", "causal"): Law(2, 1)}
    content = Run({**laws, **slow}).content()
    content["run"]["own"] = "mine"
    (tmp_path / "out.json").write_text(json.dumps(content))
    view = view_of(tmp_path / "out.json").faded()
    grey = {kernel for kernel, look in view.looks.items() if look is BACKGROUND}
    assert len(view.looks) - len(grey) == MOST_COLOURS
    assert grey == {"linear-h", "linear-i", "linear-j", "linear-k"}
    assert not {look for look in view_of(tmp_path / "out.json").looks.values() if look is BACKGROUND}


def test_kernels_that_cannot_be_compared_have_no_empty_picture(tmp_path: Path) -> None:
    path = Run({("mine", "causal"): Law(1e-6, 1)}).write(tmp_path / "out.json")
    assert speedup_picture(view_of(path)) is None


def test_a_report_leaves_no_picture_and_no_wide_table_of_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.mkdir()
    for name in ("speedup_analysis.png", "mine.png", "complexity_analysis_wide-cpu.csv"):
        (out / name).touch()
    alone = Run({("mine", "causal"): Law(1e-6, 1)}).write(tmp_path / "second.json")
    assert main(["report", str(alone), "-o", str(out)]) == 0
    left = {file.name for file in out.iterdir()}
    assert not {"speedup_analysis.png", "complexity_analysis_wide-cpu.csv"} & left
    assert {"mine.png", "complexity_scaling.png"} <= left


def test_linear_and_standard_are_named_only_where_all_are_of_these_families() -> None:
    assert role_words([("linear-a", "standard-b")]) == ("linear", "standard")
    assert role_words([("linear-a", "standard-b"), ("window-a", "standard-b")]) == ("contender", "baseline")


def test_hostile_roles_are_no_roles(tmp_path: Path) -> None:
    small = Run({**OWN, ("standard-sdpa", "causal"): Law(1e-8, 2)})
    for value in (3, [["x"]], {"a": 1}, "'", "x" * 20_000, None, ""):
        path = written(tmp_path / "out.json", base=small, own=value, against=value, own_options=value)
        roles = summarise(load([path])).roles
        assert roles == USUAL or isinstance(value, str)
    assert Roles.of() == USUAL
