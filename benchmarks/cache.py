"""The cache folder and the replacing of files, as `attention/cache.py` has them.

That module is loaded by itself: its package imports torch, without which runs can be reported and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def _load() -> ModuleType:
    package = find_spec("attention")
    assert package is not None and package.origin is not None, "attention/ is installed beside benchmarks/"
    spec = spec_from_file_location("attention_cache", Path(package.origin).with_name("cache.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_CACHE = _load()
cache_folder: Callable[[], Path] = _CACHE.cache_folder
replacing: Callable[[Path], AbstractContextManager[Path]] = _CACHE.replacing
