# SPDX-License-Identifier: Apache-2.0
"""For how long a flow has its port, what opens it anew, and what the agent forgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from scapy.layers.inet import TCP, UDP

from tests.datapath.conftest import NEXT_PORT, Age, Collect, Feed, Step
from tests.datapath.frames import (
    FAMILIES,
    FRESH,
    PORT,
    TALKS,
    Case,
    Talk,
    What,
    build,
    check,
    choice,
    others,
    over,
    passed,
)

SECOND, THIRD = choice(1), choice(2)  # where others go that want PORT
COLLISION = {"port_collisions": 1}


# name, talks, what is said after the first packet, seconds, 1 if that is an eviction
IDLE = [
    ("unanswered", "TCP", "", 60, 1),
    ("unanswered, repeated", "TCP", ">S >S", 60, 1),
    ("unanswered, FIN", "TCP", ">FA", 60, 1),
    ("answered", "TCP", "<SA", 7440, 1),
    ("established", "TCP", "<SA >A >PA <A", 7440, 1),
    ("FIN of the client", "TCP", "<SA >A >FA <A", 240, 1),
    ("FIN of the server", "TCP", "<SA >A <FA >A", 240, 1),
    ("FIN of the client, repeated", "TCP", "<SA >FA >FA", 240, 1),
    ("both FINs", "TCP", "<SA >FA <FA! >A", 65, 0),
    ("both FINs, the server's first", "TCP", "<SA <FA >FA! <A", 65, 0),
    ("reset by the client", "TCP", "<SA >A >R!", 65, 0),
    ("reset by the server", "TCP", "<SA >A <R!", 65, 0),
    ("reset after a FIN", "TCP", "<SA >FA <RA!", 65, 0),
    ("refused", "TCP", "<RA!", 65, 0),
    ("unanswered", "UDP", "", 30, 1),
    ("unanswered, repeated", "UDP", "> >", 30, 1),
    ("answered", "UDP", "<", 180, 1),
    ("both ways", "UDP", "> < > <", 180, 1),
]


@pytest.mark.parametrize(("talk", "words", "seconds", "evicted"), over(TALKS, IDLE))
def test_a_port_is_kept_for_so_long(
    feed: Feed, talk: Talk, words: str, seconds: int, evicted: int
) -> None:
    (other,) = others(talk, 1)
    elsewhere = [other.open(also=COLLISION), other.back("SA"), talk.back(), talk.forward()]
    check(feed, talk.family, talk.open(), *talk.says(words), Age(seconds - 1), *elsewhere)


@pytest.mark.parametrize(("talk", "words", "seconds", "evicted"), over(TALKS, IDLE))
def test_and_no_longer(feed: Feed, talk: Talk, words: str, seconds: int, evicted: int) -> None:
    """Then it goes to whoever wants it, and who had it is unknown."""
    other = replace(others(talk, 1)[0], port=PORT)
    taken = other.open(also={"flows_evicted": 1} if evicted else {})
    steps = [Age(seconds + 2), taken, other.back("SA"), other.forward()]
    if talk.protocol is TCP:
        steps.append(passed(build(talk.asks), "passed_no_flow"))
    again = replace(talk, port=SECOND)
    steps += [again.open(also=COLLISION), again.back("SA"), other.back()]
    check(feed, talk.family, talk.open(), *talk.says(words), *steps)


# name, talks, what is said after the first packet, seconds: it expires and goes on nevertheless
EXPIRED = [row[:4] for row in IDLE if row[4]]


@pytest.mark.parametrize(("talk", "words", "seconds"), over(TALKS, EXPIRED))
def test_an_expired_flow_goes_on(feed: Feed, talk: Talk, words: str, seconds: int) -> None:
    (other,) = others(talk, 1)
    steps = [Age(seconds + 2), talk.forward(), Age(20), other.open(also=COLLISION), talk.back("SA")]
    check(feed, talk.family, talk.open(), *talk.says(words), *steps, talk.forward())


# name, talks, what is said, what is a use of the flow and what is not
USES = [
    ("there", "", Talk.forward, True),
    ("back", "", Talk.back, True),
    ("SYN", "TCP", lambda talk: talk.forward("S"), True),
    ("TTL 1", "", lambda talk: passed(build(talk.asks, ttl=1), "passed_ttl"), False),
    ("TTL 1 back", "", lambda talk: passed(build(talk.answers, ttl=1), "passed_ttl"), False),
]


@pytest.mark.parametrize(("talk", "use", "counts"), over(TALKS, USES))
def test_uses(feed: Feed, talk: Talk, use: Callable[[Talk], Case], counts: bool) -> None:
    """Twice less than it may be idle for: that is too long unless there was a use between."""
    part = 59 if talk.protocol is TCP else 29
    (other,) = others(talk, 1)
    if not counts:
        other = replace(other, port=PORT)
    taken = other.open(also=COLLISION if counts else {"flows_evicted": 1})
    check(feed, talk.family, talk.open(), Age(part), use(talk), Age(part), taken)


OTHER = {"next": "other"}
# name, talks, what is said, seconds, where the next hop then is
ANEW = [
    ("both FINs", "TCP", "<SA >FA <FA! >A", 0, {}),
    ("reset by the client", "TCP", "<SA >R!", 0, {}),
    ("reset by the server", "TCP", "<SA <R!", 0, {}),
    ("refused", "TCP", "<RA!", 0, {}),
    ("unanswered", "TCP", "", 62, {}),
    ("answered", "TCP", "<SA >A", 7442, {}),
    ("half closed", "TCP", "<SA <FA", 242, {}),
    ("closed long ago", "TCP", "<SA >R!", 300, {}),
    ("another next hop", "", "<SA >A", 0, OTHER),
    ("another port of it", "", "<SA >A", 0, {"next_port": NEXT_PORT + 1}),
    ("another way to it", "", "<SA >A", 0, {"out": "out"}),
    ("all of them", "", "<SA >A", 0, {**OTHER, "next_port": 9000, "out": "out"}),
    ("another next hop, unanswered", "", "", 0, OTHER),
    ("another next hop, closed", "TCP", "<SA >R!", 0, OTHER),
    ("another next hop, expired", "", "", 62, OTHER),
]
RESTING = [row for row in ANEW if row[3] < 65]


@pytest.mark.parametrize(("talk", "words", "seconds", "then"), over(TALKS, ANEW))
def test_opened_anew(feed: Feed, talk: Talk, words: str, seconds: int, then: What) -> None:
    """With its port, and without its past: unanswered, it expires again."""
    anew = replace(talk, **then)
    begin = [talk.open(), *talk.says(words), Age(seconds), anew.next_step]
    strange = [passed(build(talk.answers, "SA"), "passed_not_ours")] if then else []
    other = replace(others(talk, 1)[0], port=PORT, **then)
    evicted = other.open(also={"flows_evicted": 1})
    check(feed, talk.family, *begin, anew.reopen(), Age(62), evicted)
    check(feed, talk.family, *begin, anew.reopen(), *strange, anew.back("SA"), anew.forward())
    if talk.protocol is TCP:
        closes = anew.says("<SA >FA <FA!")
        check(feed, talk.family, *begin, anew.reopen(), *closes, anew.reopen())


@pytest.mark.parametrize(("talk", "words", "seconds", "then"), over(TALKS, ANEW))
def test_opened_anew_with_a_fresh_port(
    feed: Feed, talk: Talk, words: str, seconds: int, then: What
) -> None:
    """It gets its own again only when that has rested; nobody answers at the old one."""
    rested = seconds > 65
    anew = replace(talk, port=PORT if rested else SECOND, **then)
    steps: list[Case | Step] = [talk.open(), *talk.says(words), Age(seconds), anew.next_step]
    steps.append(anew.reopen(also={} if rested else COLLISION))
    if not rested or then:
        steps.append(passed(build(talk.answers), "passed_not_ours"))
    check(feed, talk.family, *steps, anew.back("SA"), anew.forward(), **FRESH)


@pytest.mark.parametrize(("talk", "words", "seconds", "then"), over(TALKS, RESTING))
def test_a_port_rests(feed: Feed, talk: Talk, words: str, seconds: int, then: What) -> None:
    """For 65 s from its last packet, and then it is no eviction to take it."""
    anew = replace(talk, port=SECOND, **then)
    begin = [talk.open(), *talk.says(words), Age(seconds), anew.next_step]
    begin += [anew.reopen(also=COLLISION), anew.back("SA")]
    other = replace(others(anew, 1)[0], port=THIRD)
    early = other.open(also={"port_collisions": 2})
    check(feed, talk.family, *begin, Age(64 - seconds), early, anew.back(), **FRESH)
    late = replace(other, port=PORT).open()
    check(feed, talk.family, *begin, Age(67 - seconds), late, anew.back(), **FRESH)


# name, talks, what is said, seconds: a packet that would open a flow does not do so
NOT_ANEW = [
    ("repeated", "", ">S", 0),
    ("answered", "", "<SA", 0),
    ("half closed by the client", "TCP", "<SA >FA", 0),
    ("half closed by the server", "TCP", "<SA <FA", 0),
    ("nearly expired", "TCP", "<SA", 7439),
    ("expired", "UDP", "", 40),
    ("expired, answered", "UDP", "<", 300),
]


@pytest.mark.parametrize("fresh", [0, 1])
@pytest.mark.parametrize(("talk", "words", "seconds"), over(TALKS, NOT_ANEW))
def test_not_opened_anew(feed: Feed, talk: Talk, words: str, seconds: int, fresh: int) -> None:
    steps = [talk.open(), *talk.says(words), Age(seconds), talk.forward("S"), talk.back()]
    check(feed, talk.family, *steps, FRESH=fresh)


@pytest.mark.parametrize("fresh", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_next_hop_is_for_new_connections(feed: Feed, family: int, fresh: int) -> None:
    talk = Talk(family)
    new = Talk(family, next="other", client_port=20001, port=20001)
    after = [
        new.next_step,
        talk.forward(),
        talk.back(),
        new.open(),
        new.back("SA"),
        talk.forward("FA"),
    ]
    check(feed, family, talk.open(), talk.back("SA"), *after, FRESH=fresh)


@pytest.mark.parametrize(("talk", "words", "seconds", "evicted"), over(TALKS, IDLE))
def test_collected(feed: Feed, talk: Talk, words: str, seconds: int, evicted: int) -> None:
    """As soon as it has expired, and then nothing is left of it."""
    steps: list[Case | Step] = [Age(seconds - 1), Collect(), Age(3), Collect(), Collect()]
    steps.append(passed(build(talk.answers), "passed_not_ours"))
    if talk.protocol is TCP:
        steps.append(passed(build(talk.asks), "passed_no_flow"))
    fed = check(feed, talk.family, talk.open(), *talk.says(words), *steps, talk.open())
    assert fed.collected == [0, 1, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_collected_among_others(feed: Feed, family: int) -> None:
    """Flows at home and away, of both protocols: what has not expired goes on."""
    tcp, udp = Talk(family), Talk(family, UDP)
    away, farther = others(tcp, 2)
    (udp_away,) = others(udp, 1)
    two = {"port_collisions": 2}
    begin = [tcp.open(), away.open(also=COLLISION), farther.open(also=two), away.back("SA")]
    begin += [udp.open(), udp_away.open(also=COLLISION), udp_away.back()]
    left = [away.forward(), away.back(), udp_away.forward(), udp_away.back()]
    gone = [passed(build(talk.answers), "passed_not_ours") for talk in (tcp, farther, udp)]
    again = replace(farther, port=PORT)
    steps = [Age(61), Collect(), *left, *gone, again.open(), *left, again.back("SA"), udp.open()]
    fed = check(feed, family, *begin, *steps, Age(62), Collect(), *left[:2], Age(120), Collect())
    assert fed.collected == [3, 1, 1]


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_collected_behind_a_client(feed: Feed, talk: Talk) -> None:
    """A fresh flow stays when the one that its client left behind is forgotten."""
    anew = replace(talk, port=SECOND, next="other")
    steps = [anew.next_step, anew.reopen(also=COLLISION), anew.back("SA"), Age(64), Collect()]
    left = [anew.forward(), anew.back()]
    (other,) = others(replace(talk, next="other"), 1)
    after = [Age(2), Collect(), *left, replace(other, port=PORT).open(), *left]
    fed = check(feed, talk.family, talk.open(), *steps, *left, *after, **FRESH)
    assert fed.collected == [0, 1]
