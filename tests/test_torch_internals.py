"""Private names of torch, each with a public way round where it is missing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attention.profiler import memory
from attention.torch_internals import dispatcher
from attention.torch_internals.profiler import allocation_events

ROOT = Path(__file__).parent.parent
DOOR = ROOT / "attention" / "torch_internals"
WITHOUT = """
import os, sys, traceback
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
import torch
import torch.utils.flop_counter

class Without:
    # An object without the attribute at the end of a path.
    def __init__(self, owner, path):
        self.owner, self.path = owner, path

    def __getattr__(self, name):
        first, *rest = self.path
        if name != first:
            return getattr(self.owner, name)
        if not rest:
            raise AttributeError(name)
        return Without(getattr(self.owner, name), rest)

def open_door(path):
    # The door alone: its parent, attention, is imported with all of torch.
    sys.modules["attention.torch_internals"] = door = ModuleType("attention.torch_internals")
    door.__path__ = ["attention/torch_internals"]
    sys.modules["torch"] = Without(torch, path.split("."))
    names = [found.name for found in iter_modules(door.__path__)]
    modules = {name: import_module(f"{door.__name__}.{name}") for name in names}
    sys.modules["torch"] = torch
    assert modules["names"].private(path) is None

def check():
    import attention
    from attention.kernels.references import linear_reference, relative_error
    q, k, v = (torch.randn(1, 2, 70, 8, requires_grad=True) for _ in range(3))
    for backend, causal in (("auto", True), ("native", False), ("explicit", False)):
        exact = linear_reference(q, k, v, causal=causal)
        wanted = torch.autograd.grad(exact.sum(), (q, k, v))
        out = attention.linear_attention(q, k, v, causal=causal, backend=backend)
        got = torch.autograd.grad(out.sum(), (q, k, v))
        assert relative_error(out, exact) < 1e-5
        assert all(relative_error(x, y) < 1e-4 for x, y in zip(got, wanted, strict=True))

for path in sys.argv[1:]:
    child = os.fork()  # torch is imported once for all
    if child == 0:
        try:
            open_door(path)
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(path)
"""


def private_names() -> list[str]:
    """Dotted paths below torch that torch_internals looks up."""
    called = [
        node.args[0]
        for path in DOOR.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "private"
    ]
    return [str(path.value) for path in called if isinstance(path, ast.Constant)]


@pytest.mark.slow
def test_import_and_results_survive_each_private_name_of_torch_missing() -> None:
    names = private_names()
    assert len(names) == 24
    command = [sys.executable, "-c", WITHOUT, "no_such_name", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], done.stderr


def test_private_names_of_torch_and_triton_stand_in_torch_internals_alone() -> None:
    private = re.compile(
        r"torch\._[A-Za-z]|_autograd\._|kineto_results|_dynamo_marked|packed_metadata|knobs\."
    )
    found = {
        path.relative_to(ROOT).as_posix(): private.findall(path.read_text())
        for part in ("attention", "benchmarks")
        for path in (ROOT / part).rglob("*.py")
        if DOOR not in path.parents
    }
    language = "attention/kernels/triton_common/tiles.py"
    assert {path: names for path, names in found.items() if names} == {language: ["knobs."]}


def test_peak_memory_without_allocation_events_is_unknown_beside_that_of_the_resident_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert allocation_events(object()) is None
    monkeypatch.setattr(memory, "allocation_events", lambda recorder: None)
    with pytest.warns(UserWarning, match="the peak memory of tensors is unknown: this torch gives no"):
        peak = memory.peak_memory(lambda: torch.ones(2**26), "cpu")
    assert peak.tensor_bytes is None and peak.rss_bytes


@pytest.mark.parametrize("missing", ["raw_repr", "__or__", "__init__"])
def test_a_dispatch_key_set_of_another_kind_means_the_dispatcher(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KeySet:
        def __init__(self, key: object) -> None:
            if missing == "__init__":
                raise TypeError

        def __or__(self, other: object) -> object:
            return NotImplemented if missing == "__or__" else self

    found = {"_C.DispatchKeySet": KeySet, "_C.DispatchKey": torch._C.DispatchKey}
    monkeypatch.setattr(dispatcher, "private", found.get)
    assert dispatcher._foreign_keys() is None
