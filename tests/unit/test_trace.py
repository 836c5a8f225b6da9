# SPDX-License-Identifier: Apache-2.0
"""Events of several hops, joined into journeys, and how a journey is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.clocks import Reading
from bench.trace import Event, Joiner, Journey, as_json, event_of, one_line

# Client 1:5000 → hop 2:7000 → hop 3:7000 → hop 4:7000 → server 5:8000; hop k sends from port 500k.
HOPS = ["alpha", "beta", "gamma"]
ENTRIES = [(f"10.0.0.{number}", 7000) for number in (2, 3, 4)]
CLIENT, SERVER = ("10.0.0.1", 5000), ("10.0.0.5", 8000)
OUT = [("10.0.0.2", 5001), ("10.0.0.3", 5002), ("10.0.0.4", 5003)]
REALTIME_NS = 1_700_000_000_000_000_000


def events(
    *, back: bool = False, ns: int = 1000, hops: Sequence[int] = (0, 1, 2), **changes: Any
) -> list[Event]:
    """Return what hops report of one packet, in the order in which it meets them."""
    sources, targets = [CLIENT, *OUT[:-1]], [*ENTRIES[1:], SERVER]
    found = []
    for place, hop in enumerate(reversed(hops) if back else hops):
        before, after = (*sources[hop], *ENTRIES[hop]), (*OUT[hop], *targets[hop])
        if back:
            before, after = (after[2:] + after[:2]), (before[2:] + before[:2])
        event = Event(
            hop=hop,
            ns=ns + 100 * place,
            realtime_ns=REALTIME_NS + ns + 100 * place,
            boot_id="one",
            before=before,
            after=after,
            protocol="TCP",
            flags="S",
            seq=7,
            ack=0,
            length=60,
            ip_id=1,
            ttl=64 - place,
            verdict="tx",
            reason="returned_packets" if back else "forwarded_packets",
        )
        found.append(replace(event, **changes))
    return found


def hops_of(journey: Journey) -> list[int]:
    """Return the hops of a journey, in its order."""
    return [event.hop for event in journey.events]


def chained(journey: Journey) -> bool:
    """Say whether what each hop sends is what the next one gets."""
    return all(one.after == other.before for one, other in pairwise(journey.events))


# --- joining ---------------------------------------------------------------------------------


@pytest.mark.parametrize("back", [False, True])
def test_one_packet_through_all_hops(back: bool) -> None:
    # Hops answer in chain order, whatever way the packet goes.
    reported = sorted(events(back=back), key=lambda event: event.hop)
    (journey,) = Joiner(ENTRIES).round(reported)
    assert journey == Journey(back, tuple(events(back=back)), ended=True)
    assert chained(journey)


def test_journeys_come_in_the_order_of_their_first_hop() -> None:
    joiner = Joiner(ENTRIES)
    reported = [
        *events(ns=3000, flags="A", seq=8),
        *events(ns=1000),
        *events(ns=2000, back=True, flags="SA"),
    ]
    journeys = joiner.round(reported)
    assert [journey.events[0].flags for journey in journeys] == ["S", "SA", "A"]
    assert [journey.back for journey in journeys] == [False, True, False]
    assert joiner.rest() == []


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("seen", range(1, 3))
def test_a_packet_seen_in_two_rounds(back: bool, seen: int) -> None:
    joiner, whole = Joiner(ENTRIES), events(back=back)
    # The hop that is asked late reports what those asked before it cannot know yet, and
    # the other way round.
    for early, late in ((whole[:seen], whole[seen:]), (whole[seen:], whole[:seen])):
        assert joiner.round(early) == []
        (journey,) = joiner.round(late)
        assert (hops_of(journey), journey.complete) == ([event.hop for event in whole], True)
    assert joiner.rest() == []


def test_a_packet_is_waited_for_no_longer_than_two_rounds() -> None:
    joiner = Joiner(ENTRIES)
    assert joiner.round(events(hops=[0, 1])) == []
    assert joiner.round([]) == []
    (journey,) = joiner.round([])
    assert (hops_of(journey), journey.complete) == ([0, 1], False)
    assert joiner.round([]) == joiner.rest() == []


def test_a_hop_that_reports_nothing_splits_a_journey() -> None:
    joiner = Joiner(ENTRIES)
    assert joiner.round(events(hops=[0, 2])) == []
    first, second = joiner.rest()
    assert (hops_of(first), first.complete) == ([0], False)
    # It left the chain all the same.
    assert (hops_of(second), second.ended, second.complete) == ([2], True, False)


@pytest.mark.parametrize("back", [False, True])
def test_one_that_begins_in_mid_chain_waits_for_its_beginning(back: bool) -> None:
    joiner, whole = Joiner(ENTRIES), events(back=back)
    assert joiner.round(whole[1:]) == []
    assert joiner.round([]) == []
    (journey,) = joiner.round([])
    assert (hops_of(journey), journey.began) == ([event.hop for event in whole[1:]], False)
    assert not journey.complete
    assert " ? > " in one_line(journey, HOPS)


def test_packets_that_are_alike_each_have_their_journey() -> None:
    """A SYN, repeated; UDP without an IP id: first in is first out."""
    joiner = Joiner(ENTRIES)
    both = [*events(ns=1000), *events(ns=5000)]
    journeys = joiner.round(sorted(both, key=lambda event: event.hop))
    assert [[event.ns for event in journey.events] for journey in journeys] == [
        [1000, 1100, 1200],
        [5000, 5100, 5200],
    ]


def test_the_second_of_two_alike_is_lost_after_the_first_hop() -> None:
    joiner = Joiner(ENTRIES)
    (journey,) = joiner.round([*events(ns=1000), *events(ns=5000, hops=[0])])
    assert journey.complete
    (lost,) = joiner.rest()
    assert (hops_of(lost), lost.complete, lost.events[0].ns) == ([0], False, 5000)


@pytest.mark.parametrize("other", [{"seq": 8}, {"flags": "A"}, {"ip_id": 2}, {"length": 61}])
def test_packets_that_differ_are_not_joined(other: dict[str, Any]) -> None:
    joiner = Joiner(ENTRIES)
    joiner.round([*events(hops=[0]), *events(hops=[1, 2], **other)])
    assert sorted(map(hops_of, joiner.rest())) == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("verdict", "reason"), [("drop", "dropped_no_port"), ("pass", "passed_no_flow")]
)
@pytest.mark.parametrize("last", range(3))
def test_a_hop_that_keeps_a_packet_ends_its_journey(verdict: str, reason: str, last: int) -> None:
    reported = events(hops=range(last + 1))
    reported[-1] = replace(reported[-1], verdict=verdict, reason=reason)
    (journey,) = Joiner(ENTRIES).round(reported)
    assert (hops_of(journey), journey.complete) == (list(range(last + 1)), True)


def test_nothing_follows_what_a_hop_kept() -> None:
    """Passed to the stack, which sends it on: the next hop gets it as a packet of its own."""
    reported = events()
    reported[0] = replace(reported[0], verdict="pass", reason="passed_unresolved")
    joiner = Joiner(ENTRIES)
    (first,) = joiner.round(reported)
    assert hops_of(first) == [0]
    (second,) = joiner.rest()
    assert (hops_of(second), second.ended, second.began) == ([1, 2], True, False)


@pytest.mark.parametrize("back", [False, True])
def test_errors_go_by_what_the_hop_did(back: bool) -> None:
    """ICMP has no ports to tell its direction by."""
    sources, targets = ["10.0.0.1", *(ip for ip, _ in OUT[:-1])], ["10.0.0.3", "10.0.0.4", "-"]
    reported = [
        replace(
            event,
            protocol="ICMP",
            reason="errors_returned" if back else "errors_forwarded",
            before=(targets[event.hop], 0, ENTRIES[event.hop][0], 0)
            if back
            else (sources[event.hop], 0, ENTRIES[event.hop][0], 0),
            after=(ENTRIES[event.hop][0], 0, sources[event.hop], 0)
            if back
            else (ENTRIES[event.hop][0], 0, targets[event.hop], 0),
        )
        for event in events()
    ]
    if back:
        reported = [replace(event, ns=2000 - event.ns) for event in reported]
    (journey,) = Joiner(ENTRIES).round(reported)
    assert journey.back == back
    assert (hops_of(journey), journey.complete) == ([2, 1, 0] if back else [0, 1, 2], True)


def test_a_chain_of_one_hop() -> None:
    joiner = Joiner(ENTRIES[:1])
    both = [*events(hops=[0]), *events(hops=[0], back=True)]
    assert [journey.complete for journey in joiner.round(both)] == [True, True]


def test_hops_with_clocks_of_their_own() -> None:
    """Their monotonic clocks mean nothing to each other."""
    reported = [
        replace(event, ns=event.ns - 1_000_000_000 * event.hop, boot_id=str(event.hop))
        for packet in range(3)
        for event in events(ns=10_000 * packet, seq=packet)
    ]
    journeys = Joiner(ENTRIES).round(reported)
    assert [hops_of(journey) for journey in journeys] == [[0, 1, 2]] * 3
    assert [journey.events[0].seq for journey in journeys] == [0, 1, 2]


@st.composite
def _rounds(draw: st.DrawFn) -> tuple[int, list[list[Event]]]:
    """Packets, some alike, each hop's report of them in the round of the packet or the next."""
    count = draw(st.integers(1, 8))
    rounds: list[list[Event]] = [[] for _ in range(count + 1)]
    for packet in range(count):
        back, seq = draw(st.booleans()), draw(st.integers(0, 2))
        turn = packet
        for event in events(back=back, seq=seq, ns=10_000 * packet):
            turn = max(turn, draw(st.integers(packet, packet + 1)))
            rounds[turn].append(event)
    return count, rounds


