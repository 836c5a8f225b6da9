# SPDX-License-Identifier: Apache-2.0
"""Where XDP means to do something else than nft: what each of them does, and why."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import (
    IP,
    TCP,
    UDP,
    IPOption_RR,
    fragment,
)
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from tests.lab.oracle import (
    ETHERNET,
    MODES,
    NARROWER,
    ONLY_IPV4,
    ONLY_IPV6,
    OTHER,
    World,
    ethernet,
)
from tests.lab.oracle import world as world
from tests.lab.oracle import worlds as worlds
from tests.lab.test_oracle_errors import error, limits, opened


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
