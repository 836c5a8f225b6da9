# SPDX-License-Identifier: Apache-2.0
"""The loopback part of a reproduction: a run directory, filled cell by cell within its time."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import connections, facts
from bench.cells import Cell
from bench.chain import Chain
from bench.errors import BenchError
from bench.judging import judge
from bench.progress import RunProgress
from bench.rawsample import RawSample
from bench.reproduce import plan as plans
from bench.reproduce.host import LoopbackSession
from bench.reproduce.plan import LEGACY, LEGACY_MODES, TODAY, Plan
from bench.reproduce.record import Writer
from bench.results import RunMeta, Status, Timing, describe_chain
from bench.runwriter import RunWriter, describe_sweep
from bench.siege import transferred
from bench.sweep import Sweep, order

NOTES = (
    "all on one namespace's lo: server on port 8000, forwarders on the ports before it",
    "legacy: the 2022 filter with tcp_timestamps=2, which takes all timestamps from one clock, as "
    "the kernels of its time did between two addresses; legacy-today: with this kernel's own",
    "in each block the 2022 filter comes last: connections it could not end go on for a minute",
)
# What reproduce.json says of the machine; the runs have all that is known.
_MACHINE = ("kernel", "os", "architecture", "cpu", "cpus", "virtualisation")


@dataclass
class Clock:
    """What time there is. began: time.monotonic() at the start of the command."""

    began: float
    siege_s: float = 0.0

    @property
    def now_s(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.began


@dataclass
class LoopbackPart:
    """One loopback run while it is made."""

    chain: Chain
    plan: Plan
    clock: Clock
    progress: RunProgress
    writer: Writer
    sweep: Sweep = field(init=False)
    _done: int = 0

    def __post_init__(self) -> None:
        self.sweep = plans.loopback_sweep(self.plan)

    def begin(self, folder: Path) -> RunWriter:
        """Make the run directory below a folder. Raises BenchError."""
        meta = RunMeta(
            sweep=self.sweep,
            versions=facts.controller_versions(),
            git_commit=facts.git_commit(),
            chain=describe_chain(self.chain),
            notes=NOTES,
        )
        self._writer = RunWriter.create(folder, meta)
        return self._writer

    def run(self) -> None:
        """Measure; the run says how it ended. Raises BenchError."""
        status: Status = "failed"
        record: dict[str, Any] = {}
        try:
            session = LoopbackSession(self.chain)
            with self._logged(session), session:
                found = session.facts()
                record["host_facts"] = found
                machine = found[self.chain.client.name]
                self.writer.update(machine={key: machine.get(key) for key in _MACHINE})
                self._verify(session)
                self._measure(session)
                record["host_facts"] = {
                    self.chain.client.name: {**machine, "forwarders": session.said}
                }
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            timing = Timing(None, self.clock.siege_s, self.clock.now_s)
            self._writer.finish(status, timing=timing, **record)

    @contextlib.contextmanager
    def _logged(self, session: LoopbackSession) -> Iterator[None]:
        try:
            yield
        finally:
            with contextlib.suppress(BenchError):
                for host, text in session.transcripts().items():
                    self._writer.add_log(host, text)

    def _verify(self, session: LoopbackSession) -> None:
        ways = dict.fromkeys(
            (cell.mode, cell.hops) for cell in self.sweep.cells if cell.mode not in LEGACY_MODES
        )
        for mode, forwarders in ways:
            session.verify(mode, forwarders)
        self.progress.phase(f"loopback: every payload verified through {len(ways)} ways")

    def _measure(self, session: LoopbackSession) -> None:
        others = [cell for cell in self.sweep.cells if cell.mode not in LEGACY_MODES]
        made, block_s, planned = 0, 0.0, self.sweep.blocks
        for block in range(1, planned + 1):
            begin = self.clock.now_s
            if made and begin + block_s > self.plan.others_until_s:
                break
            left = self._others(
                session, block, [c for c in order(self.sweep, block) if c in others]
            )
            if left and not made:
                self.writer.cut(plans.left_out_text("loopback", left))
            made, block_s = made + 1, self.clock.now_s - begin
            if left:
                break
        if made < planned:
            self.writer.cut(plans.blocks_text("loopback, but for the 2022 filter", made, planned))
            self._set_sweep(replace(self.sweep, blocks=made))
        self._legacy(session)
        self._today(session)

    def _others(self, session: LoopbackSession, block: int, cells: Sequence[Cell]) -> list[Cell]:
        """Measure a block's quick cells; return those for which no time was left."""
        for at, cell in enumerate(cells):
            if self.clock.now_s > self.plan.others_until_s:
                return list(cells[at:])
            self._sample(session, cell, block, self.plan.sample_s)
        return []

    def _legacy(self, session: LoopbackSession) -> None:
        cells = plans.legacy_order(tuple(c for c in self.sweep.cells if c.mode == LEGACY))
        until_s = self.plan.loopback_until_s - self.plan.today_s
        asked, pace_s = self.plan.requests, None
        spent_s, requests, fewer, left_out = 0.0, 0, [], []
        for at, cell in enumerate(cells):
            left_s = until_s - self.clock.now_s
            # The smallest payload's cells get all of their requests where there is time enough.
            first = not self.plan.quick and cell.size_bytes == cells[0].size_bytes
            many = 1 if first else len(cells) - at
            count = plans.affordable(asked, left_s, many, pace_s)
            if not count:
                left_out.append(cell)
                continue
            self._set_sweep(*(pair := plans.with_requests(self.sweep, cell, count))[:1])
            # Luck may double it; what was begun is worth that.
            most_s = max(left_s, 2 * count * (pace_s or 0.0))
            limit_s = max(self.plan.timeout_s, min(self.plan.sample_s, math.ceil(most_s)))
            raw = self._sample(session, pair[1], 1, limit_s)
            spent_s, requests = spent_s + raw.wall_s, requests + max(1, raw.timed or 0)
            pace_s = spent_s / requests
            if count < asked:
                fewer.append(pair[1])
        if fewer:
            self.writer.cut(plans.few_requests_text(fewer, asked))
        if left_out:
            self.writer.cut(plans.left_out_text("the 2022 filter on loopback", left_out))

    def _today(self, session: LoopbackSession) -> None:
        cells = [cell for cell in self.sweep.cells if cell.mode == TODAY]
        for at, cell in enumerate(cells):
            left_s = self.plan.loopback_until_s - self.clock.now_s
            limit_s = int(min(self.plan.sample_s, left_s / (len(cells) - at)))
            if limit_s < self.plan.timeout_s:
                self.writer.cut(
                    plans.left_out_text("the 2022 filter, today's timestamps", cells[at:])
                )
                return
            self._sample(session, cell, 1, limit_s)

    def _set_sweep(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._writer.update(**describe_sweep(sweep))

    def _sample(self, session: LoopbackSession, cell: Cell, block: int, limit_s: int) -> RawSample:
        raw = session.sample(cell, limit_s, self.plan.timeout_s)
        self.clock.siege_s += raw.wall_s
        position = 1 + order(self.sweep, block).index(cell)
        judged = judge(cell, block, position, _to_judge(cell, raw))
        sample = replace(judged, timed=raw.timed, lost=raw.lost)
        whole = sample.report is not None and transferred(sample.report, cell)
        timed = connections.columns(raw.records or b"", cell.size_bytes if whole else None)
        rows = [host.row() for host in raw.hosts]
        self._writer.add_sample(sample, raw.stdout, timed, rows)
        if raw.timed_out:
            self.writer.cut(
                f"loopback, {_where(cell)}: cut off after {raw.wall_s:.0f} s with {raw.timed} of "
                f"{cell.transactions} requests made"
            )
        self._done += 1
        said = sample.invalid_reason or f"{raw.wall_s:.2f} s for {cell.transactions} requests"
        self.progress.phase(f"loopback {self._done}: {_where(cell)}: {said}")
        return raw


def _where(cell: Cell) -> str:
    way = f", {cell.hops} forwarder{'s' * (cell.hops > 1)}" if cell.hops else ""
    return f"{cell.label}{way}, {cell.size_bytes} B"


def _to_judge(cell: Cell, raw: RawSample) -> RawSample:
    """Return a sample with what can be judged of its counters.

    Segments that the client's side has sent are not told from those of everybody else on `lo`.
    The 2022 filter counts no connections, and one that never opens is what is to be seen of it:
    there, siege's own account decides.
    """
    client, *hops = raw.hosts
    if cell.mode in LEGACY_MODES:
        return replace(raw, hosts=(client,), timed=None, lost=None, records=None)
    counted = tuple(
        replace(hop, forwarder={"flows_opened": hop.forwarder["flows_opened"]}) for hop in hops
    )
    return replace(raw, hosts=(client, *counted))
