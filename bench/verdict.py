# SPDX-License-Identifier: Apache-2.0
"""The verdict a person reads: tables and sentences made of nothing but a run's comparison."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.cells import label, title
from bench.sentences import (
    NONE,
    Axis,
    Record,
    axes,
    counted,
    facts,
    figure,
    of_axis,
    sentences,
    times,
    where,
)


def render(run_meta: Record, comparison: Record) -> Group:
    """Return the verdict of a run: a block of tables for each size and concurrency, then words.

    run_meta is run.json, comparison what `bench.compare.compare` returns.
    """
    parts: list[RenderableType] = []
    for axis in axes(comparison):
        parts.append(_response_table(comparison, axis))
        if axis[1] > 1:
            parts.append(_rate_table(comparison, axis))
    parts += [Padding(Text(line), (0, 0, 0, 2)) for line in sentences(comparison)]
    parts.append(Text())
    parts += [Text(line) for line in facts(run_meta, comparison)]
    parts += [
        Text(f"Warning: {warning}", style="yellow")
        for warning in comparison["validity"]["warnings"]
    ]
    return Group(*parts)


def render_pairs(comparison: Record) -> Group:
    """Return every pair of modes with its ratio and verdict."""
    table = _table()
    for name in ("a", "b"):
        table.add_column(name)
    for name in ("hops", "bytes", "connections", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("a is")
    for pair in comparison["pairs"]:
        where = (str(pair["hops"]), f"{pair['size_bytes']:,}", str(pair["concurrency"]))
        names = (Text(title(pair["a"])), Text(title(pair["b"])))
        table.add_row(*names, *where, times(pair["ratio"]), pair["verdict"])
    return _titled("Pairs: response time of a over that of b", table)


def render_other(comparison: Record) -> Group:
    """Return the cells two runs share, side by side."""
    run, other = comparison["run"], comparison["other"]
    table = _table()
    table.add_column("mode")
    for name in ("hops", "bytes", "connections", "run", "other", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("run is")
    for cell in other["cells"]:
        table.add_row(
            Text(title(label(cell["mode"], cell["attach"]))),
            str(cell["hops"]),
            f"{cell['size_bytes']:,}",
            str(cell["concurrency"]),
            figure(cell["run_us"]),
            figure(cell["other_us"]),
            times(cell["ratio"]),
            cell["verdict"],
        )
    unmatched = other["unmatched"]
    note = f"{counted(unmatched, 'cell')} are in one of the runs only." if unmatched else ""
    name = f"Median response time of {run} and of {other['run']}, µs"
    return Group(_titled(name, table), Text(note))


def header(run_meta: Record) -> Text:
    """Return the two lines that say which run this is."""
    sweep = run_meta["sweep"]
    hosts = run_meta["chain"].get("hops")
    lines = [
        f"Run {run_meta['run_id']}, {run_meta['status']}, started {run_meta['started_at']}",
        f"{counted(sweep['blocks'], 'block')} of {counted(len(sweep['cells']), 'cell')}, "
        f"seed {run_meta['seed']}"
        + (f", chain of {counted(len(hosts), 'hop')}" if isinstance(hosts, list) else ""),
    ]
    return Text("\n".join(lines))


def _response_table(comparison: Record, axis: Axis) -> Group:
    table = _table()
    cells = of_axis(comparison["cells"], axis)
    costs = {
        label(line["mode"], line["attach"]): line["slope_us"]
        for line in of_axis(comparison["per_hop"], axis)
    }
    hops = _hop_columns(table, cells)
    if costs:
        table.add_column("per hop", justify="right")
    for name, row in _rows(cells).items():
        values = [
            figure(row[count]["response_us"]["median"]) if count in row else "" for count in hops
        ]
        table.add_row(Text(title(name)), *values, *([figure(costs.get(name), "")] if costs else []))
    return _titled(f"{where(axis)}: median response time, µs", table)


def _rate_table(comparison: Record, axis: Axis) -> Group:
    table = _table()
    cells = of_axis(comparison["cells"], axis)
    hops = _hop_columns(table, cells)
    for name, row in _rows(cells).items():
        values = [
            _estimate(row[count]["transactions_per_s"]) if count in row else "" for count in hops
        ]
        table.add_row(Text(title(name)), *values)
    return _titled(f"{where(axis)}: transactions/s, median [95 % interval]", table)


def _table() -> Table:
    return Table(box=SIMPLE_HEAD)


def _titled(name: str, table: Table) -> Group:
    # Not rich's own title, which is wrapped to the width of the table.
    return Group(Text(name, style="bold"), table)


def _hop_columns(table: Table, cells: Iterable[Record]) -> list[int]:
    hops = sorted({cell["hops"] for cell in cells})
    table.add_column("mode")
    for count in hops:
        table.add_column(counted(count, "hop"), justify="right")
    return hops


def _rows(cells: Iterable[Record]) -> dict[str, dict[int, Record]]:
    rows: dict[str, dict[int, Record]] = {}
    for cell in cells:
        rows.setdefault(label(cell["mode"], cell["attach"]), {})[cell["hops"]] = cell
    return rows


def _estimate(estimate: Record) -> str:
    if estimate["median"] is None:
        return NONE
    interval = estimate["ci95"]
    between = f" [{interval[0]:,.0f}, {interval[1]:,.0f}]" if interval else ""
    return f"{estimate['median']:,.0f}{between}"
