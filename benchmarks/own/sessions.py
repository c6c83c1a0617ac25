"""A user's own functions: measured in a session beside others, and found by sessions in other folders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from benchmarks.analysis.reading.fields import InputError
from benchmarks.runs import measure
from benchmarks.worktrees import KERNELS, repository_of

FROM, PATH = "--kernel-from", "--kernel-path"
FILE = "try.json"


def measure_own(
    functions: Sequence[str],
    against: Sequence[str] | None,
    pytest_options: Sequence[str],
    folder: Path,
    say: Callable[[str], None],
) -> Path:
    """Measure functions in a fresh process, and return the file of the run.

    Args:
        functions: Where each is: ``my.py:my_attention``, or a module and a function.
        against: Patterns of the kernels that they are compared with, which are measured as well.
        pytest_options: What else the session is told.
        folder: Where the file goes.
        say: Takes a line of progress.

    Raises:
        InputError: One of them cannot be taken, or the session did not measure to its end.
    """
    beside = [word for pattern in against or () for word in ("--kernel", pattern, "--against", pattern)]
    names = ", ".join(function.rpartition(":")[2] for function in functions)
    others = ", ".join(against or ("the fastest standard and linear kernels of this machine",))
    say(f"Measuring {names} beside {others}: most of a minute on a CPU.")
    file = folder / FILE
    options = [
        *("--grid", "try", f"{PATH}={Path.cwd()}"),
        *(word for function in functions for word in (FROM, function)),
        *beside,
        *pytest_options,
    ]
    try:
        measure(file, options)
    except InputError:
        if said := _usage_error(file.with_suffix(".log")):
            raise InputError(said) from None
        raise
    return file


def _usage_error(log: Path) -> str | None:
    """What pytest said of its options, in the one sentence of this suite."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return said[-1] if said else None


def placed(pytest_options: Sequence[str], folder: Path) -> list[str]:
    """Options of a session that runs in another folder, where this one's files are found nevertheless."""
    chosen = any(option.partition("=")[0] == PATH for option in pytest_options)
    if chosen or not own_functions(pytest_options):
        return list(pytest_options)
    return [*pytest_options, f"{PATH}={folder}"]


def few_beside(pytest_options: Sequence[str]) -> list[str]:
    """Options that measure own functions beside a few kernels, unless they choose cases themselves."""
    chosen = {option.partition("=")[0] for option in pytest_options}
    few = own_functions(pytest_options) and chosen.isdisjoint(("--grid", "--kernel"))
    return [*(("--grid", "try") if few else ()), *pytest_options]


def own_functions(pytest_options: Sequence[str]) -> list[str]:
    """The words that name a user's own functions among options."""
    pairs = zip_longest(pytest_options, pytest_options[1:], fillvalue="")
    found = [option.partition("=")[2] or after for option, after in pairs if option.partition("=")[0] == FROM]
    return [word for word in found if word]


def _folder(pytest_options: Sequence[str]) -> Path | None:
    """Where the user's own files are."""
    named = (one.partition("=")[2] for one in pytest_options if one.startswith(f"{PATH}="))
    return next((Path(folder).resolve() for folder in named), None)


def _files(pytest_options: Sequence[str]) -> dict[str, str]:
    """The file of each of a user's own functions, below that folder."""
    places = {function: function.rpartition(":")[0] for function in own_functions(pytest_options)}
    return {
        function: place if place.endswith(".py") else place.replace(".", "/") + ".py"
        for function, place in places.items()
    }


def own_repository(pytest_options: Sequence[str], suite: Path) -> Path | None:
    """The repository of a user's own files; None where they are in none, or in that of this suite."""
    folder = _folder(pytest_options)
    found = repository_of(folder) if folder else None
    return None if found is None or suite.is_relative_to(found) else found


def own_content(pytest_options: Sequence[str], root: Path) -> tuple[str, ...]:
    """The user's own files, below the top folder of their repository."""
    folder = _folder(pytest_options)
    if folder is None or not folder.is_relative_to(root):
        return (KERNELS,)
    return tuple(
        dict.fromkeys(
            (folder / file).relative_to(root).as_posix() for file in _files(pytest_options).values()
        )
    )


def of_each_side(
    pytest_options: Sequence[str], root: Path, checkouts: Mapping[str, Path], current: Collection[str]
) -> dict[str, list[str]]:
    """The options of the sessions of both sides of a comparison, each with the files of its revision.

    A file that neither revision holds is the same for both.

    Args:
        pytest_options: What both are told; `PATH` is the last of them, where functions are the user's own.
        root: The user's tree.
        checkouts: By side the folder that stands for it in a revision.
        current: The sides that are the working tree with its changes.

    Raises:
        InputError: One revision alone holds a file.
    """
    told = {side: list(pytest_options) for side in checkouts}
    folder = _folder(pytest_options)
    if folder is None or not folder.is_relative_to(root):
        return told
    inside = {side: checkout / folder.relative_to(root) for side, checkout in checkouts.items()}
    for function, file in _files(pytest_options).items():
        holding = [side for side in checkouts if side in current or (inside[side] / file).is_file()]
        if not set(holding) - set(current):
            return told
        if missing := set(checkouts) - set(holding):
            raise InputError(
                f"--kernel-from {function}: {file} is in one of the revisions only, and the {min(missing)} "
                "has none; name a file that both have, or one outside of the repository"
            )
    for side in set(checkouts) - set(current):
        told[side] = [f"{PATH}={inside[side]}" if one.startswith(f"{PATH}=") else one for one in told[side]]
    return told
