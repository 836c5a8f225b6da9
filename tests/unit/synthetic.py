# SPDX-License-Identifier: Apache-2.0
"""Reports, samples and run directories made of numbers a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.cells import Cell
from bench.results import RunMeta, RunWriter, Sample, Status, Timing
from bench.runs import RunReader
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


def write_run(
    results_dir: Path,
    cells: Iterable[Cell],
    elapsed_s: Callable[[Cell, int], float | Sample],
    *,
    blocks: int = 6,
    status: Status = "complete",
    timing: Timing | None = None,
    now: datetime = START,
) -> Path:
    """Write a run; `elapsed_s` gives the seconds of a cell's sample in a block, or the sample."""
    sweep = Sweep(tuple(cells), blocks, seed=1)
    writer = RunWriter.create(results_dir, RunMeta(sweep), now=now)
    for block in range(1, blocks + 1):
        for position, cell in enumerate(sweep.cells, start=1):
            value = elapsed_s(cell, block)
            made = value if isinstance(value, Sample) else sample(cell, block, position, value)
            writer.add_sample(made, "{}")
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
