# SPDX-License-Identifier: Apache-2.0
"""nft as the oracle: the same frames through a hop that runs nft and through one that runs XDP.

Two hops stand side by side, with the same addresses and the same neighbours. Every frame is made
up, sent to both, and what comes out of them is compared octet by octet. Client and next hop are
addresses that no kernel has, so nothing but the hops ever answers.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
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
)
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

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
