# SPDX-License-Identifier: Apache-2.0
"""Packets of unlike size: one mode moves merged segments where another moves each by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.causes.model import Cause, Level, cause, counted, joined
from bench.causes.observed import Observed

# What the stack received: packets, and the segments that they consisted of
# (ip_rcv_core, net/ipv4/ip_input.c; ip6_rcv_core: both count ECN by gso_segs).
_PACKETS = {"": ("IpInReceives", "IpExtIn{}Pkts"), "6": ("Ip6InReceives", "Ip6In{}Pkts")}
_ECN = ("NoECT", "ECT0", "ECT1", "CE")
_MERGED, _PLAIN = 1.2, 1.05
# Fewer packets, or files of fewer segments, say nothing.
_FEWEST_PACKETS = 100
_BULK_SEGMENTS = 4
_MTU = 1500
# Ethernet header and a VLAN tag.
_HEADER = 18
_SETTINGS = (
    *("generic-receive-offload", "large-receive-offload", "rx-gro-hw", "rx-gro-list"),
    *("tcp-segmentation-offload", "generic-segmentation-offload", "tx-udp-segmentation"),
    *("gro_max_size", "gro_ipv4_max_size", "mtu"),
)

Axis = tuple[str, int, int]


@dataclass
class _Moved:
    """What the samples of one mode moved: at each host, segments and the packets they came in."""

    samples: set[str] = field(default_factory=set)
    segments: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    packets: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    frames: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    frame_bytes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def merged(self, mtus: Mapping[str, int]) -> dict[str, float]:
        """Return segments a packet by host, at least 1; hosts without enough packets are left out.

        By what the stack received and by what the NIC did, whichever is more.
        """
        found: dict[str, float] = {}
        for host, packets in self.packets.items():
            if packets >= _FEWEST_PACKETS:
                found[host] = max(1.0, self.segments[host] / packets)
        for host, frames in self.frames.items():
            if frames >= _FEWEST_PACKETS:
                mtu = mtus.get(host, _MTU)
                mean = self.frame_bytes[host] / frames
                by_size = mean / mtu if mean > mtu + _HEADER else 1.0
                found[host] = max(by_size, found.get(host, 1.0))
        return found


def offload_mismatch(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when modes that are compared moved packets of unlike size.

    Where offloads are `equal`, merged segments are a problem in any mode; where they are `native`,
    a note: the comparison is then of offloads, too.
    """
    mtus = {host: _mtu(observed, host) for host in observed.roles}
    axes: dict[Axis, dict[str, _Moved]] = {}
    for sample, each in observed.samples.items():
        if each.size_bytes >= _BULK_SEGMENTS * _MTU:
            axis = (each.offloads, each.size_bytes, each.hops)
            moved = axes.setdefault(axis, {}).setdefault(each.label, _Moved())
            moved.samples.add(sample)
    _count(observed, axes)
    evidence: list[str] = []
    samples: set[str] = set()
    hosts: set[str] = set()
    grave = False
    for axis, modes in sorted(axes.items()):
        for label, merged in _merging(axis, modes, mtus).items():
            grave = grave or axis[0] == "equal"
            samples |= modes[label].samples
            hosts |= merged.keys()
            evidence.append(_told(observed, axis, label, merged, modes, mtus))
    differing = list(_differing(observed))
    if not samples and not differing:
        return
    hosts |= {host for each in differing for host in each[1]}
    yield cause(
        observed,
        "offload_mismatch",
        "Offload mismatch",
        _level(grave),
        _text(samples, grave),
        [*evidence, *(text for text, _ in differing)],
        "measure with --offloads equal, and compare only cells of one setting; see who turns "
        "offloads on (ethtool -k, ip -d link)",
        hosts=hosts,
        samples=samples or observed.samples,
    )


def _level(grave: bool) -> Level:
    return "problem" if grave else "note"


def _text(samples: set[str], grave: bool) -> str:
    if not samples:
        return "offloads of the hosts' NICs differ, or changed during the run"
    if grave:
        return (
            "packets were merged although offloads were to be equal: a hop then handles several "
            "segments at the cost of one, and modes are compared by packets of unlike size"
        )
    return (
        "some modes moved merged segments and others packets of MTU size: what is compared is "
        "offloads as well as forwarders"
    )


