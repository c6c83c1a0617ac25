"""A user's own kernels: functions in a file or a module, which `--kernel-from` names."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from attention import Reference, register_kernel
from attention.kernels.adapting import adapt
from attention.kernels.extra_inputs import MakeInputs
from attention.kernels.registry import CLAIMS, NONE, SOUGHT

FORM = "FILE.py:FUNCTION or MODULE:FUNCTION"
BESIDE = ("make_inputs", "inputs", "supports", "costs", "precision", "reference")
"""What may stand beside a function, as an attribute of it or under this name in its module."""


class OwnKernelError(Exception):
    """A user's function cannot be taken; the text is one sentence."""


@dataclass(frozen=True)
class Found:
    """An object of a user's module."""

    name: str
    value: Any
    module: ModuleType

    def beside(self, what: str) -> Any:
        """What the user says of it, or None; what the module imports says nothing."""
        value = vars(self.module).get(what)
        own = isinstance(value, Mapping | str) or getattr(value, "__module__", None) == self.module.__name__
        return getattr(self.value, what, value if own else None)


def register_own(
    specs: Sequence[str], names: Sequence[str], reference: str | None, folder: Path
) -> list[str]:
    """Register the functions that these words name, and return the names of the kernels.

    Args:
        specs: Each a file or module, a colon, and the name of a function in it.
        names: Names for the kernels, in this order; the rest is called as its functions are.
        reference: What they are compared with: another such word, a name out of `CLAIMS`, or `NONE`. By
            default what stands beside the function; without that, what it computes is sought.
        folder: Where files and modules are looked for first.

    Raises:
        OwnKernelError: There is no such function, or it cannot be a kernel.
    """
    if len(names) > len(specs):
        raise OwnKernelError(
            f"was given less often than --name, {len(specs)} and {len(names)} times; name each function once"
        )
    found = [find(spec, folder) for spec in specs]
    named = [*names, *(one.name for one in found[len(names) :])]
    oracle = _reference(reference, folder) if reference else None
    for one, name in zip(found, named, strict=True):
        _register(one, name, oracle)
    return named


def find(spec: str, folder: Path) -> Found:
    """The object that a word like ``my.py:my_attention`` names.

    Raises:
        OwnKernelError: There is none.
    """
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise OwnKernelError(f"{spec!r:.100} names no function; write {FORM}")
    module = _load_file(folder / place, spec) if place.endswith(".py") else _load_module(place, spec, folder)
    if not hasattr(module, name):
        raise OwnKernelError(f"{place} has no {name}; it has {_listed(module)}")
    value = getattr(module, name)
    if inspect.isclass(value):
        value = _carefully(f"{name}() of {place}", value)
    return Found(name, value, module)


def _listed(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(names) or "no function"


def _load_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise OwnKernelError(f"{spec}: there is no file {path}")
    path = path.resolve()
    name = "own_" + re.sub(r"\W", "_", str(path.with_suffix("")))
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.util.spec_from_file_location(name, path)
    if loader is None or loader.loader is None:
        raise OwnKernelError(f"{spec}: {path} is no file of Python")
    module = importlib.util.module_from_spec(loader)
    sys.modules[name] = module  # classes of it are looked up there
    _on_path(path.parent)
    _carefully(str(path), lambda: loader.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def _load_module(name: str, spec: str, folder: Path) -> ModuleType:
    _on_path(folder)
    found: ModuleType = _carefully(name, lambda: importlib.import_module(name))
    return found


def _on_path(folder: Path) -> None:
    """Let modules beside the user's be imported, after everything else."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _carefully(what: str, load: Callable[[], Any]) -> Any:
    """The result of a user's code, whose exceptions become a sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports; a warning ends a session that tests
            return load()
    except (Exception, SystemExit) as error:
        words = str(error).strip().splitlines() or [""]
        raise OwnKernelError(
            f"{what} cannot be loaded: {type(error).__name__}: {words[0]:.300}{_line(error)}"
        ) from None


def _line(error: BaseException) -> str:
    """Where in the user's code it was raised."""
    place, step = "", error.__traceback__
    while step:
        file = step.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen"):
            place = f" (line {step.tb_lineno} of {Path(file).name})"
        step = step.tb_next
    return "" if isinstance(error, SyntaxError) else place


def _reference(word: str, folder: Path) -> Reference | str:
    if word in (*CLAIMS, NONE, SOUGHT):
        return word
    if ":" not in word:
        raise OwnKernelError(f"--reference {word!r:.60} is none of {', '.join((*CLAIMS, NONE))}, nor {FORM}")
    found = find(word, folder)
    return _oracle(found.name, found.value, Path(word.rpartition(":")[0]).name)


def _oracle(name: str, function: Any, place: str) -> Reference:
    """A user's oracle, which gets those of the inputs that it takes."""
    try:
        attend, _ = adapt(name, function, None)
    except TypeError as error:
        raise OwnKernelError(str(error)) from None
    taken = _taken(function)
    return Reference(f"{place}:{name}", attend, inputs=None if taken is None else tuple(taken))


def _taken(function: Any) -> set[str] | None:
    """The names of a function's arguments; None where it takes any."""
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return {one.name for one in parameters}


_REGISTERED: dict[str, Any] = {}
"""By name, the functions that this process has registered; several sessions of it may ask for the same."""


def _register(found: Found, name: str, oracle: Reference | str | None) -> None:
    if _REGISTERED.get(name) is found.value:
        return
    given = {what: value for what in BESIDE if (value := found.beside(what)) is not None}
    reference = given.pop("reference", None)
    if oracle is None and callable(reference):
        oracle = _oracle(
            getattr(reference, "__name__", "reference"), reference, Path(found.module.__file__ or "").name
        )
    taken = _taken(found.value)
    if "inputs" in given and isinstance(given["inputs"], Mapping) and not hasattr(found.value, "inputs"):
        given["inputs"] = _wanted(given["inputs"], taken)
    if "make_inputs" in given and callable(given["make_inputs"]):
        given["make_inputs"] = _making(given["make_inputs"], taken)
        given.pop("inputs", None)
    try:
        register_kernel(name, found.value, reference=oracle or reference or SOUGHT, **given)
    except (TypeError, ValueError) as error:
        raise OwnKernelError(f"{found.name} cannot be measured: {error}") from None
    _REGISTERED[name] = found.value


def _wanted(inputs: Mapping[str, Any], taken: set[str] | None) -> dict[str, Any]:
    """The inputs, out of all that a module defines, that one function of it takes."""
    return {name: value for name, value in inputs.items() if taken is None or name in taken}


def _making(make: Callable[..., Any], taken: set[str] | None) -> MakeInputs:
    def make_inputs(case: Any) -> Any:
        made = make(case)
        return _wanted(made, taken) if isinstance(made, Mapping) else made

    return make_inputs
