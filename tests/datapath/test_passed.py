# SPDX-License-Identifier: Apache-2.0
"""What the forwarder leaves to the stack as it came, and the reason that it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from tests.datapath.conftest import EGRESS_MAC, NEXT_PORT, PORT_MAX, PORT_MIN, Feed
from tests.datapath.frames import (
    FAMILIES,
    IP_LEN,
    PORT,
    TAG,
    TALKS,
    Path,
    Talk,
    build,
    check,
    ethernet,
    ip,
    over,
    passed,
    put,
)

GROUP, EVERYBODY = "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff"
OTHER = "02:00:00:00:00:88"
# Octets of a frame, with IPv4 and with IPv6 in it.
TYPE, VERSION, LENGTH4, FLAGS, PROTOCOL, LENGTH6, NEXT_HEADER = 12, 14, 16, 20, 23, 18, 20

Make = Callable[[Talk], bytes]


def opens(
    *changes: tuple[int, ...], mac: str = "", tag: str = "", size: int = 9999, **what: Any
) -> Make:
    """What would open a flow, were it not for some octets, its receiver, a tag or its size."""

    def make(talk: Talk) -> bytes:
        path = talk.asks._replace(target_mac=mac) if mac else talk.asks
        frame = build(path, "S", **what)
        for at, *octets in changes:
            frame = put(frame, at, *octets)
        return (frame[:12] + bytes.fromhex(tag) + frame[12:])[:size]

    return make


def holds(upper: Packet, **fields: Any) -> Make:
    """Something else from the client to the hop, with its IP header."""
    return lambda talk: ethernet(talk.asks, ip(talk.asks, **fields) / upper)


def sends(**ends: Any) -> Make:
    """The same as from the client, between other ends."""
    ttl = ends.pop("ttl", 64)
    return lambda talk: build(there(talk, ends), "S", ttl=ttl)


def there(talk: Talk, ends: dict[str, Any]) -> Path:
    """The path of a client's packets with some ends changed, addresses by their names."""
    named = {key: talk.address(value) for key, value in ends.items() if key in ("source", "target")}
    return talk.asks._replace(**{**ends, **named})


def other_family(talk: Talk) -> bytes:
    """A frame of the other family."""
    return build(replace(talk, family=10 - talk.family).asks, "S")


