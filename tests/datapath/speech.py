# SPDX-License-Identifier: Apache-2.0
"""What the model speaks of: configuration, routes, packets as they are read, flows, checksums."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

PASS, DROP, TX, REDIRECT = 2, 1, 3, 4
TCP, UDP = 6, 17
FIN, SYN, RST, ACK = 1, 2, 4, 16
REPLIED, FIN_CLIENT, FIN_SERVER, RESET = 1, 2, 4, 8
TRIES, STRIDE = 32, 7919
CLOSED_S = 65  # how long a port rests

Outcome = tuple[int, bytes, dict[str, int]]  # verdict, frame, what was counted


class Undetermined(Exception):
    """What came out does not show which port was taken, and nothing else says so."""


@dataclass(frozen=True)
class Route:
    """Where a packet goes: out by `link` with its address `own`.

    `mac` is None while the neighbour is not resolved; bpf_fib_lookup does not say the MTU then.
    """

    link: str
    own: bytes
    mac: bytes | None
    mtu: int | None


Kernel = Callable[[bytes], Route | None]  # the way to an address, None without a route


@dataclass(frozen=True)
class Config:
    """What the program works with. macs: those of the NICs that are used."""

    family: int
    hop: bytes
    macs: tuple[bytes, ...]
    hop_port: int
    port_min: int
    port_max: int
    fresh: bool = False
    vlan: int = 0
    egress_vlan: int = 0
    two_nics: bool = False
    most_away: int | None = None  # flows away from home; None: more than anybody opens here

    @property
    def count(self) -> int:
        """How many places the range has."""
        return self.port_max - self.port_min + 1

    def tag(self, link: str) -> int:
        """The tag of a NIC's network, 0 for none."""
        return self.vlan if link == "data" else self.egress_vlan


class _Layout(NamedTuple):
    """Where a family's fixed header has what; the addresses are next to each other."""

    ethertype: int
    header: int
    source: int
    destination: int
    addresses_end: int
    ttl: int
    icmp: int
    errors: frozenset[int]
    quote: int  # octets of a packet that is too big
    too_big: tuple[int, int]


_LAYOUTS = {
    4: _Layout(0x0800, 20, 12, 16, 20, 8, 1, frozenset({3, 11, 12}), 68, (3, 4)),
    6: _Layout(0x86DD, 40, 8, 24, 40, 7, 58, frozenset({1, 2, 3, 4}), 128, (2, 0)),
}
_NEEDED = {TCP: 20, UDP: 8}  # octets of a header
_CHECKSUM_AT = {TCP: 16, UDP: 6}
_WORDS = {size: struct.Struct(f"!{size // 2}H") for size in (2, 4, 8, 32)}
_word = struct.Struct("!H")
_ports = struct.Struct("!HH")


def fold(total: int) -> int:
    """The ones'-complement sum of 16-bit words, from their plain sum: 0 only if all of them are."""
    return (total - 1) % 0xFFFF + 1 if total else 0


def checksum(*parts: bytes) -> int:
    """The Internet checksum of octets, each part but the last of even length."""
    total = 0
    for part in parts:
        # 2^16 is 1 modulo 2^16 - 1, so the number itself will do for the sum of its words.
        total += int.from_bytes(part if len(part) % 2 == 0 else bytes(part) + b"\0", "big")
    return ~fold(total) & 0xFFFF


def pseudo_header(addresses: bytes, length: int, protocol: int) -> bytes:
    """What TCP, UDP and ICMPv6 checksum besides themselves; `addresses` is source, destination."""
    return addresses + struct.pack("!II", length, protocol)


def _put(buffer: bytearray, at: int, new: bytes) -> int:
    """Write whole words; return the sum of ~m + m' over them (RFC 1624)."""
    words = _WORDS[len(new)]
    old: int = sum(words.unpack_from(buffer, at))
    buffer[at : at + len(new)] = new
    now: int = sum(words.unpack(new))
    return 0xFFFF * (len(new) // 2) - old + now


def _follow(buffer: bytearray, at: int, difference: int, *, udp: bool = False) -> int:
    """Let a checksum follow: HC' = ~(~HC + ~m + m'); return its own ~m + m'."""
    (old,) = _word.unpack_from(buffer, at)
    if udp and old == 0:
        return 0
    new = ~fold((~old & 0xFFFF) + difference) & 0xFFFF
    if udp and new == 0:
        new = 0xFFFF
    return _put(buffer, at, _word.pack(new))


class Ends(NamedTuple):
    """Source and destination of a packet."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int

    def reversed(self) -> Ends:
        """Those of an answer."""
        return Ends(self.destination, self.destination_port, self.source, self.source_port)


@dataclass(slots=True)
class _Packet:
    frame: bytes
    link: str
    l3: int
    l4: int
    end: int  # of the IP packet
    protocol: int
    source: bytes
    destination: bytes
    ttl: int


@dataclass(slots=True)
class Way:
    """What a flow knows of one of its sides, since when."""

    link: str
    own: bytes
    mac: bytes | None
    mtu: int | None
    looked: int


@dataclass(slots=True)
class Flow:
    """(protocol, client) ↔ (protocol, port)."""

    protocol: int
    client: bytes
    client_port: int
    port: int
    next: bytes
    next_port: int
    out: bytes
    to_next: Way
    to_client: Way
    used: int
    state: int = 0
    orphan: bool = False  # it has no client any more, only the port

    @property
    def closed(self) -> bool:
        """With RST, or with both FINs; or by a new flow of its client."""
        return self.orphan or bool(self.state & RESET) or self.state & 6 == 6

    def lifetime(self) -> int:
        """How many seconds it may be idle."""
        if self.protocol == UDP and not self.orphan:
            return 180 if self.state & REPLIED else 30
        if self.closed:
            return CLOSED_S
        if not self.state & REPLIED:
            return 60
        return 240 if self.state & (FIN_CLIENT | FIN_SERVER) else 7440

    def onward(self, config: Config) -> tuple[Ends, Ends]:
        """The ends of its packets from the client: as they come, as they leave."""
        return (
            Ends(self.client, self.client_port, config.hop, config.hop_port),
            Ends(self.out, self.port, self.next, self.next_port),
        )
