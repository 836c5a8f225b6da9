# SPDX-License-Identifier: Apache-2.0
"""Table 1 four times: the report, its reproduction, the corrected filter and the real chain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.cells import title
from bench.report.document import Column, Entry, Section, Table, Words
from bench.reproduce import seed
from bench.reproduce.cells import CHAIN, COLUMNS, LOOPBACK, REPORT, REQUESTS
from bench.reproduce.examined import Examined
from bench.reproduce.plan import LEGACY
from bench.reproduce.words import NONE, forwarders, printed, seconds

Key = tuple[str, str]

SIDES: tuple[tuple[Key, str], ...] = (
    ((REPORT, "socat"), "socat '22"),
    ((REPORT, "xdp"), "XDP '22"),
    ((LOOPBACK, "socat"), "socat lo"),
    ((LOOPBACK, LEGACY), "filter lo"),
    ((LOOPBACK, "xdp"), "XDP lo"),
    ((CHAIN, "socat"), "socat chain"),
    ((CHAIN, "nft"), "nft chain"),
    ((CHAIN, "xdp"), "XDP chain"),
)
DIRECT: tuple[tuple[Key, str], ...] = (
    ((LOOPBACK, "direct"), "loopback"),
    ((CHAIN, "direct"), "chain: client to server"),
)

_INTRODUCTION = (
    "Every figure is the report's own quantity: seconds for 100 requests, one after the other. "
    "“'22” is the report's Table 1. “lo” is its experiment again on one loopback device: a chain "
    "of socat; the filter of 2022, written anew with the faults of the report's; and XDP without "
    "them, this project's forwarder, in the same place. “chain” is what the report left for later: "
    "one host a hop, XDP in native mode, and nftables, which it never measured."
)
_LEGEND = (
    "In brackets: so many requests were answered in that time, of fewer than 100 or with failures; "
    f"more is in the table of cut and failed cells below. {NONE} not measured."
)


def section(examined: Examined) -> Section:
    """Return a table for each number of forwarders, and one of what was cut or failed."""
    frame = examined.cells
    counts = sorted(set(frame["forwarders"]) - {0})
    tables = [
        _table(
            frame[frame["forwarders"] == count],
            f"table-{count}",
            f"{forwarders(count).capitalize()} (the report's {count + 1}-hop chain)",
            SIDES,
            f"Seconds for 100 requests. {_rests_on(frame)} {_LEGEND}",
        )
        for count in counts
    ]
    direct = frame[(frame["forwarders"] == 0) & (frame["mode"] == "direct")]
    if len(direct):
        caption = (
            "Seconds for 100 requests without any forwarder. Table 1 has no such column; it is "
            f"what forwarders add to. {_rests_on(frame)} {_LEGEND}"
        )
        tables.append(_table(direct, "table-direct", "No forwarder", DIRECT, caption))
    short = _short(frame)
    words = Words([_INTRODUCTION, _printed()])
    more = [_short_table(short)] if len(short) else []
    return Section("table-1", "Table 1, four times", [words, *tables, *more])


def _table(
    frame: pd.DataFrame,
    name: str,
    title: str,
    sides: Sequence[tuple[Key, str]],
    caption: str,
) -> Table:
    cells = {(row["part"], row["mode"], row["size_bytes"]): row for row in frame.to_dict("records")}
    rows = []
    for size in sorted(set(frame["size_bytes"])):
        first = Entry(f"{size:,}", float(size))
        rows.append([first, *(_entry(cells.get((*key, size))) for key, _ in sides)])
    heads = ["bytes", *(head for _, head in sides)]
    wanted = {key for key, _ in sides}
    kept = [key in wanted for key in zip(frame["part"], frame["mode"], strict=True)]
    return Table(
        name=name,
        title=title,
        columns=[Column(head, numeric=True) for head in heads],
        rows=rows,
        csv=as_csv(frame[kept]),
        caption=caption,
    )


def as_csv(frame: pd.DataFrame) -> str:
    """Return cells as CSV, sorted as a reader expects."""
    known = frame[list(COLUMNS)].sort_values(["forwarders", "size_bytes", "part", "mode"])
    return known.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def _entry(row: dict[Any, Any] | None) -> Entry:
    if row is None:
        return Entry(NONE)
    if not math.isfinite(row["elapsed_s"]):
        return Entry("invalid")
    if row["part"] == REPORT:
        return Entry(printed(row["elapsed_s"]), row["elapsed_s"])
    text = seconds(row["elapsed_s"])
    if is_short(row):
        return Entry(f"{text} ({row['done']:,})", row["elapsed_s"])
    return Entry(text, row["elapsed_s"])


def _printed() -> str:
    """Return what the report has in the place of the files' sizes."""
    labels = sorted(seed.labels().items())
    (first, least), (last, most) = labels[0], labels[-1]
    return (
        f"Files go by their size; what the report printed for them goes from {least} for "
        f"{first:,} bytes to {most:,} for {last:,}."
    )


def _rests_on(frame: pd.DataFrame) -> str:
    """Return how many samples the medians are of."""
    said = []
    for part in (LOOPBACK, CHAIN):
        n = frame[(frame["part"] == part) & (frame["n"] > 0)]["n"]
        if len(n):
            low, high = int(n.min()), int(n.max())
            said.append(f"{part} n = {low}" + (f" to {high}" if high > low else ""))
    if not said:
        return ""
    return f"Medians of samples: {', '.join(said)}; the CSV has 95 % intervals, from 6 samples on."


def is_short(row: dict[Any, Any]) -> bool:
    """Whether a cell has no time for 100 requests answered."""
    whole = row["done"] == row["made"] == REQUESTS and math.isfinite(row["elapsed_s"])
    return bool(row["part"] != REPORT and not whole)


def _short(frame: pd.DataFrame) -> pd.DataFrame:
    kept = [is_short(row) for row in frame.to_dict("records")]
    return frame[kept].sort_values(["part", "mode", "forwarders", "size_bytes"], ascending=True)


def _short_table(frame: pd.DataFrame) -> Table:
    numbers = ("forwarders", "bytes", "asked", "made", "answered", "failed", "seconds")
    heads = [Column("measured"), *(Column(each, numeric=True) for each in numbers)]
    heads.append(Column("s per 100, at this pace", numeric=True))
    heads.append(Column("why there is no figure"))
    return Table(
        name="short",
        title="Cells that were cut, or had failures",
        columns=heads,
        rows=[_short_row(row) for row in frame.to_dict("records")],
        csv=as_csv(frame),
        caption=(
            "Requests of all samples of a cell: asked for, made before its time was up, answered "
            "with the whole file, failed; and the seconds these took. The pace is the time over "
            f"the requests made, times {REQUESTS}: where fewer were made it is a forecast and "
            "nothing that was measured."
        ),
    )


def _short_row(row: dict[Any, Any]) -> list[Entry]:
    names = dict(SIDES)
    side = names.get((row["part"], row["mode"]), f"{row['part']}: {title(row['mode'])}")
    counts: Iterable[int] = (
        row[each] for each in ("forwarders", "size_bytes", "asked", "made", "done", "failed")
    )
    times = (row["elapsed_s"], row["per_100_s"])
    return [
        Entry(side),
        *(Entry(f"{count:,}", float(count)) for count in counts),
        *(Entry(seconds(each), each) if math.isfinite(each) else Entry(NONE) for each in times),
        Entry(row["problem"]),
    ]
