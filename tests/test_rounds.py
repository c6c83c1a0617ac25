"""How a round of several ranks begins: who meets whom, in which order, by which clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.distributed import rounds


@pytest.mark.parametrize(
    ("clock", "wanted"),
    [
        ("device", ["hosts meet", "runway", "cards meet", "stamp", "call", "stamp"]),
        ("wall", ["runway", "hosts meet", "stamp", "call", "stamp"]),
    ],
)
def test_a_round_on_cards_begins_with_a_cold_cache_and_by_all_at_once(
    clock: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last thing before a call is that ranks meet, cards by their own clock and hosts by theirs."""
    done: list[str] = []

    def note(word: str, result: Any = None) -> Any:
        def noted(*_: Any) -> Any:
            done.append(word)
            return result

        return noted

    class Runway:
        """One that notes what is asked of it."""

        def __init__(self, clock: str) -> None: ...

        def __call__(self) -> None:
            done.append("runway")

        def learn(self, call: Any) -> float:
            call()
            return 0.5

    ranks = SimpleNamespace(
        device="cuda",
        line_up=note("hosts meet"),
        meet_devices=note("cards meet"),
        slowest=lambda times: times,
    )
    monkeypatch.setattr(rounds, "torch", SimpleNamespace(zeros=lambda *_, **__: None))
    monkeypatch.setattr(rounds, "Runway", Runway)
    monkeypatch.setattr(rounds, "CLOCKS", {("cuda", clock): note("stamp", 1.0)})
    made = rounds.Rounds(ranks, clock, note("call"))  # type: ignore[arg-type]
    assert made.warm == 0.5
    done.clear()
    assert made.seconds() == 0
    assert done == wanted
