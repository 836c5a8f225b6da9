# SPDX-License-Identifier: Apache-2.0
"""Whether a sample counts: every transaction, over the path claimed, on undisturbed hosts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from bench import connections
from bench.cells import Cell
from bench.counters import HostDelta
from bench.errors import BenchError
from bench.rawsample import RawSample
from bench.results import Sample
from bench.siege import SiegeReport, invalid_reason, parse_report

# The share of a sample's connections that every hop must have counted.
_CARRIED = 0.99
# By how much the packets may differ that client and hops counted: SSH and the like of the client's
# own, and what was still under way when the counters were read.
_PACKETS_SHARE, _PACKETS_FEW = 0.02, 20
# CPU time that a hypervisor gave to others: of all there was, and more than two ticks of 10 ms.
_STEAL_SHARE, _STEAL_S = 0.05, 0.025
# NTP slews by at most 0.05 % (adjtimex(2)); what goes beyond that and this was set.
_SLEW, _STEP_S = 0.001, 0.05
_SUSPENDED_S = 0.01


def judge(cell: Cell, block: int, position: int, raw: RawSample) -> Sample:
    """Return the sample, valid or with the first reason why it is not."""
    report, reason = None, ""
    try:
        report = parse_report(raw.stdout)
    except BenchError as error:
        reason = error.one_line()
    if raw.timed_out:
        reason = f"siege was cut off after {raw.wall_s:.0f} s"
    elif report is not None:
        reason = next(_reasons(cell, raw, report), "")
    return Sample(
        cell=cell,
        block=block,
        position=position,
        started_at=datetime.fromtimestamp(raw.started_at, UTC),
        report=report,
        invalid_reason=reason,
        wall_s=raw.wall_s,
        timed=raw.timed,
        lost=raw.lost,
    )


def lost(cell: Cell, block: int, position: int, started_at: datetime, reason: str) -> Sample:
    """Return a sample that came to nothing: a host went away, or stopped to work."""
    return Sample(cell, block, position, started_at, report=None, invalid_reason=reason)


def _reasons(cell: Cell, raw: RawSample, report: SiegeReport) -> Iterator[str]:
    if reason := invalid_reason(report, cell):
        yield reason
    if reason := _path_reason(cell, raw):
        yield reason
    if reason := _timer_reason(cell, raw):
        yield reason
    if raw.status:
        yield f"siege ended with status {raw.status}"
    yield from _disturbances(raw.hosts)


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


def _timer_reason(cell: Cell, raw: RawSample) -> str:
    if raw.timed is None:
        return ""
    if raw.lost:
        return f"the connection timer lost {raw.lost} of {cell.transactions} connections"
    if raw.timed != cell.transactions:
        return f"the connection timer saw {raw.timed} of {cell.transactions} connections"
    # siege had an answer to every request: the kernel did not run the timer where one of its
    # sockets changed its state.
    if raw.records and (unseen := connections.failed(raw.records)):
        return f"the connection timer saw {unseen} of {cell.transactions} connections never open"
    return ""


def _disturbances(hosts: Sequence[HostDelta]) -> Iterator[str]:
    """Yield what happened to the hosts meanwhile that no forwarder is to blame for."""
    # Sleep before clocks: to the one that stops meanwhile, the time of day leaps.
    for look in (_unlinked, _stolen, _throttled, _suspended, _clock_set):
        for host in hosts:
            if reason := look(host):
                yield f"{host.host}: {reason}"


def _unlinked(host: HostDelta) -> str:
    for name, nic in (("nic_carrier_down", "data NIC"), ("egress_carrier_down", "egress NIC")):
        if host.values.get(name, 0.0) > 0:
            return f"its {nic} lost the link"
    return ""


def _stolen(host: HostDelta) -> str:
    stolen_s = host.values.get("cpu_steal_s", 0.0)
    kinds = ("user", "nice", "system", "irq", "softirq", "steal", "idle", "iowait")
    # iowait may go down (Documentation/filesystems/proc.rst).
    all_s = sum(max(0.0, host.values.get(f"cpu_{kind}_s", 0.0)) for kind in kinds)
    if stolen_s > _STEAL_S and stolen_s > _STEAL_SHARE * all_s:
        return f"the hypervisor took {stolen_s / all_s:.0%} of its CPU time"
    return ""


def _throttled(host: HostDelta) -> str:
    if (count := host.values.get("throttled_cpu", 0.0)) > 0:
        return f"its CPUs were throttled {_times(count)}"
    if (count := host.values.get("throttled_cgroup", 0.0)) > 0:
        return f"its CPU quota ran out {_times(count)}"
    return ""


def _times(count: float) -> str:
    return f"{count:.0f} times" if count > 1 else "once"


def _clock_set(host: HostDelta) -> str:
    real_s, steady_s = host.values.get("realtime_s"), host.values.get("monotonic_s")
    if real_s is None or steady_s is None:
        return ""
    step_s = real_s - steady_s
    return (
        f"its clock was set by {step_s:+.2f} s" if abs(step_s) > _STEP_S + _SLEW * steady_s else ""
    )


def _suspended(host: HostDelta) -> str:
    boot_s, steady_s = host.values.get("boottime_s"), host.values.get("monotonic_s")
    if boot_s is None or steady_s is None or boot_s - steady_s <= _SUSPENDED_S:
        return ""
    return f"it was suspended for {boot_s - steady_s:.1f} s"
