# SPDX-License-Identifier: Apache-2.0
"""What plots are made of: curves with their intervals, bars with their values, axes of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report import style
from bench.report.panels import chosen, text_width_in

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes as Axes
    from matplotlib.lines import Line2D

Row = Any
"""One of a frame's `itertuples`."""

FAR_APART = 20.0
"""From this ratio of the largest to the smallest value on, an axis is logarithmic."""


@dataclass(frozen=True)
class Unit:
    """What an axis or a text counts in. size: how much of the data's own unit it is."""

    name: str
    size: float = 1.0

    def say(self, value: float) -> str:
        """Return a value, given in the data's unit, to about three digits with its unit."""
        return f"{number(value / self.size)} {self.name}"


PLAIN = Unit("")
MICROSECONDS, MILLISECONDS, SECONDS = Unit("µs"), Unit("ms", 1e3), Unit("s", 1e6)


def time_unit(values_us: Iterable[float]) -> Unit:
    """Return the unit in which all of some times, in µs, have few digits."""
    largest = max((value for value in values_us if math.isfinite(value)), default=0.0)
    if largest < 1e5:
        return MICROSECONDS
    return MILLISECONDS if largest < 1e8 else SECONDS


def number(value: float) -> str:
    """Return a value to about three digits."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.995 or not size else f"{value:.2g}"


def bytes_text(size_bytes: float) -> str:
    """Return a size with its unit, exact below 10,000 bytes: `624 B`, `159.7 kB`, `2.56 MB`."""
    if size_bytes < 9999.5:
        return f"{size_bytes:,.0f} B"
    size, unit = (size_bytes / 1e3, "kB") if size_bytes < 999_500 else (size_bytes / 1e6, "MB")
    return f"{size:.3g} {unit}" if size < 99.95 else f"{size:,.0f} {unit}"


def rows(frame: pd.DataFrame) -> Iterator[Row]:
    """Return a frame's rows, their columns as attributes."""
    yield from frame.itertuples()


def axis_number(value: float) -> str:
    """Return a tick's number: exact, as ticks are round."""
    return f"{value:,.6f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:.3g}"


def finite(values: Iterable[Any]) -> list[float]:
    """Return the values that are finite numbers."""
    return [float(each) for each in values if each is not None and math.isfinite(each)]


def scale(
    panels: Sequence[Axes],
    which: str,
    values: Iterable[Any],
    unit: Unit = PLAIN,
    log: bool | None = None,
    zero: bool = True,
) -> bool:
    """Give panels one axis that holds all values, and return whether it is logarithmic.

    which: `x` or `y`. log: None for logarithmic where values are far apart and all positive.
    zero: whether a linear axis begins there.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    known = finite(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    if log is None:
        log = low > 0 and high / low > FAR_APART
    log = log and low > 0
    if log:
        spread = max(high / low, 1.5)
        pad = spread**0.06
        low, high = low / pad, max(high, low * 1.5) * pad
    else:
        start = min(low, 0.0) if zero else low
        pad_size = 0.06 * ((high - start) or abs(high) or 1.0)
        low = start if zero and start == 0 else start - pad_size
        high += pad_size
    for ax in panels:
        if which == "x":
            ax.set_xscale("log" if log else "linear")
            ax.set_xlim(low, high)
        else:
            ax.set_yscale("log" if log else "linear")
            ax.set_ylim(low, high)
        axis = ax.xaxis if which == "x" else ax.yaxis
        axis.set_major_locator(
            LogLocator(base=10, subs=_steps(high / low), numticks=8) if log else MaxNLocator(5)
        )
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: axis_number(value / unit.size)))
    return log


def _steps(ratio: float) -> tuple[float, ...]:
    for least, steps in (
        (1500, (1.0,)),
        (40, (1.0, 3.0)),
        (8, (1.0, 2.0, 5.0)),
        (3, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)),
    ):
        if ratio > least:
            return steps
    return (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


def counts(panels: Sequence[Axes], values: Sequence[int], most: int = 8) -> None:
    """Give panels an x axis of whole numbers with a tick at each of some of the values."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = sorted(set(values))
    pad = 0.06 * ((ticks[-1] - ticks[0]) or 4)
    step = -(-len(ticks) // most)
    for ax in panels:
        ax.set_xlim(ticks[0] - pad, ticks[-1] + pad)
        ax.xaxis.set_major_locator(FixedLocator([float(each) for each in ticks[::step]]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: axis_number(value)))
        ax.grid(visible=False, axis="x")


def ticks(ax: Axes, values: Sequence[int], most: int) -> None:
    """Give an x axis ticks at some whole numbers: both ends, and some between."""
    from matplotlib.ticker import FixedLocator

    ax.xaxis.set_major_locator(FixedLocator([float(each) for each in chosen(values, most)]))


def sizes(ax: Axes, values: Sequence[int], most: int) -> None:
    """Give an x axis ticks at some sizes, in bytes, with their unit."""
    from matplotlib.ticker import FuncFormatter

    ticks(ax, values, most)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))


