# SPDX-License-Identifier: Apache-2.0
"""Hops of two NICs under real stacks: transfers, path-MTU discovery, neighbours that move, errors.

Nothing here is made up: client and server are Linux, and so is what is compared with, nft.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.lab import links
from tests.lab.agents import CheckoutAgent
from tests.lab.conftest import wait_until
from tests.lab.links import Chain

PORT, SERVER_PORT = 7000, 8000
LIMIT_S = 20.0  # after which a transfer hangs, however slow the machine
A_SECOND = 1.2  # the program goes by what the kernel has told it for one, and a tick or two
# MTUs of a chain's links. One that is narrow in the middle is known to neither end.
NARROW = 1300
ONE_HOP, BACKWARDS, TWO_HOPS = (1500, NARROW), (NARROW, 1500), (1500, NARROW, 1500)
MODES = ("xdp", "nft")
FAMILIES = [pytest.param(family, id=f"IPv{family}") for family in (4, 6)]
UPLOAD, DOWNLOAD = (random.Random(seed).randbytes(2_000_000) for seed in (1, 2))


@dataclass(frozen=True)
class Stage:
    """A chain, and the agents of its hops, told of one family."""

    chain: Chain
    family: int
    agents: tuple[CheckoutAgent, ...]

    @contextlib.contextmanager
    def forwarding(self, *modes: str) -> Iterator[None]:
        """Have the hops forward: all in one mode, or each in its own."""
        each = modes * len(self.agents) if len(modes) == 1 else modes
        try:
            for number, mode in reversed(list(enumerate(each, start=1))):
                answer = self.agents[number - 1].ask(
                    mode=mode,
                    next_ip=self.chain.far(number, self.family),
                    next_port=PORT if number < len(self.agents) else SERVER_PORT,
                )
                assert answer["event"] == "ready", answer
            yield
        finally:
            for agent in self.agents:
                agent.ask(mode="direct")

    def counters(self) -> list[Counter[str]]:
        """Return what each hop counts."""
        return [Counter(agent.counters()) for agent in self.agents]

    def since(self, before: list[Counter[str]]) -> list[Counter[str]]:
        """Return what each hop has counted since."""
        return [now - then for now, then in zip(self.counters(), before, strict=True)]

    def socket(self, kind: int) -> socket.socket:
        """Make a socket of the client's that is to be connected to the chain."""
        return self._bounded(links.new_socket(self.chain.client, self.family, kind))

    @staticmethod
    def _bounded(made: socket.socket) -> socket.socket:
        """Bound what it waits for, and what is on its way: a veth drops beyond 256 frames."""
        made.settimeout(LIMIT_S)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        return made

    @property
    def entry(self) -> tuple[str, int]:
        """What the client connects to."""
        return self.chain.far(0, self.family), PORT

    def listening(self, kind: int) -> socket.socket:
        """Make the server's socket."""
        made = self._bounded(links.new_socket(self.chain.server, self.family, kind))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((self.chain.far(len(self.agents), self.family), SERVER_PORT))
        if kind == socket.SOCK_STREAM:
            made.listen(8)
        return made

    @contextlib.contextmanager
    def connected(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A connection through the chain: the client's end and the server's."""
        with self.listening(socket.SOCK_STREAM) as waiting, self.socket(socket.SOCK_STREAM) as near:
            near.connect(self.entry)
            far, _ = waiting.accept()
            with far:
                far.settimeout(LIMIT_S)
                yield near, far


Stages = Callable[[tuple[int, ...], int], Stage]


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    """Stages by their links' MTUs and family, made when they are first asked for."""
    chains: dict[tuple[int, ...], Chain] = {}
    made: dict[tuple[tuple[int, ...], int], Stage] = {}
    with contextlib.ExitStack() as stack:

        def stage(mtus: tuple[int, ...], family: int) -> Stage:
            if mtus not in chains:
                name = "-".join(map(str, mtus))
                chains[mtus] = stack.enter_context(links.chain(name, mtus))
            if (mtus, family) not in made:
                made[mtus, family] = _stage(stack, chains[mtus], family)
            return made[mtus, family]

        yield stage


def _stage(stack: contextlib.ExitStack, chain: Chain, family: int) -> Stage:
    agents = tuple(
        stack.enter_context(CheckoutAgent(links.namespace(hop), chain.far(number, family)))
        for number, hop in enumerate(chain.hops)
    )
    with ThreadPoolExecutor(len(agents)) as pool:
        answers = pool.map(
            lambda pair: pair[1].place(prepare=list(MODES), **chain.place(pair[0], family)),
            enumerate(agents, start=1),
        )
        for answer in answers:
            assert answer["event"] == "ready", answer
    return Stage(chain, family, agents)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> int:
    """4 or 6."""
    return int(request.param)


# --- what a host does and has ------------------------------------------------------------------


def receive(sock: socket.socket, length: int) -> bytes:
    """Receive so much, or what comes before the end."""
    parts = []
    while length > 0 and (part := sock.recv(min(length, 1 << 16))):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def transfer(stage: Stage) -> float:
    """Send data up, then down, over a connection that both ends then close; return the seconds."""
    begin = time.monotonic()
    with stage.connected() as (near, far), ThreadPoolExecutor(1) as pool:
        uploaded = pool.submit(receive, far, len(UPLOAD))
        near.sendall(UPLOAD)
        assert uploaded.result() == UPLOAD
        downloaded = pool.submit(receive, near, len(DOWNLOAD))
        far.sendall(DOWNLOAD)
        assert downloaded.result() == DOWNLOAD
        far.shutdown(socket.SHUT_WR)
        assert near.recv(1) == b""
        near.shutdown(socket.SHUT_WR)
        assert far.recv(1) == b""
    return time.monotonic() - begin


def sent(host: str) -> int:
    """How many TCP segments a host has sent, the repeated ones included."""
    counted = links.counts(host)
    return counted["TcpOutSegs"] + counted["TcpRetransSegs"]


def forwarded_by_stack(hop: str) -> int:
    """How many packets a hop's stack has forwarded, of either family."""
    counted = links.counts(hop)
    return counted["IpForwDatagrams"] + counted["Ip6OutForwDatagrams"]


def programs(hop: str) -> list[tuple[int, int]]:
    """Attach mode (1: native) and id of the XDP program on each of a hop's two NICs."""
    found = [
        json.loads(links.run(hop, "ip", "-json", "link", "show", nic))[0].get("xdp", {})
        for nic in ("eth0", "eth1")
    ]
    return [(xdp["mode"], xdp["prog"]["id"]) for xdp in found if xdp]


def path_mtu(host: str, address: str) -> int | None:
    """The MTU that a host has learnt for the way to an address."""
    (route,) = json.loads(links.run(host, "ip", "-json", "route", "get", address))
    found = [metrics["mtu"] for metrics in route.get("metrics", []) if "mtu" in metrics]
    return found[0] if found else None


# --- transfers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mtus", [ONE_HOP, TWO_HOPS], ids=["1", "2"])
def test_xdp_carries_a_transfer_past_the_stack(
    stages: Stages, family: int, mtus: tuple[int, ...]
) -> None:
    stage = stages(mtus, family)
    chain = stage.chain
    with stage.forwarding("xdp"):
        for hop in chain.hops:
            (mode, first), other = programs(hop)
            assert (mode, other) == (1, (1, first))
        ends = [sent(host) for host in (chain.client, chain.server)]
        stack = [forwarded_by_stack(hop) for hop in chain.hops]
        redirected = [links.nic_counts(hop, nic) for hop in chain.hops for nic in ("eth0", "eth1")]
        before = stage.counters()

        def counts_agree() -> bool:
            up, down = (
                sent(host) - earlier
                for host, earlier in zip((chain.client, chain.server), ends, strict=True)
            )
            counted = stage.since(before)
            # What was too big was sent in vain; the first hop that it came to said so.
            up -= counted[0]["replied_too_big"]
            down -= counted[-1]["replied_too_big"] if len(counted) > 1 else 0
            return all(
                (each["forwarded_packets"], each["returned_packets"]) == (up, down)
                for each in counted
            )

        transfer(stage)
        # The last acknowledgement may still be on its way.
        assert wait_until(counts_agree), (stage.since(before), ends, sent(chain.client))
        counted = stage.since(before)
        for name in ("forwarded_bytes", "returned_bytes"):
            assert len({each[name] for each in counted}) == 1, counted
            assert counted[0][name] > len(UPLOAD)
        for hop, each in zip(chain.hops, counted, strict=True):
            assert (each["flows_opened"], each["flows_closed"]) == (1, 1)
            # What came in by one NIC was redirected to the other.
            by_nic = [
                links.nic_counts(hop, nic)["xdp_redirect"] - redirected.pop(0)["xdp_redirect"]
                for nic in ("eth0", "eth1")
            ]
            assert by_nic == [each["forwarded_packets"], each["returned_packets"]]
            assert forwarded_by_stack(hop) == stack.pop(0)


@pytest.mark.parametrize("modes", [("nft", "nft"), ("xdp", "nft"), ("nft", "xdp")])
def test_nft_carries_it_too_and_beside_xdp(
    stages: Stages, family: int, modes: tuple[str, ...]
) -> None:
    stage = stages(TWO_HOPS, family)
    with stage.forwarding(*modes):
        stack = [forwarded_by_stack(hop) for hop in stage.chain.hops]
        transfer(stage)
        for mode, hop, before in zip(modes, stage.chain.hops, stack, strict=True):
            assert len(programs(hop)) == (2 if mode == "xdp" else 0)
            # Each way takes more than 1300 packets.
            assert (forwarded_by_stack(hop) - before > 2000) == (mode == "nft")
        assert all(counters["flows_opened"] >= 1 for counters in stage.counters())


# --- path-MTU discovery -------------------------------------------------------------------------

ETHERNET = 14  # octets of header
ETH_P_ALL = 3  # linux/if_ether.h
SO_ATTACH_FILTER = 26  # asm-generic/socket.h


@contextlib.contextmanager
def watching(host: str, nic: str, longer_than: int) -> Iterator[Callable[[], int]]:
    """Watch for IP packets longer than that on a NIC; yields how to ask for their number."""
    # struct sock_filter: load the length; jump if greater; take 64 octets of the frame, or none.
    rows = (
        (0x80, 0, 0, 0),
        (0x25, 0, 1, longer_than + ETHERNET),
        (0x06, 0, 0, 64),
        (0x06, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
    with links.new_socket(host, socket.AF_PACKET, socket.SOCK_RAW) as sock:
        program = struct.pack("@HP", len(rows), ctypes.addressof(code))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        sock.bind((nic, ETH_P_ALL))
        sock.setblocking(False)

        def count() -> int:
            found = 0
            with contextlib.suppress(BlockingIOError):
                while sock.recv(64):
                    found += 1
            return found

        yield count


def forget_paths(stage: Stage) -> None:
    """Have client and server forget what they know of MTUs and of earlier connections."""
    for host in (stage.chain.client, stage.chain.server):
        for version in ("-4", "-6"):
            links.run(host, "ip", version, "route", "flush", "cache")
        links.run(host, "ip", "tcp_metrics", "flush")


@pytest.mark.parametrize(
    "modes", [("xdp", "xdp"), ("nft", "nft"), ("xdp", "nft"), ("nft", "xdp")], ids="-".join
)
def test_both_ends_learn_the_mtu_of_a_narrow_link(
    stages: Stages, family: int, modes: tuple[str, ...]
) -> None:
    """Only the link between the hops is narrow: neither end could know without being told."""
    stage = stages(TWO_HOPS, family)
    chain = stage.chain
    seen_from = (chain.client, chain.far(0, family)), (chain.server, chain.near(2, family))
    with stage.forwarding(*modes), contextlib.ExitStack() as stack:
        forget_paths(stage)
        assert [path_mtu(*ends) for ends in seen_from] == [None, None]
        # XDP takes a frame before it can be seen, and so it is seen at the end that nft has.
        watched = [
            stack.enter_context(watching(hop, nic, length))
            for mode, hop, nic in zip(modes, chain.hops, ("eth1", "eth0"), strict=True)
            if mode == "nft"
            for length in (NARROW, NARROW - 100)
        ]
        before = stage.counters()
        assert transfer(stage) < LIMIT_S / 2
        assert [path_mtu(*ends) for ends in seen_from] == [NARROW, NARROW]
        for too_long, full in zip(watched[::2], watched[1::2], strict=True):
            assert too_long() == 0
            assert full() > 0
        for mode, counted in zip(modes, stage.since(before), strict=True):
            # Each hop is the one before the narrow link in one of the directions.
            assert (counted["replied_too_big"] > 0) == (mode == "xdp")
            assert counted["passed_too_big"] == 0


@contextlib.contextmanager
def narrow_routes(stage: Stage, mtu: int) -> Iterator[None]:
    """Have the last hop's way to the server and the first hop's to the client be narrow."""
    chain, family = stage.chain, stage.family
    ways = [
        (chain.hops[-1], f"{chain.far(2, family)} dev eth1"),
        (chain.hops[0], f"{chain.near(0, family)} dev eth0"),
    ]
    for hop, way in ways:
        # Locked: bpf_fib_lookup leaves out the MTU of a route that is not.
        links.ip(hop, f"route add {way} mtu lock {mtu}")
    try:
        yield
    finally:
        for hop, way in ways:
            links.ip(hop, f"route delete {way}")


@pytest.mark.parametrize("mode", MODES)
def test_both_ends_learn_the_mtu_beyond_the_next_hop(
    stages: Stages, family: int, mode: str
) -> None:
    """What one hop says of a packet's size is for the other one to translate, quote and all."""
    stage = stages(TWO_HOPS, family)
    chain = stage.chain
    with narrow_routes(stage, NARROW - 10), stage.forwarding(mode):
        if mode == "xdp":
            time.sleep(A_SECOND)
        forget_paths(stage)
        before = stage.counters()
        assert transfer(stage) < LIMIT_S / 2
        assert path_mtu(chain.client, chain.far(0, family)) == NARROW - 10
        assert path_mtu(chain.server, chain.near(2, family)) == NARROW - 10
        if mode == "xdp":
            first, last = stage.since(before)
            assert min(first["replied_too_big"], last["replied_too_big"]) > 0
            assert min(first["errors_returned"], last["errors_forwarded"]) > 0
    forget_paths(stage)
    if mode == "xdp":
        time.sleep(A_SECOND)


IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0  # linux/in.h


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mtus", [ONE_HOP, BACKWARDS], ids=["up", "down"])
def test_a_datagram_that_may_be_fragmented_is(
    stages: Stages, mode: str, mtus: tuple[int, int]
) -> None:
    """IPv4 without DF. XDP hands it to the stack, which fragments it; its receiver reassembles."""
    stage = stages(mtus, 4)
    data = random.Random(3).randbytes(1400)
    far_host = stage.chain.server if mtus == ONE_HOP else stage.chain.client
    with (
        stage.forwarding(mode),
        stage.listening(socket.SOCK_DGRAM) as server,
        stage.socket(socket.SOCK_DGRAM) as client,
    ):
        for sock in (server, client):
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        client.connect(stage.entry)
        before = stage.counters()
        reassembled = links.counts(far_host)["IpReasmOKs"]
        # Only towards the narrow link the datagrams are long.
        up, down = (data, b"short") if mtus == ONE_HOP else (b"short", data)
        for _ in range(3):
            client.send(up)
            received, whence = server.recvfrom(2000)
            assert received == up
            server.sendto(down, whence)
            assert client.recv(2000) == down
        assert links.counts(far_host)["IpReasmOKs"] - reassembled == 3
        if mode == "xdp":
            (counted,) = stage.since(before)
            assert (counted["passed_too_big"], counted["replied_too_big"]) == (3, 0)


# --- neighbours ---------------------------------------------------------------------------------


def test_a_neighbour_that_is_not_known_costs_no_packet(stages: Stages, family: int) -> None:
    stage = stages(TWO_HOPS, family)
    with stage.forwarding("xdp"):
        transfer(stage)  # so that there is something to forget
        before, client = stage.counters(), links.counts(stage.chain.client)
        time.sleep(A_SECOND)
        for hop in stage.chain.hops:
            links.ip(hop, *(f"neigh flush dev {nic}" for nic in ("eth0", "eth1")))
        with stage.connected() as (near, far):
            far.sendall(b"hello")
            assert receive(near, 5) == b"hello"
        again = links.counts(stage.chain.client)
        assert again["TcpExtTCPSynRetrans"] == client["TcpExtTCPSynRetrans"]
        for hop, counted in zip(stage.chain.hops, stage.since(before), strict=True):
            assert counted["passed_unresolved"] >= 1, counted
            assert counted["flows_opened"] == 1
            assert "lladdr" in links.run(hop, "ip", "neigh", "show", "dev", "eth1")


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_follows_a_neighbour_that_moves(
    stages: Stages, family: int, mode: str
) -> None:
    """The server gets another MAC address and says so, as one does that takes over an address."""
    stage = stages(TWO_HOPS, family)
    announced = [
        f"net.{name}=1" for name in ("ipv4.conf.eth0.arp_notify", "ipv6.conf.eth0.ndisc_notify")
    ]
    links.run(stage.chain.server, "sysctl", "-qw", *announced)
    moved = f"02:00:00:00:{family:02x}:{MODES.index(mode):02x}"
    with stage.forwarding(mode), stage.connected() as (near, far):

        def echo(text: bytes) -> None:
            near.sendall(text)
            assert receive(far, len(text)) == text
            far.sendall(text)
            assert receive(near, len(text)) == text

        echo(b"before")
        links.ip(stage.chain.server, f"link set dev eth0 address {moved}")
        assert wait_until(
            lambda: moved in links.run(stage.chain.hops[-1], "ip", "neigh", "show", "dev", "eth1")
        )
        begin = time.monotonic()
        echo(b"after")
        # It is followed within a second, and TCP sends again 0.2, 0.6, 1.4 and 3 s after the first.
        assert time.monotonic() - begin < 5


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_closed_port_is_told_to_the_client(stages: Stages, family: int, mode: str) -> None:
    """The server's stack refuses; both hops translate the error, or the client could not tell."""
    stage = stages(TWO_HOPS, family)
    with stage.forwarding(mode), stage.socket(socket.SOCK_DGRAM) as client:
        client.connect(stage.entry)
        before = stage.counters()
        client.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        if mode == "xdp":
            for counted in stage.since(before):
                assert (counted["forwarded_packets"], counted["errors_returned"]) == (1, 1)
