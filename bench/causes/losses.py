# SPDX-License-Identifier: Apache-2.0
"""Packets that arrived damaged, and packets for which a queue had no room."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bench.causes.model import Cause, by_host, cause, level
from bench.causes.observed import Observed, Rises, hosts_of, samples_of, total, within

_CHECKSUMS = re.compile(r"(?:Tcp|Udp|UdpLite|IpExt|Icmp|Udp6|UdpLite6|Icmp6)InCsumErrors")
_ON_THE_WIRE = re.compile(r"(?:nic|egress)_rx_(?:crc|frame)_errors")

# By the queue that was full. Names of drivers' own counters differ; a verdict of an XDP program
# (xdp_drop) is no loss.
_QUEUES: dict[str, re.Pattern[str]] = {
    "NIC ring": re.compile(
        r"(?:nic|egress)_(?:rx_(?:missed|fifo|over)_errors|tx_(?:dropped|fifo_errors))"
        r"|(?:egress_)?ethtool_(?!.*xdp_drops?\b)"
        r".*(?:no_?buf|out_of_buffer|missed|fifo|discard|drop|xdp_(?:tx|xmit|redirect)_err).*"
    ),
    "CPU backlog": re.compile(r"softnet_(?:dropped|flow_limit)"),
    "socket": re.compile(
        r"TcpExt(?:TCPBacklogDrop|TCPRcvQDrop|TCPOFODrop|RcvPruned)|Udp6?RcvbufErrors"
    ),
}
# Also counts frames of protocols that nobody takes (LLDP, spanning tree): a loss only where TCP
# had to send again.
_RECEIVED = re.compile(r"(?:nic|egress)_rx_dropped")
_REMEDIES = {
    "NIC ring": "enlarge the ring (ethtool -G NIC rx N tx N); a veth's has 256 places: "
    "give the sender's a qdisc, for which Linux 6.16 and later wait",
    "CPU backlog": "raise net.core.netdev_max_backlog and net.core.netdev_budget, or spread "
    "the load over CPUs (RSS, RPS)",
    "socket": "raise net.ipv4.tcp_rmem and net.core.rmem_max",
}


def checksum_corruption(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when a host received packets whose checksum was wrong.

    XDP and nft update checksums by the difference: what was wrong stays wrong, and is found by the
    first stack that looks, at the end of the chain.
    """
    damaged = observed.rising(filter(_CHECKSUMS.fullmatch, observed.counters))
    samples = samples_of(damaged.values())
    if not samples:
        return
    number = total(*damaged.values())
    hosts = hosts_of(damaged.values())
    beside = {
        name: within(rises, samples)
        for name, rises in observed.rising(
            [*filter(_ON_THE_WIRE.fullmatch, observed.counters), "conntrack_invalid"]
        ).items()
    }
    yield cause(
        observed,
        "checksum_corruption",
        "Checksum corruption",
        level(number, observed.connections(samples)),
        f"{number:,.0f} packets arrived with a wrong checksum and were thrown away; what damaged "
        "them is on the way there, not the host that noticed",
        [*by_host(observed, {**damaged, **beside}), *_partial(observed)],
        "turn off transmit checksum offload where packets leave a veth for XDP (ethtool -K NIC tx "
        "off, which bench doctor checks); otherwise look for a middlebox, a cable or a NIC",
        hosts=hosts,
        samples=samples,
    )


def _partial(observed: Observed) -> Iterator[str]:
    """Yield the veths that leave checksums to the receiver, which XDP cannot make good."""
    for when, facts in (("before", observed.facts), ("after", observed.facts_after)):
        for host in observed.hosts_in_order(facts):
            nic = facts[host].get("nic")
            offloads = nic.get("offloads") if isinstance(nic, dict) else None
            if (
                isinstance(nic, dict)
                and isinstance(offloads, dict)
                and nic.get("driver") == "veth"
                and offloads.get("tx-checksumming") == "on"
            ):
                yield f"{host}: tx-checksumming of its veth was on {when} the run"


def queue_drops(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when a ring, a CPU's backlog or a socket had no room for a packet."""
    found = {
        queue: observed.rising(filter(pattern.fullmatch, observed.counters))
        for queue, pattern in _QUEUES.items()
    }
    again = samples_of([observed.rises("TcpRetransSegs")])
    for name, rises in observed.rising(filter(_RECEIVED.fullmatch, observed.counters)).items():
        lost = within(rises, again)
        if lost:
            found["NIC ring"][name] = lost
    found["CPU backlog"] = {
        name: observed.once_a_machine(rises) for name, rises in found["CPU backlog"].items()
    }
    found = {queue: counters for queue, counters in found.items() if counters}
    if not found:
        return
    every = [rises for counters in found.values() for rises in counters.values()]
    samples = samples_of(every)
    dropped = {queue: _dropped(counters) for queue, counters in found.items()}
    packets = total(within(observed.rises("nic_rx_packets"), samples))
    told = ", ".join(f"{number:,.0f} at a {queue}" for queue, number in dropped.items())
    sent_again = {"TcpRetransSegs": within(observed.rises("TcpRetransSegs"), samples)}
    yield cause(
        observed,
        "queue_drops",
        "Ring or backlog drops",
        level(sum(dropped.values()), packets or observed.connections(samples)),
        f"packets were dropped because a queue was full ({told}"
        + (f"; {packets:,.0f} were received meanwhile)" if packets else ")"),
        [
            *(
                f"{queue}: {line}"
                for queue, counters in found.items()
                for line in by_host(observed, counters)
            ),
            *by_host(observed, sent_again),
        ],
        "; ".join(_REMEDIES[queue] for queue in found),
        hosts=hosts_of(every),
        samples=samples,
    )


def _dropped(counters: Mapping[str, Rises]) -> float:
    """Return how many packets these counters stand for; a driver's own repeat the kernel's."""
    kernel = [rises for name, rises in counters.items() if "ethtool_" not in name]
    known = {key for rises in kernel for key in rises}
    drivers: Rises = {}
    for name, rises in counters.items():
        for key, value in rises.items():
            if "ethtool_" in name and key not in known:
                drivers[key] = max(value, drivers.get(key, 0.0))
    return total(*kernel, drivers)
