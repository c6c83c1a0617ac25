"""Texts on screens: every line fits, the answer opens them, and colours go to terminals only."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from benchmarks import console
from benchmarks.__main__ import main
from benchmarks.analysis.comparison.regression import compare
from benchmarks.analysis.comparison.text import sections as compared
from benchmarks.analysis.document import MOST_LINES, Command, Section, Table, Verdict, as_markdown, as_text
from benchmarks.analysis.layout import LEAST_WIDTH, MOST_WIDTH, WIDTH, Screen, columns, folded
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.headline import headline
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from tests.compared import PLAIN, records, regressed_head
from tests.concluded import concluded
from tests.synthetic import Law, Machine, Noise, Run, write_together
from tests.test_pictures import crowded

ROOT = Path(__file__).parent.parent
PUBLISHED = sorted((ROOT / "benchmarks" / "published").glob("*/"))
NOISE = Noise(0.01, 0.01, 0.02)
LAWS = {
    **{("standard-sdpa", mode): Law(1e-9, 2) for mode in ("causal", "bidirectional")},
    **{("linear-chunked", mode): Law(1e-6, 1) for mode in ("causal", "bidirectional")},
}


def too_long(text: str, width: int) -> list[str]:
    """The lines that are wider than a screen, but for commands and words that cannot be broken."""
    lines = text.splitlines()
    command = [one.endswith("\\") or "python -m benchmarks" in one for one in lines]
    found = zip(lines, command, [False, *command], strict=False)
    words = [one for one, of, behind in found if not (of or behind) and len(one.split()) > 1]
    return [one for one in words if len(one) > width]


@pytest.fixture(scope="module")
def crowded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowded().write(tmp_path_factory.mktemp("crowded") / "out.json")


def opening(text: str) -> list[str]:
    return text.partition("\n\n")[0].splitlines()


@pytest.mark.parametrize("width", [LEAST_WIDTH, WIDTH, MOST_WIDTH])
def test_every_line_of_a_report_fits_its_screen_and_no_cell_is_lost(width: int, crowded_run: Path) -> None:
    parts = sections(*concluded(crowded_run))
    text = as_text(parts, Screen(width))
    assert too_long(text, width) == []
    words = " ".join(text.split())
    cells = [cell for part in parts if part.table for row in part.table.rows for cell in row[1:]]
    assert [cell for cell in cells if cell not in words] == []


def test_the_console_of_report_keeps_within_80_columns_and_loses_no_cell(crowded_run: Path) -> None:
    parts = sections(*concluded(crowded_run))
    text = as_text(parts)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(cell in text for part in parts if part.table for row in part.table.rows for cell in row)


@pytest.mark.slow
@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_runs_are_reported_within_80_columns(folder: Path) -> None:
    text = as_text(sections(*concluded(*sorted(folder.glob("*.json.gz")))))
    assert too_long(text, WIDTH) == [] and len(opening(text)) <= MOST_LINES


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_a_published_report_names_its_files_where_they_stand(folder: Path) -> None:
    """Not where they lay on the machine that made it."""
    for name in ("summary.md", "report.html"):
        text = (folder / name).read_text()
        assert f" in benchmarks/published/{folder.name}: " in text and " in /" not in text


def test_a_report_of_every_purpose_opens_with_an_answer_for_each_and_one_command(tmp_path: Path) -> None:
    run = Run(LAWS, (256, 512, 1024, 2048, 4096), 2, 3, NOISE)
    causal = replace(run, laws={name: law for name, law in LAWS.items() if name[1] == "causal"})
    phases = [
        replace(run, phase="forward_backward"),
        *(replace(causal, phase=p) for p in ("prefill", "decode")),
    ]
    text = as_text(sections(*concluded(write_together(tmp_path / "run.json", [run, *phases]))))
    lines = opening(text)
    assert len(lines) <= MOST_LINES and lines[-1] == "surer: python -m benchmarks run -o runs/"
    for purpose in ("causal forward", "bidirectional training", "causal prefill", "causal decode"):
        (line,) = (line for line in lines if line.startswith(purpose))
        assert "linear-chunked wins from N=" in line and line.endswith("tentative")


def test_many_settings_are_told_together(tmp_path: Path) -> None:
    run = Run(LAWS, (256, 512, 1024, 2048), 2, 3, NOISE)
    every = [
        replace(run, phase=phase, seed=batch, machine=replace(run.machine, batch=batch))
        for phase, batch in product(("forward", "forward_backward"), (1, 2, 4))
    ]
    head = headline(summarise(load([write_together(tmp_path / "run.json", every)])))
    assert len(head.verdicts) == 4
    assert all(re.search(r"from N=\d+ to \d+ in 3 of 3 settings$", one.finding) for one in head.verdicts)


@pytest.mark.parametrize("firm", [True, False])
def test_the_command_of_a_report_is_of_more_runs_until_three_are_firm(firm: bool, tmp_path: Path) -> None:
    runs = [replace(Run(LAWS, noise=NOISE), seed=seed) for seed in range(3 if firm else 2)]
    paths = [run.write(tmp_path / f"{number}.json") for number, run in enumerate(runs)]
    (command,) = headline(summarise(load(paths))).commands
    assert str(command).startswith(f"python -m benchmarks run -o {'finer/ -k' if firm else 'more/ --runs 6'}")


def test_a_comparison_opens_with_its_verdict_and_names_the_command_of_more_pairs(tmp_path: Path) -> None:
    found = compare(records(tmp_path, "base", PLAIN, 2), records(tmp_path, "head", PLAIN, 2))
    lines = opening(as_text(compared(replace(found, options="--grid=smoke"))))
    command = "surer: python -m benchmarks compare --rev aaaaaaaaa --rev bbbbbbbbb --pairs 6 \\"
    assert lines[1].endswith("tentative") and lines[2:] == [command, "    --grid=smoke"]
    surely = compare(records(tmp_path, "base", PLAIN, 4), regressed_head(tmp_path))
    assert len(opening(as_text(compared(surely)))) <= MOST_LINES


def test_the_opening_is_cut_short_by_no_command_that_is_longer() -> None:
    verdicts = [Verdict(f"row {number}", "found", "firm") for number in range(6)]
    command = Command(["python -m benchmarks run", *(f"--option {number}" for number in range(20))])
    lines = as_text([Section("Title", verdicts=verdicts, commands=[command], level=1)]).splitlines()
    assert len(lines) == MOST_LINES and lines[-1] == f"surer: {' '.join(command)}"
    long = [Verdict(f"row {number}", "found " * 20, "firm") for number in range(6)]
    lines = as_text([Section("Title", verdicts=long, commands=[command], level=1)]).splitlines()
    assert len(lines) == MOST_LINES and all(line.endswith("..  firm") for line in lines[1:-1])
    few = as_text([Section("Title", verdicts=verdicts[:2], commands=[command], level=1)]).splitlines()
    assert max(map(len, few)) <= WIDTH and len(few) <= MOST_LINES
    assert "- Row 0: found (firm)." in as_markdown([Section("Title", verdicts=verdicts, level=1)])


def test_a_wide_table_is_stacked_where_that_needs_fewer_parts_and_split_evenly() -> None:
    names = [("a-long-kernel over", "another-long-kernel"), ("a-long-kernel over", "a-third-kernel")]
    rows = [[" ".join(name), *["0.5x"] * 6] for name in names]
    headers = ["", *(f"N={number}" for number in range(6))]
    wide, narrow = (columns(headers, rows, names, width) for width in (WIDTH, 60))
    assert len(wide) == 3 and wide[1].startswith("a-long-kernel over another-long-kernel  0.5x")
    assert narrow[1:3] == ["a-long-kernel over", "  another-long-kernel" + "  0.5x" * 6]
    split = columns(headers, rows, (), 60)
    assert [line.count("N=") for line in split if "N=" in line] == [3, 3] and max(map(len, split)) <= 60


def test_a_name_that_leaves_no_room_stands_above_its_cells() -> None:
    lines = columns(["kernel", "time"], [["k" * 100, "1 ms"]], (), WIDTH)
    assert lines == ["k" * 100, "    time: 1 ms"]
    assert Table(["kernel"], []).stacks == ()


def test_a_folded_command_is_broken_between_options_only() -> None:
    parts = ["python -m benchmarks run", "--kernel 'a b'", "--mode causal"]
    lines = folded(parts, 30)
    assert lines == ["python -m benchmarks run \\", "    --kernel 'a b' \\", "    --mode causal"]


def test_colours_change_no_letter() -> None:
    section = Section(
        "Title", verdicts=[Verdict("time", "6 slower", "firm"), Verdict("lost", "1", "open")], level=1
    )
    plain, painted = (as_text([section], Screen(WIDTH, colors)) for colors in (False, True))
    assert "\x1b" not in plain and re.sub(r"\x1b\[\d+m", "", painted) == plain
    assert "\x1b[32mfirm\x1b[0m" in painted and "\x1b[31mlost\x1b[0m" in painted


class Terminal(io.StringIO):
    """An output that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "env", "asked", "expected"),
    [
        (Terminal, {"COLUMNS": "100"}, None, Screen(100, True)),
        (Terminal, {"COLUMNS": "300"}, None, Screen(MOST_WIDTH, True)),
        (Terminal, {"COLUMNS": "100"}, 150, Screen(150, True)),
        (Terminal, {"COLUMNS": "100", "NO_COLOR": "1"}, None, Screen(100)),
        (Terminal, {"COLUMNS": "100", "TERM": "dumb"}, None, Screen(100)),
        (io.StringIO, {"COLUMNS": "100"}, None, Screen(WIDTH)),
        (io.StringIO, {}, 60, Screen(60)),
    ],
)
def test_a_screen_is_what_the_output_is(
    out: type[io.StringIO],
    env: dict[str, str],
    asked: int | None,
    expected: Screen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": "", **env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", out())
    assert console.screen(asked) == expected


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("width", ["60", "1e9", "59"])
def test_the_width_of_a_command_is_chosen_by_its_option(
    width: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Run(LAWS, noise=NOISE).write(tmp_path / "out.json")
    words = ["report", str(path), "-o", str(tmp_path / "report"), "--width", width]
    if width == "60":
        assert main(words) == 0
        assert too_long(capsys.readouterr().out, 60) == []
    else:
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "is not a number of columns from 60 to 1000" in capsys.readouterr().err


CARD = Machine("cuda", "Synthetic Card", clock="device", batch=4)


def opened(tmp_path: Path, *runs: Run, width: int = WIDTH) -> list[str]:
    """The opening of a report of these runs together, which keeps its lines and their width."""
    path = write_together(tmp_path / "run.json", runs)
    lines = opening(as_text(sections(*concluded(path)), Screen(width)))
    assert len(lines) <= MOST_LINES and not too_long("\n".join(lines), width)
    return lines


@pytest.mark.parametrize("width", [70, WIDTH])
def test_answers_of_a_card_and_a_cpu_keep_their_findings_whole(width: int, tmp_path: Path) -> None:
    """The one contender is named above them, and a place by no more than tells it from the others."""
    run = Run(LAWS, noise=NOISE)
    title, *rows = opened(tmp_path, run, replace(run, machine=CARD), width=width)
    assert title.startswith("linear-chunked against standard-sdpa")
    for mode, device in product(("causal", "bidirectional"), ("cpu", "cuda")):
        (row,) = (row for row in rows if row.startswith(f"{mode} forward, {device} "))
        assert re.search(r" wins from N=\d+ \[\d+, \d+\] +tentative$", row)


def test_of_two_contenders_each_row_names_its_own_and_loses_its_interval_at_most(tmp_path: Path) -> None:
    native = {
        (name.replace("chunked", "native") if mode == "causal" else name, mode): law
        for (name, mode), law in LAWS.items()
    }
    runs = [Run(native, noise=NOISE, machine=one) for one in (Machine(), CARD)]
    title, *rows = opened(tmp_path, *runs)
    assert title.startswith("Linear attention against")
    for name, mode, device in (
        (*one, where)
        for one in (("native", "causal"), ("chunked", "bidirectional"))
        for where in ("cpu", "cuda")
    ):
        (row,) = (row for row in rows if row.startswith(f"{mode} forward, {device} "))
        assert re.search(rf" linear-{name} wins from N=\d+( \[\d+, \d+\])? +tentative$", row)


def test_a_long_title_and_many_answers_leave_the_last_answers_to_the_sections(tmp_path: Path) -> None:
    name = "linear-of-a-name-that-leaves-hardly-any-room-at-all"
    named = {(one.replace("linear-chunked", name), mode): law for (one, mode), law in LAWS.items()}
    dtypes = ("float32", "bfloat16", "float16")
    runs = [Run(named, noise=NOISE, machine=replace(CARD, dtype=dtype)) for dtype in dtypes]
    lines = opened(tmp_path, *runs, width=LEAST_WIDTH)
    assert lines[0].startswith(name) and re.match(r"and +\d more answers, below$", lines[-2])


def test_two_devices_are_told_apart_by_themselves_and_not_by_their_dtypes(tmp_path: Path) -> None:
    cards = [replace(CARD, dtype="bfloat16"), replace(CARD, dtype="bfloat16", device_name="Another Card")]
    _, *rows = opened(tmp_path, *(Run(LAWS, noise=NOISE, machine=one) for one in (Machine(), *cards)))
    for place in ("cpu", "cuda Synthetic Card", "cuda Another Card"):
        assert sum(f" forward, {place}" in row for row in rows) == 2


def test_a_contender_without_a_baseline_is_named(tmp_path: Path) -> None:
    alone = {("linear-native", "causal"): Law(1e-6, 1)}
    runs = [Run(LAWS, noise=NOISE), Run(alone, noise=NOISE, machine=CARD)]
    title, *rows = opened(tmp_path, *runs)
    assert title.startswith("Linear attention")
    assert any(re.search(r"cuda +no baseline for linear-native +open$", row) for row in rows)
