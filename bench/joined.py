# SPDX-License-Identifier: Apache-2.0
"""Two runs side by side: their cells, whether they agree on ratios, and what else differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cells import Cell, Key
from bench.contrast import corrected, unpaired, verdict
from bench.differing import differing
from bench.errors import BenchError
from bench.measured import Figures, Measured
from bench.pairs import noise_floors
from bench.perhop import per_hop
from bench.runs import RunReader
from bench.stats import median
from bench.validity import validity

Record = dict[str, Any]

_PAIR = ("a", "b", "hops", "size_bytes", "concurrency", "metric")
_LINE = ("offloads", "size_bytes", "concurrency", "metric", "hops")
_MODE = ("mode", "attach", "label")
_Shared = Sequence[tuple[Measured, Measured]]


@dataclass(frozen=True)
class Side:
    """A run, its figures and its pairs."""

    run: RunReader
    figures: Figures
    pairs: Sequence[Record]

    def cells(self) -> dict[Key, Measured]:
        """Return the run's cells by their key, without twins."""
        return {item.cell.key: item for item in self.figures.cells if not item.cell.twin}


def joined(mine: Side, theirs: Side) -> Record:
    """Return what `bench compare RUN OTHER --json` has under `other`; ratios are run over other.

    In `cells`, p values are corrected for all cells of a metric, and the noise floor of a verdict
    is the larger of the two runs'. In `pairs` and `per_hop`, `agree` says whether the intervals of
    the two runs overlap, null where one has none.

    Runs of other modes have no cell in common. Then each cell is held against every one of the
    other run's that differs from it in nothing but the mode, whose label is in `other_label`.

    Raises BenchError when the two cannot be compared: the same run twice, a run without a sample
    to go by, connection times in one of them only, no cell in common.
    """
    _comparable(mine, theirs)
    my_cells, their_cells = mine.cells(), theirs.cells()
    shared = [(item, their_cells[key]) for key, item in my_cells.items() if key in their_cells]
    warnings = []
    if not shared:
        shared = _of_other_modes(my_cells.values(), their_cells.values())
        warnings = [
            "the modes were measured one run after the other: what changed in between is in their "
            "ratios (bench run with both modes measures them in turns)"
        ]
    if not shared:
        raise BenchError(
            f"runs {mine.run.run_id} and {theirs.run.run_id} have no cell in common",
            remedy="compare runs of the same hops, sizes, concurrency and offloads",
        )
    used = len({a.cell.key for a, _ in shared}) + len({b.cell.key for _, b in shared})
    floors = _floors(mine, theirs)
    metrics = mine.figures.metrics
    return {
        "run": theirs.run.run_id,
        "cells": [record for metric in metrics for record in _cells(shared, metric, floors)],
        "pairs": _pairs(mine, theirs),
        "per_hop": _per_hop(shared, metrics),
        "unmatched": len(my_cells) + len(their_cells) - used,
        "validity": validity(theirs.run, theirs.figures, theirs.pairs),
        "warnings": [
            *warnings,
            *differing(mine.run.meta, theirs.run.meta),
            *_requests([(a.cell, b.cell) for a, b in shared]),
        ],
    }


def _of_other_modes(
    mine: Iterable[Measured], theirs: Iterable[Measured]
) -> list[tuple[Measured, Measured]]:
    """Return each pair of cells that differ in nothing but the mode and how it is attached."""

    def place(item: Measured) -> tuple[Any, ...]:
        cell = item.cell
        return cell.hops, cell.size_bytes, cell.concurrency, cell.offloads

    others = list(theirs)
    return [(a, b) for a in mine for b in others if place(a) == place(b)]


def _comparable(mine: Side, theirs: Side) -> None:
    same_id = mine.run.run_id == theirs.run.run_id
    if same_id and mine.run.path.resolve() == theirs.run.path.resolve():
        raise BenchError(
            f"run {mine.run.run_id} was to be compared with itself",
            remedy="name another run; without one, bench compare sets its modes side by side",
        )
    for side in (mine, theirs):
        if not any(item.samples for item in side.figures.cells):
            raise BenchError(
                f"run {side.run.run_id} has no valid sample that could be compared",
                remedy="bench show says why; measure again",
            )
    if mine.figures.timed != theirs.figures.timed:
        timed, untimed = (mine, theirs) if mine.figures.timed else (theirs, mine)
        raise BenchError(
            f"run {timed.run.run_id} has the times of single connections and {untimed.run.run_id} "
            "only siege's clock: response time there is elapsed time over transactions, another "
            "quantity",
            remedy="compare runs that both have connections.parquet, or neither",
        )


