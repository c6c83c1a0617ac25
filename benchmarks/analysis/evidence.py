"""The tables that the conclusions about one setting rest on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.cases import spread
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.experiment import agreement, experiment
from benchmarks.analysis.summary import agreeing, same

ABOUT_SHARES = "100 % is the shortest time that the ceilings of this device allow."
IMPOSSIBLE = "! More than 100 % is impossible, and no success; the warnings say what to check."


def evidence(
    summary: Mapping[str, Any], cases: pd.DataFrame, setting: Mapping[str, Any]
) -> Iterator[Section]:
    """All tables of one setting."""
    ours = agreeing(cases, setting)
    series = [one for one in summary["series"] if same(one, setting)]
    name, is_layer = wording.what(setting), setting["subject"] == "layer"
    yield Section(f"{name.capitalize()} on {wording.place(setting)}: the numbers")
    if is_layer:
        yield experiment(ours, name)
    else:
        yield Section(f"Median time and its spread, {name}", table=_medians(ours), level=3)
    pairs = [one for one in summary["crossovers"] if same(one, setting) and one["quantity"] == "time"]
    if pairs:
        yield Section(f"Speedup of linear over standard, {name}", table=_speedups(series, pairs), level=3)
    if any(share is not None for one in series for share in one["floor_share"]):
        notes = [ABOUT_SHARES, *([IMPOSSIBLE] if (ours["floor_share"] > 1).any() else [])]
        yield Section(f"Share of the floor, {name}", table=_shares(ours), notes=notes, level=3)
    exponents, notes = _exponents(series), [*_undetermined(series), *agreement(ours)]
    yield Section(f"Exponent p of t ~ N^p, {name}", table=exponents, notes=notes, level=3)
    if not is_layer:
        yield Section(f"Fits by relative error, {name}", table=_fits(series), level=3)


def _shares(cases: pd.DataFrame) -> Table:
    """How near each case comes to what its device can do."""
    measured = cases[cases["outcome"] == "measured"]
    lengths = sorted(measured["seq_len"].unique())
    rows = []
    for kernel, group in measured.sort_values("seq_len").groupby("kernel"):
        shares = dict(zip(group["seq_len"], group["floor_share"], strict=True))
        cells = [_share_cell(shares.get(length, math.nan)) for length in lengths]
        rows.append([str(kernel), _bound(group), *cells])
    return Table(["kernel", "floor set by", *(f"N={length}" for length in lengths)], rows)


def _share_cell(share: float) -> str:
    return wording.percent(share) + (" !" if share > 1 else "")


def _bound(cases: pd.DataFrame) -> str:
    """Whether bytes or FLOPs set the floor; where that changes with the length, up to which."""
    words = {"bytes": "bytes", "flops": "FLOPs"}
    known = cases[cases["floor_bound"].notna()]
    bounds = known["floor_bound"].to_list()
    if len(set(bounds)) < 2:
        return words[bounds[0]] if bounds else "-"
    first = bounds[0]
    last = known["seq_len"].to_list()[next(i for i, bound in enumerate(bounds) if bound != first) - 1]
    return f"{words[first]} to {last}, then {words[bounds[-1]]}"


def _medians(cases: pd.DataFrame) -> Table:
    lengths = sorted(cases["seq_len"].dropna().unique())
    rows = []
    for kernel, group in cases.groupby("kernel"):
        cells = {case["seq_len"]: _median_cell(case) for _, case in group.iterrows()}
        rows.append([str(kernel), *(cells.get(length, "-") for length in lengths)])
    return Table(["kernel", *(f"N={length}" for length in lengths)], rows)


def _median_cell(case: pd.Series) -> str:
    if case["outcome"] != "measured":
        return wording.OUTCOME_WORDS[case["outcome"]]
    percent = 100 * spread(case)
    words = ">99" if percent > 99 else f"{percent:.{int(percent < 1)}f}"
    return f"{wording.seconds(case['median_s'])} ±{words}%"


def _speedups(series: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> Table:
    medians = {one["kernel"]: dict(zip(one["seq_lens"], one["median_s"], strict=True)) for one in series}
    common = {n for pair in pairs for n in medians[pair["linear"]] if n in medians[pair["standard"]]}
    lengths = sorted(common)
    rows = []
    for pair in pairs:
        linear, standard = medians[pair["linear"]], medians[pair["standard"]]
        cells = [
            wording.times(standard[n] / linear[n]) if n in linear and n in standard else "-" for n in lengths
        ]
        rows.append([f"{pair['linear']} over {pair['standard']}", *cells])
    return Table(["", *(f"N={length}" for length in lengths)], rows)


def _exponents(series: Sequence[Mapping[str, Any]]) -> Table:
    headers = ["kernel", "p", "verdict", "window", "FLOPs", "peak bytes", "overhead", "local slopes"]
    rows = []
    for one in series:
        p = one["exponent"]
        rows.append([
            one["kernel"],
            wording.interval(p["value"], p["low"], p["high"]),
            p["verdict"],
            "-" if p["window"] is None else f"{p['window'][0]}..{p['window'][1]}",
            wording.interval(one["flops_exponent"], None, None),
            wording.interval(one["peak_bytes_exponent"], None, None),
            wording.seconds(one["overhead_s"]),
            " ".join(map(wording.slope, one["local_slopes"])) or "-",
        ])  # fmt: skip
    return Table(headers, rows)


def _undetermined(series: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why, once per reason."""
    kernels: dict[str, list[str]] = {}
    for one in series:
        if one["exponent"]["reason"]:
            kernels.setdefault(one["exponent"]["reason"], []).append(one["kernel"])
    return [f"{', '.join(names)}: undetermined, because {reason}." for reason, names in kernels.items()]


def _fits(series: Sequence[Mapping[str, Any]]) -> Table:
    headers = ["kernel"]
    for law in ("a N² + b", "a N + b"):
        headers += [f"{law}: a", "b", "R²", "error"]
    return Table(headers, [[one["kernel"], *_fit(one, "quadratic"), *_fit(one, "linear")] for one in series])


def _fit(series: Mapping[str, Any], law: str) -> list[str]:
    fit = series["fits"][law]
    if fit is None:
        return ["-"] * 4
    r2 = "-" if fit["r2"] is None else f"{fit['r2']:.4f}"
    return [wording.seconds(fit["a"]), wording.seconds(fit["b"]), r2, f"{100 * fit['relative_error']:.0f} %"]
