"""Sound records in odd company, each found by the fuzzer: they are concluded from as far as they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from tests.hostile import Content, sound, undrawn, write

Plant = Callable[[Content], None]


def infos(content: Content, kernel: str) -> list[Content]:
    return [row["extra_info"] for row in content["benchmarks"] if row["extra_info"]["kernel"] == kernel]


def ceilings_without_amounts(content: Content) -> None:
    for kernel, amount in (("ceiling-copy", "min_bytes"), ("ceiling-matmul", "flops")):
        for info in infos(content, kernel):
            info[amount] = None


def ceilings_of_extreme_amounts(content: Content) -> None:
    for kernel, amount, value in (("ceiling-copy", "min_bytes", 1e30), ("ceiling-matmul", "flops", 1e-30)):
        for info in infos(content, kernel):
            info[amount] = value


def ceilings_of_a_device_without_a_name(content: Content) -> None:
    infos(content, "ceiling-copy")[0]["device_name"] = None


def ceilings_without_a_dtype(content: Content) -> None:
    infos(content, "ceiling-matmul")[0]["dtype"] = None


def two_keys_of_one_case(content: Content) -> None:
    infos(content, "linear-chunked")[0]["key"] = "another"


def repetitions_without_a_common_length(content: Content) -> None:
    info = infos(content, "linear-chunked")
    content["benchmarks"] = [
        row
        for row in content["benchmarks"]
        if row["extra_info"] not in info
        or (row["extra_info"]["seq_len"] == 512) == (row["extra_info"]["repetition"] == 1)
    ]


def one_time_of_a_femtosecond(content: Content) -> None:
    content["benchmarks"][0]["stats"]["data"] = [1e-15, 1e9]


def lengths_far_apart(content: Content) -> None:
    for info in infos(content, "linear-chunked") + infos(content, "standard-sdpa"):
        info["seq_len"] = {512: 1, 1024: 2**39, 2048: 2**40}[info["seq_len"]]


PLANTS = (
    ceilings_without_amounts,
    ceilings_of_extreme_amounts,
    ceilings_of_a_device_without_a_name,
    ceilings_without_a_dtype,
    two_keys_of_one_case,
    repetitions_without_a_common_length,
    one_time_of_a_femtosecond,
    lengths_far_apart,
)


@pytest.mark.parametrize("plant", PLANTS)
def test_odd_records_are_concluded_from_by_every_command(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        content = sound(number)
        plant(content)
        write(tmp_path / f"{number}.json", content)
    one, two = (str(tmp_path / f"{number}.json") for number in range(2))
    with undrawn():
        for words in (["report", one], ["compare", one, "--against", two], ["history", str(tmp_path)]):
            assert main([*words, "-o", str(tmp_path / "out")]) in (0, 1)
            assert capsys.readouterr().err == ""
