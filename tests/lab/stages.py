# SPDX-License-Identifier: Apache-2.0
"""Chains of direct links with two-NIC hops, and what their hosts do and have."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.lab import links
from tests.lab.agents import CheckoutAgent
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
