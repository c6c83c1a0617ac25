"""Triton's interpreter made quicker, which runs kernels for a card on a CPU."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest


@contextmanager
def quicker() -> Iterator[None]:
    """Spare Triton's interpreter most of what is not arithmetic.

    At each call of a function, in a launch too, it looks through Triton's language for builtins, to replace
    all those that it has not replaced yet. It lists all of NumPy's types for each one that it asks for. It
    also computes each 32-bit sum and product again in 64 bits, to find one that overflows; that of a few
    hundred tokens does not. Kernels for a card are compiled without this.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    names: dict[Any, list[str]] = {}
    languages: dict[str, list[Any]] = {}
    types: dict[str, Any] = {}
    replace_all, type_of = interpreter._patch_lang, interpreter._get_np_dtype

    def getmembers(of: Any) -> list[tuple[str, Any]]:
        if of not in names:
            names[of] = [name for name, member in inspect.getmembers(of) if is_builtin(member)]
        return [(name, getattr(of, name)) for name in names[of]]

    def replace_once(function: Any) -> Any:
        if function.__module__ not in languages:
            seen = {id(value) for value in function.__globals__.values()}
            both = (interpreter.tl, interpreter.tl.core)
            languages[function.__module__] = [language for language in both if id(language) in seen]
        left = any(is_builtin(language.load) for language in languages[function.__module__])
        return replace_all(function) if left else interpreter._LangPatchScope()

    def known_type_of(element: Any) -> Any:
        scalar = element.scalar.name
        if scalar not in types:
            types[scalar] = type_of(element)
        return types[scalar]

    unchecked = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "inspect", SimpleNamespace(**{**vars(inspect), "getmembers": getmembers}))
        patch.setattr(interpreter, "_patch_lang", replace_once)
        patch.setattr(interpreter, "_get_np_dtype", known_type_of)
        patch.setattr(interpreter.interpreter_builder, "options", unchecked)
        yield
