"""Every command and Python block of the README files works.

Commands that `.ci/run` starts are left to it. Sessions of pytest, which take minutes or a GPU, are collected:
their options are parsed and choose cases. All else runs, on synthetic runs under the names it is given.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import commands as commands_of_the_suite
from benchmarks.__main__ import main
from benchmarks.analysis.report import writing
from benchmarks.distributed import session
from benchmarks.own import sessions as sessions_of_the_suite
from benchmarks.runs import Plan
from tests.compared import LAWS, PLAIN
from tests.histories import store
from tests.readmes import ROOT, TEXTS, TOP, calls, commands, fences

pytestmark = pytest.mark.slow

COMMANDS = list(dict.fromkeys(command for text in TEXTS.values() for command in commands(text)))
BLOCKS = [block for text in TEXTS.values() for block in fences(text, "python")]
NAMED = re.compile(r'"""(\w+\.py):')
"""First line of a Python block that is a module, with the name of its file."""
OWN = "".join(
    f"def {name}(q, k, v, causal):\n    return v\n\n\n" for name in ("my_attention", "one", "other")
)
"""The file of a reader who has functions of their own."""
CI = (ROOT / ".ci" / "run").read_text()
WORKFLOW = (ROOT / ".github" / "workflows" / "compare.yml").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
EXTERNAL = re.compile("linear-fla-.*|.*-fla|standard-flash-attn.*")
"""Kernels that are registered only where their packages are installed."""
BROKEN = {
    "pytest benchmarks --no-such-option": "unrecognized arguments: --no-such-option",
    "pytest benchmarks --kernel linear-nothing": "matches no kernel",
    "python -m benchmarks try gone.py:gone": "there is no file",
    "pytest benchmarks -k nothing": "no tests collected",
    "pytest tests/test_gone.py": "file or directory not found",
    "python -m benchmarks report out.json --margin 3%": "unrecognized arguments: --margin 3%",
    "python -m benchmarks report gone.json": "gone.json",
    "python -m benchmarks run --runs 0": "'0' is not a number of at least 1",
    "python -m benchmarks run --grid huge": "invalid choice: 'huge'",
    "python -m benchmarks compare --rev main --rev HEAD --seq-len many": "--seq-len takes lengths",
    "python setup.py": "nothing tries",
    "mypy --no-such-option": "nothing tries",
    "make && pytest tests": "nothing tries",
    "pip install -e '.[none]'": "no extra 'none'",
    "pytest benchmarks &&": "syntax error",
}
"""Commands that no README may hold, with the error of each."""

# One process imports torch for all sessions and blocks, because a process for each takes seconds.
RUN_ALL = """
import gc, json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
import pytest
folder, blocks, sessions = json.load(sys.stdin)
sys.path.insert(0, folder)
for block in blocks:
    with redirect_stdout(StringIO()):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
gc.freeze()  # pytest collects garbage at the end of each session, and need not look at torch again
for session in sessions:
    with redirect_stdout(StringIO()) as text, redirect_stderr(text):
        code = pytest.main([*session, "--collect-only", "-q", "-p", "no:cacheprovider"])
    print(json.dumps([code, text.getvalue()]))
"""
Session = list[str]


