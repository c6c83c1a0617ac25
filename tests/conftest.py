"""Fixtures shared by the tests: devices, dtypes and kernels."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from attention import get_kernel, list_kernels
from attention.case import DTYPES
from attention.kernels.external import is_external
from attention.kernels.references import errors
from attention.kernels.registry import CLAIMS
from benchmarks.grid import serves
from benchmarks.options import chosen, chosen_devices
from tests.interpreter import quicker

# Assertions of these helpers show the values that they compared, as those of tests do.
pytest.register_assert_rewrite("tests.stand_ins", "tests.textbook")
COMPILED_FOR_SECONDS = [("cpu", "window-flex")]
KERNEL_FIXTURES: dict[str, tuple[str, ...]] = {
    "kernel": CLAIMS,
    "linear_kernel": ("linear",),
    "decay_kernel": ("decay",),
}
"""Which functions the kernels of a fixture compute."""
HERE = Path(__file__).resolve().parent
ONE_BY_ONE = (
    "collectonly", "usepdb", "trace", "setupshow", "setuponly", "setupplan", "benchmark_only", "keyword",
)  # fmt: skip
"""Options of a user who looks at single tests."""
LONGEST = (
    "test_triton.py", "test_window.py", "test_window_flex.py", "test_hostile.py", "test_costs.py",
    "test_wall_clock.py", "test_benchmarks.py",
    # The longest of the slow ones.
    "test_killed.py", "test_readme_commands.py", "test_limits.py", "test_sanitizers.py", "test_bends.py",
    "test_decisions.py", "test_coverage.py", "test_workflow.py", "test_walkthroughs.py",
)  # fmt: skip
"""Files that begin first, so that none of them ends alone."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run all tests together in two processes, a file in one, unless options divide or inspect them."""
    option, asked = config.option, [Path(argument).resolve() for argument in config.args]
    if asked != [HERE] or not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    divided = option.numprocesses is not None or option.dist != "no" or option.tx or option.distload
    looked_at = option.capture == "no" or any(getattr(option, name) for name in ONE_BY_ONE)
    if not divided and not looked_at and option.device in (None, "cpu"):  # a GPU would be shared
        option.numprocesses, option.dist = 2, "loadfile"
        option.loadscopereorder = False  # the files of the most tests are not those of the most time
        option.benchmark_disable = True  # as xdist would, without a warning
    if option.numprocesses:
        # Threads of OpenMP and of NumPy's OpenBLAS that wait would take the cores from the other processes.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Each of a hundred processes would compile every module again.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure() -> None:
    """Hide xdist from sessions that tests start, in which pytest-benchmark would otherwise not measure.

    They need no hypothesis either, which its plugin imports for half a second at their ends.
    """
    gc.disable()  # while tests are collected: hardly anything of what that makes is garbage
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -p no:hypothesispytest".strip()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, and give each process of `--dist loadgroup` kernels of its own."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            group = compiled_together(getattr(getattr(item, "callspec", None), "params", {}))
            if group:
                item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish() -> None:
    """Leave what was imported and collected, half a million objects, out of all searches for garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the end of the process free everything: libraries tell of what they find alive."""
    gc.unfreeze()


def compiled_together(parameters: Mapping[str, object]) -> str | None:
    """The name of the tests that compile what a test compiles: kernel, dtype and mode choose the code.

    Processes that share such tests compile the code side by side: it reaches the cache on the disk, which is
    common to them, too late.
    """
    kernel = next((parameters[name] for name in KERNEL_FIXTURES if name in parameters), None)
    if parameters.get("device") != "cuda" or kernel is None:
        return None
    return f"{kernel}-{parameters.get('dtype', 'float32')}-{parameters.get('mode', 'causal')}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize ``device``, ``dtype`` and kernels that serve the device.

    Kernels that refuse a device altogether are left to the tests of refusals, and those of other projects to
    the tests marked so: each new shape takes them a minute of tuning. What torch compiles for seconds in each
    form of inputs has tests of its own on a CPU.
    """
    devices = chosen_devices(metafunc.config) or ["cpu"]
    for fixture, functions in KERNEL_FIXTURES.items():
        if fixture in metafunc.fixturenames:
            rivals = metafunc.definition.get_closest_marker("rivals") is not None
            kernels = [get_kernel(name) for name in list_kernels()]
            names = [x.name for x in kernels if x.reference in functions and is_external(x) is rivals]
            pairs = [(d, name) for d in devices for name in names if serves(name, d)]
            pairs = [pair for pair in pairs if pair not in COMPILED_FOR_SECONDS]
            metafunc.parametrize(("device", fixture), pairs)
            break
    else:
        if "device" in metafunc.fixturenames:
            metafunc.parametrize("device", devices)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", chosen(metafunc.config, "dtype", list(DTYPES)) or list(DTYPES))


@pytest.fixture(scope="session", autouse=True)
def oracle_once() -> Iterator[None]:
    """Exact results of a case are computed once for all kernels of its family."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errors, "_exact", lru_cache(maxsize=128)(errors._exact))
        yield


@pytest.fixture(scope="session", autouse=True)
def quicker_interpreter() -> Iterator[None]:
    """Triton's interpreter spares most of what is not arithmetic."""
    with quicker():
        yield


@pytest.fixture
def without_pictures() -> Iterator[None]:
    """Commands draw no pictures, which take most of their time."""
    from tests.hostile import undrawn

    with undrawn():
        yield


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    """What a test does to torch's threads is undone: peak memory and segments depend on them."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture
def one_thread(request: pytest.FixtureRequest, threads_as_they_were: None) -> None:
    """Tests of tiny tensors take one thread, because more would spin beside other processes.

    Kernels in C++ keep all threads, whose number decides their segments.
    """
    if "-native" not in request.node.name:
        torch.set_num_threads(1)


@pytest.fixture
def triton_passes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Passes of Triton on short segments, on a card or in the interpreter; what was launched is forgotten."""
    from tests.interpreted import forget_every_launch, set_rules, skip_outside_of_the_interpreter

    skip_outside_of_the_interpreter(request, "does_not_serve")
    set_rules(monkeypatch, LEAST_TOKENS=64)
    yield
    forget_every_launch()


@pytest.fixture
def card(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A card on which the Gluon passes run, however short the sequence."""
    if device != "cuda":
        pytest.skip("compiled only, by a test of test_gluon.py")
    from attention.kernels.triton_common import plan
    from tests.interpreted import forget_every_launch, set_rules

    if not plan.gluon_serves(128, 128, torch.bfloat16, torch.device(device)):
        pytest.skip("neither a Hopper card nor a Triton with which they ran")
    set_rules(monkeypatch, DESCRIBED=0)
    yield device
    forget_every_launch()
