# SPDX-License-Identifier: Apache-2.0
"""Path-MTU discovery through hops with two NICs: both ends learn of a narrow link."""

from __future__ import annotations

import contextlib
import ctypes
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import links
from tests.lab.stages import (
    A_SECOND,
    BACKWARDS,
    LIMIT_S,
    MODES,
    NARROW,
    ONE_HOP,
    TWO_HOPS,
    Stage,
    Stages,
    path_mtu,
    transfer,
)
from tests.lab.stages import family as family
from tests.lab.stages import stages as stages

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
