# SPDX-License-Identifier: Apache-2.0
"""What is left when no cause was found: failures must not pass in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.causes.model import Cause, cause, counted
from bench.causes.observed import Observed


def timer_losses(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when the connection timer had no room for what it saw."""
    lost = {sample: each.lost for sample, each in observed.samples.items() if each.lost}
    if lost:
        yield cause(
            observed,
            "timer_losses",
            "Connections not timed",
            "problem",
            f"the connection timer had no room for {counted(sum(lost.values()), 'event')}",
            [],
            "lower --requests or --concurrency; samples with losses are invalid",
            hosts=[observed.client],
            samples=lost,
        )


def failures(observed: Observed, found: Iterable[Cause]) -> Iterator[Cause]:
    """Yield the cause of last resort: failed requests in samples that no problem found explains."""
    explained = {sample for each in found if each.level == "problem" for sample in each.samples}
    failed = {
        sample: each.failed + len(observed.unanswered_us.get(sample, ()))
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
