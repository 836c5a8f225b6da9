# SPDX-License-Identifier: Apache-2.0
"""Why connecting took long: SYNs that were sent again, and what refused them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from bench.causes.model import Cause, by_host, cause, counted, level
from bench.causes.observed import Floats, Observed, Rises, hosts_of, samples_of, total, within

STEPS_S = (1, 2, 3, 4, 5, 7, 11, 15, 19, 31, 35, 63)
"""When a SYN goes out again: after 1, 3, 7, 15, 31, 63 s, the wait doubling (RFC 6298, section
5.5). Linux 6.5 and later do so after 1, 2, 3, 4, then 5, 7, 11, 19, 35 s:
net.ipv4.tcp_syn_linear_timeouts, 4 by default, is how many waits stay at a second."""

# The kernel's timer wheel is late by up to an eighth (kernel/time/timer.c), in practice by 2 to
# 4 %; the handshake itself comes on top.
_EARLY, _LATE, _HANDSHAKE_S = 0.98, 1.05, 0.15
# Of late connections without counters, how many have to be at a step.
_AT_STEPS = 0.8
_FEWEST = 3

_SYN_REPEATED = "TcpExtTCPSynRetrans"
# A segment with an old timestamp refused: in TIME_WAIT, which older kernels count with the second;
# in any state; in SYN_SENT.
_PAWS = ("TcpExtPAWSTimewait", "TcpExtPAWSEstab", "TcpExtPAWSActive")
_PAWS_BESIDE = ("TcpExtTCPACKSkippedTimeWait", "TcpExtTCPACKSkippedPAWS", "TcpExtTCPChallengeACK")
# Of repeated SYNs, the share that has to go with a refusal for that to be the reason.
_REFUSED = 0.1
_LISTEN = (
    "TcpExtListenOverflows",
    "TcpExtListenDrops",
    "TcpExtTCPReqQFullDrop",
    "TcpExtTCPReqQFullDoCookies",
)
_LISTEN_BESIDE = ("TcpExtSyncookiesSent", "TcpExtTCPAbortOnOverflow")


def steps(late_us: Floats) -> Counter[int]:
    """Return how many connect times are at each step of TCP's SYN timer, by the step in s."""
    found: Counter[int] = Counter()
    for step in STEPS_S:
        least, most = _EARLY * step * 1e6, (_LATE * step + _HANDSHAKE_S) * 1e6
        number = int(np.count_nonzero((late_us >= least) & (late_us <= most)))
        if number:
            found[step] = number
    return found


