# SPDX-License-Identifier: Apache-2.0
"""Which port a flow gets, and what happens when there are none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether

from tests.datapath.conftest import HOP_PORT, PORT_MAX, PORT_MIN, TX, Age, Feed
from tests.datapath.frames import (
    FAMILIES,
    FEW,
    FRESH,
    PORT,
    TAG,
    TALKS,
    Talk,
    build,
    check,
    choice,
    dropped,
    others,
    over,
    passed,
)

COUNT = PORT_MAX - PORT_MIN + 1
FEW_PORTS = [port for port in range(FEW["PORT_MIN"], FEW["PORT_MAX"] + 1) if port != HOP_PORT]


def collisions(number: int) -> dict[str, int]:
    """So many ports were tried and not free."""
    return {"port_collisions": number} if number else {}


def ports(feed: Feed, talks: list[Talk], **changes: int) -> list[int]:
    """Open a flow for each, check all of it but the choice of a port, and return the ports."""
    fed = feed(*(build(talk.asks, "S") for talk in talks), family=talks[0].family, **changes)
    found = []
    for talk, (verdict, out), counts in zip(talks, fed.results, fed.each, strict=True):
        found.append(Ether(out)[talk.protocol].sport)
        case = replace(talk, port=found[-1]).open(also=collisions(counts.get("port_collisions", 0)))
        assert (verdict, out, counts) == (TX, case.out, case.counts)
    assert len(set(found)) == len(talks)
    assert all(PORT_MIN <= port <= PORT_MAX and port != HOP_PORT for port in found)
    return found


def numbered(talk: Talk, *client_ports: int) -> list[Talk]:
    """A client's flows from several ports."""
    return [replace(talk, client_port=port, port=port) for port in client_ports]


@pytest.mark.parametrize("fresh", [0, 1])
@pytest.mark.parametrize("port", [PORT_MIN, PORT_MIN + 1, HOP_PORT + 1, PORT_MAX - 1, PORT_MAX])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_port_of_the_range_is_kept(feed: Feed, talk: Talk, port: int, fresh: int) -> None:
    (talk,) = numbered(talk, port)
    check(feed, talk.family, talk.open(), talk.back("SA"), talk.forward(), FRESH=fresh)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_others_are_the_same_after_a_reload(feed: Feed, talk: Talk) -> None:
    """And next to each other where the client's are, so that none of one client's collide."""
    talks = numbered(talk, *range(PORT_MAX + 1, PORT_MAX + 41))
    first = ports(feed, talks)
    assert [(port - first[0]) % COUNT for port in first] == list(range(len(talks)))
    assert ports(feed, list(reversed(talks))) == list(reversed(first))
    other = UDP if talk.protocol is TCP else TCP
    assert ports(feed, numbered(replace(talk, protocol=other), PORT_MAX + 1)) == first[:1]
    for client_port in (1, PORT_MIN - 1, 65535):
        (port,) = ports(feed, numbered(talk, client_port))
        assert (port - client_port) % COUNT == (first[0] - PORT_MAX - 1) % COUNT


@pytest.mark.parametrize("family", FAMILIES)
def test_clients_are_at_home_in_different_places(feed: Feed, family: int) -> None:
    talks = [replace(talk, client_port=40000) for talk in others(Talk(family), 30)]
    homes = {ports(feed, [talk])[0] for talk in talks}
    assert len(homes) > len(talks) // 2


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_two_ports_of_a_client_with_one_home(feed: Feed, talk: Talk) -> None:
    """The range is smaller than what lies outside it."""
    first, second = numbered(talk, PORT_MAX + 10, PORT_MAX + 10 + COUNT)
    (home,) = ports(feed, [first])
    assert ports(feed, [second]) == [home]
    first, second = replace(first, port=home), replace(second, port=choice(1, home))
    steps = [first.open(), second.open(also=collisions(1)), first.back("SA"), second.back("SA")]
    check(feed, talk.family, *steps, second.forward(), first.forward())


@pytest.mark.parametrize("client", ["in the range", "outside"])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_forwarded_port_is_no_source_port(feed: Feed, talk: Talk, client: str) -> None:
    """On it, an answer of the next hop would look like a client's packet."""
    port = HOP_PORT
    if client == "outside":
        (home,) = ports(feed, numbered(talk, PORT_MAX + 1))
        port = PORT_MAX + 1 + (HOP_PORT - home) % COUNT
    talk = replace(talk, client_port=port, port=choice(1, HOP_PORT))
    late = passed(build(replace(talk, port=1).answers), "passed_not_ours")
    check(feed, talk.family, talk.open(also=collisions(1)), talk.back("SA"), late, talk.forward())


@pytest.mark.parametrize("fresh", [0, 1])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_thirty_two_are_tried(feed: Feed, talk: Talk, fresh: int) -> None:
    """Each 7919 further on; the next client is refused, and the others do not notice."""
    talks = [talk, *others(talk, 32)]
    refused = talks.pop()
    opened = [each.open(also=collisions(number)) for number, each in enumerate(talks)]
    none = dropped(build(refused.asks, "S"), "dropped_no_port", port_collisions=32)
    live = [case for each in talks for case in (each.back("SA"), each.forward())]
    check(feed, talk.family, *opened, none, none, *live, FRESH=fresh)


