# SPDX-License-Identifier: Apache-2.0
"""Whether ports, queues and tables will last for a run, foreseen from how much it will connect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.chain import Chain, Host
from bench.finding import Finding

Facts = Mapping[str, Any]

# How long a port stays in TIME_WAIT (TCP_TIMEWAIT_LEN, include/net/tcp.h).
_TIME_WAIT_S = 60.0


@dataclass(frozen=True)
class Planned:
    """How much a run will connect.

    requests_total: over all cells and blocks, each of them one connection. most_concurrency: the
    most at a time. modes: those of its cells. requests_per_s: how fast at the most, None: unknown.
    """

    requests_total: int
    most_concurrency: int
    modes: tuple[str, ...]
    requests_per_s: float | None = None

    def within(self, duration_s: float) -> int:
        """Return how many connections may be made in that time."""
        if self.requests_per_s is None:
            return self.requests_total
        return min(self.requests_total, round(self.requests_per_s * duration_s))


def of_plan(chain: Chain, seen: Mapping[str, Facts], planned: Planned) -> Iterator[Finding]:
    """Foresee where a run would run out of ports or of room in a queue or table."""
    hops = [host for host in chain.hops if host.name in seen]
    # socat ends a connection at each hop and makes another, from a port of the hop's own.
    proxies = hops if "socat" in planned.modes else []
    ends = [host for host in (chain.client, *proxies, chain.server) if host.name in seen]
    for host in ends:
        if host.role != "server":
            yield from _ports(host, ends, seen, planned)
        if host.role != "client":
            yield from _queue(host, seen[host.name], planned)
    for hop in hops:
        if "nft" in planned.modes:
            yield from _table(hop, seen, chain.client, planned)
        if "xdp" in planned.modes and hop.nat_ports:
            yield from _nat_ports(hop, hop.nat_ports, planned)
    if {"socat", "nft"} <= set(planned.modes):
        yield from overlapping(chain, seen)


def _ports(
    host: Host, ends: list[Host], seen: Mapping[str, Facts], planned: Planned
) -> Iterator[Finding]:
    """Foresee a host that has no port left to connect from.

    All its connections of a mode go to one address and port, so each one needs a port of its own
    for as long as either end remembers it. Who closes first keeps it in TIME_WAIT, for 60 s. That
    is nginx: the server, or with socat the next hop, whose child ends when the one behind it does.
    The client is free to take the port again at once, and meets TIME_WAIT at the other end. Linux
    lets a new connection replace it when its timestamp is later (RFC 6191, section 2;
    tcp_timewait_state_process in net/ipv4/tcp_minisocks.c), so with timestamps at both ends a run
    may use each port many times a minute. Without them it takes a sequence number beyond the old
    one's, which is mostly but not always so, and a SYN that is refused costs a second. Should the
    client close first after all, tcp_tw_reuse has it use the port again under the same condition.
    """
    found = port_range(seen[host.name])
    if found is None:
        return
    ports = found[1] - found[0] + 1
    if planned.most_concurrency > ports:
        yield Finding(
            host.name,
            "problem",
            f"{planned.most_concurrency} connections at a time, and {ports} ports to make them "
            "from (net.ipv4.ip_local_port_range)",
            "widen the range, or lower --concurrency",
        )
    without = [each.name for each in ends if sysctl(seen[each.name], "ipv4.tcp_timestamps") == "0"]
    # Of those before it, none is an end of its connections.
    behind = {each.name for each in ends[ends.index(host) :]}
    without = [name for name in without if name in behind]
    in_a_minute = planned.within(_TIME_WAIT_S)
    if without and in_a_minute > ports:
        yield Finding(
            host.name,
            "warning",
            f"up to {in_a_minute} connections a minute from {ports} ports, and without TCP "
            f"timestamps on {', '.join(without)} a port should rest for that minute",
            f"sysctl net.ipv4.tcp_timestamps=1 on {', '.join(without)}",
        )


def _queue(host: Host, found: Facts, planned: Planned) -> Iterator[Finding]:
    most = sysctl(found, "core.somaxconn") or ""
    if most.isdecimal() and int(most) < planned.most_concurrency:
        yield Finding(
            host.name,
            "warning",
            f"only {most} connections may wait to be accepted, of {planned.most_concurrency} at a "
            "time",
            "sysctl net.core.somaxconn=4096",
        )


def _table(
    hop: Host, seen: Mapping[str, Facts], client: Host, planned: Planned
) -> Iterator[Finding]:
    """Foresee a full connection tracking table.

    It remembers a closed connection for a while more, but of each port of the client's only one.
    """
    most = sysctl(seen[hop.name], "netfilter.nf_conntrack_max") or ""
    rest_s = sysctl(seen[hop.name], "netfilter.nf_conntrack_tcp_timeout_time_wait") or ""
    ports = port_range(seen.get(client.name, {}))
    entries = planned.within(float(rest_s) if rest_s.isdecimal() else 2 * _TIME_WAIT_S)
    if ports is not None:
        entries = min(entries, ports[1] - ports[0] + 1)
    if most.isdecimal() and int(most) < entries:
        yield Finding(
            hop.name,
            "warning",
            f"connection tracking has room for {most} connections, and nft may need {entries}",
            f"sysctl net.netfilter.nf_conntrack_max={4 * entries}",
        )


def _nat_ports(hop: Host, nat: tuple[int, int], planned: Planned) -> Iterator[Finding]:
    count = nat[1] - nat[0] + 1
    if planned.most_concurrency > count:
        yield Finding(
            hop.name,
            "problem",
            f"{planned.most_concurrency} connections at a time, and nat_ports are {count}",
            "widen nat_ports, or lower --concurrency",
        )


def overlapping(chain: Chain, seen: Mapping[str, Facts]) -> Iterator[Finding]:
    """nft keeps the client's source port and socat takes the hop's: they should be apart."""
    ours = port_range(seen.get(chain.client.name, {}))
    for hop in chain.hops:
        theirs = port_range(seen.get(hop.name, {}))
        if ours and theirs and overlap(ours, theirs):
            yield Finding(
                chain.client.name,
                "warning",
                f"net.ipv4.ip_local_port_range overlaps that of {hop.name}: after socat, nft may "
                "meet ports in TIME_WAIT at the server",
                'sysctl net.ipv4.ip_local_port_range="2048 32767" on the client',
            )
            return


def port_range(found: Facts) -> tuple[int, int] | None:
    """Return the lowest and highest port that a host connects from, None where it is unknown."""
    words = found.get("ip_local_port_range") or []
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two ranges have a port in common."""
    return one[0] <= other[1] and other[0] <= one[1]


def sysctl(found: Facts, name: str) -> str | None:
    """Return a setting below net, None where it is unknown."""
    value = (found.get("sysctls") or {}).get(f"net.{name}")
    return value if isinstance(value, str) else None
