"""A journal holds every finished case at any moment, and becomes the JSON that the run would have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.analysis.reading.fields import InputError
from benchmarks.analysis.reading.records import load
from benchmarks.analysis.reading.run_file import read_run
from benchmarks.survival.journal import (
    DIED,
    NOT_REACHED,
    Journal,
    document_of,
    journal_of,
    recover,
    recovered,
)
from benchmarks.survival.leftovers import set_in_order
from benchmarks.survival.locks import LOCK, hold, hold_folder
from tests.synthetic import Law, Run

LENGTHS = (64, 128, 256, 512)
DOCUMENT = Run({("linear-chunked", "causal"): Law(1e-6, 1)}, LENGTHS, repetitions=1).content()
CASES = {one["extra_info"]["key"]: one["extra_info"] for one in DOCUMENT["benchmarks"]}


def begun(target: Path, finished: int, *, also_begun: bool = True) -> Journal:
    """The journal of a run that has finished some of its cases, and begun the next."""
    journal = Journal()
    head = {name: DOCUMENT[name] for name in ("machine_info", "commit_info", "datetime", "run")}
    journal.open(journal_of(target), head, CASES)
    for key, benchmark in list(zip(CASES, DOCUMENT["benchmarks"], strict=True))[:finished]:
        journal.append({"begins": key})
        journal.append({"benchmark": benchmark, "left_out": None, "readings": [{"repetition": 1}]})
    if also_begun:
        journal.append({"begins": list(CASES)[finished]})
    return journal


def killed(journal: Journal) -> Path:
    """The journal as it is left by a process that was killed: what it held is free."""
    assert journal.path and journal._file
    journal._file.close()
    return journal.path


def reasons(document: dict[str, Any]) -> dict[int, str]:
    return {row["seq_len"]: row["reason"] for row in document["not_measured"]}


def test_a_journal_becomes_the_json_of_the_finished_cases_and_names_the_one_in_flight(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert recover(killed(begun(out, 2))) == out
    document = json.loads(out.read_text())
    assert document["benchmarks"] == DOCUMENT["benchmarks"][:2]
    assert reasons(document) == {256: DIED, 512: NOT_REACHED}
    assert document["run"]["ended"] == "killed" and len(document["run"]["conditions"]) == 2
    assert [one.fields["seq_len"] for one in read_run(out).measured] == [64, 128]
    assert not journal_of(out).exists() and recover(journal_of(out)) is None
    (warning,) = load([out]).warnings
    assert warning == f"{out} was cut short (killed), so that cases and rounds are missing."


def test_cut_off_at_any_byte_a_journal_loses_no_case_before_it(tmp_path: Path) -> None:
    written = killed(begun(tmp_path / "out.json", 3)).read_bytes()
    ends = [place for place, byte in enumerate(written) if byte == ord("\n")]
    for cut in range(0, len(written), 7):
        lines = written[:cut].decode(errors="replace").splitlines()
        # The head is one line, and each finished case two.
        complete = max(0, sum(end < cut for end in ends) - 1) // 2
        document = document_of(lines)
        found = len(document["benchmarks"]) if document else 0
        assert found in (complete, complete + 1) and found <= 3, cut


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no one wait for seconds for a process that lives on."""
    assert hold.__kwdefaults__
    monkeypatch.setitem(hold.__kwdefaults__, "patience_s", 0.06)


@pytest.mark.usefixtures("impatient")
def test_the_journal_of_a_process_that_lives_is_left_to_it(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    journal = begun(out, 1)
    with pytest.raises(InputError, match=r"out\.json is in use by process \d+ \(.*\); wait for it"):
        recovered(out, print)
    killed(journal)


@pytest.mark.usefixtures("impatient")
def test_a_file_beside_a_living_journal_can_be_reported(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text(json.dumps(DOCUMENT))
    journal = begun(out, 1)
    assert recovered(out, print) == out and json.loads(out.read_text()) == DOCUMENT
    killed(journal)


@pytest.mark.parametrize("name", ["out.json", "out.json.journal"])
def test_a_report_turns_a_journal_into_json_by_either_name(name: str, tmp_path: Path) -> None:
    killed(begun(tmp_path / "out.json", 1))
    said: list[str] = []
    assert recovered(tmp_path / name, said.append) == tmp_path / "out.json"
    assert said == [f"{tmp_path / 'out.json'} was cut short by a kill; what it had measured is in "
                    f"{tmp_path / 'out.json'}."]  # fmt: skip


@pytest.mark.parametrize("junk", ["", '{"version": 1, "cases": 3, "document": []}'])
def test_a_journal_without_a_case_is_no_run(junk: str, tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "out.json")
    journal.write_text(junk)
    assert recover(journal) is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"my notes\n", b"{}", b"[]\n", bytes(range(256)), json.dumps(DOCUMENT).encode()]
)
def test_a_file_that_is_no_journal_of_ours_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "out.json.journal"
    file.write_bytes(content)
    assert recover(file) is None and recovered(file, print) == file
    set_in_order(tmp_path, print)
    with pytest.raises(InputError, match="in the way of the run's journal"):
        begun(tmp_path / "out.json", 1)
    assert file.read_bytes() == content and list(tmp_path.iterdir()) == [file]


def test_a_journal_of_a_run_that_had_written_its_file_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    journal = killed(begun(out, 4, also_begun=False))
    out.write_text(json.dumps(DOCUMENT))
    assert recover(journal) == out
    assert json.loads(out.read_text()) == DOCUMENT and list(tmp_path.iterdir()) == [out]


def test_damaged_bytes_of_a_journal_cost_their_case_only(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    journal = killed(begun(out, 3))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"\xff\xfe" + lines[2], *lines[3:]]))
    assert recover(journal) == out and len(json.loads(out.read_text())["benchmarks"]) == 2


def test_damaged_entries_of_a_journal_are_left_out(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    journal = killed(begun(out, 1))
    with journal.open("a") as file:
        file.write('{"benchmark": {"extra_info": {"key": [1]}}}\n{"benchmark": 3}\n{"left_out": []}\n')
        file.write('["begins"]\nnot JSON\n{"readings": 4}\n')
    assert recover(journal) == out
    assert json.loads(out.read_text())["benchmarks"][0] == DOCUMENT["benchmarks"][0]
    assert [one.fields["seq_len"] for one in read_run(out).measured] == [64]


def test_a_journal_that_cannot_be_written_says_so_and_the_run_goes_on(tmp_path: Path) -> None:
    journal = begun(tmp_path / "out.json", 1)
    assert journal._file
    journal._file.close()
    with open("/dev/full", "w") as full:
        journal._file = full
        journal.append({"begins": "x"})
    assert journal.trouble and "No space left" in journal.trouble
    journal.append({"begins": "y"})


def test_a_folder_is_held_by_one_command_whose_process_the_refusal_names(tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(InputError, match=r"folder .* in use by process \d+ \("):
        hold(tmp_path / LOCK, f"the folder {tmp_path}", patience_s=0)
    with hold_folder(tmp_path):  # again, and nothing of it is left
        pass
    assert list(tmp_path.iterdir()) == []
