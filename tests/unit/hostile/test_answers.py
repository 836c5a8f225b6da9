# SPDX-License-Identifier: Apache-2.0
"""What the controller takes from anybody's agent: an answer to the question, or one line."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import Mutator, fuzz, values
from hypothesis import strategies as st
from recorded import packed, records, siege_says
from synthetic import tree

from bench import (
    clocks,
    connections,
    doctor,
    doctor_firewall,
    doctor_machine,
    doctor_wiring,
    fact_kinds,
    tables,
)
from bench.agent import Agent
from bench.answers import MAX_LINE_BYTES, MAX_WORDS
from bench.cells import PAYLOAD_SIZES, Cell
from bench.chain import Chain, Host
from bench.errors import BenchError, HostsError
from bench.fact_changes import changes
from bench.judging import judge
from bench.readiness import Planned, findings
from bench.results import RunMeta
from bench.runfiles import read_run
from bench.runwriter import RunWriter
from bench.session import Session
from bench.sweep import Sweep
from bench.trace import Joiner, as_json, event_of, one_line

CELL = Cell("xdp", "native", 1, 624, 1, 10)
CHAIN = Chain(
    Path("x.ini"),
    Host("client", "client", "198.18.0.1", "eth0", 0),
    (Host("hop1", "hop", "198.18.0.2", "eth0", 7000),),
    Host("server", "server", "198.18.0.3", "eth0", 8000),
)
SNAPSHOT = {"counts": {"TcpOutSegs": 5, "cpu_steal_s": 0.5}, "gauges": {"TcpCurrEstab": 1}}
SEEN = {
    "ns": 5,
    "before": ["198.18.0.1", 5, "198.18.0.2", 7000],
    "after": ["198.18.0.2", 5, "198.18.0.3", 8000],
    "protocol": "TCP",
    "flags": "S",
    "seq": 1,
    "ack": 0,
    "length": 60,
    "id": 1,
    "ttl": 63,
    "verdict": "tx",
    "reason": "forwarded",
}
PAYLOADS = [
    {"size_bytes": size, "status": 200, "received_bytes": size, "sha256": "0" * 64}
    for size in PAYLOAD_SIZES
]
ANSWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ready": ("forward", {"op": "renew"}, {"event": "ready"}),
    "mode": ("forward", {"mode": "xdp"}, {"event": "ready", "attach": "native", "prog_id": 7}),
    "offloads": (
        "serve",
        {"op": "offloads", "use": "equal"},
        {"event": "ready", "offloads": {"eth0": {"mtu": 1500}}},
    ),
    "counters": (
        "forward",
        {"op": "counters"},
        {
            "event": "counters",
            "mode": "xdp",
            "host": SNAPSHOT,
            "counters": {"flows_opened": 10, "forwarded_packets": 50, "returned_packets": 40},
        },
    ),
    "counters of a loopback": (
        "loopback",
        {"op": "counters"},
        {"event": "counters", "counters": {"7999": {"forwarded_packets": 5}}},
    ),
    "sample": (
        "load",
        {"op": "siege", "timer": True},
        {
            "event": "sample",
            "stdout": siege_says(CELL, 0.5),
            "stderr": "",
            "status": 0,
            "timed_out": False,
            "started_at": 1795403700.0,
            "wall_s": 0.5,
            "before": SNAPSHOT,
            "after": SNAPSHOT,
            "timed": 10,
            "lost": 0,
        },
    ),
    "connections": (
        "load",
        {"op": "connections"},
        {"event": "connections", "data": packed(records(10)), "more": False},
    ),
    "payloads": (
        "load",
        {"op": "fetch", "sizes": list(PAYLOAD_SIZES)},
        {"event": "payloads", "payloads": PAYLOADS},
    ),
    "clock": ("serve", {"op": "clock"}, {"event": "clock", "realtime_ns": 1795403700 * 10**9}),
    "keeper": (
        "serve",
        {"op": "clock", "keeper": True},
        {
            "event": "clock",
            "realtime_ns": 1795403700 * 10**9,
            "boot_id": "x",
            "kernel": {"synchronised": True, "max_error_s": 0.5},
            "chrony": "A,ntp,2,1795403700.0,0.0,0.0,0.0,0.0,0.0,0.0,0.1,0.1,64.0,Normal",
        },
    ),
    "home": (
        "forward",
        {"op": "trace", "home_of": ["198.18.0.1", 5]},
        {"event": "trace", "port": 7},
    ),
    "trace": (
        "forward",
        {"op": "trace"},
        {
            "event": "trace",
            "packets": [SEEN],
            "more": False,
            "missed": 0,
            "boot_id": "x",
            "realtime_ns": 1795403700 * 10**9,
        },
    ),
}


class Channel(socket.socket):
    """One end of a pair of sockets, with what an SSH channel has beyond that."""

    closed = False
    eof_received = False

    def recv_stderr(self, _: int) -> bytes:
        """Return nothing: there is no second stream."""
        return b""

    def shutdown_write(self) -> None:
        """End the input of the other side."""
        self.shutdown(socket.SHUT_WR)


class Line:
    """A connection to a host that is there."""

    alive = True

    def __init__(self, host: Host) -> None:
        self.host = host

    def waiting(self, _: float = 0.0) -> contextlib.AbstractContextManager[None]:
        """Nobody has to be asked whether the host is there."""
        return contextlib.nullcontext()

    def lost(self) -> None:
        """Nothing is known of how a connection was lost."""


@contextlib.contextmanager
def speaking(role: str, host: Host = CHAIN.client) -> Iterator[tuple[Agent, socket.socket]]:
    """Yield an agent, and the socket that speaks for it."""
    mine, its = socket.socketpair()
    channel = Channel(fileno=mine.detach())
    with channel, its:
        yield Agent(Line(host), channel, b"", role), its  # type: ignore[arg-type]


def answered(kind: str, line: bytes) -> dict[str, Any] | None:
    """Ask a question that is answered by a line; return the answer, None where it is refused."""
    role, question, _ = ANSWERS[kind]
    with speaking(role) as (agent, its):
        agent.send(question)
        # Beside, because a long one has to be taken for the rest to be sent.
        thread = threading.Thread(target=its.sendall, args=(line + b"\n",))
        thread.start()
        try:
            return agent.receive(5.0)
        except BenchError as error:
            for said in (error.one_line(), HostsError.of([error, error]).one_line()):
                assert said.isprintable()
                assert len(said) < 4 * MAX_WORDS
            assert error.host == "client"
            return None
        finally:
            thread.join()


def use(kind: str, answer: Mapping[str, Any], folder: Path) -> None:
    """Make of an answer what the controller makes of it; whatever is wrong is a BenchError."""
    if kind == "trace":
        joiner = Joiner([("198.18.0.2", 7000)])
        events = [event_of(0, said, answer) for said in answer["packets"]]
        for journey in [*joiner.round(events), *joiner.rest()]:
            assert one_line(journey, ["hop1"]).isprintable()
            json.dumps(as_json(journey, ["hop1"]), allow_nan=False)
    elif kind == "keeper":
        clocks.parse_tracking(answer["chrony"] or "")
    elif kind == "connections":
        with contextlib.suppress(ValueError):
            found = connections.gather(lambda: {**answer, "more": False})
            tables.add_connections(folder, "001-0001", connections.columns(found, 624))


@pytest.mark.parametrize("kind", ANSWERS)
def test_any_answer(kind: str, tmp_path: Path) -> None:
    good = ANSWERS[kind][2]
    assert answered(kind, json.dumps(good).encode()) == good

    def check(changes: list[tuple[int, str, Any]]) -> None:
        line = json.dumps(Mutator(good).apply(changes)).encode()
        answer = answered(kind, line)
        if answer is not None:
            json.dumps(answer, allow_nan=False)
            use(kind, answer, tmp_path)

    fuzz(check, Mutator.changes, examples=20)


def test_any_line() -> None:
    pieces = st.sampled_from(
        [
            b"{",
            b"}",
            b'"event"',
            b":",
            b'"error"',
            b'"cause"',
            b"[",
            b",",
            b"NaN",
            b"1e400",
            b"\xff",
        ]
    )

    def check(kind: str, parts: list[bytes]) -> None:
        answered(kind, b"".join(parts).replace(b"\n", b""))

    lines = st.lists(pieces | st.binary(max_size=20), max_size=12)
    fuzz(check, st.sampled_from(list(ANSWERS)), lines, examples=70)


def test_any_error() -> None:
    def check(kind: str, cause: Any, remedy: Any, reason: Any, holder: Any) -> None:
        said = {"event": kind, "cause": cause, "remedy": remedy, "reason": reason, "holder": holder}
        assert answered("ready", json.dumps(said).encode()) is None

    fuzz(check, st.sampled_from(["error", "stopped"]), values, values, values, values, examples=50)


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b'{"event": "ready", "x": 1e999}'],
    ids=["lists", "objects", "digits", "infinity"],
)
def test_lines_that_are_too_much(line: bytes) -> None:
    assert answered("ready", line) is None


@pytest.mark.parametrize("trickle", [False, True])
def test_a_line_without_an_end(trickle: bool) -> None:
    """Much at once is too long, and a little at a time comes too late."""
    with speaking("load") as (agent, its):
        over = threading.Event()

        def speak() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    its.sendall(b"x" if trickle else b"x" * 65536)
                    time.sleep(0.01 if trickle else 0)

        thread = threading.Thread(target=speak)
        thread.start()
        begin = time.monotonic()
        try:
            agent.send({"op": "renew"})
            with pytest.raises(BenchError) as caught:
                agent.receive(0.3 if trickle else 30.0)
        finally:
            over.set()
            agent._channel.close()
            thread.join()
    said = "no answer from the agent within 0 s" if trickle else "the agent's answer is too long"
    assert caught.value.cause == said
    assert time.monotonic() - begin < 10.0


def test_an_answer_that_comes_late_is_not_the_next_ones() -> None:
    with speaking("forward") as (agent, its):
        agent.send({"op": "renew"})
        with pytest.raises(BenchError, match="no answer"):
            agent.receive(0.01)
        good = ANSWERS["counters"][2]
        agent.send({"op": "counters"})
        its.sendall(b'{"event": "ready"}\n' + json.dumps(good).encode() + b"\n")
        assert agent.receive() == good


def test_records_that_inflate() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(1 << 28), 9)).decode()
    assert len(bomb) < MAX_LINE_BYTES

    def check(data: str) -> None:
        with pytest.raises(ValueError, match="more than 20000 records in one answer"):
            connections.unpack(data)

    fuzz(check, st.just(bomb), examples=1)


def test_records_without_end() -> None:
    answer = {"data": packed(b""), "more": True}
    with pytest.raises(ValueError, match="more than 200 answers"):
        connections.gather(lambda: answer)


def test_any_records(tmp_path: Path) -> None:
    """Of any octets they become a table, and nothing that warns of an overflow."""

    def check(data: bytes) -> None:
        found = connections.unpack(packed(data[: len(data) // 40 * 40]))
        with np.errstate(all="raise"):
            rate = connections.rate_per_s(found)
            columns = connections.columns(found, 624)
        assert rate is None or rate > 0
        assert all(each >= 0 for each in columns["start_s"])
        tables.add_connections(tmp_path, "001-0001", columns)

    fuzz(check, st.binary(max_size=200) | st.binary(min_size=40, max_size=40), examples=20)


class Told:
    """A host's agent that gives the same answers again and again, each of them checked."""

    def __init__(self, host: Host, role: str, said: Mapping[str, Mapping[str, Any]]) -> None:
        self.host, self._role, self._said = host, role, said
        self._questions: list[Mapping[str, Any]] = []

    def send(self, message: Mapping[str, Any]) -> None:
        """Keep the question."""
        self._questions.append(message)

    def receive(self, *_: float) -> dict[str, Any]:
        """Return the answer by way of a real agent."""
        question = self._questions.pop(0)
        said = self._said.get(str(question.get("op", "mode")), {"event": "ready"})
        with speaking(self._role, self.host) as (agent, its):
            agent.send(question)
            its.sendall(json.dumps(said).encode() + b"\n")
            return agent.receive(5.0)

    def ask(self, message: Mapping[str, Any], *limits: float, **_: float) -> dict[str, Any]:
        """Answer at once."""
        self.send(message)
        return self.receive(*limits)

    def poll(self, limit_s: float) -> dict[str, Any]:
        """Answer at once."""
        return self.receive(limit_s)

    def watched(self, _: float) -> contextlib.AbstractContextManager[None]:
        """Nobody watches."""
        return contextlib.nullcontext()


