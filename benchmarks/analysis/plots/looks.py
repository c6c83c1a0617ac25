"""How a kernel is drawn, by its name alone: one look in every picture of every report.

The family, the part of the name before the first "-", decides the range of colours and the kind of line.
Within it well-known kernels have chosen looks, so that colour-blind readers too tell apart those that meet
in a picture; any other kernel gets its colour, marker and line by the hash of its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

Style: TypeAlias = dict[str, Any]
"""Keyword arguments of matplotlib for a line and its markers."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a kernel."""

    color: str
    marker: str
    line: Any

    @property
    def drawn(self) -> Style:
        """The look as keyword arguments of matplotlib."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.line}


@dataclass(frozen=True)
class Palette:
    """Colours and lines of a family, for kernels without a look in `CHOSEN`."""

    colors: tuple[str, ...]
    lines: tuple[Any, ...]


FULL, DASHED = "-", (0, (5, 1.5))
PALETTES = {
    "standard": Palette(
        ("#B8860B", "#C2185B", "#A0522D", "#882255", "#D4A373", "#9A8F85", "#FF4F79", "#8A6F00"),
        (FULL, (0, (12, 1.5))),
    ),
    "linear": Palette(
        ("#44AA99", "#117733", "#5B6FA8", "#6A3D9A", "#00A5C8", "#1D3557", "#6AA800", "#8FA3FF"),
        (DASHED, (0, (2.5, 1.2)), (0, (6, 1.5, 1, 1.5))),
    ),
}
"""Warm colours and full lines for standard kernels, cold ones and dashes for linear ones."""
OTHERS = Palette(
    ("#AA4499", "#6B8E23", "#4A4A4A", "#B38CB4", "#556B2F", "#8B5FBF", "#A39B8B", "#7A3B69"),
    ((0, (8, 1.5, 1.5, 1.5)), (0, (1.5, 1.2)), (0, (8, 1.5, 1.5, 1.5, 1.5, 1.5))),
)
MARKERS = "osv^<>ph8DdXP*H"

BACKGROUND = Look("#C4C4C4", "", (0, (3, 1)))
"""The look of a kernel that is there for completeness."""

# Okabe and Ito's colours but their yellow, too pale on white; the rest was searched for. Any two are at least
# 13 apart in CIELAB, as normal, protanopic and deuteranopic eyes see them.
CHOSEN = {
    "standard-explicit": Look("#D55E00", "o", FULL),
    "standard-sdpa": Look("#000000", "s", FULL),
    "standard-sdpa-math": Look("#6C6C6C", "v", FULL),
    "standard-sdpa-flash": Look("#E69F00", "^", FULL),
    "standard-sdpa-efficient": Look("#7F4F24", "<", FULL),
    "standard-sdpa-cudnn": Look("#CC79A7", "p", FULL),
    "standard-flash-attn": Look("#FF8A65", ">", FULL),
    "standard-flash-attn-3": Look("#F0788C", "h", FULL),
    "standard-flash-attn-4": Look("#5C1A1B", "8", FULL),
    "linear-explicit": Look("#56B4E9", "D", DASHED),
    "linear-chunked": Look("#0072B2", "X", DASHED),
    "linear-native": Look("#332288", "H", DASHED),
    "linear-triton": Look("#009E73", "P", DASHED),
    "linear-fla-chunk": Look("#7A5CFF", "d", DASHED),
    "linear-fla-fused": Look("#0B4F4A", "*", DASHED),
}

# Beside all of those any two of these and of OWN are at least 12 apart.
ALSO_CHOSEN = {
    "linear-decay-explicit": Look("#004066", "D", DASHED),
    "linear-decay-chunked": Look("#2E678A", "X", DASHED),
    "linear-decay-native": Look("#1C5BC4", "H", DASHED),
    "linear-decay-triton": Look("#5C99FF", "P", DASHED),
    "linear-decay-fla": Look("#2E458A", "d", DASHED),
    "window-sdpa": Look("#661A00", "s", OTHERS.lines[0]),
    "window-flex": Look("#775540", "^", OTHERS.lines[0]),
    "gla-fla": Look("#0017B8", ">", OTHERS.lines[1]),
    "delta-fla": Look("#005966", "<", OTHERS.lines[1]),
    "kda-fla": Look("#0A47FF", "*", OTHERS.lines[1]),
}
OWN = (Look("#0A0AFF", "o", FULL), Look("#8F0047", "v", FULL), Look("#38A846", "p", FULL))
"""The looks of a user's own kernels, in their order; more of them get theirs by the hash of their names."""


def look(kernel: str) -> Look:
    """The look of a kernel, known or not, whichever others are drawn beside it."""
    name = kernel.partition(" ")[0]  # without what is said of it
    return CHOSEN.get(name) or ALSO_CHOSEN.get(name) or _hashed(name)


def looks(kernels: Iterable[str]) -> dict[str, Look]:
    """The look of each kernel, in the order of drawing: full lines first, which would hide dashed ones."""
    families, known = list(PALETTES), [*CHOSEN, *ALSO_CHOSEN]

    def place(kernel: str) -> tuple[int, int, str]:
        family = kernel.partition("-")[0]
        return (
            families.index(family) if family in families else len(families),
            known.index(kernel) if kernel in known else len(known),
            kernel,
        )

    return {kernel: look(kernel) for kernel in sorted(set(kernels), key=place)}


def _hashed(kernel: str) -> Look:
    """A look by a hash that is the same in every process, unlike Python's own."""
    palette = PALETTES.get(kernel.partition("-")[0], OTHERS)
    rest = int.from_bytes(blake2b(kernel.encode(), digest_size=8).digest())
    rest, color = divmod(rest, len(palette.colors))
    rest, marker = divmod(rest, len(MARKERS))
    return Look(palette.colors[color], MARKERS[marker], palette.lines[rest % len(palette.lines)])