@given(_rounds())
def test_every_packet_appears_once_and_whole(given_: tuple[int, list[list[Event]]]) -> None:
    count, rounds = given_
    joiner = Joiner(ENTRIES)

    def journeys() -> Iterator[Journey]:
        for reported in rounds:
            yield from joiner.round(reported)
        yield from joiner.rest()

    found = list(journeys())
    assert len(found) == count
    assert all(journey.complete and chained(journey) for journey in found)
    assert all(len(journey.events) == 3 for journey in found)


# --- printing --------------------------------------------------------------------------------


def test_one_line_there() -> None:
    line = one_line(Journey(False, tuple(events()), ended=True), HOPS)
    assert line == (
        "22:13:20.000001 > TCP  S       60 B  10.0.0.1:5000 > alpha tx > 10.0.0.2:5001 "
        "> beta tx > 10.0.0.3:5002 > gamma tx > 10.0.0.5:8000  +0.2 us"
    )


def test_one_line_back() -> None:
    line = one_line(Journey(True, tuple(events(back=True)), ended=True), HOPS)
    assert line == (
        "22:13:20.000001 < TCP  S       60 B  10.0.0.5:8000 > gamma tx > 10.0.0.4:7000 "
        "> beta tx > 10.0.0.3:7000 > alpha tx > 10.0.0.1:5000  +0.2 us"
    )


