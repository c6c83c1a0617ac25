"""The live plots of kernels that ranks compute together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks.analysis import wording
from benchmarks.analysis.page.content import Axis, Chart, Line, Point
from benchmarks.analysis.report.distributed_text import share
from benchmarks.analysis.report.over_ranks import OverRanks, RankPoint
from benchmarks.analysis.report.page.points import length_axis
from benchmarks.analysis.report.pictures.distributed import RankView, shade

Value = Callable[[RankPoint], float | None]
SAYS = ("N", "median time", "speedup", "efficiency", "received by a rank", "exposed")
PANELS: tuple[tuple[str, Axis, Value, int], ...] = (
    ("Time of the slowest rank", Axis("median time", "s"), lambda point: point.median_s, 1),
    (
        "Speedup over one rank",
        Axis("time of one rank over it", log=False),
        lambda point: point.speedup,
        2,
    ),
    (
        "Bytes that a rank receives",
        Axis("bytes received in a call", "B"),
        lambda point: point.exchanged_bytes or None,
        2,
    ),
    (
        "Share of the time that the exchange adds",
        Axis("exposed share of the time", log=False, switched=False),
        lambda point: point.exposed_share,
        2,
    ),
)


def rank_charts(view: RankView) -> Iterator[Chart]:
    """Every plot of a view, a plot for each of its modes; none of what was not measured."""
    for title, axis, value, least in PANELS:
        for mode, kernels in view.kernels.items():
            lines = list(_lines(view, kernels, value, least))
            if lines:
                about = f"{wording.count(len(lines), 'line')}, one for each kernel and number of ranks."
                yield Chart(f"{title}, {mode}", about, length_axis(view.lengths), axis, lines, SAYS)


def _lines(view: RankView, kernels: Sequence[OverRanks], value: Value, least: int) -> Iterator[Line]:
    for one in kernels:
        for ranks in view.ranks:
            points = [
                Point(float(point.seq_len), y, _says(point))
                for point in one.at(ranks)
                if ranks >= least and (y := value(point)) is not None
            ]
            if points:
                look = shade(view, view.looks[one.kernel], ranks)
                name = f"{one.kernel}, {wording.count(ranks, 'rank')}"
                yield Line(name, look, points, (one.kernel,), filled=ranks > 1)


def _says(point: RankPoint) -> tuple[str, ...]:
    return (
        str(point.seq_len),
        wording.seconds(point.median_s),
        "-" if point.speedup is None else wording.times(point.speedup),
        wording.percent(point.efficiency),
        wording.amount(point.exchanged_bytes, "B"),
        share(point.exposed_share),
    )
