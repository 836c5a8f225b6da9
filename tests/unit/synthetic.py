# SPDX-License-Identifier: Apache-2.0
"""Reports, samples and run directories made of numbers a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.cells import Cell
from bench.results import RunMeta, Sample, Status, Timing
from bench.runs import RunReader
from bench.runwriter import RunWriter
from bench.siege import SiegeReport
from bench.sweep import Sweep

START = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)


def report(cell: Cell, elapsed_s: float, failed: int = 0) -> SiegeReport:
    """Return what siege would say of a sample that took `elapsed_s`."""
    done = cell.transactions - failed
    return SiegeReport(
        transactions=done,
        availability_percent=100.0 * done / cell.transactions,
        elapsed_s=elapsed_s,
        data_mb=round(done * cell.size_bytes / 2**20, 2),
        response_s=0.0,
        transaction_rate_per_s=0.0,
        throughput_mb_per_s=0.0,
        concurrency_mean=1.0,
        successful=done,
        failed=failed,
        longest_s=0.01,
        shortest_s=0.0,
    )


def sample(cell: Cell, block: int = 1, position: int = 1, elapsed_s: float = 1.0) -> Sample:
    """Return a valid sample."""
    started = START + timedelta(minutes=block, seconds=position)
    return Sample(cell, block, position, started, report(cell, elapsed_s))


def connections(
    count: int,
    response_us: float,
    *,
    connect_us: float | None = None,
    users: int = 1,
    spread: float = 0.0,
    failed: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Return connections as connections.parquet has them.

    Each begins when one of the `users` is free again. connect_us: half the response time unless
    given. spread: standard deviation of the logarithm of their times; 0: all take the same.
    failed: so many of them, the last, are never established.
    """
    factor = np.exp(spread * np.random.default_rng(seed).standard_normal(count))
    lost = np.arange(count) >= count - failed
    end = np.where(lost, "failed", "server")
    return {
        "start_s": np.arange(count) // users * (response_us / 1e6),
        "connect_us": np.where(lost, np.nan, factor * (connect_us or response_us / 2)),
        "response_us": np.where(lost, np.nan, factor * response_us),
        "end": end.tolist(),
        "failed_us": np.where(lost, 3e6, np.nan),
        "port": (32768 + np.arange(count) % 28000).astype(np.uint16),
        "bytes": np.full(count, 624),
    }


def write_run(
    results_dir: Path,
    cells: Iterable[Cell],
    elapsed_s: Callable[[Cell, int], float | Sample],
    *,
    blocks: int = 6,
    warmups: bool = False,
    connections: Callable[[Cell, int], dict[str, Any] | None] | None = None,
    status: Status = "complete",
    timing: Timing | None = None,
    now: datetime = START,
    **meta: Any,
) -> Path:
    """Write a run; `elapsed_s` gives the seconds of a cell's sample in a block, or the sample.

    warmups: whether there is a block 0. connections: gives those of a cell's sample in a block,
    None for none. meta: more values of run.json.
    """
    sweep = Sweep(tuple(cells), blocks, seed=1)
    writer = RunWriter.create(results_dir, RunMeta(sweep), now=now)
    writer.update(**meta)
    for block in range(0 if warmups else 1, blocks + 1):
        for position, cell in enumerate(sweep.cells, start=1):
            value = elapsed_s(cell, block)
            made = value if isinstance(value, Sample) else sample(cell, block, position, value)
            writer.add_sample(made, "{}", connections(cell, block) if connections else None)
    if status != "running":
        writer.finish(status, timing=timing, now=now + timedelta(hours=1))
    return writer.path


def read_run(path: Path) -> RunReader:
    """Read a run back by its path."""
    return RunReader.open(path, path.parent)


def tree(path: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