# name, talks, frame, counter: in the order in which a frame is looked at
ETHERNET = [
    ("tag", "", opens(tag="8100 0005"), "passed_vlan"),
    ("tag 0", "", opens(tag="8100 0000"), "passed_vlan"),
    ("priority tag", "", opens(tag="8100 e000"), "passed_vlan"),
    ("802.1ad", "", opens(tag="88a8 0005"), "passed_vlan"),
    ("two tags", "", opens(tag="88a8 0005 8100 0006"), "passed_vlan"),
    ("tagged group", "", opens(tag="8100 0005", mac=GROUP), "passed_vlan"),
    ("tag and no more", "", opens(tag="8100 0005", size=14), "passed_vlan"),
    ("old kind of tag", "", opens(tag="9100 0005"), "passed_other_protocol"),
    ("broadcast", "", opens(mac=EVERYBODY), "passed_not_unicast"),
    ("group", "", opens(mac=GROUP), "passed_not_unicast"),
    ("group of IPv6", "", opens(mac="33:33:00:00:00:01"), "passed_not_unicast"),
    ("lowest bit of the group", "", opens(mac="03:00:00:00:00:02"), "passed_not_unicast"),
    ("group without a packet", "", opens(mac=GROUP, size=14), "passed_not_unicast"),
    ("group of ARP", "", opens((TYPE, 8, 6), mac=GROUP), "passed_not_unicast"),
    ("another host", "", opens(mac=OTHER), "passed_other_host"),
    ("no host", "", opens(mac="00:00:00:00:00:00"), "passed_other_host"),
    ("the NIC that is not used", "", opens(mac=EGRESS_MAC), "passed_other_host"),
    ("first octet of the host", "", opens(mac="00:00:00:00:00:02"), "passed_other_host"),
    ("fourth octet of the host", "", opens(mac="02:00:00:01:00:02"), "passed_other_host"),
    ("fifth octet of the host", "", opens(mac="02:00:00:00:01:02"), "passed_other_host"),
    ("last octet of the host", "", opens(mac="02:00:00:00:00:03"), "passed_other_host"),
    ("another host without a packet", "", opens(mac=OTHER, size=14), "passed_other_host"),
    ("ARP of another host", "", opens((TYPE, 8, 6), mac=OTHER), "passed_other_host"),
    ("ARP", "", lambda talk: ethernet(talk.asks, ARP()), "passed_other_protocol"),
    ("LLDP", "", opens((TYPE, 0x88, 0xCC)), "passed_other_protocol"),
    ("802.3", "", opens((TYPE, 0, 40)), "passed_other_protocol"),
    ("ethertype without a packet", "", opens((TYPE, 8, 6), size=14), "passed_other_protocol"),
    ("other family", "", other_family, "passed_other_protocol"),
    ("version 0", "", opens((VERSION, 0x05)), "passed_other_protocol"),
    ("version 5", "", opens((VERSION, 0x55)), "passed_other_protocol"),
    ("version 15", "", opens((VERSION, 0xFF)), "passed_other_protocol"),
    ("version 6", "IPv4", opens((VERSION, 0x65)), "passed_other_protocol"),
    ("version 4", "IPv6", opens((VERSION, 0x45)), "passed_other_protocol"),
    ("version 5, too short", "", opens((VERSION, 0x54), size=60), "passed_other_protocol"),
    ("version 5, incomplete", "IPv4", opens((VERSION, 0x55), size=33), "passed_truncated"),
    ("version 5, incomplete", "IPv6", opens((VERSION, 0x55), size=53), "passed_truncated"),
]
IP4 = [
    ("header of 16 octets", "", opens((VERSION, 0x44)), "passed_truncated"),
    ("header of none", "", opens((VERSION, 0x40)), "passed_truncated"),
    ("header past the packet", "", opens((VERSION, 0x4F)), "passed_truncated"),
    ("header past the frame", "", opens((VERSION, 0x4F), size=54), "passed_truncated"),
    ("header of the whole", "TCP", opens((VERSION, 0x4A)), "passed_truncated"),
    ("length 0", "", opens((LENGTH4, 0, 0)), "passed_truncated"),
    ("length 19", "", opens((LENGTH4, 0, 19)), "passed_truncated"),
    ("length 65535", "", opens((LENGTH4, 255, 255)), "passed_truncated"),
    ("length in the options", "", opens((VERSION, 0x46), (LENGTH4, 0, 23)), "passed_truncated"),
    ("length past the padding", "", opens((LENGTH4, 0, 99), padding=b"12"), "passed_truncated"),
    ("first fragment", "", opens(header={"flags": "MF"}), "passed_fragment"),
    ("later fragment", "", opens(header={"flags": "MF", "frag": 64}), "passed_fragment"),
    ("last fragment", "", opens(header={"frag": 1}), "passed_fragment"),
    ("farthest fragment", "", opens(header={"frag": 8191}), "passed_fragment"),
    ("fragment not to be made", "", opens(header={"flags": "MF+DF"}), "passed_fragment"),
    ("fragment of one octet", "", opens((LENGTH4, 0, 21), (FLAGS, 0x20)), "passed_fragment"),
    ("fragment too long", "", opens((LENGTH4, 9, 9), (FLAGS, 0x20)), "passed_truncated"),
    ("fragment of ICMP", "TCP", holds(ICMP() / b"12345678", flags="MF"), "passed_fragment"),
    ("fragment of ESP", "", opens((PROTOCOL, 50), (FLAGS, 0x20)), "passed_fragment"),
    ("fragment with TTL 1", "", opens(ttl=1, header={"flags": "MF"}), "passed_fragment"),
    ("ESP of 20 octets", "", opens((LENGTH4, 0, 20), (PROTOCOL, 50)), "passed_other_protocol"),
    ("echo", "TCP", holds(ICMP(type=8) / b"ping"), "passed_other_protocol"),
    ("echo reply", "TCP", holds(ICMP(type=0) / b"ping"), "passed_other_protocol"),
    ("timestamp", "TCP", holds(ICMP(type=13)), "passed_other_protocol"),
    ("echo of 7 octets", "TCP", holds(Raw(bytes(7)), proto=1), "passed_truncated"),
    *(
        (f"protocol {number}", "TCP", opens((PROTOCOL, number)), "passed_other_protocol")
        for number in (0, 2, 4, 41, 43, 44, 46, 47, 50, 51, 58, 59, 89, 112, 132, 136, 255)
    ),
]
IP6 = [
    ("payload 0", "", opens((LENGTH6, 0, 0)), "passed_truncated"),
    ("payload 65535", "", opens((LENGTH6, 255, 255)), "passed_truncated"),
    ("payload past the padding", "", opens((LENGTH6, 0, 99), padding=b"12"), "passed_truncated"),
    ("fragment", "", opens((NEXT_HEADER, 44)), "passed_fragment"),
    ("fragment of none", "", opens((LENGTH6, 0, 0), (NEXT_HEADER, 44)), "passed_fragment"),
    ("fragment too long", "", opens((LENGTH6, 9, 9), (NEXT_HEADER, 44)), "passed_truncated"),
    ("fragment with hop limit 1", "", opens((NEXT_HEADER, 44), ttl=1), "passed_fragment"),
    ("jumbogram", "", opens((LENGTH6, 0, 0), (NEXT_HEADER, 0)), "passed_other_protocol"),
    ("ESP of none", "", opens((LENGTH6, 0, 0), (NEXT_HEADER, 50)), "passed_other_protocol"),
    ("echo", "TCP", holds(ICMPv6EchoRequest(data=b"ping")), "passed_other_protocol"),
    ("echo reply", "TCP", holds(ICMPv6EchoReply(data=b"ping")), "passed_other_protocol"),
    ("neighbour solicitation", "TCP", holds(ICMPv6ND_NS(), ttl=255), "passed_other_protocol"),
    ("neighbour advertisement", "TCP", holds(ICMPv6ND_NA(), ttl=255), "passed_other_protocol"),
    ("echo of 7 octets", "TCP", holds(Raw(bytes(7)), nh=58), "passed_truncated"),
    *(
        (f"next header {number}", "TCP", opens((NEXT_HEADER, number)), "passed_other_protocol")
        for number in (0, 1, 4, 41, 43, 47, 50, 51, 59, 60, 89, 132, 135, 136, 139, 140, 255)
    ),
]
OURS = [
    ("client port 0", "", sends(source_port=0), "passed_not_ours"),
    ("client port 0 with TTL 1", "", sends(source_port=0, ttl=1), "passed_not_ours"),
    ("SSH", "", sends(target_port=22), "passed_not_ours"),
    ("port 0", "", sends(target_port=0), "passed_not_ours"),
    ("the port before", "", sends(target_port=6999), "passed_not_ours"),
    ("the port after", "", sends(target_port=7001), "passed_not_ours"),
    ("its octets swapped", "", sends(target_port=0x581B), "passed_not_ours"),
    ("another host's address", "", sends(target="other"), "passed_not_ours"),
    ("the hop's other address", "", sends(target="out"), "passed_not_ours"),
    ("its own address", "", sends(target="client"), "passed_not_ours"),
    ("a port without a flow", "", sends(target_port=PORT), "passed_not_ours"),
    ("the same with TTL 1", "", sends(target_port=PORT, ttl=1), "passed_not_ours"),
    ("below the range", "", sends(target_port=PORT_MIN - 1), "passed_not_ours"),
    ("lowest of the range", "", sends(target_port=PORT_MIN), "passed_not_ours"),
    ("highest of the range", "", sends(target_port=PORT_MAX), "passed_not_ours"),
    ("above the range", "", sends(target_port=PORT_MAX + 1), "passed_not_ours"),
    ("highest port", "", sends(target_port=65535), "passed_not_ours"),
    ("TTL 1", "", sends(ttl=1), "passed_ttl"),
    ("TTL 0", "", sends(ttl=0), "passed_ttl"),
]
UNTOUCHED = [
    *over(TALKS[::2], ETHERNET),
    *over(TALKS[:2], IP4),
    *over(TALKS[2:], IP6),
    *over(TALKS, OURS),
]


