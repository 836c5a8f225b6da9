# SPDX-License-Identifier: Apache-2.0
"""A comparison's tables as a page has them: cost per hop, cells and pairs, with their data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.cells import title
from bench.report.document import Column, Entry, Table
from bench.sentences import NONE, figure, interval
from bench.verdict_tables import METRICS, either, probability, ratio

Record = Mapping[str, Any]

_MOST_ROWS = 2000


def costs(comparison: Record) -> Table:
    """Return what a hop costs in each mode."""
    rows = [
        [
            Entry(title(line["label"])),
            Entry(METRICS[line["metric"]]),
            *_axis(line),
            number(line["slope_us"]),
            Entry(interval(line["ci95"]) or NONE, line["ci95"][0] if line["ci95"] else None),
            Entry(", ".join(map(str, line["hops"])), float(max(line["hops"]))),
            number(line["blocks"], "{:,}"),
        ]
        for line in comparison["per_hop"]
    ]
    names = ("mode", "of", "bytes*", "connections*", "µs per hop*", "95 % interval*", "hops*")
    keys = ("label", "metric", "size_bytes", "concurrency", "slope_us", "ci95", "hops", "blocks")
    caption = "Median over blocks of the slope of a line through the hop counts."
    head = (*names, "blocks*")
    return table("costs", "Cost of a hop", head, rows, comparison["per_hop"], keys, caption)


def cells(comparison: Record) -> Table:
    """Return every cell's figures."""
    rows = [
        [
            Entry(title(cell["label"])),
            number(cell["hops"], "{:,}"),
            *_axis(cell),
            *_estimate(cell["response_us"]),
            number(cell["response_us"]["p90"]),
            number(cell["response_us"]["p99"]),
            number(cell["connect_us"]["median"]),
            number(cell["transactions_per_s"]["median"]),
            number(cell["throughput_mbps"]["median"]),
            number(cell["samples"], "{:,}"),
            number(cell["invalid"], "{:,}"),
            number(cell["failed"], "{:,}"),
        ]
        for cell in comparison["cells"]
    ]
    names = (
        *("mode", "hops*", "bytes*", "connections*", "response, µs*", "95 % interval*"),
        *("p90, µs*", "p99, µs*", "connect, µs*", "transactions/s*", "Mbit/s*"),
        *("samples*", "invalid*", "failed requests*"),
    )
    keys = ("label", "hops", "size_bytes", "concurrency")
    metrics = ("response_us", "connect_us", "transactions_per_s", "throughput_mbps")
    records = [
        {
            **{key: cell[key] for key in (*keys, "samples", "invalid", "failed")},
            **{f"{metric}_{part}": cell[metric].get(part) for metric in metrics for part in _PARTS},
        }
        for cell in comparison["cells"]
    ]
    caption = (
        "Medians over samples; a sample's figure is the median, or the quantile, over its "
        "connections."
    )
    head = list(records[0]) if records else [*keys]
    return table("cells", "Cells", names, rows, records, head, caption)


_PARTS = ("median", "ci95", "p90", "p99")


def pairs(comparison: Record) -> Table:
    """Return every pair of modes, the A/A pairs included."""
    rows = [
        [
            Entry(title(pair["a"])),
            Entry(title(pair["b"])),
            Entry(METRICS[pair["metric"]]),
            number(pair["hops"], "{:,}"),
            *_axis(pair),
            Entry(ratio(pair["ratio"], pair["ci95"]), pair["ratio"]),
            Entry(probability(pair["p_value"]), pair["p_value"]),
            Entry(either(pair["n"]), float(min(pair["n"]))),
            Entry(pair["verdict"]),
        ]
        for pair in comparison["pairs"]
    ]
    names = (
        *("a", "b", "of", "hops*", "bytes*", "connections*"),
        *("a / b [95 %]*", "p*", "n*", "a is"),
    )
    keys = (
        *("a", "b", "aa", "metric", "hops", "size_bytes", "concurrency", "ratio", "ci95"),
        *("p_value", "p_uncorrected", "n", "blocks", "verdict"),
    )
    caption = (
        "A ratio below 1 is faster for times, slower for rates. p is corrected (Holm) for all "
        "pairs of one size, concurrency and metric; ~ means that no difference can be told."
    )
    return table("pairs", "Pairs of modes", names, rows, comparison["pairs"], keys, caption)


def table(
    name: str,
    heading: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Entry]],
    records: Iterable[Record],
    keys: Sequence[str],
    caption: str = "",
) -> Table:
    """Return a table; columns whose title ends with * are numeric. records, keys: its CSV."""
    if len(rows) > _MOST_ROWS:
        caption += f" The first {_MOST_ROWS:,} of {len(rows):,} rows; the data has all."
    return Table(
        name=name,
        title=heading,
        columns=[Column(each.removesuffix("*"), each.endswith("*")) for each in columns],
        rows=list(rows[:_MOST_ROWS]),
        csv=as_csv(records, keys),
        caption=caption.strip(),
    )


def as_csv(records: Iterable[Record], keys: Sequence[str]) -> str:
    """Return records as CSV with a header line; an interval takes two columns, none is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head: list[str] = []
    for key in keys:
        head += [f"{key}_low", f"{key}_high"] if key.endswith("ci95") else [key]
    writer.writerow(head)
    for record in records:
        row: list[Any] = []
        for key in keys:
            value = record[key]
            if key.endswith("ci95"):
                row += value or ["", ""]
            elif isinstance(value, (list, tuple)):
                row.append(" ".join(map(str, value)))
            else:
                row.append("" if value is None else value)
        writer.writerow(row)
    return out.getvalue()


def number(value: float | None, form: str = "") -> Entry:
    """Return a figure to about three digits, or in a form such as `{:,}`."""
    if value is None:
        return Entry(NONE)
    return Entry(form.format(value) if form else figure(value), float(value))


def _axis(record: Record) -> tuple[Entry, Entry]:
    return number(record["size_bytes"], "{:,}"), number(record["concurrency"], "{:,}")


def _estimate(value: Record) -> tuple[Entry, Entry]:
    ends = value["ci95"]
    return number(value["median"]), Entry(interval(ends) or NONE, ends[0] if ends else None)
