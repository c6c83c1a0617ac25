"""The suite's fixtures, and what it adds to pytest-benchmark's JSON."""

from __future__ import annotations

import secrets
from itertools import chain
from typing import Any

import pytest
import torch

from attention import Case
from attention.profiler import clock_name
from benchmarks import provenance
from benchmarks.cards import find_card
from benchmarks.conditions import Watch, environment, seconds_since_start
from benchmarks.grid import PRESETS, schedule, series_of
from benchmarks.ledger import Ledger
from benchmarks.measure import Measurer, device_name
from benchmarks.options import (
    add_options,
    chosen_devices,
    known_seconds,
    positive,
    present_devices,
    selected_cases,
)
from benchmarks.provenance import RUN

MEASURER = pytest.StashKey[Measurer]()
CASES = pytest.StashKey[dict[str, list[Case]]]()
KNOWN = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    provenance.add_options(parser)
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "subject(name): which cases of the grid a benchmark measures: operator, layer or ceiling"
    )
    if getattr(config.option, "numprocesses", None):
        raise pytest.UsageError(
            "-n was given, but cases measured side by side disturb each other; leave it out"
        )
    provenance.refuse_other_kernels(config)
    config.pluginmanager.register(provenance)
    preset = PRESETS[config.getoption("grid")]
    seed = config.getoption("shuffle_seed")
    run: dict[str, Any] = {
        "grid": config.getoption("grid"),
        "seed": secrets.randbelow(2**31) if seed is None else seed,
        "repetitions": int(positive(config, "repetitions", preset.repetitions)),
        "clock": config.getoption("clock"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **provenance.pair_fields(config),
    }
    config.stash[RUN] = run
    config.stash[CASES] = selected_cases(config)
    devices = chosen_devices(config) or present_devices()
    ledger = Ledger(chain.from_iterable(config.stash[CASES].values()))
    known = known_seconds(config)
    config.stash[KNOWN] = known
    ledger.learn_from(known)
    config.stash[MEASURER] = Measurer(
        ledger=ledger,
        watch=Watch(find_card if "cuda" in devices else None),
        clock=config.getoption("clock"),
        repetitions=run["repetitions"],
        layer_rounds=int(positive(config, "layer_rounds", 20)),
        case_seconds=positive(config, "case_seconds", preset.case_seconds),
        round_seconds=positive(config, "round_seconds", preset.round_seconds),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    subject = metafunc.definition.get_closest_marker("subject")
    if subject:
        config = metafunc.config
        run, cases = config.stash[RUN], config.stash[CASES][subject.args[0]]
        order = schedule(cases, run["repetitions"], run["seed"], known=bool(config.stash[KNOWN]))
        metafunc.parametrize(
            ("case", "repetition"),
            [_parameter(config, case, repetition) for case, repetition in order],
            indirect=["case"],
        )


def _parameter(config: pytest.Config, case: Case, repetition: int) -> Any:
    # The group puts the kernels of one point into one of pytest-benchmark's tables.
    point = case.id.replace(f"{case.kernel}-", "", 1)
    marks = [
        pytest.mark.benchmark(group=point, timer=config.stash[MEASURER].timer(case.device), disable_gc=True),
        _warnings(config),
    ]
    return pytest.param(case.key, repetition, id=f"{case.id}-r{repetition}", marks=marks)


def _warnings(config: pytest.Config) -> pytest.MarkDecorator:
    """A kernel that warns runs: tests fail where ours does, and here others are measured too.

    What pytest.ini ignores and what ``-W`` asks for stays.
    """
    kept = [line for line in config.getini("filterwarnings") if line != "error"]
    return pytest.mark.filterwarnings("default", *kept, *(config.known_args_namespace.pythonwarnings or ()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole grid once, whatever the file, then again."""

    def repetition(item: pytest.Item) -> int:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        return int(parameters.get("repetition", 0))

    items.sort(key=repetition)


def _measures(config: pytest.Config) -> bool:
    """Whether this session measures at all."""
    benchmark_session = config._benchmarksession  # type: ignore[attr-defined]
    return not (config.option.collectonly or benchmark_session.skip or benchmark_session.disabled)


def pytest_collection_finish(session: pytest.Session) -> None:
    if not _measures(session.config):
        return
    ledger = session.config.stash[MEASURER].ledger
    for item in session.items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "case" in parameters:
            ledger.selected.add(str(parameters["case"]))


@pytest.fixture
def measurer(pytestconfig: pytest.Config) -> Measurer:
    return pytestconfig.stash[MEASURER]


@pytest.fixture
def case(request: pytest.FixtureRequest, measurer: Measurer) -> Case:
    return measurer.ledger.cases[request.param]


def timed_share(config: pytest.Config) -> tuple[float, float]:
    """Seconds since the process began, and the share of them spent inside timed rounds."""
    wall = seconds_since_start()
    benchmarks = config._benchmarksession.benchmarks  # type: ignore[attr-defined]
    return wall, sum(bench.stats.total for bench in benchmarks if bench) / wall


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    # pytest-benchmark warns where any of this differs, but neither the clock of this instant, which stands
    # in for the advertised one where the model does not name it, nor a container's name is the machine's.
    for clock in ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly"):
        machine_info["cpu"].pop(clock, None)
    machine_info.pop("node", None)
    machine_info["devices"] = {device: device_name(device) for device in present_devices()}


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    measurer = config.stash[MEASURER]
    wall, share = timed_share(config)
    run: dict[str, Any] = config.stash[RUN]
    output_json["run"] = {**run, "wall_seconds": wall, "timed_share": share}
    output_json["not_measured"] = [
        {
            **row,
            "device_name": device_name(row["device"]),
            "clock": clock_name(row["device"], measurer.clock),
        }
        for row in measurer.ledger.not_measured()
    ]


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Any:
    """pytest-benchmark writes no file where nothing was measured; the reasons are worth one."""
    if _measures(session.config):
        _end_watch(session.config)
    benchmark_session = session.config._benchmarksession  # type: ignore[attr-defined]
    selected = session.config.stash[MEASURER].ledger.selected
    saves = benchmark_session.json or benchmark_session.save or benchmark_session.autosave
    if saves and selected and not benchmark_session.benchmarks:
        _save_without_benchmarks(session.config, benchmark_session)
    return (yield)


def _end_watch(config: pytest.Config) -> None:
    watch = config.stash[MEASURER].watch
    watch.end()
    # The driver belongs to the machine also where only its CPU was measured.
    card = watch.card or (find_card() if "cuda" in present_devices() else None)
    config.stash[RUN].update(environment(card), conditions=watch.readings)


def _save_without_benchmarks(config: pytest.Config, benchmark_session: Any) -> None:
    commit_info = config.hook.pytest_benchmark_generate_commit_info(config=config)
    config.hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit_info)
    output_json = config.hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=[],
        include_data=True,
        machine_info=benchmark_session.get_machine_info(),
        commit_info=commit_info,
    )
    config.hook.pytest_benchmark_update_json(config=config, benchmarks=[], output_json=output_json)
    if benchmark_session.json:
        benchmark_session.save_json(output_json)
    name = benchmark_session.save or benchmark_session.autosave
    if name:
        benchmark_session.storage.save(output_json, name)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Any:
    """Below pytest-benchmark's tables, and also when its comparison ends in a failure."""
    try:
        return (yield)
    finally:
        if _measures(config):
            _summarise(terminalreporter, config)


def _summarise(terminalreporter: Any, config: pytest.Config) -> None:
    measurer = config.stash[MEASURER]
    rows = measurer.ledger.not_measured()
    terminalreporter.section("attention")
    if rows:
        terminalreporter.line(f"{len(rows)} cases were not measured:")
    for row in sorted(rows, key=lambda row: (row["outcome"], row["key"])):
        terminalreporter.line(f"  {row['outcome']:11}  {row['key']}: {row['reason']}")
    wall, share = timed_share(config)
    seed = config.stash[RUN]["seed"]
    series = len({series_of(measurer.ledger.cases[key]) for key in measurer.ledger.measured})
    terminalreporter.line(
        f"{len(measurer.ledger.measured)} cases of {series} series measured in {wall:.0f} s, "
        f"{share:.0%} of it inside timed rounds; --shuffle-seed {seed} repeats the order"
    )
