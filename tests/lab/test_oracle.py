# SPDX-License-Identifier: Apache-2.0
"""nft as the oracle: TCP and UDP come out of a hop that runs XDP as out of one that runs nft."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import (
    TCP,
    UDP,
    IPOption_NOP,
    IPOption_Router_Alert,
)
from scapy.layers.l2 import Ether

from tests.lab.oracle import (
    CLIENT_MAC,
    ETHERNET,
    HOP_MAC,
    NEXT_MAC,
    ONLY_IPV4,
    OUT_MAC,
    Connection,
    World,
)
from tests.lab.oracle import world as world
from tests.lab.oracle import worlds as worlds

SYN_OPTIONS = [
    ("MSS", 1460),
    ("SAckOK", b""),
    ("Timestamp", (0xFFFFFF00, 0)),
    ("NOP", None),
    ("WScale", 7),
]


def stamps(mine: int, yours: int) -> list[Any]:
    """The timestamp option as segments carry it."""
    return [("NOP", None), ("NOP", None), ("Timestamp", (mine, yours))]


def test_what_both_hops_send_is_what_is_meant(world: World) -> None:
    """Where they agree they are right, too: the same packet, made up as it should come out."""
    for protocol in (TCP, UDP):
        talk = world.talk(protocol)
        flags = {"flags": "S"} if protocol is TCP else {}
        got = talk.carried("client", protocol(**flags), b"hello")
        macs = (OUT_MAC if world.nics == 2 else HOP_MAC, NEXT_MAC)
        packet = talk.packet("client", protocol(**flags), b"hello", sent=True)
        assert got == bytes(Ether(src=macs[0], dst=macs[1]) / packet)
        flags = {"flags": "SA", "ack": 6} if protocol is TCP else {}
        got = talk.carried("next", protocol(**flags), b"welcome")
        packet = talk.packet("next", protocol(**flags), b"welcome", sent=True)
        assert got == bytes(Ether(src=HOP_MAC, dst=CLIENT_MAC) / packet)


def test_a_connection_from_syn_to_the_last_acknowledgement(world: World) -> None:
    tcp = Connection(world.talk(TCP))
    tcp.up("S", options=SYN_OPTIONS)
    tcp.down("SA", options=SYN_OPTIONS)
    tcp.up("A", options=stamps(0xFFFFFF01, 5))
    tcp.up("PA", b"GET / HTTP/1.1\r\n\r\n", options=stamps(0xFFFFFF02, 5))
    for number in range(12):
        tcp.down("A", bytes([number]) * 1328, options=stamps(6 + number, 0xFFFFFF02))
        if number % 2:
            tcp.up("A", options=stamps(number, 6 + number))
    # The server closes its half; the client goes on for a while.
    tcp.down("FPA", b"the end")
    tcp.up("A")
    tcp.up("PA", b"one more thing")
    tcp.down("A")
    tcp.up("FA")
    tcp.down("A")


def test_both_ends_may_close_at_once(world: World) -> None:
    tcp = Connection(world.talk(TCP)).open()
    tcp.up("FA")
    tcp.down("FA", ack=(tcp.numbers["client"] - 1) % 2**32)
    tcp.up("A")
    tcp.down("A")
    # The same endpoint comes again: both hops give it the same port as before.
    Connection(tcp.talk).open().up("PA", b"again")


def test_segments_that_are_lost_and_repeated(world: World) -> None:
    tcp = Connection(world.talk(TCP))
    tcp.up("S", options=SYN_OPTIONS)
    tcp.up("S", options=SYN_OPTIONS, back=1)
    tcp.down("SA", options=SYN_OPTIONS)
    tcp.down("SA", options=SYN_OPTIONS, back=1)
    tcp.up("A")
    start = tcp.numbers["next"]
    tcp.down("A", b"a" * 1000)
    tcp.numbers["next"] += 1000  # the second one never gets here
    tcp.down("A", b"c" * 1000)
    tcp.down("A", b"d" * 1000)
    edges = [(start + offset) % 2**32 for offset in (2000, 4000, 2000, 3000)]
    for blocks in (edges[2:], edges[:2], edges):
        sack = [("NOP", None), ("NOP", None), ("SAck", tuple(blocks))]
        tcp.up("A", ack=(start + 1000) % 2**32, options=sack)
    tcp.down("A", b"b" * 1000, seq=(start + 1000) % 2**32, back=3000)
    tcp.up("A")
    tcp.down("PA", b"d" * 1000, back=1000)
    tcp.up("A", options=[("NOP", None), ("NOP", None), ("SAck", (edges[3], edges[1]))])


def test_windows_probes_and_urgent_data(world: World) -> None:
    tcp = Connection(world.talk(TCP)).open()
    tcp.up("PAU", b"urgent", urgptr=6)
    tcp.down("A", window=0)
    tcp.up("A", back=1)  # a probe, as keep-alive sends it too
    tcp.down("A", window=0)
    tcp.down("A", window=60000)
    tcp.down("PAU", b"so what", urgptr=3)
    tcp.up("A")


@pytest.mark.parametrize("side", ["client", "next"])
def test_a_reset_ends_a_connection(world: World, side: str) -> None:
    tcp = Connection(world.talk(TCP)).open()
    tcp.up("PA", b"hello")
    tcp.down("A")
    tcp.says(side, "RA")
    # The endpoint may open another one at once.
    Connection(tcp.talk).open()


def test_a_refused_connection(world: World) -> None:
    tcp = Connection(world.talk(TCP))
    tcp.up("S")
    tcp.down("RA", window=0)


def test_congestion_notification_and_priorities(world: World) -> None:
    """Traffic class: DSCP above ECN. RFC 3168: asked for, agreed, marked, echoed, answered."""
    name = "tos" if world.family == 4 else "tc"
    tcp = Connection(world.talk(TCP))
    tcp.up("SEC")
    tcp.down("SAE")
    tcp.up("A", header={name: 0x02})
    tcp.up("PA", b"data", header={name: 0xB8 | 0x03})
    tcp.down("AE", header={name: 0x20})
    tcp.up("PAC", b"less", header={name: 0xFE})


def test_a_syn_with_data(world: World) -> None:
    """RFC 7413: with a cookie, and data in the answer before the handshake is over."""
    tcp = Connection(world.talk(TCP))
    tcp.up("S", b"early", options=[("MSS", 1460), ("TFO", (0x01020304, 0x05060708))])
    tcp.down("SA", b"")
    tcp.down("PA", b"early, too")
    tcp.up("A")


def test_a_client_behind_a_router(world: World) -> None:
    """It is no neighbour of the hop; its router is."""
    tcp = Connection(world.talk(TCP, "far")).open()
    tcp.up("PA", b"from afar")
    tcp.down("PA", b"and back")


# --- checksums ----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "next"])
def test_checksums_that_come_out_as_nought(world: World, side: str) -> None:
    """By difference, 0 and 0xffff are easily mistaken; UDP sends 0xffff, and 0 means none."""
    udp, tcp = world.talk(UDP), Connection(world.talk(TCP)).open()
    udp.carried("client", UDP(), b"opens")
    found = bytes(udp.packet(side, UDP(), b"\0\0", sent=True))
    data = found[world.header_len + 6 : world.header_len + 8]
    assert udp.carried(side, UDP(), data)[ETHERNET + world.header_len + 6 :][:2] == b"\xff\xff"
    segment = tcp.segment(side, "A", b"12")
    found = bytes(tcp.talk.packet(side, segment, b"\0\0", sent=True))
    data = found[world.header_len + 16 : world.header_len + 18]
    got = tcp.talk.carried(side, segment, data)
    assert got[ETHERNET + world.header_len + 16 :][:2] == b"\0\0"


@ONLY_IPV4
@pytest.mark.parametrize("side", ["client", "next"])
def test_a_header_checksum_that_comes_out_as_nought(world: World, side: str) -> None:
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    found = bytes(talk.packet(side, UDP(), b"12345", sent=True, id=0))
    number = int.from_bytes(found[10:12], "big")
    assert talk.carried(side, UDP(), b"12345", id=number)[ETHERNET + 10 :][:2] == b"\0\0"


def test_datagrams_of_any_kind(world: World) -> None:
    """Two hundred of them, drawn: lengths odd and even, every field that a hop leaves alone."""
    draw = random.Random(world.family)
    talks = [world.talk(UDP) for _ in range(5)]
    for talk in talks:
        talk.carried("client", UDP(), b"opens")
    for _ in range(200):
        talk, side = draw.choice(talks), draw.choice(["client", "next"])
        header = {"ttl": draw.randrange(2, 256)}
        if world.family == 4:
            header |= {"id": draw.randrange(1 << 16), "tos": draw.randrange(256)}
            header["flags"] = draw.choice(["", "DF"])
        else:
            header |= {"tc": draw.randrange(256), "fl": draw.randrange(1 << 20)}
        talk.carried(side, UDP(), draw.randbytes(draw.randrange(1300)), **header)


@ONLY_IPV4
def test_a_datagram_without_a_checksum(world: World) -> None:
    talk = world.talk(UDP)
    for side in ("client", "next", "client"):
        got = talk.carried(side, UDP(chksum=0), b"unprotected")
        assert got[ETHERNET + 20 + 6 :][:2] == b"\0\0"


@ONLY_IPV4
def test_ip_options_are_carried(world: World) -> None:
    options = [IPOption_NOP(), IPOption_Router_Alert(), IPOption_NOP(), IPOption_NOP()]
    talk, tcp = world.talk(UDP), Connection(world.talk(TCP))
    for side in ("client", "next"):
        talk.carried(side, UDP(), b"data", options=options)
        for flags in ("S",) if side == "client" else ("SA", "PA"):
            tcp.says(side, flags, header={"options": options})
