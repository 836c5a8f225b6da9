# SPDX-License-Identifier: Apache-2.0
"""nft as the oracle: ICMP errors about a flow's packets, and packets too big for the way ahead."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.layers.inet import (
    TCP,
    UDP,
    IPOption_NOP,
    IPOption_Router_Alert,
)
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.lab.oracle import (
    ETHERNET,
    ICMP,
    NARROW,
    NARROWER,
    ONLY_IPV4,
    OTHER,
    Connection,
    Talk,
    World,
    ethernet,
)
from tests.lab.oracle import world as world
from tests.lab.oracle import worlds as worlds
from tests.lab.test_oracle import stamps

# Name, IPv4's type and code, IPv6's; for a packet too big, the MTU.
ERRORS = [
    ("port unreachable", (3, 3), (1, 4), 0),
    ("host unreachable", (3, 1), (1, 3), 0),
    ("net unreachable", (3, 0), (1, 0), 0),
    ("prohibited", (3, 13), (1, 1), 0),
    ("too big", (3, 4), (2, 0), 1280),
    ("time exceeded", (11, 0), (3, 0), 0),
    ("reassembly time exceeded", (11, 1), (3, 1), 0),
    ("parameter problem", (12, 0), (4, 0), 8),
]


def error(
    talk: Talk, side: str, what: tuple[int, int], quote: bytes, info: int = 0, **header: Any
) -> bytes:
    """A frame with an ICMP error about a packet that the hop has sent to this side."""
    world = talk.world
    message = struct.pack("!BBHI", *what, 0, info) + quote
    packet = talk.header(side, **header)
    if world.family == 4:
        packet.proto = ICMP[4]
        check = checksum(message)
    else:
        packet.nh = ICMP[6]
        # The pseudo-header is of the addresses.
        check = in6_chksum(ICMP[6], packet, message)
    message = message[:2] + check.to_bytes(2, "big") + message[4:]
    return ethernet(world, side, packet / Raw(message))


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: str(row[0]).replace(" ", "-"))
@pytest.mark.parametrize("side", ["client", "next"])
def test_errors_about_packets_of_a_flow(
    world: World, side: str, row: tuple[str, tuple[int, int], tuple[int, int], int]
) -> None:
    """About TCP and UDP, quoting 8 octets or more, sent by the packet's receiver or a router.

    The quoted packet is the one that the hop has sent to the side that complains.
    """
    _, *kinds, info = row
    kind = kinds[0 if world.family == 4 else 1]
    for protocol in (TCP, UDP):
        talk = world.talk(protocol)
        if protocol is TCP:
            tcp = Connection(talk).open()
            sent = tcp.says(OTHER[side], "PA", b"data " * 20, options=stamps(1, 2))
        else:
            talk.carried("client", UDP(), b"opens")
            sent = talk.carried(OTHER[side], UDP(), b"data " * 20)
        quote = sent[ETHERNET:]
        for length in (8, 19, 20, len(quote) - world.header_len):
            part = quote[: world.header_len + length]
            for source in ({}, {"src": world.net.router}):
                world.carried(side, error(talk, side, kind, part, info, **source))


@pytest.mark.parametrize("side", ["client", "next"])
def test_errors_with_fields_of_their_own(world: World, side: str) -> None:
    """The quote's TTL has fallen and may be 0; an extension follows it (RFC 4884); a low TTL."""
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    quote = bytearray(talk.carried(OTHER[side], UDP(), b"12345")[ETHERNET:])
    kind = (11, 0) if world.family == 4 else (3, 0)
    if world.family == 4:
        # TTL and header checksum as a router leaves them behind.
        falls = quote[8]
        quote[8] = 0
        value = int.from_bytes(quote[10:12], "big") + (falls << 8)
        quote[10:12] = ((value & 0xFFFF) + (value >> 16)).to_bytes(2, "big")
    else:
        quote[7] = 0
    world.carried(side, error(talk, side, kind, bytes(quote), ttl=2))
    # Of length 32 words or 16 double words, then a header of extensions and one object.
    extension = struct.pack("!BBHHBB4s", 0x20, 0, 0, 8, 1, 1, b"\x12\x34\x51\x40")
    info = 32 << 16 if world.family == 4 else 16 << 24
    padded = bytes(quote).ljust(128, b"\0")
    world.carried(side, error(talk, side, kind, padded + extension, info, ttl=255))


@ONLY_IPV4
@pytest.mark.parametrize("side", ["client", "next"])
def test_errors_about_what_is_unusual(world: World, side: str) -> None:
    """A datagram without a checksum, which stays without; options; the first of fragments."""
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    plain = talk.carried(OTHER[side], UDP(chksum=0), b"unprotected")[ETHERNET:]
    got = world.carried(side, error(talk, side, (3, 3), plain))
    assert got[ETHERNET + 20 + 8 + 20 + 6 :][:2] == b"\0\0"
    options = [IPOption_Router_Alert(), IPOption_NOP()]
    long = talk.carried(OTHER[side], UDP(), b"12345", options=options)[ETHERNET:]
    world.carried(side, error(talk, side, (3, 3), long))
    first = bytearray(plain)
    first[6] |= 0x20  # MF, and a header checksum that no router would have left so
    world.carried(side, error(talk, side, (11, 1), bytes(first)))


