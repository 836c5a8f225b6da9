# SPDX-License-Identifier: Apache-2.0
"""The model itself: against packets that scapy built, every checksum computed from scratch."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.datapath.conftest import (
    DATA_MTU,
    DROP,
    EGRESS_MAC,
    HOP_MAC,
    HOP_PORT,
    MACS,
    NETS,
    NEXT_PORT,
    PASS,
    REDIRECT,
    TX,
)
from tests.datapath.speech import Outcome, checksum, fold
from tests.datapath.worlds import World, packed

PORT = 20000  # in the range
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
PROTOCOLS = pytest.mark.parametrize("upper", [TCP, UDP])


def ip(family: int, source: str, destination: str, ttl: int = 64) -> Packet:
    """An IP header; IPv4 with DF."""
    if family == 6:
        return IPv6(src=source, dst=destination, hlim=ttl)
    return IP(src=source, dst=destination, ttl=ttl, id=7, flags="DF")


def forward(family: int, upper: type[Packet], text: bytes = b"", **more: Any) -> Packet:
    """From the client to the hop; what `upper` is given is for TCP alone."""
    net = NETS[family]
    fields = more if upper is TCP else {}
    header = ip(family, net.client, net.hop)
    segment = upper(sport=PORT, dport=HOP_PORT, **fields)
    return Ether(src=MACS[net.client], dst=HOP_MAC) / header / segment / Raw(text)


def onward(family: int, upper: type[Packet], text: bytes = b"", **more: Any) -> Packet:
    """The same, from the hop to the next."""
    net = NETS[family]
    fields = more if upper is TCP else {}
    header = ip(family, net.hop, net.next, 63)
    segment = upper(sport=PORT, dport=NEXT_PORT, **fields)
    return Ether(src=HOP_MAC, dst=MACS[net.next]) / header / segment / Raw(text)


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("text", [b"", b"x", b"\xff\xff", bytes(1400)], ids=len)
def test_there_and_back(family: int, upper: type[Packet], text: bytes) -> None:
    model, net = World(family).model(), NETS[family]
    frame = bytes(forward(family, upper, text))
    assert model.run(frame) == (
        TX,
        bytes(onward(family, upper, text)),
        {
            "flows_opened": 1,
            "port_kept": 1,
            "forwarded_packets": 1,
            "forwarded_bytes": len(frame),
        },
    )
    answer = upper(sport=NEXT_PORT, dport=PORT) / Raw(text)
    arrives = Ether(src=MACS[net.next], dst=HOP_MAC) / ip(family, net.next, net.hop) / answer
    answer = upper(sport=HOP_PORT, dport=PORT) / Raw(text)
    leaves = Ether(src=HOP_MAC, dst=MACS[net.client]) / ip(family, net.hop, net.client, 63) / answer
    verdict, out, counts = model.run(bytes(arrives))
    assert (verdict, out) == (TX, bytes(leaves))
    assert counts == {"returned_packets": 1, "returned_bytes": len(out)}


@FAMILIES
@PROTOCOLS
def test_errors(family: int, upper: type[Packet]) -> None:
    """About a packet to the next hop, and about one to the client."""
    model, net = World(family).model(), NETS[family]
    model.run(bytes(forward(family, upper)))
    kind = ICMP(type=3, code=1) if family == 4 else ICMPv6DestUnreach(code=3)

    def error(
        quoted: Packet, source: str, destination: str, macs: tuple[str, str], n: int
    ) -> bytes:
        outer = ip(family, source, destination, n)
        return bytes(Ether(src=macs[0], dst=macs[1]) / outer / kind / Raw(bytes(quoted.payload)))

    came, left = forward(family, upper, b"text"), onward(family, upper, b"text")
    came[1].ttl = left[1].ttl = came[1].hlim = left[1].hlim = 1
    came, left = (Ether(bytes(packet)) for packet in (came, left))
    arrives = error(left, net.nowhere, net.hop, (MACS[net.next], HOP_MAC), 64)
    leaves = error(came, net.hop, net.client, (HOP_MAC, MACS[net.client]), 63)
    assert model.run(arrives) == (TX, leaves, {"errors_returned": 1})

    down, up = upper(sport=HOP_PORT, dport=PORT), upper(sport=NEXT_PORT, dport=PORT)
    sent = Ether() / ip(family, net.hop, net.client) / down
    got = Ether() / ip(family, net.next, net.hop) / up
    arrives = error(sent, net.client, net.hop, (MACS[net.client], HOP_MAC), 64)
    leaves = error(got, net.hop, net.next, (HOP_MAC, MACS[net.next]), 63)
    assert model.run(arrives) == (TX, leaves, {"errors_forwarded": 1})


@FAMILIES
def test_too_big(family: int) -> None:
    model, net = World(family, {"VLAN": 5}).model(), NETS[family]
    plain = forward(family, UDP, bytes(1480))
    frame = bytes(Ether(src=plain.src, dst=plain.dst) / Dot1Q(vlan=5, prio=3) / plain.payload)
    verdict, out, counts = model.run(frame)
    kept = 68 if family == 4 else 128
    if family == 4:
        kind = ICMP(type=3, code=4, nexthopmtu=DATA_MTU)
        header = IP(src=net.hop, dst=net.client, ttl=64, id=0, flags="DF")
    else:
        kind = ICMPv6PacketTooBig(mtu=DATA_MTU)
        header = IPv6(src=net.hop, dst=net.client, hlim=64)
    quote = Raw(bytes(plain.payload)[:kept])
    head = Ether(src=HOP_MAC, dst=MACS[net.client]) / Dot1Q(vlan=5, prio=3)
    assert (verdict, out) == (TX, bytes(head / header / kind / quote))
    assert counts == {"flows_opened": 1, "port_kept": 1, "replied_too_big": 1}


def test_too_big_without_df_is_for_the_stack_to_fragment() -> None:
    model = World(4).model()
    packet, translated = forward(4, UDP, bytes(1480)), onward(4, UDP, bytes(1480))
    packet[IP].flags = translated[IP].flags = 0
    translated.src, translated.dst, translated[IP].ttl = packet.src, packet.dst, packet[IP].ttl
    verdict, out, counts = model.run(bytes(packet))
    assert (verdict, out) == (PASS, bytes(translated))
    assert counts["passed_too_big"] == 1


@FAMILIES
def test_out_by_the_other_nic(family: int) -> None:
    world = World(family, {"TWO_NICS": 1, "VLAN": 5, "EGRESS_VLAN": 6})
    model, net = world.model(), NETS[family]
    model.set_next(packed(net.behind), NEXT_PORT, packed(net.out))
    plain = forward(family, TCP, flags="S")
    tagged = Ether(src=plain.src, dst=plain.dst) / Dot1Q(vlan=5, prio=7, dei=1) / plain.payload
    verdict, out, _ = model.run(bytes(tagged))
    head = Ether(src=EGRESS_MAC, dst=MACS[net.behind]) / Dot1Q(vlan=6, prio=7, dei=1)
    segment = TCP(sport=PORT, dport=NEXT_PORT, flags="S")
    assert verdict == REDIRECT
    assert out == bytes(head / ip(family, net.out, net.behind, 63) / segment)


@FAMILIES
@PROTOCOLS
def test_what_was_wrong_stays_wrong(family: int, upper: type[Packet]) -> None:
    """By the same difference."""
    packet = Ether(bytes(forward(family, upper, b"text")))
    right = packet[upper].chksum
    packet[upper].chksum = right ^ 0x0101
    _, out, _ = World(family).model().run(bytes(packet))
    damaged, good = Ether(out)[upper].chksum, onward(family, upper, b"text")
    error = (damaged - Ether(bytes(good))[upper].chksum) % 0xFFFF
    assert error == ((right ^ 0x0101) - right) % 0xFFFF


def test_udp_without_a_checksum() -> None:
    packet, expected = (build(4, UDP, b"text") for build in (forward, onward))
    packet[UDP].chksum = expected[UDP].chksum = 0
    assert World(4).model().run(bytes(packet))[1] == bytes(expected)


def test_ones_complement_sums() -> None:
    assert [fold(n) for n in (0, 1, 0xFFFF, 0x10000, 0x1FFFE)] == [0, 1, 0xFFFF, 1, 0xFFFF]
    assert checksum(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7") == 0x220D  # RFC 1071, section 3
    assert checksum(b"\xff\xff") == 0
    assert checksum(b"\x01") == 0xFEFF


def chosen(world: World, port: int, collisions: int = 0) -> tuple[bytes, Outcome]:
    """A datagram of an endpoint outside the range, and a program that gave it `port`."""
    packet = forward(world.family, UDP)
    packet[UDP].sport = 40000
    there = onward(world.family, UDP)
    there[UDP].sport = port
    frame, out = bytes(packet), bytes(there)
    counts = {
        "flows_opened": 1,
        "port_other": 1,
        "forwarded_packets": 1,
        "forwarded_bytes": len(frame),
    }
    return frame, (TX, out, {**counts, "port_collisions": collisions} if collisions else counts)


@FAMILIES
def test_a_port_that_is_legal_is_believed_once(family: int) -> None:
    """A home is for ever; what is random is not."""
    world = World(family)
    frame, seen = chosen(world, 1234)
    assert world.model().run(frame, seen=seen) == seen
    frame, other = chosen(world, 1235)
    assert world.model().run(frame, seen=other) == seen
    random = World(family, {"FRESH": 1})
    assert random.model().run(frame, seen=seen) == seen
    assert random.model().run(frame, seen=other) == other


# port, collisions that are said to have led to it
ILLEGAL = [(PORT, 0), (HOP_PORT, 0), (1023, 0), (32768, 0), (PORT + 1, 1), (PORT + 7919, 2)]


@pytest.mark.parametrize(("port", "collisions"), ILLEGAL)
def test_a_port_that_is_not_legal_is_not_believed(port: int, collisions: int) -> None:
    """Taken, never one of the ports, out of the range, or reached past a free one."""
    world = World(4, {"FRESH": 1})
    model = world.model()
    model.run(bytes(forward(4, UDP)))
    frame, seen = chosen(world, port, collisions)
    assert model.run(frame, seen=seen) != seen


def test_a_collision_that_explains_a_port_is_believed() -> None:
    world = World(4, {"FRESH": 1})
    model = world.model()
    model.run(bytes(forward(4, UDP)))
    frame, seen = chosen(world, PORT + 7919, 1)
    assert model.run(frame, seen=seen) == seen


def test_no_port_is_believed_only_when_there_may_be_none() -> None:
    few = World(4, {"FRESH": 1, "PORT_MIN": PORT, "PORT_MAX": PORT + 1})
    frame, _ = chosen(few, PORT)
    seen = (DROP, frame, {"dropped_no_port": 1, "port_collisions": 32})
    first, second = forward(4, UDP), forward(4, UDP)
    second[UDP].sport = PORT + 1
    model = few.model()
    model.run(bytes(first))
    assert model.run(frame, seen=seen)[0] == TX
    model = few.model()
    for packet in (first, second):
        assert model.run(bytes(packet))[0] == TX
    assert model.run(frame, seen=seen) == seen
