# SPDX-License-Identifier: Apache-2.0
"""Tables of a comparison, each in the widest form that the terminal has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bench.cells import title
from bench.sentences import NONE, Axis, counted, figure, interval, of_axis, where

Record = Mapping[str, Any]

METRICS = {
    "response_us": "response time",
    "connect_us": "connect time",
    "transactions_per_s": "transactions/s",
}
_BETWEEN = " [95 % interval]"
# More hop counts than this are listed downwards.
_ACROSS = 8


class Fitting:
    """Tables under their titles, all in the first of several forms that fits, else in the last."""

    def __init__(self, forms: Sequence[Sequence[tuple[str, Table]]]) -> None:
        self._forms = forms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def width(table: Table) -> int:
            return Measurement.get(console, options.update(width=100_000), table).maximum

        fitting = (
            form
            for form in self._forms
            if all(width(table) <= options.max_width for _, table in form)
        )
        for name, table in next(fitting, self._forms[-1]):
            # Not rich's own title, which is wrapped to the width of the table.
            yield Text(name, style="bold")
            yield table


def grids(comparison: Record, wanted: Iterable[tuple[Axis, str]]) -> Fitting:
    """Return the medians of some metrics: modes by hop counts, with what a hop costs."""
    many = len({cell["hops"] for cell in comparison["cells"]}) > _ACROSS
    forms = [(_down, _in_line, _BETWEEN), (_down, _bare, "")]
    if not many:
        forms[:0] = [(_across, _in_line, _BETWEEN), (_across, _stacked, _BETWEEN)]
        forms[3:3] = [(_across, _bare, "")]
    tables = [(_Grid.of(comparison, axis, metric)) for axis, metric in wanted]
    return Fitting(
        [
            [(each.title(between), layout(each, form)) for each in tables]
            for layout, form, between in forms
        ]
    )


def family(pairs: Sequence[Record], name: str, note: str) -> Group:
    """Return the pairs of one size, concurrency and metric, whose p values belong together."""
    table = columns(left=("a", "b"), right=("hops", "a / b [95 %]", "p", "n"), last="a is")
    for pair in pairs:
        table.add_row(
            Text(title(pair["a"])),
            Text(title(pair["b"])),
            str(pair["hops"]),
            ratio(pair["ratio"], pair["ci95"]),
            probability(pair["p_value"]),
            either(pair["n"]),
            pair["verdict"],
        )
    return Group(Text(name, style="bold"), Text(note), table)


def columns(left: Iterable[str], right: Iterable[str], last: str) -> Table:
    """Return an empty table."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(last, no_wrap=True)
    return table


def ratio(value: float | None, ends: Sequence[float] | None) -> str:
    """Return a ratio with its interval: `0.491 [0.487, 0.496]`."""
    between = f" [{_ratio(ends[0])}, {_ratio(ends[1])}]" if ends else ""
    return NONE if value is None else _ratio(value) + between


def probability(p_value: float | None) -> str:
    """Return a p value to three decimals."""
    if p_value is None:
        return NONE
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def either(n: Sequence[int]) -> str:
    """Return the numbers of samples on both sides, once where they are equal."""
    return str(n[0]) if n[0] == n[1] else f"{n[0]}, {n[1]}"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 9.9995 else f"{value:,.1f}"


_Estimate = tuple[float | None, Sequence[float] | None]
_Form = Callable[[_Estimate], str]


@dataclass(frozen=True)
class _Grid:
    """Label -> hops -> estimate, and label -> estimate of the cost of a hop."""

    name: str
    n: str
    rows: Mapping[str, Mapping[int, _Estimate]]
    costs: Mapping[str, _Estimate]

    @classmethod
    def of(cls, comparison: Record, axis: Axis, metric: str) -> _Grid:
        cells = of_axis(comparison["cells"], axis)
        lines = of_axis(comparison["per_hop"], axis, metric)
        rows: dict[str, dict[int, _Estimate]] = {}
        for cell in cells:
            estimate = cell[metric]["median"], cell[metric]["ci95"]
            rows.setdefault(cell["label"], {})[cell["hops"]] = estimate
        counts = [cell["samples"] for cell in cells]
        low, high = min(counts), max(counts)
        words, rate = METRICS[metric], metric == "transactions_per_s"
        return cls(
            name=f"{where(axis)}: {f'{words}, median' if rate else f'median {words}, µs'}",
            n=f", n = {low}" if low == high else f", n = {low} to {high}",
            rows=rows,
            costs={line["label"]: (line["slope_us"], line["ci95"]) for line in lines},
        )

    @property
    def hops(self) -> list[int]:
        return sorted({count for row in self.rows.values() for count in row})

    def title(self, between: str) -> str:
        known = any(ends for row in self.rows.values() for _, ends in row.values())
        return self.name + (between if known else "") + self.n

    def cost(self, name: str, form: _Form) -> list[str]:
        if not self.costs:
            return []
        return [form(self.costs[name]) if name in self.costs else ""]


def _in_line(estimate: _Estimate) -> str:
    return " ".join(filter(None, (figure(estimate[0]), interval(estimate[1]))))


def _stacked(estimate: _Estimate) -> str:
    return "\n".join(filter(None, (figure(estimate[0]), interval(estimate[1]))))


def _bare(estimate: _Estimate) -> str:
    return figure(estimate[0])


def _across(grid: _Grid, form: _Form) -> Table:
    heads = [counted(count, "hop") for count in grid.hops]
    table = _empty("mode", [*heads, *(["per hop"] if grid.costs else [])])
    for name, row in grid.rows.items():
        values = [form(row[count]) if count in row else "" for count in grid.hops]
        table.add_row(Text(title(name)), *values, *grid.cost(name, form))
    return table


def _down(grid: _Grid, form: _Form) -> Table:
    table = _empty("hops", [title(name) for name in grid.rows])
    for count in grid.hops:
        values = (form(row[count]) if count in row else "" for row in grid.rows.values())
        table.add_row(str(count), *values)
    if grid.costs:
        table.add_row("per hop", *("".join(grid.cost(name, form)) for name in grid.rows))
    return table


def _empty(first: str, rest: Iterable[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for name in rest:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table
