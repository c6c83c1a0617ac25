"""The walls of the house: what is measured knows nothing of how, and what follows knows only the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMPORT_ALL = """
import importlib, pkgutil, sys
names = sys.argv[1].split(",")
package = importlib.import_module(names[0])
names += [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2:])))
"""


@pytest.mark.parametrize(
    ("package", "absent", "present"),
    [
        ("attention", {"benchmarks", "pytest", "pandas", "scipy", "matplotlib"}, {"torch"}),
        ("benchmarks.analysis,benchmarks.__main__", {"torch", "attention", "pytest"}, {"pandas"}),
    ],
)
def test_importing_all_of_one_side_loads_nothing_of_the_other(
    package: str, absent: set[str], present: set[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, *absent, *present],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == present
