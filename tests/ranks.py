"""Checks that run in several processes over Gloo, all of them in one group, which takes seconds to start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed as dist

from tests.interpreter import quicker

ROOT = Path(__file__).parent.parent
LIMIT_S = 240


def outcomes(checks: str, ranks: int) -> Mapping[str, str]:
    """The trouble of each check, by its name; empty texts of those that pass on all ranks.

    Args:
        checks: ``module:NAME`` of a dictionary of functions without arguments, each of which all ranks run.
        ranks: How many processes.
    """
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.ranks", checks, str(ranks), folder]
        children = [
            subprocess.Popen([*command, str(rank)], cwd=ROOT, start_new_session=True) for rank in range(ranks)
        ]
        try:
            for child in children:
                child.wait(LIMIT_S)
        finally:
            for child in children:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        return {name: _told(Path(folder), name, ranks) for name in _named(checks)}


def _named(checks: str) -> Mapping[str, Callable[[], None]]:
    module, _, name = checks.partition(":")
    found: Mapping[str, Callable[[], None]] = getattr(import_module(module), name)
    return found


def _told(folder: Path, name: str, ranks: int) -> str:
    files = [folder / f"{name}-{rank}" for rank in range(ranks)]
    texts = [file.read_text() if file.exists() else "it ended before this check" for file in files]
    return "\n".join(f"rank {rank}: {text}" for rank, text in enumerate(texts) if text)


def main(checks: str, ranks: int, folder: str, rank: int) -> None:
    """Run the checks as one of its ranks; what goes wrong is written into the folder."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)  # type: ignore[attr-defined]
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=LIMIT_S / 3)
    )
    for name, check in _named(checks).items():
        text = ""
        try:
            with quicker():
                check()
        except Exception:
            text = traceback.format_exc()
        Path(folder, f"{name}-{rank}").write_text(text)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
