"""The law of a sliding window: quadratic in N up to a bend, linear beyond it, and how the bend is found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, special

from benchmarks.analysis.scaling.exclusion import TEXTURE
from benchmarks.analysis.scaling.fits import INDIFFERENT, NEGLIGIBLE, Fit, fit_sum
from benchmarks.analysis.scaling.laws import LAWS, SIGNIFICANCE, Judged
from benchmarks.analysis.scaling.units import Floats, student_interval

FORMULA = "c + a N² up to w, linear beyond"
"""In full c + a N² / 2 up to N = w, and c + a (w N - w² / 2) beyond, which is smooth."""
EXACT = 0.005
"""The error up to which counts, which are exact, follow a law: their last terms are N, tiles and segments."""
SAME = 0.02
"""How far the bend of the line through the longest counts may be off the fitted one, which it replaces."""
CLEARLY = 2.0
"""How many times as much every law without a bend must err before a bend is found."""
BENDS_PER_DOUBLING, OFFSETS = 6, 41
"""The coarse search for a bend, whose best point is then refined."""
CountedLaw = Literal["linear", "quadratic", "mixed", "bent"]


class Bending(NamedTuple):
    """A fit of the law, and its bend."""

    fit: Fit
    bend: float


@dataclass(frozen=True)
class Bend:
    """Where growth turns from N² to N: at N = w.

    Attributes:
        kind: "inside" the measured lengths, as the times tell; "below": before every one of them, as the
            FLOPs tell; "untold": by the FLOPs it is inside, and the times do not show it.
        n: That length by the times; None unless inside, as nothing is extrapolated.
        low: Lower end of its 95 % interval over the units, no wider than the measured lengths.
        high: Upper end of it.
        counted_n: That length by the FLOPs without masked scores; None where they follow another law.
    """

    kind: Literal["inside", "below", "untold"]
    n: float | None
    low: float | None
    high: float | None
    counted_n: float | None


def log_scores(lengths: Floats, bend: float) -> Floats:
    """The log of f = N² / 2 up to the bend w, and w N - w² / 2 beyond: a window's scores, made smooth."""
    seen = np.minimum(lengths, bend)
    return np.asarray(np.log(seen * (lengths - seen / 2)), dtype=float)


def _slope_of_bend(lengths: Floats, bend: float) -> Floats:
    """How log f changes with log w: not at all up to the bend."""
    beyond = np.maximum(lengths - bend, 0)
    return beyond / (beyond + bend / 2)


def fit_bent(lengths: Floats, seconds: Floats, bend: float | None = None) -> Bending:
    """Fit t = c + a f(N; w) with c, a >= 0, so that the squares of the log-errors are least.

    Args:
        lengths: Ascending lengths in tokens.
        seconds: Their times.
        bend: The w; None lets it be free between the shortest and the longest length.
    """
    times = np.log(seconds)
    if bend is not None:
        return Bending(_fixed(lengths, seconds, bend), bend)
    found = []
    for constant in (False, True):
        start = _search(tuple(lengths.tolist()), times, constant)
        offset, place = _refine(lengths, times, *start)
        place = float(np.clip(place, math.log(lengths[0]), math.log(lengths[-1])))
        found.append(Bending(_fit(lengths, times, offset, math.exp(place)), math.exp(place)))
    return min(found, key=lambda one: one.fit.error + INDIFFERENT * one.fit.tangent.shape[1])


def _fixed(lengths: Floats, seconds: Floats, bend: float) -> Fit:
    """The fit at a given bend: by a change of variable, a line."""
    return fit_sum(np.exp(log_scores(lengths, bend)), seconds, 1)


def _fit(lengths: Floats, times: Floats, offset: float, bend: float) -> Fit:
    """The fit of a shape f + e^offset, where an offset of -inf leaves the constant away."""
    scores = log_scores(lengths, bend)
    shape = np.logaddexp(scores, offset)
    level = float((times - shape).mean())
    residuals, weight = times - shape - level, special.expit(offset - scores)
    columns = [np.ones_like(times), *([weight] if offset > -math.inf else [])]
    columns.append((1 - weight) * _slope_of_bend(lengths, bend))
    error = math.sqrt(float((residuals**2).mean()))
    return Fit(math.exp(level + offset), math.exp(level), 1.0, error, residuals, np.array(columns).T)


@lru_cache(maxsize=64)
def _grid(lengths: tuple[float, ...], constant: bool) -> tuple[Floats, Floats, Floats]:
    """Bends, offsets, and for each pair of them the shape log(f + e^offset), less its mean."""
    ends = math.log(lengths[0]), math.log(lengths[-1])
    places = np.linspace(*ends, 1 + math.ceil(BENDS_PER_DOUBLING * (ends[1] - ends[0]) / math.log(2)))
    scores = np.array([log_scores(np.array(lengths), bend) for bend in np.exp(places)])
    offsets = np.linspace(*_reach(scores), OFFSETS) if constant else np.array([-math.inf])
    shapes = np.logaddexp(scores[:, None], offsets[:, None])
    return places, offsets, shapes - shapes.mean(axis=2, keepdims=True)


def _reach(scores: Floats) -> tuple[float, float]:
    """The offsets between which neither term is negligible at every length."""
    return float(scores.min() - NEGLIGIBLE), float(scores.max() + NEGLIGIBLE)


