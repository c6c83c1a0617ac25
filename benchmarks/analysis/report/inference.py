"""The table of a shape that is decoded: from which context on linear attention is cheaper, in each phase."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.roles import Roles
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report.cases import agreeing
from benchmarks.analysis.report.conclusions import PairCrossover, Series, headline_kernel
from benchmarks.analysis.report.contexts import Contexts, Phase
from benchmarks.analysis.scaling.crossover import Crossover

ORDER = ("forward_backward", "forward", "prefill", "decode")
ABOUT = (
    "Bytes are those of peak memory; in a decode those that are kept between calls, which follow from the "
    "shape alone: measured lengths do not bound them."
)


def find_contexts(
    series: Sequence[Series], crossovers: Sequence[PairCrossover], cases: pd.DataFrame, roles: Roles
) -> list[Contexts]:
    """The phases of each shape that is decoded, on each device."""
    shapes: dict[Setting, list[Setting]] = {}
    for one in series:
        setting = one.setting
        fits = setting.phase == "decode" or (setting.phase in ORDER and setting.query_len is None)
        if one.is_attention and setting.subject == "operator" and setting.mode == "causal" and fits:
            settings = shapes.setdefault(replace(setting, phase=None, batch=None, query_len=None), [])
            settings += [] if setting in settings else [setting]
    found = []
    for shape, settings in shapes.items():
        settings.sort(key=lambda one: (ORDER.index(str(one.phase)), one.query_len or 0, one.batch or 0))
        phases = [phase for one in settings for phase in _phase(one, series, crossovers, roles)]
        decodes = [one for one in settings if one.phase == "decode"]
        if any(phase.phase == "decode" for phase in phases):
            found.append(_contexts(shape, phases, decodes, series, cases))
    return found


def _phase(
    setting: Setting, series: Sequence[Series], crossovers: Sequence[PairCrossover], roles: Roles
) -> Iterator[Phase]:
    ours = [one for one in series if one.setting == setting]
    contender, baseline = headline_kernel(ours, roles), fastest_baseline(ours, roles)
    pairs = {
        pair.quantity: pair
        for pair in crossovers
        if (pair.setting, pair.contender, pair.baseline) == (setting, contender, baseline)
    }
    if contender and baseline and "time" in pairs:
        time, peak = pairs["time"], pairs.get("peak_bytes")
        queries = setting.query_len if setting.phase == "decode" else None
        yield Phase(
            str(setting.phase), setting.batch or 0, queries, contender, baseline,
            time.found, peak.found if peak else None, time.firmness,
        )  # fmt: skip


def fastest_baseline(series: Sequence[Series], roles: Roles) -> str | None:
    """The fastest baseline of one setting, at the longest length that any of them reaches."""
    baselines = [one for one in series if roles.is_baseline(one.kernel)]
    longest = max((one.seq_lens[-1] for one in baselines), default=0)
    finalists = [(one.median_s[-1], one.kernel) for one in baselines if one.seq_lens[-1] == longest]
    return min(finalists)[1] if finalists else None


def _contexts(
    shape: Setting,
    phases: list[Phase],
    decodes: Sequence[Setting],
    series: Sequence[Series],
    cases: pd.DataFrame,
) -> Contexts:
    kernels = {phase.contender for phase in phases if phase.phase == "decode"}
    baselines = {phase.baseline for phase in phases if phase.phase == "decode"}
    measured = pd.concat([agreeing(cases, one) for one in decodes])
    kept = measured["cache_bytes"].astype(float) if "cache_bytes" in measured else math.nan
    each = measured.assign(state=kept / measured["batch"].astype(float))
    each = each.assign(token=each["state"] / each["seq_len"].astype(float))
    state = _only(each[each["kernel"].isin(kernels)]["state"])
    token = _only(each[each["kernel"].isin(baselines)]["token"])
    longest = max(one.seq_lens[-1] for one in series if one.setting in decodes)
    return Contexts(shape, phases, longest, state, token, state / token if state and token else None)


def _only(values: pd.Series[float]) -> float | None:
    """The value that all known ones are; None where there is none, or several."""
    known = values.dropna().unique()
    return float(known[0]) if len(known) == 1 else None


def inference(every: Sequence[Contexts]) -> Iterator[Section]:
    """A section for each shape: a sentence, and the table that it sums up."""
    for one in every:
        shape = f"{wording.heads(one.setting)} D{one.setting.head_dim}"
        where = f"{wording.machine(one.setting)}, {one.setting.dtype}, {one.setting.clock} clock"
        notes = [*_kernels(one), ABOUT, *_moved(one)]
        title = f"From which context on it is cheaper: {shape} on {where}"
        yield Section(
            title, [summed_up(one)], Table(HEADERS, [_row(one, phase) for phase in one.phases]), notes
        )


HEADERS = ("causal", "batch", "cheaper in time", "in bytes")


def summed_up(one: Contexts) -> str:
    """The whole table in one sentence."""
    families = {phase.contender.partition("-")[0] for phase in one.phases}
    subject = (
        "Linear attention"
        if families == {"linear"}
        else wording.listed(list(dict.fromkeys(phase.contender for phase in one.phases)))
    )
    alike: dict[str, list[Phase]] = {}
    for phase in one.phases:
        alike.setdefault(_from(phase.time), []).append(phase)
    clauses = [f"{where} in {_together(phases)}" for where, phases in alike.items()]
    return f"{subject} is cheaper in time {', '.join(clauses)}{_kept(one)}."


def _together(phases: Sequence[Phase]) -> str:
    """Phases of which the same is said: "prefill at batch 4 and decode at batch 1, 8 and 64"."""
    batches: dict[str, list[str]] = {}
    for phase in phases:
        batches.setdefault(_named(phase), []).append(str(phase.batch))
    return _and([f"{name} at batch {_and(several)}" for name, several in batches.items()])


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _from(found: Crossover) -> str:
    """Where a contender is ahead, in the few words of a clause."""
    if found.kind == "inside":
        from_or_to = "from" if found.ahead_beyond == "contender" else "only up to"
        return f"{from_or_to} N = {found.n:.0f}" + (" on" if from_or_to == "from" else "")
    if found.lengths is None:
        return "at no length that both were measured at"
    shortest, longest = found.lengths
    if found.kind == "below":
        return f"at every N from {shortest} on"
    return f"at no N up to {longest}" if found.kind == "above" else "at some N and not at others"


def _named(phase: Phase) -> str:
    words = wording.PURPOSES.get(phase.phase, phase.phase)
    return words + ("" if phase.query_len in (None, 1) else f" of {phase.query_len} tokens")


def _kept(one: Contexts) -> str:
    """The state beside keys and values, both of one sequence in one layer."""
    if one.state_bytes is None or one.token_bytes is None or one.even_n is None:
        return ""
    state, cache = (wording.amount(x, "B") for x in (one.state_bytes, one.token_bytes * one.longest))
    return (
        f"; the state is {state} a sequence and layer, where the cache is as large at "
        f"N = {math.ceil(one.even_n)} and {cache} at {one.longest}"
    )


def _moved(one: Contexts) -> Iterator[str]:
    if one.state_bytes is not None and one.even_n is not None:
        moved = wording.amount(2 * one.state_bytes, "B")
        yield (
            f"A decode reads and writes the state, {moved} a sequence and layer; keys and values that are as "
            f"much to read are those of N = {math.ceil(2 * one.even_n)}."
        )


def _row(one: Contexts, phase: Phase) -> list[str]:
    if phase.phase == "decode":
        memory = "-" if one.even_n is None else f"from {math.ceil(one.even_n)}"
    else:
        memory = "-" if phase.peak_bytes is None else _cell(phase.peak_bytes)
    time = f"{_cell(phase.time)} ({phase.firmness})"
    return [_named(phase), str(phase.batch), time, memory]


def _cell(found: Crossover) -> str:
    """Where a contender is ahead, in a cell."""
    if found.kind == "inside":
        place = wording.interval(found.n, found.low, found.high, ".0f")
        return f"{'from' if found.ahead_beyond == 'contender' else 'only up to'} {place}"
    if found.lengths is None:
        return "-"
    words = {"below": f"at every N from {found.lengths[0]}", "above": f"at no N to {found.lengths[1]}"}
    return words.get(found.kind, "at some N only")


def _kernels(one: Contexts) -> Iterator[str]:
    """Which kernels are compared, where."""
    pairs: dict[str, list[Phase]] = {}
    for phase in one.phases:
        pairs.setdefault(f"{phase.contender} against {phase.baseline}", []).append(phase)
    for pair, phases in pairs.items():
        yield f"{pair}: {_together(phases)}."
