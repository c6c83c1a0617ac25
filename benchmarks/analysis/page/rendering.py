"""A page as one HTML file, which holds all that it needs: its style, its scripts and its data."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bokeh.resources import INLINE
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.analysis.page.charts import MARKERS, dashes, plot
from benchmarks.analysis.page.content import Page
from benchmarks.analysis.serialization import json_value

NAME = "report.html"
PATHS = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "square": "M-4-4h8v8h-8z", "triangle": "M0-4.5l4.5 8h-9z",
    "inverted_triangle": "M0 4.5l4.5-8h-9z", "diamond": "M0-5l4 5l-4 5l-4-5z", "x": "M-4-4l8 8M-4 4l8-8",
    "hex": "M-4.5 0l2.2-4h4.6l2.2 4l-2.2 4h-4.6z", "plus": "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "star": "M0-5l1.4 3.4 3.6.2-2.8 2.3.9 3.6-3.1-2-3.1 2 .9-3.6-2.8-2.3 3.6-.2z",
}  # fmt: skip
"""Outlines of bokeh's markers, for the samples beside the names of kernels."""
MOST_TABS = 40
"""Nobody opens more, and each has its plots."""


def save_page(make: Callable[[], Page], folder: Path) -> tuple[list[str], list[str]]:
    """Make a page and write it as report.html; one that fails costs nothing else.

    Args:
        make: What makes its content.
        folder: An existing folder.

    Returns:
        The name of the file written, and if it failed a sentence about that without its full stop.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        text = page_html(make())
    except Exception as error:
        return [], [f"{NAME} could not be made ({type(error).__name__})"]
    (folder / NAME).write_text(text, encoding="utf-8")
    return [NAME], []


def page_html(page: Page) -> str:
    """The text of the file; every text of the page is shown as it is, whatever stands in it."""
    tabs = page.tabs[:MOST_TABS]
    plots: dict[str, Any] = {}
    for place, tab in enumerate(tabs):
        for index, chart in enumerate(tab.charts):
            name = f"plot-{place}-{index}"
            plots[name] = plot(chart, name)
    fields = list(dict.fromkeys(name for record in page.records for name in record))
    records = [[record.get(name) for name in fields] for record in page.records]
    data = {"plots": plots, "fields": fields, "records": records}
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            tabs=tabs,
            more=len(page.tabs) - len(tabs),
            data=script_json(data),
            library=_library(),
            style=Markup(_file("style.css")),
            glue=Markup(_file("glue.js")),
        )
    )


def script_json(value: Any) -> Markup:
    """A value as JSON inside of a script element, which none of its texts can end."""
    text = json.dumps(json_value(value), separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("benchmarks.analysis.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["marker"] = lambda look: PATHS.get(MARKERS.get(look.marker, ""), "")
    found.filters["dashes"] = lambda look: " ".join(map(str, dashes(look))) or "none"
    return found


@cache
def _library() -> Markup:
    """The script of bokeh, without its parts for widgets, formulas and WebGL, to a third of its size."""
    scripts: Sequence[str] = INLINE.js_raw
    return Markup(b64encode(gzip.compress(scripts[0].encode(), mtime=0)).decode())


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
