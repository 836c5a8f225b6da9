# SPDX-License-Identifier: Apache-2.0
"""What one hop more costs in each mode, with its interval over blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench import stats
from bench.measured import Measured

Record = dict[str, Any]


def per_hop(cells: Iterable[Measured], times: Iterable[str]) -> list[Record]:
    """Return the cost of a hop of each mode measured over two hop counts or more.

    times: the metrics. `hops` are the counts there are figures for, `blocks` how many have them
    all, which is what the cost and its interval are made of.
    """
    metrics = list(times)
    lines: dict[Any, list[Measured]] = {}
    for item in cells:
        cell = item.cell
        if not cell.twin:
            key = (cell.mode, cell.attach, cell.offloads, cell.size_bytes, cell.concurrency)
            lines.setdefault(key, []).append(item)
    found = (_line(line, metric) for line in lines.values() for metric in metrics)
    return [record for record in found if record]


def _line(line: list[Measured], metric: str) -> Record | None:
    blocks: dict[int, dict[int, float]] = {}
    for item in line:
        for block, time_us in item.of(metric).items():
            blocks.setdefault(block, {})[item.cell.hops] = time_us
    estimate = stats.per_hop(blocks)
    if estimate is None:
        return None
    cell = line[0].cell
    return {
        "mode": cell.mode,
        "attach": cell.attach,
        "offloads": cell.offloads,
        "label": cell.label,
        "size_bytes": cell.size_bytes,
        "concurrency": cell.concurrency,
        "metric": metric,
        "slope_us": estimate.value,
        "ci95": list(estimate.interval) if estimate.interval else None,
        "hops": sorted({hops for block in blocks.values() for hops in block}),
        "blocks": estimate.n,
    }
