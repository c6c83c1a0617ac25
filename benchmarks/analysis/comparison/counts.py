"""Quantities without noise: counts, bytes, and whether a case was measured at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from benchmarks.analysis.comparison.conclusions import CountChange, OutcomeChange, OutcomeVerdict
from benchmarks.analysis.comparison.matching import Side, Stratum
from benchmarks.analysis.reading.fields import LOST, UNSPLIT_BYTES
from benchmarks.analysis.reading.setting import Case

QUANTITIES = ("flops", "macs", "min_bytes", "peak_bytes", "counted_flops", "predicted_peak_bytes")
"""Fields without noise. The resident set is none of them: it holds whatever the allocator keeps."""


def compare_counts(stratum: Stratum) -> Iterator[CountChange]:
    """Every quantity of every case that differs, "larger" or "smaller".

    Where the rows of a side do not agree, as exact quantities should, it differs when all of one side is
    above all of the other; a peak on CUDA above `UNSPLIT_BYTES`, when by more than that.
    """
    cases = stratum.cases()
    for quantity in QUANTITIES:
        if quantity not in stratum.base or quantity not in stratum.head:
            continue
        ends = [
            rows.assign(amount=pd.to_numeric(rows[quantity])).groupby("case")["amount"].agg(["min", "max"])
            for rows in (stratum.base, stratum.head)
        ]
        both = ends[0].join(ends[1].add_suffix("_head"), how="inner").astype(float)
        for name, row in both.iterrows():
            key, case = cases[str(name)]
            coarse = quantity == "peak_bytes" and case.setting.device == "cuda"
            slack = UNSPLIT_BYTES if coarse and row["min"] > UNSPLIT_BYTES else 0
            larger, smaller = row["min_head"] > row["max"] + slack, row["max_head"] < row["min"] - slack
            if larger or smaller:
                yield CountChange(
                    key=key,
                    case=case,
                    quantity=quantity,
                    base=float(row["max"] if larger else row["min"]),
                    head=float(row["min_head"] if larger else row["max_head"]),
                    verdict="larger" if larger else "smaller",
                )


def compare_outcomes(base: Side, head: Side) -> list[OutcomeChange]:
    """Every case that is not measured on both sides alike.

    "Lost": a case measured before runs out of memory or fails; "left out": it is predicted not to fit;
    "gained": it is measured only now; "vanished" and "new": one side alone asked for it; "incomparable": it
    was measured on another machine or by another clock.
    """
    before, after = _measured(base), _measured(head)
    asked_before, asked_after = ({one.asked for one in side.values()} for side in (before, after))
    gone_before, gone_after = _left_out(base, head), _left_out(head, base)
    changes = [
        _no_longer(one, gone_after.get(one.asked), one.asked in asked_after)
        for name, one in before.items()
        if name not in after
    ]
    changes += [
        _only_now(one, gone_before.get(one.asked))
        for name, one in after.items()
        if name not in before and one.asked not in asked_before
    ]
    return changes


class _Asked(NamedTuple):
    """A case that was measured, and its name wherever and by whatever clock it is measured."""

    key: str
    case: Case
    asked: str


class _Gone(NamedTuple):
    """Why a case was not measured."""

    outcome: str
    reason: str | None


def _no_longer(one: _Asked, gone: _Gone | None, elsewhere: bool) -> OutcomeChange:
    after = gone.outcome if gone else None
    verdict: OutcomeVerdict
    if elsewhere:
        verdict = "incomparable"
    else:
        verdict = "lost" if after in LOST else "left out" if after else "vanished"
    reason = gone.reason if gone else None
    return OutcomeChange(one.key, one.case, "measured", "measured" if elsewhere else after, reason, verdict)


def _only_now(one: _Asked, gone: _Gone | None) -> OutcomeChange:
    if gone:
        return OutcomeChange(one.key, one.case, gone.outcome, "measured", gone.reason, "gained")
    return OutcomeChange(one.key, one.case, None, "measured", None, "new")


def _measured(side: Side) -> dict[str, _Asked]:
    """The measured cases of attention, by the name that equal cases of both sides share."""
    return {
        row["case"]: _Asked(str(row["key"]), Case.of(row), str(row["asked"]))
        for row in _first(side.rows, "case").to_dict("records")
    }


def _left_out(side: Side, other: Side) -> dict[str, _Gone]:
    """The cases of attention that a side left out on the machines of the other one.

    All that it left out, where the other side measured nothing.
    """
    frame = side.left_out
    if not (frame.empty or other.rows.empty):
        frame = frame[frame["machine"].isin(other.rows["machine"])]
    return {
        row["asked"]: _Gone(str(row["outcome"]), None if pd.isna(row["reason"]) else str(row["reason"]))
        for row in _first(frame, "asked").to_dict("records")
    }


def _first(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The first row of each case of attention."""
    return frame if frame.empty else frame[frame["subject"] != "ceiling"].drop_duplicates(name)