@pytest.mark.parametrize("fresh", [0, 1])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_no_port_is_left(feed: Feed, talk: Talk, fresh: int) -> None:
    """Of this protocol; the other one has its own. Old flows live."""
    talks = numbered(talk, *FEW_PORTS)
    extra = [replace(talk, client_port=port) for port in (HOP_PORT, PORT, 65535)]
    none = [dropped(build(each.asks, "S"), "dropped_no_port", port_collisions=32) for each in extra]
    live = [case for each in talks for case in (each.back("SA"), each.forward())]
    other = replace(talks[0], protocol=UDP if talk.protocol is TCP else TCP)
    steps = [*none, *live, other.open(), *live, *none]
    check(feed, talk.family, *(each.open() for each in talks), *steps, **FEW, FRESH=fresh)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_port_is_left_but_the_own_one(feed: Feed, family: int) -> None:
    """A closed flow opens anew in its place; under the fresh policy only when that has rested."""
    talks = numbered(Talk(family), *FEW_PORTS)
    first = talks[0]
    begin = [*(each.open() for each in talks), *first.says("<SA >R!")]
    check(feed, family, *begin, first.reopen(), first.back("SA"), **FEW)
    none = dropped(build(first.asks, "S"), "dropped_no_port", port_collisions=32)
    steps = [none, first.forward(), first.back(), none, talks[1].back("SA"), talks[1].forward()]
    check(feed, family, *begin, *steps, Age(66), first.reopen(), first.back(), **FEW, **FRESH)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_fresh_ports_are_random(feed: Feed, talk: Talk) -> None:
    talks = numbered(talk, *range(40000, 40040))
    first, second = ports(feed, talks, **FRESH), ports(feed, talks, **FRESH)
    assert len(set(first) & set(second)) < 5
    for few in (first, second):
        assert max(few) - min(few) > COUNT // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_flow_away_from_home(feed: Feed, family: int) -> None:
    """What random ports do not show: from one place to the next, leaving them behind."""
    talk = Talk(family)
    (client,) = others(talk, 1)
    steps = [talk.open(), client.open(also=collisions(1))]
    for number in range(2, 6):
        old, client = client, replace(client, port=choice(number))
        steps += [*old.says("<SA >R!"), client.reopen(also=collisions(number))]
        steps += [passed(build(old.answers), "passed_not_ours"), client.forward()]
    check(feed, family, *steps, client.back("SA"), talk.back("SA"), **FRESH)


@pytest.mark.parametrize("fresh", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_and_udp_have_ports_of_their_own(feed: Feed, family: int, fresh: int) -> None:
    tcp, udp = Talk(family, TCP), Talk(family, UDP)
    (away,), (udp_away,) = others(tcp, 1), others(udp, 1)
    steps = [tcp.open(), udp.open(), udp.back(), tcp.back("SA"), away.open(also=collisions(1))]
    steps += [udp_away.open(also=collisions(1)), *tcp.says(">A >R!"), udp.forward(), udp.back()]
    steps += [away.back("SA"), udp_away.back(), away.forward(), udp_away.forward()]
    check(feed, family, *steps, FRESH=fresh)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_table_is_full(feed: Feed, talk: Talk) -> None:
    """It holds two flows away from home. One more is dropped, and the port it wanted is free."""
    talk = replace(talk, vlan=5)
    away, farther, refused = others(talk, 3)
    full = dropped(build(refused.asks, "S"), "dropped_table_full", port_collisions=3)
    home = replace(talk, client_port=refused.port, port=refused.port)
    begin = [talk.open(), away.open(also=collisions(1)), farther.open(also=collisions(2))]
    live = [case for each in (talk, away, farther) for case in (each.back(), each.forward())]
    check(feed, talk.family, *begin, full, full, *live, home.open(), *live, **TAG)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_table_has_room_again(feed: Feed, talk: Talk) -> None:
    """Where a flow away from home expires and its port is wanted, also by one away from home."""
    talk = replace(talk, vlan=5)
    away, farther, refused = others(talk, 3)
    full = dropped(build(refused.asks, "S"), "dropped_table_full", port_collisions=3)
    begin = [talk.open(), away.open(also=collisions(1)), farther.open(also=collisions(2)), full]
    evicted = {"flows_evicted": 1}
    first = replace(talk, client_port=away.port, port=away.port).open(also=evicted)
    second = replace(refused, port=farther.port)
    steps = [Age(20), talk.back(), Age(45), first, second.open(also=evicted | collisions(2))]
    after = [second.back("SA"), talk.forward(), second.forward()]
    check(feed, talk.family, *begin, *steps, *after, **TAG)


# name, talks, changes of a client's packet: none is mistaken for another's
APART = [
    ("another port", "", {"client_port": PORT + 1, "port": PORT + 1}),
    ("another address", "", {"client": "neighbour", "port": choice(1)}),
    ("the next hop itself", "", {"client": "next", "port": choice(1)}),
    ("the highest port", "", {"client_port": PORT_MAX, "port": PORT_MAX}),
]


@pytest.mark.parametrize(("talk", "changes"), over(TALKS, APART))
def test_clients_are_kept_apart(feed: Feed, talk: Talk, changes: dict[str, object]) -> None:
    other = replace(talk, **changes)
    opened = other.open(also=collisions(int(other.client_port == PORT)))
    both = [talk.back("SA"), other.back("SA"), talk.forward(data=b"1"), other.forward(data=b"2")]
    check(feed, talk.family, talk.open(), opened, *both, *both)
