# SPDX-License-Identifier: Apache-2.0
"""The 2022 report's figures 8 to 14 and its Table 1, drawn from any measurement that has the cells.

Each function takes a frame with a row a point: `label` (the mode's), `forwarders`, `size_bytes`,
`elapsed_s` (of 100 requests in a row), `lo_s` and `hi_s` (its 95 % interval, NaN without one) and
`n` (samples). What the report calls a k-hop chain has k - 1 forwarders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.report import marks, series, style
from bench.report.document import Column, Entry, Figure, Item, Table
from bench.report.figure import as_csv, figure, slug
from bench.report.panels import Sheet, arrange, chosen, name, sheet
from bench.sentences import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.lines import Line2D

COLUMNS = ("label", "forwarders", "size_bytes", "elapsed_s", "lo_s", "hi_s", "n")

REQUESTS = 100
QUANTITY = (
    "Time that 100 requests in a row take at concurrency 1: 100 divided by the transactions a "
    "second. This is what the 2022 report calls response time."
)
HOPS = "The report counts the server as a hop: its k-hop chain has k - 1 forwarders."

_FIRST_BYTES = 78
_MOST_PANELS = 8
_X = ("size_bytes", "elapsed_s", "lo_s", "hi_s")


def of_run(comparison: dict[str, Any]) -> pd.DataFrame:
    """Return the points of a run, from what `compare` says of its cells with one connection."""
    import pandas as pd

    rows = []
    for cell in comparison["cells"]:
        rate = cell["transactions_per_s"]
        if cell["concurrency"] == 1 and rate["median"]:
            low, high = rate["ci95"] or (math.nan, math.nan)
            place = (cell["label"], cell["hops"], cell["size_bytes"])
            times = (REQUESTS / each for each in (rate["median"], high, low))
            rows.append((*place, *times, cell["samples"]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def items(
    frame: pd.DataFrame, prefix: str = "legacy", quantity: str = QUANTITY, note: str = ""
) -> list[Item]:
    """Return all figures that the points allow, and the table; nothing for no points.

    prefix: of the figures' names. quantity: what the times are. note: more for every caption.
    """
    if frame.empty:
        return []
    forwarded = frame[frame["forwarders"] > 0]
    labels = style.ranked(forwarded["label"])
    found: list[Item | None] = [
        direct(frame, prefix, quantity, note),
        against(frame, prefix, quantity, note),
        *(by_hops(frame, label, prefix, quantity, note) for label in labels),
        table(frame, prefix, quantity, note),
    ]
    return [each for each in found if each is not None]


def direct(
    frame: pd.DataFrame, prefix: str = "legacy", quantity: str = QUANTITY, note: str = ""
) -> Figure | None:
    """Return the report's figure 8, the direct connection, or None without its points."""
    shown = frame[frame["forwarders"] == 0].sort_values(["label", "size_bytes"])
    if shown.empty:
        return None
    with style.rc():
        found = sheet(1, heights_in=(2.5,))
        ax = found.panels[0]
        _axes(found, shown)
        for label in style.ranked(shown["label"]):
            like = marks.line(label)
            marks.curve(ax, shown[shown["label"] == label], _X, like)
            found.legend.append((like, name(label)))
        return figure(
            f"{prefix}-direct",
            "Direct connection (the report's figure 8)",
            arrange(found),
            f"Time for 100 requests against file size without a forwarder: {_ends(shown)}.",
            _caption(shown, quantity, note),
            shown,
        )


