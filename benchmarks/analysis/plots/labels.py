"""Labels that find a free place in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation


@dataclass(frozen=True)
class Label:
    """A few words at a point; `offsets` are the places to try, in points from it, the best first."""

    text: str
    x: float
    y: float
    color: str
    offsets: Sequence[tuple[float, float]] = ((0, 9), (0, -10))
    align: str = "center"


class Labeller:
    """Writes labels on axes whose limits are final, where nothing is written and no line or marker passes."""

    def __init__(self, axes: Axes, lines: Iterable[tuple[Sequence[float], Sequence[float]]] = ()) -> None:
        figure = axes.figure
        assert isinstance(figure, Figure)
        # Asked without a renderer, every text would set up one of its own.
        self.axes, self.renderer = axes, RendererAgg(*figure.bbox.size, figure.dpi)  # type: ignore[no-untyped-call]
        paths = [
            axes.transData.transform(np.column_stack([np.asarray(x), np.asarray(y)]))
            for x, y in lines
            if len(x)
        ]
        self.points = np.vstack([_along(path) for path in paths]) if paths else np.empty((0, 2))
        self.taken: list[Any] = []

    def write(self, label: Label, *, must: bool = False) -> bool:
        """Write a label at its first free place; without one leave it out, unless it must be there."""
        text = self.axes.annotate(
            label.text, (label.x, label.y), label.offsets[0], textcoords="offset points", color=label.color,
            ha=label.align, va="center", fontsize=8, zorder=6,
        )  # fmt: skip
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        for offset in label.offsets:
            text.set_position(offset)
            if self._is_free(text):
                break
        else:
            if not must:
                text.remove()
                return False
            text.set_position(label.offsets[0])
        self.taken.append(text.get_window_extent(self.renderer))
        return True

    def _is_free(self, text: Annotation) -> bool:
        box, frame = text.get_window_extent(self.renderer).padded(3), self.axes.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 + 20 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        x, y = self.points.T
        crossed = (box.x0 < x) & (x < box.x1) & (box.y0 < y) & (y < box.y1)
        return bool(inside) and not crossed.any() and not any(box.overlaps(other) for other in self.taken)


def _along(path: np.ndarray) -> np.ndarray:
    """Points every few pixels along a line, so that a label between two markers meets it."""
    steps = np.linspace(0, len(path) - 1, 40 * len(path))
    return np.column_stack([np.interp(steps, np.arange(len(path)), column) for column in path.T])
