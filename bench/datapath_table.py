# SPDX-License-Identifier: Apache-2.0
"""The tables that `bench datapath` prints, made of nothing but its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.datapath import PROGRAMS
from bench.sentences import NONE, figure, times

Record = Mapping[str, Any]

_METHODS = {"test_run": "BPF_PROG_TEST_RUN", "live": "live frames"}
_SIGN = "\N{MULTIPLICATION SIGN}"
_QUOTIENTS = (("reflector", "ns"), ("router", "ns"), ("router", "net"))
STEP_WORDS = {
    "key": "the key, from the packet",
    "array": "array lookup",
    "hash": "hash lookup",
    "lru": "LRU hash lookup",
    "two_hashes": "two hash lookups",
    "lru_update": "LRU hash update",
    "fib": "bpf_fib_lookup",
    "ktime": "bpf_ktime_get_ns",
    "ktime_coarse": "bpf_ktime_get_coarse_ns",
    "jiffies": "jiffies",
    "counter": "per-CPU counter",
    "claim": "hash insert and delete",
}


def render(summary: Record) -> Group:
    """Return the tables of a summary (`bench.datapath_summary.summary`), and its notes."""
    parts: list[RenderableType] = []
    for method, title in _METHODS.items():
        programs = [item for item in summary["programs"] if item["method"] == method]
        if programs:
            name = f"{title}, IPv{summary['family']}: ns per packet, median [95 % interval]"
            parts += [_titled(name, _programs(summary, programs))]
    parts.append(_titled("forward, by the number of flows that take turns", _flows(summary)))
    if "steps" in summary:
        parts.append(_titled("Single steps: ns above the empty program", _steps(summary)))
    parts.append(_rests_on(summary))
    parts += [Text(f"Warning: {note}", style="yellow") for note in summary["notes"]]
    return Group(*parts)


def _programs(summary: Record, programs: Sequence[Record]) -> Table:
    """One row a program of a method."""
    quotients = (f"{_SIGN}\nreflector", f"{_SIGN}\nrouter", f"{_SIGN} router,\nboth net")
    table = _table("program", "ns", "net: above\nempty", *quotients)
    method = programs[0]["method"]
    nets = {item["name"]: item for item in summary["net"] if item["method"] == method}
    ratios = {
        (item["a"], item["b"], item["of"]): item
        for item in summary["ratios"]
        if item["method"] == method
    }
    for item in sorted(programs, key=lambda item: PROGRAMS.index(item["name"])):
        name = item["name"]
        table.add_row(
            name,
            _figure(item),
            _figure(nets[name]) if name in nets else "",
            *(_times(ratios.get((name, *of))) for of in _QUOTIENTS),
        )
    return table


def _flows(summary: Record) -> Table:
    methods = [
        method for method in _METHODS if any(i["method"] == method for i in summary["flows"])
    ]
    columns = [column for m in methods for column in (f"{_METHODS[m]}, ns", f"{_SIGN} 1 flow")]
    table = _table("flows", *columns)
    found: dict[tuple[Any, ...], dict[str, Record]] = {}
    for item in summary["flows"]:
        found.setdefault((item["name"], item["flows"], item["order"]), {})[item["method"]] = item
    for (name, flows, order), by_method in found.items():
        cells = []
        for method in methods:
            cells += [_figure(by_method[method]), _times(by_method[method])]
        label = f"{flows:,}" if name == "forward" else "new"
        table.add_row(label + (" in order" if order == "memory" else ""), *cells)
    return table


def _steps(summary: Record) -> Table:
    entries = sorted({item["entries"] for item in summary["steps"]})
    numbers = [f"{count:,} {'entry' if count == 1 else 'entries'}" for count in entries]
    table = _table("step", *numbers)
    found = {(item["name"], item["entries"]): item for item in summary["steps"]}
    for name, words in STEP_WORDS.items():
        cells = [_figure(found[name, count]) if (name, count) in found else "" for count in entries]
        table.add_row(words, *cells)
    return table


def _rests_on(summary: Record) -> Text:
    host, said = summary["host"], []
    for method, packets in summary["packets"].items():
        n = next(item["n"] for item in summary["programs"] if item["method"] == method)
        said.append(f"{n} rounds of {packets:,} packets ({_METHODS[method]})")
    lines = [f"Medians of {', '.join(said)}."]
    apart = {
        method: max(
            max(item["ns"]) - min(item["ns"])
            for item in summary["loads"]
            if item["method"] == method and item["name"] != "new-flow"
        )
        for method in summary["packets"]
    }
    count = max(len(item["ns"]) for item in summary["loads"])
    if count > 1:
        told = " and ".join(f"{figure(ns)} ns ({_METHODS[m]})" for m, ns in apart.items())
        lines.append(f"Loaded {count} times; between loads a program differs by up to {told}.")
    where = f"{host['model'] or host['machine']}, Linux {host['kernel']}, CPU {host['cpu']}"
    return Text("\n".join((*lines, f"{where}.")))


def _figure(item: Record) -> str:
    interval = item["ci95"]
    between = f" [{figure(interval[0])}, {figure(interval[1])}]" if interval else ""
    return figure(item["ns"]) + between


def _times(item: Record | None) -> str:
    if item is None:
        return ""
    return NONE if item["ratio"] is None else times(item["ratio"])


def _table(first: str, *rest: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _titled(name: str, table: Table) -> Group:
    # Not rich's own title, which is wrapped to the width of the table.
    return Group(Text(name, style="bold"), table)