def session_of(said: Mapping[str, Mapping[str, Any]]) -> Session:
    """Return a session whose hosts all say this."""
    session = Session(CHAIN, 1, ["xdp"], timer=True)
    roles = dict(zip(CHAIN.hosts, ("load", "forward", "serve"), strict=True))
    agents: list[Any] = [Told(host, role, said) for host, role in roles.items()]
    session._agents = agents
    session._client, session._server = agents[0], agents[-1]
    session._hop_agents = agents[1:-1]
    return session


def test_any_answers_in_a_run(tmp_path: Path) -> None:
    """A sample of whatever hosts say is valid or not, and the run can be read afterwards."""
    said = {
        "mode": ANSWERS["mode"][2],
        "offloads": ANSWERS["offloads"][2],
        "counters": ANSWERS["counters"][2],
        "siege": ANSWERS["sample"][2],
        "connections": ANSWERS["connections"][2],
        "fetch": ANSWERS["payloads"][2],
        "clock": ANSWERS["keeper"][2],
    }

    def check(changes: list[tuple[int, str, Any]], number: int) -> None:
        document = Mutator(said).apply(changes)
        if not isinstance(document, dict):
            return
        sweep = Sweep((CELL,), 1, 1)
        writer = RunWriter.create(tmp_path / str(number), RunMeta(sweep))
        session = session_of(document)
        try:
            with contextlib.suppress(BenchError):
                session.verify(("xdp", "native", 1))
            readings = session.read_clocks()
            raw = session.sample(CELL)
        except BenchError as error:
            assert error.one_line().isprintable()
        else:
            made = judge(CELL, 1, 1, raw)
            times = connections.columns(raw.records, 624) if raw.records is not None else None
            writer.add_sample(made, raw.stdout, times, [host.row() for host in raw.hosts])
            writer.update(
                clocks=[clocks.record(readings)],
                host_facts={"hop1": {**session.attach_facts["hop1"], **session.offload_facts}},
            )
        writer.add_log("hop1", "said")
        writer.finish("complete")
        meta, rows = read_run(writer.path)
        assert len(rows) <= 1
        assert clocks.sentence(meta["clocks"]) is None or rows
        tables.read_counters(writer.path)
        tables.read_connections(writer.path)

    fuzz(check, Mutator.changes, st.integers(0, 10**9), examples=20)
    assert {Path(name).parts[0].isdigit() for name in tree(tmp_path)} == {True}


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """Return what this machine says of itself."""
    program = [sys.executable, "-m", "bench.hop", "facts", "lo"]
    done = subprocess.run(program, capture_output=True, check=True, cwd=Path(__file__).parents[3])
    return dict(json.loads(done.stdout))


