# SPDX-License-Identifier: Apache-2.0
"""What is left when no cause was found: failures must not pass in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.causes.model import Cause, cause, counted, level
from bench.causes.observed import Observed


def timer_losses(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when the connection timer saw less than siege made.

    Either it had no room, or the kernel did not run it where a socket changed its state.
    """
    missed = {
        sample: each.lost + each.untimed + _unseen(observed, sample)
        for sample, each in observed.samples.items()
    }
    missed = {sample: number for sample, number in missed.items() if number}
    if missed:
        room = sum(each.lost for each in observed.samples.values())
        yield cause(
            observed,
            "timer_losses",
            "Connections not timed",
            level(sum(missed.values()), observed.connections(missed)),
            f"the timer missed what became of {counted(sum(missed.values()), 'connection')}",
            [f"{observed.client}: no room for {counted(room, 'event')}"] if room else [],
            "samples with losses are invalid and left out; where there was no room, lower "
            "--requests or --concurrency",
            hosts=[observed.client],
            samples=missed,
        )


def _unseen(observed: Observed, sample: str) -> int:
    """Return how many connections only seem never established: siege had an answer to them."""
    each = observed.samples[sample]
    if not each.reported:
        return 0
    return max(0, len(observed.unanswered_us.get(sample, ())) - each.failed)


def failures(observed: Observed, found: Iterable[Cause]) -> Iterator[Cause]:
    """Yield the cause of last resort: failed requests in samples that no problem found explains."""
    explained = {sample for each in found if each.level == "problem" for sample in each.samples}
    failed = {
        sample: each.failed if each.reported else len(observed.unanswered_us.get(sample, ()))
        for sample, each in observed.samples.items()
        if sample not in explained
    }
    failed = {sample: number for sample, number in failed.items() if number}
    if failed:
        yield cause(
            observed,
            "failed_requests",
            "Failed requests, cause not found",
            "problem",
            f"{counted(sum(failed.values()), 'request')} failed and no counter says why",
            _attempts(observed, failed),
            "see siege's words in raw/siege and the agents' in raw/agents",
            hosts=[],
            samples=failed,
        )


def _attempts(observed: Observed, samples: Iterable[str]) -> list[str]:
    never = sum(len(observed.unanswered_us.get(sample, ())) for sample in samples)
    return [f"{observed.client}: {counted(never, 'connection')} never established"] if never else []
