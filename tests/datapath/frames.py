# SPDX-License-Identifier: Apache-2.0
"""Frames as scapy builds them, checksums from scratch, and what must become of each."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.datapath.conftest import (
    DROP,
    EGRESS_MAC,
    HOP_MAC,
    HOP_PORT,
    MACS,
    NETS,
    NEXT_PORT,
    PASS,
    PORT_MAX,
    PORT_MIN,
    REDIRECT,
    TX,
    Arrive,
    Fed,
    Feed,
    Ip,
    Next,
    Step,
)

PORT = 20000  # in the hop's range: a client keeps it
NEW_MAC = "02:00:00:00:00:77"
SILENT_MAC = "02:00:00:00:00:99"
SEGMENT_MTU = {4: 1460, 6: 1440}  # octets in a TCP segment of 1500 without options
IP_LEN = {4: 20, 6: 40}

# What the program is compiled with. Every set takes a second: tests share them, also with the
# ones in test_fuzz.py.
FEW = {"TWO_NICS": 1, "PORT_MIN": HOP_PORT - 2, "PORT_MAX": HOP_PORT + 2}
FEW_PORT = HOP_PORT + 1
TAG = {"VLAN": 5, "NAT_FLOWS": 2}
TAGS = {"TWO_NICS": 1, "VLAN": 5, "EGRESS_VLAN": 6}
FRESH = {"FRESH": 1}

What = dict[str, Any]  # keywords of `build`
Counts = dict[str, int]


class Path(NamedTuple):
    """Whose frame it is: its ends in every layer, and the NIC of the hop it crosses."""

    family: int
    protocol: type[Packet]
    source_mac: str
    target_mac: str
    source: str
    source_port: int
    target: str
    target_port: int
    link: str = "data"
    vlan: int = 0

    def reversed(self) -> Path:
        """That of an answer."""
        return self._replace(
            source_mac=self.target_mac,
            target_mac=self.source_mac,
            source=self.target,
            source_port=self.target_port,
            target=self.source,
            target_port=self.source_port,
        )


def ip(path: Path, *, ttl: int = 64, **fields: Any) -> Packet:
    """An IP header, without what it carries."""
    if path.family == 4:
        return IP(src=path.source, dst=path.target, ttl=ttl, **{"id": 7, **fields})
    return IPv6(src=path.source, dst=path.target, hlim=ttl, **fields)


def segment(
    path: Path,
    flags: str = "A",
    *,
    data: bytes = b"",
    ttl: int = 64,
    header: What | None = None,
    **fields: Any,
) -> Packet:
    """An IP packet; header: fields of the IP header, the others are those of TCP's or UDP's."""
    if path.protocol is TCP:
        fields = {"flags": flags, "seq": 1000, "ack": 2000, **fields}
    upper = path.protocol(sport=path.source_port, dport=path.target_port, **fields)
    if data:
        upper.add_payload(Raw(data))
    packet = ip(path, ttl=ttl, **(header or {}))
    packet.add_payload(upper)  # as `/` does, which copies both
    return packet


def ethernet(path: Path, packet: Packet | bytes, priority: int = 0) -> bytes:
    """Put a packet into a frame; priority: the upper four bits of the tag, if there is one."""
    frame = Ether(src=path.source_mac, dst=path.target_mac)
    if path.vlan:
        frame /= Dot1Q(prio=priority >> 1, dei=priority & 1, vlan=path.vlan)
    if isinstance(packet, bytes):
        frame.lastlayer().type = 0x0800 if path.family == 4 else 0x86DD
    frame.add_payload(packet)
    return bytes(frame)


def build(
    path: Path, flags: str = "A", *, padding: bytes = b"", priority: int = 0, **what: Any
) -> bytes:
    """A frame with a TCP segment or a UDP datagram; padding follows the packet."""
    if what.keys() <= {"ttl"} and not priority:
        return plain(path, flags, what.get("ttl", 64)) + padding
    return ethernet(path, segment(path, flags, **what), priority) + padding


@functools.cache
def plain(path: Path, flags: str, ttl: int) -> bytes:
    """One without anything particular: most are, and scapy takes its time."""
    return ethernet(path, segment(path, flags, ttl=ttl))


def put(frame: bytes, at: int, *octets: int) -> bytes:
    """Overwrite octets."""
    return frame[:at] + bytes(octets) + frame[at + len(octets) :]


def shift(frame: bytes, at: int, difference: int) -> bytes:
    """Add to a checksum, modulo 0xffff: where it was right it becomes wrong by that much."""
    value = (int.from_bytes(frame[at : at + 2], "big") + difference) % 0xFFFF
    return put(frame, at, *value.to_bytes(2, "big"))


def summing_to_zero(path: Path, **what: Any) -> bytes:
    """Two octets of data with which the path's checksum comes out as 0."""
    raw = build(path, data=b"\0\0", **what)
    return Ether(raw)[path.protocol].chksum.to_bytes(2, "big")


