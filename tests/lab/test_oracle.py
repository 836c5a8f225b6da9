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
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, in6_chksum
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.lab import links
from tests.lab.agents import CheckoutAgent

MODES = ("nft", "xdp")
PORT, NEXT_PORT, MARK_PORT = 7000, 8000, 30000
CLIENT_MAC, HOP_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
OUT_MAC, NEXT_MAC = "02:00:00:00:01:02", "02:00:00:00:01:03"
# MTUs towards the next hop, and back towards a client that is far away.
NARROW, NARROWER = 1400, 1300
ANSWER_LIMIT_S = 10.0
ETHERNET = 14  # octets of header
ETH_P_ALL, PACKET_OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
ICMP = {4: 1, 6: 58}  # protocol numbers

Frames = list[tuple[str, bytes]]  # where each came out: "client" or "next"
OTHER = {"client": "next", "next": "client"}


@dataclass(frozen=True)
class Net:
    """The addresses of a world.

    hop, out: the hop's own towards client and next hop. router: of neither network, and it may send
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

    def exchange(self, side: str, frame: bytes, marks: dict[str, bytes]) -> Frames:
        """Send a frame, then a datagram each way, and return what comes out beside those two.

        No NIC changes the order of its frames. So the first datagram, sent from the same side,
        comes after all that the frame made the hop send to the other one, and the second, sent
        only then, after all that the hop sent back.
        """
        found: Frames = []
        self.sockets[side].send(frame)
        for there in (side, OTHER[side]):
            mark = marks[there]
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
        marks = {each: self.marks.frame(each, UDP(), number) for each in OTHER}
        return {mode: hop.exchange(side, frame, marks) for mode, hop in self.hops.items()}

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

    @property
    def marks(self) -> Talk:
        """The flow of the datagrams that tell where something ends."""
        return Talk(self, UDP, self.net.client, MARK_PORT)

    def begin(self) -> None:
        """Forget what has come so far, and open the flow of marks."""
        for hop in self.hops.values():
            for sock in hop.sockets.values():
                with contextlib.suppress(BlockingIOError):
                    while sock.recv(1, socket.MSG_DONTWAIT):
                        pass
        self.marks.carried("client", UDP(), b"opens")


def _written(frames: Frames) -> str:
    return "; ".join(f"to {where}: {frame.hex(' ', 2)}" for where, frame in frames) or "nothing"


@dataclass(frozen=True)
class Talk:
    """A flow, as its two sides see it. Both hops keep the client's port."""

    world: World
    protocol: type[Packet]
    client: str
    port: int

    def header(self, side: str, *, sent: bool = False, **fields: Any) -> Packet:
        """An IP header as it comes from one side; sent: as the hop sends it on."""
        net = self.world.net
        come = {"client": (self.client, net.hop), "next": (net.next, net.out)}
        go = {"client": (net.out, net.next), "next": (net.hop, self.client)}
        source, target = (go if sent else come)[side]
        ttl = fields.pop("ttl", 63 if sent else 64)
        if self.world.family == 4:
            return IP(**{"src": source, "dst": target, "ttl": ttl, "id": 7, **fields})
        return IPv6(**{"src": source, "dst": target, "hlim": ttl, **fields})

    def packet(
        self, side: str, upper: Packet, data: bytes = b"", *, sent: bool = False, **header: Any
    ) -> Packet:
        """An IP packet as it comes from one side; sent: as the hop sends it on."""
        come = {"client": (self.port, PORT), "next": (NEXT_PORT, self.port)}
        go = {"client": (self.port, NEXT_PORT), "next": (PORT, self.port)}
        upper = upper.copy()
        upper.sport, upper.dport = (go if sent else come)[side]
        return self.header(side, sent=sent, **header) / upper / Raw(data)

    def frame(self, side: str, upper: Packet, data: bytes = b"", **header: Any) -> bytes:
        """The same as a frame."""
        return ethernet(self.world, side, self.packet(side, upper, data, **header))

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

    def segment(
        self, side: str, flags: str, data: bytes = b"", *, back: int = 0, **tcp: Any
    ) -> TCP:
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


# --- worlds -------------------------------------------------------------------------------------


