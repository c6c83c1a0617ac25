"""The command compare on revisions: its noise floor is measured once a machine and used afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import commands, revisions
from benchmarks.__main__ import main
from benchmarks.analysis.comparison import regression
from benchmarks.analysis.comparison.writing import WrittenComparison
from benchmarks.comparing import LEAST_PAIRS, compare_files, compare_revisions
from tests.compared import PLAIN, records
from tests.repository import Repository
from tests.synthetic import Law, Noise, Run

pytestmark = pytest.mark.usefixtures("without_pictures")
LINEAR = "attention/kernels/linear_explicit.py"
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
NOISE = Noise(run=0.02, repetition=0.005, round=0.01)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(revisions, "measure", measure)
    return tmp_path / "cache" / "attention-scaling"


def measure(file: Path, options: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
    """Times of kernels are the microseconds a token that their code names, 1 where it names none."""
    code = (Path(environment["PYTHONPATH"].split(":")[1]) / LINEAR).read_text()
    law = Law(1e-6 * float(code.partition("# takes ")[2].partition("\n")[0] or 1), 1.0)
    side, pair = file.stem.split("-")
    laws = {("linear-chunked", mode): law for mode in ("causal", "bidirectional")}
    seed = 2 * int(pair) + (side == "head")
    content = Run(laws, lengths=LENGTHS, noise=NOISE, repetitions=1, seed=seed).content()
    content["run"] |= {"pair": int(pair), "side": side}
    file.write_text(json.dumps(content))


Compare = Callable[..., tuple[WrittenComparison, str]]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Run compare on the last two commits, or on other revisions."""
    repository = Repository(tmp_path / "repository")
    repository.edit(LINEAR, "from __future__", "# takes 1.15\nfrom __future__")
    repository.commit("slow")

    def run(base: str = "HEAD~1", head: str = "HEAD", pairs: int = 6) -> tuple[WrittenComparison, str]:
        lines: list[str] = []
        how: dict[str, Any] = {"margin": 0.05, "format": "text", "say": lines.append}
        output = tmp_path / "out"
        comparison = compare_revisions((base, head), pairs, (), output, root=repository.folder, **how)
        return comparison, "\n".join(lines)

    return run


def test_compare_calls_a_slower_commit_a_regression(compare: Compare, cache: Path) -> None:
    comparison, said = compare()
    assert comparison.found.regressed
    assert {case.verdict for case in comparison.found.cases} == {"slower"}
    assert comparison.found.unit == "pair" and comparison.found.units.base == 6
    assert "noise" not in said and not cache.exists()


def test_compare_of_a_commit_with_itself_measures_the_noise_floor_that_is_the_least_margin(
    compare: Compare, cache: Path, tmp_path: Path
) -> None:
    comparison, said = compare("HEAD", "HEAD")
    (file,) = cache.iterdir()
    stored = json.loads(file.read_text())
    # Two means of six runs with 2 % noise each differ by 1.15 %, at most twice as much in 12 cases.
    assert 0.002 < stored["share"] < 0.04 and stored["pairs"] == 6 and stored["cases"] == 12
    assert f"changed by {stored['share']:.1%} or less" in said and str(file) in said
    assert not comparison.found.regressed and comparison.found.noise is None
    file.write_text(json.dumps({**stored, "share": 0.3}))
    noisy, said = compare()
    assert noisy.found.margin == noisy.found.noise == 0.3 and not noisy.found.regressed
    assert "A/A noise of this machine: 30.0%, by 6 pairs" in said
    assert "Margin 30 % (A/A noise here: 30 %)" in noisy.text
    folder = tmp_path / "out" / "runs-002"
    base, head = (sorted(folder.glob(f"{side}-*.json")) for side in revisions.SIDES)
    files = compare_files(base, head, tmp_path / "out", margin=0.05, format="text", say=lambda line: None)
    assert files.found.margin == 0.3


def test_a_small_noise_floor_leaves_the_margin_of_compare_as_asked_for(compare: Compare, cache: Path) -> None:
    compare("HEAD", "HEAD")
    (file,) = cache.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "share": 0.01}))
    comparison, _ = compare()
    assert comparison.found.margin == 0.05 and comparison.found.regressed


def test_compare_of_few_pairs_stores_no_noise_floor(compare: Compare, cache: Path) -> None:
    _, said = compare("HEAD", "HEAD", LEAST_PAIRS - 1)
    assert "The noise is not stored" in said and not cache.exists()


def test_compare_answers_where_the_cache_of_noise_floors_cannot_be_written(
    compare: Compare, cache: Path
) -> None:
    cache.parent.write_text("a file in the place of the folder")
    comparison, said = compare("HEAD", "HEAD")
    assert comparison.found.cases and "warning: the noise floor cannot be stored" in said


def test_compare_of_revisions_hands_every_unknown_option_to_pytest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[Any] = []
    base, head = (records(tmp_path, side, PLAIN, 1) for side in ("base", "head"))
    found = regression.compare(base, head)

    def answer(*arguments: Any, **how: Any) -> WrittenComparison:
        asked.extend([*arguments, how["margin"], how["format"]])
        return WrittenComparison("the text\n", [], replace(found, regressed=True))

    monkeypatch.setattr(commands, "compare_revisions", answer)
    words = ["compare", "--rev", "main", "--rev=.", "--pairs", "3", "--kernel", "linear-*", "-k", "causal"]
    assert main([*words, "--margin=2%", "-o", str(tmp_path)]) == 1
    assert asked == [["main", "."], 3, ["--kernel", "linear-*", "-k", "causal"], tmp_path, 0.02, "text"]
    assert capsys.readouterr().out == "the text\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rev", "HEAD", "--rev", "HEAD", "--against", "a.json"], "give one of them"),
        (["a.json"], "the following arguments are required: --against"),
        (["a.json", "--against", "b.json", "--kernel", "x"], "unrecognized arguments: --kernel x"),
        (["--rev", "HEAD", "--rev", "HEAD", "--pairs=0"], "'0' is not a number of at least 1"),
    ],
)
def test_wrong_usage_of_compare_with_revisions_is_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_compare_names_uncommitted_changes(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_changed(file: Path, *how: Any) -> None:
        measure(file, *how)
        content = json.loads(file.read_text())
        content["commit_info"] = {"id": "c" * 40, "dirty": file.stem.startswith("head")}
        file.write_text(json.dumps(content))

    monkeypatch.setattr(revisions, "measure", measure_changed)
    comparison, _ = compare()
    assert "Base: 6 runs of ccccccccc. Head: 6 runs of ccccccccc+changes." in comparison.text
