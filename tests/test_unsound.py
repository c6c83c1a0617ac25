"""A record that is not sound costs that record only, and report, comparison and history name it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.reading.records import MOST_UNSOUND, load
from tests.hostile import Content, sound, undrawn

Capture = pytest.CaptureFixture[str]
Rot = Callable[[Content], object]
NESTED = "to be nested"
SOUND = len(sound(0)["benchmarks"])


def of_record(**fields: object) -> Rot:
    return lambda content: content["benchmarks"][0]["extra_info"].update(fields)


def of_stats(**fields: object) -> Rot:
    return lambda content: content["benchmarks"][0]["stats"].update(fields)


def in_its_place(value: object) -> Rot:
    return lambda content: content["benchmarks"].__setitem__(0, value)


COSTS = (-1, math.nan, math.inf, 10**400, "9", True, 1e300, NESTED)
ROTTEN: dict[str, Rot] = {
    **{f"costs of {value if value != 10**400 else '10^400'}": of_record(flops=value) for value in COSTS},
    **{f"a length of 2^{power}": of_record(seq_len=2**power) for power in (63, 64, 100)},
    "a length that is a text": of_record(seq_len="512"),
    "a batch of nested lists": of_record(batch=NESTED),
    "a kernel that is a number": of_record(kernel=3),
    "a kernel without a name": of_record(kernel=""),
    "a key of 100 000 letters": of_record(key="x" * 10**5),
    "a ceiling of no device": of_record(family="ceiling", subject="ceiling", device=None),
    "rounds of 10^400": of_stats(rounds=10**400, data=None),
    "no times": lambda content: content["benchmarks"][0].pop("stats"),
    "no fields": lambda content: content["benchmarks"][0].pop("extra_info"),
    "a number in its place": in_its_place(7),
    "nested lists in its place": in_its_place(NESTED),
}
OF_CASES: dict[str, Rot] = {
    "a reason that is a number": lambda content: content["not_measured"][0].update(reason=3),
    "an outcome that is a list": lambda content: content["not_measured"][0].update(outcome=["oom"]),
    "a length of 2^63": lambda content: content["not_measured"][0].update(seq_len=2**63),
    "a text in the place of the case": lambda content: content["not_measured"].__setitem__(0, "oom"),
    "a number in the place of all cases": lambda content: content.update(not_measured=5),
}


def save(path: Path, content: Content) -> Path:
    lists = "[" * 900 + "]" * 900
    path.write_text(json.dumps(content).replace(f'"{NESTED}"', lists))
    return path


def rotten(folder: Path, rot: Rot, number: int = 0) -> Path:
    content = sound(number)
    rot(content)
    return save(folder / f"rotten-{number}.json", content)


@pytest.mark.parametrize("name", ROTTEN)
def test_an_unsound_record_is_left_out_by_name_and_all_others_are_read(name: str, tmp_path: Path) -> None:
    path = rotten(tmp_path, ROTTEN[name])
    records = load([path])
    assert len(records.rows) == SOUND - 1 and len(records.not_measured) == 1
    (warning,) = records.warnings
    assert warning.startswith(f"Left out of {path}: benchmark ") and len(warning) < 400


@pytest.mark.parametrize("name", OF_CASES)
def test_an_unsound_case_not_measured_is_left_out_by_name(name: str, tmp_path: Path) -> None:
    path = rotten(tmp_path, OF_CASES[name])
    records = load([path])
    assert len(records.rows) == SOUND and records.not_measured.empty
    (warning,) = records.warnings
    assert warning.startswith(f"Left out of {path}: not_measured case 0 ")


def test_an_integer_beyond_all_digits_costs_its_record_only(tmp_path: Path) -> None:
    path = rotten(tmp_path, of_record(flops=NESTED))
    path.write_text(path.read_text().replace("[" * 900 + "]" * 900, "9" * 10_000))
    records = load([path])
    assert len(records.rows) == SOUND - 1 and "flops = inf" in records.warnings[0]


def test_of_many_unsound_records_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    content = sound(0)
    content["benchmarks"] += [3] * (MOST_UNSOUND + 2)
    warnings = load([save(tmp_path / "out.json", content)]).warnings
    assert len(warnings) == MOST_UNSOUND + 1 and "2 more records" in warnings[-1]


def test_a_field_of_a_name_that_the_analysis_gives_its_own_columns_changes_nothing(tmp_path: Path) -> None:
    def plant(content: Content) -> None:
        for row in content["benchmarks"]:
            row["extra_info"] |= {"seconds": "x", "unit": [1], "median_s": "y", "machine": 7, "case": None}

    planted, plain = load([rotten(tmp_path, plant)]), load([save(tmp_path / "plain.json", sound(0))])
    rows = planted.rows.drop(columns="file"), plain.rows.drop(columns="file")
    assert rows[0].drop(columns="seconds").equals(rows[1].drop(columns="seconds"))


@pytest.fixture(autouse=True)
def without_pictures() -> Iterator[None]:
    with undrawn():
        yield


def commands(folder: Path, rot: Rot) -> dict[str, Sequence[str]]:
    """The words of each command, one of whose files holds a record that is not sound."""
    storage = folder / "storage"
    storage.mkdir()
    files = [rotten(storage, rot), *(save(storage / f"{number}.json", sound(number)) for number in (1, 2, 3))]
    base, head = map(str, files[:2]), map(str, files[2:])
    return {
        "report": ["report", *map(str, files)],
        "compare": ["compare", *base, "--against", *head],
        "history": ["history", str(storage)],
    }


@pytest.mark.parametrize("command", ["report", "compare", "history"])
def test_each_command_names_the_record_that_it_leaves_out(
    command: str, tmp_path: Path, capsys: Capture
) -> None:
    words = commands(tmp_path, of_record(macs=-1))[command]
    assert main([*words, "-o", str(tmp_path / "out")]) in (0, 1)
    text = " ".join(capsys.readouterr().out.split())
    name = sound(0)["benchmarks"][0]["name"]
    assert f"rotten-0.json: benchmark '{name}' has macs = -1, but a number from 0" in text


def test_a_file_without_a_sound_record_is_refused_alone_and_left_out_of_a_history(
    tmp_path: Path, capsys: Capture
) -> None:
    def spoil(content: Content) -> None:
        content["not_measured"] = []
        for row in content["benchmarks"]:
            row["extra_info"]["peak_bytes"] = -2

    words = commands(tmp_path, spoil)
    out = ["-o", str(tmp_path / "out")]
    assert main([*words["report"], *out]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "peak_bytes = -2" in error and "none of its 16 records" in error
    assert main([*words["history"], *out]) == 0
    told: Any = json.loads((tmp_path / "out" / "history.json").read_text())
    assert sum("peak_bytes = -2" in sentence for sentence in told["left_out"]) == 1
    assert sum(machine["runs"] for machine in told["machines"]) == 3