def syn_retransmission(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when SYNs were sent again: by counters, or by steps in connect times.

    The server's own counter is of SYN-ACKs: evidence, but not where connecting was slow.
    """
    repeated = observed.rises(_SYN_REPEATED, "client", "hop")
    by_counter = samples_of([repeated])
    counted_there = {sample for sample, _ in observed.values(_SYN_REPEATED)}
    late = {
        sample: found
        for sample, times in observed.late_us.items()
        if (found := steps(times))
        and (sample in by_counter or (sample not in counted_there and _at_steps(times)))
    }
    samples = by_counter | set(late)
    if not samples:
        return
    at_steps = sum(late.values(), Counter[int]())
    slow, again = at_steps.total(), total(repeated)
    connections = observed.connections(samples)
    beside = _beside(observed, samples)
    yield cause(
        observed,
        "syn_retransmission",
        "SYN retransmission",
        level(max(slow, again), connections),
        _syn_text(slow, again, connections),
        [
            *([f"{observed.client}: connect times at {_told(at_steps)}"] if slow else []),
            *_unanswered(observed, samples),
            *by_host(observed, {_SYN_REPEATED: within(observed.rises(_SYN_REPEATED), samples)}),
            *by_host(observed, beside),
        ],
        "find who dropped the SYN or its answer: other causes named here, counters of drops, or "
        "bench trace; a SYN timer's second is no property of a forwarder",
        hosts=hosts_of([repeated]) | ({observed.client} if late else set()),
        samples=samples,
    )


def _at_steps(times: Floats) -> bool:
    number = steps(times).total()
    return number >= _FEWEST and number >= _AT_STEPS * len(times)


def _syn_text(slow: int, again: float, connections: int) -> str:
    if slow:
        return (
            f"{slow:,} of {counted(connections, 'connection')} waited for TCP's timer, a second or "
            "more, because a SYN or the answer to it was lost"
        )
    return (
        f"SYNs were sent again {again:,.0f} times for {counted(connections, 'connection')}, "
        "because they or the answers to them were lost or refused"
    )


def _told(at_steps: Mapping[int, int]) -> str:
    return ", ".join(f"{step} s ({number:,})" for step, number in sorted(at_steps.items()))


def _unanswered(observed: Observed, samples: set[str]) -> Iterator[str]:
    times = [each for sample, each in observed.unanswered_us.items() if sample in samples]
    if times:
        lasted = np.concatenate(times)
        lasted = lasted[np.isfinite(lasted)]
        after = f", after {np.median(lasted) / 1e6:.1f} s at the median" if len(lasted) else ""
        attempts = counted(sum(map(len, times)), "attempt")
        yield f"{observed.client}: {attempts} to connect ended without an answer{after}"


def _beside(observed: Observed, samples: set[str]) -> dict[str, Rises]:
    """Return counters of SYNs that a forwarder dropped in these samples, whatever the reason."""
    names = [name for name in observed.counters if name.startswith("forwarder_dropped_")]
    found = observed.rising([*sorted(names), "conntrack_drop", "conntrack_insert_failed"])
    here = {name: within(rises, samples) for name, rises in found.items()}
    return {name: rises for name, rises in here.items() if rises}


def time_wait_collision(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when SYNs met connections in TIME_WAIT that their timestamps did not suit.

    Linux refuses a SYN from the address and port of a connection in TIME_WAIT unless its timestamp
    or sequence number is later (RFC 6191; tcp_timewait_state_process, net/ipv4/tcp_minisocks.c).
    It answers with an ACK of the old connection, which the client resets: the SYN goes out again.
    """
    again = observed.rises(_SYN_REPEATED, "client", "hop")
    repeats = _by_sample(again)
    refused = {
        name: {key: value for key, value in rises.items() if key[0] in repeats}
        for name, rises in observed.rising(_PAWS, "server", "hop").items()
    }
    refusals = _by_sample(*refused.values())
    samples = {each for each, value in refusals.items() if value >= _REFUSED * repeats[each]}
    if not samples:
        return
    refused = {name: within(rises, samples) for name, rises in refused.items()}
    again = within(again, samples)
    resets = within(observed.rises("TcpOutRsts", "client", "hop"), samples)
    beside = {name: within(rises, samples) for name, rises in observed.rising(_PAWS_BESIDE).items()}
    connections = observed.connections(samples)
    yield cause(
        observed,
        "time_wait_collision",
        "TIME_WAIT collision",
        level(total(*refused.values()), connections),
        f"{total(*refused.values()):,.0f} SYNs of {counted(connections, 'connection')} came from "
        "an address and port whose last connection was still in TIME_WAIT, with an older "
        "timestamp, and were refused until they were repeated",
        [
            *by_host(observed, {**refused, **beside}),
            *by_host(observed, {_SYN_REPEATED: again, "TcpOutRsts": resets}),
            *_time_wait(observed, samples, hosts_of(refused.values())),
        ],
        "have the forwarder give each client endpoint a source port of its own, or enough ports "
        "that none comes back within 60 s; nat_policy affine does the former",
        hosts=hosts_of(refused.values()),
        samples=samples,
    )


def _time_wait(observed: Observed, samples: set[str], hosts: set[str]) -> Iterator[str]:
    most: dict[str, float] = {}
    for (sample, host), value in observed.values("tcp_time_wait").items():
        if sample in samples and host in hosts:
            most[host] = max(value, most.get(host, 0.0))
    for host in observed.hosts_in_order(most):
        yield f"{host}: up to {most[host]:,.0f} connections in TIME_WAIT"


def listen_overflow(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when a listening socket's queue was full."""
    dropped = observed.rising(_LISTEN)
    samples = samples_of(dropped.values())
    if not samples:
        return
    overflows = dropped.get("TcpExtListenOverflows", {})
    full = total(overflows) or max(total(rises) for rises in dropped.values())
    beside = {
        name: within(rises, samples) for name, rises in observed.rising(_LISTEN_BESIDE).items()
    }
    hosts = hosts_of(dropped.values())
    connections = observed.connections(samples)
    yield cause(
        observed,
        "listen_overflow",
        "Listen queue overflow",
        level(full, connections),
        f"a listening socket's queue was full {full:,.0f} times for "
        f"{counted(connections, 'connection')}: SYNs and the ACKs that complete a handshake were "
        "dropped, and the clients sent again",
        [*by_host(observed, {**dropped, **beside}), *_backlogs(observed, hosts)],
        "raise net.core.somaxconn, net.ipv4.tcp_max_syn_backlog and the program's own backlog, "
        "then start it again; or lower --concurrency",
        hosts=hosts,
        samples=samples,
    )


def _backlogs(observed: Observed, hosts: set[str]) -> Iterator[str]:
    for host in observed.hosts_in_order(hosts):
        names = ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog")
        known = [f"{name} {value}" for name in names if (value := observed.sysctl(host, name))]
        if known:
            yield f"{host}: {', '.join(known)}"


def _by_sample(*counters: Rises) -> dict[str, float]:
    found: dict[str, float] = {}
    for rises in counters:
        for (sample, _), value in rises.items():
            found[sample] = found.get(sample, 0.0) + value
    return found
