# SPDX-License-Identifier: Apache-2.0
"""A run's verdict in two sentences: what a hop costs, and how the modes compare at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.cells import title
from bench.contrast import TOO_FEW, UNCLEAR
from bench.sentences import (
    Axis,
    axes,
    counted,
    figure,
    interval,
    main_metric,
    noise,
    of_axis,
    times,
    where,
)

Record = Mapping[str, Any]

_MOST = 4
"""Modes in a sentence; the others are in the tables."""


def headline(run_meta: Record, comparison: Record) -> list[str]:
    """Return one or two sentences on the run's main axis, with the 95 % intervals there are."""
    axis = main_axis(comparison)
    if axis is None:
        return list(_nothing(run_meta, comparison))
    first = _costs(comparison, axis) or _medians(comparison, axis)
    second = _rivals(comparison, axis)
    unfinished = _unfinished(run_meta, comparison)
    return [f"{unfinished}{first}", *([second] if second else [])]


def main_axis(comparison: Record) -> Axis | None:
    """Return the size and concurrency that a verdict is on first: least load that has figures."""
    known = {
        (cell["size_bytes"], cell["concurrency"])
        for cell in comparison["cells"]
        if cell["samples"] and cell["response_us"]["median"] is not None
    }
    return next((axis for axis in axes(comparison) if axis in known), None)


def _nothing(run_meta: Record, comparison: Record) -> Iterable[str]:
    said = comparison["validity"]["samples"]
    if not said["measured"]:
        yield f"There is nothing to go by: the run is {run_meta['status']} and has no sample."
        return
    yield (
        f"There is no valid sample to go by: of {said['measured']:,} that were measured, "
        f"{said['invalid']:,} are invalid."
    )
    reasons = comparison["validity"]["invalid_reasons"]
    if reasons:
        reason, count = max(reasons.items(), key=lambda item: int(item[1]))
        yield f"The reason of {counted(count, 'sample')}: {reason}."


def _unfinished(run_meta: Record, comparison: Record) -> str:
    if run_meta["status"] == "complete":
        return ""
    sweep = run_meta["sweep"]
    planned = len(sweep["cells"]) * sweep["blocks"]
    measured = comparison["validity"]["samples"]["measured"]
    state = {"running": "the run goes on", "failed": "the run failed"}
    why = state.get(run_meta["status"], f"the run was {run_meta['status']}")
    return f"By {measured:,} of {planned:,} samples ({why}): "


def _costs(comparison: Record, axis: Axis) -> str:
    lines = of_axis(comparison["per_hop"], axis, "response_us")
    if not lines:
        return ""
    lines = sorted(lines, key=lambda line: float(line["slope_us"]))
    phrases: list[str] = []
    for line in lines[:_MOST]:
        verb, unit = (" adds", " µs to the response time") if not phrases else ("", " µs")
        phrases.append(
            f"{title(line['label'])}{verb} {_with(figure(line['slope_us']), line['ci95'])}{unit}"
        )
    over = sorted({line["blocks"] for line in lines})
    basis = _basis(comparison, [line["ci95"] for line in lines[:_MOST]], over, "block")
    return f"Per hop, {_listed(phrases, len(lines))} ({where(axis)}; {basis})."


def _medians(comparison: Record, axis: Axis) -> str:
    """Return the response times at the most hops there are, where no cost of a hop is known."""
    cells = [
        cell
        for cell in of_axis(comparison["cells"], axis)
        if cell["samples"] and cell["response_us"]["median"] is not None
    ]
    most = max(cell["hops"] for cell in cells)
    here = sorted(
        (cell for cell in cells if cell["hops"] == most),
        key=lambda cell: float(cell["response_us"]["median"]),
    )
    phrases: list[str] = []
    for cell in here[:_MOST]:
        verb, unit = (" answers in", " µs") if not phrases else (" in", " µs")
        value = cell["response_us"]
        phrases.append(
            f"{title(cell['label'])}{verb} {_with(figure(value['median']), value['ci95'])}{unit}"
        )
    over = sorted({cell["samples"] for cell in here})
    through = f"Through {counted(most, 'hop')}, " if most else "Without any hop, "
    intervals = [cell["response_us"]["ci95"] for cell in here[:_MOST]]
    basis = _basis(comparison, intervals, over, "sample")
    return f"{through}{_listed(phrases, len(here))} ({where(axis)}; {basis})."