def choice(number: int, port: int = PORT, low: int = PORT_MIN, high: int = PORT_MAX) -> int:
    """The port that is tried after `number` that are not free."""
    return low + (port - low + 7919 * number) % (high - low + 1)


@dataclass(frozen=True)
class Case:
    """A step: a frame comes in. All that must become of it."""

    frame: bytes
    verdict: int
    out: bytes
    counts: Counts
    link: str = "data"


def passed(frame: bytes, counter: str, link: str = "data") -> Case:
    """It goes to the stack as it came."""
    return Case(frame, PASS, frame, {counter: 1}, link)


def dropped(frame: bytes, counter: str, **also: int) -> Case:
    """It is dropped, and the reason counted."""
    return Case(frame, DROP, frame, {counter: 1, **also})


def check(feed: Feed, family: int, *steps: Case | Step, **changes: Any) -> Fed:
    """Run the steps, and compare verdict, octets and counts of every frame."""
    fed = feed(
        *(Arrive(step.frame, step.link) if isinstance(step, Case) else step for step in steps),
        family=family,
        **changes,
    )
    cases = [step for step in steps if isinstance(step, Case)]
    for number, case in enumerate(cases):
        verdict, out = fed.results[number]
        got = f"verdict {verdict}, {fed.each[number]}\n{out.hex(' ', 2)}"
        due = f"verdict {case.verdict}, {case.counts}\n{case.out.hex(' ', 2)}"
        same = (verdict, out, fed.each[number]) == (case.verdict, case.out, case.counts)
        assert same, f"frame {number} became\n{got}\nand should have become\n{due}"
    assert len(fed.results) == len(cases)
    return fed


@dataclass(frozen=True)
class Talk:
    """A client's flow through the hop, as its two sides see it.

    client, next: names in Net, or addresses. out: the hop's address towards the next hop.
    """

    family: int
    protocol: type[Packet] = TCP
    client: str = "client"
    client_port: int = PORT
    port: int = PORT
    next: str = "next"
    next_port: int = NEXT_PORT
    out: str = ""
    client_mac: str = ""
    next_mac: str = ""
    client_link: str = "data"
    next_link: str = "data"
    vlan: int = 0
    egress_vlan: int = 0

    def __str__(self) -> str:
        return f"IPv{self.family}-{self.protocol.__name__}"

    def address(self, name: str) -> str:
        """An address by its name in Net."""
        return str(getattr(NETS[self.family], name, name))

    def _path(self, link: str, mac: str, name: str, port: int) -> Path:
        """From a neighbour to the hop; whereto is still open."""
        address = self.address(name)
        return Path(
            self.family,
            self.protocol,
            mac or MACS.get(address, SILENT_MAC),
            HOP_MAC if link == "data" else EGRESS_MAC,
            address,
            port,
            "",
            0,
            link,
            self.vlan if link == "data" else self.egress_vlan,
        )

    @property
    def asks(self) -> Path:
        """From the client to the hop."""
        path = self._path(self.client_link, self.client_mac, self.client, self.client_port)
        return path._replace(target=self.address("hop"), target_port=HOP_PORT)

    @property
    def answers(self) -> Path:
        """From the next hop to this one."""
        out = self.out or ("hop" if self.next_link == "data" else "out")
        path = self._path(self.next_link, self.next_mac, self.next, self.next_port)
        return path._replace(target=self.address(out), target_port=self.port)

    @property
    def goes(self) -> Path:
        """From the hop to the next one."""
        return self.answers.reversed()

    @property
    def comes(self) -> Path:
        """From the hop to the client."""
        return self.asks.reversed()

    @property
    def next_step(self) -> Next:
        """The setting by which its packets get to where they go."""
        return Next(self.answers.source, self.next_port, self.answers.target)

    def forward(self, flags: str = "A", **what: Any) -> Case:
        """A packet from the client, as `carried` says."""
        return carried(self.asks, self.goes, "forwarded", flags, **what)

    def back(self, flags: str = "A", **what: Any) -> Case:
        """A packet from the next hop, as `carried` says."""
        return carried(self.answers, self.comes, "returned", flags, **what)

    def open(self, flags: str = "S", *, also: Counts | None = None, **what: Any) -> Case:
        """The packet that opens the flow."""
        kept = "port_kept" if self.port == self.client_port else "port_other"
        return self.forward(flags, also={"flows_opened": 1, kept: 1, **(also or {})}, **what)

    def reopen(self, flags: str = "S", *, also: Counts | None = None, **what: Any) -> Case:
        """The packet that opens it anew."""
        return self.open(flags, also={"flows_reopened": 1, **(also or {})}, **what)

    def says(self, words: str) -> list[Case]:
        """Packets by their flags: `>` is from the client, `<` to it, and one with `!` closes."""
        cases = []
        for word in words.split():
            also = {"flows_closed": 1} if word.endswith("!") else {}
            carry = self.forward if word[0] == ">" else self.back
            cases.append(carry(word.strip("<>!"), also=also))
        return cases


