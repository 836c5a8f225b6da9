# SPDX-License-Identifier: Apache-2.0
"""A run: verify every way through the chain, warm up, then sample cell by cell, block by block."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import clocks, connections, facts
from bench.cells import Cell, Key
from bench.chain import Chain
from bench.errors import BenchError
from bench.fact_changes import changes
from bench.judging import judge, lost
from bench.lookover import look_over
from bench.progress import RunProgress
from bench.rawsample import RawSample
from bench.results import RunMeta, Sample, Status, Timing, describe_chain
from bench.runwriter import RunWriter, describe_sweep
from bench.session import Forwarding, Session, describe, forwarding_of
from bench.siege import transferred
from bench.sweep import Sweep, order
from bench.untilci import Until
from bench.warmup import calibrated, warmup_of

# As many samples that come to nothing in a row are no coincidence.
_MOST_FAILURES = 3

Enough = Callable[[Path], bool]
"""Whether the blocks that a run directory has suffice."""


@dataclass(frozen=True)
class Options:
    """How a run goes about it.

    timer: whether the client's kernel times each connection. enough: asked after the sweep's
    blocks whether another one is needed, None for as many as the sweep has. earlier: what a run
    that is resumed had used already. resumable: whether `bench run --resume` can go on with it.
    """

    timer: bool = True
    enough: Enough | None = None
    earlier: Timing = field(default_factory=Timing)
    resumable: bool = True


@dataclass
class _Clock:
    """Where the time of a run goes. began: time.monotonic() at the start of the command."""

    began: float
    earlier: Timing
    ready_s: float | None = None
    siege_s: float = 0.0

    def timing(self) -> Timing:
        return Timing(
            self.ready_s,
            self.siege_s + (self.earlier.siege_s or 0.0),
            time.monotonic() - self.began + (self.earlier.wall_s or 0.0),
        )


def begin(
    chain: Chain,
    sweep: Sweep,
    output: Path,
    notes: tuple[str, ...],
    aa: bool,
    until: Until | None,
) -> RunWriter:
    """Make the directory of a new run below `output`. Raises BenchError."""
    meta = RunMeta(
        sweep=sweep,
        versions=facts.controller_versions(),
        git_commit=facts.git_commit(),
        chain=describe_chain(chain),
        notes=notes,
        aa=aa,
        until_ci=until.record() if until else None,
    )
    return RunWriter.create(output, meta)


def run(
    chain: Chain,
    sweep: Sweep,
    writer: RunWriter,
    progress: RunProgress,
    *,
    began: float,
    options: Options,
) -> Path:
    """Measure what a run directory lacks of a sweep, on a deployed chain; return the directory.

    Whatever ends it, what was measured is kept, the run says how it ended, and the hosts are as
    they were. Raises BenchError, also Interrupted.
    """
    progress.phase(f"run {writer.run_id}")
    clock = _Clock(began, options.earlier)
    record: dict[str, Any] = {}
    status: Status = "failed"
    try:
        hops = max(cell.hops for cell in sweep.cells)
        modes = sorted({cell.mode for cell in sweep.cells})
        session = Session(chain, hops, modes, timer=options.timer)
        with _logged(session, writer), session:
            now = session.facts()
            # Of a run that is resumed, what its hosts were when it began counts.
            before = writer.recorded("host_facts") or now
            for text in changes(before, now):
                progress.phase(f"changed since the run began: {text}")
            found = look_over(chain, sweep, now, writer, progress)
            told = _note_clocks(session, writer)
            ways = _verify(session, sweep)
            clock.ready_s = time.monotonic() - began
            progress.phase(
                f"every payload verified through {ways} ways; ready after {clock.ready_s:.1f} s"
            )
            measuring = _Measuring(session, sweep, writer, progress, clock)
            measuring.warm_up()
            # How much there is to connect is known only now where requests were left open.
            look_over(chain, measuring.sweep, now, writer, progress, found)
            record["host_facts"] = _with_forwarders(before, session)
            writer.update(**record)
            measuring.blocks(options.enough)
            # What the run itself has set is no change.
            session.use_offloads("native")
            after = session.facts()
            moved = clocks.steps(told, _note_clocks(session, writer))
            record |= {"host_facts_after": after, "changes": [*changes(before, after), *moved]}
            for text in record["changes"]:
                progress.phase(f"changed meanwhile: {text}")
        status = "complete"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        writer.finish(status, timing=clock.timing(), **record)
        if status != "complete" and options.resumable:
            progress.phase(
                f"what was measured is in {writer.path}; "
                f"bench run --resume {writer.run_id} goes on with it"
            )
    return writer.path


def _note_clocks(session: Session, writer: RunWriter) -> dict[str, clocks.Reading]:
    """Read every host's clock, and write that down after what is there."""
    found = session.read_clocks()
    writer.update(clocks=[*writer.recorded("clocks"), clocks.record(found)])
    return found


