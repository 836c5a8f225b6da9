# SPDX-License-Identifier: Apache-2.0
"""Where frames go: next hops and clients, routes, neighbours, one NIC or two, tags."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import TCP

from tests.datapath.conftest import EGRESS_MAC, MACS, REDIRECT, Age, Feed, Ip, Step
from tests.datapath.frames import (
    FAMILIES,
    FEW,
    FEW_PORT,
    NEW_MAC,
    SILENT_MAC,
    TAG,
    TAGS,
    TALKS,
    Case,
    Talk,
    What,
    build,
    carried,
    check,
    dropped,
    neighbour,
    over,
    passed,
    restored,
)

IN_FEW: What = {"client_port": FEW_PORT, "port": FEW_PORT}
BEHIND: What = {"next": "behind", "next_link": "egress"}
TAGGED: What = {"vlan": 5, "egress_vlan": 6}
FROM_BEHIND: What = {"client": "behind", "client_link": "egress"}

# name, talks, where client and next hop are, constants
PLACES = [
    ("one NIC", "", {}, {}),
    ("one NIC, its other address", "", {"out": "out"}, {}),
    ("client behind a router", "", {"client": "far"}, {}),
    ("next hop behind a router", "", {"next": "far", "client": "neighbour"}, {}),
    ("both the same host", "", {"next": "client"}, {}),
    ("one tag", "", {"vlan": 5}, TAG),
    ("next hop behind", "", {**BEHIND, **IN_FEW}, FEW),
    ("next hop on the data network", "", IN_FEW, FEW),
    ("client behind", "", {**FROM_BEHIND, **IN_FEW}, FEW),
    ("both behind", "", {**BEHIND, **FROM_BEHIND, **IN_FEW}, FEW),
    ("data network, address of the other", "", {"out": "out", **IN_FEW}, FEW),
    ("next hop behind, address of the data network", "", {**BEHIND, "out": "hop", **IN_FEW}, FEW),
    ("two tags, next hop behind", "", {**BEHIND, **TAGGED}, TAGS),
    ("two tags, next hop on the data network", "", TAGGED, TAGS),
    ("two tags, client behind", "", {**FROM_BEHIND, **TAGGED}, TAGS),
    ("two tags, both behind", "", {**BEHIND, **FROM_BEHIND, **TAGGED}, TAGS),
]


@pytest.mark.parametrize(("talk", "where", "constants"), over(TALKS, PLACES))
def test_places(feed: Feed, talk: Talk, where: What, constants: What) -> None:
    """The verdict says by which NIC: `carried` expects TX where it is the one it came by."""
    talk = replace(talk, **where)
    words = "<SA >A >PA <FA >FA!" if talk.protocol is TCP else "< > < <"
    check(feed, talk.family, talk.next_step, talk.open(), *talk.says(words), **constants)


@pytest.mark.parametrize("family", FAMILIES)
def test_redirected_between_nics(feed: Feed, family: int) -> None:
    talk = Talk(family, **BEHIND)
    assert talk.open().verdict == talk.back().verdict == REDIRECT


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_is_answered_by_the_way_to_it(feed: Feed, family: int) -> None:
    """Not by the NIC that its packets come in by."""
    talk = Talk(family, **FROM_BEHIND, vlan=5, egress_vlan=6)
    odd = replace(talk, client_link="data")
    check(feed, family, odd.open(), talk.back("SA"), odd.forward(), talk.back(), **TAGS)


@pytest.mark.parametrize("constants", [{}, FEW], ids=["one NIC", "two NICs"])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_frame_for_another_host_is_of_no_flow(feed: Feed, talk: Talk, constants: What) -> None:
    """A NIC that somebody listens to takes it; the stack drops it."""
    talk = replace(talk, **IN_FEW)
    for_others = [
        passed(build(path._replace(target_mac=NEW_MAC), flags), "passed_other_host")
        for path in (talk.asks, talk.answers)
        for flags in ("S", "PA", "R")
    ]
    own = [talk.back("SA"), talk.forward(), talk.back()]
    check(feed, talk.family, *for_others, talk.open(), *for_others, *own, **constants)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_frame_for_the_other_nic_is_for_this_host(feed: Feed, talk: Talk) -> None:
    talk = replace(talk, **IN_FEW)
    asks, answers = (path._replace(target_mac=EGRESS_MAC) for path in (talk.asks, talk.answers))
    there = carried(asks, talk.goes, "forwarded", "PA")
    back = carried(answers, talk.comes, "returned", "PA")
    check(feed, talk.family, talk.open(), back, there, talk.back(), **FEW)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_priority_bits_are_kept(feed: Feed, family: int) -> None:
    near = Talk(family, **TAGGED)
    far = Talk(family, **BEHIND, **TAGGED, client_port=20001, port=20001)
    steps: list[Case | Step] = []
    for talk in (near, far):
        steps += [talk.next_step, talk.open(priority=10)]
        for priority in range(16):
            steps += [talk.back(priority=priority), talk.forward(priority=priority)]
    check(feed, family, *steps, **TAGS)


@pytest.mark.parametrize("family", FAMILIES)
def test_either_tag_is_taken_by_either_nic(feed: Feed, family: int) -> None:
    talk = Talk(family, **BEHIND, **TAGGED)
    other = replace(talk, vlan=6)
    arrives = other.asks
    steps = [
        carried(arrives, talk.goes, "forwarded", "PA"),
        passed(build(arrives._replace(vlan=7)), "passed_vlan"),
    ]
    check(feed, family, talk.next_step, talk.open(), *steps, talk.back(), **TAGS)


# name, families, address, how it is written
NO_WAY = [
    ("without a route", "", "nowhere"),
    ("the hop itself", "", "hop"),
    ("its other address", "", "out"),
    ("on a NIC that is not ours", "", "behind"),
    ("loopback", "IPv4", "127.0.0.1"),
    ("loopback", "IPv6", "::1"),
    ("unspecified", "IPv4", "0.0.0.0"),
    ("unspecified", "IPv6", "::"),
    ("group", "IPv4", "224.0.0.1"),
    ("group", "IPv6", "ff02::1"),
    ("group of all networks", "IPv6", "ff0e::101"),
    ("broadcast", "IPv4", "255.255.255.255"),
    ("broadcast of the network", "IPv4", "198.18.7.255"),
    ("anycast of the network", "IPv6", "2001:2:0:7::"),
    ("class E", "IPv4", "240.0.0.1"),
]


@pytest.mark.parametrize(("talk", "address"), over(TALKS, NO_WAY))
def test_no_way_to_the_next_hop(feed: Feed, talk: Talk, address: str) -> None:
    """No port is claimed for it: the next flow finds it."""
    lost = replace(talk, next=address, out="hop")
    cases = [dropped(build(lost.asks, "S"), "dropped_no_route")] * 2
    check(feed, talk.family, lost.next_step, *cases, talk.next_step, talk.open(), talk.back())


@pytest.mark.parametrize(("talk", "address"), over(TALKS, NO_WAY))
def test_no_way_to_the_client(feed: Feed, talk: Talk, address: str) -> None:
    lost = replace(talk, client=address)
    cases = [dropped(build(lost.asks, "S"), "dropped_no_route")] * 2
    check(feed, talk.family, *cases, talk.open(), talk.back())


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_no_way_any_more(feed: Feed, talk: Talk) -> None:
    """What cannot be opened anew stays as it was."""
    lost = replace(talk, next="nowhere", out="hop")
    cases = [dropped(build(lost.asks, "S"), "dropped_no_route"), talk.back("SA")]
    if talk.protocol is TCP:
        cases.append(talk.forward())
    check(feed, talk.family, talk.open(), lost.next_step, *cases)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_before_there_is_a_next_hop(feed: Feed, talk: Talk) -> None:
    none = replace(talk.next_step, port=0)
    cases = [dropped(build(talk.asks, "S"), "dropped_not_ready")] * 2
    late = passed(build(talk.asks, "S", ttl=1), "passed_ttl")
    steps = [none, *cases, late, talk.next_step, talk.open(), none, cases[0], talk.back()]
    if talk.protocol is TCP:
        steps.append(talk.forward())
    check(feed, talk.family, *steps)


def route(talk: Talk, action: str, *words: str) -> Ip:
    """Change the way to the client's or next hop's `far` address."""
    length = "32" if talk.family == 4 else "128"
    return Ip(("route", action, f"{talk.address('far')}/{length}", *words))


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_next_hop_is_not_resolved_yet(feed: Feed, talk: Talk) -> None:
    """Until it is, the stack sends every packet, even one that is longer than any MTU."""
    talk = replace(talk, next="silent", next_mac=NEW_MAC)
    stack = {"instead": "passed_unresolved"}
    check(
        feed,
        talk.family,
        talk.next_step,
        talk.open(**stack),
        talk.forward(**stack, ttl=2),
        talk.forward(data=bytes(1600), **stack),
        talk.back("SA"),
        talk.forward(**stack, padding=bytes(6)),
        neighbour("replace", talk, "silent", NEW_MAC),
        talk.forward(),
        neighbour("delete", talk, "silent"),
        talk.forward(),
        Age(2),
        talk.forward(**stack),
        talk.forward(),
        talk.back(),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_stack_sends_counts_for_the_state(feed: Feed, family: int) -> None:
    talk, stack = Talk(family, next="silent"), {"instead": "passed_unresolved"}
    reset = talk.forward("R", also={"flows_closed": 1}, **stack)
    steps = [talk.open(**stack), reset, talk.reopen(**stack)]
    check(feed, family, talk.next_step, *steps)


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_client_is_not_resolved_yet(feed: Feed, talk: Talk) -> None:
    """Whoever sent its first packet stands in for a second."""
    talk = replace(talk, client="silent", client_mac=NEW_MAC)
    found = replace(talk, client_mac=SILENT_MAC)
    check(
        feed,
        talk.family,
        talk.open(),
        talk.back("SA"),
        found.forward(),
        talk.back(),
        Age(2),
        talk.back(instead="passed_unresolved"),
        talk.back(),
        talk.forward(),
        neighbour("replace", talk, "silent", SILENT_MAC),
        talk.back(),
        Age(2),
        found.back(),
        neighbour("delete", talk, "silent"),
        Age(2),
        found.back(instead="passed_unresolved", data=b"odd"),
        found.back(),
    )


# name, talks, whose address moves
MOVES = [("next hop", "", "next"), ("client", "", "client")]


@pytest.mark.parametrize(("talk", "name"), over(TALKS, MOVES))
def test_a_neighbour_that_moves_is_followed(feed: Feed, talk: Talk, name: str) -> None:
    """Both ways are looked up, each with its own packets."""
    moved = replace(talk, **{f"{name}_mac": NEW_MAC})
    both = [moved.forward(), moved.back()]
    check(
        feed,
        talk.family,
        talk.open(),
        talk.back("SA"),
        neighbour("replace", talk, name, NEW_MAC),
        talk.forward(),
        talk.back(),
        Age(2),
        *both,
        restored(talk, name),
        *both,
        Age(2),
        talk.back(),
        talk.forward(),
    )


@pytest.mark.parametrize(("talk", "name"), over(TALKS, MOVES))
def test_a_neighbour_that_is_forgotten(feed: Feed, talk: Talk, name: str) -> None:
    """The stack is asked to resolve it once a second; the old address serves meanwhile."""
    carry = talk.forward if name == "next" else talk.back
    lost = [carry(instead="passed_unresolved"), carry(), carry()]
    check(
        feed,
        talk.family,
        talk.open(),
        talk.back("SA"),
        neighbour("delete", talk, name),
        carry(),
        Age(2),
        *lost,
        Age(2),
        *lost,
        restored(talk, name),
        Age(2),
        talk.forward(),
        talk.back(),
    )


@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_route_that_changes_is_followed(feed: Feed, talk: Talk) -> None:
    """One that goes away leaves its flows as they are."""
    talk = replace(talk, client="far")
    moved = replace(talk, client_mac=MACS[talk.address("neighbour")])
    check(
        feed,
        talk.family,
        talk.open(),
        talk.back("SA"),
        route(talk, "replace", "via", talk.address("neighbour")),
        talk.back(),
        Age(2),
        moved.back(),
        route(talk, "delete"),
        Age(2),
        moved.back(),
        moved.forward(),
        route(talk, "add", "via", talk.address("client")),
        Age(2),
        talk.back(),
    )


@pytest.mark.parametrize("constants", [FEW, TAGS], ids=["two NICs", "two tags"])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_a_next_hop_that_moves_to_the_other_nic(feed: Feed, talk: Talk, constants: What) -> None:
    tagged = TAGGED if constants is TAGS else {}
    talk = replace(talk, next="far", client="neighbour", out="hop", **IN_FEW, **tagged)
    moved = replace(talk, next_link="egress", next_mac=MACS[talk.address("behind")])
    check(
        feed,
        talk.family,
        talk.next_step,
        talk.open(),
        talk.back("SA"),
        route(talk, "replace", "via", talk.address("behind")),
        Age(2),
        moved.forward(),
        moved.back(),
        route(talk, "replace", "via", talk.address("client")),
        Age(2),
        talk.forward(),
        talk.back(),
        **constants,
    )


def test_two_nics_and_a_client_that_is_not_resolved(feed: Feed) -> None:
    """Constants of its own: by this program, nothing has been sent to the data network before."""
    talk = Talk(4, client="silent", **BEHIND)
    first = [talk.next_step, talk.open(), talk.back("SA"), talk.forward()]
    check(feed, 4, *first, TWO_NICS=1)
