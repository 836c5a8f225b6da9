# SPDX-License-Identifier: Apache-2.0
"""nft as the oracle: the same frames through a hop that runs nft and through one that runs XDP.

Two hops stand side by side, with the same addresses and the same neighbours. Every frame is made
up, sent to both, and what comes out of them is compared octet by octet. Client and next hop are
addresses that no kernel has, so nothing but the hops ever answers.

Where XDP means to do something else than nft, the test says what each of them does and why.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from scapy.layers.inet import (
    IP,
    TCP,
    UDP,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    fragment,
)
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, fragment6, in6_chksum, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.lab import links
from tests.lab.agents import CheckoutAgent

MODES = ("nft", "xdp")
PORT, NEXT_PORT, MARK_PORT = 7000, 8000, 30000
CLIENT_MAC, HOP_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
OUT_MAC, NEXT_MAC = "02:00:00:00:01:02", "02:00:00:00:01:03"
NARROW = 1400  # MTU towards the next hop, and back towards a client that is far away
ANSWER_LIMIT_S = 10.0
ETHERNET = 14  # octets of header
ETH_P_ALL, PACKET_OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
ICMP = {4: 1, 6: 58}  # protocol numbers

Frames = list[tuple[str, bytes]]  # where each came out: "client" or "next"
OTHER = {"client": "next", "next": "client"}


@dataclass(frozen=True)
class Net:
    """The addresses of a world.

    hop, out: the hop's own towards client and next hop. router: of neither network, and may send
    errors all the same. far, vague: clients behind the client, by a route whose MTU is locked and
    by one whose MTU is not.
    """

    client: str
    hop: str
    out: str
    next: str
    router: str
    far: str
    vague: str


def _net(family: int, nics: int) -> Net:
    near, beyond = ("198.19.0.", "198.19.1.") if family == 4 else ("2001:2::", "2001:2:0:1::")
    others = {
        4: ("192.0.2.9", "198.51.100.7", "203.0.113.7"),
        6: ("2001:db8:1::9", "2001:db8:2::7", "2001:db8:3::7"),
    }[family]
    out, following = (f"{near}2", f"{near}3") if nics == 1 else (f"{beyond}2", f"{beyond}3")
    return Net(f"{near}1", f"{near}2", out, following, *others)


@dataclass(frozen=True)
class Hop:
    """A hop in one mode, and the sockets at what it is plugged into."""

    host: str
    agent: CheckoutAgent
    sockets: dict[str, socket.socket]

    def exchange(self, side: str, frame: bytes, marks: tuple[bytes, bytes]) -> Frames:
        """Send a frame, and return what comes out up to a datagram sent after it, each way."""
        found: Frames = []
        self.sockets[side].send(frame)
        for there, mark in zip(("client", "next"), marks, strict=True):
            self.sockets[there].send(mark)
            until = time.monotonic() + ANSWER_LIMIT_S
            while True:
                where, got = self._receive(until)
                if got[-8:] == mark[-8:]:
                    assert where == OTHER[there]
                    break
                found.append((where, got))
        return found

    def _receive(self, until: float) -> tuple[str, bytes]:
        """Wait for a frame to client or next hop."""
        while True:
            left = until - time.monotonic()
            readable, _, _ = select.select(set(self.sockets.values()), [], [], max(left, 0))
            assert readable, f"nothing comes out of {self.host} any more"
            for sock in readable:
                frame, (_, _, kind, *_) = sock.recvfrom(1 << 16)
                to = frame[:6].hex(":")
                if kind == PACKET_OUTGOING or to not in (CLIENT_MAC, NEXT_MAC):
                    continue
                where = "client" if to == CLIENT_MAC else "next"
                assert sock is self.sockets[where], f"{self.host} sent by the wrong NIC"
                return where, frame


@dataclass
class World:
    """Both hops, and what is around them."""

    family: int
    nics: int
    net: Net
    hops: dict[str, Hop]
    _ports: Iterator[int] = field(default_factory=lambda: itertools.count(20000))
    _marks: Iterator[int] = field(default_factory=itertools.count)

    @property
    def header_len(self) -> int:
        """Octets of an IP header without options."""
        return 20 if self.family == 4 else 40

    def talk(self, protocol: type[Packet], client: str = "client") -> Talk:
        """A flow of its own."""
        return Talk(self, protocol, getattr(self.net, client), next(self._ports))

    def exchange(self, side: str, frame: bytes) -> dict[str, Frames]:
        """Send a frame to both hops, and return what each of them sends then."""
        number = struct.pack("!4sI", b"mark", next(self._marks))
        marks = Talk(self, UDP, self.net.client, MARK_PORT)
        pair = marks.frame("client", UDP(), number), marks.frame("next", UDP(), number)
        return {mode: hop.exchange(side, frame, pair) for mode, hop in self.hops.items()}

    def same(self, side: str, frame: bytes) -> Frames:
        """Send a frame to both hops, and return what both of them send then."""
        came = self.exchange(side, frame)
        assert came["nft"], f"nft sends nothing, XDP {_written(came['xdp'])}"
        assert came["xdp"] == came["nft"], (
            f"nft sends {_written(came['nft'])}\nXDP {_written(came['xdp'])}"
        )
        return came["nft"]

    def carried(self, side: str, frame: bytes) -> bytes:
        """Send a frame to both hops: the same comes out at the other side, and nothing else."""
        ((where, got),) = self.same(side, frame)
        assert where == OTHER[side], got.hex(" ", 2)
        return got

    def drain(self) -> None:
        """Forget what has come so far."""
        for hop in self.hops.values():
            for sock in hop.sockets.values():
                with contextlib.suppress(BlockingIOError):
                    while sock.recv(1, socket.MSG_DONTWAIT):
                        pass


def _written(frames: Frames) -> str:
    return "; ".join(f"to {where}: {frame.hex(' ', 2)}" for where, frame in frames) or "nothing"


@dataclass(frozen=True)
class Talk:
    """A flow, as its two sides see it. Both hops keep the client's port."""

    world: World
    protocol: type[Packet]
    client: str
    port: int

    def header(self, side: str, **fields: Any) -> Packet:
        """An IP header from one side to the hop, or as the hop sends it with sent=True."""
        net = self.world.net
        source, target = {"client": (self.client, net.hop), "next": (net.next, net.out)}[side]
        ttl = fields.pop("ttl", 64)
        if self.world.family == 4:
            return IP(src=source, dst=target, ttl=ttl, **{"id": 7, **fields})
        return IPv6(src=source, dst=target, hlim=ttl, **fields)

    def packet(self, side: str, upper: Packet, data: bytes = b"", **header: Any) -> Packet:
        """An IP packet from one side to the hop."""
        ports = {"client": (self.port, PORT), "next": (NEXT_PORT, self.port)}[side]
        upper.sport, upper.dport = ports
        return self.header(side, **header) / upper / Raw(data)

    def frame(self, side: str, upper: Packet, data: bytes = b"", **header: Any) -> bytes:
        """The same as a frame."""
        return ethernet(self.world, side, self.packet(side, upper, data, **header))

    def after(self, side: str, upper: Packet, data: bytes = b"", **header: Any) -> Packet:
        """What a hop has to make of it, built anew."""
        net = self.world.net
        packet = self.packet(side, upper, data, **{"ttl": 63, **header})
        ends = {"client": (net.out, net.next), "next": (net.hop, self.client)}[side]
        packet.src, packet.dst = ends
        upper.sport, upper.dport = {
            "client": (self.port, NEXT_PORT),
            "next": (PORT, self.port),
        }[side]
        return packet

    def carried(self, side: str, upper: Packet, data: bytes = b"", **header: Any) -> bytes:
        """Send it to both hops, as `World.carried` says."""
        return self.world.carried(side, self.frame(side, upper, data, **header))


