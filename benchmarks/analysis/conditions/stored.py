"""What disturbed a single stored run, in a few words."""

from __future__ import annotations

import pandas as pd

from benchmarks.analysis.conditions.quality import DRIFTED, name_drift
from benchmarks.analysis.conditions.sensors import disturbances
from benchmarks.analysis.reading.fields import CEILING
from benchmarks.analysis.reading.run_file import RunFile

OF_TIMES = ("key", "clock", "device", "repetition")


def name_disturbances(file: RunFile) -> dict[str, str]:
    """What disturbed a run, in the words of a report, by the kind that a report begins its sentence with.

    Returns:
        As {"CPU load": "others took 52 % of a core"}; empty where nothing disturbed the run.
    """
    rows = [
        {**{name: one.fields[name] for name in OF_TIMES}, "median_s": one.median_s}
        for one in file.measured
        if one.fields["family"] != CEILING
    ]
    on_cuda = any(row["device"] == "cuda" for row in rows)
    found: dict[str, str] = {}
    for rule, words in disturbances(file.run.conditions, on_cuda).items():
        found[rule.title] = ", ".join([*filter(None, [found.get(rule.title)]), words])
    drift = name_drift(pd.DataFrame(rows)) if rows else None
    return {**found, "Drift": f"{DRIFTED} {drift}"} if drift else found
