"""Comparison as it is told: text, picture, and the command compare on files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Annotation

from benchmarks.__main__ import main
from benchmarks.analysis.comparison.conclusions import Comparison, Ratio, TimeVerdict
from benchmarks.analysis.comparison.naming import change
from benchmarks.analysis.comparison.picture import MOST_ROWS, comparison_picture
from benchmarks.analysis.comparison.regression import compare
from benchmarks.analysis.comparison.text import MOST_OPEN, sections
from benchmarks.analysis.document import as_text
from benchmarks.analysis.layout import WIDTH
from benchmarks.analysis.plots.looks import look
from benchmarks.analysis.reading.records import Records
from tests.compared import (
    PLAIN,
    Content,
    Edit,
    infos,
    other_machine,
    records,
    regressed_head,
    slower,
    write,
)
from tests.synthetic import Machine


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Records of the base: runs without anything planted."""
    return records(tmp_path_factory.mktemp("base"), "base", PLAIN)


@pytest.fixture(scope="module")
def regressed(base: Records, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Comparison with a head of a 15 % slower kernel, one of twice the memory, and a lost case."""
    return compare(base, regressed_head(tmp_path_factory.mktemp("regressed")))


def test_the_text_of_a_comparison_leads_with_its_answer(regressed: Comparison) -> None:
    text = as_text(sections(regressed))
    assert text.startswith("35 cases compared: 6 slower, 12 larger, 1 lost\n")
    order = [
        "time    6 slower",
        "larger  peak memory in 12 cases",
        "lost    1 case",
        "4 runs of aaaaaaaaa",
        "linear-chunked causal N=",
        "N* of linear-chunked causal against standard-sdpa",
        "N = 8192: no longer measured, a regression: CUDA out of memory",
    ]
    flat = " ".join(text.split())
    places = [flat.index(" ".join(words.split())) for words in order]
    assert places == sorted(places)
    assert max(map(len, text.splitlines())) <= WIDTH and len(text.partition("\n\n")[0].splitlines()) <= 8


def test_changes_are_written_as_percent_or_as_factors() -> None:
    assert change(Ratio(1.103, 1.081, 1.126)) == "+10.3 % [+8.1, +12.6]"
    assert change(Ratio(0.8, None, None)) == "-20.0 %"
    assert change(Ratio(2.31, 2.2, 2.43)) == "2.31x [2.20, 2.43]"
    assert change(Ratio(None, None, None)) == "-"


def test_a_small_difference_of_peak_bytes_is_written_in_full(base: Records, tmp_path: Path) -> None:
    def grow(content: Content) -> None:
        for info in infos(content, "linear-explicit"):
            info["peak_bytes"] += 512

    text = as_text(sections(compare(base, records(tmp_path, "head", PLAIN, edit=grow))))
    assert "+512 B" in text and "+0.0 %" not in text.partition("Counts and bytes")[2]


def test_peak_memory_that_grows_within_a_block_of_the_cuda_allocator_is_no_change(tmp_path: Path) -> None:
    """Peak memory of equal code was 393216 bytes higher in 3 of 5 runs on an H200."""
    run = replace(PLAIN, machine=Machine("cuda", "NVIDIA H200", "bfloat16", "device", 4))

    def grow(amount: int) -> Edit:
        def edit(content: Content) -> None:
            for row in content["benchmarks"]:
                row["extra_info"]["peak_bytes"] += amount

        return edit

    base = records(tmp_path, "base", run, 2)
    assert not compare(base, records(tmp_path, "head", run, 2, grow(393216))).counts
    assert len(compare(base, records(tmp_path, "head", run, 2, grow(2**21))).counts) == 36


def test_the_margin_is_the_noise_floor_of_the_machine_where_that_is_larger(
    base: Records, tmp_path: Path
) -> None:
    head = records(tmp_path, "head", slower(1.1))
    for noise, margin in ((0.021, 0.05), (0.15, 0.15)):
        found = compare(base, head, noise=noise)
        assert found.margin == margin
        words = f"Margin {100 * margin:.0f} % (A/A noise here: {100 * noise:.2g} %)"
        assert words in as_text(sections(found))
        assert found.regressed == (margin < 0.1)


def many_open(regressed: Comparison) -> Comparison:
    kinds: tuple[tuple[TimeVerdict, float], ...] = (("slower", 1), ("inconclusive", 1.2), ("same", 1))
    cases = [
        replace(
            one,
            case=replace(one.case, kernel=f"kernel-{copy}"),
            verdict=verdict,
            change=replace(one.change, high=(one.change.high or 1) * spread),
        )
        for copy, (verdict, spread) in enumerate(kinds)
        for one in regressed.cases
    ]
    return replace(regressed, cases=cases)


def test_long_tables_of_a_comparison_are_cut_and_say_so(regressed: Comparison) -> None:
    text = as_text(sections(many_open(regressed)))
    assert text.count(" inconclusive\n") == MOST_OPEN
    assert f"Not listed: {35 - MOST_OPEN} inconclusive, 35 the same within 5 %." in text


def test_the_picture_of_a_comparison_shows_changes_first_and_counts_the_rows_left_out(
    regressed: Comparison,
) -> None:
    figure = comparison_picture(many_open(regressed))
    figure.canvas.draw()
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == MOST_ROWS and all(name.startswith("kernel-0") for name in names[:35])
    assert any(f"{3 * 35 - MOST_ROWS} cases not shown" in text.get_text() for text in figure.texts)
    words = [text for text in axes.texts if isinstance(text, Annotation)]
    assert {"slower: 35", "inconclusive: 5 of 35 shown"} <= {text.get_text() for text in words}
    labels = [*axes.get_yticklabels(), *axes.get_xticklabels(), *words]
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_every_row_of_the_picture_of_a_comparison_has_the_marker_of_its_kernel(regressed: Comparison) -> None:
    (axes,) = comparison_picture(regressed).axes
    names = [label.get_text().split()[0] for label in axes.get_yticklabels()]
    drawn = {(float(line.get_ydata()[0]), line.get_marker(), line.get_color()) for line in axes.lines}  # type: ignore[index, arg-type]
    for name, place in zip(names, axes.get_yticks(), strict=True):
        assert (place, look(name).marker, look(name).color) in drawn


def test_compare_exits_with_1_on_a_regression_and_writes_every_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        replace(run, laws=dict(list(run.laws.items())[:1]), lengths=(256, 512))
        for run in (PLAIN, slower(1.2))
    ]
    base = [str(file) for file in write(tmp_path, "base", small[0])]
    head = [str(file) for file in write(tmp_path, "head", small[1])]
    folder = tmp_path / "out"
    assert main(["compare", *base, "--against", *head, "-o", str(folder)]) == 1
    assert {file.name for file in folder.iterdir()} == {
        "report.html",
        "comparison.json",
        "comparison.png",
        "summary.md",
    }
    assert "2 cases compared: 2 slower" in capsys.readouterr().out
    assert main(["compare", *base, "--against", *head, "-o", str(folder), "--margin", "30%"]) == 0
    capsys.readouterr()
    assert main(["compare", *base, "--against", *head, "-o", str(folder), "--format=json"]) == 1
    printed = capsys.readouterr().out
    assert json.loads(printed)["margin"] == 0.05 and "NaN" not in printed
    assert main(["compare", *base, "--against", *head, "-o", str(folder), "--format=markdown"]) == 1
    assert capsys.readouterr().out == (folder / "summary.md").read_text()


@pytest.mark.parametrize("arguments", [[], ["base.json"], ["base.json", "--against", "b.json", "--margin=2"]])
def test_wrong_usage_of_compare_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["compare", *arguments])
    assert leaving.value.code == 2 and "usage" in capsys.readouterr().err


def test_incomparable_or_missing_files_of_compare_are_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base,) = write(tmp_path, "base", PLAIN, 1)
    (head,) = write(tmp_path, "head", PLAIN, 1, other_machine)
    assert main(["compare", str(base), "--against", str(head), "-o", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: nothing is comparable")
    assert printed.err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert main(["compare", str(base), "--against", "missing.json"]) == 2
    assert "missing.json: no such file" in capsys.readouterr().err


def test_one_run_on_both_sides_is_one_sentence_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base,) = write(tmp_path, "base", PLAIN, 1)
    copied = tmp_path / "copied.json"
    copied.write_bytes(base.read_bytes())
    assert main(["compare", str(base), "--against", str(copied), "-o", str(tmp_path / "out")]) == 2
    assert "are one run, and a run is on one side" in capsys.readouterr().err
