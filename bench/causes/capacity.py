# SPDX-License-Identifier: Apache-2.0
"""Tables and ranges that ran out: ports at the client or at a hop, and conntrack's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bench.causes.model import Cause, by_host, cause, counted, level
from bench.causes.observed import Floats, Observed, Rises, hosts_of, samples_of, total

# docs/forwarder.md: no port of the NAT's range was free, no room for one more flow.
_NO_PORT = ("forwarder_dropped_no_port", "forwarder_dropped_table_full")
_NEARLY = 0.9
# Linux's own, where facts do not say: net.ipv4.ip_local_port_range.
_RANGE = "32768 60999"


def port_exhaustion(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when no source port was free: at the client, or at a hop's NAT or proxy.

    At the client connect() then fails with EADDRNOTAVAIL before any SYN: port 0, and over in
    microseconds. conntrack counts insert_failed when every port of a masquerade that it tries is
    taken (nf_nat_core.c), and one it would give twice.
    """
    at_client = observed.portless_us
    refused = observed.rising(_NO_PORT, "hop")
    clashed = _clashes(observed)
    unopened = _unopened(observed)
    counters = {**refused, **clashed, **unopened}
    samples = set(at_client) | samples_of(counters.values())
    if not samples:
        return
    failed = sum(map(len, at_client.values()))
    events = failed + total(*counters.values())
    connections = observed.connections(samples)
    hosts = hosts_of(counters.values()) | ({observed.client} if at_client else set())
    yield cause(
        observed,
        "port_exhaustion",
        "Port exhaustion",
        level(events, connections),
        f"{events:,.0f} of {counted(connections, 'connection')} found no free source port",
        [
            *_at_client(observed.client, at_client),
            *by_host(observed, counters),
            *_ranges(observed, samples, hosts),
        ],
        "widen the range (net.ipv4.ip_local_port_range; nat_ports of a hop in the inventory), "
        "lower --concurrency or --requests, or give ports 60 s to leave TIME_WAIT",
        hosts=hosts,
        samples=samples,
    )


def _clashes(observed: Observed) -> dict[str, Rises]:
    """Return conntrack's failed insertions where its table had room."""
    near = {key for key in observed.values("conntrack_count") if _is_near_full(observed, key)}
    failed = observed.rises("conntrack_insert_failed", "hop")
    found = {key: value for key, value in failed.items() if key not in near}
    return {"conntrack_insert_failed": found} if found else {}


def _unopened(observed: Observed) -> dict[str, Rises]:
    """Return how many connections a proxy took and did not pass on, its ports being in use.

    A connect() without a free port is counted nowhere; that the host has as many connections in
    TIME_WAIT as it has ports is what tells it from other reasons.
    """
    opened, waiting = observed.values("TcpActiveOpens"), observed.values("tcp_time_wait")
    found = {}
    for key, accepted in observed.rises("TcpPassiveOpens", "hop").items():
        sample, host = key
        missing = accepted - opened.get(key, accepted)
        # Two or three connections may still be on their way, and SSH brings some of its own.
        if observed.samples[sample].mode != "socat" or missing <= 0.01 * accepted:
            continue
        low, high = _range(observed, host)
        if waiting.get(key, 0.0) >= _NEARLY * (high - low + 1):
            found[key] = missing
    return {"accepted and not passed on": found} if found else {}


def _at_client(client: str, failed_us: Mapping[str, Floats]) -> list[str]:
    if not failed_us:
        return []
    times = np.concatenate(list(failed_us.values()))
    times = times[np.isfinite(times)]
    after = f", after {np.median(times):,.0f} µs at the median" if len(times) else ""
    number = sum(map(len, failed_us.values()))
    return [f"{client}: connect() failed {number:,} times before a port was found{after}"]


def _ranges(observed: Observed, samples: set[str], hosts: set[str]) -> Iterator[str]:
    for host in observed.hosts_in_order(hosts):
        known = observed.sysctl(host, "net.ipv4.ip_local_port_range")
        if known:
            low, high = _range(observed, host)
            waiting = [
                value
                for (sample, each), value in observed.values("tcp_time_wait").items()
                if each == host and sample in samples
            ]
            most = f", up to {max(waiting):,.0f} of them in TIME_WAIT" if any(waiting) else ""
            yield f"{host}: ports {low} to {high}, {high - low + 1:,}{most}"


def _range(observed: Observed, host: str) -> tuple[int, int]:
    words = observed.sysctl(host, "net.ipv4.ip_local_port_range").split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        words = _RANGE.split()
    return int(words[0]), int(words[1])


def conntrack_full(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when conntrack had no room for a new connection.

    It first throws out entries that saw traffic in one direction only (early_drop), then drops the
    packet (drop; a failed insertion counts as one, too).
    """
    failed = observed.values("conntrack_insert_failed")
    refused = {
        key: value - failed.get(key, 0.0)
        for key, value in observed.rises("conntrack_drop").items()
        if value > failed.get(key, 0.0)
    }
    counters = {"conntrack_drop": refused, **observed.rising(["conntrack_early_drop"])}
    counters = {name: rises for name, rises in counters.items() if rises}
    samples = samples_of(counters.values())
    if not samples:
        return
    connections = observed.connections(samples)
    hosts = hosts_of(counters.values())
    yield cause(
        observed,
        "conntrack_full",
        "conntrack table full",
        level(total(*counters.values()), connections),
        f"conntrack turned away {total(*counters.values()):,.0f} packets of "
        f"{counted(connections, 'connection')}: its table had no room for new ones",
        [*by_host(observed, counters), *_sizes(observed, samples, hosts)],
        "raise net.netfilter.nf_conntrack_max (in the initial namespace), or lower "
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        hosts=hosts,
        samples=samples,
    )


def _is_near_full(observed: Observed, key: tuple[str, str]) -> bool:
    most = observed.values("conntrack_max").get(key, 0.0)
    return 0 < _NEARLY * most <= observed.values("conntrack_count").get(key, 0.0)


def _sizes(observed: Observed, samples: set[str], hosts: set[str]) -> Iterator[str]:
    counts, mosts = observed.values("conntrack_count"), observed.values("conntrack_max")
    for host in observed.hosts_in_order(hosts):
        keys = [key for key in counts if key[1] == host and key[0] in samples and key in mosts]
        if keys:
            key = max(keys, key=lambda each: counts[each] / max(mosts[each], 1.0))
            yield (f"{host}: {counts[key]:,.0f} entries of {mosts[key]:,.0f} after sample {key[0]}")
