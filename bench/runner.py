# SPDX-License-Identifier: Apache-2.0
"""A run: verify every way through the chain, then sample cell by cell, block by block."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import facts
from bench.cells import Cell
from bench.chain import Chain
from bench.errors import BenchError
from bench.progress import RunProgress
from bench.results import RunMeta, RunWriter, Sample, Status, Timing, describe_chain
from bench.session import Forwarding, RawSample, Session, describe, forwarding_of
from bench.siege import invalid_reason, parse_report
from bench.sweep import Sweep, order

# The share of a sample's connections that every hop must have counted.
_CARRIED = 0.99
# By how much the packets may differ that client and hops counted: SSH and the like of the client's
# own, and what was still under way when the counters were read.
_PACKETS_SHARE, _PACKETS_FEW = 0.02, 20


@dataclass
class _Clock:
    """Where the time of a run goes. began: time.monotonic() at the start of the command."""

    began: float
    ready_s: float | None = None
    siege_s: float = 0.0

    def timing(self) -> Timing:
        return Timing(self.ready_s, self.siege_s, time.monotonic() - self.began)


def run(
    chain: Chain,
    sweep: Sweep,
    output: Path,
    progress: RunProgress,
    *,
    began: float,
    notes: tuple[str, ...] = (),
) -> Path:
    """Measure a sweep on a deployed chain and return the run's directory.

    Whatever ends it, what was measured is kept, the run says how it ended, and the hosts are as
    they were. Raises BenchError, also Interrupted.
    """
    meta = RunMeta(
        sweep=sweep,
        versions=facts.controller_versions(),
        git_commit=facts.git_commit(),
        chain=describe_chain(chain),
        notes=notes,
    )
    writer = RunWriter.create(output, meta)
    progress.phase(f"run {writer.run_id}")
    clock = _Clock(began)
    host_facts: dict[str, Any] = {}
    status: Status = "failed"
    try:
        hops = max(cell.hops for cell in sweep.cells)
        modes = sorted({cell.mode for cell in sweep.cells})
        session = Session(chain, hops, modes)
        with _logged(session, writer), session:
            host_facts = session.facts()
            for name, forwarders in session.attach_facts.items():
                host_facts[name]["forwarders"] = forwarders
            for forwarding in _forwardings(sweep):
                session.verify(forwarding)
            clock.ready_s = time.monotonic() - began
            progress.phase(
                f"every payload verified through {len(_forwardings(sweep))} ways; "
                f"ready after {clock.ready_s:.1f} s"
            )
            _measure(session, sweep, writer, progress, clock)
        status = "complete"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        writer.finish(status, timing=clock.timing(), host_facts=host_facts)
        if status != "complete":
            progress.phase(f"what was measured is in {writer.path}")
    return writer.path


@contextlib.contextmanager
def _logged(session: Session, writer: RunWriter) -> Iterator[None]:
    """Keep what was said with every agent, however the session ends."""
    try:
        yield
    finally:
        # Where that cannot be written, run.json cannot either, and says so.
        with contextlib.suppress(BenchError):
            for host, text in session.transcripts().items():
                writer.add_log(host, text)


def _forwardings(sweep: Sweep) -> list[Forwarding]:
    """Return every way through the chain that the sweep takes, longest chains first.

    The hops stay busy in the same mode from one to the next, so switching is cheap.
    """
    found = {forwarding_of(cell) for cell in sweep.cells}
    return sorted(found, key=lambda each: (each[0], each[1], -each[2]))


def _measure(
    session: Session, sweep: Sweep, writer: RunWriter, progress: RunProgress, clock: _Clock
) -> None:
    total = sweep.blocks * len(sweep.cells)
    progress.start(total)
    took_s: dict[Cell, float] = {}
    done = 0
    for block in range(1, sweep.blocks + 1):
        cells = order(sweep, block)
        for position, cell in enumerate(cells, start=1):
            begin = time.monotonic()
            raw = session.sample(cell)
            clock.siege_s += raw.wall_s
            sample = _judge(cell, block, position, raw)
            writer.add_sample(sample, raw.stdout)
            took_s[cell] = time.monotonic() - begin
            done += 1
            left_s = _left_s(took_s, cells[position:], sweep, block)
            progress.sample(done, _line(block, sweep.blocks, sample), left_s)


def _judge(cell: Cell, block: int, position: int, raw: RawSample) -> Sample:
    """Return the sample, valid or with the reason why it is not."""
    report, reason = None, ""
    try:
        report = parse_report(raw.stdout)
    except BenchError as error:
        reason = error.one_line()
    if raw.timed_out:
        reason = f"siege was cut off after {raw.wall_s:.0f} s"
    elif report is not None:
        reason = invalid_reason(report, cell) or _path_reason(cell, raw)
        if not reason and raw.status:
            reason = f"siege ended with status {raw.status}"
    started_at = datetime.fromtimestamp(raw.started_at, UTC)
    return Sample(cell, block, position, started_at, report, reason)


def _path_reason(cell: Cell, raw: RawSample) -> str:
    """Return why the hops' counters say that the traffic went elsewhere, or nothing.

    nft counts where it makes a new translation, and conntrack may let a port that comes back early
    use the old one: a few in ten thousand go uncounted. A detour would show as none at all.
    """
    for number, flows in enumerate(raw.flows, start=1):
        if flows < _CARRIED * cell.transactions:
            return f"hop {number} carried {flows} of {cell.transactions} connections"
    return _packets_reason(raw)


def _packets_reason(raw: RawSample) -> str:
    """Return where packets got lost or came from, going by the hops that count them, or nothing."""
    before, sent, back = "the client", raw.segments_sent, None
    for number, counted in enumerate(raw.counted, start=1):
        if "forwarded_packets" not in counted:
            return ""
        forwarded, returned = counted["forwarded_packets"], counted["returned_packets"]
        here = f"hop {number}"
        if not _reconcile(sent, forwarded):
            return f"{before} sent {sent} packets, {here} forwarded {forwarded}"
        if back is not None and not _reconcile(returned, back):
            return f"{here} returned {returned} packets, {before} returned {back}"
        before, sent, back = here, forwarded, returned
    return ""


def _reconcile(one: int, other: int) -> bool:
    return abs(one - other) <= _PACKETS_FEW + _PACKETS_SHARE * max(one, other)


def _left_s(took_s: dict[Cell, float], rest: list[Cell], sweep: Sweep, block: int) -> float:
    """Estimate the time to the end: cells take as long as before, unknown ones the mean."""
    mean_s = sum(took_s.values()) / len(took_s)
    this_block = sum(took_s.get(cell, mean_s) for cell in rest)
    a_block = sum(took_s.get(cell, mean_s) for cell in sweep.cells)
    return this_block + a_block * (sweep.blocks - block)


def _line(block: int, blocks: int, sample: Sample) -> str:
    cell = sample.cell
    where = (
        f"block {block}/{blocks} {describe(forwarding_of(cell))}, "
        f"{cell.size_bytes} B, c={cell.concurrency}"
    )
    if not sample.valid or sample.report is None:
        return f"{where}: invalid, {sample.invalid_reason}"
    report = sample.report
    if not report.elapsed_s:
        return f"{where}: below siege's clock tick"
    return f"{where}: {report.transactions / report.elapsed_s:.0f} transactions/s"
