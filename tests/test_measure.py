"""How many rounds a case is timed in."""

from __future__ import annotations

import pytest

from attention import Case
from benchmarks.ledger import Ledger
from benchmarks.measure import LEAST_ROUNDS, MOST_ROUNDS, RUNWAY_SHARE, Measurer

CASE = Case("linear-chunked", "causal", 4096)
SECONDS = 0.3


@pytest.mark.parametrize("seconds", [1e-6, 1e-4, 2e-3, 0.05])
@pytest.mark.parametrize("runway", [0.0, 1e-4, 4e-4, 0.05])
def test_rounds_and_what_precedes_them_stay_within_the_time_for_a_case(seconds: float, runway: float) -> None:
    measurer = Measurer(Ledger([CASE]), "device", 1, {}, None, SECONDS, 2.0)
    rounds = measurer.planned_rounds(CASE, seconds, 1, runway)
    assert LEAST_ROUNDS <= rounds <= MOST_ROUNDS
    if rounds > LEAST_ROUNDS:
        assert rounds * seconds <= SECONDS and rounds * runway <= RUNWAY_SHARE * SECONDS
    more = rounds + 1  # one more would be too many by one of the three limits
    assert more > MOST_ROUNDS or more * seconds > SECONDS or more * runway > RUNWAY_SHARE * SECONDS