def line(label: str, colour: str | None = None, **changes: Any) -> Line2D:
    """Return a mode's line with its marker, as legends have it."""
    from matplotlib.lines import Line2D

    look = style.look(label)
    shown = colour or look.colour
    settings: dict[str, Any] = {
        "color": shown,
        "marker": look.marker,
        "linestyle": look.line,
        "markerfacecolor": shown if look.filled else style.PAPER,
        "markeredgecolor": style.PAPER if look.filled else shown,
        "markeredgewidth": 0.8 if look.filled else 1.5,
        "markersize": 6.5,
    }
    return Line2D([], [], **{**settings, **changes})


def curve(ax: Axes, rows: pd.DataFrame, columns: Sequence[str], like: Line2D) -> None:
    """Draw a line through rows, with a band and whiskers where they have an interval.

    columns: the names of x, y and the interval's ends, which may be missing.
    """
    x, y, low, high = (rows[name].to_numpy(dtype=float) for name in columns)
    colour = like.get_color()
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    ax.vlines(x, low, high, color=colour, linewidth=1.6)
    (drawn,) = ax.plot(x, y)
    drawn.update_from(like)
    drawn.set_transform(ax.transData)
    drawn.set_clip_on(False)


@dataclass(frozen=True)
class Bar:
    """A bar: what it is of, its value and interval, and what is written behind it."""

    label: str
    name: str
    value: float
    ends: tuple[float, float] | None
    text: str
    more: str = ""


def bars(
    ax: Axes, found: Sequence[Bar], *, log: bool, low: float, high: float, hollow: bool = False
) -> None:
    """Draw bars from the top down on an axis from low to high, with their words behind them.

    hollow: whether only intervals and words are drawn, the bars being drawn otherwise.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator

    places = list(range(len(found)))[::-1]
    base = low if log else 0.0
    ax.set_ylim(-0.6, len(found) - 0.4)
    for place, bar in zip(places, found, strict=True):
        if not hollow:
            ax.barh(place, bar.value - base, left=base, height=0.56, color=style.colour(bar.label))
        end = bar.value
        if bar.ends:
            start, end = max(bar.ends[0], low), max(bar.ends[1], bar.value)
            ax.plot([start, end], [place, place], color=style.INK, linewidth=1.6)
            for edge in (start, bar.ends[1]):
                ax.plot([edge, edge], [place - 0.13, place + 0.13], color=style.INK, linewidth=1.6)
        said = ax.annotate(
            bar.text,
            (max(end, base), place),
            (7, 0),
            textcoords="offset points",
            va="center_baseline",
            weight="bold",
            annotation_clip=False,
        )
        said.set_in_layout(False)
        if bar.more:
            ax.annotate(
                bar.more,
                (max(end, base), place),
                (7 + 72 * text_width_in(bar.text, bold=True) + 7, 0),
                textcoords="offset points",
                va="center_baseline",
                color=style.MUTED,
                annotation_clip=False,
            )
    ax.yaxis.set_major_locator(FixedLocator([float(each) for each in places]))
    ax.yaxis.set_major_formatter(FixedFormatter([bar.name for bar in found]))
    ax.tick_params(axis="y", length=0, labelcolor=style.INK)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    ax.set_xlim(low, high)


def beside_in(groups: Iterable[Sequence[Bar]]) -> float:
    """Return how much room the words behind bars take."""
    words = (
        text_width_in(bar.text, bold=True) + text_width_in(f" {bar.more}")
        for group in groups
        for bar in group
    )
    return max(words, default=0.0) + 0.25
