# SPDX-License-Identifier: Apache-2.0
"""The forwarder, frame by frame: every byte that leaves, its checksums computed from scratch."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.datapath.conftest import (
    CLIENT_IP,
    CLIENT_MAC,
    DROP,
    FAR_IP,
    HOP_IP,
    HOP_MAC,
    HOP_PORT,
    NEXT_IP,
    NEXT_MAC,
    NEXT_PORT,
    OTHER_IP,
    OTHER_MAC,
    PASS,
    PORT_MAX,
    PORT_MIN,
    TX,
    UNRESOLVED_IP,
    Feed,
)

PORT = 20000  # in the hop's range: a client keeps it


def built(packet: Packet) -> bytes:
    """Return the frame with every checksum computed."""
    return bytes(packet)


def from_client(
    flags: str = "S", port: int = PORT, *, ip: str = CLIENT_IP, ttl: int = 64, **more: Any
) -> Packet:
    """A segment from the client to the hop."""
    header = IP(src=ip, dst=HOP_IP, ttl=ttl, id=7, **more.pop("ip_fields", {}))
    segment = TCP(sport=port, dport=HOP_PORT, flags=flags, **{"seq": 1000, **more})
    return Ether(src=CLIENT_MAC, dst=HOP_MAC) / header / segment


def to_next(
    packet: Packet, port: int = PORT, *, address: str = NEXT_IP, mac: str = NEXT_MAC
) -> bytes:
    """The same segment as the next hop must see it."""
    out = Ether(bytes(packet))
    out.src, out.dst = HOP_MAC, mac
    out[IP].src, out[IP].dst, out[IP].ttl = HOP_IP, address, out[IP].ttl - 1
    out[TCP].sport, out[TCP].dport = port, NEXT_PORT
    del out[IP].chksum, out[TCP].chksum
    return bytes(out)


def from_next(flags: str = "SA", port: int = PORT, *, ttl: int = 64, **more: Any) -> Packet:
    """A segment from the next hop to one of the hop's ports."""
    header = IP(src=more.pop("ip", NEXT_IP), dst=HOP_IP, ttl=ttl, id=9)
    segment = TCP(sport=more.pop("sport", NEXT_PORT), dport=port, flags=flags, seq=5000, **more)
    return Ether(src=NEXT_MAC, dst=HOP_MAC) / header / segment


def to_client(packet: Packet, port: int = PORT, *, ip: str = CLIENT_IP) -> bytes:
    """The same segment as the client must see it."""
    out = Ether(bytes(packet))
    out.src, out.dst = HOP_MAC, CLIENT_MAC
    out[IP].src, out[IP].dst, out[IP].ttl = HOP_IP, ip, out[IP].ttl - 1
    out[TCP].sport, out[TCP].dport = HOP_PORT, port
    del out[IP].chksum, out[TCP].chksum
    return bytes(out)


SYN = from_client()
OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (77, 0)), ("WScale", 7)]

# name, frame, what the next hop must see: the client's side of a flow
FORWARDED = [
    ("syn", SYN),
    ("syn with options", from_client(options=OPTIONS)),
    ("syn with data", from_client() / Raw(b"early")),
    ("odd length", from_client() / Raw(b"x" * 3)),
    ("MTU", from_client() / Raw(b"\xff" * 1460)),
    ("lowest TTL", from_client(ttl=2)),
    ("highest TTL", from_client(ttl=255)),
    ("IP options", from_client(ip_fields={"options": [IPOption_NOP()] * 4})),
    ("longest IP header", from_client(ip_fields={"options": [IPOption_NOP()] * 40})),
    ("type of service", from_client(ip_fields={"tos": 0xB8})),
    ("do not fragment", from_client(ip_fields={"flags": "DF"})),
    ("ECN setup", from_client(flags="SEC")),
    ("all-ones payload", from_client() / Raw(b"\xff\xff")),
    ("padded to 60 octets", SYN / Raw(b"")),
]


@pytest.mark.parametrize(("name", "frame"), FORWARDED, ids=[row[0] for row in FORWARDED])
def test_forwarded(feed: Feed, name: str, frame: Packet) -> None:
    fed = feed(built(frame))
    assert fed.results == [(TX, to_next(frame))], name
    assert fed.counters["forwarded_packets"] == fed.counters["flows_opened"] == 1


