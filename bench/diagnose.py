# SPDX-License-Identifier: Apache-2.0
"""Causes of a run's odd numbers, with their evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from bench import tables
from bench.causes import capacity, connecting, hosts, losses, offloads, rest
from bench.causes.model import Cause as Cause
from bench.causes.model import joined
from bench.causes.observed import CONNECTION_COLUMNS, Observed, observe
from bench.runs import RunReader

CAUSES: tuple[Callable[[Observed], Iterator[Cause]], ...] = (
    connecting.time_wait_collision,
    losses.checksum_corruption,
    connecting.listen_overflow,
    losses.queue_drops,
    capacity.conntrack_full,
    capacity.port_exhaustion,
    connecting.syn_retransmission,
    offloads.offload_mismatch,
    hosts.cpu_saturated,
    hosts.cpu_steal,
    rest.timer_losses,
)
"""What is looked for; each yields its cause once or not at all."""

# Of the samples with repeated SYNs, how many another cause has to be seen in to explain them.
_EXPLAINED = 0.8
_SYMPTOM = "syn_retransmission"
_REASONS = frozenset(
    [
        *("time_wait_collision", "checksum_corruption", "listen_overflow", "queue_drops"),
        *("conntrack_full", "port_exhaustion"),
    ]
)


def diagnose(run: RunReader) -> list[Cause]:
    """Return the causes of a run's odd numbers, problems before notes, most samples first.

    Warm-ups and invalid samples are looked at like all others. Takes a second for five million
    connections. Raises BenchError when a file is damaged.
    """
    counters = tables.read_counters(run.path)
    connections = tables.read_connections(run.path, CONNECTION_COLUMNS)
    return causes(observe(run.samples, counters, connections, run.meta))


def causes(observed: Observed) -> list[Cause]:
    """Return the causes that are seen in what was observed, in the order of `diagnose`."""
    found = [each for look in CAUSES for each in look(observed)]
    found += rest.failures(observed, found)
    # Ties keep the order of CAUSES, which has reasons before what follows from them.
    return sorted(_explained(found), key=lambda each: (each.level != "problem", -len(each.samples)))


def _explained(found: Iterable[Cause]) -> Iterator[Cause]:
    """Yield the causes, that SYNs were sent again as a note where another one says why."""
    others = {each.name: each for each in found if each.name in _REASONS}
    for each in found:
        reasons = [
            other
            for other in others.values()
            if each.name == _SYMPTOM and set(each.samples) & set(other.samples)
        ]
        covered = {sample for other in reasons for sample in other.samples} & set(each.samples)
        if reasons and len(covered) >= _EXPLAINED * len(each.samples):
            titles = joined([other.title for other in reasons])
            yield replace(each, level="note", text=f"{each.text}; this goes with: {titles}")
        else:
            yield each
