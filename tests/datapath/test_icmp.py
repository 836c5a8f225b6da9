# SPDX-License-Identifier: Apache-2.0
"""ICMP errors about packets of a flow, translated with the packet that they quote."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    ICMPv6Unknown,
)
from scapy.packet import Packet

from tests.datapath.conftest import NEXT_PORT, Age, Feed
from tests.datapath.frames import (
    FAMILIES,
    FEW,
    FEW_PORT,
    FRESH,
    IP_LEN,
    NEW_MAC,
    PORT,
    TAG,
    TAGS,
    TALKS,
    Talk,
    What,
    check,
    choice,
    neighbour,
    others,
    over,
    passed,
    put,
    restored,
    segment,
    shift,
    summing_to_zero,
)
from tests.datapath.icmp import SIDES, Change, Error, opened

BEHIND: What = {"next": "behind", "next_link": "egress"}

# name, talks, the error: to either side
KINDS = [
    *((f"unreachable {n}", "IPv4", ICMP(type=3, code=n)) for n in (*range(4), 5, 6, 9, 10, 13)),
    ("fragmentation needed", "IPv4", ICMP(type=3, code=4, nexthopmtu=1234)),
    ("with its length", "IPv4", ICMP(type=3, code=1, length=32)),
    *((f"time exceeded {n}", "IPv4", ICMP(type=11, code=n)) for n in range(2)),
    *((f"parameter problem {n}", "IPv4", ICMP(type=12, code=n, ptr=20)) for n in range(3)),
    *((f"unreachable {n}", "IPv6", ICMPv6DestUnreach(code=n)) for n in range(8)),
    ("packet too big", "IPv6", ICMPv6PacketTooBig(mtu=1280)),
    *((f"time exceeded {n}", "IPv6", ICMPv6TimeExceeded(code=n)) for n in range(2)),
    *((f"parameter problem {n}", "IPv6", ICMPv6ParamProblem(code=n, ptr=40)) for n in range(3)),
]


@pytest.mark.parametrize(("talk", "kind"), over(TALKS, KINDS))
def test_kinds(feed: Feed, talk: Talk, kind: Packet) -> None:
    check(feed, talk.family, *opened(talk), *(Error(talk, to, kind).translated() for to in SIDES))


# name, talks, the error
TRANSLATED = [
    ("from the other side itself", "", {"router": "next"}),
    ("from the client itself", "", {"router": "client"}),
    ("from far away", "", {"router": "far"}),
    ("data", "", {"inner": {"data": b"x" * 100}}),
    ("odd data", "", {"inner": {"data": b"x" * 101}}),
    ("a SYN", "TCP", {"inner": {"flags": "S", "options": [("MSS", 1460)]}}),
    ("a whole segment", "", {"inner": {"data": b"\xff" * 1200}}),
    ("no UDP checksum", "UDP", {"inner": {"chksum": 0, "data": b"abc"}}),
    ("the quoted TTL", "", {"inner": {"ttl": 0}}),
    ("the other quoted TTL", "", {"inner": {"ttl": 255}}),
    ("quoted options", "IPv4", {"inner": {"header": {"options": [IPOption_NOP()] * 8}}}),
    ("most of them", "IPv4", {"inner": {"header": {"options": [IPOption_NOP()] * 40}}, "size": 68}),
    ("quoted flags", "IPv4", {"inner": {"header": {"flags": "DF", "tos": 0xB8, "id": 0}}}),
    ("a first fragment", "IPv4", {"inner": {"header": {"flags": "MF"}}}),
    ("quoted label", "IPv6", {"inner": {"header": {"fl": 0x12345, "tc": 0xB8}}}),
    ("lowest TTL", "", {"ttl": 2}),
    ("highest TTL", "", {"ttl": 255}),
    ("options", "IPv4", {"outer": {"options": [IPOption_NOP()] * 12}}),
    ("most options", "IPv4", {"outer": {"options": [IPOption_NOP()] * 40}}),
    ("type of service", "IPv4", {"outer": {"tos": 0xC0, "flags": "DF", "id": 65535}}),
    ("traffic class and label", "IPv6", {"outer": {"tc": 0xC0, "fl": 0xFFFFF}}),
    ("padding", "", {"padding": b"\xaa" * 5}),
    ("19 octets of it and padding", "IPv4", {"size": 39, "padding": bytes(9)}),
    ("19 octets of it and padding", "IPv6", {"size": 59, "padding": bytes(9)}),
    *(
        (f"{size} octets of it", "IPv4", {"size": 20 + size, "inner": {"data": bytes(range(50))}})
        for size in (8, 9, 12, 15, 16, 17, 18, 19, 20, 21, 28, 48)
    ),
    *(
        (f"{size} octets of it", "IPv6", {"size": 40 + size, "inner": {"data": bytes(range(50))}})
        for size in (8, 9, 12, 15, 16, 17, 18, 19, 20, 21, 28, 48)
    ),
]


@pytest.mark.parametrize(("talk", "error"), over(TALKS, TRANSLATED))
def test_translated(feed: Feed, talk: Talk, error: What) -> None:
    cases = [Error(talk, to, **error).translated() for to in SIDES]
    check(feed, talk.family, *opened(talk), *cases, talk.forward(), talk.back())


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_quoted_checksum_that_comes_out_as_zero(feed: Feed, talk: Talk, to: str) -> None:
    becomes = Error(talk, to).paths[3]
    case = Error(talk, to, inner={"data": summing_to_zero(becomes)}).translated()
    check(feed, talk.family, *opened(talk), case)


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_checksum_that_comes_out_as_zero(feed: Feed, family: int, to: str) -> None:
    """That of ICMP: nothing special."""
    at = 14 + IP_LEN[family] + 2
    error = Error(Talk(family, UDP), to, inner={"chksum": 0, "data": b"\0\0"})
    data = error.translated().out[at : at + 2]
    case = replace(error, inner={"chksum": 0, "data": data}).translated()
    assert case.out[at : at + 2] == b"\0\0"
    check(feed, family, *opened(error.talk), case)


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("difference", [1, 0x0101, 0x8000, 0xFFFE])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_wrong_checksum_stays_wrong(feed: Feed, talk: Talk, to: str, difference: int) -> None:
    """By as much as it was. A quote that is wrong does not make the error wrong."""
    header = IP_LEN[talk.family]
    case = Error(talk, to).translated()
    steps = []
    for at in (14 + header + 2, 14 + 10)[: 2 if talk.family == 4 else 1]:
        frame, out = (shift(octets, at, difference) for octets in (case.frame, case.out))
        steps.append(replace(case, frame=frame, out=out))
    quoted = header + (16 if talk.protocol is TCP else 6)
    for at in (quoted, 10)[: 2 if talk.family == 4 else 1]:
        wrong = Error(talk, to, change=lambda quote, at=at: shift(quote, at, difference))
        steps.append(wrong.translated())
    check(feed, talk.family, *opened(talk), *steps)


# name, talks, changes of the talk, the error: about a packet that the hop did not send
STRANGE: list[tuple[str, str, What, What]] = [
    ("another next hop", "", {"next": "other"}, {"to": "client"}),
    ("another port of it", "", {"next_port": NEXT_PORT + 1}, {"to": "client"}),
    ("another port of ours", "", {"port": PORT + 1}, {"to": "client"}),
    ("a port out of the range", "", {"port": 65535}, {"to": "client"}),
    ("another client", "", {"client": "neighbour"}, {"to": "next"}),
    ("another port of the client", "", {"client_port": PORT + 1}, {"to": "next"}),
    ("port 0 of the client", "", {"client_port": 0}, {"to": "next"}),
    ("another address of ours", "", {"out": "out"}, {"to": "client"}),
    ("the same with TTL 1", "", {"port": PORT + 1}, {"to": "client", "ttl": 1}),
    ("TCP", "UDP", {"protocol": TCP}, {"to": "client"}),
    ("TCP to the client", "UDP", {"protocol": TCP}, {"to": "next"}),
    ("UDP", "TCP", {"protocol": UDP}, {"to": "client"}),
    ("UDP to the client", "TCP", {"protocol": UDP}, {"to": "next"}),
]


@pytest.mark.parametrize(("talk", "changes", "error"), over(TALKS, STRANGE))
def test_strange(feed: Feed, talk: Talk, changes: What, error: What) -> None:
    case = Error(replace(talk, **changes), **error).passed()
    check(feed, talk.family, *opened(talk), case, talk.forward(), talk.back())


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_ends_that_do_not_belong_together(feed: Feed, talk: Talk, to: str) -> None:
    """An error to another address than that of the quoted sender, or about what was received."""
    error = Error(talk, to)
    router, quoted, _, becomes = error.paths
    elsewhere = [router._replace(target=talk.address(name)) for name in ("out", "other", "client")]
    frames = [error.frame(path, quoted, 64) for path in elsewhere]
    frames += [error.frame(router, path, 64) for path in (becomes, quoted.reversed())]
    cases = [passed(frame, "passed_not_ours") for frame in frames]
    check(feed, talk.family, *opened(talk), *cases, error.translated())


def changed(at: int, *octets: int) -> Change:
    """Overwrite octets of the quote."""
    return lambda quote: put(quote, at, *octets)


# name, talks, octets of the quote that are changed
DAMAGED = [
    ("version 0", "", changed(0, 0x05)),
    ("version 5", "", changed(0, 0x55)),
    ("version 6", "IPv4", changed(0, 0x65)),
    ("version 4", "IPv6", changed(0, 0x45)),
    ("header of 16 octets", "IPv4", changed(0, 0x44)),
    ("header of none", "IPv4", changed(0, 0x40)),
    ("header past the quote", "IPv4", changed(0, 0x4F)),
    ("later fragment", "IPv4", changed(6, 0x20, 0x40)),
    ("last fragment", "IPv4", changed(6, 0, 1)),
    ("farthest fragment", "IPv4", changed(6, 0x1F, 0xFF)),
    *((f"protocol {n}", "IPv4", changed(9, n)) for n in (0, 1, 4, 41, 47, 50, 58, 132, 136)),
    *((f"next header {n}", "IPv6", changed(6, n)) for n in (0, 1, 43, 44, 50, 51, 58, 60, 132)),
]


@pytest.mark.parametrize(("talk", "change"), over(TALKS, DAMAGED))
def test_quotes_that_say_nothing(feed: Feed, talk: Talk, change: Change) -> None:
    cases = [Error(talk, to, change=change).passed() for to in SIDES]
    check(feed, talk.family, *opened(talk), *cases, talk.forward(), talk.back())


@pytest.mark.parametrize("talk", TALKS[:2], ids=str)
def test_a_quoted_header_that_reads_as_ports(feed: Feed, talk: Talk) -> None:
    """Without a length, it would itself be where the flow's ports are."""
    talk = replace(talk, client_port=0x4000, port=0x4000)
    change = changed(0, 0x40, 0, *NEXT_PORT.to_bytes(2, "big"))
    check(feed, 4, *opened(talk), Error(talk, change=change).passed(), Error(talk).translated())


