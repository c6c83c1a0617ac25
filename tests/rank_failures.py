"""What becomes of a case, and of the next one, where a rank fails: run by `tests.ranks`."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from torch import distributed as dist

from attention.distributed import exchange
from attention.profiler import peak_memory
from attention.torch_internals import collectives
from benchmarks.distributed import measuring
from benchmarks.distributed.cases import RankedCase, Selection, build_cases
from benchmarks.distributed.ranks import Ranks
from benchmarks.distributed.session import _one as measure_one
from benchmarks.selection import Shape


def session_of_two_lengths(limit_s: float = 60) -> tuple[Ranks, measuring.Measurer, list[RankedCase]]:
    """What a session makes of two cases, forward and backward."""
    folder = [mkdtemp()]
    dist.broadcast_object_list(folder)
    ranks = Ranks("cpu", dist.FileStore(f"{folder[0]}/store", dist.get_world_size()), limit_s)  # type: ignore[attr-defined]
    selection = Selection(
        "cpu", "float32", ["linear-sequence-parallel"], ["causal"], ["forward_backward"], [Shape(1, 2, 16)],
        [64, 128], ["strong"],
    )  # fmt: skip
    return ranks, measuring.Measurer(ranks, "wall", 0.01, 10.0), build_cases(selection, ranks.count)


def a_rank_that_runs_out_of_memory_is_an_outcome_on_all() -> None:
    """It fails behind the collectives of a call, where the others have gone on to wait for its counts."""
    ranks, measurer, (bad, good) = session_of_two_lengths()
    look = peak_memory

    def peak(call: Callable[[], object], device: str) -> Any:
        look(call, device)
        raise torch.OutOfMemoryError("no room. More words.")

    with pytest.MonkeyPatch.context() as patch:
        if ranks.rank == 1:
            patch.setattr(measuring, "peak_memory", peak)
        assert measure_one(measurer, ranks, bad, 60) == ("oom", "rank 1: no room")
    assert isinstance(measure_one(measurer, ranks, good, 60), measuring.Measured)


def raises(*_: Any) -> Any:
    raise ValueError("odd gradients")


def a_rank_that_fails_between_collectives_sets_the_others_free() -> None:
    """It fails with the first collective of a call behind it and the second before it: one rank, then all."""
    ranks, measurer, (bad, good) = session_of_two_lengths()
    for culprits, place in (({ranks.count - 1}, f"rank {ranks.count - 1}: "), (set(range(ranks.count)), "")):
        with pytest.MonkeyPatch.context() as patch:
            if ranks.rank in culprits:
                patch.setattr(exchange.Gathered, "backward", raises)
            found = measure_one(measurer, ranks, bad, 60)
        assert found == ("failed", f"{place}ValueError: odd gradients"), found
        assert isinstance(measure_one(measurer, ranks, good, 60), measuring.Measured)
    assert ranks.cause() is None


def a_rank_that_fails_while_states_fly_is_waited_for_half_the_limit() -> None:
    """torch holds the group for the sake of a collective that nobody waits for any more."""
    ranks, measurer, (bad, good) = session_of_two_lengths(limit_s=8)
    gather = collectives.gathered
    with pytest.MonkeyPatch.context() as patch:
        if ranks.rank == 1:
            patch.setattr(exchange, "gathered", lambda *given, **named: raises(gather(*given, **named)))
        found = measure_one(measurer, ranks, bad, 60)
    assert found == ("failed", "rank 1: ValueError: odd gradients"), found
    assert isinstance(measure_one(measurer, ranks, good, 60), measuring.Measured)


FAILURES: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        a_rank_that_runs_out_of_memory_is_an_outcome_on_all,
        a_rank_that_fails_between_collectives_sets_the_others_free,
    )
}
LATE = {"late": a_rank_that_fails_while_states_fly_is_waited_for_half_the_limit}
