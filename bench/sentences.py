# SPDX-License-Identifier: Apache-2.0
"""A run's comparison in words: what a hop costs, who is faster, and what that rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.cells import label, title
from bench.compare import ENOUGH, FASTER, SLOWER, TOO_FEW

Record = Mapping[str, Any]
Axis = tuple[int, int]
"""Size in bytes and concurrency: what one table or sentence is about."""

NONE = "-"
_SIGN = "\N{MULTIPLICATION SIGN}"


def sentences(comparison: Record) -> list[str]:
    """Return what the figures say in words, a line for each size and concurrency."""
    found: list[str] = []
    for axis in axes(comparison):
        said = [*_hop_costs(comparison, axis), *_rates(comparison, axis), *_words(comparison, axis)]
        if said:
            found.append(f"{where(axis)}: {'; '.join(said)}.")
    return found


def facts(run_meta: Record, comparison: Record) -> list[str]:
    """Return what the verdict rests on: samples, failed requests, and where the time went."""
    counts = [cell["samples"] for cell in comparison["cells"]]
    low, high = min(counts, default=0), max(counts, default=0)
    if not high:
        lines = ["There is no valid sample to go by."]
    else:
        lines = [
            f"Medians of {counted(low, 'sample') if low == high else f'{low} to {high} samples'}"
            " a cell."
        ]
    failed: dict[str, int] = {}
    for cell in comparison["cells"]:
        name = title(label(cell["mode"], cell["attach"]))
        failed[name] = failed.get(name, 0) + cell["failed"]
    if any(failed.values()):
        told = ", ".join(f"{name} {count:,}" for name, count in failed.items() if count)
        lines.append(f"Failed requests: {told}.")
    elif high:
        lines.append("No request failed.")
    timing = run_meta["timing"]
    if timing.get("ready_s") is not None:
        lines.append(f"Ready to measure after {timing['ready_s']:.1f} s.")
    if timing.get("siege_s") is not None and timing.get("wall_s"):
        share = timing["siege_s"] / timing["wall_s"]
        lines.append(f"{share:.0%} of {timing['wall_s']:.0f} s were spent inside siege.")
    return lines


def axes(comparison: Record) -> list[Axis]:
    """Return the sizes and concurrencies there are figures for, fewest connections first."""
    axes = {(cell["size_bytes"], cell["concurrency"]) for cell in comparison["cells"]}
    return sorted(axes, key=lambda axis: (axis[1], axis[0]))


def of_axis(records: Iterable[Record], axis: Axis) -> Sequence[Record]:
    """Return the records of one size and concurrency."""
    return [item for item in records if (item["size_bytes"], item["concurrency"]) == axis]


def where(axis: Axis) -> str:
    """Return the words for a size and concurrency."""
    return f"{axis[0]:,} bytes, {counted(axis[1], 'connection')} at a time"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 hop`, `2 hops`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def figure(value: float | None, none: str = NONE) -> str:
    """Return a figure to about three digits, or `none` where there is none."""
    if value is None:
        return none
    return f"{value:z,.1f}" if abs(value) < 99.95 else f"{value:,.0f}"


def times(ratio: float | None) -> str:
    """Return a ratio to two digits or so."""
    if ratio is None:
        return NONE
    return f"{ratio:.2f}" if ratio < 1.995 else f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:,.0f}"


def _hop_costs(comparison: Record, axis: Axis) -> Iterator[str]:
    costs = sorted(of_axis(comparison["per_hop"], axis), key=lambda line: float(line["slope_us"]))
    phrases: list[str] = []
    cheaper: tuple[str, float] | None = None
    for line in costs:
        name, cost_us = title(label(line["mode"], line["attach"])), line["slope_us"]
        verb, unit = ("", "") if phrases else (" adds", " per hop")
        phrase = f"{name}{verb} {figure(cost_us)} µs{unit}"
        if cheaper and cheaper[1] > 0:
            phrase += f" ({times(cost_us / cheaper[1])} {_SIGN} {cheaper[0]})"
        phrases.append(phrase)
        cheaper = name, cost_us
    if phrases:
        yield ", ".join(phrases)


def _rates(comparison: Record, axis: Axis) -> Iterator[str]:
    if axis[1] == 1:
        return
    cells = of_axis(comparison["cells"], axis)
    most = max((cell["hops"] for cell in cells), default=0)
    rates = {
        title(label(cell["mode"], cell["attach"])): cell["transactions_per_s"]["median"]
        for cell in cells
        if cell["hops"] == most and cell["transactions_per_s"]["median"]
    }
    direct = _median_rate(cells, 0) if most else None
    ranked = sorted(rates.items(), key=lambda item: -item[1])
    phrases = []
    for place, (name, rate) in enumerate(ranked):
        than = [f"{rate / direct:.0%} of direct"] if direct else []
        if place + 1 < len(ranked):
            rival, slower = ranked[place + 1]
            than.append(f"{times(rate / slower)} {_SIGN} {rival}")
        verb, unit = ("", "") if place else (" makes", " transactions/s")
        phrases.append(
            f"{name}{verb} {rate:,.0f}{unit}" + (f" ({', '.join(than)})" if than else "")
        )
    if phrases:
        through = f"through {counted(most, 'hop')} " if most else ""
        yield through + ", ".join(phrases)


def _median_rate(cells: Iterable[Record], hops: int) -> float | None:
    for cell in cells:
        if cell["hops"] == hops:
            return cell["transactions_per_s"]["median"] or None
    return None


def _words(comparison: Record, axis: Axis) -> Iterator[str]:
    pairs = of_axis(comparison["pairs"], axis)
    baselines = {cell["mode"] for cell in comparison["cells"] if not cell["hops"]}
    most = max((pair["hops"] for pair in pairs), default=0)
    beaten: dict[str, list[str]] = {}
    unclear, few = [], []
    for pair in pairs:
        if pair["hops"] != most or pair["b"] in baselines:
            continue
        a, b = title(pair["a"]), title(pair["b"])
        if pair["verdict"] in (FASTER, SLOWER):
            winner, loser = (a, b) if pair["verdict"] == FASTER else (b, a)
            beaten.setdefault(winner, []).append(loser)
        elif pair["ratio"] is None:  # no sample, which the tables and a warning say
            continue
        elif pair["verdict"] == TOO_FEW:
            few.append(f"{a} with {b}")
        else:
            unclear.append(f"{a} and {b} cannot be told apart")
    winners = sorted(beaten.items(), key=lambda item: -len(item[1]))
    words = [f"{winner} is faster than {' and '.join(losers)}" for winner, losers in winners]
    if few:
        few[0] = f"too few samples, below {ENOUGH}, to compare {few[0]}"
    if said := words + unclear + few:
        yield f"at {counted(most, 'hop')} " + ", ".join(said)