def test_one_line_of_what_was_kept() -> None:
    first, second = events(hops=[0, 1])
    second = replace(second, verdict="drop", reason="dropped_no_port")
    line = one_line(Journey(False, (first, second), ended=True), HOPS)
    assert line.endswith("> alpha tx > 10.0.0.2:5001 > beta drop (dropped_no_port)  +0.1 us")
    alone = one_line(Journey(False, (replace(second, verdict="pass"),), ended=True), HOPS)
    assert alone.endswith("10.0.0.2:5001 > beta pass (dropped_no_port)")


def test_one_line_of_what_was_lost() -> None:
    line = one_line(Journey(False, tuple(events(hops=[0])), ended=False), HOPS)
    assert line.endswith("10.0.0.1:5000 > alpha tx > ?")


def test_no_time_across_clocks() -> None:
    first, second = events(hops=[0, 1])
    journey = Journey(False, (first, replace(second, boot_id="two")), ended=True)
    assert " us" not in one_line(journey, HOPS)


def test_ipv6_ends_have_brackets() -> None:
    (event,) = events(hops=[0])
    ends = ("2001:2::1", 5000, "2001:2::2", 7000), ("2001:2::2", 5001, "2001:2::9", 8000)
    event = replace(event, before=ends[0], after=ends[1])
    line = one_line(Journey(False, (event,), ended=True), HOPS)
    assert line.endswith("[2001:2::1]:5000 > alpha tx > [2001:2::9]:8000")


def test_as_json_says_it_all() -> None:
    journey = Journey(True, tuple(events(back=True, flags="SA", ack=8)), ended=True)
    said = json.loads(json.dumps(as_json(journey, HOPS)))
    hops = said.pop("hops")
    assert said == {
        "time_ns": REALTIME_NS + 1000,
        "direction": "to_client",
        "protocol": "TCP",
        "flags": "SA",
        "seq": 7,
        "ack": 8,
        "length": 60,
        "complete": True,
    }
    assert [hop["hop"] for hop in hops] == HOPS[::-1]
    assert hops[0] == {
        "hop": "gamma",
        "time_ns": REALTIME_NS + 1000,
        "uncertainty_ns": 0,
        "before": ["10.0.0.5", 8000, "10.0.0.4", 5003],
        "after": ["10.0.0.4", 7000, "10.0.0.3", 5002],
        "ttl": 64,
        "verdict": "tx",
        "reason": "returned_packets",
    }


def test_an_agents_words_become_an_event() -> None:
    (event,) = events(hops=[1])
    said = {
        "ns": 1000,
        "before": list(event.before),
        "after": list(event.after),
        "protocol": "TCP",
        "flags": "S",
        "seq": 7,
        "ack": 0,
        "length": 60,
        "id": 1,
        "ttl": 64,
        "verdict": "tx",
        "reason": "forwarded_packets",
    }
    answer = {"realtime_ns": REALTIME_NS, "boot_id": "one", "packets": [said]}
    assert event_of(1, said, answer) == event
    # The host's clock is 2 s ahead of the controller's, as far as that is known.
    ahead = {"one": Reading(0.0, 2.0, 0.0005), "two": Reading(0.0, 5.0, 0.0)}
    assert event_of(1, said, answer, ahead) == replace(
        event, realtime_ns=event.realtime_ns - 2 * 10**9, uncertainty_ns=500_000
    )


def test_times_of_other_machines_are_as_uncertain_as_both_clocks() -> None:
    first, second, third = events()
    path = (
        replace(first, uncertainty_ns=400_000),
        replace(second, boot_id="two", uncertainty_ns=300_000),
        replace(third, uncertainty_ns=400_000),
    )
    hops = as_json(Journey(False, path, ended=True), HOPS)["hops"]
    assert [hop["uncertainty_ns"] for hop in hops] == [0, 700_000, 0]
