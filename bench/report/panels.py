# SPDX-License-Identifier: Apache-2.0
"""A plot's panels and legend, laid out by the inch so that nothing covers anything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from bench.cells import title
from bench.report import style
from bench.report.figure import clean

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Plot

WIDTH_IN = 6.0
FONT_PT = 11.0

_LINE_IN = 0.235
_EDGE_IN = 0.08
_KEY_IN = 0.42
_LONGEST = 30


@dataclass
class Sheet:
    """A plot in the making: panels row by row, each with a title, under one legend.

    title: above everything. legend: what is drawn, a handle and its words. heights_in: of each
    row's data area. x_label: below all panels; y labels are the panels' own. beside_in: room at
    the right of a panel for words that begin inside.
    """

    plot: Plot
    panels: list[Axes]
    columns: int
    heights_in: Sequence[float]
    title: str = ""
    legend: list[tuple[Artist, str]] = field(default_factory=list)
    x_label: str = ""
    beside_in: float = 0.0

    def rows(self) -> Iterator[list[Axes]]:
        """Return the panels of each row."""
        for start in range(0, len(self.panels), self.columns):
            yield self.panels[start : start + self.columns]

    def label(self, x: str, y: str = "") -> None:
        """Name the axes that all panels share: x below them, y at the left of each row."""
        self.x_label = x
        for row in self.rows():
            row[0].set_ylabel(y)


def sheet(
    count: int, *, columns: int = 2, heights_in: Sequence[float] = (), title: str = ""
) -> Sheet:
    """Return an empty sheet of panels; one alone gets the whole width. Call inside `style.rc`."""
    from matplotlib.figure import Figure

    across = min(columns, count)
    rows = -(-count // across)
    plot = Figure(figsize=(WIDTH_IN, 4))
    panels = [plot.add_axes((0.1, 0.1, 0.8, 0.8), label=str(place)) for place in range(count)]
    heights = tuple(heights_in) or (2.9 if across == 1 and count == 1 else 1.9,) * rows
    return Sheet(plot, panels, across, heights, title)


def arrange(found: Sheet) -> Plot:
    """Give every panel its place, write the legend, and return the plot with its height set."""
    lines = _legend_lines(found)
    head_in = _EDGE_IN + (0.3 if found.title else 0.0) + _LINE_IN * len(lines)
    head_in += 0.1 if lines else 0.0
    rows = list(found.rows())
    above = [0.3 if any(ax.get_title(loc="left") for ax in row) else 0.08 for row in rows]
    below = [_below_in(row) for row in rows]
    total_in = head_in + sum(above) + sum(below) + sum(found.heights_in) + _EDGE_IN
    total_in += 0.22 if found.x_label else 0.0
    found.plot.set_size_inches(WIDTH_IN, total_in)
    lefts = [
        max(_left_in(ax) for ax in found.panels[column :: found.columns])
        for column in range(found.columns)
    ]
    right_in, gap_in = max(0.26, min(found.beside_in, WIDTH_IN / 2)), 0.16
    free_in = WIDTH_IN - sum(lefts) - right_in - gap_in * (found.columns - 1)
    width_in = free_in / found.columns
    top_in = total_in - head_in
    for row, space, height_in, under in zip(rows, above, found.heights_in, below, strict=True):
        top_in -= space
        x_in = 0.0
        for ax, left_in in zip(row, lefts, strict=False):
            x_in += left_in
            ax.set_position(
                (
                    x_in / WIDTH_IN,
                    (top_in - height_in) / total_in,
                    width_in / WIDTH_IN,
                    height_in / total_in,
                )
            )
            _thin_out(ax, width_in)
            if label := ax.get_ylabel():
                ax.set_ylabel("")
                middle_in = top_in - height_in / 2
                found.plot.text(
                    (x_in - left_in + 0.19) / WIDTH_IN,
                    middle_in / total_in,
                    label,
                    rotation=90,
                    ha="center",
                    va="center",
                    color=style.MUTED,
                )
            x_in += width_in + gap_in
        top_in -= height_in + under
    if found.x_label:
        middle = (lefts[0] + (WIDTH_IN - right_in - lefts[0]) / 2) / WIDTH_IN
        y = (_EDGE_IN + 0.07) / total_in
        found.plot.text(middle, y, found.x_label, ha="center", color=style.MUTED)
    _write_head(found, lines, total_in)
    return found.plot


def name(label: str) -> str:
    """Return a mode's name as a plot has room for it."""
    text = clean(title(label)).strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