def _with_forwarders(host_facts: dict[str, Any], session: Session) -> dict[str, Any]:
    """Return host facts with what the hosts said of forwarders and offloads when they set them."""
    said = {name: {"offloads": how} for name, how in session.offload_facts.items()}
    for name, forwarders in session.attach_facts.items():
        said.setdefault(name, {})["forwarders"] = forwarders
    return {name: {**each, **said.get(name, {})} for name, each in host_facts.items()}


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


def _verify(session: Session, sweep: Sweep) -> int:
    """Verify every way through the chain that the sweep takes; return how many there are."""
    ways = 0
    for offloads in dict.fromkeys(cell.offloads for cell in sweep.cells):
        session.use_offloads(offloads)
        for forwarding in _ways(cell for cell in sweep.cells if cell.offloads == offloads):
            session.verify(forwarding)
            ways += 1
    return ways


def _ways(cells: Iterable[Cell]) -> list[Forwarding]:
    """Return every way through the chain that cells take, longest chains first.

    The hops stay busy in the same mode from one to the next, so switching is cheap.
    """
    found = {forwarding_of(cell) for cell in cells}
    return sorted(found, key=lambda each: (each[0], each[1], -each[2]))


class _Measuring:
    """The samples of a run that are still to be made."""

    def __init__(
        self,
        session: Session,
        sweep: Sweep,
        writer: RunWriter,
        progress: RunProgress,
        clock: _Clock,
    ) -> None:
        self._session = session
        self.sweep = sweep
        self._writer = writer
        self._progress = progress
        self._clock = clock
        self._took_s: dict[Key, float] = {}
        # How long siege may take, as it did before, and failures since a sample succeeded.
        self._expected_s: dict[Key, float] = {}
        self._failures = 0

    def warm_up(self) -> None:
        """Sample every cell once for nothing but to warm the way up, and to find its requests.

        A run that is resumed is warmed up again: its hosts were doing something else meanwhile.
        """
        cells = order(self.sweep, 0)
        self._progress.phase(f"warming up: {len(cells)} cells")
        rates: dict[Cell, float | None] = {}
        done = sum(name.startswith("000-") for name in self._writer.sample_ids)
        for position, cell in enumerate(cells, start=done + 1):
            raw = self._sample(warmup_of(cell), 0, position)[0]
            if raw is None:
                continue
            rates[cell] = connections.rate_per_s(raw.records) if raw.records else None
            if rates[cell] is None and raw.wall_s:
                rates[cell] = warmup_of(cell).transactions / raw.wall_s
        self.sweep = calibrated(self.sweep, rates)
        known = {cell.key: rate for cell, rate in rates.items() if rate}
        self._expected_s = {
            cell.key: cell.transactions / known[cell.key]
            for cell in self.sweep.cells
            if cell.key in known
        }
        self._writer.update(**describe_sweep(self.sweep))

    def blocks(self, enough: Enough | None) -> None:
        """Make the sweep's blocks, and more of them until that is enough."""
        self._progress.start(self._missing(range(1, self.sweep.blocks + 1)))
        done = 0
        block = 1
        while block <= self.sweep.blocks:
            done = self._block(block, done)
            block += 1
            if block > self.sweep.blocks and enough and not enough(self._writer.path):
                self.sweep = replace(self.sweep, blocks=block)
                self._writer.update(**describe_sweep(self.sweep))
                self._progress.extend(self._missing([block]))

    def _missing(self, blocks: Sequence[int] | range) -> int:
        here = self._writer.sample_ids
        names = (
            f"{block:03d}-{position:04d}"
            for block in blocks
            for position in range(1, len(self.sweep.cells) + 1)
        )
        return sum(name not in here for name in names)

    def _block(self, block: int, done: int) -> int:
        cells = order(self.sweep, block)
        for position, cell in enumerate(cells, start=1):
            if f"{block:03d}-{position:04d}" in self._writer.sample_ids:
                continue
            begin = time.monotonic()
            _, sample = self._sample(cell, block, position)
            self._took_s[cell.key] = time.monotonic() - begin
            done += 1
            left_s = _left_s(self._took_s, cells[position:], self.sweep, block)
            self._progress.sample(done, _line(block, self.sweep.blocks, sample), left_s)
        return done

    def _sample(self, cell: Cell, block: int, position: int) -> tuple[RawSample | None, Sample]:
        """Make a sample and write it down; without what was seen where it came to nothing.

        Raises BenchError when the hosts cannot go on.
        """
        started_at = datetime.now(UTC)
        try:
            raw = self._session.sample(cell, expected_s=self._expected_s.get(cell.key))
        except BenchError as error:
            sample = lost(cell, block, position, started_at, error.one_line())
            self._writer.add_sample(sample, "")
            self._recover(error)
            return None, sample
        self._failures = 0
        if not raw.timed_out and cell.key in self._expected_s:
            self._expected_s[cell.key] = max(self._expected_s[cell.key], raw.wall_s)
        self._clock.siege_s += raw.wall_s
        sample = judge(cell, block, position, raw)
        timed = None
        if raw.records is not None:
            whole = sample.report is not None and transferred(sample.report, cell)
            timed = connections.columns(raw.records, cell.size_bytes if whole else None)
        self._writer.add_sample(sample, raw.stdout, timed, [host.row() for host in raw.hosts])
        return raw, sample

    def _recover(self, error: BenchError) -> None:
        """Go on after a sample that came to nothing, or raise why it did."""
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            raise error
        self._progress.phase(f"a sample is lost: {error.one_line()}")
        try:
            self._session.recover()
        except BenchError:
            raise error from None


def _left_s(took_s: Mapping[Key, float], rest: Sequence[Cell], sweep: Sweep, block: int) -> float:
    """Estimate the time to the end: cells take as long as before, unknown ones the mean."""
    mean_s = sum(took_s.values()) / len(took_s)
    this_block = sum(took_s.get(cell.key, mean_s) for cell in rest)
    a_block = sum(took_s.get(cell.key, mean_s) for cell in sweep.cells)
    return this_block + a_block * (sweep.blocks - block)


def _line(block: int, blocks: int, sample: Sample) -> str:
    cell = sample.cell
    again = ", again" if cell.twin else ""
    where = (
        f"block {block}/{blocks} {describe(forwarding_of(cell))}{again}, "
        f"{cell.size_bytes} B, c={cell.concurrency}"
    )
    if not sample.valid or sample.report is None:
        return f"{where}: invalid, {sample.invalid_reason}"
    report = sample.report
    if not report.elapsed_s:
        return f"{where}: below siege's clock tick"
    return f"{where}: {report.transactions / report.elapsed_s:.0f} transactions/s"
