# SPDX-License-Identifier: Apache-2.0
"""What several hops report of a packet, joined into one journey through the chain."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bench.clocks import Reading
from bench.hop.address import endpoint

# Hops are asked one round after the other: a packet may be seen by one hop in this round and by
# the next hop in the following one, and not later.
PATIENCE_ROUNDS = 2

_MOVED = ("tx", "redirect")
Ends = tuple[str, int, str, int]
"""(source, port, destination, port)"""


@dataclass(frozen=True)
class Event:
    """What one hop did to a packet.

    hop: its place in the chain. ns: its own monotonic clock, which hosts of one boot_id share.
    realtime_ns: the controller's time of day, give or take uncertainty_ns.
    """

    hop: int
    ns: int
    realtime_ns: int
    boot_id: str
    before: Ends
    after: Ends
    protocol: str
    flags: str
    seq: int
    ack: int
    length: int
    ip_id: int
    ttl: int
    verdict: str
    reason: str
    uncertainty_ns: int = 0

    def key(self, ends: Ends) -> tuple[Any, ...]:
        """Return what the packet is known by at a place where it has these ends."""
        return self.protocol, ends, self.flags, self.seq, self.ack, self.length, self.ip_id


@dataclass(frozen=True)
class Journey:
    """One packet through the chain. events: in the order in which it met the hops.

    back: from the server's side to the client's. ended: it was seen to leave the chain, or a hop
    ended it. began: it was seen to come in.
    """

    back: bool
    events: tuple[Event, ...]
    ended: bool
    began: bool = True

    @property
    def complete(self) -> bool:
        """Whether every hop it met reported it."""
        return self.began and self.ended


def event_of(
    hop: int,
    said: Mapping[str, Any],
    answer: Mapping[str, Any],
    machines: Mapping[str, Reading] | None = None,
) -> Event:
    """Return an event from an agent's answer (bench/hop/trace.py).

    machines: how far the clock of each boot_id is from the controller's.
    """
    clock = (machines or {}).get(answer["boot_id"], Reading(0.0, 0.0, 0.0))
    return Event(
        hop=hop,
        ns=said["ns"],
        realtime_ns=said["ns"] + answer["realtime_ns"] - round(clock.offset_s * 1e9),
        boot_id=answer["boot_id"],
        before=_ends(said["before"]),
        after=_ends(said["after"]),
        protocol=said["protocol"],
        flags=said["flags"],
        seq=said["seq"],
        ack=said["ack"],
        length=said["length"],
        ip_id=said["id"],
        ttl=said["ttl"],
        verdict=said["verdict"],
        reason=said["reason"],
        uncertainty_ns=math.ceil(clock.uncertainty_s * 1e9),
    )


def _ends(said: Sequence[Any]) -> Ends:
    source, source_port, dest, dest_port = said
    return str(source), int(source_port), str(dest), int(dest_port)


class Joiner:
    """Joins events by what a hop sends being what the next one gets."""

    def __init__(self, entries: Sequence[tuple[str, int]]) -> None:
        """entries: address and port that each hop listens on, in chain order."""
        self._entries = entries
        self._waiting: list[tuple[int, Event]] = []  # (round it came in, event)
        self._round = 0

    def round(self, events: Sequence[Event]) -> list[Journey]:
        """Take what all hops reported since the last round; return journeys that are at an end.

        Journeys come in the order in which their packets met the first hop that saw them.
        """
        self._round += 1
        self._waiting += [(self._round, event) for event in events]
        return self._join(last=False)

    def rest(self) -> list[Journey]:
        """Return what is left, complete or not."""
        return self._join(last=True)

    def _back(self, event: Event) -> bool:
        """Say whether a packet comes from the server's side."""
        if event.protocol == "ICMP":
            return event.reason == "errors_returned"
        return event.before[2:] != self._entries[event.hop]

    def _join(self, *, last: bool) -> list[Journey]:
        done: list[Journey] = []
        rest: list[tuple[int, Event]] = []
        for back in (False, True):
            each = [item for item in self._waiting if self._back(item[1]) == back]
            done += self._walk(each, back, rest, last=last)
        self._waiting = sorted(rest, key=lambda item: item[0])
        return sorted(done, key=lambda journey: journey.events[0].realtime_ns)

    def _walk(
        self,
        items: Sequence[tuple[int, Event]],
        back: bool,
        rest: list[tuple[int, Event]],
        *,
        last: bool,
    ) -> Iterator[Journey]:
        path = range(len(self._entries))
        if back:
            path = path[::-1]
        arrived: dict[tuple[Any, ...], deque[tuple[int, Event]]] = {}
        for item in sorted(items, key=lambda item: item[1].ns):
            key = (item[1].hop, *item[1].key(item[1].before))
            arrived.setdefault(key, deque()).append(item)
        for place, hop in enumerate(path):
            queues = [queue for key, queue in arrived.items() if key[0] == hop]
            for queue in queues:
                while queue:
                    found = [queue.popleft()]
                    for following in path[place + 1 :]:
                        event = found[-1][1]
                        onward = arrived.get((following, *event.key(event.after)))
                        if event.verdict not in _MOVED or not onward:
                            break
                        found.append(onward.popleft())
                    end = found[-1][1]
                    ended = end.verdict not in _MOVED or end.hop == path[-1]
                    young = self._round - found[0][0] < PATIENCE_ROUNDS
                    # One that begins in mid-chain may still find its beginning.
                    if not last and young and not (ended and place == 0):
                        rest += found
                        continue
                    yield Journey(back, tuple(event for _, event in found), ended, place == 0)


