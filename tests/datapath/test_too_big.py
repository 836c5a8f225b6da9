# SPDX-License-Identifier: Apache-2.0
"""Packets that are too long for the way ahead: their sender is told, octet by octet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from tests.datapath.conftest import (
    DATA_MTU,
    EGRESS_MTU,
    NARROW_MTU,
    TX,
    Age,
    Feed,
    Ip,
)
from tests.datapath.frames import (
    FEW,
    FEW_PORT,
    IP_LEN,
    PORT,
    TAG,
    TAGS,
    TALKS,
    Case,
    Counts,
    Talk,
    What,
    build,
    check,
    ethernet,
    others,
    over,
    passed,
    shift,
)

WAYS = ["there", "back"]


def narrow(talk: Talk, way: str) -> Talk:
    """A flow that has a small MTU on one way."""
    return replace(talk, **{"next" if way == "there" else "client": "narrow"})


def long(talk: Talk, size: int, **what: Any) -> What:
    """Keywords of a packet of so many octets, which is not to be fragmented."""
    if talk.family == 4:
        what["header"] = {"flags": "DF", **what.get("header", {})}
    least = len(build(talk.asks, "S", **what)) - (18 if talk.asks.vlan else 14)
    return {**what, "data": (b"0123456789" * 200)[: size - least]}


def told(
    talk: Talk, way: str, mtu: int, flags: str = "A", also: Counts | None = None, **what: Any
) -> Case:
    """A packet that is too long, and what its sender hears of it."""
    path = talk.asks if way == "there" else talk.answers
    frame = build(path, flags, **what)
    back = path.reversed()
    packet = frame[18 if path.vlan else 14 :]
    if talk.family == 4:
        header = IP(src=back.source, dst=back.target, ttl=64, tos=0, id=0, flags="DF")
        reply = header / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(packet[:68])
    else:
        header = IPv6(src=back.source, dst=back.target, hlim=64, tc=0, fl=0)
        reply = header / ICMPv6PacketTooBig(code=0, mtu=mtu) / Raw(packet[:128])
    out = ethernet(back, reply, what.get("priority", 0))
    return Case(frame, TX, out, {"replied_too_big": 1, **(also or {})}, path.link)


def carries(talk: Talk, way: str, flags: str = "A", **what: Any) -> Case:
    """The same for one that is not."""
    return (talk.forward if way == "there" else talk.back)(flags, **what)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_longest_that_fits(feed: Feed, talk: Talk, way: str) -> None:
    """Padding does not make it longer, and the other way has an MTU of its own."""
    talk, other = narrow(talk, way), WAYS[way == "there"]
    fits = long(talk, NARROW_MTU)
    steps = [carries(talk, way, **fits), told(talk, way, NARROW_MTU, **long(talk, NARROW_MTU + 1))]
    steps.append(carries(talk, way, **fits, padding=bytes(40)))
    steps.append(carries(talk, other, **long(talk, DATA_MTU)))
    steps.append(told(talk, other, DATA_MTU, **long(talk, DATA_MTU + 1)))
    check(feed, talk.family, talk.next_step, talk.open(), talk.back("SA"), *steps)


OPTIONS = [IPOption_NOP()] * 40
# name, talks, octets, what else about the packet that is too long
TOO_LONG = [
    ("by one", "", 1301, {}),
    ("by two", "", 1302, {}),
    ("whole MTU of the data network", "", 1500, {}),
    ("padded", "", 1400, {"padding": b"\xaa" * 9}),
    ("TTL 2", "", 1400, {"ttl": 2}),
    ("TTL 255", "", 1400, {"ttl": 255}),
    ("no UDP checksum", "UDP", 1400, {"chksum": 0}),
    ("TCP options", "TCP", 1400, {"options": [("Timestamp", (1, 2)), ("SAckOK", b"")]}),
    ("options", "IPv4", 1400, {"header": {"options": OPTIONS[:8]}}),
    ("most options", "IPv4", 1400, {"header": {"options": OPTIONS}}),
    ("type of service and id", "IPv4", 1400, {"header": {"tos": 0xBB, "id": 65535}}),
    ("the evil bit", "IPv4", 1400, {"header": {"flags": "DF+evil"}}),
    ("traffic class and label", "IPv6", 1400, {"header": {"tc": 0xBB, "fl": 0x12345}}),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("talk", "size", "what"), over(TALKS, TOO_LONG))
def test_told(feed: Feed, talk: Talk, size: int, what: What, way: str) -> None:
    talk = narrow(talk, way)
    case = told(talk, way, NARROW_MTU, **long(talk, size, **what))
    check(feed, talk.family, talk.next_step, talk.open(), talk.back("SA"), case, talk.forward())


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_packet_that_opens(feed: Feed, talk: Talk) -> None:
    talk = narrow(talk, "there")
    first = {"flows_opened": 1, "port_kept": 1}
    case = told(talk, "there", NARROW_MTU, "S", first, **long(talk, 1400))
    check(feed, talk.family, talk.next_step, case, talk.forward("S"), talk.back("SA"))


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_what_was_wrong_is_quoted(feed: Feed, talk: Talk) -> None:
    """And a packet with a TTL of 1 gets no farther than that."""
    talk = narrow(talk, "there")
    what = long(talk, 1400)
    case = told(talk, "there", NARROW_MTU, **what)
    wrong = shift(case.frame, 14 + IP_LEN[talk.family] + (16 if talk.protocol is TCP else 6), 5)
    quote = wrong[14 : 14 + (68 if talk.family == 4 else 128)]
    header = (IP if talk.family == 4 else IPv6)(case.out[14 : 14 + IP_LEN[talk.family]])
    kind = ICMP(type=3, code=4, nexthopmtu=NARROW_MTU)
    upper = kind if talk.family == 4 else ICMPv6PacketTooBig(mtu=NARROW_MTU)
    out = ethernet(talk.asks.reversed(), header / upper / Raw(quote))
    late = passed(build(talk.asks, ttl=1, **what), "passed_ttl")
    check(feed, talk.family, talk.next_step, talk.open(), replace(case, frame=wrong, out=out), late)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1301, 1302, 1499, 1500])
@pytest.mark.parametrize("talk", TALKS[:2], ids=str)
def test_what_may_be_fragmented_is_left_to_the_stack(
    feed: Feed, talk: Talk, size: int, way: str
) -> None:
    talk = narrow(talk, way)
    what = long(talk, size, header={"flags": 0})
    cases = [
        carries(talk, way, **what, instead="passed_too_big"),
        carries(talk, way, **what, ttl=2, instead="passed_too_big"),
        carries(talk, way, **what, padding=bytes(3), instead="passed_too_big"),
    ]
    check(feed, 4, talk.next_step, talk.open(), talk.back("SA"), *cases, talk.forward())


# name, talks, the flags of the IPv4 header
UNTRACKED = [("told", "TCP", "DF"), ("left to the stack", "IPv4-TCP", 0)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("talk", "flags"), over(TALKS, UNTRACKED))
def test_it_changes_no_state(feed: Feed, talk: Talk, way: str, flags: str | int) -> None:
    """Neither a FIN nor an RST has arrived where it was to."""
    talk = narrow(talk, way)
    what = long(talk, 1400, **({"header": {"flags": flags}} if talk.family == 4 else {}))
    if flags:
        cases = [told(talk, way, NARROW_MTU, sent, **what) for sent in ("FA", "R")]
    else:
        what["instead"] = "passed_too_big"
        cases = [carries(talk, way, sent, **what) for sent in ("FA", "R")]
    closed = {"also": {"flows_closed": 1}}
    after = [carries(talk, WAYS[way == "there"], "FA"), talk.forward("S")]
    begin = [talk.next_step, talk.open(), talk.back("SA"), *cases]
    check(feed, talk.family, *begin, *after, carries(talk, way, "FA", **closed))


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_it_is_a_use_but_no_answer(feed: Feed, talk: Talk) -> None:
    """The flow lives on for as long as one that was not answered."""
    talk = narrow(talk, "back")
    seconds = 60 if talk.protocol is TCP else 30
    (other,) = others(talk, 1)
    use = told(talk, "back", NARROW_MTU, **long(talk, 1400))
    kept = other.open(also={"port_collisions": 1})
    taken = replace(other, port=PORT).open(also={"flows_evicted": 1})
    begin = [talk.open(), Age(seconds - 5), use, Age(seconds - 5)]
    check(feed, talk.family, *begin, kept)
    check(feed, talk.family, *begin, Age(10), taken)


@pytest.mark.parametrize("priority", [0, 1, 10, 15])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("talk", TALKS[::2], ids=str)
def test_the_tag_is_kept(feed: Feed, talk: Talk, way: str, priority: int) -> None:
    talk = replace(narrow(talk, way), vlan=5)
    case = told(talk, way, NARROW_MTU, **long(talk, 1400), priority=priority)
    check(feed, talk.family, talk.next_step, talk.open(), talk.back("SA"), case, **TAG)


@pytest.mark.parametrize("constants", [FEW, TAGS], ids=["two NICs", "two tags"])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_two_nics(feed: Feed, talk: Talk, constants: What) -> None:
    """Each has its MTU, and the sender is told by the NIC that it sent to."""
    tags = {"vlan": 5, "egress_vlan": 6} if constants is TAGS else {}
    where = {"next": "behind", "next_link": "egress", "client_port": FEW_PORT, "port": FEW_PORT}
    talk = replace(talk, **where, **tags)
    cases = [
        told(talk, "there", EGRESS_MTU, **long(talk, EGRESS_MTU + 1)),
        talk.forward(**long(talk, EGRESS_MTU)),
        talk.back(**long(talk, EGRESS_MTU + 1)),
        talk.back(**long(talk, DATA_MTU)),
        told(talk, "back", DATA_MTU, **long(talk, DATA_MTU + 1)),
    ]
    check(feed, talk.family, talk.next_step, talk.open(), talk.back("SA"), *cases, **constants)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_an_mtu_that_changes_is_followed(feed: Feed, talk: Talk) -> None:
    """A flow keeps the one it had while its neighbour is unknown."""
    talk = narrow(talk, "there")
    length, mac = ("32", "128")[talk.family == 6], talk.goes.target_mac
    where = (f"{talk.address('narrow')}/{length}", "dev", "data", "mtu", "lock")
    neighbour = ("neighbour", "replace", talk.address("narrow"), "dev", "data", "lladdr", mac)
    gone = ("neighbour", "delete", talk.address("narrow"), "dev", "data")
    check(
        feed,
        talk.family,
        talk.next_step,
        talk.open(),
        talk.back("SA"),
        Ip(("route", "replace", *where, "1290")),
        talk.forward(**long(talk, 1300)),
        Age(2),
        told(talk, "there", 1290, **long(talk, 1291)),
        talk.forward(**long(talk, 1290)),
        Ip(gone),
        Age(2),
        told(talk, "there", 1290, **long(talk, 1291)),
        Age(2),
        talk.forward(**long(talk, 1290), instead="passed_unresolved"),
        Ip((*neighbour, "nud", "permanent")),
        Ip(("route", "replace", *where, str(NARROW_MTU))),
        Age(2),
        talk.forward(**long(talk, 1300)),
        told(talk, "there", 1300, **long(talk, 1301)),
    )
