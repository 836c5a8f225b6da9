# SPDX-License-Identifier: Apache-2.0
"""A run's comparison in words: what a hop costs, who is faster, and what that rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.cells import title
from bench.contrast import FASTER, SLOWER, TOO_FEW, UNCLEAR

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
    lines = [_rests_on(comparison)]
    failed: dict[str, int] = {}
    for cell in comparison["cells"]:
        name = title(cell["label"])
        failed[name] = failed.get(name, 0) + cell["failed"]
    if any(failed.values()):
        told = ", ".join(f"{name} {count:,}" for name, count in failed.items() if count)
        lines.append(f"Failed requests: {told}.")
    elif any(cell["samples"] for cell in comparison["cells"]):
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


def of_axis(records: Iterable[Record], axis: Axis, metric: str | None = None) -> list[Record]:
    """Return the records of one size and concurrency, and of one metric where it is named."""
    return [
        item
        for item in records
        if (item["size_bytes"], item["concurrency"]) == axis
        and (metric is None or item["metric"] == metric)
    ]


def main_metric(axis: Axis) -> str:
    """Return what a verdict is about: with several connections at a time it is their rate."""
    return "response_us" if axis[1] == 1 else "transactions_per_s"


def where(axis: Axis) -> str:
    """Return the words for a size and concurrency."""
    return f"{axis[0]:,} bytes, {counted(axis[1], 'connection')} at a time"


def noise(comparison: Record, axis: Axis, metric: str) -> str:
    """Return the noise floor of a table: `noise floor 1.8 %: XDP against itself`."""
    known = of_axis(comparison["validity"]["noise_floors"], axis, metric)
    if not known:
        return "noise floor not known: no mode was measured twice here"
    worst = max(known, key=lambda each: float(each["noise_floor"]))
    said = f"noise floor {100 * worst['noise_floor']:.1f} %: {title(worst['label'])} against itself"
    if worst["verdict"] == TOO_FEW:
        return f"{said}, by too few samples"
    return said if worst["verdict"] == UNCLEAR else f"{said}, from which it differs"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 hop`, `2 hops`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def figure(value: float | None, none: str = NONE) -> str:
    """Return a figure to about three digits, or `none` where there is none."""
    if value is None:
        return none
    return f"{value:z,.1f}" if abs(value) < 99.95 else f"{value:,.0f}"


def interval(ends: Sequence[float] | None) -> str:
    """Return an interval of figures, empty where there is none."""
    return f"[{figure(ends[0])}, {figure(ends[1])}]" if ends else ""


def times(ratio: float | None) -> str:
    """Return a ratio to two digits or so."""
    if ratio is None:
        return NONE
    return f"{ratio:.2f}" if ratio < 1.995 else f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:,.0f}"


def _rests_on(comparison: Record) -> str:
    counts = [cell["samples"] for cell in comparison["cells"]]
    low, high = min(counts, default=0), max(counts, default=0)
    if not high:
        return "There is no valid sample to go by."
    each = counted(low, "sample") if low == high else f"{low} to {high} samples"
    said = comparison["validity"]["samples"]
    invalid = {0: "none is", 1: "1 is"}.get(said["invalid"], f"{said['invalid']:,} are")
    warm = f", and {counted(said['warmup'], 'warm-up')} left out" if said["warmup"] else ""
    return f"Medians of {each} a cell; of {said['measured']:,} samples {invalid} invalid{warm}."


def _hop_costs(comparison: Record, axis: Axis) -> Iterator[str]:
    costs = of_axis(comparison["per_hop"], axis, "response_us")
    phrases: list[str] = []
    cheaper: Record | None = None
    for line in sorted(costs, key=lambda line: float(line["slope_us"])):
        verb, unit = ("", "") if phrases else (" adds", " per hop")
        between = f" {interval(line['ci95'])}" if line["ci95"] else ""
        phrase = f"{title(line['label'])}{verb} {figure(line['slope_us'])} µs{unit}{between}"
        if cheaper and (than := _than(line, cheaper)):
            phrase += f" ({than})"
        phrases.append(phrase)
        cheaper = line
    if phrases:
        yield ", ".join(phrases)


def _than(line: Record, cheaper: Record) -> str:
    name = title(cheaper["label"])
    if line["ci95"] and cheaper["ci95"] and line["ci95"][0] <= cheaper["ci95"][1]:
        return f"not told apart from {name}"
    if cheaper["slope_us"] <= 0:
        return ""
    return f"{times(line['slope_us'] / cheaper['slope_us'])} {_SIGN} {name}"


def _rates(comparison: Record, axis: Axis) -> Iterator[str]:
    if axis[1] == 1:
        return
    cells = of_axis(comparison["cells"], axis)
    most = max((cell["hops"] for cell in cells), default=0)
    rates = {
        title(cell["label"]): cell["transactions_per_s"]["median"]
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
    metric = main_metric(axis)
    baselines = {cell["label"] for cell in comparison["cells"] if not cell["hops"]}
    pairs = [
        pair
        for pair in of_axis(comparison["pairs"], axis, metric)
        if not pair["aa"] and pair["b"] not in baselines and pair["ratio"] is not None
    ]
    most = max((pair["hops"] for pair in pairs), default=0)
    beaten: dict[str, list[str]] = {}
    unclear, few = [], []
    for pair in pairs:
        a, b = title(pair["a"]), title(pair["b"])
        if pair["hops"] != most:
            continue
        if pair["verdict"] in (FASTER, SLOWER):
            winner, loser = (a, b) if pair["verdict"] == FASTER else (b, a)
            beaten.setdefault(winner, []).append(loser + _turned(pair, pairs))
        elif pair["verdict"] == TOO_FEW:
            few.append(f"{a} with {b}")
        else:
            unclear.append(f"{a} and {b} cannot be told apart")
    winners = sorted(beaten.items(), key=lambda item: -len(item[1]))
    words = [f"{winner} is faster than {' and '.join(losers)}" for winner, losers in winners]
    if few:
        all_of_them = len(few) > 1 and not words + unclear
        few = [f"too few samples to compare {'the modes' if all_of_them else ', '.join(few)}"]
    if said := words + unclear + few:
        yield f"at {counted(most, 'hop')} " + ", ".join(said)
        yield noise(comparison, axis, metric)


def _turned(pair: Record, pairs: Iterable[Record]) -> str:
    """Return at which hop counts the opposite was found, so that no verdict hides it."""
    opposite = {FASTER: SLOWER, SLOWER: FASTER}[pair["verdict"]]
    hops = [
        each["hops"]
        for each in pairs
        if (each["a"], each["b"], each["verdict"]) == (pair["a"], pair["b"], opposite)
    ]
    counts = [*map(str, hops[:-1]), counted(hops[-1], "hop")] if hops else []
    return f" (but slower at {' and '.join(counts)})" if hops else ""