@pytest.mark.parametrize("padding", [b"", bytes(60)], ids=["", "padded"])
@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_every_quote_that_is_too_short(feed: Feed, talk: Talk, to: str, padding: bytes) -> None:
    """What follows the packet is none of it, even if it is the rest of the quote."""
    header = IP_LEN[talk.family]
    whole = bytes(segment(Error(talk, to).paths[1]))
    cases = [
        Error(talk, to, size=size, padding=padding and whole[size:] + padding).passed()
        for size in range(header + 8)
    ]
    check(feed, talk.family, *opened(talk), *cases, Error(talk, to, size=header + 8).translated())


@pytest.mark.parametrize("to", SIDES)
def test_quoted_options_that_are_too_short(feed: Feed, to: str) -> None:
    talk, inner = Talk(4), {"header": {"options": [IPOption_NOP()] * 40}}
    cases = [Error(talk, to, inner=inner, size=size).passed() for size in range(20, 68)]
    check(feed, 4, *opened(talk), *cases, Error(talk, to, inner=inner, size=68).translated())


# name, talks, what is no error about a packet
OTHERS = [
    *(
        (f"type {kind}", "IPv4", ICMP(type=kind))
        for kind in (0, 1, 2, 4, 5, 6, 8, 9, 10, 13, 14, 17, 30, 40, 255)
    ),
    *(
        (f"type {kind}", "IPv6", ICMPv6Unknown(type=kind, msgbody=bytes(4)))
        for kind in (0, 5, 100, 101, 127, 128, 129, 130, 133, 135, 137, 255)
    ),
]


