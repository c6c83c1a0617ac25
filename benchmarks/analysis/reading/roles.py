"""The roles of kernels: contenders, and the baselines that they are compared with."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from benchmarks.analysis.reading.fields import BASELINES
from benchmarks.analysis.reading.run_info import RunInfo

MOST_LETTERS = 10_000
"""Letters of a text beyond which it names no kernels."""


@dataclass(frozen=True)
class Roles:
    """Who is compared with whom.

    Attributes:
        against: Patterns of the names of baselines.
        own: A user's own kernels, which are contenders whatever their names.
        own_options: The options by which a session measures these.
    """

    against: tuple[str, ...] = BASELINES
    own: tuple[str, ...] = ()
    own_options: tuple[str, ...] = ()

    @classmethod
    def of(cls, *runs: RunInfo) -> Roles:
        """The roles that runs give to their kernels, all of them together."""
        return cls.together(
            cls(
                option_words(run.facts.get("against"), ",") or BASELINES,
                option_words(run.facts.get("own"), ","),
                option_words(run.facts.get("own_options"), " "),
            )
            for run in runs
        )

    @classmethod
    def together(cls, several: Iterable[Roles]) -> Roles:
        """The roles of several runs: what is a baseline in any of them is one."""
        every = list(several)
        against, own, options = (
            tuple(dict.fromkeys(word for one in every for word in getattr(one, field.name)))
            for field in fields(cls)
        )
        return cls(against or BASELINES, own, options)

    def is_baseline(self, kernel: str) -> bool:
        """Whether others are compared with this kernel."""
        return kernel not in self.own and any(fnmatchcase(kernel, pattern) for pattern in self.against)

    def order(self, kernel: str) -> tuple[bool, int, str]:
        """A user's own kernels first, in the order in which they were named."""
        own = kernel in self.own
        return not own, self.own.index(kernel) if own else 0, kernel

    def pairs(self, kernels: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Each contender with each baseline."""
        known = sorted(set(kernels), key=self.order)
        baselines = [kernel for kernel in known if self.is_baseline(kernel)]
        return product((kernel for kernel in known if kernel not in baselines), baselines)


USUAL = Roles()
"""The roles that names alone give: all others against the kernels of standard attention."""


def option_words(value: object, separator: str) -> tuple[str, ...]:
    """The words of a text, of options as a shell takes them apart; none of what is no text."""
    if not isinstance(value, str) or len(value) > MOST_LETTERS:
        return ()
    try:
        words = shlex.split(value) if separator == " " else value.split(separator)
    except ValueError:
        return ()
    return tuple(word for word in words if word)


def in_families(contender: str, baseline: str) -> bool:
    """Whether a pair is of linear and standard attention, whose roles JSON calls by the families."""
    return (contender.partition("-")[0], baseline.partition("-")[0]) == ("linear", "standard")


def role_words(pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """What contenders and baselines are called: linear and standard, where all of them are."""
    usual = all(in_families(*pair) for pair in pairs)
    return ("linear", "standard") if usual else ("contender", "baseline")


def named_in_json(found: dict[str, Any], contender: str, baseline: str) -> dict[str, Any]:
    """The object of a pair with `linear` and `standard`, which are null where the pair is of other families.

    `ahead_beyond` names the family there, and the role elsewhere.
    """
    built_in = in_families(contender, baseline)
    words: Mapping[Any, Any] = {"contender": "linear", "baseline": "standard"} if built_in else {}
    families = {"linear": contender if built_in else None, "standard": baseline if built_in else None}
    return {**families, **{name: _renamed(name, value, words) for name, value in found.items()}}


def _renamed(name: str, value: Any, words: Mapping[Any, Any]) -> Any:
    if name == "ahead_beyond":
        return words.get(value, value)
    if name in ("base", "head") and isinstance(value, dict):
        return {part: _renamed(part, one, words) for part, one in value.items()}
    return value