def ethernet(world: World, side: str, packet: Packet | bytes) -> bytes:
    """Put a packet into a frame from one side to the hop."""
    out = OUT_MAC if world.nics == 2 else HOP_MAC
    source, target = {"client": (CLIENT_MAC, HOP_MAC), "next": (NEXT_MAC, out)}[side]
    kind = 0x0800 if world.family == 4 else 0x86DD
    return bytes(Ether(src=source, dst=target, type=kind) / packet)


class Connection:
    """A TCP connection whose numbers fit each other: nft's conntrack looks at them."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.numbers = {"client": 1000, "next": 4_294_967_000}  # which soon begin at 0 again

    def segment(self, side: str, flags: str, data: bytes = b"", *, back: int = 0, **tcp: Any) -> TCP:
        """A segment by its flags; back: how far behind what was sent last it begins."""
        seq = (self.numbers[side] - back) % 2**32
        ack = self.numbers[OTHER[side]] if "A" in flags else 0
        if not back:
            length = len(data) + ("S" in flags) + ("F" in flags)
            self.numbers[side] = (seq + length) % 2**32
        return TCP(**{"flags": flags, "seq": seq, "ack": ack, "window": 60000, **tcp})

    def says(
        self,
        side: str,
        flags: str = "A",
        data: bytes = b"",
        *,
        header: dict[str, Any] | None = None,
        **tcp: Any,
    ) -> bytes:
        """Send a segment to both hops: the same comes out of them."""
        segment = self.segment(side, flags, data, **tcp)
        return self.talk.carried(side, segment, data, **(header or {}))

    def up(self, flags: str = "A", data: bytes = b"", **what: Any) -> bytes:
        """From the client."""
        return self.says("client", flags, data, **what)

    def down(self, flags: str = "A", data: bytes = b"", **what: Any) -> bytes:
        """From the next hop."""
        return self.says("next", flags, data, **what)

    def open(self) -> Connection:
        """The three segments that open it."""
        self.up("S")
        self.down("SA")
        self.up()
        return self