@pytest.mark.parametrize(("talk", "kind"), over(TALKS[::2], OTHERS))
def test_other_kinds(feed: Feed, talk: Talk, kind: Packet) -> None:
    cases = [Error(talk, to, kind).passed("passed_other_protocol") for to in SIDES]
    check(feed, talk.family, *opened(talk), *cases)


@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_ttl(feed: Feed, talk: Talk, to: str, ttl: int) -> None:
    unknown = Error(talk, to, ttl=ttl).passed()
    check(feed, talk.family, unknown, *opened(talk), Error(talk, to, ttl=ttl).passed("passed_ttl"))


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_an_error_is_no_use_and_no_answer(feed: Feed, talk: Talk, to: str) -> None:
    seconds = 60 if talk.protocol is TCP else 30
    other = replace(others(talk, 1)[0], port=PORT)
    error = Error(talk, to, inner={"flags": "R"} if talk.protocol is TCP else {})
    after = error.passed() if to == "next" else replace(error, talk=other).translated()
    taken = [other.open(also={"flows_evicted": 1}), after, other.back("SA")]
    steps = [Age(seconds - 1), error.translated(), Age(3), error.translated(), *taken]
    check(feed, talk.family, talk.open(), *steps)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_flows_away_from_home(feed: Feed, talk: Talk) -> None:
    (other,) = others(talk, 1)
    both = [Error(each, to).translated() for each in (talk, other) for to in SIDES]
    check(feed, talk.family, talk.open(), other.open(also={"port_collisions": 1}), *both)


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_flow_that_its_client_left(feed: Feed, talk: Talk, to: str) -> None:
    """With a fresh port, only errors about the new one are the client's."""
    anew = replace(talk, port=choice(1), next="other")
    begin = [talk.open(), anew.next_step, anew.reopen(also={"port_collisions": 1})]
    steps = [Error(talk).passed(), Error(anew, to).translated()]
    check(feed, talk.family, *begin, *steps, **FRESH)


