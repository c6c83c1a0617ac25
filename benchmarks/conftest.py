"""The suite's fixtures, and what it adds to pytest-benchmark's JSON."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import chain
from typing import IO, Any

import psutil
import pytest
import torch

from attention import Case
from attention.profiler import clock_name
from benchmarks import provenance
from benchmarks.cards import find_card
from benchmarks.conditions import Watch, environment
from benchmarks.grid import PRESETS, schedule, series_of
from benchmarks.ledger import Ledger
from benchmarks.measure import Measurer, device_name, import_all
from benchmarks.options import (
    add_options,
    case_timeout,
    chosen_devices,
    known_seconds,
    positive,
    present_devices,
    selected_cases,
)
from benchmarks.provenance import RUN
from benchmarks.saving import Saving
from benchmarks.survival.endings import ENDINGS, end_with_parent, handling
from benchmarks.survival.isolation import Worker, pipes, serve, silence
from benchmarks.survival.journal import Journal
from benchmarks.survival.writing import FINISHED, INTERRUPTED

MEASURER = pytest.StashKey[Measurer]()
CASES = pytest.StashKey[dict[str, list[Case]]]()
KNOWN = pytest.StashKey[dict[str, float]]()
SAVING = pytest.StashKey[Saving]()
ORIGIN = pytest.StashKey[tuple[dict[str, Any], dict[str, Any]]]()
"""The machine and the commit of the session, in pytest-benchmark's words."""
PIPES = pytest.StashKey[tuple[IO[str], IO[str]] | None]()
"""In a worker of an isolated session: where its questions come from and its answers go."""


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
    end_with_parent()
    provenance.refuse_other_kernels(config)
    config.pluginmanager.register(provenance)
    config.stash[PIPES] = answering = pipes()
    if answering:
        silence(config)
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
    round_seconds = positive(config, "round_seconds", preset.round_seconds)
    config.stash[MEASURER] = Measurer(
        ledger=ledger,
        watch=Watch(find_card if "cuda" in devices else None),
        clock=config.getoption("clock"),
        repetitions=run["repetitions"],
        layer_rounds=int(positive(config, "layer_rounds", 20)),
        case_seconds=positive(config, "case_seconds", preset.case_seconds),
        round_seconds=round_seconds,
        case_timeout=positive(config, "case_timeout", case_timeout(round_seconds)),
        journal=Journal(to=answering[1]) if answering else Journal(),
        worker=_worker(config, run) if config.getoption("isolate") and not answering else None,
    )


def _worker(config: pytest.Config, run: dict[str, Any]) -> Worker:
    asked = config.invocation_params
    return Worker([*map(str, asked.args), f"--shuffle-seed={run['seed']}"], asked.dir)


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
    # A case that failed before its rounds is told as failed, and not as one that forgot them.
    unused = "ignore:Benchmark fixture was not used at all"
    kept = [line for line in config.getini("filterwarnings") if line != "error"]
    asked = config.known_args_namespace.pythonwarnings or ()
    return pytest.mark.filterwarnings("default", *kept, unused, *asked)


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
    config = session.config
    if not _measures(config):
        return
    measurer = config.stash[MEASURER]
    for item in session.items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "case" in parameters:
            measurer.ledger.selected.add(str(parameters["case"]))
    if measurer.ledger.selected and not config.stash[PIPES]:
        _begin(config)
    if not measurer.worker:
        import_all()


