"""Charts as plots of bokeh, which draws, zooms and tells points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bokeh import __version__
from bokeh.document import Document
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    LogTicker,
    NoOverlap,
    Range1d,
    Scatter,
    Segment,
    TapTool,
)
from bokeh.models import Line as Stroke
from bokeh.models.annotations import BoxAnnotation
from bokeh.plotting import figure

from benchmarks.analysis.page.content import Axis, Chart, Line, Point
from benchmarks.analysis.plots.looks import FULL

MARKERS = {
    "o": "circle", "8": "circle", "s": "square", "v": "inverted_triangle", ">": "inverted_triangle",
    "^": "triangle", "<": "triangle", "D": "diamond", "d": "diamond", "p": "hex", "h": "hex", "H": "hex",
    "X": "x", "P": "plus", "*": "star", "_": "dash", ".": "dot",
}  # fmt: skip
"""Markers of matplotlib, by which looks are named, as bokeh names them."""
INK, MUTED, GRID = "#222222", "#555555", "#e4e4e4"
WIDTH = 2
HEIGHT = 360
MOST_ROOM = 3
"""The factor by which bars may stretch an axis: two units alone can have intervals of many powers of ten."""
TICK = """
if (tick == 0) return "0";
// As many digits as tell neighbours apart.
const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : Infinity;
const digits = Math.min(9, Math.max(3, Math.ceil(Math.log10(Math.max(...ticks.map(Math.abs)) / step)) + 1));
if (unit == "" || unit == "x") return +tick.toPrecision(digits) + unit;
// Seconds and joules take small prefixes only, counts large ones only.
const small = unit == "s" || unit == "J";
const prefixes = small ? ["", "m", "µ", "n", "p"] : ["E", "P", "T", "G", "M", "k", ""];
const first = small ? 0 : 6;
const place = prefixes.findIndex((_, one) => Math.abs(tick) * 1.0001 >= 1000 ** (first - one));
const found = place < 0 ? prefixes.length - 1 : place;
return +(tick / 1000 ** (first - found)).toPrecision(digits) + " " + prefixes[found] + unit;
"""
"""The label of a tick in JavaScript, which knows the ticks of a zoomed axis only while it is read."""
TOOLBAR = "@media print { :host { visibility: hidden; } }"
RECORD = """
const record = cb_data.source.data.record[cb_data.source.selected.indices[0]];
if (record != null) document.dispatchEvent(new CustomEvent("record", {detail: record}));
cb_data.source.selected.indices = [];
"""
"""What a click on a point does: the page shows the record of its case."""


def plot(chart: Chart, name: str) -> dict[str, Any]:
    """A chart as what bokeh's script embeds, under the id of an element of the page.

    Its model holds as tags the ranges of its axes, logarithmic and linear, for the switch between them.
    """
    points = [point for line in chart.lines for point in line.points]
    spans = {"x": _ranges([point.x for point in points], chart.x), "y": _ranges(_heights(points), chart.y)}
    drawn = figure(
        x_axis_type="log" if chart.x.log else "linear",
        y_axis_type="log" if chart.y.log else "linear",
        x_range=_range(spans["x"], chart.x),
        y_range=_range(spans["y"], chart.y),
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset",
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        tags=[{**spans, "switched": {"x": chart.x.switched, "y": chart.y.switched}}],
    )
    # A finger that scrolls the page must not move the plot.
    drawn.toolbar.active_drag = None
    drawn.toolbar.logo = None
    drawn.toolbar.stylesheets = [TOOLBAR]
    for side, axis in (("xaxis", chart.x), ("yaxis", chart.y)):
        _style(getattr(drawn, side), axis)
    drawn.grid.grid_line_color = GRID
    for band in chart.bands:
        low, high = ("left", "right") if band.axis == "x" else ("bottom", "top")
        box: dict[str, Any] = {low: band.low, high: band.high, "line_color": None}
        drawn.add_layout(BoxAnnotation(fill_color=band.color, fill_alpha=0.15, **box))
    told = [renderer for line in chart.lines for renderer in _draw(drawn, line, len(chart.says))]
    tips = [("", "@name"), *((words, f"@say{index}") for index, words in enumerate(chart.says))]
    hover = HoverTool(renderers=told, tooltips=tips, point_policy="snap_to_data", visible=False)
    drawn.add_tools(hover, TapTool(renderers=told, callback=CustomJS(code=RECORD), visible=False))
    document = Document()
    document.add_root(drawn)
    # As `bokeh.embed.json_item` makes it, without its checks, which take longer than all else.
    return {
        "target_id": name,
        "root_id": drawn.id,
        "doc": document.to_json(deferred=False),
        "version": __version__,
    }


def _heights(points: Sequence[Point]) -> list[float]:
    """The values and the ends of their bars; a bar beyond all values by `MOST_ROOM` is cut there."""
    ys = [point.y for point in points]
    if not ys:
        return []
    bars = [end for point in points for end in (point.low, point.high) if end is not None]
    bottom, top = min(ys), max(ys)
    if bottom > 0:
        bars = [min(max(end, bottom / MOST_ROOM), top * MOST_ROOM) for end in bars]
    return ys + bars


def _range(spans: Mapping[str, tuple[float, float]], axis: Axis) -> Range1d:
    start, end = spans["log" if axis.log else "linear"]
    return Range1d(start=start, end=end, reset_start=start, reset_end=end)


def _ranges(values: Sequence[float], axis: Axis) -> dict[str, tuple[float, float]]:
    """The range of an axis around its values, if it is logarithmic and if it is linear."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    # Times and counts begin at 0, so that a linear axis shows their proportions.
    linear = (0.0 if axis.switched and low > 0 else low - room, high + room)
    if low <= 0:
        return {"log": linear, "linear": linear}
    room = max((high / low) ** 0.05, 1.1)
    return {"log": (low / room, high * room), "linear": linear}


