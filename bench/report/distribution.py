# SPDX-License-Identifier: Apache-2.0
"""Plots of single connections: distributions of response time, and connect time against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.report import marks, series, style
from bench.report.document import Figure
from bench.report.figure import figure
from bench.report.panels import arrange, chosen, name, sheet
from bench.report.spread import Spread
from bench.sentences import counted
from bench.sentences import figure as said

if TYPE_CHECKING:
    import pandas as pd

_MOST_PANELS = 6
_MOST_DOTS = 1500
_MARKED = (0.5, 0.9, 0.99)
_AT = ("label", "hops", "size_bytes", "concurrency")


def distributions(spread: Spread) -> list[Figure]:
    """Return distributions of response times, a panel a hop count, for some sizes and loads.

    With the fewest connections at a time they are the size with the most hop counts, and the
    largest; with the most connections, the first of these again. The smallest of equals.
    """
    cells = spread.cells
    if cells.empty:
        return []
    users = series.distinct(cells, "concurrency")
    few, many = (cells[cells["concurrency"] == each] for each in (users[0], users[-1]))
    wanted = [
        (_most_hops(few), users[0]),
        (int(few["size_bytes"].max()), users[0]),
        (_most_hops(many), users[-1]),
    ]
    several = len(cells.groupby(["size_bytes", "concurrency"])) > 1
    return [_distribution(spread, *axis, more=several) for axis in dict.fromkeys(wanted)]


def _most_hops(cells: pd.DataFrame) -> int:
    counts = {
        size: cells[cells["size_bytes"] == size]["hops"].nunique()
        for size in series.distinct(cells, "size_bytes")
    }
    return max(counts, key=lambda size: (counts[size], -size))


def connects(spread: Spread) -> Figure | None:
    """Return connect time against response time: medians of samples and cells; None without."""
    cells, samples = spread.cells, spread.samples
    users = series.one_by_one(cells)
    cells, samples = (each[each["concurrency"] == users] for each in (cells, samples))
    if cells.empty:
        return None
    everything = series.distinct(cells, "size_bytes")
    panels = chosen(everything, 4)
    cells, samples = (each[each["size_bytes"].isin(panels)] for each in (cells, samples))
    thinned = samples.iloc[:: -(-len(samples) // _MOST_DOTS)]
    shown = _one_frame(cells, thinned)
    with style.rc():
        found = sheet(len(panels), heights_in=(2.9,) if len(panels) == 1 else ())
        across = [*shown["response_us"], *cells["response_low_us"], *cells["response_high_us"]]
        up = [*shown["connect_us"], *cells["connect_low_us"], *cells["connect_high_us"]]
        x_unit, y_unit = marks.time_unit(across), marks.time_unit(up)
        logs = marks.scale(found.panels, "x", across, x_unit, log=True)
        logs &= marks.scale(found.panels, "y", up, y_unit, log=True)
        for ax, size_bytes in zip(found.panels, panels, strict=True):
            ax.set_title(f"{size_bytes:,} bytes")
            for label in style.ranked(cells["label"]):
                _cloud(ax, thinned[_is(thinned, label, size_bytes)], label)
            for label in style.ranked(cells["label"]):
                _path(ax, cells[_is(cells, label, size_bytes)], label)
        found.legend = [(marks.line(each), name(each)) for each in style.ranked(cells["label"])]
        found.label(f"response time, {x_unit.name}", f"connect time, {y_unit.name}")
        left = f", every {-(-len(samples) // _MOST_DOTS)}th" if len(thinned) < len(samples) else ""
        caption = (
            "Time until established against time until the last byte, both from the SYN, "
            f"{series.at_a_time(users)}{'; both axes are logarithmic' if logs else ''}. "
            f"Faint dots: medians of n = {counted(len(samples), 'sample')}{left}. Marks: a cell's "
            f"median over all its connections (n = {_range(cells['connections'])}), joined from "
            "the fewest hops to the most; whiskers hold its middle 90 % of connections."
            + series.left_out(everything, panels, "sizes")
        )
        most = cells.loc[cells.groupby(["label", "size_bytes"])["hops"].idxmax()]
        told = [
            f"{name(row.label)} at {row.size_bytes:,} bytes, {counted(row.hops, 'hop')}: "
            f"connected after {said(row.connect_median_us)} µs of {said(row.response_median_us)}"
            for row in marks.rows(most)
        ]
        alt = f"Connect time against response time, medians: {series.listed(told)}."
        title = "Connect time against response time"
        return figure("connect", title, arrange(found), alt, caption, shown)


def _distribution(spread: Spread, size_bytes: int, users: int, more: bool) -> Figure:
    cells = spread.cells
    here = cells[(cells["size_bytes"] == size_bytes) & (cells["concurrency"] == users)]
    counts = [each for each in series.distinct(here, "hops") if each] or [0]
    panels = chosen(counts, _MOST_PANELS)
    here = here[here["hops"].isin([0, *panels])]
    shown = _points(spread, here)
    labels = style.ranked(here["label"])
    unit = marks.time_unit(shown["response_us"])
    with style.rc():
        found = sheet(len(panels))
        log = marks.scale(found.panels, "x", shown["response_us"], unit, log=True)
        for ax, hops in zip(found.panels, panels, strict=True):
            ax.set_title(counted(hops, "hop"))
            ax.set_ylim(-0.02, 1.02)
            ax.set_yticks([0, 0.5, 0.9, 1], ["0", "50 %", "90 %", "100 %"])
            for label in labels:
                rows = shown[(shown["label"] == label) & shown["hops"].isin([0, hops])]
                x, y = rows["response_us"].to_numpy(), rows["share"].to_numpy()
                like = marks.line(label, marker="none", linewidth=1.7)
                (curve,) = ax.plot(x, y)
                curve.update_from(like)
                dots = marks.line(label, linestyle="none", markersize=5.5)
                (marked,) = ax.plot(np.interp(_MARKED, y, x) if len(y) else [], _MARKED[: len(y)])
                marked.update_from(dots)
                marked.set_transform(ax.transData)
                curve.set_transform(ax.transData)
        found.legend = [(marks.line(each), name(each)) for each in labels]
        found.label(
            f"response time, {unit.name}" + (" (logarithmic axis)" if log else ""), "connections"
        )
        title = "Distribution of response times"
        where = f"{size_bytes:,} bytes, {series.at_a_time(users)}"
        caption = (
            f"Share of connections that took so long or less; {where}. All established connections "
            f"of valid samples together, n = {_range(here['connections'])} a curve from "
            f"{_range(here['samples'])} samples; a connection is no independent sample, so there "
            "is no interval. Marks: 50, 90 and 99 %. What has no hop is in every panel."
            + series.left_out(counts, panels, "hop counts")
        )
        told = [
            f"{name(str(label))}, {counted(int(str(hops)), 'hop')}: "
            + ", ".join(
                f"{round(100 * share)} % in {said(value)} µs"
                for share, value in zip(
                    _MARKED, np.interp(_MARKED, rows["share"], rows["response_us"]), strict=True
                )
            )
            for (label, hops), rows in shown.groupby(["label", "hops"], sort=False)
        ]
        alt = f"Distribution of response times, {where}: {series.listed(told)}."
        name_ = f"distribution-{size_bytes}-{users}"
        full = f"{title}, {where}" if more else title
        return figure(name_, full, arrange(found), alt, caption, shown)


def _points(spread: Spread, here: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    frames = []
    order = {label: place for place, label in enumerate(style.ranked(here["label"]))}
    for place, row in sorted(here.iterrows(), key=lambda each: order[each[1]["label"]]):
        shares, times_us = spread.curves[int(str(place))]
        frames.append(
            pd.DataFrame(
                {
                    **{key: row[key] for key in _AT},
                    "connections": row["connections"],
                    "share": shares,
                    "response_us": times_us,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _one_frame(cells: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    renamed = {f"{time}_median_us": f"{time}_us" for time in ("connect", "response")}
    frames = [
        cells.rename(columns=renamed).assign(of="cell"),
        samples.rename(columns=renamed).assign(of="sample", samples=1),
    ]
    both = pd.concat(frames, ignore_index=True)
    return both[["of", *(each for each in both.columns if each != "of")]]


def _is(frame: pd.DataFrame, label: str, size_bytes: int) -> pd.Series[bool]:
    return (frame["label"] == label) & (frame["size_bytes"] == size_bytes)


def _cloud(ax: marks.Axes, rows: pd.DataFrame, label: str) -> None:
    x, y = rows["response_median_us"], rows["connect_median_us"]
    look = style.look(label)
    ax.plot(x, y, linestyle="none", marker=".", markersize=4, color=look.colour, alpha=0.35)


def _path(ax: marks.Axes, rows: pd.DataFrame, label: str) -> None:
    rows = rows.sort_values("hops")
    x, y = rows["response_median_us"], rows["connect_median_us"]
    colour = style.colour(label)
    ax.hlines(y, rows["response_low_us"], rows["response_high_us"], color=colour, linewidth=1)
    ax.vlines(x, rows["connect_low_us"], rows["connect_high_us"], color=colour, linewidth=1)
    (drawn,) = ax.plot(x, y)
    drawn.update_from(marks.line(label, linewidth=1.2, markersize=5.5))
    drawn.set_transform(ax.transData)


def _range(values: pd.Series[int]) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