def one_line(journey: Journey, names: Sequence[str]) -> str:
    """Return a journey as text. names: the hops', in chain order."""
    first, final = journey.events[0], journey.events[-1]
    when = datetime.fromtimestamp(first.realtime_ns / 1e9, UTC).strftime("%H:%M:%S.%f")
    words = [when, "<" if journey.back else ">", f"{first.protocol:<4}", f"{first.flags:<4}"]
    words += [f"{first.length:>5} B ", endpoint(*first.before[:2])]
    if not journey.began:
        words.insert(-1, "? >")
    for event in journey.events:
        words += [f"> {names[event.hop]} {event.verdict}"]
        if event.verdict not in _MOVED:
            words.append(f"({event.reason})")
        elif event is not final or journey.ended:
            # The address it has from here on: the source, or at the end where it goes.
            words.append(f"> {endpoint(*event.after[2:] if event is final else event.after[:2])}")
    if not journey.ended:
        words.append("> ?")
    if len(journey.events) > 1 and len({event.boot_id for event in journey.events}) == 1:
        words.append(f" +{(final.ns - first.ns) / 1e3:.1f} us")
    return " ".join(words)


def _time_ns(event: Event, first: Event) -> int:
    """Return when a hop saw a packet: hops of one machine go by its one monotonic clock."""
    if event.boot_id == first.boot_id:
        return first.realtime_ns + event.ns - first.ns
    return event.realtime_ns


def _uncertainty_ns(event: Event, first: Event) -> int:
    """Return how far the time between two hops may be off: not at all on one clock."""
    same = event.boot_id == first.boot_id
    return 0 if same else event.uncertainty_ns + first.uncertainty_ns


def as_json(journey: Journey, names: Sequence[str]) -> dict[str, Any]:
    """Return a journey as `bench trace --json` prints it."""
    first = journey.events[0]
    return {
        "time_ns": first.realtime_ns,
        "direction": "to_client" if journey.back else "to_server",
        "protocol": first.protocol,
        "flags": first.flags,
        "seq": first.seq,
        "ack": first.ack,
        "length": first.length,
        "complete": journey.complete,
        "hops": [
            {
                "hop": names[event.hop],
                "time_ns": _time_ns(event, first),
                "uncertainty_ns": _uncertainty_ns(event, first),
                "before": list(event.before),
                "after": list(event.after),
                "ttl": event.ttl,
                "verdict": event.verdict,
                "reason": event.reason,
            }
            for event in journey.events
        ],
    }
