# SPDX-License-Identifier: Apache-2.0
"""SSH to every host by the NIC that the load goes by: no connection is lost, and answers come."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from select import select

import pytest

from bench.inventory import load
from bench.lab.model import Lab
from bench.session import Session, forwarding_of
from tests.lab.conftest import wait_until
from tests.lab.data_ssh import Ssh
from tests.lab.test_run import cell

EVERY_S = 0.01
WORST_S = 2.0
LEAST_ECHOES = 100
# As many as keep siege busy for a second or so: socat forks for each, at each hop.
REQUESTS = {"direct": 10000, "socat": 400, "nft": 4000, "xdp": 8000}
Record = Callable[[str, object], None]
LOADS = [(mode, concurrency) for mode in REQUESTS for concurrency in (25, 100)]


@dataclass
class Connection:
    """A session that echoes lines, one at a time. took: when each was sent, how long it took."""

    host: str
    session: subprocess.Popen[bytes]
    sent: float | None = None
    due: float = 0.0
    took: list[tuple[float, float]] = field(default_factory=list)

    def send(self, now: float) -> None:
        """Send the next line."""
        assert self.session.stdin is not None
        self.sent, self.due = now, now + EVERY_S
        self.session.stdin.write(self._line)
        self.session.stdin.flush()

    def receive(self) -> None:
        """Take the answer to the line that was sent."""
        assert self.session.stdout is not None and self.sent is not None
        line = self.session.stdout.readline()
        assert line == self._line, f"{self.host}: {line!r} after {len(self.took)} echoes"
        self.took.append((self.sent, time.monotonic() - self.sent))
        self.sent = None

    @property
    def _line(self) -> bytes:
        return f"{self.host} {len(self.took)}\n".encode()


class Echoes:
    """Lines that go to every host and back, all the time, in a thread."""

    def __init__(self, connections: list[Connection]) -> None:
        self.connections = connections
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Echoes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        except BaseException as error:
            self._error = error

    def _turn(self) -> None:
        now = time.monotonic()
        for each in self.connections:
            if each.sent is None and each.due <= now:
                each.send(now)
            elif each.sent is not None:
                assert now - each.sent < 10, f"{each.host}: no answer for 10 s"
        waits = {each.session.stdout: each for each in self.connections if each.sent is not None}
        for stdout in select(list(waits), [], [], EVERY_S / 4)[0]:
            waits[stdout].receive()

    def require_all(self) -> None:
        """Raise what has ended the echoes, if anything has."""
        if self._error is not None:
            raise self._error

    def between(self, begin: float, end: float) -> list[float]:
        """Return how long each echo took that was sent meanwhile."""
        return [
            took
            for each in self.connections
            for sent, took in list(each.took)
            if begin <= sent <= end
        ]


@pytest.fixture(scope="module")
def echoes(lab: Lab) -> Iterator[Echoes]:
    """Echoes from hosts to the client, over the data network, of every host but the client."""
    with contextlib.ExitStack() as stack:
        connections = []
        for host in lab.hosts[1:]:
            ssh = stack.enter_context(Ssh(lab, host.name))
            session = stack.enter_context(ssh.run("exec cat"))
            stack.callback(session.terminate)
            connections.append(Connection(host.name, session))
        running = stack.enter_context(Echoes(connections))
        assert wait_until(lambda: all(each.took for each in connections))
        yield running


@pytest.fixture(scope="module")
def session(lab: Lab) -> Iterator[Session]:
    """The whole chain at work, in every mode."""
    with Session(load(lab.name), len(lab.hosts) - 2, list(REQUESTS)) as made:
        yield made


def told(name: str, took: list[float], record: Record) -> None:
    """Print what SSH's echoes took, and keep it for a report of the tests."""
    figures = {
        "n": len(took),
        "median_ms": round(statistics.median(took) * 1e3, 2),
        "p99_ms": round(statistics.quantiles(took, n=100)[-1] * 1e3, 2),
        "worst_ms": round(max(took) * 1e3, 2),
    }
    print(name, figures)
    for key, value in figures.items():
        record(f"ssh_{name.replace(' ', '_')}_{key}", value)


def test_with_no_load(echoes: Echoes, record_property: Record) -> None:
    """What the others are to be held against."""
    begin = time.monotonic()
    assert wait_until(lambda: len(echoes.between(begin, time.monotonic())) >= 10 * LEAST_ECHOES)
    echoes.require_all()
    told("idle", echoes.between(begin, time.monotonic()), record_property)


@pytest.mark.parametrize(("mode", "concurrency"), LOADS)
def test_ssh_stays_alive(
    session: Session, lab: Lab, echoes: Echoes, mode: str, concurrency: int, record_property: Record
) -> None:
    hops = len(lab.hosts) - 2
    wanted = cell(mode, hops, concurrency=concurrency, requests=REQUESTS[mode])
    session.switch(forwarding_of(wanted))
    offset = time.monotonic() - time.time()
    raw = session.sample(wanted)
    # siege and the echoes have one clock: they run on one machine.
    begin = raw.started_at + offset
    echoes.require_all()
    assert (raw.status, raw.timed_out) == (0, False), raw.stderr
    took = echoes.between(begin, begin + raw.wall_s)
    told(f"{mode} c={concurrency}", took, record_property)
    assert len(took) >= LEAST_ECHOES
    assert max(took) < WORST_S
    for each in echoes.connections:
        assert each.session.poll() is None, each.host
    # All of them still answer.
    after = {each.host: len(each.took) for each in echoes.connections}
    assert wait_until(
        lambda: all(len(each.took) > after[each.host] for each in echoes.connections), 10
    )