def test_a_conversation(feed: Feed) -> None:
    """Both directions, from SYN to the last ACK, one row a segment."""
    rows = [
        (SYN, to_next(SYN)),
        *((packet, to_client(packet)) for packet in [from_next("SA", options=OPTIONS)]),
        *((packet, to_next(packet)) for packet in [from_client("A")]),
        *((packet, to_next(packet)) for packet in [from_client("PA") / Raw(b"GET / HTTP/1.1")]),
        *((packet, to_client(packet)) for packet in [from_next("A") / Raw(b"z" * 1448)]),
        *((packet, to_client(packet)) for packet in [from_next("FA")]),
        *((packet, to_next(packet)) for packet in [from_client("A")]),
        *((packet, to_next(packet)) for packet in [from_client("FA")]),
        *((packet, to_client(packet)) for packet in [from_next("A")]),
    ]
    fed = feed(*(built(packet) for packet, _ in rows))
    assert fed.results == [(TX, expected) for _, expected in rows]
    assert fed.counters["flows_opened"] == fed.counters["flows_closed"] == 1
    assert fed.counters["forwarded_packets"] + fed.counters["returned_packets"] == len(rows)
    assert fed.counters["forwarded_bytes"] == sum(
        len(bytes(packet)) for packet, _ in rows if packet[Ether].src == CLIENT_MAC
    )


# name, frame, counter: what is not ours goes to the stack as it came
PASSED = [
    ("ARP", Ether(dst=HOP_MAC) / ARP(pdst=HOP_IP), "passed_not_ipv4"),
    ("IPv6", Ether(dst=HOP_MAC) / IPv6() / TCP(dport=HOP_PORT), "passed_not_ipv4"),
    ("VLAN", Ether(dst=HOP_MAC) / Dot1Q(vlan=5) / SYN[IP], "passed_not_ipv4"),
    ("broadcast", Ether(dst="ff:ff:ff:ff:ff:ff") / SYN[IP], "passed_not_ipv4"),
    ("UDP", Ether(dst=HOP_MAC) / IP(dst=HOP_IP) / UDP(dport=HOP_PORT), "passed_not_tcp"),
    ("ICMP", Ether(dst=HOP_MAC) / IP(dst=HOP_IP) / ICMP(), "passed_not_tcp"),
    ("SSH", Ether(dst=HOP_MAC) / IP(dst=HOP_IP) / TCP(dport=22), "passed_not_ours"),
    ("another host", Ether(dst=HOP_MAC) / IP(dst=OTHER_IP) / TCP(dport=7000), "passed_not_ours"),
    ("ACK out of nowhere", from_client("A"), "passed_no_flow"),
    ("RST out of nowhere", from_client("R"), "passed_no_flow"),
    ("SYN+ACK to the port", from_client("SA"), "passed_no_flow"),
    ("answer without a flow", from_next(), "passed_not_ours"),
    ("port below the range", from_next(port=PORT_MIN - 1), "passed_not_ours"),
    ("port above the range", from_next(port=PORT_MAX + 1), "passed_not_ours"),
    ("highest port", from_next(port=65535), "passed_not_ours"),
    ("TTL 1", from_client(ttl=1), "passed_ttl"),
    ("TTL 0", from_client(ttl=0), "passed_ttl"),
    ("first fragment", from_client(ip_fields={"flags": "MF"}), "passed_fragment"),
    ("later fragment", from_client(ip_fields={"frag": 64}), "passed_fragment"),
    ("IP header too short", from_client(ip_fields={"ihl": 4}), "passed_truncated"),
    ("version 5", from_client(ip_fields={"version": 5}), "passed_not_ipv4"),
    ("half a TCP header", built(SYN)[:44], "passed_truncated"),
    ("half an IP header", built(SYN)[:30], "passed_truncated"),
    ("an Ethernet header", built(SYN)[:14], "passed_truncated"),
]


@pytest.mark.parametrize(("name", "frame", "counter"), PASSED, ids=[row[0] for row in PASSED])
def test_passed_untouched(feed: Feed, name: str, frame: Packet | bytes, counter: str) -> None:
    raw = bytes(frame)
    fed = feed(raw)
    assert fed.results == [(PASS, raw)], name
    assert fed.counters[counter] == 1
    assert fed.counters["forwarded_packets"] == fed.counters["returned_packets"] == 0


def test_the_return_path_takes_the_next_hop_only(feed: Feed) -> None:
    strangers = [from_next(ip=OTHER_IP), from_next(sport=NEXT_PORT + 1), from_next(ttl=1)]
    fed = feed(built(SYN), *map(built, strangers), built(from_next()))
    assert fed.results[1:4] == [(PASS, built(packet)) for packet in strangers]
    assert fed.results[4] == (TX, to_client(from_next()))


# name, next hop, counter: a flow that cannot begin is dropped, and the reason counted
DROPPED = [
    ("no neighbour", UNRESOLVED_IP, "dropped_no_neighbour"),
    ("no route", FAR_IP, "dropped_no_route"),
    ("this host itself", HOP_IP, "dropped_no_route"),
]


@pytest.mark.parametrize(("name", "address", "counter"), DROPPED, ids=[row[0] for row in DROPPED])
def test_dropped(feed: Feed, name: str, address: str, counter: str) -> None:
    fed = feed((address, NEXT_PORT), built(SYN))
    assert (fed.results[0][0], fed.counters[counter]) == (DROP, 1), name
    assert fed.counters["flows_opened"] == 0


