# SPDX-License-Identifier: Apache-2.0
"""What becomes of a run, and of what is said of hosts, whatever hosts say."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answering import ANSWERS, CELL, CHAIN, speaking
from fuzzing import Mutator, fuzz
from hypothesis import strategies as st
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
from bench.chain import Host
from bench.errors import BenchError
from bench.fact_changes import changes
from bench.judging import judge
from bench.readiness import Planned, findings
from bench.results import RunMeta
from bench.runfiles import read_run
from bench.runwriter import RunWriter
from bench.session import Session
from bench.sweep import Sweep


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