# name, talks, where next hop and client are, constants
PLACES: list[tuple[str, str, What, What]] = [
    ("a tag", "", {"vlan": 5}, TAG),
    ("the hop's other address", "", {"out": "out"}, {}),
    ("two NICs", "", {**BEHIND, "client_port": FEW_PORT, "port": FEW_PORT}, FEW),
    ("two tags", "", {**BEHIND, "vlan": 5, "egress_vlan": 6}, TAGS),
]


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize(("talk", "where", "constants"), over(TALKS, PLACES))
def test_places(feed: Feed, talk: Talk, where: What, constants: What, to: str) -> None:
    talk = replace(talk, **where)
    error = Error(talk, to, priority=9 if "vlan" in where else 0)
    check(feed, talk.family, talk.next_step, *opened(talk), error.translated(), **constants)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_next_hop_is_not_resolved_yet(feed: Feed, talk: Talk) -> None:
    """The stack sends the error, as it sends every other packet."""
    talk = replace(talk, next="silent", next_mac=NEW_MAC)
    stack = {"instead": "passed_unresolved"}
    error = Error(talk, "next")
    known = [neighbour("replace", talk, "silent", NEW_MAC), error.translated()]
    gone = neighbour("delete", talk, "silent")
    steps = [error.translated(**stack), error.translated(**stack), *known, gone, talk.forward()]
    check(feed, talk.family, talk.next_step, talk.open(**stack), talk.back("SA"), *steps)


@pytest.mark.parametrize("to", SIDES)
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_neighbour_that_moves(feed: Feed, talk: Talk, to: str) -> None:
    """Errors look it up as other packets do, and ask the stack for one that is forgotten."""
    error = Error(talk, to)
    moved = replace(error, talk=replace(talk, **{f"{to}_mac": NEW_MAC}))
    moves = [neighbour("replace", talk, to, NEW_MAC), error.translated(), Age(2)]
    moves += [moved.translated(), neighbour("delete", talk, to), moved.translated(), Age(2)]
    moves += [moved.translated("passed_unresolved"), moved.translated(), restored(talk, to)]
    check(feed, talk.family, *opened(talk), *moves, Age(2), error.translated())
