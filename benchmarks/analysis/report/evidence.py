"""The tables on which the conclusions about one setting rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from benchmarks.analysis import wording
from benchmarks.analysis.document import Section, Table
from benchmarks.analysis.reading.roles import role_words
from benchmarks.analysis.reading.setting import Setting
from benchmarks.analysis.report import sentences
from benchmarks.analysis.report.cases import agreeing, spread
from benchmarks.analysis.report.ceilings import ceiling_of
from benchmarks.analysis.report.conclusions import PairCrossover, Series, Summary
from benchmarks.analysis.report.energies import energies
from benchmarks.analysis.report.experiment import agreement, experiment
from benchmarks.analysis.report.floors import notes_on_shares, share_words
from benchmarks.analysis.scaling.exclusion import TEXTURE
from benchmarks.analysis.scaling.growth import FAR_FROM_TENABLE

ABOUT_SPEEDUPS = (
    "Geometric mean over the units of {ratio}, each unit compared with itself; where it passes 1x "
    "is the crossover. Ratios of the medians above can differ within the noise."
)
ABOUT_LAWS = (
    "error: root mean square of the log-errors. A law is untenable where it misses the mean over the units "
    "by more than their scatter explains (F test of repeated measures, 5 %). Several may be tenable; * marks "
    "the least error for its number of coefficients."
)
PALPABLE = 0.1
"""The share of the time from which on a part of a law is worth a sentence."""
TENABLE_WORDS = {True: "tenable", False: "untenable", None: "cannot be told"}


def evidence(summary: Summary, cases: pd.DataFrame, setting: Setting) -> Iterator[Section]:
    """All tables of one setting."""
    ours = agreeing(cases, setting)
    series = [one for one in summary.series if one.setting == setting]
    name = wording.what(setting)
    yield Section(f"{name.capitalize()} on {wording.place(setting)}: the numbers")
    if setting.subject == "layer":
        yield from experiment(ours, name)
    else:
        yield Section(f"Median time and its spread, {name}", table=_medians(ours), level=3)
    pairs = [pair for pair in summary.crossovers if pair.setting == setting and pair.quantity == "time"]
    if pairs:
        words = role_words((pair.contender, pair.baseline) for pair in pairs)
        about = ABOUT_SPEEDUPS.format(ratio=" / ".join(reversed(words)))
        notes = [about] if any(pair.found.units > 1 for pair in pairs) else []
        title = f"Speedup of {' over '.join(words)}, {name}"
        yield Section(title, table=_speedups(pairs), notes=notes, level=3)
    ceiling = ceiling_of(setting, summary.ceilings)
    if ceiling:
        notes = list(notes_on_shares(ours, ceiling))
        yield Section(f"Share of the floor, {name}", table=_shares(ours), notes=notes, level=3)
    yield from energies(ours, setting, summary.runs.files)
    exponents, notes = _exponents(series), [*_open(series), *_allowances(series), *agreement(ours)]
    yield Section(f"Exponent p of t ~ N^p, {name}", table=exponents, notes=notes, level=3)
    laws, notes = _laws(series), list(_about_laws(series))
    yield Section(f"Laws of growth, {name}", table=laws, notes=notes, level=3)


def _shares(cases: pd.DataFrame) -> Table:
    """The floor of each case over its time."""
    measured = cases[cases["outcome"] == "measured"]
    lengths = sorted(measured["seq_len"].unique())
    rows = []
    for kernel, group in measured.sort_values("seq_len").groupby("kernel"):
        of_length = zip(group["seq_len"], group["floor_share"], group["floor_verdict"], strict=True)
        cells = {length: share_words(share, verdict) for length, share, verdict in of_length}
        rows.append([str(kernel), _bound(group), *(cells.get(length, "-") for length in lengths)])
    return Table(["kernel", "floor set by", *(f"N={length}" for length in lengths)], rows)


def _bound(cases: pd.DataFrame) -> str:
    """The bound that sets the floor; where it changes with the length, the length up to which it holds."""
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


def _speedups(pairs: Sequence[PairCrossover]) -> Table:
    lengths = sorted({length for pair in pairs for length in pair.found.seq_lens})
    rows = []
    for pair in pairs:
        ratios = dict(zip(pair.found.seq_lens, pair.found.ratios, strict=True))
        cells = ["-" if ratio is None else wording.times(ratio) for ratio in map(ratios.get, lengths)]
        rows.append([f"{pair.contender} over {pair.baseline}", *cells])
    stacks = [(f"{pair.contender} over", pair.baseline) for pair in pairs]
    return Table(["", *(f"N={length}" for length in lengths)], rows, stacks)


def _exponents(series: Sequence[Series]) -> Table:
    kept = any(one.cache_bytes for one in series)
    bytes_kept = ["least bytes", "bytes kept"] if kept else []
    energy = ["energy"] if any(one.energy_exponent for one in series) else []
    headers = [
        "kernel", "p", "verdict", "window", "FLOPs", *bytes_kept, "peak bytes", *energy, "overhead",
        "local slopes",
    ]  # fmt: skip
    rows = []
    for one in series:
        p = one.exponent
        rows.append([
            one.kernel,
            wording.interval(p.value, p.low, p.high),
            f"{p.verdict} ({p.firmness})",
            "-" if p.window is None else f"{p.window[0]}..{p.window[1]}",
            wording.interval(one.flops_exponent, None, None),
            *([wording.interval(x, None, None) for x in (one.min_bytes_exponent, one.cache_bytes_exponent)]
              if kept else []),
            wording.interval(one.peak_bytes_exponent, None, None),
            *([_energy_exponent(one)] if energy else []),
            wording.seconds(one.overhead_s),
            " ".join(map(wording.slope, one.local_slopes)) or "-",
        ])  # fmt: skip
    return Table(headers, rows)


def _energy_exponent(series: Series) -> str:
    p = series.energy_exponent
    return "-" if p is None else wording.interval(p.value, p.low, p.high)


def _open(series: Sequence[Series]) -> list[str]:
    """The reasons why exponents are undetermined or not reached, each with all kernels that have it."""
    kernels: dict[str, list[str]] = {}
    for one in series:
        p = one.exponent
        if p.reason:
            kernels.setdefault(f"{p.verdict}, because {p.reason}", []).append(one.kernel)
    return [f"{', '.join(names)}: {why}." for why, names in kernels.items()]


def _allowances(series: Sequence[Series]) -> Iterator[str]:
    """The kernels whose exponent is the p of c + a N^p rather than the slope over a window."""
    names = [one.kernel for one in series if one.exponent.overhead_s]
    if names:
        yield f"{', '.join(names)}: p is that of c + a N^p over all lengths, which allows for the overhead c."


def _laws(series: Sequence[Series]) -> Table:
    rows, stacks = [], []
    for one in series:
        for name, law in one.laws.known.items():
            formula = law.formula + (" *" if name == one.best_law else "")
            r2 = "-" if law.r2 is None else f"{law.r2:.4f}"
            error, tenable = f"{100 * law.relative_error:.1f} %", TENABLE_WORDS[law.tenable]
            if law.tenable is False:
                tenable += f" ({one.laws_firmness})"
            fit = sentences.law(law.coefficients.terms)
            rows.append([f"{one.kernel}: {formula}", tenable, error, r2, fit])
            stacks.append((one.kernel, formula))
    return Table(["", "", "error", "R²", "fit"], rows, stacks)


def _about_laws(series: Sequence[Series]) -> Iterator[str]:
    """Notes on the table of laws: how to read it, which kernels no law fits, and where N² dominates."""
    judged = {one.kernel: list(one.laws.known.values()) for one in series}
    if not any(judged.values()):
        yield "Laws need 3 lengths, and c + a N^p needs 4."
        return
    yield ABOUT_LAWS
    if any(one.exponent.verdict.startswith("like") for one in series):
        yield (
            "Growth like N or N² is told by exclusion, in the window of p: the laws of other powers are "
            f"untenable, and its own has a p-value above {100 * FAR_FROM_TENABLE:g} %, or misses the times "
            f"by less than {100 * TEXTURE:.0f} %, as caches and tiles make it do."
        )
    if any(law.tenable is None for laws in judged.values() for law in laws):
        yield "With a single unit nobody can tell which laws are tenable: measure at least 3 repetitions."
    none = [name for name, laws in judged.items() if laws and all(law.tenable is False for law in laws)]
    if none:
        yield (
            f"{', '.join(none)}: no such law is tenable; steps, as where a cache overflows, or a change of "
            "algorithm are none of them."
        )
    for one in series:
        yield from _dominance(one)
        yield from _bend(one)


def _bend(series: Series) -> Iterator[str]:
    if series.laws.bent:
        yield f"{series.kernel}: {sentences.bend(series.laws.bent.bends_at)}."
    elif series.family == "window" and series.laws.counted == "quadratic":
        yield f"{series.kernel}: no length measured is beyond the window, so that FLOPs grow like N² at each."


def _dominance(series: Series) -> Iterator[str]:
    mixed, lengths = series.laws.mixed, series.seq_lens
    if mixed is None or not mixed.tenable or mixed.dominates_from is None:
        return
    found, law = mixed.dominates_from, f"{series.kernel}: as a N + b N², its quadratic part"
    if found.kind == "inside":
        yield f"{law} dominates from N = {wording.interval(found.n, found.low, found.high, '.0f')}."
    elif found.lesser_share >= PALPABLE:
        share = wording.percent(found.lesser_share)
        if found.kind == "below":
            yield f"{law} dominates at every length measured; at N = {lengths[0]} the linear part is {share}."
        else:
            yield f"{law} dominates at no length measured; at N = {lengths[-1]} it is {share}."
