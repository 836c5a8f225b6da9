# SPDX-License-Identifier: Apache-2.0
"""Plots of a run's medians: cost of a hop, response against hops and size, rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.report import marks, series, style
from bench.report.document import Figure
from bench.report.figure import figure
from bench.report.panels import arrange, chosen, name, sheet
from bench.sentences import counted, interval
from bench.sentences import figure as said

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Plot

_MOST_PANELS = 6
_RESPONSE = ("response_us", "response_lo_us", "response_hi_us")
_RATES = (
    ("transactions_per_s", "transactions_lo_per_s", "transactions_hi_per_s"),
    ("throughput_mbps", "throughput_lo_mbps", "throughput_hi_mbps"),
)


def costs(frame: pd.DataFrame) -> Figure | None:
    """Return what a hop adds, bars by mode, a panel a size; None without a cost."""
    rows = frame[frame["concurrency"] == series.one_by_one(frame)]
    if rows.empty:
        return None
    everything = series.distinct(rows, "size_bytes")
    sizes = chosen(everything, _MOST_PANELS)
    shown = rows[rows["size_bytes"].isin(sizes)].reset_index(drop=True)
    concurrency = int(shown["concurrency"].iloc[0])
    unit = marks.time_unit(shown["slope_us"].abs())
    groups = [
        [_cost(row) for row in marks.rows(here.sort_values("slope_us"))]
        for size in sizes
        for here in [shown[shown["size_bytes"] == size]]
    ]
    with style.rc():
        head = "What one more hop adds to the response time"
        found = sheet(
            len(sizes), columns=1, heights_in=[0.38 * len(each) for each in groups], title=head
        )
        log, low, high = _bar_axis(groups, [*shown["slope_us"], *shown["lo_us"], *shown["hi_us"]])
        found.beside_in = marks.beside_in(groups)
        marks.scale(found.panels, "x", [low, high], unit, log=log)
        for ax, size, group in zip(found.panels, sizes, groups, strict=True):
            ax.set_title(f"{size:,} bytes, {series.at_a_time(concurrency)}")
            marks.bars(ax, group, log=log, low=low, high=high)
        found.label(f"{unit.name} per hop" + (" (logarithmic axis)" if log else ""))
        caption = (
            "What one more hop adds to the response time, in µs: slope of the least-squares line "
            "through response time over hops, by block. "
            + series.n_words(shown["n"], shown["lo_us"], "block")
            + (" The axis is logarithmic." if log else "")
            + series.left_out(everything, sizes, "sizes")
        )
        return figure("per-hop", "Cost of a hop", arrange(found), _costs_alt(shown), caption, shown)


def hops(frame: pd.DataFrame) -> Figure | None:
    """Return response time against hops, a panel a size; None without figures."""
    rows = frame[frame["concurrency"] == series.one_by_one(frame)]
    if not (rows["hops"] > 0).any():
        return None
    everything = series.distinct(rows, "size_bytes")
    sizes = chosen(everything, _MOST_PANELS)
    shown = rows[rows["size_bytes"].isin(sizes)].reset_index(drop=True)
    values = [value for column in _RESPONSE for value in shown[column]]
    unit = marks.time_unit(values)
    with style.rc():
        found = sheet(len(sizes))
        marks.counts(found.panels, series.distinct(shown, "hops"), 7 if len(sizes) > 1 else 14)
        log = marks.scale(found.panels, "y", values, unit)
        for ax, size in zip(found.panels, sizes, strict=True):
            ax.set_title(f"{size:,} bytes")
            for label, each in series.by_label(shown[shown["size_bytes"] == size]):
                marks.curve(ax, each, ("hops", *_RESPONSE), marks.line(label))
                if set(each["hops"]) == {0}:
                    _level(ax, label, each)
        found.legend = [(marks.line(each), name(each)) for each in style.ranked(shown["label"])]
        found.label("hops", f"response time, {unit.name}")
        caption = (
            f"Response time against hops, {series.at_a_time(int(shown['concurrency'].iloc[0]))}. "
            + series.n_words(shown["n"], shown["response_lo_us"])
            + " What has no hop is a dashed line across."
            + (" The axis of time is logarithmic." if log else "")
            + series.left_out(everything, sizes, "sizes")
        )
        alt = f"Response time against hops: {_ends(shown, 'hops', 'hop')}."
        return figure("hops", "Response time against hops", arrange(found), alt, caption, shown)


def size(frame: pd.DataFrame) -> Figure | None:
    """Return response time against size, a panel a hop count, the most first; None for one size.

    A hop count that was measured with one size has no panel where others have several.
    """
    rows = frame[frame["concurrency"] == series.one_by_one(frame)]
    forwarded = rows[rows["hops"] > 0]
    counts = series.distinct(forwarded if len(forwarded) else rows, "hops")
    if len(series.distinct(rows, "size_bytes")) < 2:
        return None
    panels = chosen(_with_several(rows, "hops", "size_bytes", counts), _MOST_PANELS)
    shown = rows[rows["hops"].isin([0, *panels])].reset_index(drop=True)
    values = [value for column in _RESPONSE for value in shown[column]]
    unit = marks.time_unit(values)
    sizes = series.distinct(shown, "size_bytes")
    with style.rc():
        found = sheet(len(panels))
        marks.scale(found.panels, "x", sizes, log=True)
        marks.scale(found.panels, "y", values, unit, log=True)
        for ax, count in zip(found.panels, panels[::-1], strict=True):
            marks.sizes(ax, sizes, 3 if len(panels) > 1 else 5)
            ax.set_title(counted(count, "hop"))
            for label, each in series.by_label(shown[shown["hops"].isin([0, count])]):
                columns = ("size_bytes", *_RESPONSE)
                marks.curve(ax, each.sort_values("size_bytes"), columns, marks.line(label))
        found.legend = [(marks.line(each), name(each)) for each in style.ranked(shown["label"])]
        found.label("size of a response", f"response time, {unit.name}")
        caption = (
            "Response time against size, both axes logarithmic, "
            f"{series.at_a_time(int(shown['concurrency'].iloc[0]))}. "
            + series.n_words(shown["n"], shown["response_lo_us"])
            + series.left_out(counts, panels, "hop counts")
        )
        most = shown[shown["hops"].isin([0, panels[-1]])]
        alt = f"Response time against size, {counted(panels[-1], 'hop')}: "
        alt += f"{_ends(most, 'size_bytes', 'byte')}."
        return figure("size", "Response time against size", arrange(found), alt, caption, shown)


def concurrency(frame: pd.DataFrame) -> Figure | None:
    """Return rates against concurrency at the most hops, or bars where there is one concurrency.

    A size that was measured at one concurrency has no panel where others have several.
    """
    if frame.empty:
        return None
    most = int(frame["hops"].max())
    rows = frame[frame["hops"].isin([0, most])]
    everything = series.distinct(rows, "size_bytes")
    users = series.distinct(rows, "concurrency")
    several = _with_several(rows, "size_bytes", "concurrency", everything)
    sizes = chosen(several, 4 if len(users) > 1 else _MOST_PANELS)
    columns = ["label", "hops", "size_bytes", "concurrency", "n", *_RATES[0], *_RATES[1]]
    shown = rows[rows["size_bytes"].isin(sizes)][columns].reset_index(drop=True)
    with style.rc():
        plot = _rate_curves(shown, sizes, users) if len(users) > 1 else _rate_bars(shown, sizes)
        where = f"through {counted(most, 'hop')}" if most else "without a hop"
        across = " and without any" if most and (shown["hops"] == 0).any() else ""
        caption = (
            f"Transactions a second and payload in Mbit/s (10^6 bits), {where}{across}, "
            + ("against" if len(users) > 1 else "at the run's one")
            + " concurrency. "
            + series.n_words(shown["n"], shown["transactions_lo_per_s"])
            + series.left_out(everything, sizes, "sizes")
        )
        told = [
            f"{name(row.label)} {said(row.transactions_per_s)}/s and "
            f"{said(row.throughput_mbps)} Mbit/s at {row.size_bytes:,} bytes, "
            f"{series.at_a_time(row.concurrency)}"
            for row in marks.rows(shown[shown["concurrency"] == users[-1]])
        ]
        alt = f"Rates {where}: {series.listed(told)}."
        title = "Throughput and transactions a second against concurrency"
        return figure("concurrency", title, plot, alt, caption, shown)


def _rate_curves(shown: pd.DataFrame, sizes: list[int], users: list[int]) -> Plot:
    found = sheet(2 * len(sizes))
    for column, (columns, unit) in enumerate(
        zip(_RATES, ("transactions/s", "Mbit/s"), strict=True)
    ):
        panels = found.panels[column::2]
        marks.scale(panels, "y", [value for each in columns for value in shown[each]])
        for ax, size_bytes in zip(panels, sizes, strict=True):
            marks.scale([ax], "x", users, log=True)
            marks.ticks(ax, users, 5)
            ax.set_title(f"{marks.bytes_text(size_bytes)}: {unit}")
            for label, each in series.by_label(shown[shown["size_bytes"] == size_bytes]):
                rows = each.sort_values("concurrency")
                marks.curve(ax, rows, ("concurrency", *columns), marks.line(label))
    found.legend = [(marks.line(each), name(each)) for each in style.ranked(shown["label"])]
    found.label("connections at a time")
    return arrange(found)


def _rate_bars(shown: pd.DataFrame, sizes: list[int]) -> Plot:
    groups = []
    for size_bytes in sizes:
        here = shown[shown["size_bytes"] == size_bytes]
        groups.append([_rate(row) for row in marks.rows(here)])
    found = sheet(len(sizes), columns=1, heights_in=[0.38 * len(each) for each in groups])
    log, low, high = _bar_axis(groups, [value for each in _RATES[0] for value in shown[each]])
    found.beside_in = marks.beside_in(groups)
    marks.scale(found.panels, "x", [low, high], log=log)
    users = int(shown["concurrency"].iloc[0])
    for ax, size_bytes, group in zip(found.panels, sizes, groups, strict=True):
        ax.set_title(f"{size_bytes:,} bytes, {series.at_a_time(users)}")
        marks.bars(ax, group, log=log, low=low, high=high)
    found.label("transactions/s" + (" (logarithmic axis)" if log else ""))
    return arrange(found)


def _cost(row: marks.Row) -> marks.Bar:
    ends = None if math.isnan(row.lo_us) else (row.lo_us, row.hi_us)
    unit = marks.time_unit([abs(row.slope_us)])
    text = f"{said(row.slope_us / unit.size)} {unit.name}"
    more = interval([end / unit.size for end in ends]) if ends else ""
    return marks.Bar(row.label, name(row.label), row.slope_us, ends, text, more)


def _rate(row: marks.Row) -> marks.Bar:
    low, high = row.transactions_lo_per_s, row.transactions_hi_per_s
    ends = None if math.isnan(low) else (low, high)
    text, more = f"{said(row.transactions_per_s)}/s", f"{said(row.throughput_mbps)} Mbit/s"
    return marks.Bar(row.label, name(row.label), row.transactions_per_s, ends, text, more)


def _bar_axis(groups: list[list[marks.Bar]], ends: list[float]) -> tuple[bool, float, float]:
    """Return whether bars' axis is logarithmic, and its ends."""
    values = [bar.value for group in groups for bar in group]
    known = marks.finite([*values, *ends])
    top = max(known)
    if min(values) > 0 and max(values) / min(values) > marks.FAR_APART:
        above = [each for each in known if each > min(values) / 20]
        low = min(above) / 1.6
        return True, low, top * 1.1
    low = min(0.0, min(known) * 1.1)
    top = max(top, 0.0)
    return False, low, low + ((top - low) or 1.0) * 1.02