def _style(axes: Any, axis: Axis) -> None:
    axes.axis_label = axis.label
    axes.axis_label_text_font_style = "normal"
    axes.axis_label_text_color = axes.major_label_text_color = INK
    axes.axis_line_color = axes.major_tick_line_color = MUTED
    axes.minor_tick_line_color = None
    axes.major_label_policy = NoOverlap(min_distance=6)
    if axis.ticks:
        axes.ticker = FixedTicker(ticks=list(axis.ticks))
        axes.major_label_overrides = dict(axis.ticks)
    else:
        axes.ticker = LogTicker() if axis.log else BasicTicker()
        axes.formatter = CustomJSTickFormatter(args={"unit": axis.unit}, code=TICK)


def _draw(drawn: Any, line: Line, says: int) -> Iterator[Any]:
    """Draw a line, its bars and its markers, which a pointer finds."""
    source = ColumnDataSource(data=_columns(line, says))
    color = line.look.color
    common = {"tags": list(line.kernels), "nonselection_glyph": None, "muted_glyph": None}
    if line.joined:
        stroke = Stroke(x="x", y="y", line_color=color, line_width=WIDTH, line_dash=dashes(line.look))
        drawn.add_glyph(source, stroke, selection_glyph=None, **common)
    if any(point.low is not None for point in line.points):
        bar = Segment(x0="x", x1="x", y0="low", y1="high", line_color=color, line_width=1.3)
        drawn.add_glyph(source, bar, selection_glyph=None, **common)
    if line.look.marker:
        kind = MARKERS.get(line.look.marker, "circle")
        mark = Scatter(
            x="x", y="y", size=8, marker=kind, line_color=color,
            fill_color=color if line.filled else None,
            line_width=2 if kind in ("x", "plus", "dash") else 1,
        )  # fmt: skip
        yield drawn.add_glyph(source, mark, selection_glyph=None, **common)


def _columns(line: Line, says: int) -> Mapping[str, list[Any]]:
    found: dict[str, list[Any]] = {
        "x": [point.x for point in line.points],
        "y": [point.y for point in line.points],
    }
    if any(point.low is not None for point in line.points):
        found["low"] = [point.y if point.low is None else point.low for point in line.points]
        found["high"] = [point.y if point.high is None else point.high for point in line.points]
    if line.look.marker:
        found["name"] = [line.name] * len(line.points)
        found["record"] = [point.record for point in line.points]
        for index in range(says):
            found[f"say{index}"] = [point.says[index] if point.says else "" for point in line.points]
    return found


def dashes(look: Any) -> list[int]:
    """The dashes and gaps of a look in pixels, none of a full line."""
    return [] if look.line == FULL else [max(2, round(WIDTH * part)) for part in look.line[1]]