def _link(world: World, outside: str, hop: str, mode: str) -> None:
    """Plug a hop in; its routes and neighbours are all it ever learns."""
    net, family = world.net, world.family
    nics = [("eth0", HOP_MAC, net.hop, 1500), ("eth1", OUT_MAC, net.out, NARROW)][: world.nics]
    length, host, flags = (24, 32, "") if family == 4 else (64, 128, " nodad")
    for number, (nic, mac, address, mtu) in enumerate(nics):
        links.link(outside, f"{mode}{number}", hop, nic, mtu)
        links.ip(
            hop,
            f"link set {nic} address {mac}",
            f"address add {address}/{length} dev {nic}{flags}",
        )
    egress = nics[-1][0]
    links.ip(
        hop,
        f"neighbour add {net.client} lladdr {CLIENT_MAC} dev eth0 nud permanent",
        f"neighbour add {net.next} lladdr {NEXT_MAC} dev {egress} nud permanent",
        f"route add {net.far}/{host} via {net.client} mtu lock {NARROWER}",
        f"route add {net.vague}/{host} via {net.client} mtu {NARROWER}",
        # The loose rp_filter of hops with two NICs wants one to wherever a packet comes from.
        f"route add {net.router}/{host} via {net.client}",
    )
    if world.nics == 1:
        links.ip(hop, f"route add {net.next}/{host} dev eth0 mtu lock {NARROW}")
    links.let_forward(hop, *(nic for nic, *_ in nics))
    limits = ("ipv4.icmp_ratelimit", "ipv6.icmp.ratelimit")
    links.run(hop, "sysctl", "-qw", *(f"net.{limit}=0" for limit in limits))


def _hop(stack: contextlib.ExitStack, world: World, outside: str, hop: str, mode: str) -> Hop:
    """Start a hop's agent, and listen where the hop is plugged in."""
    agent = stack.enter_context(CheckoutAgent(links.namespace(hop), world.net.hop))
    egress = {"egress_nic": "eth1"} if world.nics == 2 else {}
    answer = agent.place(data_nic="eth0", **egress, prepare=[mode])
    assert answer["event"] == "ready", answer
    answer = agent.ask(mode=mode, next_ip=world.net.next, next_port=NEXT_PORT)
    assert answer["event"] == "ready", answer
    sockets = []
    for number in range(world.nics):
        sock = links.new_socket(outside, socket.AF_PACKET, socket.SOCK_RAW)
        stack.enter_context(sock)
        sock.bind((f"{mode}{number}", ETH_P_ALL))
        sockets.append(sock)
    return Hop(hop, agent, {"client": sockets[0], "next": sockets[-1]})


def _world(stack: contextlib.ExitStack, family: int, nics: int) -> World:
    world = World(family, nics, _net(family, nics), {})
    name = f"oracle-{family}-{nics}"
    outside = f"{name}-outside"
    names = {mode: f"{name}-{mode}" for mode in MODES}
    stack.enter_context(links.hosts(outside, *names.values()))
    for mode, hop in names.items():
        _link(world, outside, hop, mode)
    plugs = [f"{mode}{number}" for mode in MODES for number in range(nics)]
    with ThreadPoolExecutor(1) as pool:
        # Compiling is what takes time, here and in the agent.
        attached = pool.submit(links.attach_pass, outside, *plugs)
        for mode, hop in names.items():
            world.hops[mode] = _hop(stack, world, outside, hop, mode)
        attached.result()
    return world


