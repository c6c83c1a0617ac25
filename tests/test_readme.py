"""README files: their links, their figures, and the commands that CI copies."""

from __future__ import annotations

import re

import pytest

from tests.readmes import ROOT, TEXTS, TOP, commands, dead_links

INSTALL_AND_MEASURE = (
    "pip install -e '.[bench]' && pytest benchmarks --benchmark-json=out.json "
    "&& python -m benchmarks report out.json"
)
INSTALL_AND_TEST = "pip install -e '.[test]' && pytest tests"
CPU_BUILD = "pip install torch --index-url https://download.pytorch.org/whl/cpu"


@pytest.mark.parametrize("line", [CPU_BUILD, INSTALL_AND_MEASURE, INSTALL_AND_TEST])
def test_the_readme_holds_each_command_of_installation_once(line: str) -> None:
    assert TOP.splitlines().count(f"    {line}") == 1


def test_ci_finds_its_commands_in_the_readme() -> None:
    words = re.findall(r"\(readme '(.+?)'\)", (ROOT / ".ci" / "run").read_text())
    found = [next(line for line in commands(TOP) if re.match(f"pip install.*{word}", line)) for word in words]
    assert found == [INSTALL_AND_MEASURE, INSTALL_AND_TEST]


def test_the_readme_is_short_and_links_to_every_other_readme() -> None:
    assert len(TOP.splitlines()) <= 160
    assert [name for name in TEXTS if name != "README.md" and f"]({name})" not in TOP] == []


def test_the_crossovers_in_the_readme_are_those_of_the_published_runs() -> None:
    summaries = "".join(file.read_text() for file in ROOT.glob("benchmarks/published/*/summary.md"))
    cells = re.findall(r"\d+ \[\d+, \d+\](?= \|)", TOP)
    assert len(cells) == 6
    assert [cell for cell in cells if f"N = {cell}" not in summaries] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_of_a_readme_has_a_target(name: str) -> None:
    assert list(dead_links(TEXTS[name], (ROOT / name).parent)) == []


def test_a_dead_link_of_a_readme_is_found() -> None:
    text = "[a](gone.md) ![b](benchmarks/gone.png) [c](README.md#gone) [d](README.md#results) [e](https://f)"
    assert list(dead_links(text, ROOT)) == ["gone.md", "benchmarks/gone.png", "README.md#gone"]
