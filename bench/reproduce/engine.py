# SPDX-License-Identifier: Apache-2.0
"""A whole reproduction: a lab, the loopback in it, the chain of hosts, the page; then nothing."""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bench import facts, runner
from bench.chain import Chain
from bench.ephemeral import ephemeral_chain
from bench.errors import BenchError
from bench.progress import RunProgress
from bench.reproduce import plan as plans
from bench.reproduce.host import make
from bench.reproduce.loopback import Clock, LoopbackPart
from bench.reproduce.plan import Plan
from bench.reproduce.record import CHAIN, LOOPBACK, Reproduction, Writer
from bench.results import Status

# What one more block of the chain has to fit in, beyond what the last one took.
_MARGIN = 1.15


class OutOfTime(KeyboardInterrupt):
    """A part has used up its time: it ends as when a user interrupts it."""


@dataclass(frozen=True)
class Outcome:
    """What came of a reproduction. page: None where none could be made; why: the reason."""

    path: Path
    page: Path | None
    lines: tuple[str, ...]
    why: str = ""


def reproduce(plan: Plan, output: Path, progress: RunProgress, began: float) -> Outcome:
    """Make a reproduction below `output`, its page last.

    Whatever ends it, what was measured is kept, reproduce.json says how it ended, and nothing else
    stays on this machine. Raises BenchError, also Interrupted, after the page was made.
    """
    writer = Writer.create(output, _values(plan))
    progress.phase(f"results: {writer.path}")
    status: Status = "failed"
    try:
        _measure(plan, writer, progress, Clock(began))
        status = "complete"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except BenchError as error:
        writer.note(f"failed: {error.one_line()}")
        raise
    finally:
        writer.finish(status)
        outcome = finish(writer.path)
        if status != "complete":
            progress.phase(f"what was measured is in {outcome.page or writer.path}")
    return outcome


def _values(plan: Plan) -> dict[str, Any]:
    return {
        "quick": plan.quick,
        "seed": plan.seed,
        "requests": plan.requests,
        "sizes_bytes": list(plan.sizes_bytes),
        "forwarders": list(plan.forwarders),
        "limits": plan.limits,
        "versions": facts.controller_versions(),
        "git_commit": facts.git_commit(),
    }


def _measure(plan: Plan, writer: Writer, progress: RunProgress, clock: Clock) -> None:
    with ephemeral_chain(max(plan.chain_forwarders), progress) as chain:
        progress.phase(f"ready after {clock.now_s:.0f} s")
        _loopback(plan, make(chain), writer, progress, clock)
        _chain(plan, chain, writer, progress, clock)


def _loopback(
    plan: Plan, chain: Chain, writer: Writer, progress: RunProgress, clock: Clock
) -> None:
    part = LoopbackPart(chain, plan, clock, progress, writer)
    run = part.begin(writer.path / LOOPBACK)
    writer.part(LOOPBACK, run.path)
    # Budgets keep it within its time; this is for what no budget foresees.
    with _time_limit(plan.loopback_until_s + plan.grace_s - clock.now_s) as over:
        part.run()
    if over():
        writer.cut("loopback: ended when its time was over")


def _chain(plan: Plan, chain: Chain, writer: Writer, progress: RunProgress, clock: Clock) -> None:
    left_s = plan.chain_until_s - clock.now_s
    if left_s < 1:
        writer.cut("chain of hosts: not begun, no time was left")
        return
    sweep = plans.chain_sweep(plan)
    # The first block is made in any case; `enough` asks for the others.
    first = plans.one_block(sweep)
    run = runner.begin(chain, first, writer.path / CHAIN, (), not plan.quick, None)
    writer.part(CHAIN, run.path)
    blocks = _Blocks(plan, clock, sweep.blocks)
    with _time_limit(left_s + plan.grace_s) as over:
        options = runner.Options(True, blocks.enough, resumable=False)
        runner.run(chain, first, run, progress, began=clock.began, options=options)
    if over():
        writer.cut(
            f"chain of hosts: ended when its time was over, after {blocks.made} of "
            f"{sweep.blocks} blocks"
        )
    elif blocks.made < sweep.blocks:
        writer.cut(plans.blocks_text("chain of hosts", blocks.made, sweep.blocks))


class _Blocks:
    """Whether the chain's blocks are enough, by what is left of the time."""

    def __init__(self, plan: Plan, clock: Clock, planned: int) -> None:
        self._plan, self._clock, self._planned = plan, clock, planned
        self._since_s, self._longest_s = clock.now_s, 0.0
        self.made = 0

    def enough(self, _run: Path) -> bool:
        """Asked after each block. The first took longer, for what came before it."""
        now_s = self._clock.now_s
        self._longest_s = now_s - self._since_s
        self._since_s = now_s
        self.made += 1
        fits = now_s + _MARGIN * self._longest_s <= self._plan.chain_until_s
        return self.made >= self._planned or not fits


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[Callable[[], bool]]:
    """Interrupt what is inside when the time is over, once, and go on after it.

    Yields what says whether that was so.
    """
    gone = False

    def stop(_number: int, _frame: object) -> NoReturn:
        nonlocal gone
        gone = True
        raise OutOfTime("out of time")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds))
    try:
        yield lambda: gone
    except OutOfTime:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def finish(path: Path) -> Outcome:
    """Make the page of what there is, and return it with the answer in lines."""
    try:
        page = importlib.import_module("bench.reproduce.page")
        answer = importlib.import_module("bench.reproduce.answer")
        found = Reproduction.open(path)
        made: Path = page.make(found)
        return Outcome(path, made, tuple(answer.lines(found)))
    except ModuleNotFoundError as error:
        return Outcome(path, None, (), f"no page was made: {error}")
    except BenchError as error:
        return Outcome(path, None, (), f"no page was made: {error.one_line()}")
