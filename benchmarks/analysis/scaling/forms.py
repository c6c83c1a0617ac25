"""The coefficients of each law of growth, named by their units, and the terms that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.analysis.scaling.bends import log_scores
from benchmarks.analysis.scaling.units import Floats


class Term(NamedTuple):
    """A summand of a law, seconds · N^power, and how that power of N reads; empty for a constant."""

    seconds: float
    power: float
    growth: str


class Coefficients:
    """The coefficients of a law, each at least 0 and named by its unit."""

    @property
    def terms(self) -> tuple[Term, Term]:
        """The summands of the law."""
        raise NotImplementedError

    def seconds(self, lengths: Floats) -> Floats:
        """The times by this law."""
        first, second = (term.seconds * lengths**term.power for term in self.terms)
        return np.asarray(first + second, dtype=float)


@dataclass(frozen=True)
class Linear(Coefficients):
    """t = c + a N."""

    c_s: float
    a_s_per_token: float

    @property
    def terms(self) -> tuple[Term, Term]:
        return Term(self.c_s, 0, ""), Term(self.a_s_per_token, 1, "N")


@dataclass(frozen=True)
class Quadratic(Coefficients):
    """t = c + a N²."""

    c_s: float
    a_s_per_token2: float

    @property
    def terms(self) -> tuple[Term, Term]:
        return Term(self.c_s, 0, ""), Term(self.a_s_per_token2, 2, "N²")


@dataclass(frozen=True)
class Mixed(Coefficients):
    """t = a N + b N²."""

    a_s_per_token: float
    b_s_per_token2: float

    @property
    def terms(self) -> tuple[Term, Term]:
        return Term(self.a_s_per_token, 1, "N"), Term(self.b_s_per_token2, 2, "N²")


@dataclass(frozen=True)
class Free(Coefficients):
    """t = c + a N^p; without a second term there is no power."""

    c_s: float
    a_s_per_token_p: float
    power: float | None

    @property
    def terms(self) -> tuple[Term, Term]:
        power = self.power or 0.0
        return Term(self.c_s, 0, ""), Term(self.a_s_per_token_p, power, f"N^{power:.2f}")


@dataclass(frozen=True)
class Bent(Coefficients):
    """t = c + a N² / 2 up to N = w, and c + a (w N - w² / 2) beyond."""

    c_s: float
    a_s_per_token2: float
    bend: float

    @property
    def terms(self) -> tuple[Term, Term]:
        growth = f"N² up to N = {self.bend:.0f}, linear beyond"
        return Term(self.c_s, 0, ""), Term(self.a_s_per_token2 / 2, 2, growth)

    def seconds(self, lengths: Floats) -> Floats:
        """The times by this law."""
        return np.asarray(self.c_s + self.a_s_per_token2 * np.exp(log_scores(lengths, self.bend)))
