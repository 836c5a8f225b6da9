# SPDX-License-Identifier: Apache-2.0
"""Follow packets through a chain of XDP forwarders while they pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.chain import Chain
from bench.clocks import Reading, of_machines
from bench.errors import BenchError
from bench.fleet import Message
from bench.session import Session
from bench.trace import Joiner, Journey, event_of

_ROUND_S = 0.2
_LEAST_SHARE = 0xFFFF  # as a mask: one packet in 65,536


@dataclass(frozen=True)
class Wanted:
    """What to follow.

    client_port: only this source port of the client, 0 for any. per_second: most packets a second
    at each hop, 0 for all; when there are more, all hops report the same share of them.
    fetch_bytes: size of the payload to download once, 0 to wait for traffic that somebody else
    makes. count, duration_s: when to end, 0 for never.
    """

    hops: int
    attach: str
    client_port: int = 0
    per_second: int = 0
    fetch_bytes: int = 0
    count: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True)
class Followed:
    """How it ended. missed: reports of packets that hops left out or had no room for."""

    journeys: int
    missed: int


def follow(
    chain: Chain, wanted: Wanted, ready: Callable[[], None], emit: Callable[[Journey], None]
) -> Followed:
    """Set the chain up in mode xdp with tracing, and emit each packet's journey.

    ready: called when the chain forwards. Ends with the download, the count or the time asked for.
    Raises BenchError; whatever ends it, the hops are as they were.
    """
    with Session(chain, wanted.hops, ["xdp"], trace=True) as session:
        session.switch(("xdp", wanted.attach, wanted.hops))
        session.choose_trace(wanted.client_port, wanted.per_second, 0)
        machines = of_machines(session.read_clocks().values())
        ready()
        fetch = _Fetch(session, wanted)
        fetch.start()
        return _rounds(session, chain, wanted, machines, fetch, emit)


class _Fetch(threading.Thread):
    """The download, beside the rounds; it speaks with the client's agent, they with the hops'."""

    def __init__(self, session: Session, wanted: Wanted) -> None:
        super().__init__(daemon=True)
        self._session, self._wanted = session, wanted
        self.error: BenchError | None = None

    def run(self) -> None:
        if not self._wanted.fetch_bytes:
            return
        try:
            self._session.fetch(self._wanted.hops, (self._wanted.fetch_bytes,))
        except BenchError as error:
            self.error = error


class _Share:
    """Which share of the packets is reported, so that all hops report the same ones."""

    def __init__(self, session: Session, wanted: Wanted) -> None:
        self._session, self._wanted = session, wanted
        self._mask = 0
        self._before = 0  # reports missed since the mask was chosen
        self.missed = 0
        self.partial = False

    def adjust(self, answers: Sequence[Message]) -> None:
        """Halve the share when a hop had more to report than it may."""
        now = sum(answer["missed"] for answer in answers)
        self.missed += now - self._before
        self.partial = now > self._before
        self._before = now
        if self.partial and self._mask < _LEAST_SHARE:
            self._mask = 2 * self._mask + 1
            self._before = 0
            self._session.choose_trace(
                self._wanted.client_port, self._wanted.per_second, self._mask
            )


def _rounds(
    session: Session,
    chain: Chain,
    wanted: Wanted,
    machines: Mapping[str, Reading],
    fetch: _Fetch,
    emit: Callable[[Journey], None],
) -> Followed:
    joiner = Joiner([(hop.data_ip, hop.port) for hop in chain.hops[: wanted.hops]])
    share = _Share(session, wanted)
    began = time.monotonic()
    shown = quiet = 0

    def show(journeys: list[Journey]) -> None:
        nonlocal shown
        for journey in journeys:
            # Where hops leave some out, what only some of them report means nothing.
            if (not share.missed or journey.complete) and not (
                wanted.count and shown >= wanted.count
            ):
                emit(journey)
                shown += 1

    while True:
        answers = session.traced()
        events = [
            event_of(hop, said, answer, machines)
            for hop, answer in enumerate(answers)
            for said in answer["packets"]
        ]
        share.adjust(answers)
        show(joiner.round(events))
        more = any(answer["more"] for answer in answers)
        quiet = 0 if events else quiet + 1
        now = time.monotonic()
        over = (
            (wanted.count and shown >= wanted.count)
            or (wanted.duration_s and now - began > wanted.duration_s)
            or (wanted.fetch_bytes and not fetch.is_alive() and quiet > 1)
        )
        if over:
            break
        if not more:
            time.sleep(_ROUND_S)
    show(joiner.rest())
    fetch.join()
    if fetch.error is not None:
        raise fetch.error
    return Followed(shown, share.missed)