def _floors(*sides: Side) -> Mapping[Any, float]:
    floors: dict[Any, float] = {}
    for side in sides:
        for each in noise_floors(side.pairs):
            key = (each["size_bytes"], each["concurrency"], each["metric"])
            floors[key] = max(each["noise_floor"], floors.get(key, 0.0))
    return floors


def _cells(shared: _Shared, metric: str, floors: Mapping[Any, float]) -> Iterator[Record]:
    values = [(mine.values(metric), their.values(metric)) for mine, their in shared]
    contrasts = [unpaired(a, b) for a, b in values]
    p_values = corrected(contrasts)
    tests = sum(p is not None for p in p_values)
    for (mine, their), (a, b), contrast, p_value in zip(
        shared, values, contrasts, p_values, strict=True
    ):
        cell = mine.cell
        floor = floors.get((cell.size_bytes, cell.concurrency, metric))
        yield {
            "mode": cell.mode,
            "attach": cell.attach,
            "offloads": cell.offloads,
            "label": cell.label,
            "other_label": their.cell.label,
            "hops": cell.hops,
            "size_bytes": cell.size_bytes,
            "concurrency": cell.concurrency,
            "metric": metric,
            "run_us": median(a),
            "other_us": median(b),
            "ratio": contrast.ratio,
            "ci95": list(contrast.interval) if contrast.interval else None,
            "p_value": p_value,
            "p_uncorrected": contrast.p_value,
            "n": list(contrast.n),
            "verdict": verdict(contrast, p_value, tests, metric, floor),
        }


def _pairs(mine: Side, theirs: Side) -> list[Record]:
    ours, other = ([pair for pair in side.pairs if not pair["aa"]] for side in (mine, theirs))
    return _side_by_side(ours, other, _PAIR, ("ratio", "ci95", "verdict"))


def _per_hop(shared: _Shared, metrics: Sequence[str]) -> list[Record]:
    # Only over cells that both have: a line through other hop counts has another slope.
    labels = dict.fromkeys((mine.cell.label, their.cell.label) for mine, their in shared)
    found: list[Record] = []
    for label, other_label in labels:
        pairs = [
            (mine, their)
            for mine, their in shared
            if (mine.cell.label, their.cell.label) == (label, other_label)
        ]
        ours, others = (per_hop([pair[side] for pair in pairs], metrics) for side in (0, 1))
        modes = {part: getattr(pairs[0][0].cell, part) for part in _MODE}
        for line in _side_by_side(ours, others, _LINE, ("slope_us", "ci95", "blocks")):
            found.append({**modes, "other_label": other_label, **line})
    return found


def _side_by_side(
    mine: Iterable[Record], theirs: Iterable[Record], key: Sequence[str], said: Sequence[str]
) -> list[Record]:
    def name(record: Record) -> str:
        return repr([record[part] for part in key])

    known = {name(record): record for record in theirs}
    both = [(record, known[name(record)]) for record in mine if name(record) in known]
    return [
        {
            **{part: a[part] for part in key},
            "run": {part: a[part] for part in said},
            "other": {part: b[part] for part in said},
            "agree": _overlap(a["ci95"], b["ci95"]),
        }
        for a, b in both
    ]


def _overlap(a: Sequence[float] | None, b: Sequence[float] | None) -> bool | None:
    return None if a is None or b is None else a[0] <= b[1] and b[0] <= a[1]


def _requests(cells: Iterable[tuple[Cell, Cell]]) -> Iterator[str]:
    # A few more or less, as a warm-up's estimate gives, make no other measurement.
    other = [(a, b) for a, b in cells if not 4 / 5 <= (a.requests + 1) / (b.requests + 1) <= 5 / 4]
    if other:
        a, b = other[0]
        hops = f"{a.hops} hop" + ("" if a.hops == 1 else "s")
        yield (
            f"{len(other)} cells made other numbers of requests a sample: "
            f"{a.label} through {hops} {a.requests:,} and {b.requests:,}"
        )