def _search(lengths: tuple[float, ...], times: Floats, constant: bool) -> tuple[float, float]:
    """The best offset and log bend on a coarse grid."""
    places, offsets, shapes = _grid(lengths, constant)
    errors = ((times - times.mean() - shapes) ** 2).sum(axis=2)
    at_place, at_offset = divmod(int(errors.argmin()), len(offsets))
    return float(offsets[at_offset]), float(places[at_place])


def _refine(lengths: Floats, times: Floats, offset: float, place: float) -> tuple[float, float]:
    """The best offset and log bend near given ones."""
    constant = offset > -math.inf

    def residuals(shape: Floats) -> Floats:
        remains = times - np.logaddexp(
            log_scores(lengths, math.exp(shape[0])), shape[1] if constant else offset
        )
        return np.asarray(remains - remains.mean())

    def jacobian(shape: Floats) -> Floats:
        bend, level = math.exp(shape[0]), shape[1] if constant else offset
        weight = special.expit(level - log_scores(lengths, bend))
        columns = np.array([(1 - weight) * _slope_of_bend(lengths, bend), weight][: 1 + constant])
        return np.asarray((columns.mean(axis=1, keepdims=True) - columns).T)

    within = math.log(lengths[0]), math.log(lengths[-1])
    bounds = np.array([within, _reach(log_scores(lengths, lengths[-1]))][: 1 + constant]).T
    start = np.clip([place, offset][: 1 + constant], bounds[0] + 1e-9, bounds[1] - 1e-9)
    found = optimize.least_squares(residuals, start, jacobian, bounds=tuple(bounds), xtol=1e-10, ftol=1e-10).x
    return float(found[1]) if constant else offset, float(found[0])


def counted_law(lengths: Floats, counts: Floats) -> tuple[CountedLaw | None, float | None]:
    """The simplest law that counts follow, as they are exact, and the bend of a bent one.

    Args:
        lengths: Ascending lengths in tokens.
        counts: FLOPs at each; nan where they are not known.
    """
    known = np.isfinite(counts) & (counts > 0)
    x, y = lengths[known], counts[known]
    if len(x) < LAWS["free"].least_lengths:
        return None, None
    simple: tuple[CountedLaw, ...] = ("linear", "quadratic", "mixed")
    for name in simple:
        law = LAWS[name]
        if fit_sum(x, y / x**law.factor, law.power).error <= EXACT:
            return name, None
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
    # The scores of a window are a line beyond it, w N - w (w - 1) / 2.
    exact = float(1 - 2 * (y[-1] / slope - x[-1])) if slope > 0 else 0.0
    bending = fit_bent(x, y, exact if 1 <= exact < x[0] else None)
    if bending.fit.error > EXACT:
        return None, None
    is_line = 1 <= exact <= x[-2] and abs(math.log(exact / bending.bend)) < SAME
    return "bent", exact if is_line else bending.bend


def find_bend(
    block: pd.DataFrame, judged: Mapping[str, Judged], counted: float | None, unseen: float
) -> tuple[Judged, Bend, float] | None:
    """The bent law of a series, its bend, and the w by which it was fitted; None where nothing tells of one.

    The times tell of a bend where the law describes them, every law without a bend is untenable and errs
    twice as much, they grow faster than N before the bend, and two lengths or more lie on either side: one
    alone may be off for other reasons. Where only the FLOPs tell of it, the law is fitted with their bend.

    Args:
        block: Seconds per unit (rows) and length (columns), complete.
        judged: The other laws, fitted to it.
        counted: The bend of the FLOPs.
        unseen: Standard deviation of what all units share, per log time.
    """
    lengths, logs = block.columns.to_numpy(dtype=float), np.log(block.to_numpy(dtype=float))
    if len(lengths) < LAWS["free"].least_lengths:
        return None
    mean = logs.mean(axis=0)
    # The fit of a bend takes longer than all the others together, and most series need none.
    if all(one.tenable is False for one in judged.values()):
        free, bend = fit_bent(lengths, np.exp(mean))
        own = Judged(free, logs - mean, unseen)
        inside = lengths[1] <= bend <= lengths[-2]
        if inside and _shows(own, judged) and _outgrows(lengths, logs, bend, unseen):
            low, high = own.interval(free.tangent.shape[1] - 1)
            if low is not None and high is not None:
                ends = np.clip(bend * np.exp([low, high]), lengths[0], lengths[-1])
                return own, Bend("inside", bend, float(ends[0]), float(ends[1]), counted), bend
    if counted is None:
        return None
    fixed = Judged(fit_bent(lengths, np.exp(mean), counted).fit, logs - mean, unseen)
    kind: Literal["below", "untold"] = "below" if counted < lengths[0] else "untold"
    return fixed, Bend(kind, None, None, None, counted), counted


def _outgrows(lengths: Floats, logs: Floats, bend: float, unseen: float) -> bool:
    """Whether somewhere before the bend time grows faster than N: behind a floor of launches it does not."""
    steps = np.diff(np.log(lengths))
    slopes = (np.diff(logs, axis=1) / steps)[:, lengths[:-1] < bend]
    steepest = int(slopes.mean(axis=0).argmax())
    _, low, _ = student_interval(slopes[:, steepest], (2 * (unseen / float(steps[steepest])) ** 2, math.inf))
    return low is not None and low > 1


def _shows(own: Judged, judged: Mapping[str, Judged]) -> bool:
    """Whether these times are those of a bent law, and far from every law without a bend."""
    describes = own.fit.error <= TEXTURE or own.p_value >= SIGNIFICANCE
    return describes and all(one.adjusted_error > CLEARLY * own.adjusted_error for one in judged.values())