def against(
    frame: pd.DataFrame,
    prefix: str = "legacy",
    quantity: str = QUANTITY,
    note: str = "",
    modes: Sequence[str] = ("socat", "xdp", "legacy"),
) -> Figure | None:
    """Return the report's figures 9 to 12: modes side by side, a panel a number of forwarders.

    modes: those that take part, in all their forms. None where fewer than two have points.
    """
    known = frame["label"].map(lambda label: label.partition("/")[0] in modes)
    rows = frame[known & (frame["forwarders"] > 0)]
    several = rows.groupby("forwarders")["label"].nunique() > 1
    everywhere = [int(each) for each in several.index[several]]
    if not everywhere:
        return None
    panels = chosen(everywhere, _MOST_PANELS)
    shown = rows[rows["forwarders"].isin(panels)]
    shown = shown.sort_values(["forwarders", "label", "size_bytes"])
    labels = style.ranked(shown["label"])
    with style.rc():
        found = sheet(len(panels))
        _axes(found, shown)
        found.legend = [(marks.line(label), name(label)) for label in labels]
        for ax, forwarders in zip(found.panels, panels, strict=True):
            ax.set_title(_chain(forwarders))
            for label in labels:
                here = shown[(shown["label"] == label) & (shown["forwarders"] == forwarders)]
                marks.curve(ax, here, _X, marks.line(label))
        left_out = len(everywhere) - len(panels)
        more = (
            f" {counted(left_out, 'number')} of forwarders in between left out." if left_out else ""
        )
        names = " and ".join(name(label) for label in labels)
        return figure(
            f"{prefix}-against",
            f"{names}, chain by chain (the report's figures 9 to 12)",
            arrange(found),
            f"Time for 100 requests against file size, a panel a chain: {_ends(shown)}.",
            _caption(shown, quantity, note) + f" {HOPS}{more}",
            shown,
        )


def by_hops(
    frame: pd.DataFrame,
    label: str,
    prefix: str = "legacy",
    quantity: str = QUANTITY,
    note: str = "",
) -> Figure:
    """Return the report's figure 13 or 14: one mode, a line for each number of forwarders."""
    rows = frame[(frame["label"] == label) & (frame["forwarders"] > 0)]
    everywhere = sorted({int(each) for each in rows["forwarders"]})
    lines = chosen(everywhere, _MOST_PANELS)
    shown = rows[rows["forwarders"].isin(lines)].sort_values(["forwarders", "size_bytes"])
    with style.rc():
        found = sheet(1)
        ax = found.panels[0]
        _axes(found, shown)
        for like, forwarders in zip(_lines(label, len(lines)), lines, strict=True):
            marks.curve(ax, shown[shown["forwarders"] == forwarders], _X, like)
            found.legend.append((like, counted(forwarders, "forwarder")))
        more = (
            f" Of {len(everywhere)} chains, {len(lines)} are drawn."
            if len(lines) < len(everywhere)
            else ""
        )
        return figure(
            f"{prefix}-hops-{slug(label)}",
            f"{name(label)}, a line for each chain (the report's figures 13 and 14)",
            arrange(found),
            f"Time for 100 requests against file size with {name(label)}: {_ends(shown)}.",
            _caption(shown, quantity, note) + f" {HOPS}{more}",
            shown,
        )


def table(
    frame: pd.DataFrame, prefix: str = "legacy", quantity: str = QUANTITY, note: str = ""
) -> Table:
    """Return the report's Table 1: sizes down, forwarders and modes across, in seconds."""
    groups = [
        (forwarders, label)
        for forwarders in sorted({int(each) for each in frame["forwarders"]})
        for label in style.ranked(frame[frame["forwarders"] == forwarders]["label"])
    ]
    points = {
        (row["size_bytes"], row["forwarders"], row["label"]): row
        for row in frame.to_dict("records")
    }
    rows = []
    for size in sorted({int(each) for each in frame["size_bytes"]}):
        i = file_number(size)
        entries = [
            Entry("" if i is None else str(i), None if i is None else float(i)),
            Entry(f"{size:,}", float(size)),
        ]
        entries += [_entry(points.get((size, *group))) for group in groups]
        rows.append(entries)
    heads = [Column("file i", True), Column("size, bytes", True)]
    for count, label in groups:
        chain = f"{counted(count, 'forwarder')}: " if count else ""
        heads.append(Column(f"{chain}{name(label)}, s", True))
    return Table(
        name=f"{prefix}-table-1",
        title="Seconds for 100 requests (the report's Table 1)",
        columns=heads,
        rows=rows,
        csv=as_csv(frame[list(COLUMNS)].sort_values(["size_bytes", "forwarders", "label"])),
        caption=f"{_caption(frame, quantity, note)} The report's file i has 78 · 2^i bytes. {HOPS}",
    )


