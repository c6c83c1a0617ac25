"""Pictures drawn in the style of this suite, whatever the user's own, and saved one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.analysis.plots.style import DPI, RC

Drawing = Callable[[], Figure | None]
MOST_PICTURES = 300
"""Nobody looks at more, and each takes about a second."""


def save_pictures(drawings: Mapping[str, Drawing], folder: Path) -> tuple[list[str], list[str]]:
    """Draw pictures, of which one that fails costs no other.

    Args:
        drawings: How each is drawn, by the name of its file; None of one that shows nothing.
        folder: An existing folder.

    Returns:
        The names of the files written, and a sentence, without its full stop, about each that failed.

    Raises:
        OSError: A file cannot be written.
    """
    written, failed = [], []
    for name, draw in islice(drawings.items(), MOST_PICTURES):
        try:
            with own_style():
                figure = draw()
                if figure is not None:
                    figure.savefig(folder / name, dpi=DPI)
                    written.append(name)
        except OSError:
            raise
        except Exception as error:
            (folder / name).unlink(missing_ok=True)
            failed.append(f"{name} could not be drawn ({type(error).__name__})")
    if len(drawings) > MOST_PICTURES:
        failed.append(f"{len(drawings) - MOST_PICTURES} of {len(drawings)} pictures were not drawn")
    return written, failed


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's own defaults with the style of this suite, and without its warnings.

    Texts are drawn as they are: a name with two dollar signs is no formula.
    """
    defaults = {name: value for name, value in mpl.rcParamsDefault.items() if "backend" not in name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mpl.rc_context({**defaults, **RC, "text.parse_math": False}):
            yield
