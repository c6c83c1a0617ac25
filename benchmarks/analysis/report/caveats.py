"""The warnings of a report: what is missing, what rests on little, and what cannot be true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.reading.machines import differences, machine_names
from benchmarks.analysis.reading.records import Records
from benchmarks.analysis.reading.roles import USUAL, Roles
from benchmarks.analysis.reading.run_info import RunInfo
from benchmarks.analysis.reading.setting import attention, by_setting
from benchmarks.analysis.report.ceilings import Ceiling, ceiling_of
from benchmarks.analysis.report.conclusions import PairCrossover, Series

BOTH_MODES = {"bidirectional", "causal"}
IN_BOTH_MODES = ("forward", "forward_backward")
"""The phases that are measured in both: what a model writes is causal."""
ALIKE = 0.02
"""By how much declared and counted FLOPs may differ."""
WHAT_TO_CHECK = (
    "What to check where a case is faster than its ceilings allow: the clock; whether the working set stays "
    "in a cache, whose bandwidth is above the memory's; whether the function is asynchronous and returns "
    "before its work is done; its FLOP formula; and whether the ceilings were measured in a slower moment."
)


def name_caveats(
    records: Records,
    series: Sequence[Series],
    crossovers: Sequence[PairCrossover],
    ceilings: Sequence[Ceiling],
    roles: Roles = USUAL,
) -> list[str]:
    """All warnings of a report, in the order in which it shows them."""
    if records.rows.empty:
        return ["Nothing was measured."]
    return [
        *_impossible(series),
        *_apart(records),
        *_differences(records),
        *_changed_state(records.rows),
        *_precisions(records.rows, crossovers),
        *_borrowed_costs(records.rows),
        *_unknown_flops(records.rows),
        *_unknown_energy(records.rows),
        *_missing(records.rows, roles),
        *_without_ceilings(series, ceilings),
        *_of_crossovers(crossovers),
    ]


def _impossible(series: Sequence[Series]) -> Iterator[str]:
    """Cases faster than their device can be, beyond the noise."""
    found: dict[str, list[str]] = {}
    for one in series:
        known = zip(one.seq_lens, one.floor_share, one.floor_verdict, strict=True)
        above = {length: share or 0 for length, share, verdict in known if verdict == "impossible"}
        if above:
            where = f"{wording.what(one.setting)} on {wording.place(one.setting)}"
            lengths = (
                f"N = {', '.join(map(str, above))} ({wording.percent(max(above.values()))} of the floor)"
            )
            found.setdefault(where, []).append(f"{one.kernel} at {lengths}")
    for where, cases in found.items():
        yield f"Impossible, faster than the ceilings allow, {where}: {'; '.join(cases)}."
    if found:
        yield WHAT_TO_CHECK


def _apart(records: Records) -> Iterator[str]:
    """The machines whose rows are not pooled, and what makes them several."""
    machines: dict[str, list[RunInfo]] = {}
    names = machine_names([run.machine for run in records.runs])
    for name, run in zip(names, records.runs, strict=True):
        machines.setdefault(name, []).append(run)
    (one, runs), *others = machines.items()
    for other, its_runs in others:
        both = " and ".join(
            f"{name} ({wording.listed([run.file for run in files])})"
            for name, files in ((one, runs), (other, its_runs))
        )
        facts = differences(runs[0].machine, its_runs[0].machine)
        yield f"Not pooled and not compared: {both} differ in {'; '.join(facts)}."


def _differences(records: Records) -> Iterator[str]:
    """Files whose rows are pooled although the code differs."""
    pooled = records.rows[records.rows["unit_kind"] == "run"]
    runs = [records.runs[index] for index in sorted(pooled["run"].unique())]
    if len({run.commit.id for run in runs}) > 1:
        yield "The files pooled here were measured at different commits."


def _changed_state(rows: pd.DataFrame) -> Iterator[str]:
    """Kernels that changed what others would have been measured under."""
    if "state_changed" not in rows:
        return
    found: dict[str, list[str]] = {}
    told_rows = rows.dropna(subset="state_changed")
    for kernel, text in zip(told_rows["kernel"], told_rows["state_changed"], strict=True):
        found.setdefault(text, []).append(kernel)
    told = [f"{wording.listed(list(dict.fromkeys(kernels)))} ({text})" for text, kernels in found.items()]
    if told:
        yield (
            f"While they were measured, these kernels changed the process that measures: {'; '.join(told)}. "
            "It was put back after each case, so no other case was measured so."
        )


def _precisions(rows: pd.DataFrame, crossovers: Sequence[PairCrossover]) -> Iterator[str]:
    """Kernels that compute in another precision than their dtype, and with what they are compared."""
    own = rows[rows["precision"] != rows["dtype"]]
    for (kernel, dtype, precision), _ in own.groupby(["kernel", "dtype", "precision"]):
        others = {
            other
            for pair in crossovers
            if kernel in (pair.contender, pair.baseline) and pair.setting.dtype == dtype
            for other in (pair.contender, pair.baseline)
        }
        unlike = sorted(
            others & set(rows.loc[(rows["dtype"] == dtype) & (rows["precision"] != precision), "kernel"])
        )
        compared = (
            f"; its crossovers with {wording.listed(unlike)} compare different precisions" if unlike else ""
        )
        yield f"{kernel} computes {dtype} in {precision}{compared}."


def _borrowed_costs(rows: pd.DataFrame) -> Iterator[str]:
    """Kernels whose declared FLOPs are not those that torch counts."""
    if not {"counted_flops", "countable_flops"} <= set(rows.columns):
        return
    counted, declared = (rows[name].astype(float) for name in ("counted_flops", "countable_flops"))
    ratios = (declared / counted)[(counted > 0) & (declared > 0)]
    off = rows.loc[ratios.index].assign(ratio=ratios)[(ratios - 1).abs() > ALIKE]
    for kernel, group in off.groupby("kernel"):
        ends = sorted({f"{group['ratio'].min():.3g}", f"{group['ratio'].max():.3g}"}, key=float)
        where = f"at N = {wording.ranges(list(group['seq_len'].unique()))}"
        yield (
            f"{kernel} declares {' to '.join(ends)} times the FLOPs that torch counts, {where}: its costs "
            "are not those of what it executes, so its FLOPs, their exponent and its place under the roof "
            "are wrong."
        )


def _unknown_flops(rows: pd.DataFrame) -> Iterator[str]:
    """Kernels that have no place under the roof, and no exponent of FLOPs."""
    if "flops_unknown" not in rows:
        return
    told = rows.dropna(subset="flops_unknown")
    for (kernel, reason), _ in told.groupby(["kernel", "flops_unknown"]):
        yield f"The FLOPs of {kernel} are not known: {str(reason).rstrip('.')}."


def _unknown_energy(rows: pd.DataFrame) -> Iterator[str]:
    """Why energy is not known that was asked for."""
    if "energy_unknown" in rows:
        for (device, reason), _ in rows.groupby(["device", "energy_unknown"]):
            yield f"The energy of calls on {device} is not known: {str(reason).rstrip('.')}."


def _missing(rows: pd.DataFrame, roles: Roles) -> Iterator[str]:
    """Modes, kernels, lengths and units that must be measured before there is something to compare."""
    in_any_mode = attention(rows).assign(mode=None)
    for setting, without_modes in by_setting(in_any_mode):
        group = rows.loc[without_modes.index]
        where = f"{wording.phase(setting)} on {wording.place(setting)}"
        if setting.subject == "operator":  # a layer is an experiment also with a single kernel
            if setting.phase in IN_BOTH_MODES:
                for mode in sorted(BOTH_MODES - set(group["mode"])):
                    yield f"No {mode} case was measured, {where}."
            for missing in _roles_missing(group, roles):
                yield f"No {missing} was measured, {where}: there is nothing to compare with."
        if group["seq_len"].nunique() < 3:
            found = ", ".join(str(length) for length in sorted(group["seq_len"].unique()))
            yield f"Only N = {found} was measured, {where}: exponents and fits need 3 lengths."
        if group["unit"].nunique() < 2:
            unit = group["unit_kind"].iloc[0]
            yield f"A single {unit} allows no intervals, {where}: measure at least 3 repetitions."


def _roles_missing(rows: pd.DataFrame, roles: Roles) -> Iterator[str]:
    """The roles that no kernel of a setting has."""
    found = {roles.is_baseline(kernel) for kernel in rows["kernel"].unique()}
    usual = roles.against == USUAL.against
    if True not in found:
        yield "standard kernel" if usual else f"kernel like {wording.listed(roles.against)}"
    if False not in found:
        yield "linear kernel" if usual else "kernel beside the baselines"


def _without_ceilings(series: Sequence[Series], ceilings: Sequence[Ceiling]) -> Iterator[str]:
    """Operators that cannot be compared with what their device can do."""
    operators = [one.setting for one in series if one.setting.subject == "operator" and one.is_attention]
    without = [setting for setting in operators if ceiling_of(setting, ceilings) is None]
    places = [f"{setting.device} {setting.dtype}, {setting.clock} clock" for setting in without]
    if places:
        where = f" of {' and '.join(dict.fromkeys(places))}" if ceilings else ""
        yield (
            f"No ceilings{where} were measured, so no share of the floor and no roofline.png can be shown: "
            "run `pytest benchmarks` without deselecting test_ceilings."
        )


def _of_crossovers(crossovers: Sequence[PairCrossover]) -> Iterator[str]:
    """The notes on crossovers, each with all pairs that have it."""
    notes: dict[str, list[str]] = {}
    for pair in crossovers:
        name = f"{pair.contender} against {pair.baseline} ({wording.what(pair.setting)})"
        for note in pair.found.notes:
            notes.setdefault(note, []).append(name)
    for note, pairs in notes.items():
        yield f"{', '.join(pairs)}: {note}."