@pytest.mark.parametrize(("talk", "make", "counter"), UNTOUCHED)
def test_passed_untouched(feed: Feed, talk: Talk, make: Make, counter: str) -> None:
    """Nor is a flow opened, or a port claimed: the next packet that opens it finds its port."""
    check(feed, talk.family, passed(make(talk), counter), talk.open())


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_every_truncation(feed: Feed, talk: Talk) -> None:
    """The kernel refuses to test with less than an Ethernet header."""
    whole = build(talk.asks, "S")
    cuts = [passed(whole[:size], "passed_truncated") for size in range(14, len(whole))]
    check(feed, talk.family, *cuts, talk.open())


@pytest.mark.parametrize("padding", [b"", bytes(40)])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_every_length_without_room(feed: Feed, talk: Talk, padding: bytes) -> None:
    """The frame holds a whole header, the packet does not, and one octet too many is no better."""
    whole, need = build(talk.asks, "S"), 20 if talk.protocol is TCP else 8
    at, first = (LENGTH4, 20) if talk.family == 4 else (LENGTH6, 0)
    lengths = [*range(need), need + len(padding) + 1]
    frames = [put(whole, at, 0, first + length) + padding for length in lengths]
    check(feed, talk.family, *(passed(frame, "passed_truncated") for frame in frames), talk.open())


