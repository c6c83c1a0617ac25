"""How near each case comes to its floor, and whether it is faster than its device can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.analysis import wording
from benchmarks.analysis.reading.setting import attention, by_setting
from benchmarks.analysis.report.ceilings import Ceiling, Rate, ceiling_of
from benchmarks.analysis.scaling.units import Floats

Verdict = Literal["above", "at the floor within the noise", "impossible"]
"""A case is above its floor, at it as far as noise lets it be told, or faster than can be true."""
AT: Verdict = "at the floor within the noise"
MARGIN = 0.05
"""By how much every unit of an impossible case is faster than the fastest units of its ceilings allow."""
ENOUGH = 6
EXPECTED_RANGE = (0.0, 0.0, 1.128, 1.693, 2.059, 2.326, 2.534)
"""Expected range of so many normal values, in standard deviations (Tippett 1925)."""
CACHED = 2**30
"""Least bytes of a decode on a CPU that may stay in its caches, where the ceiling of memory does not hold."""
ASSUMED = 0.18
"""Standard deviation of the log of a unit where no case has two to tell it: that of a shared machine."""
SIGNS: Mapping[str, str] = {AT: " ~", "impossible": " !"}
"""What a table sets behind the share of the floor, by verdict."""
FLOOR = ["floor_s", "floor_low_s", "floor_high_s", "floor_bound", "floor_share", "floor_verdict"]


def with_floors(cases: pd.DataFrame, ceilings: Iterable[Ceiling]) -> pd.DataFrame:
    """Cases with the columns of the floor.

    Returns:
        The cases with `floor_s`, the least seconds the ceilings allow; `floor_low_s` and `floor_high_s`, the
        same by the fastest and by the slowest units of the ceilings; `floor_bound`, "bytes" or "flops",
        whichever sets it; `floor_share`, floor_s / median_s; and `floor_verdict`, a `Verdict`. Empty for
        cases without ceilings of their own device, clock and dtype. Bytes alone set the floor of a kernel
        that computes in another precision than its dtype.
    """
    texts = ("floor_bound", "floor_verdict")
    cases = cases.assign(**{name: None if name in texts else np.nan for name in FLOOR})
    measured = attention(cases[cases["outcome"] == "measured"])
    noise = _noise(measured)
    for setting, group in by_setting(measured):
        ceiling = ceiling_of(setting, ceilings)
        if ceiling:
            cached = setting.device == "cpu" and setting.phase == "decode"
            least = group["min_bytes"].where(group["min_bytes"] >= (CACHED if cached else 0), 0)
            own_noise = np.asarray(noise[group.index], dtype=float)
            for name, values in _floors(group.assign(min_bytes=least), ceiling, own_noise).items():
                cases.loc[group.index, name] = values
    return cases


def _floors(cases: pd.DataFrame, ceiling: Ceiling, noise: Floats) -> dict[str, NDArray[Any]]:
    """The columns of the floor for cases of one setting."""
    median, fastest, slowest = (ceiling.roof(unit) for unit in ("value", "high", "low"))
    assert median and fastest and slowest
    # The ceiling of a dtype does not hold for products in another precision.
    amounts = cases["min_bytes"], cases["flops"].where(cases["precision"] == cases["dtype"], 0)
    by_bytes, by_flops = median.times(*amounts)
    floor, least = np.maximum(by_bytes, by_flops), fastest.floor(*amounts)
    medians, longest = (cases[name].to_numpy(dtype=float) for name in ("median_s", "unit_high_s"))
    rated = min(rate.units for rate in (ceiling.bytes_per_s, ceiling.flops_per_s) if rate)
    few = cases["units"].astype(int).map(reach).to_numpy(dtype=float) + reach(rated)
    verdicts = judge(floor, least, medians, longest, noise * few)
    nothing = np.array(None)
    return {
        "floor_s": floor,
        "floor_low_s": least,
        "floor_high_s": slowest.floor(*amounts),
        "floor_bound": np.where(np.isnan(floor), nothing, np.where(by_bytes > by_flops, "bytes", "flops")),
        "floor_share": floor / medians,
        "floor_verdict": np.where(np.isnan(floor), nothing, verdicts),
    }


def _noise(cases: pd.DataFrame) -> pd.Series[float]:
    """The standard deviation that the log of a unit typically has on the device of each case."""
    ends = [cases[name].astype(float).map(np.log) for name in ("unit_high_s", "unit_low_s")]
    expected = cases["units"].astype(int).map(lambda units: EXPECTED_RANGE[min(units, ENOUGH)] or np.nan)
    of_case = (ends[0] - ends[1]) / expected
    return of_case.groupby([cases["machine"], cases["device"]]).transform("median").fillna(ASSUMED)


def reach(units: int) -> float:
    """How much farther out the end of six values would lie than that of fewer, in standard deviations."""
    return (EXPECTED_RANGE[ENOUGH] - EXPECTED_RANGE[min(units, ENOUGH)]) / 2


def judge(
    floor_s: Floats, floor_low_s: Floats, median_s: Floats, unit_high_s: Floats, few: Floats
) -> NDArray[np.str_]:
    """What the floor says of cases.

    Noise makes a median faster than another median in half of all cases at their floor, but every unit of one
    faster than every unit of the other rarely: by chance in 1 of 924 cases with six units each. It is 1 of 20
    with three, whose ends therefore count as so far apart as those of six would be.

    Args:
        floor_s: Least seconds of each case by the median units of its ceilings.
        floor_low_s: Those by their fastest units.
        median_s: Seconds of the median unit of each case.
        unit_high_s: Seconds of its slowest unit.
        few: Log of how much nearer six units of either would have come, where there are fewer: the `reach` of
            both times the standard deviation of a unit.

    Returns:
        A `Verdict` for each case.
    """
    impossible = unit_high_s * (1 + MARGIN) * np.exp(few) < floor_low_s
    return np.where(impossible, "impossible", np.where(median_s < floor_s, AT, "above"))


def share_words(share: float | None, verdict: str | None) -> str:
    """A share of the floor with the sign of its verdict: "97 %", "104 % ~", "125 % !"."""
    return wording.percent(share) + SIGNS.get(verdict or "", "")


def notes_on_shares(cases: pd.DataFrame, ceiling: Ceiling) -> Iterator[str]:
    """Sentences on a table of shares of one setting: what 100 % is, and the meaning of its signs."""
    yield "100 % is the shortest time that the median ceilings of this device allow."
    if set(cases["device"]) == {"cpu"} and set(cases["phase"]) == {"decode"}:
        yield "Below 1 GiB what a decode reads may stay in a CPU's caches, so that FLOPs alone set its floor."
    verdicts = set(cases["floor_verdict"])
    if AT in verdicts:
        yield (
            f"{SIGNS[AT].strip()} marks a case {AT}: faster than the median ceilings allow, "
            f"yet not clearly beyond their range, {_rate(ceiling.bytes_per_s, 'B/s')} and "
            f"{_rate(ceiling.flops_per_s, 'FLOP/s')}."
        )
    if "impossible" in verdicts:
        yield (
            f"{SIGNS['impossible'].strip()} marks an impossible case, and no success: every unit is over "
            f"{100 * MARGIN:g} % faster than the fastest units of the ceilings allow. The warnings say "
            "what to check."
        )


def _rate(rate: Rate | None, unit: str) -> str:
    assert rate
    return wording.amount_range(rate.value, rate.low, rate.high, unit)