def test_dropped_before_there_is_a_next_hop(feed: Feed) -> None:
    fed = feed(("0.0.0.0", 0), built(SYN))
    assert (fed.results[0][0], fed.counters["dropped_not_ready"]) == (DROP, 1)


def ports_of(results: list[tuple[int, bytes]]) -> list[int]:
    """Return the source ports that the next hop sees."""
    return [Ether(frame)[TCP].sport for verdict, frame in results if verdict == TX]


@pytest.mark.parametrize("port", [PORT_MIN, PORT, PORT_MAX])
def test_a_port_of_the_range_is_kept(feed: Feed, port: int) -> None:
    assert ports_of(feed(built(from_client(port=port))).results) == [port]


def test_an_endpoint_has_the_same_port_after_a_reload(feed: Feed) -> None:
    """What makes a reload safe: the server's TIME_WAIT knows the port from this endpoint only."""
    steps = [built(from_client(port=port)) for port in range(32768, 32768 + 200)]
    first, second = feed(*steps), feed(*reversed(steps))
    assert ports_of(first.results) == list(reversed(ports_of(second.results)))
    assert len(set(ports_of(first.results))) == len(steps)
    assert all(PORT_MIN <= port <= PORT_MAX for port in ports_of(first.results))
    assert first.counters["port_collisions"] == 0


def test_two_clients_never_share_a_port(feed: Feed) -> None:
    addresses = ("198.18.7.1", "198.18.7.200", "192.0.2.1")
    steps = [
        built(from_client(port=port, ip=ip)) for ip in addresses for port in range(20000, 20100)
    ]
    fed = feed(*steps)
    ports = ports_of(fed.results)
    assert len(set(ports)) == len(ports) == len(steps)
    assert fed.counters["port_collisions"] >= 200


def test_the_forwarded_port_is_no_source_port(feed: Feed) -> None:
    """On it, an answer of the next hop would look like a client's segment."""
    (port,) = ports_of(feed(built(from_client(port=HOP_PORT))).results)
    assert port != HOP_PORT


def closing(port: int = PORT, hop_port: int | None = None) -> list[bytes]:
    """Return a whole short conversation, closed by the server first."""
    there = port if hop_port is None else hop_port
    return [
        built(from_client(port=port)),
        built(from_next("SA", port=there)),
        built(from_next("FA", port=there)),
        built(from_client("FA", port=port)),
    ]


def test_a_closed_port_waits_for_its_own_endpoint(feed: Feed) -> None:
    """Another client may not have it within TIME_WAIT; the endpoint it belongs to may."""
    stranger, again = from_client(ip="198.18.7.200"), from_client(seq=99999)
    fed = feed(*closing(), built(stranger), built(again))
    other, same = ports_of(fed.results)[-2:]
    assert other != PORT
    assert same == PORT
    assert fed.counters["flows_reopened"] == 1


def test_when_no_port_is_left_new_flows_are_dropped_and_old_ones_live(feed: Feed) -> None:
    low, high = 20000, 20007
    taken = [built(from_client(port=port)) for port in range(low, high + 1)]
    fed = feed(
        *taken,
        built(from_client(port=40000)),
        built(from_client("A", port=low)),
        PORT_MIN=low,
        PORT_MAX=high,
    )
    assert [verdict for verdict, _ in fed.results] == [TX] * 8 + [DROP, TX]
    assert fed.counters["dropped_no_port"] == 1
    assert len(set(ports_of(fed.results[:8]))) == 8


def test_a_repeated_syn_keeps_its_flow(feed: Feed) -> None:
    fed = feed(built(SYN), built(SYN), built(from_next()))
    assert fed.results == [(TX, to_next(SYN))] * 2 + [(TX, to_client(from_next()))]
    assert fed.counters["flows_opened"] == 1


def test_a_new_next_hop_is_for_new_connections(feed: Feed) -> None:
    ack, syn = from_client("A"), from_client(port=PORT + 1)
    fed = feed(built(SYN), (OTHER_IP, NEXT_PORT), built(ack), built(syn), built(SYN))
    assert fed.results == [
        (TX, to_next(SYN)),
        (TX, to_next(ack)),
        (TX, to_next(syn, PORT + 1, address=OTHER_IP, mac=OTHER_MAC)),
        (TX, to_next(SYN, address=OTHER_IP, mac=OTHER_MAC)),
    ]


def test_a_wrong_checksum_stays_wrong(feed: Feed) -> None:
    """A hop must not mend what was damaged before it."""
    damaged = Ether(built(SYN))
    damaged[TCP].chksum ^= 0x0101
    good, bad = feed(built(SYN)), feed(bytes(damaged))
    difference = Ether(good.results[0][1])[TCP].chksum ^ Ether(bad.results[0][1])[TCP].chksum
    assert difference != 0
