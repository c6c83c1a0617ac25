"""Records read from runs: fields kept, files refused, and warnings of what is missing."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.analysis.reading.fields import AMOUNTS, INTEGERS, TEXTS, InputError
from benchmarks.analysis.reading.records import load
from tests.synthetic import Law, Machine, Run

LAWS = {
    ("standard-explicit", "causal"): Law(1e-9, 2),
    ("linear-chunked", "causal"): Law(1e-7, 1),
}
LENGTHS = (256, 512, 1024)
SMALL = Run(LAWS, LENGTHS, repetitions=2, rounds=4)
LEFT_OUT = ("standard-explicit", "causal", 2048, "over_time", "too slow")


def save(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def change(change_first: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The small run with its first benchmark changed."""
    content = SMALL.content()
    change_first(content["benchmarks"][0])
    return content


def test_loaded_records_have_one_row_per_benchmark_with_all_rounds(tmp_path: Path) -> None:
    content = SMALL.content()
    rows = load([save(tmp_path / "out.json", content)]).rows
    assert len(rows) == len(content["benchmarks"]) == 2 * 3 * 2
    for benchmark, (_, row) in zip(content["benchmarks"], rows.iterrows(), strict=True):
        assert row["seconds"].tolist() == benchmark["stats"]["data"]
        assert {name: row[name] for name in benchmark["extra_info"]} == benchmark["extra_info"]


def test_unknown_fields_of_a_record_are_kept(tmp_path: Path) -> None:
    content = change(lambda first: first["extra_info"].update(temperature=61.5))
    assert load([save(tmp_path / "out.json", content)]).rows["temperature"].iloc[0] == 61.5


@pytest.mark.parametrize("name", ["out.json.gz", "out.json", "out.gz"])
def test_a_file_compressed_by_gzip_is_read_whatever_its_name(name: str, tmp_path: Path) -> None:
    uncompressed = save(tmp_path / "plain.json", SMALL.content())
    (tmp_path / "packed").mkdir()
    packed = tmp_path / "packed" / name
    packed.write_bytes(gzip.compress(uncompressed.read_bytes()))
    pd.testing.assert_frame_equal(
        load([packed]).rows.drop(columns="file"), load([uncompressed]).rows.drop(columns="file")
    )
    with pytest.raises(InputError, match="holds the same run as"):
        load([uncompressed, packed])


@pytest.mark.parametrize("keep", [slice(4), slice(20), slice(-9)])
def test_a_damaged_gzip_file_is_refused_as_such(keep: slice, tmp_path: Path) -> None:
    path = tmp_path / "out.json.gz"
    path.write_bytes(gzip.compress(json.dumps(SMALL.content()).encode())[keep])
    with pytest.raises(InputError, match=r"out\.json\.gz is a damaged gzip file"):
        load([path])


def test_a_gzip_file_of_no_json_is_refused_as_no_json(tmp_path: Path) -> None:
    path = tmp_path / "out.json.gz"
    path.write_bytes(gzip.compress(b"no JSON"))
    with pytest.raises(InputError, match="is not JSON"):
        load([path])


def left_out_of(path: Path) -> str:
    """The one warning on records left out of a small run, the others of which are all there."""
    records = load([path])
    (warning,) = records.warnings
    assert len(records.rows) == len(SMALL.content()["benchmarks"]) - 1
    return warning


@pytest.mark.parametrize("field", ["schema", *TEXTS, *INTEGERS, *AMOUNTS])
def test_a_record_without_a_field_is_left_out_by_file_benchmark_and_field(field: str, tmp_path: Path) -> None:
    content = change(lambda first: first["extra_info"].pop(field))
    warning = left_out_of(save(tmp_path / "out.json", content))
    assert f"no field '{field}'" in warning and content["benchmarks"][0]["name"] in warning
    assert str(tmp_path / "out.json") in warning


@pytest.mark.parametrize("field", ["schema", "kernel", "flops"])
def test_a_file_whose_records_all_lack_a_field_is_refused_by_file_and_name(
    field: str, tmp_path: Path
) -> None:
    content = SMALL.content()
    for benchmark in content["benchmarks"]:
        del benchmark["extra_info"][field]
    with pytest.raises(InputError, match=rf"out\.json.*no field '{field}'.*none of its 12 records"):
        load([save(tmp_path / "out.json", content)])


