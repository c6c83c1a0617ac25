"""The ranks of a session: how they meet, agree, and wait for one another."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from benchmarks.analysis.reading.fields import InputError

STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
MOST_WORDS = 200
LOST = "another rank was lost"
HOW = "torchrun --nproc-per-node 2 -m benchmarks distributed"


def is_first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


class LostError(Exception):
    """Another rank does not answer any more."""


class RankFailedError(Exception):
    """Other ranks have failed; ``outcome`` is their outcome and the reason, alike on all ranks."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(": ".join(outcome))
        self.outcome = outcome


@contextmanager
def _together() -> Iterator[None]:
    """A block in which ranks wait for one another."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"{LOST} ({' '.join(str(error).split())[:MOST_WORDS]})") from error


Outcome = tuple[str, str]
"""An outcome of the record, and its reason."""


class Failure(NamedTuple):
    """How a rank failed, and as which of the ranks that failed in the same case, counted from 1."""

    order: int
    outcome: Outcome


class Ranks:
    """All ranks of a session: what they measure goes over one group, and what they agree on over another.

    They agree over Gloo, in the default group, which no case touches.

    Attributes:
        device: "cpu" or "cuda".
        rank: The number of this one.
        count: How many there are.
        group: What is measured goes over it: over NCCL on cards, over Gloo on CPUs. A rank that fails inside
            a collective leaves the others waiting there; over Gloo they are set free, and the group is made
            anew.
    """

    def __init__(self, device: str, store: Any, limit_s: float) -> None:
        """The ranks of the default group.

        Args:
            device: "cpu" or "cuda".
            store: One that all ranks share.
            limit_s: The time limit of a case. Over Gloo a rank waits half as long for another one, so that
                what one of them held up is known to all within the limit.
        """
        self.device, self.rank, self.count = device, dist.get_rank(), dist.get_world_size()
        # A connection of its own: a thread asks it while another one waits for ranks.
        self._store = dist.PrefixStore("failures", store).clone()  # type: ignore[attr-defined]
        self._limit_s, self._failed_cases = limit_s, 0
        self.group = self._new_group()

    @classmethod
    def meet(cls, device: str, limit_s: float) -> Ranks:
        """Join the ranks that torchrun started.

        Args:
            device: "cpu" or "cuda".
            limit_s: The time limit of a case.

        Raises:
            InputError: torchrun did not start this process, or a rank has no card of its own.
        """
        if missing := [name for name in STARTED_BY_TORCHRUN if name not in os.environ]:
            raise InputError(
                f"distributed measures one process a rank, and {missing[0]} is not set, so nobody started "
                f"several; start it with {HOW}"
            )
        if device == "cuda":
            local, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= cards:
                raise InputError(
                    f"rank {local} of this host has no card; it has {cards}, start as many ranks"
                )
            torch.cuda.set_device(local)
        limit = timedelta(seconds=limit_s)
        store, rank, count = next(rendezvous("env://", timeout=limit))
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=limit)
        return cls(device, store, limit_s)

    def _new_group(self) -> Any:
        backend, limit_s = ("nccl", self._limit_s) if self.device == "cuda" else ("gloo", self._limit_s / 2)
        return dist.new_group(backend=backend, timeout=timedelta(seconds=limit_s))

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def backend(self) -> str:
        return dist.get_backend(self.group)

    def part(self) -> None:
        """Leave the others."""
        dist.destroy_process_group()

    def same(self, value: Any) -> Any:
        """The value of the first rank, on all."""
        found = [value]
        with _together():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def every(self, value: Any) -> list[Any]:
        """The values of all ranks, on all, in their order.

        Raises:
            RankFailedError: Another rank came here with `fail` instead.
            LostError: Another rank does not answer.
        """
        told = self._meet((None, value))
        if any(failure for failure, _ in told):
            self._let_go()
            raise RankFailedError(self._agreed(told))
        return [one for _, one in told]

    def fail(self, outcome: Outcome) -> Outcome:
        """Tell the others of an outcome and its reason; returns that of the rank that failed first.

        Others wait in `every`, or for this one in a collective of what is measured. Over Gloo that fails when
        this rank lets go of the group, or after half the time limit of a case where a collective that nobody
        waits for any more still holds it; then they come here as well.

        Raises:
            LostError: Another rank does not answer.
        """
        order = self._store.add(f"count-{self._failed_cases}", 1)
        if order == 1:
            self._store.set(self._key, self.failed(outcome))
        self._let_go()
        return self._agreed(self._meet((Failure(order, outcome), None)))

    def failed(self, outcome: Outcome) -> str:
        """That this rank failed, and why."""
        kind, words = outcome
        return f"rank {self.rank} failed ({words if kind == 'failed' else ': '.join(outcome)})"

    @property
    def _key(self) -> str:
        return f"first-{self._failed_cases}"

    def cause(self) -> str | None:
        """Which rank has failed first in the case that is measured, and why; None where none has."""
        try:
            return self._store.get(self._key).decode() if self._store.check([self._key]) else None
        except RuntimeError:  # it went with the process that kept it
            return None

    def _let_go(self) -> None:
        """Close this rank's connections of the group, once nothing refers to it any more.

        Not over NCCL, whose kernels on the card would have to be aborted.
        """
        if self.group is not None and self.backend == "gloo":
            group, self.group = self.group, None
            dist.destroy_process_group(group)
            del group
            gc.collect()

    def _agreed(self, told: Sequence[tuple[Failure | None, Any]]) -> Outcome:
        """The outcome of a case that ranks failed in, with a group for the next one."""
        with _together():
            self.group = self.group or self._new_group()
        self._failed_cases += 1
        return _first([failure for failure, _ in told])

    def slowest(self, seconds: Sequence[float]) -> list[float]:
        """The time of each round on the rank that took longest, in seconds."""
        return [max(times) for times in zip(*self.every(list(seconds)), strict=True)]

    def _meet(self, value: tuple[Failure | None, Any]) -> list[tuple[Failure | None, Any]]:
        found: list[Any] = [None] * self.count
        with _together():
            dist.all_gather_object(found, value)
        return found

    def line_up(self, token: Tensor) -> None:
        """Return on all ranks at about the same time, with their devices idle."""
        self.every(None)  # a rank that has failed does not come to the barrier
        if self.device == "cuda":
            dist.all_reduce(token, group=self.group)
            torch.cuda.synchronize()
        else:
            dist.barrier(group=self.group)

    def meet_devices(self, token: Tensor) -> None:
        """Let no card go on before all have come here; hosts do not wait."""
        dist.all_reduce(token, group=self.group)


def _first(told: Sequence[Failure | None]) -> Outcome:
    """The outcome of the rank that failed first, with its number unless all have failed alike."""
    failed = {rank: one for rank, one in enumerate(told) if one}
    rank = min(failed, key=lambda one: failed[one].order)
    kind, words = failed[rank].outcome
    alike = len(failed) == len(told) and len({one.outcome for one in failed.values()}) == 1
    return kind, words if alike else f"rank {rank}: {words}"
