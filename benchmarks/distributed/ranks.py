"""The ranks of a session: how they meet, agree, and wait for one another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

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

    def __init__(self, outcome: tuple[str, str]) -> None:
        super().__init__(": ".join(outcome))
        self.outcome = outcome


@contextmanager
def _together() -> Iterator[None]:
    """A block in which ranks wait for one another."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"{LOST} ({' '.join(str(error).split())[:MOST_WORDS]})") from error


@dataclass(frozen=True)
class Ranks:
    """All ranks of a session, over NCCL on cards and over Gloo on CPUs.

    Attributes:
        device: "cpu" or "cuda".
        rank: The number of this one.
        count: How many there are.
        control: A group over Gloo in which they agree, apart from what is measured.
    """

    device: str
    rank: int
    count: int
    control: Any

    @classmethod
    def meet(cls, device: str, limit_s: float) -> Ranks:
        """Join the ranks that torchrun started.

        Args:
            device: "cpu" or "cuda".
            limit_s: No collective takes longer; the ones that are late are waited for no more.

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
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=limit)
        control = dist.new_group(backend="gloo", timeout=limit)
        return cls(device, dist.get_rank(), dist.get_world_size(), control)

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def backend(self) -> str:
        return dist.get_backend()

    def part(self) -> None:
        """Leave the others."""
        dist.destroy_process_group()

    def same(self, value: Any) -> Any:
        """The value of the first rank, on all."""
        found = [value]
        with _together():
            dist.broadcast_object_list(found, src=0, group=self.control)
        return found[0]

    def every(self, value: Any) -> list[Any]:
        """The values of all ranks, on all, in their order.

        Raises:
            RankFailedError: Another rank came here with `fail` instead.
            LostError: Another rank does not answer.
        """
        told = self._meet((None, value))
        if any(failed for failed, _ in told):
            raise RankFailedError(_worst([failed for failed, _ in told]))
        return [one for _, one in told]

    def fail(self, outcome: tuple[str, str]) -> tuple[str, str]:
        """Tell the others, wherever they wait in `every`, of an outcome and its reason; returns that of all.

        Raises:
            LostError: Another rank does not answer.
        """
        return _worst([failed for failed, _ in self._meet((outcome, None))])

    def slowest(self, seconds: Sequence[float]) -> list[float]:
        """The time of each round on the rank that took longest, in seconds."""
        return [max(times) for times in zip(*self.every(list(seconds)), strict=True)]

    def _meet(self, value: tuple[tuple[str, str] | None, Any]) -> list[tuple[tuple[str, str] | None, Any]]:
        found: list[Any] = [None] * self.count
        with _together():
            dist.all_gather_object(found, value, group=self.control)
        return found

    def line_up(self, token: Tensor) -> None:
        """Return on all ranks at about the same time, with their devices idle."""
        self.every(None)  # a rank that has failed does not come to the barrier
        if self.device == "cuda":
            dist.all_reduce(token)
            torch.cuda.synchronize()
        else:
            dist.barrier()


def _worst(told: Sequence[tuple[str, str] | None]) -> tuple[str, str]:
    """The outcome of the first rank that failed, with its number unless all have failed."""
    rank, (kind, words) = next((rank, one) for rank, one in enumerate(told) if one)
    return kind, words if all(told) else f"rank {rank}: {words}"
