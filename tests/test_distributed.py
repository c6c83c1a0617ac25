"""Ranks that share a sequence compute what one of them alone would, and exchange what the law says."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from attention.distributed.routes import cut, of_packed, of_prefixes
from benchmarks.__main__ import main
from tests.rank_checks import CHECKS
from tests.ranks import outcomes


@pytest.fixture(scope="module")
def of_two() -> Mapping[str, str]:
    return outcomes("tests.rank_checks:CHECKS", 2)


@pytest.fixture(scope="module")
def of_four() -> Mapping[str, str]:
    return outcomes("tests.rank_checks:CHECKS", 4)


@pytest.mark.parametrize("check", CHECKS)
def test_two_ranks(check: str, of_two: Mapping[str, str]) -> None:
    assert not of_two[check], of_two[check]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_four_ranks(check: str, of_four: Mapping[str, str]) -> None:
    assert not of_four[check], of_four[check]


@pytest.mark.slow
def test_a_compiler_takes_the_whole_call_into_one_graph() -> None:
    assert outcomes("tests.rank_checks:COMPILED", 2) == {"compiled": ""}


@pytest.mark.slow
def test_a_rank_that_fails_while_states_fly_costs_its_case_only() -> None:
    assert outcomes("tests.rank_failures:LATE", 2) == {"late": ""}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton")
def test_linear_triton_exchanges_states_between_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert set(outcomes("tests.rank_checks_of_triton:INTERPRETED", 2).values()) == {""}


def test_a_sequence_over_all_ranks_is_packed_as_one() -> None:
    for rank in range(4):
        assert of_packed((0, 8), (2, 2, 2, 2), rank, causal=True) == of_prefixes(rank, 4)


def test_a_rank_without_tokens_passes_on_what_comes_before_it() -> None:
    assert of_packed((0, 8), (4, 0, 4), 2, causal=True).sources == ((0,),)
    assert of_packed((0, 8), (4, 0, 4), 1, causal=True).sources == ((),)


def test_pieces_tell_what_comes_before_and_behind() -> None:
    first, second = cut((0, 3, 3, 7, 10), (5, 5))
    assert [(one.start, one.stop, one.begun, one.goes_on) for one in first] == [
        (0, 3, False, False),
        (3, 5, False, True),
    ]
    assert [(one.start, one.stop, one.begun, one.goes_on) for one in second] == [
        (0, 2, True, False),
        (2, 5, False, False),
    ]


def test_without_torchrun_one_sentence_says_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert main(["distributed", "-o", str(tmp_path)]) == 2
    assert "torchrun --nproc-per-node 2 -m benchmarks distributed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--kernel=nothing", "matches no kernel; there are linear-sequence-parallel"),
        ("--mode=sideways", "choose out of bidirectional, causal"),
        ("--parallelism=odd", "choose out of strong, weak"),
        ("--seq-len=0", "takes lengths above 0"),
        ("--shape=8", "takes batch x heads"),
        ("--case-timeout=0", "must be above 0"),
        ("--dtype=float32,bfloat16", "takes one a session"),
    ],
)
def test_an_option_that_cannot_be_used_is_told(
    option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distributed", option]) == 2
    assert words in capsys.readouterr().err
