# SPDX-License-Identifier: Apache-2.0
"""The NAT's ports on real connections: who gets which, how many there are, who has to wait."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator

import pytest

from bench.lab.model import Lab
from tests.lab.agents import DirectAgent
from tests.lab.conftest import inside, wait_until
from tests.lab.endpoints import (
    HOP_PORT,
    Hops,
    at,
    connected,
    exchange,
    host_of,
    listen,
    tcp,
)

PORT = 8124
# Within the ports that a hop's NAT has for its own where it is not told otherwise.
SOURCE = 20_000
# Ranges of their own: what one test's connections leave in TIME_WAIT is in no other's way.
MANY, FEW, FEW_TOO = [10_000, 10_999], [12_000, 12_015], [13_000, 13_015]


@pytest.fixture
def listener(lab: Lab) -> Iterator[socket.socket]:
    """The server's end, before it has accepted anything."""
    with listen(lab, PORT) as made:
        yield made


@pytest.fixture
def client(lab: Lab) -> str:
    """The client's address."""
    return host_of(lab, "client").data_ip


@contextlib.contextmanager
def one_hop(lab: Lab, **place: object) -> Iterator[Hops]:
    """Forward to the server's port by hop 1 alone."""
    with Hops(lab, 1, **place) as hops, hops.forwarding(PORT):
        yield hops


@contextlib.contextmanager
def connections(
    lab: Lab, listener: socket.socket, sources: Iterable[tuple[str, int] | None]
) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Hold a connection from each source; the server closes first, as a web server does."""
    with contextlib.ExitStack() as stack:
        pairs = []
        for source in sources:
            ours, theirs = connected(lab, listener, source)
            stack.enter_context(ours)
            pairs.append((ours, theirs))
        yield pairs
        for _, theirs in pairs:
            theirs.close()


def seen(pairs: Iterable[tuple[socket.socket, socket.socket]]) -> list[int]:
    """Return the source ports that the server sees."""
    return [theirs.getpeername()[1] for _, theirs in pairs]


def all_exchange(pairs: Iterable[tuple[socket.socket, socket.socket]]) -> None:
    """Have every connection carry data, one after the other."""
    for index, (ours, theirs) in enumerate(pairs):
        exchange(ours, theirs, f"{index:05}".encode() * 500)


# --- who gets which port ---------------------------------------------------------------------


def test_two_clients_want_the_same_port(lab: Lab, listener: socket.socket, client: str) -> None:
    other = str(lab.network[100])
    address = (f"{other}/{lab.network.prefixlen}", "dev", "eth0")
    inside(lab, "client", "ip", "address", "add", *address)
    try:
        sources = [(client, SOURCE), (other, SOURCE)]
        # In the second turn, after a reload, the one that had to yield comes first.
        for turn in (sources, sources[::-1]):
            with one_hop(lab) as hops, connections(lab, listener, turn) as pairs:
                ports = seen(pairs)
                assert ports[0] == SOURCE != ports[1]
                all_exchange(pairs)
                all_exchange(pairs[::-1])
                (counts,) = hops.counts()
                # One that meets the other's TIME_WAIT may have to send its SYN again.
                assert counts["flows_opened"] - counts["flows_reopened"] == 2
                assert counts["port_kept"] >= 1 and counts["port_other"] >= 1
    finally:
        inside(lab, "client", "ip", "address", "del", *address)


@pytest.mark.parametrize(("policy", "ports"), [("affine", 1), ("fresh", 3)])
def test_one_endpoint_comes_again(
    lab: Lab, listener: socket.socket, client: str, policy: str, ports: int
) -> None:
    """While the server still keeps the last connection's TIME_WAIT."""
    found = []
    with one_hop(lab, nat_policy=policy) as hops:
        for _ in range(3):
            with connections(lab, listener, [(client, SOURCE + 1)]) as pairs:
                found += seen(pairs)
                all_exchange(pairs)
            assert wait_until(lambda: f":{SOURCE + 1}" not in inside(lab, "client", "ss", "-Htan"))
        (counts,) = hops.counts()
        assert (counts["flows_opened"], counts["flows_reopened"]) == (3, 2)
    assert len(set(found)) == ports
    assert found[0] == SOURCE + 1


def test_ports_given_are_kept_to(lab: Lab, listener: socket.socket) -> None:
    with one_hop(lab, nat_ports=MANY) as hops:
        assert hops.ports == [MANY]
        with connections(lab, listener, [None] * 300) as pairs:
            ports = seen(pairs)
            assert len(set(ports)) == 300
            assert min(ports) >= MANY[0] and max(ports) <= MANY[1]
            all_exchange(pairs)


def test_ports_that_sockets_may_take_are_refused(lab: Lab) -> None:
    with DirectAgent(lab, "hop1") as agent:
        answer = agent.place(prepare=["xdp"], nat_ports=[30_000, 33_000])
        assert answer["event"] == "error"
        assert "30000-33000 overlaps net.ipv4.ip_local_port_range" in answer["cause"]
        assert answer["remedy"] == "choose ports outside it"


def refused(lab: Lab, source: tuple[str, int] | None = None) -> bool:
    """Say whether a connection does not come about: its SYN is dropped, and so is the second."""
    with tcp(lab, source) as late:
        late.settimeout(1.5)
        try:
            late.connect((host_of(lab, "hop1").data_ip, HOP_PORT))
        except TimeoutError:
            return True
        return False


def test_no_port_is_left(lab: Lab, listener: socket.socket) -> None:
    with (
        one_hop(lab, nat_ports=FEW) as hops,
        connections(lab, listener, [None] * 16) as pairs,
    ):
        assert sorted(seen(pairs)) == list(range(FEW[0], FEW[1] + 1))
        assert refused(lab)
        all_exchange(pairs)
        (counts,) = hops.counts()
        assert counts["flows_opened"] == 16
        assert counts["dropped_no_port"] >= 1
        # UDP has ports of its own.
        with at(lab, "server"):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with at(lab, "client"):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server, asking:
            server.settimeout(5)
            server.bind((host_of(lab, "server").data_ip, PORT))
            asking.sendto(b"datagram", (host_of(lab, "hop1").data_ip, HOP_PORT))
            assert server.recv(100) == b"datagram"


def test_flows_away_from_home_are_limited(lab: Lab, listener: socket.socket, client: str) -> None:
    # Ports of one client that lie 16 apart have the same home among 16 ports.
    homes = [(client, SOURCE + number) for number in range(10)]
    away = [(client, SOURCE + 16 + number) for number in range(3)]
    with (
        one_hop(lab, nat_ports=FEW_TOO, nat_flows=2) as hops,
        connections(lab, listener, homes + away[:2]) as pairs,
    ):
        assert refused(lab, away[2])
        all_exchange(pairs)
        (counts,) = hops.counts()
        assert counts["flows_opened"] == 12
        assert counts["dropped_table_full"] >= 1
        # At home there is still room.
        with connections(lab, listener, [(client, SOURCE + 10)]) as more:
            all_exchange(more)
