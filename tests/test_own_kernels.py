"""Functions that users name on a command line are found, or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attention import Case, get_kernel
from attention.kernels.references import errors_against_reference
from attention.kernels.registry import _KERNELS, Reference
from benchmarks.analysis.reading.fields import InputError
from benchmarks.own.functions import OwnKernelError, find, register_own
from benchmarks.own.sessions import few_beside, of_each_side, own_functions, placed
from tests.sessions import rows, run

MODULE = """
import torch
from attention import costs, make_inputs, register_kernel  # what is imported says nothing of a function

inputs = {"g": "[B, H, N]"}

def plain(q, k, v, causal):
    return v

def gated(q, k, v, g, causal):
    return q * k + v * g[..., None]

def slow(q, k, v, causal):
    return q * k + v

gated.supports = lambda case: "no layers" if case.subject == "layer" else None

class Module(torch.nn.Module):
    def forward(self, q, k, v):
        return v

module = Module()
text = "none"
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("attention.kernels.registry._KERNELS", dict(_KERNELS))
    monkeypatch.setattr("benchmarks.own.functions._REGISTERED", {})
    yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def test_functions_of_a_file_become_kernels_of_their_names(folder: Path) -> None:
    specs = ["mine.py:plain", "mine.py:gated", "mine.py:module", "mine.py:Module"]
    assert register_own(specs, ["first"], None, folder) == ["first", "gated", "module", "Module"]
    case = Case("gated", "causal", 10, heads=2)
    assert get_kernel("first").make_inputs is None or not get_kernel("first").extra_inputs(case)
    assert get_kernel("gated").extra_inputs(case)["g"].shape == (1, 2, 10)
    assert get_kernel("gated").supports(Case("gated", "causal", 10, subject="layer")) == "no layers"
    assert not get_kernel("gated").has_costs
    assert get_kernel("gated").reference == "sought"


def test_a_function_of_a_module_is_found_in_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "package_of_mine").mkdir()
    (folder / "package_of_mine" / "inner.py").write_text("def attend(q, k, v):\n    return v\n")
    assert find("package_of_mine.inner:attend", folder).name == "attend"


@pytest.mark.parametrize(
    ("reference", "name"), [("linear", "linear"), ("none", "none"), ("mine.py:slow", "mine.py:slow")]
)
def test_a_reference_is_a_function_or_a_name(reference: str, name: str, folder: Path) -> None:
    register_own(["mine.py:plain"], [], reference, folder)
    found = get_kernel("plain").reference
    assert (found.name if isinstance(found, Reference) else found) == name


def test_an_oracle_gets_those_inputs_that_it_takes(folder: Path) -> None:
    register_own(["mine.py:gated"], [], "mine.py:slow", folder)
    reference = get_kernel("gated").reference
    assert isinstance(reference, Reference)
    assert reference.takes("causal") and not reference.takes("g")
    case = Case("gated", "causal", 20, "forward_backward", heads=1, head_dim=4)
    assert errors_against_reference(case).output > 0.1


WRONG = {
    "mine.py": "'mine.py' names no function; write FILE.py:FUNCTION or MODULE:FUNCTION",
    "gone.py:attend": "gone.py:attend: there is no file",
    "mine.py:gone": "mine.py has no gone; it has plain, gated, slow, Module",
    "mine.py:text": "text must be a function",
    "no_such_module:attend": "no_such_module cannot be loaded: ModuleNotFoundError",
    "broken.py:attend": "cannot be loaded: ZeroDivisionError: division by zero (line 2 of broken.py)",
    "ended.py:attend": "ended.py cannot be loaded: SystemExit",
    "needs.py:attend": "attend takes bias beside q, k and v, and nothing gives it",
}


@pytest.mark.parametrize(("spec", "words"), WRONG.items())
def test_what_cannot_be_taken_is_told_in_one_sentence(spec: str, words: str, folder: Path) -> None:
    (folder / "broken.py").write_text("\n1 / 0\n")
    (folder / "ended.py").write_text("raise SystemExit(0)\n")
    (folder / "needs.py").write_text("def attend(q, k, v, bias):\n    return v\n")
    with pytest.raises(OwnKernelError) as raised:
        register_own([spec], [], None, folder)
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("names", "reference"), [(["one", "two"], None), (["linear-native"], None), ([], "gone")]
)
def test_names_and_references_that_fit_nothing_are_refused(
    names: list[str], reference: str | None, folder: Path
) -> None:
    with pytest.raises(OwnKernelError):
        register_own(["mine.py:plain"], names, reference, folder)


