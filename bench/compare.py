# SPDX-License-Identifier: Apache-2.0
"""What a run says: cells, cost per hop, every pair of modes, and how far to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import stats
from bench.contrast import ENOUGH as ENOUGH
from bench.joined import Side, joined
from bench.measured import QUANTILES, TIMES, Measured, measured
from bench.pairs import pairs
from bench.perhop import per_hop
from bench.runs import RunReader
from bench.validity import validity

Record = dict[str, Any]


def compare(run: RunReader, other: RunReader | None = None) -> Record:
    """Return the statistics of a run as `bench compare --json` prints them.

    Its keys are described in docs/results.md. Modes go by their label (`xdp`, `xdp/generic`). A
    sample's figure is the median over its connections, a cell's the median over its samples, and
    every interval is over samples or blocks. Warm-ups and invalid samples are in none of them.
    With another run, `other` says how the two compare.

    Raises BenchError when a file is damaged, or the runs cannot be compared: see `joined`.
    """
    mine = _side(run)
    result = {
        "run": run.run_id,
        "cells": [_cell(item) for item in mine.cells().values()],
        "per_hop": per_hop(mine.figures.cells, mine.figures.metrics),
        "pairs": mine.pairs,
        "validity": validity(run, mine.figures, mine.pairs),
    }
    if other is not None:
        result["other"] = joined(mine, _side(other))
    return result


def _side(run: RunReader) -> Side:
    figures = measured(run)
    return Side(run, figures, pairs(figures.cells, figures.metrics))


def _cell(item: Measured) -> Record:
    cell = item.cell
    return {
        "mode": cell.mode,
        "attach": cell.attach,
        "offloads": cell.offloads,
        "label": cell.label,
        "hops": cell.hops,
        "size_bytes": cell.size_bytes,
        "concurrency": cell.concurrency,
        "samples": item.samples,
        "failed": item.failed,
        "invalid": item.invalid,
        **{metric: _time(item, metric) for metric in sorted(TIMES)},
        "transactions_per_s": _estimate(item.values("transactions_per_s")),
        "throughput_mbps": _estimate(item.values("throughput_mbps")),
    }


def _time(item: Measured, metric: str) -> Record:
    tails = {name: stats.median(item.values(f"{metric}_{name}")) for name in QUANTILES}
    return {**_estimate(item.values(metric)), **tails}


def _estimate(values: Sequence[float]) -> Record:
    interval = stats.bootstrap_median(values)
    return {"median": stats.median(values), "ci95": list(interval) if interval else None}
