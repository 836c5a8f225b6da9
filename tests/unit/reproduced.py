# SPDX-License-Identifier: Apache-2.0
"""Reproductions made of numbers a test chooses, as the command leaves them on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import START, read_run, report

from bench.cells import Cell
from bench.reproduce.record import Reproduction, Writer
from bench.results import RunMeta, Sample
from bench.runs import RunReader
from bench.runwriter import RunWriter
from bench.sweep import Sweep

SIZES = (312, 4992)
FORWARDERS = (1, 2)


@dataclass(frozen=True)
class Made:
    """A sample to be: its connections' times in µs (NaN: never open), counters, and what siege
    says. elapsed_s: None for the sum of the times. reported: whether siege left a report."""

    connect_us: tuple[float, ...]
    counters: Mapping[str, float] = field(default_factory=dict)
    elapsed_s: float | None = None
    failed: int | None = None
    reported: bool = True
    reason: str | None = None
    timed: bool = True


def smooth(number: int = 100, connect_us: float = 40.0, **counters: float) -> Made:
    """Return a sample whose connections are all prompt."""
    return Made((connect_us,) * number, counters)


def faulty(
    prompt: int = 30, one: int = 40, three: int = 5, never: int = 25, **counters: float
) -> Made:
    """Return a sample with so many connections at each step, and the counters that go with it."""
    times = (40.0,) * prompt + (1.03e6,) * one + (3.05e6,) * three + (np.nan,) * never
    waits = one + 2 * three + 3 * never
    known = {
        "TcpExtTCPSynRetrans": waits,
        "TcpExtPAWSEstab": one + three + never,
        "TcpInCsumErrors": waits,
        "tcp_time_wait": 1,
        "cpu_user_s": 0.2,
        "cpu_system_s": 0.3,
        "cpu_softirq_s": 0.05,
        "cpu_idle_s": 200.0,
        "forwarder_seen": 900,
    }
    return Made(times, {**known, **counters})


Choice = Callable[[Cell, int], Made | None]


def loopback_cells(
    sizes: Iterable[int] = SIZES, forwarders: Iterable[int] = FORWARDERS
) -> list[Cell]:
    """Return the cells of the loopback's run."""
    cells = [Cell("direct", "", 0, size, 1, 100) for size in sizes]
    for mode, attach in (("socat", ""), ("legacy", "generic"), ("xdp", "generic")):
        cells += [Cell(mode, attach, hops, size, 1, 100) for hops in forwarders for size in sizes]
    return cells


def chain_cells(sizes: Iterable[int] = SIZES, forwarders: Iterable[int] = FORWARDERS) -> list[Cell]:
    """Return the cells of the chain's run."""
    cells = [Cell("direct", "", 0, size, 1, 100) for size in sizes]
    for mode, attach in (("socat", ""), ("nft", ""), ("xdp", "native")):
        cells += [Cell(mode, attach, hops, size, 1, 100) for hops in forwarders for size in sizes]
    return cells


COST_US = {"direct": 0.0, "socat": 500.0, "nft": 25.0, "xdp": 4.0, "legacy": 4.0}


def usual(cell: Cell, block: int) -> Made:
    """Return what is expected: the filter of the report waits, the others do not."""
    if cell.mode == "legacy":
        return faulty()
    connect_us = 30 + block / 10 + cell.hops * COST_US[cell.mode]
    return smooth(
        cell.requests,
        connect_us,
        TcpExtTCPSynRetrans=0,
        TcpInCsumErrors=0,
        TcpExtPAWSEstab=0,
        tcp_time_wait=100,
        cpu_user_s=0.01,
        cpu_idle_s=0.02,
    )


def write_part(folder: Path, cells: Iterable[Cell], choice: Choice, blocks: int) -> RunReader:
    """Write a run of what is chosen for each cell and block, None for no sample."""
    sweep = Sweep(tuple(cells), blocks, seed=1)
    writer = RunWriter.create(folder, RunMeta(sweep), now=START)
    for block in range(1, blocks + 1):
        for position, cell in enumerate(sweep.cells, start=1):
            made = choice(cell, block)
            if made is not None:
                _add(writer, cell, block, position, made)
    writer.finish("complete")
    return read_run(writer.path)


def _add(writer: RunWriter, cell: Cell, block: int, position: int, made: Made) -> None:
    connect_us = np.array(made.connect_us, float)
    never = np.isnan(connect_us)
    failed_us = np.where(never, 3e6, np.nan)
    response_us = 2 * connect_us
    taken_us = np.where(never, failed_us, response_us)
    failed = int(never.sum()) if made.failed is None else made.failed
    elapsed_s = float(taken_us.sum() / 1e6) if made.elapsed_s is None else made.elapsed_s
    begun = len(connect_us)
    said = replace(
        report(cell, elapsed_s),
        transactions=begun - failed,
        successful=begun - failed,
        failed=failed,
    )
    reason = made.reason
    if reason is None:
        reason = f"{failed} of {cell.requests} requests failed" if failed else ""
        reason = reason if made.reported else "siege was cut off after 60 s"
    sample = Sample(
        cell,
        block,
        position,
        START,
        said if made.reported else None,
        reason,
        wall_s=elapsed_s + 0.01,
    )
    connections = {
        "start_s": np.concatenate([[0.0], np.cumsum(taken_us)[:-1] / 1e6])[:begun],
        "connect_us": connect_us,
        "response_us": response_us,
        "end": np.where(never, "failed", "server").tolist(),
        "failed_us": failed_us,
        "port": (32768 + np.arange(begun)).astype(np.uint16),
        "bytes": np.full(begun, cell.size_bytes),
    }
    rows = [{"host": "loopback", "role": "client", **made.counters}] if made.counters else []
    writer.add_sample(sample, "{}", connections if made.timed else None, rows)


def write_reproduction(
    output: Path,
    *,
    loopback: Choice | None = usual,
    chain: Choice | None = usual,
    status: str = "complete",
    cells: Iterable[Cell] | None = None,
    chain_of: Iterable[Cell] | None = None,
    blocks: int = 1,
    chain_blocks: int = 6,
    **values: Any,
) -> Reproduction:
    """Write a reproduction's folder and read it back; None for a part that was not begun."""
    known: dict[str, Any] = {
        "quick": False,
        "seed": 7,
        "requests": 100,
        "sizes_bytes": list(SIZES),
        "forwarders": list(FORWARDERS),
        "limits": {"timeout_s": 10, "sample_s": 120, "total_s": 1800},
        "versions": {"hopbench": "0.1"},
        "git_commit": "abc",
    }
    late = {key: values.pop(key) for key in ("cut", "notes", "machine") if key in values}
    writer = Writer.create(output, {**known, **values}, now=START)
    writer.update(machine={"kernel": "6.18", "cpus": 2, "model": "made up"})
    writer.update(**late)
    if loopback is not None:
        own = loopback_cells() if cells is None else cells
        run = write_part(writer.path / "loopback", own, loopback, blocks)
        writer.part("loopback", run.path)
    if chain is not None:
        own = chain_cells() if chain_of is None else chain_of
        run = write_part(writer.path / "chain", own, chain, chain_blocks)
        writer.part("chain", run.path)
    if status != "running":
        writer.finish(status)  # type: ignore[arg-type]
    return Reproduction.open(writer.path)