def file_number(size_bytes: float) -> int | None:
    """Return the report's number of a file of this size, 78 * 2^i bytes being file i."""
    i = math.log2(size_bytes / _FIRST_BYTES) if size_bytes > 0 else -1.0
    return round(i) if i >= 0 and abs(i - round(i)) < 1e-9 else None


def _entry(point: dict[Any, Any] | None) -> Entry:
    if point is None or not math.isfinite(point["elapsed_s"]):
        return Entry("")
    interval = f"{marks.number(point['lo_s'])} to {marks.number(point['hi_s'])} s, "
    known = math.isfinite(point["lo_s"])
    note = f"{interval if known else ''}n = {int(point['n'])}"
    return Entry(_seconds(point["elapsed_s"]), float(point["elapsed_s"]), note)


def _seconds(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 9.995 else f"{value:,.2f}"


def _chain(forwarders: int) -> str:
    return f"{counted(forwarders, 'forwarder')} ({forwarders + 1}-hop)"


def _lines(label: str, count: int) -> list[Line2D]:
    """Return lines in shades of a mode's colour, each with a marker and dashes of its own."""
    forms = ("o", "s", "^", "D", "v", "P", "X", "p")
    dashes: tuple[style.Dashes, ...] = ("-", (0, (8, 2)), (0, (4, 2)), (0, (1.2, 1.6)))
    return [
        marks.line(
            label,
            shade,
            marker=forms[place % len(forms)],
            linestyle=dashes[place % len(dashes)],
            markerfacecolor=shade,
            markeredgecolor=style.PAPER,
            markeredgewidth=0.8,
        )
        for place, shade in enumerate(style.shades(style.colour(label), count))
    ]


def _axes(found: Sheet, shown: pd.DataFrame) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator

    sizes = sorted({int(each) for each in shown["size_bytes"]})
    times = [*shown["elapsed_s"], *shown["lo_s"], *shown["hi_s"]]
    small = max(marks.finite(times), default=1.0) < 0.5
    unit = marks.Unit("ms", 1e-3) if small else marks.Unit("s")
    marks.scale(found.panels, "x", sizes, log=True)
    marks.scale(found.panels, "y", times, unit)
    ticks = chosen(sizes, 3 if found.columns > 1 else 5)
    for ax in found.panels:
        ax.xaxis.set_major_locator(FixedLocator([float(each) for each in ticks]))
        ax.xaxis.set_major_formatter(FixedFormatter([_tick(size) for size in ticks]))
    found.label("file size; i is the report's file number", f"100 requests, {unit.name}")


def _tick(size: int) -> str:
    i = file_number(size)
    return marks.bytes_text(size) + ("" if i is None else f"\ni = {i}")


def _ends(shown: pd.DataFrame) -> str:
    """Return each line's first and last point in words."""
    said = []
    for key, rows in shown.groupby(["forwarders", "label"], sort=False):
        forwarders, label = key if isinstance(key, tuple) else (0, key)
        ordered = rows.sort_values("size_bytes")
        first, last = ordered.iloc[0], ordered.iloc[-1]
        where = f" with {counted(int(str(forwarders)), 'forwarder')}" if forwarders else ""
        text = f"{name(str(label))}{where} {_seconds(first['elapsed_s'])} s"
        text += f" at {marks.bytes_text(first['size_bytes'])}"
        if len(ordered) > 1:
            text += (
                f" and {_seconds(last['elapsed_s'])} s at {marks.bytes_text(last['size_bytes'])}"
            )
        said.append(text)
    return series.listed(said)


def _caption(shown: pd.DataFrame, quantity: str, note: str) -> str:
    rests_on = series.n_words(shown["n"], shown["lo_s"])
    return " ".join(each for each in (quantity, rests_on, note) if each)
