"""A report of sessions of ranks tells the laws that were planted in them, and mixes no ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.report.cases import case_table
from benchmarks.analysis.report.conclusions import Summary
from benchmarks.analysis.report.over_ranks import OverRanks
from benchmarks.analysis.report.summary import summarise
from benchmarks.analysis.report.text import sections
from benchmarks.distributed.cases import RankedCase
from tests.shared_runs import (
    CARD,
    KV_HEADS,
    LENGTHS,
    LINEAR,
    SECONDS,
    STANDARD,
    linear_seconds,
    received,
    standard_seconds,
    write_session,
)
from tests.synthetic import Run

RANKS = (1, 2, 8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [write_session(folder, ranks) for ranks in RANKS]


@pytest.fixture(scope="module")
def summary(files: list[Path]) -> Summary:
    return summarise(load(files))


def found(summary: Summary, name: str) -> OverRanks:
    (one,) = [one for one in summary.over_ranks if one.kernel == name]
    return one


@pytest.mark.parametrize("name", SECONDS)
def test_speedup_and_efficiency_are_those_of_the_law(summary: Summary, name: str) -> None:
    seconds = SECONDS[name]
    for point in found(summary, name).points:
        n, ranks = point.seq_len, point.ranks
        assert point.median_s == pytest.approx(seconds(n, ranks))
        assert point.speedup == pytest.approx(seconds(n, 1) / seconds(n, ranks))
        assert point.efficiency == pytest.approx(seconds(n, 1) / seconds(n, ranks) / ranks)
        part = n // ranks
        if part >= 2**14:
            assert point.weak_efficiency == pytest.approx(seconds(part, 1) / seconds(n, ranks))
        else:
            assert point.weak_efficiency is None
        assert point.exchanged_bytes == received(name, n, ranks)


def test_bytes_grow_with_the_exponents_of_the_laws_exactly(summary: Summary) -> None:
    exponents = {
        kernel: {one.ranks: one.bytes_exponent for one in found(summary, kernel).of_ranks}
        for kernel in (LINEAR, STANDARD)
    }
    assert exponents == {LINEAR: {1: None, 2: 0.0, 8: 0.0}, STANDARD: {1: None, 2: 1.0, 8: 1.0}}


def test_ranks_beat_one_from_where_the_laws_cross(summary: Summary) -> None:
    """A card of its own takes N = 6000 to make up for an exchange of 30 us, below the measured lengths."""
    beats = {one.ranks: one.beats_one for one in found(summary, LINEAR).of_ranks}
    assert beats[1] is None
    assert beats[2] is not None and beats[2].kind == "below"


def test_linear_beats_standard_at_each_number_of_ranks_where_the_laws_cross(summary: Summary) -> None:
    pairs = {pair.setting.ranks: pair for pair in summary.crossovers if pair.quantity == "time"}
    assert set(pairs) == set(RANKS)
    for ranks, pair in pairs.items():
        n = pair.found.n
        assert ranks is not None and n is not None
        assert linear_seconds(int(n), ranks) == pytest.approx(standard_seconds(int(n), ranks), rel=0.05)


def test_no_rows_of_other_ranks_are_compared(files: list[Path], summary: Summary) -> None:
    """A kernel at one length has a series and a key of its own at each number of ranks."""
    series = [(one.kernel, one.setting.ranks) for one in summary.series]
    assert len(set(series)) == len(series) == 2 * len(RANKS)
    keys = {RankedCase(LINEAR, "causal", 4096, ranks=ranks).key for ranks in RANKS}
    assert len(keys) == len(RANKS)


def test_a_plain_run_is_no_session_of_one_rank(files: list[Path], tmp_path: Path) -> None:
    """Files of before have no ranks, and are read beside those that have."""
    laws = {(LINEAR, "causal"): dict.fromkeys(LENGTHS, 1e-3)}
    plain = Run(laws, machine=CARD, kv_heads=KV_HEADS).write(tmp_path / "plain.json")
    found = summarise(load([plain, files[0]]))
    assert {one.setting.ranks for one in found.series if one.kernel == LINEAR} == {None, 1}
    assert [(point.ranks, point.speedup) for point in found.over_ranks[0].points] == [(1, 1.0)] * len(LENGTHS)


def test_the_text_tells_what_was_planted(files: list[Path], summary: Summary) -> None:
    cases = case_table(load(files))
    section, table = [one for one in sections(summary, cases) if one.title.startswith("Over ranks")]
    assert table.table is not None and len(table.table.rows) == 2 * len(RANKS) * len(LENGTHS)
    text = " ".join(section.sentences)
    assert f"{LINEAR} on 8 ranks: a rank receives 3.70 MB, whatever N is (exponent 0), exactly what" in text
    assert f"{STANDARD} on 2 ranks: a rank receives 33.6 MB at N = 16384 and 537 MB at N = 262144" in text
    assert "which grows like N (exponent 1)" in text
    assert f"On 8 ranks (tentative): {LINEAR} beats {STANDARD} from N = " in text


def test_a_count_that_breaks_the_law_is_told(files: list[Path], tmp_path: Path) -> None:
    content = json.loads(files[1].read_text())
    for benchmark in content["benchmarks"]:
        benchmark["extra_info"]["exchanged_bytes"] += 4
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(content))
    records = load([broken])
    text = " ".join(s for one in sections(summarise(records), case_table(records)) for s in one.sentences)
    assert "which is not what the law says" in text


def test_a_report_of_a_folder_draws_the_picture(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(files[0].parent), "-o", str(tmp_path / "report")]) == 0
    assert "Over ranks" in capsys.readouterr().out
    assert (tmp_path / "report" / "distributed_scaling.png").exists()
    assert not (tmp_path / "report" / "complexity_scaling.png").exists()
    assert "Bytes that a rank receives, causal" in (tmp_path / "report" / "report.html").read_text()


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "report")]) == 2
    assert "holds no runs" in capsys.readouterr().err
