"""What disturbed a single stored run, in a few words."""

from __future__ import annotations

import pandas as pd

from benchmarks.analysis.conditions.quality import DRIFTED, name_drift
from benchmarks.analysis.conditions.sensors import disturbances
from benchmarks.analysis.reading.fields import FAMILIES
from benchmarks.analysis.reading.run_file import RunFile

OF_TIMES = ("key", "clock", "device", "repetition")


def name_disturbances(file: RunFile) -> list[str]:
    """The sentences of a report about one run, without what to try and without a full stop.

    Args:
        file: The run.

    Returns:
        One for each kind of disturbance, and one for a drift; none where nothing disturbed the run.
    """
    rows = [
        {**{name: one.fields[name] for name in OF_TIMES}, "median_s": one.median_s}
        for one in file.measured
        if one.fields["family"] in FAMILIES
    ]
    on_cuda = any(row["device"] == "cuda" for row in rows)
    found = [f"{rule.title}: {words}" for rule, words in disturbances(file.run.conditions, on_cuda).items()]
    drift = name_drift(pd.DataFrame(rows)) if rows else None
    return found + ([f"{DRIFTED} {drift}"] if drift else [])