# name, talks, who sends (a change of the flow's path back, or there), counter
STRANGERS = [
    ("another next hop", "", {"next": "other"}, "passed_not_ours"),
    ("another port of it", "", {"next_port": NEXT_PORT + 1}, "passed_not_ours"),
    ("its port, octets swapped", "", {"next_port": 0x401F}, "passed_not_ours"),
    ("port 0 of it", "", {"next_port": 0}, "passed_not_ours"),
    ("the client", "", {"next": "client"}, "passed_not_ours"),
    ("the port before", "", {"port": PORT - 1}, "passed_not_ours"),
    ("the port after", "", {"port": PORT + 1}, "passed_not_ours"),
    ("port 0", "", {"port": 0}, "passed_not_ours"),
    ("highest port", "", {"port": 65535}, "passed_not_ours"),
    ("the hop's other address", "", {"out": "out"}, "passed_not_ours"),
    ("another host's address", "", {"out": "other"}, "passed_not_ours"),
    ("UDP", "TCP", {"protocol": UDP}, "passed_not_ours"),
    ("TCP", "UDP", {"protocol": TCP}, "passed_not_ours"),
]


@pytest.mark.parametrize(("talk", "changes", "counter"), over(TALKS, STRANGERS))
def test_only_the_next_hop_may_answer(
    feed: Feed, talk: Talk, changes: dict[str, Any], counter: str
) -> None:
    stranger = replace(talk, **changes)
    frames = [build(stranger.answers, "SA", ttl=ttl) for ttl in (64, 1)]
    strange = [passed(frame, counter) for frame in frames]
    check(feed, talk.family, talk.open(), *strange, talk.back("SA"), talk.forward())


@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_ttl_within_a_flow(feed: Feed, talk: Talk, ttl: int) -> None:
    """What does not travel on is no use of the flow either, and changes no state."""
    both = [build(path, "R", ttl=ttl) for path in (talk.asks, talk.answers)]
    late = [passed(frame, "passed_ttl") for frame in both]
    check(feed, talk.family, talk.open(), *late, talk.back("SA"), *late, talk.forward())


# name, talks, frame, counter: on a network with tag 5
TAGGED = [
    ("no tag", "", opens(), "passed_vlan"),
    ("another tag", "", opens(tag="8100 0006"), "passed_vlan"),
    ("tag 0", "", opens(tag="8100 0000"), "passed_vlan"),
    ("priority tag", "", opens(tag="8100 a000"), "passed_vlan"),
    ("its octets swapped", "", opens(tag="8100 0500"), "passed_vlan"),
    ("802.1ad", "", opens(tag="88a8 0005"), "passed_vlan"),
    ("group of another tag", "", opens(tag="8100 0006", mac=GROUP), "passed_vlan"),
    ("group", "", opens(tag="8100 0005", mac=GROUP), "passed_not_unicast"),
    ("another host", "", opens(tag="8100 0005", mac=OTHER), "passed_other_host"),
    ("another host, another tag", "", opens(tag="8100 0006", mac=OTHER), "passed_vlan"),
    ("two tags", "", opens(tag="8100 0005 8100 0005"), "passed_other_protocol"),
    ("ARP", "", opens((TYPE, 8, 6), tag="8100 0005"), "passed_other_protocol"),
    ("an Ethernet header", "", opens(tag="8100 0005", size=14), "passed_truncated"),
    ("half a tag", "", opens(tag="8100 0005", size=17), "passed_truncated"),
    ("half another tag", "", opens(tag="8100 0006", size=17), "passed_truncated"),
    ("no tag and no room for one", "", opens(size=17), "passed_truncated"),
    ("a tag and no more", "", opens(tag="8100 0005", size=18), "passed_truncated"),
]


@pytest.mark.parametrize(("talk", "make", "counter"), over(TALKS[::2], TAGGED))
def test_passed_where_there_is_a_tag(feed: Feed, talk: Talk, make: Make, counter: str) -> None:
    tagged = replace(talk, vlan=5)
    check(feed, talk.family, passed(make(talk), counter), tagged.open(), **TAG)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_truncation_with_a_tag(feed: Feed, family: int) -> None:
    talk = Talk(family, vlan=5)
    whole = build(talk.asks, "S")
    assert len(whole) == 18 + IP_LEN[family] + 20
    cuts = [passed(whole[:size], "passed_truncated") for size in range(14, len(whole))]
    check(feed, family, *cuts, talk.open(), **TAG)
