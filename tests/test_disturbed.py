"""Report, compare and history tell of the same disturbances in the same words, of quiet runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.comparison.regression import compare
from benchmarks.analysis.comparison.text import sections
from benchmarks.analysis.comparison.writing import write_comparison
from benchmarks.analysis.conditions.quality import name_quality
from benchmarks.analysis.document import as_text
from benchmarks.analysis.history.storage import read_storage
from benchmarks.analysis.history.writing import write_history
from benchmarks.analysis.reading.records import load
from tests.histories import EPOCH, commit_id
from tests.synthetic import ceilings
from tests.test_quality import DISTURBED, GPU, Content, conditions, facts, slow_down, steady

pytestmark = pytest.mark.usefixtures("without_pictures")
HEADING = "Quality of the measurements"
COUNT = 3
Disturb = Callable[[Content], object]


def drifting(content: Content) -> Content:
    return slow_down(content, lambda record: 1 + 0.06 * (record["repetition"] - 1))


OF_SENSORS = ("CPU load", "Slower clock", "Throttled GPU: the SM clock", "Power saving: the machine")
EVERY: dict[str, Disturb] = {
    **{words: disturb for words, disturb in DISTURBED.items() if words.startswith(OF_SENSORS)},
    "Drift: from the first to the last repetition all cases together became 12 % slower": drifting,
}


def save(folder: Path, side: str, *disturb: Disturb, count: int = COUNT) -> list[Path]:
    """Runs of a side measured in turn with those of the other, of which the last is disturbed."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        late = side == "head"
        content = steady(2 * number + late)
        content["datetime"] = f"2025-01-{number + 1:02d}T{12 * (late != (number % 2)):02d}:00:00+00:00"
        content["commit_info"] |= {"id": commit_id(late), "time": f"2025-01-{late + 1:02d}T00:00:00+00:00"}
        if number == count - 1:
            for change in disturb:
                change(content)
        paths.append(folder / f"{side}-{number}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("words", EVERY)
def test_report_compare_and_history_tell_of_a_disturbance_in_the_same_words(
    words: str, tmp_path: Path
) -> None:
    base, head = save(tmp_path / "runs", "base"), save(tmp_path / "runs", "head", EVERY[words])
    reported = name_quality(load(head))
    (sentence,) = [one for one in reported if one.startswith(words)]
    comparison = compare(load(base), load(head))
    assert comparison.base.conditions == [] and comparison.head.conditions == reported
    disturbed = [run for run in read_storage(tmp_path / "runs")[0] if run.conditions]
    assert [run.path for run in disturbed] == head[-1:]
    ((kind, found),) = disturbed[0].conditions.items()
    assert f"{kind}: {found}".startswith(words) and f"{kind}: {found}" in sentence


def test_compare_names_the_disturbed_side_in_text_markdown_and_json_and_exits_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = save(tmp_path, "base", conditions(others_cores=1.5)), save(tmp_path, "head")
    written = write_comparison(base, head, tmp_path / "out")
    load_of_base = f"Base: CPU load: others took 52 % of a core ({base[-1]})."
    assert load_of_base in flat(written.text.partition(HEADING)[2])
    assert load_of_base in (tmp_path / "out/summary.md").read_text()
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert found["base"]["conditions"][0].startswith("CPU load") and found["head"]["conditions"] == []
    names = [*map(str, base), "--against", *map(str, head), "-o", str(tmp_path / "again")]
    assert main(["compare", *names]) == int(written.found.regressed) == 0
    assert load_of_base in flat(capsys.readouterr().out)


def test_quiet_runs_are_passed_over_in_silence(tmp_path: Path) -> None:
    base, head = (save(tmp_path / "runs", side) for side in ("base", "head"))
    comparison = write_comparison(base, head, tmp_path / "comparison")
    assert HEADING not in comparison.text and comparison.found.conditions == []
    assert HEADING not in write_history(tmp_path / "runs", tmp_path / "history").text
    assert json.loads((tmp_path / "history/history.json").read_text())["disturbed"] == []


def test_runs_without_sensors_are_passed_over_in_silence(tmp_path: Path) -> None:
    def forget(content: Content) -> None:
        content["run"] = {}

    base, head = (save(tmp_path / "runs", side, forget, count=1) for side in ("base", "head"))
    assert HEADING not in write_comparison(base, head, tmp_path / "comparison").text
    assert HEADING not in write_history(tmp_path / "runs", tmp_path / "history").text


# What differs between the sides


def all_runs(**changes: Any) -> Disturb:
    """Change what was read in every repetition."""

    def change(content: Content) -> None:
        for reading in content["run"]["conditions"][1:]:
            reading.update(changes)

    return change


@pytest.mark.parametrize(
    ("side", "change", "words"),
    [
        ("head", all_runs(others_cores=0.5), "The head was measured under more load: others took 50 % of a core, and 3.0 % beside the base."),  # noqa: E501
        ("base", all_runs(others_cores=0.5), "The base was measured under more load: others took 50 % of a core, and 3.0 % beside the head."),  # noqa: E501
        ("head", all_runs(cpu_mhz=2500.0), "The head was measured at a slower CPU clock: 2500 MHz, and 3000 MHz for the base."),  # noqa: E501
        ("base", all_runs(gpu_sm_clock_mhz=1500), "The base was measured at a slower GPU clock: 1500 MHz, and 1980 MHz for the head."),  # noqa: E501
        ("head", facts(numpy="2.2.0"), "Base and head differ in NumPy (2.1.0 and 2.2.0)."),
    ],
)  # fmt: skip
def test_compare_names_the_side_measured_in_worse_conditions(
    side: str, change: Disturb, words: str, tmp_path: Path
) -> None:
    base, head = (
        save(tmp_path, one, *([change] if one == side else []), count=1) for one in ("base", "head")
    )
    comparison = compare(load(base), load(head))
    (sentence,) = comparison.conditions
    assert sentence.startswith(words) and sentence in flat(as_text(sections(comparison)))


@pytest.mark.parametrize(
    "change",
    [
        all_runs(others_cores=0.1),
        all_runs(cpu_mhz=2800.0),
        all_runs(gpu_sm_clock_mhz=1410, gpu_throttle_reasons=0x4),  # at the power cap
        all_runs(others_cores=None, cpu_mhz=None, gpu_sm_clock_mhz=None),
    ],
)
def test_small_differences_between_the_sides_are_not_named(change: Disturb, tmp_path: Path) -> None:
    base, head = save(tmp_path, "base", count=1), save(tmp_path, "head", change, count=1)
    assert compare(load(base), load(head)).conditions == []


def test_the_same_load_beside_both_sides_is_told_of_each_and_is_no_difference(tmp_path: Path) -> None:
    loaded = all_runs(others_cores=1.0)
    base, head = (save(tmp_path, side, loaded, count=1) for side in ("base", "head"))
    comparison = compare(load(base), load(head))
    assert comparison.conditions == []
    assert len(comparison.base.conditions) == len(comparison.head.conditions) == 1


# Histories


def test_a_history_names_the_disturbed_revisions_newest_first_and_counts_the_runs(tmp_path: Path) -> None:
    save(tmp_path / "runs", "base", all_runs(others_cores=0.5))
    save(tmp_path / "runs", "head", all_runs(others_cores=0.7), facts(governor="powersave"))
    text = flat(write_history(tmp_path / "runs", tmp_path / "out").text)
    assert "2 of 6 runs were disturbed" in text
    newest = text.index(
        "0000001 (2025-01-02): CPU load: others took 70 % of a core (head-2.json); Power saving"
    )
    assert newest < text.index("0000000 (2025-01-01): CPU load: others took 50 % of a core (base-2.json).")
    found = json.loads((tmp_path / "out/history.json").read_text())["disturbed"]
    assert [(one["revision"]["name"], Path(one["file"]).name) for one in found] == [
        ("0000000", "base-2.json"),
        ("0000001", "head-2.json"),
    ]
    assert set(found[1]["conditions"]) == {"CPU load", "Power saving"}


@pytest.mark.parametrize("everything", [True, False])
def test_a_step_of_a_line_or_of_the_machine_names_what_disturbed_its_revision(
    everything: bool, tmp_path: Path
) -> None:
    def factor(record: Mapping[str, Any]) -> float:
        one = (record["kernel"], record["mode"], record["seq_len"]) == ("linear-chunked", "causal", 2048)
        return 1.6 if everything or one else 1.0

    (tmp_path / "runs").mkdir()
    for number in range(40):
        content = steady(number, lengths=(512, 2048))
        time = (EPOCH + timedelta(days=number)).isoformat()
        content["commit_info"] |= {"id": commit_id(number), "time": time}
        content["benchmarks"] += ceilings(GPU, 4e12, 7e14)
        if number >= 20:
            slow_down(content, factor)
        if number == 20:
            all_runs(others_cores=0.5)(content)
        (tmp_path / f"runs/{number}.json").write_text(json.dumps(content))
    text = write_history(tmp_path / "runs", tmp_path / "out").text
    title = "The machine\n" if everything else "0000013 .. 0000014 (2025-01-21)\n"
    section = text.partition(title)[2].partition("\n\n")[0]
    assert "slower" in section and "Disturbed at 0000014: CPU load." in section
    assert "Disturbed at 0000013" not in text


def test_many_disturbed_revisions_are_counted_in_the_text_and_listed_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for number in range(25):
        content = steady(number, lengths=(512, 2048))
        content["commit_info"] |= {
            "id": commit_id(number),
            "time": f"2025-01-{number + 1:02d}T00:00:00+00:00",
        }
        all_runs(others_cores=0.5)(content)
        (tmp_path / f"runs/{number}.json").write_text(json.dumps(content))
    text = flat(write_history(tmp_path / "runs", tmp_path / "out").text)
    assert "25 of 25 runs were disturbed" in text and "and 5 more: see history.json" in text
    assert len(json.loads((tmp_path / "out/history.json").read_text())["disturbed"]) == 25