@pytest.mark.slow
def test_a_session_measures_own_functions_beside_those_asked_for(folder: Path, tmp_path: Path) -> None:
    (folder / "refusing.py").write_text(
        "def refusing(q, k, v, causal):\n    raise NotImplementedError('not today')\n"
    )
    out = tmp_path / "out.json"
    asked = [f"--kernel-from={name}" for name in ("mine.py:plain", "mine.py:gated", "refusing.py:refusing")]
    run(
        *("--kernel-path", str(folder), *asked, "--kernel=linear-chunked", "--against=linear-*"),
        *("--device=cpu", "--mode=causal", "--seq-len=16,32", "--case-seconds=0.001", "--repetitions=2"),
        f"--benchmark-json={out}",
    )  # fmt: skip
    document: dict[str, Any] = json.loads(out.read_text())
    assert document["run"]["own"] == "plain,gated,refusing"
    assert document["run"]["against"] == "linear-*"
    by_kernel = {row["kernel"]: row for row in rows(document) if row["seq_len"] == 32}
    assert sorted(by_kernel) == ["gated", "linear-chunked", "plain"]
    plain = by_kernel["plain"]
    assert (
        plain["reference"] is None
        and plain["flops"] is None
        and "no matrix product" in plain["flops_unknown"]
    )
    case = Case("gated", "causal", 32)
    gate = case.batch * case.heads * case.seq_len * case.itemsize
    assert by_kernel["gated"]["min_bytes"] == plain["min_bytes"] + gate
    assert by_kernel["linear-chunked"]["reference"] == "linear attention with elu + 1"
    assert {(row["outcome"], row["reason"]) for row in document["not_measured"]} == {
        ("unsupported", "not today")
    }


@pytest.mark.slow
def test_a_session_says_what_cannot_be_taken_before_it_measures(folder: Path) -> None:
    text = run("--kernel-path", str(folder), "--kernel-from=mine.py:gone", exit_code=4)
    assert "ERROR: --kernel-from mine.py has no gone" in text


def test_options_of_a_session_elsewhere_name_the_folder_of_this_one(tmp_path: Path) -> None:
    assert placed(["-k", "x"], tmp_path) == ["-k", "x"]
    told = placed(["--kernel-from", "my.py:f"], tmp_path)
    assert told == ["--kernel-from", "my.py:f", f"--kernel-path={tmp_path}"]
    assert placed(told, tmp_path / "other") == told
    assert own_functions(["--kernel-from=my.py:f", "-k", "x", "--kernel-from", "m:g"]) == ["my.py:f", "m:g"]


def test_own_functions_are_compared_beside_a_few_kernels_unless_others_are_named() -> None:
    own = ["--kernel-from=my.py:f"]
    assert few_beside(own) == ["--grid", "try", *own]
    assert few_beside([*own, "--kernel", "linear-*"]) == [*own, "--kernel", "linear-*"]
    assert few_beside(["--mode", "causal"]) == ["--mode", "causal"]


def test_each_side_of_a_comparison_takes_its_own_revision_of_a_file(tmp_path: Path) -> None:
    root, sides = tmp_path / "root", {side: tmp_path / side for side in ("base", "head")}
    options = ["--kernel-from=my.py:f", f"--kernel-path={root / 'inner'}"]
    for place in (root, *sides.values()):
        (place / "inner").mkdir(parents=True)
    (root / "inner" / "my.py").touch()
    assert of_each_side(options, root, sides, ()) == dict.fromkeys(sides, options)  # no revision holds it
    (sides["head"] / "inner" / "my.py").touch()
    with pytest.raises(InputError, match=r"my\.py is in one of the revisions only, and the base has none"):
        of_each_side(options, root, sides, ())
    (sides["base"] / "inner" / "my.py").touch()
    told = of_each_side(options, root, sides, ())
    assert {side: words[-1] for side, words in told.items()} == {
        side: f"--kernel-path={sides[side] / 'inner'}" for side in sides
    }
    assert of_each_side(options, root, sides, ["head"])["head"] == options  # the working tree