@pytest.fixture(scope="module")
def worlds() -> Iterator[Callable[[int, int], World]]:
    """Worlds by family and number of NICs, made when they are first asked for."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda family, nics: _world(stack, family, nics))


@pytest.fixture(params=[(4, 1), (4, 2), (6, 1), (6, 2)], ids=lambda way: "IPv{}-{}".format(*way))
def world(request: pytest.FixtureRequest, worlds: Callable[[int, int], World]) -> World:
    """A world of either family, its hops with one NIC or with two."""
    made = worlds(*request.param)
    made.begin()
    return made


ONLY_IPV4, ONLY_IPV6 = (
    pytest.mark.parametrize(
        "world", [(family, 1), (family, 2)], indirect=True, ids=[f"IPv{family}-1", f"IPv{family}-2"]
    )
    for family in (4, 6)
)


# --- TCP ----------------------------------------------------------------------------------------

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


# --- errors -------------------------------------------------------------------------------------

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


# --- where they differ, and why -----------------------------------------------------------------


def carried_by(world: World, side: str, frame: bytes) -> dict[str, bool]:
    """Which of the hops let something of a frame through to the other side."""
    came = world.exchange(side, frame)
    return {mode: OTHER[side] in [where for where, _ in came[mode]] for mode in MODES}


def test_the_mtu_of_a_route_counts_for_xdp_only_when_it_is_locked(world: World) -> None:
    """bpf_fib_lookup leaves out `ip route … mtu N`; the stack asks every route that it forwards by.

    What is then too long for a link further on is told by the router there.
    """
    talk, upper = opened(world, UDP, "next", "vague")
    header = {"flags": "DF"} if world.family == 4 else {}
    data = b"x" * (limits(world, UDP, NARROWER) + 1)
    assert carried_by(world, "next", talk.frame("next", upper, data, **header)) == {
        "nft": False,
        "xdp": True,
    }


@pytest.mark.parametrize("side", ["client", "next"])
def test_a_ttl_at_its_end(world: World, side: str) -> None:
    """nft says so. XDP leaves such a packet to the stack, which finds it addressed to this host."""
    at = ETHERNET + world.header_len
    exceeded, unreachable = (b"\x0b\0", b"\3\3") if world.family == 4 else (b"\3\0", b"\1\4")
    for protocol in (TCP, UDP):
        talk, upper = opened(world, protocol, side)
        came = world.exchange(side, talk.frame(side, upper, b"late", ttl=1))
        ((where, got),) = came["nft"]
        assert (where, got[at : at + 2]) == (side, exceeded)
        ((where, got),) = came["xdp"]
        assert where == side
        if protocol is TCP:
            assert got[at + 13] & 4  # RST
        else:
            assert got[at : at + 2] == unreachable


@pytest.mark.parametrize("side", ["client", "next"])
def test_a_checksum_that_is_wrong(world: World, side: str) -> None:
    """conntrack verifies it, and what it refuses is not translated. XDP leaves it as wrong as it
    was, for the receiver to find."""
    for protocol, at in ((TCP, 16), (UDP, 6)):
        talk, upper = opened(world, protocol, side)
        frame = bytearray(talk.frame(side, upper, b"data"))
        frame[ETHERNET + world.header_len + at] ^= 0x55
        came = world.exchange(side, bytes(frame))
        assert came["nft"] == []
        ((where, got),) = came["xdp"]
        ip = (IP if world.family == 4 else IPv6)(got[ETHERNET:])
        sent, rebuilt = ip[protocol].chksum, ip.copy()
        del rebuilt[protocol].chksum
        assert where == OTHER[side]
        assert sent != type(ip)(bytes(rebuilt))[protocol].chksum
    kind = (3, 3) if world.family == 4 else (1, 4)
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    quote = talk.carried(OTHER[side], UDP(), b"12345")[ETHERNET:]
    frame = bytearray(error(talk, side, kind, quote))
    frame[ETHERNET + world.header_len + 2] ^= 0x55
    assert carried_by(world, side, bytes(frame)) == {"nft": False, "xdp": True}


@ONLY_IPV4
def test_a_header_checksum_that_is_wrong(world: World) -> None:
    """The stack verifies it before it looks at anything else."""
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    frame = talk.frame("client", UDP(), b"data", chksum=0x1234)
    assert carried_by(world, "client", frame) == {"nft": False, "xdp": True}


@pytest.mark.parametrize("side", ["client", "next"])
@pytest.mark.parametrize(
    "tcp",
    [{"seq": 10_000_000}, {"flags": ""}, {"flags": "SF"}, {"flags": "FPU"}],
    ids=["outside-the-window", "no-flags", "syn-and-fin", "fin-without-ack"],
)
def test_a_segment_that_does_not_belong(world: World, side: str, tcp: dict[str, Any]) -> None:
    """conntrack takes it for invalid and does not translate it, so the hop itself refuses it:
    sequence numbers are what nft's NAT keeps and XDP's does not. XDP leaves it to the receiver."""
    talk, upper = opened(world, TCP, side)
    if "seq" in tcp:
        upper.seq = (upper.seq + tcp["seq"]) % 2**32
    else:
        upper.flags = tcp["flags"]
    came = world.exchange(side, talk.frame(side, upper))
    ((where, got),) = came["nft"]
    assert (where, got[ETHERNET + world.header_len + 13] & 4) == (side, 4)  # RST
    assert [where for where, _ in came["xdp"]] == [OTHER[side]]


def test_a_segment_of_no_connection_known(world: World) -> None:
    """Towards the next hop, nft takes up what is under way (nf_conntrack_tcp_loose); with XDP only
    a SYN opens a flow, or a port scan would take the ports. Elsewhere both hops refuse alike."""
    talk = world.talk(TCP)
    frame = talk.frame("client", TCP(flags="A", seq=5, ack=7), b"data")
    assert carried_by(world, "client", frame) == {"nft": True, "xdp": False}
    talk = world.talk(TCP)
    for side, flags in (("client", "SA"), ("next", "SA"), ("next", "A")):
        ((where, _),) = world.same(side, talk.frame(side, TCP(flags=flags, seq=5, ack=7)))
        assert where == side


@pytest.mark.parametrize("side", ["client", "next"])
def test_fragments(world: World, side: str) -> None:
    """nft puts them together, translates them and takes them apart. XDP leaves them to the stack,
    for which they are addressed to a port of this host that nobody listens on."""
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    packet = bytes(talk.packet(side, UDP(), b"y" * 1000))
    if world.family == 4:
        first, second = fragment(IP(packet), fragsize=600)
    else:
        header, data = talk.header(side, nh=44), packet[40:]
        first = header / IPv6ExtHdrFragment(nh=17, m=1, id=5) / Raw(data[:600])
        second = header / IPv6ExtHdrFragment(nh=17, offset=75, id=5) / Raw(data[600:])
    assert world.exchange(side, ethernet(world, side, first)) == {"nft": [], "xdp": []}
    came = world.exchange(side, ethernet(world, side, second))
    assert [where for where, _ in came["nft"]] == [OTHER[side]] * 2
    assert [where for where, _ in came["xdp"]] == [side]


@pytest.mark.parametrize("side", ["client", "next"])
def test_padding_after_a_short_packet(world: World, side: str) -> None:
    """A stack cuts it off, for its NIC to add some again. XDP leaves it where it is."""
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    frame, padding = talk.frame(side, UDP(), b"short"), bytes(20)
    came = world.exchange(side, frame + padding)
    ((where, by_nft),), ((there, by_xdp),) = came["nft"], came["xdp"]
    assert (where, there, by_xdp) == (OTHER[side], OTHER[side], by_nft + padding)


@ONLY_IPV4
def test_a_route_that_is_to_be_recorded(world: World) -> None:
    """IPv4's stack enters the address it sends from; options are nothing that XDP looks at."""
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    option = IPOption_RR(routers=["0.0.0.0"] * 3)
    came = world.exchange("client", talk.frame("client", UDP(), b"data", options=[option]))
    recorded = [IP(came[mode][0][1][ETHERNET:]).options[0] for mode in MODES]
    assert [(each.pointer, each.routers[0]) for each in recorded] == [
        (8, world.net.out),
        (4, "0.0.0.0"),
    ]


@ONLY_IPV6
@pytest.mark.parametrize("side", ["client", "next"])
def test_extension_headers(world: World, side: str) -> None:
    """nft looks behind them. XDP does not; the stack finds a packet to a port nobody listens on."""
    talk = world.talk(UDP)
    talk.carried("client", UDP(), b"opens")
    packet = bytes(talk.packet(side, UDP(), b"data"))
    packet = talk.header(side, nh=60) / IPv6ExtHdrDestOpt(nh=17) / Raw(packet[40:])
    assert carried_by(world, side, ethernet(world, side, packet)) == {"nft": True, "xdp": False}