def test_true_facts_are_let_pass(facts: dict[str, Any]) -> None:
    assert fact_kinds.of_host(facts) == facts
    assert fact_kinds.of_host(fact_kinds.of_host({})) == fact_kinds.of_host({})


def test_any_facts(facts: dict[str, Any]) -> None:
    """Whatever a host says of itself, checks find something or nothing."""
    planned = Planned(requests_total=1000, most_concurrency=25, modes=("xdp", "nft"))
    hop = replace(CHAIN.hops[0], egress_nic="eth1")
    chain = replace(CHAIN, hops=(hop,))
    neighbours = {host.name: doctor_wiring.following(chain, host) for host in (chain.client, hop)}
    way = {"nic": "eth0", "gateway": None, "source": None, "local": False, "mac": "00:00"}
    eaten = {"packet": "x", "chain": "ip filter INPUT", "hook": "input", "why": "x", "sure": True}

    def check(*drawn: list[tuple[int, str, Any]]) -> None:
        first, then, ways, rules = drawn
        before, after = (
            {host.name: fact_kinds.of_host(Mutator(facts).apply(each)) for host in chain.hosts}
            for each in (first, then)
        )
        assert all(isinstance(text, str) for text in changes(before, after))
        found = findings(chain, after, planned)
        for host in chain.hosts:
            found += doctor._host(host, after[host.name], (1.0, 2.0))
        for name, others in neighbours.items():
            addresses = [other.data_ip for other in others]
            told = {"ssh_nic": "eth0", "ways": dict.fromkeys(addresses, way)}
            known = fact_kinds.of_ways(addresses)(Mutator(told).apply(ways))
            host = next(each for each in chain.hosts if each.name == name)
            found += doctor_wiring.of_ways(chain, host, known, after)
        told = {"read": True, "keeper": "ufw", "eaten": [eaten]}
        known = fact_kinds.of_firewall(Mutator(told).apply(rules))
        found += doctor_firewall.findings(hop, known)
        found += doctor_machine.of_machines(chain, after)
        found += doctor_wiring.of_speeds(chain, after)
        assert {each.host for each in found} <= before.keys()

    fuzz(check, *[Mutator.changes] * 4, examples=50)
