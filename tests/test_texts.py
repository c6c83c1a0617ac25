"""Texts of the input: printable at the door, literal in markdown and shells, no formulas in tables."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.__main__ import main
from benchmarks.analysis.document import Section, Table, as_markdown
from benchmarks.analysis.reading.texts import MOST_CHARACTERS, MOST_LEVELS, clean, printable, shown
from benchmarks.analysis.serialization import csv_text
from tests.hostile import Content, sound, undrawn, write

CONTROLS = "\x00\x07\x1b\x7f\x85\x9b\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u2028\u2029\ufeff\ud800\ue000"
Capture = pytest.CaptureFixture[str]


def test_every_character_of_unicode_is_printable_or_escaped() -> None:
    for code in [*range(0x3100), *range(0xD7FF, 0xE010), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0200)]:
        character = chr(code)
        shape = printable(f"a{character}b")
        assert shape.isprintable() and shape[0] + shape[-1] == "ab"
        if unicodedata.category(character)[0] not in "CZ":
            assert shape == f"a{character}b"


def test_white_space_becomes_a_space_and_controls_their_escapes() -> None:
    assert printable("a\tb\nc\rd\xa0e\u3000f") == "a b c d e f"
    assert printable("\x1b[31m\u202e\ud800\x9b") == "\\x1b[31m\\u202e\\ud800\\x9b"
    assert printable("µ 中文 é") == "µ 中文 é"


def test_clean_values_hold_no_controls_at_any_depth_and_nothing_too_deep_or_too_long() -> None:
    nested: Any = "\x1b"
    for _ in range(MOST_LEVELS + 5):
        nested = [nested]
    found = clean({"\x1b": ["\x00", {"a\u202e": 1.5}], "long": "x" * 10**6, "nested": nested, "n": None})
    assert found["\\x1b"] == ["\\x00", {"a\\u202e": 1.5}] and found["n"] is None
    assert len(found["long"]) == MOST_CHARACTERS
    assert json.dumps(found["nested"]) == "[" * (MOST_LEVELS - 1) + "null" + "]" * (MOST_LEVELS - 1)


def test_a_value_in_a_sentence_is_short_and_printable() -> None:
    assert shown("a\x1b") == "'a\\x1b'" and shown(2) == "2"
    for long in ("x" * 10**6, [0] * 10**5, 10**299):
        assert len(shown(long)) < 100


def plant(content: Content, text: str) -> None:
    """Give a text to everything that a file says in words."""
    for row in content["benchmarks"]:
        info = row["extra_info"]
        for field in ("mode", "dtype", "phase", "device_name", "device", "clock", "key"):
            info[field] = f"{info[field]}{text}"
        info["kernel"] += text if info["family"] != "ceiling" else ""
        info[f"unknown{text}"] = text
    content["not_measured"][0]["reason"] = f"because {text}"
    content["not_measured"][0]["kernel"] += text
    content["commit_info"]["id"] = f"{text}{content['commit_info']['id']}"
    content["machine_info"]["cpu"]["brand_raw"] = content["run"]["driver"] = content["run"]["governor"] = text
    content["run"][text] = {text: [text]}


def conclude(folder: Path, text: str) -> dict[str, str]:
    """Texts of all that the three commands write about files that hold a text wherever they can."""
    storage, found = folder / "storage", dict[str, str]()
    storage.mkdir()
    files = []
    for number in range(2):
        content = sound(number)
        plant(content, text)
        files.append(str(write(storage / f"{number}.json", content)))
    words = {
        "report": ["report", *files], "compare": ["compare", files[0], "--against", files[1]],
        "history": ["history", str(storage)],
    }  # fmt: skip
    for command, arguments in words.items():
        with undrawn():
            assert main([*arguments, "-o", str(folder / command)]) in (0, 1)
        found |= {
            f"{command}/{file.name}": file.read_text(encoding="utf-8")
            for file in (folder / command).iterdir()
        }
    return found


def test_no_control_character_of_a_file_reaches_the_terminal_or_any_output(
    tmp_path: Path, capsys: Capture
) -> None:
    found = conclude(tmp_path, CONTROLS)
    found["terminal"] = "".join(capsys.readouterr())
    assert len(found) == 9
    for name, text in found.items():
        assert [line for line in text.split("\n") if not line.isprintable()] == [], name
        assert "\\x1b" in text, name
    for name in ("report/summary.json", "compare/comparison.json", "history/history.json"):
        assert "\\u202e" not in json.dumps(json.loads(found[name])).replace("\\\\u202e", "")


ACTIVE = (
    "![x](http://e.org/a.png)", "[x](javascript:alert(1))", "<img src=x>", "`code`", "**bold**", "_slanted_",
    "~~struck~~", "http://e.org", "www.e.org", "$x$", "[a][b]", "[a]: http://e.org", "&lt;b&gt;", "#1", "a|b",
    "a@e.org", "__b__",
)  # fmt: skip


@pytest.mark.parametrize("text", ACTIVE)
def test_markdown_renders_what_the_input_says_letter_by_letter(text: str) -> None:
    table = Table(["a", text], [[text, f"b {text}"]])
    markdown = as_markdown([Section(text, [f"A name is {text}.", text], table=table, notes=[text])])
    assert not re.search(rf"(?<!\\){re.escape(text)}", markdown)
    assert literal(markdown).count(text) == 7 if "|" not in text else literal(markdown).count(text) >= 4
    assert not re.search(r"(?<!\\)(?:\\\\)*(?:[`<$]|\]\(|\]\[|\]:|://)", markdown.replace("@<!-- -->", ""))


def literal(markdown: str) -> str:
    """What is left of markdown when its escapes are taken away."""
    bare = markdown.replace("@<!-- -->", "@")
    bare = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", bare)
    return bare.replace("&lt;", "<").replace("&amp;", "&")


@pytest.mark.parametrize(
    "text", ["- a", "+ a", "* a", "> a", "1. a", "2) a", "[ ] a", "[x] a", "    a", "# a"]
)
def test_a_sentence_never_begins_another_block_of_markdown(text: str) -> None:
    (line,) = as_markdown([Section("t", [text])]).splitlines()[2:]
    assert line.startswith("- ") and not re.match(r"- (?:[-+*>#]|\d+[.)]|\[[ x]\]| )", line)
    assert literal(line) == f"- {text.strip()}"


def test_our_own_numbers_stay_readable_in_the_source_of_markdown() -> None:
    sentence = "N* = 347 [256, 364], t ~ N^p, forward_backward, 12 ms ±3%, a * b, c -> d."
    assert f"- {sentence}" in as_markdown([Section("t", [sentence])])


def test_a_command_in_markdown_stays_in_its_fence_and_a_shell_takes_its_words_as_they_are(
    tmp_path: Path,
) -> None:
    name = "linear-```$(touch x) 'a\"; rm -rf"
    content = sound(0)
    for row in content["benchmarks"]:
        info = row["extra_info"]
        info["kernel"] = name if info["kernel"] == "linear-chunked" else info["kernel"]
        row["stats"]["data"] = [0.02 if info["family"] == "linear" else 4e-8 * info["seq_len"] ** 2] * 2
    path = write(tmp_path / "out.json", content)
    with undrawn():
        assert main(["report", str(path), "-o", str(tmp_path / "report")]) == 0
    blocks = re.findall(r"(?m)^(`{3,})\n(.*?)\n\1$", (tmp_path / "report/summary.md").read_text(), re.S)
    (command,) = [block for fence, block in blocks if name in block or "finer-1" in block]
    assert name in shlex.split(command.replace("\\\n", "")) and max(map(len, (f for f, _ in blocks))) > 3


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@sum"])
def test_no_text_of_a_table_is_a_formula_and_numbers_stay_numbers(text: str) -> None:
    table = pd.DataFrame({"name": [text, "plain"], "n": [-1.5, np.nan], text: [1, 2]})
    rows = list(csv.reader(io.StringIO(csv_text(table))))
    assert rows == [["name", "n", f"'{text}"], [f"'{text}", "-1.5", "1"], ["plain", "", "2"]]