def test_errors_that_speak_of_nothing_known(world: World) -> None:
    """No flow, a flow's packet that was never sent, too little of it, a TTL at its end: silence."""
    kind = (3, 3) if world.family == 4 else (1, 4)
    for side in ("client", "next"):
        talk, unknown = world.talk(UDP), world.talk(UDP)
        talk.carried("client", UDP(), b"opens")
        quote = talk.carried(OTHER[side], UDP(), b"12345")[ETHERNET:]
        never = bytes(unknown.packet(OTHER[side], UDP(), b"12345", sent=True))
        backwards = bytes(talk.packet(side, UDP(), b"12345"))
        for frame in (
            error(talk, side, kind, never),
            error(talk, side, kind, backwards),
            error(talk, side, kind, quote[: world.header_len + 7]),
            error(talk, side, kind, quote, ttl=1),
        ):
            assert world.exchange(side, frame) == {"nft": [], "xdp": []}


# --- too big ------------------------------------------------------------------------------------

# Side that sends, client, and the MTU of the way that its packets go on.
WAYS = [("client", "client", NARROW), ("next", "far", NARROWER)]


def limits(world: World, protocol: type[Packet], mtu: int) -> int:
    """How many octets a packet of this length has for data."""
    return mtu - world.header_len - (20 if protocol is TCP else 8)


def opened(
    world: World, protocol: type[Packet], side: str, client: str = "client"
) -> tuple[Talk, Packet]:
    """A flow, and the header of what that side sends next."""
    talk = world.talk(protocol, client)
    if protocol is TCP:
        numbers = Connection(talk).open().numbers
        return talk, TCP(flags="A", seq=numbers[side], ack=numbers[OTHER[side]])
    talk.carried("client", UDP(), b"opens")
    return talk, UDP()


def split(world: World, frame: bytes) -> tuple[bytes, bytes, bytes]:
    """IP header, the first eight octets of an ICMP message, and what it quotes."""
    at = ETHERNET + world.header_len
    return frame[ETHERNET:at], frame[at : at + 8], frame[at + 8 :]


@pytest.mark.parametrize(("side", "client", "mtu"), WAYS)
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_packet_too_big_is_told_to_its_sender(
    world: World, protocol: type[Packet], side: str, client: str, mtu: int
) -> None:
    """By the same address, with the same MTU and a quote of the packet as it was sent.

    The quotes end in different places: XDP's is the shortest that RFC 792 and RFC 4443 allow for
    in every case, the stack's fills 576 octets (IPv4) or 1280. Its type of service, its ID, its
    flow label and DF are the stack's own business.
    """
    talk, upper = opened(world, protocol, side, client)
    header = {"flags": "DF"} if world.family == 4 else {}
    fits = limits(world, protocol, mtu)
    talk.carried(side, upper, b"x" * fits, **header)
    frame = talk.frame(side, upper, b"x" * (fits + 1), **header)
    came = world.exchange(side, frame)
    told = {}
    for mode, frames in came.items():
        ((where, got),) = frames
        assert where == side
        assert got[:12] == frame[6:12] + frame[:6]
        ip, icmp, quote = split(world, got)
        # TTL or hop limit, and the addresses.
        ends = ip[8:9] + ip[12:] if world.family == 4 else ip[7:]
        what = icmp[:2], int.from_bytes(icmp[4:], "big")
        assert what == ((b"\3\4" if world.family == 4 else b"\2\0"), mtu)
        assert frame[ETHERNET:].startswith(quote), mode
        check = checksum(icmp + quote)
        if world.family == 6:
            check = in6_chksum(ICMP[6], IPv6(ip), icmp + quote)
        assert check in (0, 0xFFFF), mode
        told[mode] = ends, len(quote)
    assert told["nft"][0] == told["xdp"][0]
    assert told["xdp"][1] == (68 if world.family == 4 else 128)
    assert told["nft"][1] >= told["xdp"][1]


@ONLY_IPV4
@pytest.mark.parametrize(("side", "client", "mtu"), WAYS)
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_packet_too_big_without_df_is_fragmented(
    world: World, protocol: type[Packet], side: str, client: str, mtu: int
) -> None:
    """XDP has the stack do it, so that even the fragments are the same."""
    talk, upper = opened(world, protocol, side, client)
    data = b"x" * (limits(world, protocol, mtu) + 1)
    frames = world.same(side, talk.frame(side, upper, data))
    assert [where for where, _ in frames] == [OTHER[side]] * 2
