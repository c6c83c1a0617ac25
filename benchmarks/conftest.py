"""The suite's fixtures, and what it adds to pytest-benchmark's JSON."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from typing import IO, Any

import pytest
import torch

from attention import Case
from attention.profiler import clock_name
from benchmarks import provenance
from benchmarks.analysis.layout import wrapped
from benchmarks.apart import Apart, Measuring
from benchmarks.closing import answer, asks_for_table, screen
from benchmarks.grid import schedule, seed_of, series_of
from benchmarks.guard import Guard
from benchmarks.ledger import Ledger
from benchmarks.machine.cards import find_card
from benchmarks.machine.conditions import Watch, environment, idle_power, seconds_since_start
from benchmarks.measure import Measurer, device_name
from benchmarks.options import (
    add_options,
    asked_options,
    case_timeout,
    chosen_devices,
    fixed_rounds,
    known_seconds,
    positive,
    selected_cases,
)
from benchmarks.own.options import baselines, measured_own, own_kernels, own_options
from benchmarks.progress import follow
from benchmarks.provenance import RUN
from benchmarks.saving import Saving
from benchmarks.selection import PRESETS
from benchmarks.survival.endings import ENDINGS, end_with_parent, handling
from benchmarks.survival.isolation import Worker, pipes, serve, silence
from benchmarks.survival.journal import Journal
from benchmarks.survival.writing import FINISHED, INTERRUPTED
from benchmarks.words import present_devices

MEASURING = pytest.StashKey[Measuring]()
MEASURER = pytest.StashKey[Measurer]()
CASES = pytest.StashKey[dict[str, list[Case]]]()
KNOWN = pytest.StashKey[dict[str, float]]()
SAVING = pytest.StashKey[Saving]()
"""The files of a session that measures; a worker of an isolated session writes none."""
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
    own = own_kernels(config)
    preset = PRESETS[config.getoption("grid")]
    config.stash[RUN] = {
        "grid": config.getoption("grid"),
        "seed": seed_of(config.getoption("shuffle_seed")),
        "repetitions": (repetitions := int(positive(config, "repetitions", preset.repetitions))),
        "rounds": fixed_rounds(config, preset, repetitions).get("operator"),
        "warmup": int(positive(config, "warmup", preset.warmup or 0)) or None,
        "clock": config.getoption("clock"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "isolated": config.getoption("isolate"),
        "own_options": shlex.join(own_options(config)),
        "options": shlex.join([*asked_options(config), *own_options(config)]),
        "against": ",".join(baselines(config)),
        **provenance.pair_fields(config),
    }
    config.stash[CASES] = cases = selected_cases(config, own)
    config.stash[RUN]["own"] = ",".join(measured_own(chain.from_iterable(cases.values())))
    config.stash[KNOWN] = known_seconds(config)
    config.stash[MEASURING] = measuring = _measuring(
        config, apart=config.getoption("isolate") and not answering
    )
    if answering:
        measuring.journal = Journal(to=answering[1])


def _measuring(config: pytest.Config, *, apart: bool) -> Measuring:
    """How this session measures, by its options: itself, or by a worker."""
    run, preset = config.stash[RUN], PRESETS[config.getoption("grid")]
    ledger = Ledger(chain.from_iterable(config.stash[CASES].values()))
    known = config.stash[KNOWN]
    ledger.learn_from(known)
    watch = Watch(find_card if "cuda" in (chosen_devices(config) or present_devices()) else None)
    round_seconds = positive(config, "round_seconds", preset.round_seconds)
    timeout_s = positive(config, "case_timeout", case_timeout(round_seconds))
    config.stash[MEASURER] = measurer = Measurer(
        ledger=ledger,
        clock=config.getoption("clock"),
        repetitions=run["repetitions"],
        rounds=fixed_rounds(config, preset, run["repetitions"]),
        warmup=run["warmup"],
        case_seconds=positive(config, "case_seconds", preset.case_seconds),
        round_seconds=round_seconds,
        energy=config.getoption("energy"),
    )
    if not apart:
        return Guard(measurer, watch, timeout_s)
    asked = config.invocation_params
    worker = Worker([*map(str, asked.args), f"--shuffle-seed={run['seed']}"], asked.dir)
    return Apart(worker, ledger, watch, round_seconds, timeout_s)


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
    timer = config.stash[MEASURING].timer(case.device)
    marks = [pytest.mark.benchmark(group=point, timer=timer, disable_gc=True), _warnings(config)]
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
    """The whole grid once, whatever the file, then again; a subject without cases has nothing to skip."""

    def repetition(item: pytest.Item) -> Any:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        return parameters.get("repetition", 0)

    items[:] = sorted((item for item in items if isinstance(repetition(item), int)), key=repetition)


def _measures(config: pytest.Config) -> bool:
    """Whether this session measures at all."""
    benchmark_session = config._benchmarksession  # type: ignore[attr-defined]
    return not (config.option.collectonly or benchmark_session.skip or benchmark_session.disabled)


def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if not _measures(config):
        return
    selected = config.stash[MEASURING].ledger.selected
    for item in session.items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "case" in parameters:
            selected.add(str(parameters["case"]))
    if selected and not config.stash[PIPES]:
        _begin(config)
        follow(config, session.items, config.stash[MEASURER], config.stash[MEASURING])


def _begin(config: pytest.Config) -> None:
    """Try the files and begin the journal; from here on a signal ends the session as Ctrl-C does."""
    measuring, run = config.stash[MEASURING], config.stash[RUN]
    # The driver belongs to the machine also where only its CPU is measured.
    find = measuring.watch.find_card or (find_card if "cuda" in present_devices() else None)
    run.update(environment(find() if find else None))
    if config.getoption("energy"):
        run.update(idle_power(chosen_devices(config) or present_devices()))
    cases = measuring.ledger.cases
    saving = Saving(config, measuring.journal)
    saving.begin(run, {key: _placed(config, cases[key].fields()) for key in measuring.ledger.selected})
    config.stash[SAVING] = saving
    signals = ExitStack()
    signals.enter_context(handling(measuring.stop, *ENDINGS))
    config.add_cleanup(signals.close)


def _placed(config: pytest.Config, row: Mapping[str, Any]) -> dict[str, Any]:
    """A case without times, with the device and the clock by which it would have been measured."""
    device = row["device"]
    clock = clock_name(device, config.stash[RUN]["clock"])
    return {**row, "device_name": device_name(device), "clock": clock}


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """A worker measures what it is asked for, in the place of all that it collected."""
    answering = session.config.stash[PIPES]
    if not answering:
        return None
    measuring = session.config.stash[MEASURING]
    serve(session, *answering, measuring.ledger.learn_from)
    measuring.end()
    return True


@pytest.fixture
def measuring(pytestconfig: pytest.Config) -> Measuring:
    return pytestconfig.stash[MEASURING]


@pytest.fixture
def case(request: pytest.FixtureRequest, measuring: Measuring) -> Case:
    return measuring.ledger.cases[request.param]


def timed_share(config: pytest.Config) -> tuple[float, float]:
    """Seconds since the process began, and the share of them spent inside timed rounds."""
    wall = seconds_since_start()
    benchmarks = config._benchmarksession.benchmarks  # type: ignore[attr-defined]
    return wall, sum(bench.stats.total for bench in benchmarks if bench) / wall


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    provenance.identify(machine_info, {device: device_name(device) for device in present_devices()})


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    wall, share = timed_share(config)
    run: dict[str, Any] = config.stash[RUN]
    output_json["run"] = {**run, "wall_seconds": wall, "timed_share": share}
    rows = config.stash[MEASURING].ledger.not_measured()
    output_json["not_measured"] = [_placed(config, row) for row in rows]


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Any:
    """The files are written here: pytest-benchmark writes none where nothing was measured."""
    config = session.config
    if SAVING in config.stash:
        measuring = config.stash[MEASURING]
        with handling(signal.SIG_IGN, *ENDINGS):
            measuring.end()
            left = measuring.stop.asked or exitstatus not in (0, 1) or measuring.ledger.never_reached()
            ended = INTERRUPTED if left else FINISHED
            run: dict[str, Any] = config.stash[RUN]
            run.update(conditions=measuring.watch.readings, ended=ended)
            if not config.stash[SAVING].finish():
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Any:
    """Below pytest-benchmark's tables, and also when its comparison ends in a failure.

    These tables are shown to who asks for them; without one its comparison is made all the same.
    """
    if SAVING in config.stash and not asks_for_table(config.option.verbose, config.invocation_params.args):
        config._benchmarksession.quiet = True  # type: ignore[attr-defined]
    try:
        return (yield)
    finally:
        if SAVING in config.stash:
            _summarise(terminalreporter, config)


def _summarise(terminalreporter: Any, config: pytest.Config) -> None:
    """The books, then the answer and the command for the whole report; who wants it quiet reads neither."""
    shown = screen(terminalreporter)
    terminalreporter.section("attention")
    for sentence in _books(config):
        terminalreporter.line(wrapped(sentence, shown.width))
    if not config.option.benchmark_quiet:
        saving = config.stash[SAVING]
        terminalreporter.line(f"\n{answer(saving.document, saving.file, shown)}")


def _books(config: pytest.Config) -> Iterator[str]:
    ledger, saving = config.stash[MEASURING].ledger, config.stash[SAVING]
    rows = ledger.not_measured()
    if rows:
        yield f"{len(rows)} cases were not measured:"
    for row in sorted(rows, key=lambda row: (row["outcome"], row["key"])):
        yield f"  {row['outcome']:11}  {row['key']}: {row['reason']}"
    yield from saving.told
    wall, share = timed_share(config)
    seed = config.stash[RUN]["seed"]
    series = len({series_of(ledger.cases[key]) for key in ledger.measured})
    yield (
        f"{len(ledger.measured)} cases of {series} series measured in {wall:.0f} s, "
        f"{share:.0%} of it inside timed rounds; --shuffle-seed {seed} repeats the order"
    )