def _count(observed: Observed, axes: Mapping[Axis, Mapping[str, _Moved]]) -> None:
    by_sample = {
        sample: moved
        for modes in axes.values()
        for moved in modes.values()
        for sample in moved.samples
    }

    def add(name: str, target: str) -> None:
        for (sample, host), value in observed.rises(name).items():
            if sample in by_sample:
                getattr(by_sample[sample], target)[host] += value

    for packets, segments in _PACKETS.values():
        names = [segments.format(each) for each in _ECN]
        if any(name in observed.counters for name in names):
            add(packets, "packets")
            for name in names:
                add(name, "segments")
    for prefix in ("nic", "egress"):
        add(f"{prefix}_rx_packets", "frames")
        add(f"{prefix}_rx_bytes", "frame_bytes")


def _merging(
    axis: Axis, modes: Mapping[str, _Moved], mtus: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Return the modes that moved merged segments, with how many a packet by host.

    All of them where offloads are to be equal; otherwise those beside a mode that moved none.
    """
    factors = {label: moved.merged(mtus) for label, moved in modes.items()}
    merging = {
        label: {host: factor for host, factor in each.items() if factor >= _MERGED}
        for label, each in factors.items()
        if max(each.values(), default=1.0) >= _MERGED
    }
    plain = [label for label, each in factors.items() if each and max(each.values()) < _PLAIN]
    return merging if plain or axis[0] == "equal" else {}


def _told(
    observed: Observed,
    axis: Axis,
    label: str,
    merged: Mapping[str, float],
    modes: Mapping[str, _Moved],
    mtus: Mapping[str, int],
) -> str:
    offloads, size_bytes, hops = axis
    where = ", ".join(
        f"{host} {merged[host]:.1f} segments a packet" for host in observed.hosts_in_order(merged)
    )
    others = [
        f"{other} {max(factors.values()):.1f}"
        for other, moved in modes.items()
        if other != label and (factors := moved.merged(mtus))
    ]
    beside = f"; beside it at most {joined(others)}" if others else ""
    return (
        f"{label}, {size_bytes:,} B, {counted(hops, 'hop')}, {offloads} offloads: {where}{beside}"
    )


def _differing(observed: Observed) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what the facts say: hops that were set unlike each other, hosts that changed.

    With equal offloads hops are all set alike, whatever they had before: what then differs at the
    end and did not at first was done by somebody else. With native ones nothing changes hosts.
    """
    offloads = {each.offloads for each in observed.samples.values()}
    before = {host: _settings(observed.facts.get(host, {})) for host in observed.roles}
    after = {host: _settings(observed.facts_after.get(host, {})) for host in observed.roles}
    hops = [host for host, role in observed.roles.items() if role == "hop"]
    for host in hops[1:]:
        pair = (hops[0], host)
        at_first = _differences(*(before[each] for each in pair))
        at_last = _differences(*(after[each] for each in pair))
        if told := at_first if "native" in offloads else [x for x in at_last if x not in at_first]:
            yield f"{hops[0]} and {host} differ: {', '.join(told)}", pair
    if offloads == {"native"}:
        for host in observed.roles:
            if told := _differences(before[host], after[host]):
                yield f"{host}, before and after the run: {', '.join(told)}", (host,)


def _settings(facts: Mapping[str, Any]) -> dict[str, str]:
    nic = facts.get("nic")
    if not isinstance(nic, Mapping):
        return {}
    offloads = nic.get("offloads")
    found = {**nic, **(offloads if isinstance(offloads, Mapping) else {})}
    return {name: str(found[name]) for name in _SETTINGS if found.get(name) is not None}


def _differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return [
        f"{name} {one[name]} and {other[name]}"
        for name in one
        if name in other and one[name] != other[name]
    ]


def _mtu(observed: Observed, host: str) -> int:
    found = observed.fact(host, "nic", "mtu")
    return found if isinstance(found, int) and found > 0 else _MTU