def _rivals(comparison: Record, axis: Axis) -> str:
    """Return how the first mode compares with the others at the most hops there are."""
    metric = main_metric(axis)
    pairs = [
        pair
        for pair in of_axis(comparison["pairs"], axis, metric)
        if not pair["aa"] and pair["ratio"]
    ]
    if not pairs:
        return ""
    most = max(pair["hops"] for pair in pairs)
    pairs = [pair for pair in pairs if pair["hops"] == most]
    without = {cell["label"] for cell in comparison["cells"] if not cell["hops"]}
    # Direct is beside the others only where there are no others.
    pairs = [pair for pair in pairs if pair["b"] not in without] or pairs
    leader = _leader(comparison, axis, most, {pair[side] for pair in pairs for side in "ab"})
    ratios = []
    for pair in pairs:
        if leader == pair["a"]:
            ratios.append((pair["ratio"], pair["ci95"], pair["b"], pair["verdict"]))
        elif leader == pair["b"]:
            ends = [1 / end for end in reversed(pair["ci95"])] if pair["ci95"] else None
            ratios.append((1 / pair["ratio"], ends, pair["a"], pair["verdict"]))
    if not ratios:
        return ""
    ratios.sort(key=lambda item: -item[0] if metric == "response_us" else item[0])
    few = all(each[3] == TOO_FEW for each in ratios)
    phrases = [_against(*each[:3], "" if few else each[3]) for each in ratios[:_MOST]]
    sure = "too few samples to be sure; " if few else ""
    what = "response time" if metric == "response_us" else "rate of transactions"
    at = f"Through {counted(most, 'hop')}, " if most else "Without any hop, "
    return (
        f"{at}{title(leader)}'s {what} is {_listed(phrases, len(ratios))} "
        f"({sure}{noise(comparison, axis, metric)})."
    )


def _leader(comparison: Record, axis: Axis, hops: int, labels: Iterable[str]) -> str:
    """Return the fastest mode with hops among some labels."""
    metric = main_metric(axis)
    known = {
        cell["label"]: float(cell[metric]["median"])
        for cell in of_axis(comparison["cells"], axis)
        if cell["hops"] == hops and cell[metric]["median"]
    }
    ranked = sorted(
        (label for label in labels if label in known),
        key=lambda label: known[label] * (1 if metric == "response_us" else -1),
    )
    return ranked[0] if ranked else ""


def _against(ratio: float, ends: Sequence[float] | None, rival: str, verdict: str) -> str:
    between = f" [{_share(ends[0])}, {_share(ends[1])}]" if ends else ""
    name = title(rival)
    said = f"{_share(ratio)}{between} times that of {name}"
    if verdict == TOO_FEW:
        return f"{said} (too few samples to be sure)"
    return f"{said} (no difference that can be told)" if verdict == UNCLEAR else said


def _share(ratio: float) -> str:
    return (
        times(ratio) if ratio >= 0.0995 else f"{ratio:.3f}" if ratio >= 0.00095 else f"{ratio:.1g}"
    )


def _basis(
    comparison: Record,
    intervals: Sequence[Sequence[float] | None],
    over: Sequence[int],
    noun: str,
) -> str:
    counts = counted(over[0], noun) if len(over) == 1 else f"{over[0]} to {counted(over[-1], noun)}"
    clock = "" if comparison["validity"]["timer"] else ", by siege's clock of 10 ms"
    if any(intervals):
        return f"95 % {'intervals' if len(intervals) > 1 else 'interval'} over {counts}{clock}"
    return f"from {counts}, too few for an interval{clock}"


def _with(text: str, ends: Sequence[float] | None) -> str:
    return f"{text} {interval(ends)}" if ends else text


def _listed(phrases: Sequence[str], all_of_them: int) -> str:
    words = list(phrases)
    if all_of_them > len(words):
        words.append(counted(all_of_them - len(words), "other mode") + " more (tables below)")
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
