# SPDX-License-Identifier: Apache-2.0
"""The forwarder, frame by frame: every octet that leaves, its checksums computed from scratch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import TCP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.l2 import Ether

from tests.datapath.conftest import (
    Feed,
)
from tests.datapath.frames import (
    IP_LEN,
    TALKS,
    Talk,
    What,
    build,
    check,
    over,
    passed,
    shift,
    summing_to_zero,
)

OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (77, 0)), ("NOP", None), ("WScale", 7)]
SACK = [("NOP", None), ("NOP", None), ("SAck", (2000, 3000, 4000, 5000))]
LONGEST = [("NOP", None)] * 40
TCPS = [talk for talk in TALKS if talk.protocol is TCP]


def header(**fields: object) -> What:
    """Fields of the IP header, as a keyword of `build`."""
    return {"header": fields}


# name, talks, what either side sends
FORWARDED = [
    ("plain", "", {}),
    ("options", "TCP", {"options": OPTIONS}),
    ("most options", "TCP", {"options": LONGEST}),
    ("fast open", "TCP", {"data": b"early", "options": OPTIONS}),
    ("window 0", "TCP", {"window": 0}),
    ("highest numbers", "TCP", {"seq": 2**32 - 1, "ack": 2**32 - 1, "window": 65535}),
    ("reserved bits", "TCP", {"reserved": 7}),
    ("one octet", "", {"data": b"x"}),
    ("odd length", "", {"data": b"xyz"}),
    ("even length", "", {"data": b"wxyz"}),
    ("all ones", "", {"data": b"\xff\xff"}),
    ("all ones, odd", "", {"data": b"\xff" * 999}),
    ("zeros", "", {"data": bytes(100)}),
    ("MTU", "IPv4-TCP", {"data": b"\xff" * 1460}),
    ("MTU", "IPv4-UDP", {"data": b"\xff" * 1472}),
    ("MTU", "IPv6-TCP", {"data": b"\xff" * 1440}),
    ("MTU", "IPv6-UDP", {"data": b"\xff" * 1452}),
    ("no UDP checksum", "UDP", {"data": b"query", "chksum": 0}),
    ("no UDP checksum, odd and empty", "UDP", {"chksum": 0}),
    ("lowest TTL", "", {"ttl": 2}),
    ("highest TTL", "", {"ttl": 255}),
    ("padded to 60 octets", "", {"padding": bytes(6)}),
    ("padded by what is no zero", "", {"padding": b"\xaa" * 7}),
    ("padded past the MTU", "", {"data": bytes(1400), "padding": bytes(300)}),
    ("type of service", "IPv4", header(tos=0xB8)),
    ("congestion experienced", "IPv4", header(tos=3)),
    ("id 0", "IPv4", header(id=0)),
    ("highest id", "IPv4", header(id=65535)),
    ("do not fragment", "IPv4", header(flags="DF")),
    ("the evil bit", "IPv4", header(flags="evil")),
    ("router alert", "IPv4", header(options=[IPOption_Router_Alert()])),
    *(
        (f"{length} octets of IP options", "IPv4", header(options=[IPOption_NOP()] * length))
        for length in range(4, 44, 4)
    ),
    ("traffic class", "IPv6", header(tc=0xB8)),
    ("all of the traffic class", "IPv6", header(tc=255)),
    ("flow label", "IPv6", header(fl=0x12345)),
    ("highest flow label", "IPv6", header(fl=0xFFFFF, tc=1)),
]


@pytest.mark.parametrize(("talk", "what"), over(TALKS, FORWARDED))
def test_there_and_back(feed: Feed, talk: Talk, what: What) -> None:
    steps = [talk.open(**what), talk.back("SA", **what), talk.forward("PA", **what)]
    check(feed, talk.family, *steps, talk.back("A", **what))


@pytest.mark.parametrize("flags", ["S", "SP", "SU", "SEC", "SPUEC"])
@pytest.mark.parametrize("talk", TCPS, ids=str)
def test_a_syn_opens(feed: Feed, talk: Talk, flags: str) -> None:
    check(feed, talk.family, talk.open(flags))


@pytest.mark.parametrize("flags", ["SA", "SR", "SF", "SRA", "A", "PA", "F", "FA", "R", "RA", ""])
@pytest.mark.parametrize("talk", TCPS, ids=str)
def test_other_segments_do_not(feed: Feed, talk: Talk, flags: str) -> None:
    steps = [passed(build(talk.asks, flags, ttl=ttl), "passed_no_flow") for ttl in (64, 1)]
    check(feed, talk.family, *steps)


# name, talks, a conversation after its first packet
CONVERSATIONS = [
    ("closed by the client", "TCP", "<SA >A >PA <A <PA >A >FA <A <FA! >A"),
    ("closed by the server", "TCP", "<SA >A >PA <FA >A >FA! <A"),
    ("closed by both at once", "TCP", "<SA >A >FA <FA! >A <A"),
    ("half closed by the client", "TCP", "<SA >FA <PA <PA >A <PA >A <FPA! >A"),
    ("half closed by the server", "TCP", "<SA <FA >PA >PA <A >PA"),
    ("FIN sent twice", "TCP", "<SA >FA >FA <A <FA! <FA >FA"),
    ("reset by the client", "TCP", "<SA >PA >RA! <A <R >A"),
    ("reset by the server", "TCP", "<SA >PA <R! >A >R <A"),
    ("refused", "TCP", "<RA!"),
    ("given up", "TCP", ">R!"),
    ("reset after FIN", "TCP", "<SA >FA <RA! <FA >FA"),
    ("reset after both FINs", "TCP", "<SA >FA <FA! >R <R"),
    ("SYN repeated", "TCP", ">S >SEC <SA <SA >S >A"),
    ("simultaneous open", "TCP", "<S >SA <SA"),
    ("challenge", "TCP", "<A >R!"),
    ("answer first", "", "< > < >"),
    ("one way", "", "> > > >"),
    ("back only", "", "< < < <"),
    ("many answers", "", "< < > < < < >"),
]


@pytest.mark.parametrize(("talk", "words"), over(TALKS, CONVERSATIONS))
def test_conversations(feed: Feed, talk: Talk, words: str) -> None:
    fed = check(feed, talk.family, talk.open(), *talk.says(words))
    assert fed.counters["forwarded_packets"] == 1 + words.count(">")
    assert fed.counters["returned_packets"] == words.count("<")


@pytest.mark.parametrize("talk", TCPS, ids=str)
def test_a_download(feed: Feed, talk: Talk) -> None:
    """Whole segments, with the options that connections have."""
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (78, 79))]
    full = 1500 - IP_LEN[talk.family] - 20 - 12
    check(
        feed,
        talk.family,
        talk.open(options=OPTIONS, window=64240),
        talk.back("SA", options=OPTIONS, window=65160),
        talk.forward("A", options=stamps),
        talk.forward("PA", options=stamps, data=b"GET / HTTP/1.1\r\n\r\n"),
        talk.back("A", options=stamps, data=b"z" * full, window=501),
        talk.back("A", options=stamps, data=b"\0" * full, window=501),
        talk.forward("A", options=stamps + SACK, window=0),
        talk.back("PAU", options=stamps, data=b"\xff" * (full - 1), urgptr=17),
        talk.forward("AE", options=stamps),
        talk.back("FPA", options=stamps, data=b"end", padding=b"\0" * 3),
        talk.forward("FA", options=stamps, also={"flows_closed": 1}),
        talk.back("A", options=stamps, ttl=2),
    )


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_checksum_that_comes_out_as_zero(feed: Feed, talk: Talk, way: str) -> None:
    """That is 0xffff in UDP, where 0 says that there is none, and no exception in TCP."""
    leaves, carry = (talk.goes, talk.forward) if way == "there" else (talk.comes, talk.back)
    case = carry(data=summing_to_zero(leaves))
    assert Ether(case.out)[talk.protocol].chksum == (0 if talk.protocol is TCP else 0xFFFF)
    check(feed, talk.family, talk.open(), case)


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_checksum_that_was_zero(feed: Feed, talk: Talk, way: str) -> None:
    arrives, carry = (talk.asks, talk.forward) if way == "there" else (talk.answers, talk.back)
    check(feed, talk.family, talk.open(), carry(data=summing_to_zero(arrives)))


@pytest.mark.parametrize("zero", ["before", "after"])
def test_an_ip_checksum_of_zero(feed: Feed, zero: str) -> None:
    talk = Talk(4)
    path, ttl = (talk.asks, 64) if zero == "before" else (talk.goes, 63)
    number = Ether(build(path, ttl=ttl, header={"id": 0})).chksum
    assert Ether(build(path, ttl=ttl, header={"id": number})).chksum == 0
    check(feed, 4, talk.open(), talk.forward(header={"id": number}))


# name, talks, octet of the IP packet at which a checksum is, as seen from the end of its header
CHECKSUMS = [("IP header", "IPv4", -10), ("TCP", "TCP", 16), ("UDP", "UDP", 6)]


@pytest.mark.parametrize("difference", [1, 0x0101, 0x8000, 0xFFFE])
@pytest.mark.parametrize(("talk", "at"), over(TALKS, CHECKSUMS))
def test_a_wrong_checksum_stays_wrong(feed: Feed, talk: Talk, at: int, difference: int) -> None:
    """By as much as it was: a hop must not mend what was damaged before it."""
    at += 14 + IP_LEN[talk.family]
    steps = [
        replace(case, frame=shift(case.frame, at, difference), out=shift(case.out, at, difference))
        for case in (talk.open(), talk.back("SA"), talk.forward(data=b"abc"))
    ]
    check(feed, talk.family, *steps)
