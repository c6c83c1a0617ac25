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
    # Beside this package, as any folder that is first on the path may hold a module of a user's of that name.
    file = Path(__file__).resolve().parents[1] / "attention" / "cache.py"
    if not file.is_file():
        package = find_spec("attention")
        assert package is not None and package.origin is not None, "attention/ is not installed"
        file = Path(package.origin).with_name("cache.py")
    spec = spec_from_file_location("attention_cache", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_CACHE = _load()
cache_folder: Callable[[], Path] = _CACHE.cache_folder
replacing: Callable[[Path], AbstractContextManager[Path]] = _CACHE.replacing