def _begin(config: pytest.Config) -> None:
    """Try the files and begin the journal; from here on a signal ends the session as Ctrl-C does."""
    measurer, session = config.stash[MEASURER], config._benchmarksession  # type: ignore[attr-defined]
    find = measurer.watch.find_card or (find_card if "cuda" in present_devices() else None)
    # The driver belongs to the machine also where only its CPU is measured.
    config.stash[RUN].update(environment(find() if find else None))
    commit_info = config.hook.pytest_benchmark_generate_commit_info(config=config)
    config.hook.pytest_benchmark_update_commit_info(config=config, commit_info=commit_info)
    config.stash[ORIGIN] = machine_info, commit_info = session.get_machine_info(), commit_info
    config.stash[SAVING] = saving = Saving(session)
    now = datetime.now(UTC).isoformat()
    head = {"machine_info": machine_info, "commit_info": commit_info, "datetime": now}
    cases = measurer.ledger.cases
    asked = {key: _placed(config, cases[key].fields()) for key in measurer.ledger.selected}
    saving.begin({**head, "run": config.stash[RUN]}, asked)
    measurer.journal = saving.journal
    signals = ExitStack()
    signals.enter_context(handling(measurer.stop, *ENDINGS))
    config.add_cleanup(signals.close)


def _placed(config: pytest.Config, row: Mapping[str, Any]) -> dict[str, Any]:
    """A case without times, with the device and the clock that it would have been measured by."""
    device = row["device"]
    clock = clock_name(device, config.stash[MEASURER].clock)
    return {**row, "device_name": device_name(device), "clock": clock}


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """A worker measures what it is asked for, in the place of all that it collected."""
    answering = session.config.stash[PIPES]
    if not answering:
        return None
    measurer = session.config.stash[MEASURER]
    serve(session, *answering, measurer.ledger.learn_from)
    measurer.end()
    return True


@pytest.fixture
def measurer(pytestconfig: pytest.Config) -> Measurer:
    return pytestconfig.stash[MEASURER]


@pytest.fixture
def case(request: pytest.FixtureRequest, measurer: Measurer) -> Case:
    return measurer.ledger.cases[request.param]


def timed_share(config: pytest.Config) -> tuple[float, float]:
    """Seconds since the process began, and the share of them spent inside timed rounds."""
    wall = time.time() - psutil.Process().create_time()
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
    wall, share = timed_share(config)
    run: dict[str, Any] = config.stash[RUN]
    output_json["run"] = {**run, "wall_seconds": wall, "timed_share": share}
    ledger = config.stash[MEASURER].ledger
    output_json["not_measured"] = [_placed(config, row) for row in ledger.not_measured()]


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Any:
    """The files are written here: pytest-benchmark writes none where nothing was measured."""
    config = session.config
    if SAVING in config.stash:
        measurer, saving = config.stash[MEASURER], config.stash[SAVING]
        with handling(signal.SIG_IGN, *ENDINGS):
            measurer.end()
            cut_short = exitstatus not in (0, 1) or session.shouldstop or session.shouldfail
            ended = INTERRUPTED if cut_short else FINISHED
            config.stash[RUN].update(conditions=measurer.watch.readings, ended=ended)
            saving.finish(config, *config.stash[ORIGIN])
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Any:
    """Below pytest-benchmark's tables, and also when its comparison ends in a failure."""
    try:
        return (yield)
    finally:
        if SAVING in config.stash:
            _summarise(terminalreporter, config)


def _summarise(terminalreporter: Any, config: pytest.Config) -> None:
    measurer = config.stash[MEASURER]
    rows = measurer.ledger.not_measured()
    terminalreporter.section("attention")
    if rows:
        terminalreporter.line(f"{len(rows)} cases were not measured:")
    for row in sorted(rows, key=lambda row: (row["outcome"], row["key"])):
        terminalreporter.line(f"  {row['outcome']:11}  {row['key']}: {row['reason']}")
    for sentence in filter(None, (*config.stash[SAVING].told, measurer.journal.trouble)):
        terminalreporter.line(sentence)
    wall, share = timed_share(config)
    seed = config.stash[RUN]["seed"]
    series = len({series_of(measurer.ledger.cases[key]) for key in measurer.ledger.measured})
    terminalreporter.line(
        f"{len(measurer.ledger.measured)} cases of {series} series measured in {wall:.0f} s, "
        f"{share:.0%} of it inside timed rounds; --shuffle-seed {seed} repeats the order"
    )
