"""Walls between packages: attention imports no benchmarks, the analysis imports neither torch nor attention.

Within the analysis, report, comparison and history do not import one another.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

from attention import case
from attention.kernels import registry
from benchmarks import subjects
from benchmarks.analysis.plots import looks
from benchmarks.analysis.reading import fields

ROOT = Path(__file__).parent.parent
IMPORT_ALL = """
import importlib, pkgutil, sys
names = sys.argv[1].split(",")
package = importlib.import_module(names[0])
names += [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
loaded = set(sys.modules) | {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & set(sys.argv[2:])))
"""

ANALYSIS = "benchmarks.analysis"
SHARED = {
    "conditions",
    "document",
    "layout",
    "output",
    "page",
    "plots",
    "reading",
    "scaling",
    "serialization",
    "wording",
}
MAY_IMPORT: dict[str, set[str]] = {
    "conditions": {"reading", "scaling", "wording"},
    "document": {"layout"},
    "layout": set(),
    "output": {"document", "reading"},
    "reading": {"serialization"},
    "serialization": set(),
    "wording": {"reading"},
    "page": {"document", "plots", "reading", "serialization", "wording"},
    "plots": {"wording"},
    "scaling": {"serialization", "wording"},
    "comparison": SHARED,
    "history": SHARED,
    "report": SHARED,
}
"""Rooms of the analysis, and the other rooms that each may import."""

KERNELS = "attention.kernels"
SHARED_BY_KERNELS = {
    "adapting", "autograd", "blocks", "derivatives", "dispatch", "extra_inputs", "feature_maps", "forms",
    "gates", "gluon_common", "layouts", "native", "references", "registry", "scales", "tensors",
    "triton_common",
}  # fmt: skip
"""Modules beside the rooms of the kernels, which import no room."""
NEW_ROOM = """
from attention.costs import costs_of_heads
from attention.kernels.references import linear_reference
from attention.kernels.registry import register_kernel
register_kernel("linear-new", linear_reference, costs=lambda case: costs_of_heads(case, {}, 0))
"""

Imports = Mapping[str, set[str]]


@pytest.mark.parametrize(
    ("package", "absent", "present"),
    [
        # torch's compiler takes as long to import as all the rest.
        ("attention", {"benchmarks", "pytest", "pandas", "scipy", "matplotlib", "torch._dynamo"}, {"torch"}),
        ("benchmarks.analysis,benchmarks.__main__", {"torch", "attention", "pytest"}, {"pandas"}),
        ("benchmarks.analysis.reading", {"scipy", "matplotlib"}, {"pandas"}),
        ("benchmarks.analysis.scaling", {"matplotlib"}, {"pandas", "scipy"}),
    ],
)
def test_importing_one_side_of_a_wall_loads_no_module_of_the_other(
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


def test_the_rooms_of_the_analysis_import_allowed_rooms_only() -> None:
    imports = imports_below(ROOT)
    assert {room(module) for module in imports} - {""} == set(MAY_IMPORT)
    assert list(trespasses(imports)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(imports_below(ROOT)) == []
    assert circle(MAY_IMPORT) == []


def test_no_room_of_a_kernel_is_imported_by_another_room_or_by_shared_modules() -> None:
    found = {
        (module, other)
        for module, names in imports_below(ROOT).items()
        for other in {kernel_room(name) for name in names} - {"", kernel_room(module)} - SHARED_BY_KERNELS
        if kernel_room(module) or module.startswith("attention.profiler")
    }
    assert found == set()


def test_a_new_room_of_a_kernel_is_found_without_being_named(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "attention", tmp_path / "attention", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "attention" / "kernels" / "linear_new.py").write_text(NEW_ROOM)
    ask = "from attention import list_kernels; print('linear-new' in list_kernels())"
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]


def test_both_sides_of_the_json_know_the_same_families_and_subjects() -> None:
    assert registry.FAMILIES == fields.FAMILIES == tuple(looks.PALETTES)
    assert case.SUBJECTS == fields.SUBJECTS == tuple(subjects.SUBJECTS)


@pytest.mark.parametrize(
    "line",
    [
        "from benchmarks.analysis.comparison.text import sections",
        "from benchmarks.analysis import history, wording",
        "import benchmarks.analysis.history.lines as lines",
        "from ..comparison import text",
        "def late(): from benchmarks.analysis.history import lines",
        "from benchmarks.runs import carry_out",
        "from attention import Case",
    ],
)
def test_an_import_through_a_wall_is_named(line: str, tmp_path: Path) -> None:
    plant(tmp_path, "report.planted", line)
    assert [found.split()[0] for found in trespasses(imports_below(tmp_path))] == [
        f"{ANALYSIS}.report.planted"
    ]


def test_allowed_imports_are_not_named(tmp_path: Path) -> None:
    plant(tmp_path, "report.planted", "from . import text\nfrom ..reading.records import load\nimport numpy")
    plant(tmp_path, "scaling.planted", "from benchmarks.analysis import wording")
    assert list(trespasses(imports_below(tmp_path))) == []


def test_a_circle_of_modules_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "report.one", "from benchmarks.analysis.report.other import name")
    plant(tmp_path, "report.other", "def late(): from . import one")
    assert set(circle(imports_below(tmp_path))) == {f"{ANALYSIS}.report.one", f"{ANALYSIS}.report.other"}


def plant(root: Path, module: str, text: str) -> None:
    path = root.joinpath(*ANALYSIS.split("."), *module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def imports_below(root: Path) -> dict[str, set[str]]:
    """The absolute names that each module imports, wherever in it; of `from a import b` that is a.b."""
    imports = {}
    for path in [path for part in ("attention", "benchmarks") for path in (root / part).rglob("*.py")]:
        *folders, stem = path.relative_to(root).with_suffix("").parts
        package = ".".join(folders)
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                origin = resolve_name("." * node.level + (node.module or ""), package)
                names |= {f"{origin}.{alias.name}" for alias in node.names}
        imports[package if stem == "__init__" else f"{package}.{stem}"] = names
    return imports


def room(name: str) -> str:
    """The room of the analysis that a module, or what is imported of it, belongs to; empty outside."""
    return name.removeprefix(f"{ANALYSIS}.").partition(".")[0] if name.startswith(f"{ANALYSIS}.") else ""


def kernel_room(name: str) -> str:
    """The room of the kernels that a module, or what is imported of it, belongs to; empty outside."""
    return name.removeprefix(f"{KERNELS}.").partition(".")[0] if name.startswith(f"{KERNELS}.") else ""


def trespasses(imports: Imports) -> Iterator[str]:
    """The imports by which a room of the analysis reaches what it may not."""
    for module, names in imports.items():
        if own := room(module):
            ours = {name for name in names if name.partition(".")[0] in ("attention", "benchmarks")}
            yield from (
                f"{module} imports {name}"
                for name in sorted(ours)
                if room(name) not in {own, *MAY_IMPORT[own]}
            )


def circle(imports: Imports) -> list[str]:
    """Modules that import one another in a circle; empty where there is none."""
    graph = {
        module: {name if name in imports else name.rpartition(".")[0] for name in names} & set(imports)
        for module, names in imports.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