def _with_several(rows: pd.DataFrame, of: str, over: str, values: list[int]) -> list[int]:
    """Return those values of a column that have several of another's, all where none has."""
    kinds = rows.groupby(of)[over].nunique()
    return [each for each in values if kinds[each] > 1] or values


def _level(ax: marks.Axes, label: str, rows: pd.DataFrame) -> None:
    """Draw a dashed line across at what was measured without a hop."""
    value, low, high = (float(rows[column].iloc[0]) for column in _RESPONSE)
    look = style.look(label)
    ax.axhline(value, color=look.colour, linestyle=look.line, linewidth=1.5)
    if not math.isnan(low):
        ax.axhspan(low, high, color=look.colour, alpha=0.12, linewidth=0)


def _costs_alt(shown: pd.DataFrame) -> str:
    told = [
        f"{name(row.label)} {said(row.slope_us)} µs per hop"
        + (f" {interval((row.lo_us, row.hi_us))}" if not math.isnan(row.lo_us) else "")
        + f" at {row.size_bytes:,} bytes"
        for row in marks.rows(shown)
    ]
    return f"Bars of what a hop adds to the response time: {series.listed(told)}."


def _ends(shown: pd.DataFrame, column: str, noun: str) -> str:
    told = []
    groups = ["label"] if column == "size_bytes" else ["size_bytes", "label"]
    for _, rows in shown.groupby(groups, sort=False):
        ordered = rows.sort_values(column)
        first, last = ordered.iloc[0], ordered.iloc[-1]
        text = name(str(first["label"]))
        text += f" at {first['size_bytes']:,} bytes" if column == "hops" else ""
        text += f" {said(first['response_us'])} µs with {counted(int(first[column]), noun)}"
        if len(ordered) > 1:
            text += f" and {said(last['response_us'])} µs with {counted(int(last[column]), noun)}"
        told.append(text)
    return series.listed(told)
