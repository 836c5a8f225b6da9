# SPDX-License-Identifier: Apache-2.0
"""What a warm-up sample is, and how many requests a cell's samples make once it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bench.cells import MAX_REQUESTS, Cell
from bench.sweep import Sweep

WARMUP_REQUESTS = 200
SAMPLE_S = 0.4
"""How long samples last whose number of requests is left open.

Connections are timed in ns, so this is for what surrounds a sample: switching the hops and
reading every host's counters takes some 0.1 s in the lab, and most of a run's time is to be inside
siege."""

LEAST_REQUESTS = 100
"""Quantiles need some connections, however slow: of 100, one lies above the 99th percentile."""


def warmup_of(cell: Cell) -> Cell:
    """Return what warms a cell up: the same with few requests."""
    most = max(WARMUP_REQUESTS, cell.concurrency)
    return replace(cell, requests=min(cell.requests or most, most))


def calibrated(sweep: Sweep, rates_per_s: Mapping[Cell, float | None]) -> Sweep:
    """Return the sweep with a number of requests for every cell that left it open.

    rates_per_s: transactions a second of each cell's warm-up, None where it had none. A twin makes
    as many as the cell it is held against.
    """

    def requests(cell: Cell) -> int:
        rate = rates_per_s.get(replace(cell, twin=False)) or 0.0
        wanted = min(int(rate * SAMPLE_S), MAX_REQUESTS)
        return _round(max(wanted, LEAST_REQUESTS, cell.concurrency))

    return replace(
        sweep,
        cells=tuple(
            cell if cell.requests else replace(cell, requests=requests(cell))
            for cell in sweep.cells
        ),
    )


def _round(number: int) -> int:
    """Round to two digits: nobody wants to read 2,847."""
    unit = int(10 ** max(0, len(str(number)) - 2))
    return max(unit, round(number / unit) * unit)