@pytest.mark.parametrize(
    ("field", "value"),
    [("seq_len", 0), ("seq_len", "512"), ("seq_len", None), ("heads", True), ("kernel", None), ("mode", 3),
     ("flops", -1), ("peak_bytes", "UNSERIALIZABLE"), ("schema", "1")],
)  # fmt: skip
def test_a_record_with_a_field_of_the_wrong_type_is_left_out_with_its_value(
    field: str, value: object, tmp_path: Path
) -> None:
    path = save(tmp_path / "out.json", change(lambda first: first["extra_info"].update({field: value})))
    assert re.search(rf"out\.json.*{field}.*{value!r}", left_out_of(path))


def test_a_newer_schema_is_refused_even_when_its_fields_are_unknown(tmp_path: Path) -> None:
    newest = r"schema 2, but schema 1 is the newest"
    content = change(lambda first: first.update(extra_info={"schema": 2}))
    assert re.search(newest, left_out_of(save(tmp_path / "out.json", content)))
    content["benchmarks"] = content["benchmarks"][:1]
    with pytest.raises(InputError, match=newest):
        load([save(tmp_path / "newer.json", content)])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("seconds: 3", "not JSON"),
        ('{"benchmarks": [{"name": "te', "cut off"),
        ("[" * 10**5, "not JSON|cut off"),
        ("[1, 2]", "no list"),
        ('{"benchmarks": {}}', "no list"),
        ('{"benchmarks": []}', "no benchmarks at all"),
        ('{"benchmarks": [3]}', "no field 'schema'"),
        ('{"context": {}, "benchmarks": [{"name": "BM_sort"}]}', "BM_sort.*no field 'schema'"),
    ],
)
def test_a_file_that_is_no_run_is_refused_with_the_kind_of_its_content(
    text: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "out.json"
    path.write_text(text)
    with pytest.raises(InputError, match=what) as error:
        load([path])
    assert str(path) in str(error.value)


def test_a_file_of_bytes_that_are_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not JSON"):
        load([path])


def test_a_missing_file_and_a_directory_are_refused_in_words_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load([tmp_path / "absent.json"])
    with pytest.raises(InputError, match="is a directory"):
        load([tmp_path])


def test_a_run_given_twice_is_refused_also_under_another_name(tmp_path: Path) -> None:
    first, second = (save(tmp_path / name, SMALL.content()) for name in ("a.json", "b.json"))
    for paths in ([first, first], [first, second]):
        with pytest.raises(InputError, match="same run as"):
            load(paths)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1e-3, None, "1"])
def test_a_case_with_an_impossible_time_is_left_out_and_named(bad: object, tmp_path: Path) -> None:
    content = change(lambda first: first["stats"]["data"].__setitem__(1, bad))
    records = load([save(tmp_path / "out.json", content)])
    key = content["benchmarks"][0]["extra_info"]["key"]
    assert len(records.rows) == len(content["benchmarks"]) - 1
    assert len(records.warnings) == 1 and key in records.warnings[0]
    assert records.not_measured.empty  # the other repetition of this case is sound


def test_a_case_without_one_sound_repetition_counts_as_failed(tmp_path: Path) -> None:
    content = SMALL.content()
    for benchmark in content["benchmarks"][:2]:
        benchmark["stats"]["data"][0] = 0.0
    (_, row), *others = load([save(tmp_path / "out.json", content)]).not_measured.iterrows()
    assert not others
    assert (row["kernel"], row["seq_len"], row["outcome"]) == ("standard-explicit", 256, "failed")


def test_a_benchmark_without_rounds_takes_the_median_of_its_statistics_with_a_warning(tmp_path: Path) -> None:
    content = SMALL.content()
    for benchmark in content["benchmarks"]:
        del benchmark["stats"]["data"]
    records = load([save(tmp_path / "out.json", content)])
    assert records.rows["median_s"].tolist() == [one["stats"]["median"] for one in content["benchmarks"]]
    assert records.rows["rounds"].tolist() == [4] * len(content["benchmarks"])
    assert len(records.warnings) == 1 and "out.json" in records.warnings[0]