def others(talk: Talk, number: int) -> list[Talk]:
    """Other clients with the same port, and the ports they get if those before them keep theirs."""
    network = NETS[talk.family].hop.removesuffix("2")
    names = ["neighbour", "other", "far", *(f"{network}{100 + i}" for i in range(number))]
    return [
        replace(talk, client=name, port=choice(i, talk.client_port))
        for i, name in enumerate(names[:number], 1)
    ]


def neighbour(action: str, talk: Talk, name: str, mac: str = "") -> Ip:
    """Change the stack's mind about a neighbour."""
    lladdr = ("lladdr", mac, "nud", "permanent") if mac else ()
    return Ip(("neighbour", action, talk.address(name), *lladdr, "dev", "data"))


def restored(talk: Talk, name: str) -> Ip:
    """Make it the neighbour that it was."""
    return neighbour("replace", talk, name, MACS[talk.address(name)])


def carried(
    arrives: Path,
    leaves: Path,
    name: str,
    flags: str,
    *,
    also: Counts | None = None,
    instead: str = "",
    **what: Any,
) -> Case:
    """A packet that is translated and sent on.

    also: what else is counted. instead: handed to the stack for that reason, to be sent by it.
    """
    frame = build(arrives, flags, **what)
    if instead:
        macs = (arrives.source_mac, arrives.target_mac)
        leaves = leaves._replace(source_mac=macs[0], target_mac=macs[1], vlan=arrives.vlan)
        verdict, counts = PASS, {instead: 1}
    else:
        verdict = TX if arrives.link == leaves.link else REDIRECT
        counts = {f"{name}_packets": 1, f"{name}_bytes": len(frame)}
        what["ttl"] = what.get("ttl", 64) - 1
    out = build(leaves, flags, **what)
    return Case(frame, verdict, out, counts | (also or {}), arrives.link)


FAMILIES = [pytest.param(family, id=f"IPv{family}") for family in (4, 6)]
TALKS = [Talk(family, protocol) for family in (4, 6) for protocol in (TCP, UDP)]


def over(talks: list[Talk], rows: list[Any]) -> list[Any]:
    """Rows, each named by its first element, for every talk that their second one admits.

    The second one: parts of a talk's name, any of which will do; an empty one always does.
    """
    return [
        pytest.param(talk, *row[2:], id=f"{row[0]}-{talk}".replace(" ", "-"))
        for row in rows
        for talk in talks
        if any(part in str(talk) for part in row[1].split("|"))
    ]
