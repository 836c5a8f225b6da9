# SPDX-License-Identifier: Apache-2.0
"""Every pair of a run's modes, table by table, and what a mode differs from itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from bench.cells import MODES, OFFLOADS
from bench.contrast import Contrast, corrected, noise_floor, paired, verdict
from bench.measured import Measured

Record = dict[str, Any]

_Pair = tuple[Measured, Measured]


def pairs(cells: Sequence[Measured], times: Iterable[str]) -> list[Record]:
    """Return the pairs of cells with one size, concurrency and hop count, in every metric.

    times: the metrics of time there are; transactions_per_s joins them where there are several
    connections at a time. a is the mode listed later, and a mode without hops is b at every hop
    count. A twin is paired with its original only, `aa` being true. p_value is corrected for all
    pairs of one size, concurrency and metric, which is what one table shows.
    """
    found: list[Record] = []
    for (_, concurrency), group in by_axis(cells):
        rivals = list(_rivals(group))
        for metric in (*times, *(["transactions_per_s"] if concurrency > 1 else [])):
            found += _family(rivals, metric)
    return found


def noise_floors(found: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Return the noise floor of each A/A pair among pairs."""
    same = ("size_bytes", "concurrency", "metric", "hops", "ratio", "ci95", "verdict")
    return [
        {
            **{key: pair[key] for key in same},
            "label": pair["b"],
            "noise_floor": noise_floor(pair["ratio"], pair["ci95"]),
        }
        for pair in found
        if pair["aa"] and pair["ratio"] is not None
    ]


def by_axis(cells: Iterable[Measured]) -> Iterator[tuple[tuple[int, int], list[Measured]]]:
    """Group cells by size and concurrency, fewest connections first."""

    def axis(item: Measured) -> tuple[int, int]:
        return item.cell.concurrency, item.cell.size_bytes

    for (concurrency, size_bytes), group in groupby(sorted(cells, key=axis), key=axis):
        yield (size_bytes, concurrency), list(group)


def _rivals(group: Sequence[Measured]) -> Iterator[_Pair]:
    cells = sorted((item for item in group if not item.cell.twin), key=_rank)
    twins = [item for item in group if item.cell.twin]
    baselines = [item for item in cells if not item.cell.hops]
    for hops in sorted({item.cell.hops for item in group}):
        here = [item for item in cells if item.cell.hops == hops]
        for place, a in enumerate(here):
            for b in (*(baselines if hops else ()), *here[:place]):
                yield a, b
        for a in twins:
            for b in here:
                if (*a.cell.key[:3], hops) == (*b.cell.key[:3], a.cell.hops):
                    yield a, b


def _rank(item: Measured) -> tuple[int, bool, int]:
    cell, known = item.cell, list(MODES)
    place = known.index(cell.mode) if cell.mode in known else len(known)
    setting = OFFLOADS.index(cell.offloads) if cell.offloads in OFFLOADS else len(OFFLOADS)
    return place, cell.attach == "native", setting


def _family(rivals: Sequence[_Pair], metric: str) -> list[Record]:
    contrasts = [paired(a.of(metric), b.of(metric)) for a, b in rivals]
    p_values = corrected(contrasts)
    tests = sum(p is not None for p in p_values)
    floors = [
        noise_floor(each.ratio, each.interval)
        for (a, _), each in zip(rivals, contrasts, strict=True)
        if a.cell.twin and each.ratio is not None
    ]
    floor = max(floors, default=None)
    return [
        _record(
            pair,
            metric,
            contrast,
            p_value,
            verdict(contrast, p_value, tests, metric, None if pair[0].cell.twin else floor),
        )
        for pair, contrast, p_value in zip(rivals, contrasts, p_values, strict=True)
    ]


def _record(
    pair: _Pair, metric: str, contrast: Contrast, p_value: float | None, word: str
) -> Record:
    a, b = (item.cell for item in pair)
    return {
        "a": a.label,
        "b": b.label,
        "aa": a.twin,
        "hops": a.hops,
        "size_bytes": a.size_bytes,
        "concurrency": a.concurrency,
        "metric": metric,
        "ratio": contrast.ratio,
        "ci95": list(contrast.interval) if contrast.interval else None,
        "p_value": p_value,
        "p_uncorrected": contrast.p_value,
        "n": list(contrast.n),
        "blocks": contrast.values,
        "verdict": word,
    }
