"""The kernels, a room each: a module or a folder that registers what it holds when it is imported.

Importing this package imports every room, so that a new one is found without being named here.
"""

from importlib import import_module
from pkgutil import iter_modules

for _room in iter_modules(__path__):
    import_module(f"{__name__}.{_room.name}")