@lru_cache(maxsize=4096)
def text_width_in(text: str, size_pt: float = FONT_PT, *, bold: bool = False) -> float:
    """Return how wide a text is in the font that plots are laid out with."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size_pt, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(clean(text), font, ismath=False)
    return float(width) / 72


def chosen(values: Sequence[int], most: int) -> list[int]:
    """Return at most so many of some ascending values: both ends, the others evenly between."""
    if len(values) <= most:
        return list(values)
    places = {round(place * (len(values) - 1) / (most - 1)) for place in range(most)}
    return [values[place] for place in sorted(places)]


def _tick_labels(ax: Axes, which: str) -> list[str]:
    axis = ax.yaxis if which == "y" else ax.xaxis
    low, high = sorted(axis.get_view_interval())
    places = [each for each in axis.get_majorticklocs() if low <= each <= high]
    return list(axis.get_major_formatter().format_ticks(places))


def _thin_out(ax: Axes, width_in: float) -> None:
    """Leave out those of an x axis' labels that would run into another; both ends come first."""
    from matplotlib.ticker import FixedFormatter, FixedLocator

    low, high = ax.get_xlim()
    places = [float(each) for each in ax.get_xticks() if low <= each <= high]
    labels = list(ax.xaxis.get_major_formatter().format_ticks(places))
    ends = ax.transLimits.transform(ax.transScale.transform([(each, 1.0) for each in places]))
    spans = []
    for label, (share, _) in zip(labels, ends.tolist(), strict=True):
        half_in = max(text_width_in(clean(line)) for line in label.split("\n")) / 2
        spans.append((share * width_in - half_in, share * width_in + half_in + 0.1))
    kept: list[int] = []
    for at in dict.fromkeys([0, len(places) - 1, *range(len(places))]):
        low_in, high_in = spans[at]
        if all(high_in <= spans[other][0] or low_in >= spans[other][1] for other in kept):
            kept.append(at)
    ax.xaxis.set_major_locator(FixedLocator([places[at] for at in sorted(kept)]))
    ax.xaxis.set_major_formatter(FixedFormatter([labels[at] for at in sorted(kept)]))


def _left_in(ax: Axes) -> float:
    shown = ax.yaxis.get_tick_params().get("labelleft", True)
    labels = _tick_labels(ax, "y") if shown else []
    widest = max((text_width_in(clean(label)) for label in labels), default=0.0)
    return _EDGE_IN + widest + 0.1 + (0.26 if ax.get_ylabel() else 0.0)


def _below_in(row: Sequence[Axes]) -> float:
    lines = max((label.count("\n") + 1 for ax in row for label in _tick_labels(ax, "x")), default=0)
    return 0.08 + 0.2 * lines + 0.06


def _legend_lines(found: Sheet) -> list[list[tuple[float, Artist, str]]]:
    """Return the legend's lines, each an entry's place from the left, handle and words."""
    lines: list[list[tuple[float, Artist, str]]] = []
    x_in = WIDTH_IN
    for handle, words in found.legend:
        width_in = _KEY_IN + 0.08 + text_width_in(words) + 0.26
        if x_in + width_in > WIDTH_IN + 0.2 or not lines:
            lines.append([])
            x_in = _EDGE_IN
        lines[-1].append((x_in, handle, words))
        x_in += width_in
    return lines


def _write_head(
    found: Sheet, lines: Sequence[Sequence[tuple[float, Artist, str]]], total_in: float
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

    y_in = total_in - _EDGE_IN
    if found.title:
        found.plot.text(
            _EDGE_IN / WIDTH_IN, (y_in - 0.2) / total_in, found.title, weight="bold", size=12
        )
        y_in -= 0.3
    for line in lines:
        y_in -= _LINE_IN
        middle = (y_in + _LINE_IN / 2) / total_in
        for x_in, handle, words in line:
            if isinstance(handle, Line2D):
                middle_in = x_in + _KEY_IN / 2
                ends = [x_in / WIDTH_IN, middle_in / WIDTH_IN, (x_in + _KEY_IN) / WIDTH_IN]
                key = Line2D(ends, [middle] * 3, markevery=[1], transform=found.plot.transFigure)
                key.update_from(handle)
                key.set_transform(found.plot.transFigure)
                key.set_markevery([1])
                found.plot.add_artist(key)
            elif isinstance(handle, Patch):
                box = Rectangle(
                    (x_in / WIDTH_IN, middle - 0.065 / total_in),
                    _KEY_IN / WIDTH_IN,
                    0.13 / total_in,
                )
                box.update_from(handle)
                box.set_hatch(handle.get_hatch())
                box.set_transform(found.plot.transFigure)
                found.plot.add_artist(box)
            found.plot.text(
                (x_in + _KEY_IN + 0.08) / WIDTH_IN, middle, words, ha="left", va="center_baseline"
            )
