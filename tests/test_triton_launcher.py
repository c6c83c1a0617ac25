"""What Triton compiled is launched again as Triton would, by whatever launcher it has."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from attention.kernels.triton.launcher import relaunch

triton = pytest.importorskip("triton")


class Compiled:
    """A compiled kernel that writes down how it is launched."""

    function, packed_metadata = "function", "metadata"

    def __init__(self, run: Callable[..., None], seen: list[Any]) -> None:
        self.run, self.seen = run, seen

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments: self.seen.append((grid, *arguments))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    active = SimpleNamespace(get_current_stream=lambda device: f"stream of {device}")
    monkeypatch.setattr(triton.runtime.driver, "_active", active)
    return []


def known(seen: list[Any]) -> Compiled:
    def run(gridX: int, gridY: int, gridZ: int, stream: str, function: str, *arguments: Any) -> None:
        seen.append((gridX, gridY, gridZ, stream, function, *arguments))

    return Compiled(run, seen)


def test_the_known_launcher_is_called_directly_on_the_current_stream(seen: list[Any]) -> None:
    relaunch(known(seen), 7, (1.5, True))(2, [10, 20])
    assert seen == [(7, 1, 1, "stream of 2", "function", "metadata", None, None, None, 10, 20, 1.5, True)]


def test_who_listens_to_launches_hears_of_them(seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    again = relaunch(known(seen), 7, (1.5,))
    for hook in ("launch_enter_hook", "launch_exit_hook"):
        with monkeypatch.context() as listening:
            listening.setattr(triton.knobs.runtime, hook, lambda metadata: None)
            again(0, [10])
        assert seen.pop() == ((7, 1, 1), 10, 1.5)
        again(0, [10])
        assert seen.pop()[3] == "stream of 0"


def test_an_unknown_launcher_is_left_to_triton(seen: list[Any]) -> None:
    def run(stream: str, gridX: int, *arguments: Any) -> None:
        raise AssertionError

    relaunch(Compiled(run, seen), 7, (1.5,))(0, [10])
    assert seen == [((7, 1, 1), 10, 1.5)]
