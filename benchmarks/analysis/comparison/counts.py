"""What has no noise: counts, bytes, and whether a case was measured at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from benchmarks.analysis.comparison.matching import Side, Stratum
from benchmarks.analysis.reading.fields import LOST, UNSPLIT_BYTES
from benchmarks.analysis.reading.setting import CASE

QUANTITIES = ("flops", "macs", "min_bytes", "peak_bytes", "counted_flops", "predicted_peak_bytes")
"""Without the resident set, which holds whatever the allocator keeps."""


def compare_counts(stratum: Stratum) -> Iterator[dict[str, Any]]:
    """Every quantity of every case that differs, "larger" or "smaller".

    Where the rows of a side do not agree, as exact quantities should, it differs when all of one side is
    above all of the other; a peak on CUDA above `UNSPLIT_BYTES`, when by more than that.
    """
    first = stratum.head.drop_duplicates("case").set_index("case")
    for quantity in QUANTITIES:
        if quantity not in stratum.base or quantity not in stratum.head:
            continue
        ends = [
            rows.assign(amount=pd.to_numeric(rows[quantity])).groupby("case")["amount"].agg(["min", "max"])
            for rows in (stratum.base, stratum.head)
        ]
        both = ends[0].join(ends[1].add_suffix("_head"), how="inner").astype(float)
        for case, row in both.iterrows():
            coarse = quantity == "peak_bytes" and first.at[case, "device"] == "cuda"
            slack = UNSPLIT_BYTES if coarse and row["min"] > UNSPLIT_BYTES else 0
            larger, smaller = row["min_head"] > row["max"] + slack, row["max_head"] < row["min"] - slack
            if larger or smaller:
                yield {
                    **{field: first.at[case, field] for field in ("key", *CASE)},
                    "quantity": quantity,
                    "base": row["max"] if larger else row["min"],
                    "head": row["min_head"] if larger else row["max_head"],
                    "verdict": "larger" if larger else "smaller",
                }


def compare_outcomes(base: Side, head: Side) -> list[dict[str, Any]]:
    """Every case that is not measured on both sides alike.

    Returns:
        Case fields, `base` and `head` (an outcome, "measured" or null), `reason` and `verdict`: "lost" (a
        case measured before runs out of memory or fails), "left out" (it is predicted not to fit), "gained"
        (measured only now), "vanished" and "new" (asked for on one side only), "incomparable" (measured on
        another machine or by another clock).
    """
    measured = [_first(side.rows, "case") for side in (base, head)]
    asked = [set(_first(side.rows, "asked")) for side in (base, head)]
    gone = [_first(_of_machines(side, other), "asked") for side, other in ((base, head), (head, base))]
    found = []
    for case, row in measured[0].items():
        if case not in measured[1]:
            found.append(_outcome(row, "measured", gone[1].get(row["asked"]), row["asked"] in asked[1]))
    for case, row in measured[1].items():
        if case not in measured[0] and row["asked"] not in asked[0]:
            found.append(_outcome(row, gone[0].get(row["asked"]), "measured", False))
    return found


def _outcome(row: dict[str, Any], base: Any, head: Any, elsewhere: bool) -> dict[str, Any]:
    """One row of the answer; a side is "measured", a case left out, or None."""
    before, after = (one if one is None or one == "measured" else one["outcome"] for one in (base, head))
    left_out = head if before == "measured" else base
    if elsewhere:
        verdict = "incomparable"
    elif before == "measured":
        verdict = "lost" if after in LOST else "left out" if after else "vanished"
    else:
        verdict = "gained" if before else "new"
    return {
        **{field: row[field] for field in ("key", *CASE)},
        "base": before,
        "head": "measured" if elsewhere else after,
        "reason": left_out["reason"] if isinstance(left_out, dict) else None,
        "verdict": verdict,
    }


def _first(frame: pd.DataFrame, name: str) -> dict[str, dict[str, Any]]:
    """The first row of each case of attention."""
    if frame.empty:
        return {}
    ours = frame[frame["subject"] != "ceiling"].drop_duplicates(name)
    return {row[name]: {str(field): value for field, value in row.items()} for row in ours.to_dict("records")}


def _of_machines(side: Side, other: Side) -> pd.DataFrame:
    """What a side left out on the machines of the other one; all, where that one measured nothing."""
    if side.left_out.empty or other.rows.empty:
        return side.left_out
    return side.left_out[side.left_out["machine"].isin(other.rows["machine"])]