class Trials:
    """Results of the commands and blocks of the README files, and of broken commands.

    Attributes:
        printed: Output of each command.
        wrong: Error of each command that does not work.
    """

    def __init__(self, folder: Path) -> None:
        self.printed: dict[str, str] = {}
        self.wrong: dict[str, str] = {}
        sessions: list[tuple[str, Session]] = []
        for command in [*COMMANDS, *BROKEN]:
            try:
                for call in calls(command):
                    if not in_ci(call):
                        self.printed[command], asked = try_call(call)
                        sessions += [(command, session) for session in asked]
            except ValueError as error:
                self.wrong[command] = str(error)
        unnamed = [block for block in BLOCKS if not NAMED.match(block)]
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL],
            input=json.dumps([str(folder), unnamed, [session for _, session in sessions]]),
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        for (command, _), answered in zip(sessions, done.stdout.splitlines(), strict=True):
            code, text = json.loads(answered)
            if code:
                self.wrong[command] = text


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    folder = tmp_path_factory.mktemp("reader")
    for seed, name in enumerate(("out", "base", "head")):
        replace(PLAIN, seed=seed).write(folder / f"{name}.json")
    (folder / "ranks").mkdir()
    PLAIN.write(folder / "ranks" / "ranks-2-001.json")
    for number in range(1, 4):
        store(folder / ".benchmarks", number, LAWS)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    for block in BLOCKS:
        if named := NAMED.match(block):
            (folder / named[1]).write_text(block)
    (folder / "my.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(writing, "save_pictures", lambda *_: ([], []))
        return Trials(folder)


def in_ci(call: Sequence[str]) -> bool:
    """Whether a call stands in `.ci/run`, or in a line that it takes from the README."""
    taken = [line for line in commands(TOP) for word in re.findall("readme '(.+)'", CI) if word in line]
    call_alone = rf"(^|&& ){re.escape(' '.join(call))}( -q)?( &&| >|$)"
    return any(re.search(call_alone, line) for line in [*CI.splitlines(), *taken])


def try_call(call: Sequence[str]) -> tuple[str, list[Session]]:
    """Run a call in this process: its output, and the sessions of pytest that it would start.

    Raises:
        ValueError: the program refuses its words, or nothing here tries it.
    """
    program, *words = call
    if program == "pytest":
        return "", [here(words)]
    if program == "pip":
        return install(words), []
    if program == "torchrun":
        return of_ranks(words), []
    if program == "python" and words[:2] == ["-m", "benchmarks"]:
        return conclude(words[2:])
    raise ValueError(f"nothing tries {' '.join(call)!r}")


def here(words: Sequence[str]) -> Session:
    """The words of a session that this machine can take: its own device, and kernels that it has."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs = list(pairwise([*words, ""]))
    absent = {at for at, (option, name) in enumerate(pairs) if option == "--kernel" and EXTERNAL.match(name)}
    kept = [word for at, word in enumerate(words) if not {at, at - 1} & absent]
    if "--kernel-from" in kept and not any(word.startswith("--kernel-path") for word in kept):
        kept.append(f"--kernel-path={Path.cwd()}")
    return [device if word == "cuda" else word for word in kept]


def install(words: Sequence[str]) -> str:
    """Check the packages of pip install: extras of this project, or packages that the workflow installs."""
    extra = re.fullmatch(r"install -e \.\[(\w+)\]", " ".join(words))
    if extra and extra[1] not in EXTRAS:
        raise ValueError(f"no extra {extra[1]!r}")
    # The workflow takes the version of torch from pyproject.toml.
    if not extra and f"pip {' '.join(words)}\n".replace(" torch ", ' "$torch" ') not in WORKFLOW:
        raise ValueError(f"nothing tries pip {' '.join(words)}")
    return ""


def of_ranks(words: Sequence[str]) -> str:
    """The plan of a session of ranks, or a script of a README that they run."""
    if "benchmarks" not in words:
        if not Path(words[-1]).exists():
            raise ValueError(f"there is no file {words[-1]}")
        return ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "carry_out", lambda plan, say: 0)
        return answer(lambda: main(words[words.index("benchmarks") + 1 :]))


def conclude(words: Sequence[str]) -> tuple[str, list[Session]]:
    sessions: list[Session] = []

    def carry_out(plan: Plan, _: object) -> list[str]:
        sessions.append(here(["benchmarks", *plan.pytest_options]))
        return ["out.json"]

    def measure(file: Path, options: Sequence[str]) -> None:
        sessions.append(here(["benchmarks", *options]))
        file.write_bytes(Path("out.json").read_bytes())

    def compare_revisions(_: object, pairs: int, options: Sequence[str], *to: Any, **how: Any) -> Any:
        sessions.append(here(["benchmarks", *options]))
        return SimpleNamespace(text="", found=SimpleNamespace(regressed=False))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", "cache")  # whose own could hold a noise floor of this machine
        patch.setattr(commands_of_the_suite, "carry_out", carry_out)
        patch.setattr(commands_of_the_suite, "compare_revisions", compare_revisions)
        patch.setattr(sessions_of_the_suite, "measure", measure)
        return answer(lambda: main(words)), sessions


def answer(program: Callable[[], int]) -> str:
    code: Any
    with redirect_stdout(StringIO()) as text, redirect_stderr(text):
        try:
            code = program()
        except SystemExit as error:
            code = error.code
    if code not in (0, 1):  # 1 is a finding
        raise ValueError(text.getvalue())
    return text.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_readme_works(command: str, trials: Trials) -> None:
    assert command not in trials.wrong, trials.wrong[command]


@pytest.mark.parametrize("command", BROKEN)
def test_a_broken_command_of_a_readme_is_found(command: str, trials: Trials) -> None:
    assert BROKEN[command] in trials.wrong[command]


def test_the_report_in_the_readme_is_what_its_command_prints(trials: Trials) -> None:
    (shown,) = fences(TOP, "")
    (command,) = (command for command in commands(TOP) if "published" in command)
    assert shown in trials.printed[command]
