# SPDX-License-Identifier: Apache-2.0
"""How plots look: a colour, marker and line for each mode, and colours that the page decides on.

Every mode's colour has a contrast of at least 3 : 1 (WCAG 2.2, 1.4.11) on white and on the page's
dark paper, so that one plot does for both. That leaves little room for lightness, so what tells
two modes apart is the hue, after M. Okabe and K. Ito (Color Universal Design, 2008), and for who
cannot see it the marker and the line.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# What a page on paper has. In a plot for the page each is replaced by a CSS variable, so none may
# be a mode's colour.
INK = "#1b2026"
MUTED = "#59626c"
GRID = "#dbe0e5"
PAPER = "#ffffff"
PANEL = "#f5f7f9"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", PANEL: "--panel"}
DARK_PAPER = "#15181c"

FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.titlecolor": INK,
    "axes.labelsize": 11,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "hatch.linewidth": 1.2,
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "path.simplify": True,
}

Dashes = str | tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """A mode's colour, matplotlib marker, line style, and whether its marker is filled."""

    colour: str
    marker: str
    line: Dashes
    filled: bool = True


_DASHED: Dashes = (0.0, (4.0, 2.0))
_DOTTED: Dashes = (0.0, (1.2, 1.6))
_DASH_DOT: Dashes = (0.0, (5.0, 1.8, 1.2, 1.8))
_LONG: Dashes = (0.0, (8.0, 2.0))

_KNOWN: dict[str, Look] = {
    "direct": Look("#7a8087", "D", _DASHED),
    "xdp": Look("#009e73", "o", "-"),
    "nft": Look("#0072b2", "s", _LONG),
    "socat": Look("#d55e00", "^", _DASH_DOT),
    "legacy": Look("#9747e8", "X", _DOTTED),
    "xdp/generic": Look("#8f8300", "p", _DASHED, False),
    "legacy/generic": Look("#9747e8", "X", _DOTTED),
    "xdp/offload": Look("#c2417c", "h", _DASHED),
    "direct/native-offloads": Look("#978d84", "d", _DOTTED, False),
    "xdp/native-offloads": Look("#2f9ba3", "o", _DASHED, False),
    "nft/native-offloads": Look("#3a94cb", "s", _DOTTED, False),
    "socat/native-offloads": Look("#b07a00", "^", _DASHED, False),
    "xdp/generic/native-offloads": Look("#6b9400", "p", _DOTTED, False),
}
_REST = ("#a0694b", "#c2417c", "#5b7fd6", "#8a7a5c", "#c05a5a", "#5f8f3e")
_REST_MARKERS = ("v", "<", ">", "P", "*", "h")
_REST_LINES: tuple[Dashes, ...] = ("-", _DASHED, _DOTTED, _DASH_DOT, _LONG)


def look(label: str) -> Look:
    """Return how a mode looks in every plot, by its label; a twin as its original, but hollow."""
    original, again, _ = label.rpartition("/again")
    if again:
        first = look(original)
        return Look(first.colour, first.marker, _DOTTED, not first.filled)
    if label in _KNOWN:
        return _KNOWN[label]
    # Not hash(), which differs from one process to the next.
    number = int.from_bytes(hashlib.sha256(label.encode("utf-8", "replace")).digest()[:6])
    number, colour = divmod(number, len(_REST))
    number, marker = divmod(number, len(_REST_MARKERS))
    return Look(_REST[colour], _REST_MARKERS[marker], _REST_LINES[number % len(_REST_LINES)])


def colour(label: str) -> str:
    """Return a mode's colour as `#rrggbb`."""
    return look(label).colour


def marker(label: str) -> str:
    """Return a mode's marker in matplotlib's words."""
    return look(label).marker


def line_style(label: str) -> Dashes:
    """Return a mode's line style in matplotlib's words."""
    return look(label).line


def luminance(colour: str) -> float:
    """Return a colour's relative luminance, 0 to 1 (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def shades(colour: str, count: int) -> list[str]:
    """Return `count` shades of a colour, lightest first, all of them readable on both papers."""
    ends = [_towards(colour, "#ffffff"), _towards(colour, "#000000")]
    if count == 1:
        return [colour]
    return [_mixed(ends[0], ends[1], place / (count - 1)) for place in range(count)]


def _towards(colour: str, end: str) -> str:
    found = colour
    for step in range(1, 20):
        mixed = _mixed(colour, end, step / 20)
        if min(contrast(mixed, PAPER), contrast(mixed, DARK_PAPER)) < 3.1:
            break
        found = mixed
    return found


def _mixed(a: str, b: str, share: float) -> str:
    pairs = ((int(a[at : at + 2], 16), int(b[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round(x + (y - x) * share):02x}" for x, y in pairs)


@contextmanager
def rc() -> Iterator[None]:
    """Draw in the project's manner inside, whatever the user's own matplotlibrc says."""
    import matplotlib

    # A home that cannot be written to is no business of who reads a report.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks; in the page the reader's own fonts have it.
        warnings.filterwarnings("ignore", message="Glyph")
        matplotlib.rcdefaults()
        for key, value in _RC.items():
            matplotlib.rcParams[key] = value
        yield


_ORDER = ("direct", "xdp", "nft", "socat", "legacy")


def ranked(labels: Iterable[str]) -> list[str]:
    """Return modes once each in the order of every legend: known ones first, then by name."""

    def rank(label: str) -> tuple[int, str]:
        mode = label.partition("/")[0]
        return (_ORDER.index(mode) if mode in _ORDER else len(_ORDER)), label

    return sorted(set(labels), key=rank)
