# SPDX-License-Identifier: Apache-2.0
"""Hops of two NICs under real stacks: transfers, path-MTU discovery, neighbours that move, errors.

Nothing here is made up: client and server are Linux, and so is what is compared with, nft.
"""

from __future__ import annotations

import socket
import time

import pytest

from tests.lab import links
from tests.lab.conftest import wait_until
from tests.lab.stages import (
    A_SECOND,
    MODES,
    ONE_HOP,
    TWO_HOPS,
    UPLOAD,
    Stages,
    forwarded_by_stack,
    programs,
    receive,
    sent,
    transfer,
)
from tests.lab.stages import family as family
from tests.lab.stages import stages as stages

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
