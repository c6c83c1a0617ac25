"""The laws of growth with the numbers of a series: which are tenable, and which is the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import numpy as np
import pandas as pd

from benchmarks.analysis.scaling.bends import FORMULA, Bend, CountedLaw, counted_law, find_bend
from benchmarks.analysis.scaling.fits import POWERS, Fit
from benchmarks.analysis.scaling.forms import Bent, Coefficients, Free, Linear, Mixed, Quadratic
from benchmarks.analysis.scaling.laws import LAWS, RESOLUTION, Judged, judge
from benchmarks.analysis.scaling.units import Floats, complete_block
from benchmarks.analysis.serialization import FLAT

Own = TypeVar("Own", bound=Coefficients, covariant=True)


@dataclass(frozen=True)
class FittedLaw(Generic[Own]):
    """A law with the numbers of one series.

    Attributes:
        formula: The law in letters, as in "c + a N²".
        coefficients: Its numbers.
        r2: Share of the variance of log t that it explains; None where there is none.
        relative_error: Root mean square of the log-errors; 0.05 is 5 %.
        tenable: Whether noise explains its misfit; None with a single unit.
        p_value: How probable so large a misfit is if the law is true; None with a single unit.
    """

    formula: str
    coefficients: Own = field(metadata=FLAT)
    r2: float | None
    relative_error: float
    tenable: bool | None
    p_value: float | None


@dataclass(frozen=True)
class Dominance:
    """From which length on the quadratic part of a N + b N² is the larger, N = a / b.

    Attributes:
        kind: "inside" the measured lengths, "below": at every one of them, "above": at none.
        n: That length; None unless inside, as nothing is extrapolated.
        low: Lower end of its 95 % interval over the units, no wider than the measured lengths.
        high: Upper end of it.
        lesser_share: The largest share of the time that the smaller part reaches at any length.
    """

    kind: Literal["inside", "below", "above"]
    n: float | None
    low: float | None
    high: float | None
    lesser_share: float


@dataclass(frozen=True)
class MixedLaw(FittedLaw[Mixed]):
    """The mixed law with its dominance, which is None where one of the parts is zero."""

    dominates_from: Dominance | None


@dataclass(frozen=True)
class BentLaw(FittedLaw[Bent]):
    """The law of a sliding window with its bend."""

    bends_at: Bend


@dataclass(frozen=True)
class Laws:
    """The laws of one series, None where there are too few lengths to judge one by.

    The bent one is there where the times or the FLOPs tell of a bend. `counted` names the law that the FLOPs
    follow, None where they are not known or follow another one.
    """

    linear: FittedLaw[Linear] | None
    quadratic: FittedLaw[Quadratic] | None
    mixed: MixedLaw | None
    free: FittedLaw[Free] | None
    bent: BentLaw | None = None
    counted: CountedLaw | None = None

    @property
    def known(self) -> Mapping[str, FittedLaw[Coefficients]]:
        """The laws that could be judged, by name."""
        every = {name: getattr(self, name) for name in (*LAWS, "bent")}
        return {name: law for name, law in every.items() if law is not None}

    @property
    def overhead(self) -> float | None:
        """The c in seconds of t = c + a N^p with all three free.

        None where it cannot be told: with fewer than 4 lengths, or where the power is at the edge of what is
        searched or without meaning, so that the law does not describe the times, or c and a N^p look alike.
        """
        power = None if self.free is None else self.free.coefficients.power
        if self.free is None or power is None or power in POWERS:
            return None
        return self.free.coefficients.c_s


def compare_laws(
    table: pd.DataFrame, unseen: float = 0.0, flops: pd.Series | None = None
) -> tuple[Laws, str | None]:
    """Fit the laws and judge each.

    Args:
        table: Seconds per unit (rows) and length (columns), as `unit_table` gives them.
        unseen: Standard deviation of what all units share, per log time.
        flops: FLOPs by length, without those of masked scores; they are exact.

    Returns:
        The laws, and the name of the best, which has the least error for its degrees of freedom; of those
        that err alike it is the simplest. None where no law can be judged.
    """
    block, _ = complete_block(table)
    judged = {
        name: judge(block, law, unseen)
        for name, law in LAWS.items()
        if block.size and block.shape[1] >= law.least_lengths
    }
    variance = float(np.log(block.to_numpy(dtype=float)).mean(axis=0).var()) if judged else 0.0

    def fitted(name: str, coefficients: Callable[[Fit], Own]) -> FittedLaw[Own] | None:
        return _fitted(LAWS[name].formula, judged[name], coefficients, variance) if name in judged else None

    lengths = block.columns.to_numpy(dtype=float)
    counted, counted_bend = _counted(flops)
    found = find_bend(block, judged, counted_bend, unseen) if judged else None
    mixed = fitted("mixed", lambda fit: Mixed(fit.c, fit.a))
    laws = Laws(
        linear=fitted("linear", lambda fit: Linear(fit.c, fit.a)),
        quadratic=fitted("quadratic", lambda fit: Quadratic(fit.c, fit.a)),
        mixed=None
        if mixed is None
        else MixedLaw(**vars(mixed), dominates_from=dominance(judged["mixed"], lengths)),
        free=fitted("free", lambda fit: Free(fit.c, fit.a, fit.power if fit.a else None)),
        bent=None if found is None else _bent(*found, variance),
        counted=counted,
    )
    errors = {name: one.adjusted_error for name, one in judged.items()}
    if found and found[1].kind == "inside":
        errors["bent"] = found[0].adjusted_error
    rounded = {name: float(f"{max(error, RESOLUTION):.2g}") for name, error in errors.items()}
    return laws, min(rounded, key=lambda name: rounded[name], default=None)


def _counted(flops: pd.Series | None) -> tuple[CountedLaw | None, float | None]:
    """The law that the FLOPs follow, and its bend."""
    if flops is None:
        return None, None
    return counted_law(flops.index.to_numpy(dtype=float), flops.to_numpy(dtype=float))


def _bent(judged: Judged, bend: Bend, place: float, variance: float) -> BentLaw:
    law = _fitted(FORMULA, judged, lambda fit: Bent(fit.c, fit.a, place), variance)
    return BentLaw(**vars(law), bends_at=bend)


def _fitted(
    formula: str, judged: Judged, coefficients: Callable[[Fit], Own], variance: float
) -> FittedLaw[Own]:
    fit, tenable = judged.fit, judged.tenable
    return FittedLaw(
        formula,
        coefficients(fit),
        r2=1 - fit.error**2 / variance if variance > 1e-12 else None,
        relative_error=fit.error,
        tenable=tenable,
        p_value=None if tenable is None else judged.p_value,
    )


def dominance(mixed: Judged, lengths: Floats) -> Dominance | None:
    """From which of these lengths on the quadratic part dominates; None where one of the parts is zero."""
    a, b = mixed.fit.c, mixed.fit.a
    if not a or not b:
        return None
    n, shortest, longest = a / b, float(lengths[0]), float(lengths[-1])
    shares = n / (n + lengths)
    lesser_share = float(np.minimum(shares, 1 - shares).max())
    if not shortest <= n <= longest:
        return Dominance("below" if n < shortest else "above", None, None, None, lesser_share)
    low, high = (
        None if end is None else float(np.clip(n * math.exp(end), shortest, longest))
        for end in mixed.interval(1)
    )
    return Dominance("inside", n, low, high, lesser_share)