def test_a_benchmark_without_any_times_is_left_out(tmp_path: Path) -> None:
    path = save(tmp_path / "out.json", change(lambda first: first.update(stats={})))
    assert "no times" in left_out_of(path)


def test_the_unit_is_the_repetition_in_one_file_and_the_run_in_several(tmp_path: Path) -> None:
    paths = [Run(LAWS, LENGTHS, seed=seed).write(tmp_path / f"{seed}.json") for seed in (1, 2)]
    one, several = load(paths[:1]).rows, load(paths).rows
    assert set(one["unit_kind"]) == {"repetition"} and set(one["unit"]) == {1, 2, 3}
    assert set(several["unit_kind"]) == {"run"} and set(several["unit"]) == {0, 1}


def test_files_of_different_devices_keep_their_repetitions_as_units(tmp_path: Path) -> None:
    paths = [SMALL.write(tmp_path / "cpu.json")]
    paths.append(Run(LAWS, LENGTHS, machine=Machine("cuda", "GPU")).write(tmp_path / "cuda.json"))
    assert set(load(paths).rows["unit_kind"]) == {"repetition"}


def test_cases_left_out_take_clock_and_device_name_from_measured_cases(tmp_path: Path) -> None:
    content = Run(LAWS, LENGTHS, not_measured=[LEFT_OUT]).content()
    for field in ("clock", "device_name"):
        del content["not_measured"][0][field]
    row = load([save(tmp_path / "out.json", content)]).not_measured.iloc[0]
    assert (row["clock"], row["device_name"], row["reason"]) == ("wall", "Synthetic CPU", "too slow")


@pytest.mark.parametrize("field", ["seq_len", "outcome", "reason"])
def test_a_case_not_measured_without_its_fields_is_left_out_by_name(field: str, tmp_path: Path) -> None:
    content = Run(LAWS, LENGTHS, not_measured=[LEFT_OUT]).content()
    del content["not_measured"][0][field]
    records = load([save(tmp_path / "out.json", content)])
    assert re.search(rf"not_measured case 0.*'{field}'", records.warnings[0])
    assert records.not_measured.empty and len(records.rows) == len(content["benchmarks"])


def test_an_unknown_outcome_is_left_out_with_the_list_of_known_outcomes(tmp_path: Path) -> None:
    path = Run(LAWS, LENGTHS, not_measured=[(*LEFT_OUT[:3], "tired", "")]).write(tmp_path / "out.json")
    assert re.search(r"'tired'.*over_time", load([path]).warnings[0])


def test_a_case_that_another_run_measured_is_not_listed_as_left_out(tmp_path: Path) -> None:
    slow = Run(LAWS, LENGTHS, not_measured=[LEFT_OUT]).write(tmp_path / "slow.json")
    fast = Run(LAWS, (*LENGTHS, 2048)).write(tmp_path / "fast.json")
    assert len(load([slow]).not_measured) == 1
    assert load([slow, fast]).not_measured.empty


def test_kernels_of_other_families_may_leave_fields_null(tmp_path: Path) -> None:
    nothing = {"kernel": "copy", "family": "ceiling", "mode": None, "seq_len": None, "head_dim": None}
    content = change(lambda first: first["extra_info"].update(nothing))
    assert load([save(tmp_path / "out.json", content)]).rows["kernel"].iloc[0] == "copy"


def test_a_record_without_a_subject_is_of_the_operator(tmp_path: Path) -> None:
    content = change(lambda first: first["extra_info"].update(subject="layer"))
    subjects = load([save(tmp_path / "out.json", content)]).rows["subject"]
    assert subjects.tolist() == ["layer", *["operator"] * (len(content["benchmarks"]) - 1)]


@pytest.mark.parametrize(
    ("field", "value"),
    [("subject", "network"), ("counted_flops", -1), ("predicted_peak_bytes", "4"), ("embed_dim", 0)],
)
def test_a_record_with_an_optional_field_of_the_wrong_type_is_left_out(
    field: str, value: object, tmp_path: Path
) -> None:
    path = save(tmp_path / "out.json", change(lambda first: first["extra_info"].update({field: value})))
    assert f"{field} = {value!r}" in left_out_of(path)
