"""The kernels, a room each: a module or a folder that registers what it holds when it is imported.

Importing this package imports every room, so that a new one is found without being named here.
"""

from importlib import import_module
from pkgutil import iter_modules

from attention.kernels.registry import list_kernels

for _room in iter_modules(__path__):
    import_module(f"{__name__}.{_room.name}")

BUILT_IN = frozenset(list_kernels())
"""The kernels that come with this package, those of other projects that are installed among them."""
