# SPDX-License-Identifier: Apache-2.0
"""The hop agent, spoken to directly: modes, refusals, resident size, lifetimes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from bench.lab.model import Lab
from tests.lab.agents import DirectAgent
from tests.lab.conftest import inside, kill, wait_until

MODES = ("socat", "nft", "xdp")


@pytest.fixture
def agent(lab: Lab) -> Iterator[DirectAgent]:
    """A forwarding agent on hop1."""
    with DirectAgent(lab, "hop1") as started:
        yield started


def server(lab: Lab) -> str:
    """Return the server's address."""
    return lab.hosts[-1].data_ip


def xdp_on(lab: Lab, host: str = "hop1", nic: str = "eth0") -> dict[str, object] | None:
    """Return what `ip` says of XDP on a NIC."""
    (link,) = json.loads(inside(lab, host, "ip", "-json", "link", "show", nic))
    return link.get("xdp")


def tables(lab: Lab, host: str = "hop1") -> str:
    """Return the nft tables of a host."""
    return inside(lab, host, "nft", "list", "tables")


def listeners(lab: Lab, host: str = "hop1") -> str:
    """Return the TCP sockets that listen on a host."""
    return inside(lab, host, "ss", "-Hltn")


def active(lab: Lab) -> set[str]:
    """Return the modes that something on hop1 belongs to."""
    found = {
        "xdp": xdp_on(lab) is not None,
        "nft": "hopbench" in tables(lab),
        "socat": ":7000" in listeners(lab),
    }
    return {mode for mode, there in found.items() if there}


def test_modes_switch_and_stay_small(lab: Lab, agent: DirectAgent) -> None:
    assert agent.place(prepare=list(MODES))["event"] == "ready"
    for mode in (*MODES, *MODES):
        answer = agent.ask(mode=mode, next_ip=server(lab), next_port=8000)
        assert (answer["event"], answer["mode"]) == ("ready", mode), answer
        assert active(lab) == {mode}
        counters = agent.ask(op="counters")
        assert counters["mode"] == mode
        assert counters["counters"]["flows_opened"] >= 0
        assert agent.resident_mb() <= 40
    assert agent.ask(mode="direct")["event"] == "ready"
    assert active(lab) == set()


def test_xdp_says_how_it_is_attached(lab: Lab, agent: DirectAgent) -> None:
    agent.place()
    native = agent.ask(mode="xdp", attach="native", next_ip=server(lab), next_port=8000)
    assert native["attach"] == "native"
    assert xdp_on(lab)["mode"] == 1  # type: ignore[index]
    agent.ask(mode="direct")
    generic = agent.ask(mode="xdp", attach="generic", next_ip=server(lab), next_port=8000)
    assert generic["attach"] == "generic"
    assert xdp_on(lab)["mode"] == 2  # type: ignore[index]
    # From one attach mode to the other without a stop in between.
    native = agent.ask(mode="xdp", attach="native", next_ip=server(lab), next_port=8000)
    assert native["attach"] == "native"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"data_nic": "nope0"}, "no NIC nope0"),
        ({"data_nic": "../../etc"}, "not an interface name"),
        ({"data_nic": "a" * 16}, "not an interface name"),
        ({"data_ip": "999.1.1.1"}, "not an IP address"),
        ({"data_ip": "224.0.0.1"}, "not a host's address"),
        ({"forward_port": 0}, "not between 1 and 65535"),
        ({"forward_port": True}, "forward_port"),
        ({"forward_port": "7000"}, "forward_port"),
        ({"prepare": ["quic"]}, "prepare"),
        ({"version": "0" * 64}, "another version"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
)
def test_a_wrong_place_is_refused(
    agent: DirectAgent, changes: dict[str, object], cause: str
) -> None:
    answer = agent.place(**changes)
    assert (answer["event"], cause in answer["cause"]) == ("error", True), answer
    assert agent.place()["event"] == "ready"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"mode": "quic"}, "mode must be one of"),
        ({"mode": "xdp", "next_ip": "198.18.0.1; reboot", "next_port": 1}, "not an IP address"),
        ({"mode": "nft", "next_ip": "198.18.0.1", "next_port": 70000}, "between 1 and 65535"),
        ({"mode": "xdp", "attach": "skb", "next_ip": "198.18.0.1", "next_port": 1}, "attach"),
        ({"mode": "xdp", "attach": "offload", "next_ip": "198.18.0.1", "next_port": 1}, "offload"),
        (
            {"mode": "nft", "next_ip": "2001:2::1", "next_port": 1},
            "not an IPv4 address, as data_ip",
        ),
        ({"op": "explode"}, "unknown operation"),
        ({"op": "counters", "more": 1}, "unknown key"),
    ],
)
def test_a_wrong_line_is_refused(
    lab: Lab, agent: DirectAgent, message: dict[str, object], cause: str
) -> None:
    agent.place()
    answer = agent.ask(**message)
    assert (answer["event"], cause in answer["cause"]) == ("error", True), answer
    assert active(lab) == set()
    assert agent.ask(op="renew")["event"] == "ready"


@pytest.mark.parametrize("line", ["not json", "[1]", '{"lease_s": "x"}', "[" * 50000])
def test_a_broken_stream_ends_the_agent(agent: DirectAgent, line: str) -> None:
    assert agent.tell(line)["event"] == "stopped"
    assert agent.process.wait(timeout=20) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_taken_port_is_refused(lab: Lab, agent: DirectAgent, mode: str) -> None:
    code = "import socket,time; s=socket.create_server(('',7000)); time.sleep(300)"
    holder = subprocess.Popen(
        ["ip", "netns", "exec", lab.namespace("hop1"), "/usr/bin/python3", "-c", code]
    )
    try:
        assert wait_until(lambda: ":7000" in listeners(lab))
        agent.place()
        answer = agent.ask(mode=mode, next_ip=server(lab), next_port=8000)
        assert "port 7000 is taken" in answer["cause"]
        assert active(lab) == {"socat"}  # the holder's listener, and nothing of ours
    finally:
        holder.kill()
        holder.wait()


def test_another_xdp_program_is_never_replaced(lab: Lab, agent: DirectAgent) -> None:
    with DirectAgent(lab, "hop1") as other:
        other.place()
        first = other.ask(mode="xdp", next_ip=server(lab), next_port=8000)
        agent.place()
        answer = agent.ask(mode="xdp", next_ip=server(lab), next_port=8000)
        assert "another XDP program" in answer["cause"]
        assert xdp_on(lab)["prog"]["id"] == first["prog_id"]  # type: ignore[index]


def test_another_table_of_our_name_is_kept(lab: Lab, agent: DirectAgent) -> None:
    inside(lab, "hop1", "nft", "add table ip hopbench")
    try:
        agent.place()
        answer = agent.ask(mode="nft", next_ip=server(lab), next_port=8000)
        assert "already there" in answer["cause"]
        assert "hopbench" in tables(lab)
    finally:
        inside(lab, "hop1", "nft", "delete table ip hopbench")


@pytest.fixture
def bridge(lab: Lab) -> Iterator[dict[str, object]]:
    """A NIC on hop1 whose driver has no native XDP; yields its place."""
    for command in (
        "link add dumb0 type bridge",
        "address add 198.19.255.1/30 dev dumb0",
        "link set dumb0 up",
        "neighbour add 198.19.255.2 lladdr 02:00:00:00:00:99 dev dumb0 nud permanent",
    ):
        inside(lab, "hop1", "ip", *command.split())
    inside(lab, "hop1", "sysctl", "-qw", "net.ipv4.conf.dumb0.forwarding=1")
    yield {"data_nic": "dumb0", "data_ip": "198.19.255.1"}
    if "dumb0" in inside(lab, "hop1", "ip", "link"):
        inside(lab, "hop1", "ip", "link", "delete", "dumb0")


ACROSS = {"mode": "xdp", "next_ip": "198.19.255.2", "next_port": 8000}


def test_a_driver_without_native_xdp_is_refused(
    lab: Lab, bridge: dict[str, object], agent: DirectAgent
) -> None:
    agent.place(**bridge)
    answer = agent.ask(**ACROSS, attach="native")
    assert "refuses XDP in native mode: " in answer["cause"]
    assert xdp_on(lab, nic="dumb0") is None
    assert agent.ask(**ACROSS, attach="generic")["attach"] == "generic"


def test_a_nic_that_goes_away_takes_its_program_along(
    lab: Lab, bridge: dict[str, object], agent: DirectAgent
) -> None:
    agent.place(**bridge)
    assert agent.ask(**ACROSS, attach="generic")["event"] == "ready"
    inside(lab, "hop1", "ip", "link", "delete", "dumb0")
    assert agent.ask(mode="direct")["event"] == "ready"
    assert "no NIC dumb0" in agent.place(**bridge)["cause"]


def test_forwarding_switched_off_is_refused(lab: Lab, agent: DirectAgent) -> None:
    inside(lab, "hop1", "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=0")
    try:
        agent.place()
        for mode in ("nft", "xdp"):
            answer = agent.ask(mode=mode, next_ip=server(lab), next_port=8000)
            assert "forwarding is off on eth0" in answer["cause"]
    finally:
        inside(lab, "hop1", "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")


def test_a_silent_next_hop_is_refused(lab: Lab, agent: DirectAgent) -> None:
    agent.place()
    silent = str(lab.network[200])
    answer = agent.ask(mode="xdp", next_ip=silent, next_port=8000)
    assert "does not answer ARP" in answer["cause"]
    assert active(lab) == set()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_the_agent(lab: Lab, mode: str, number: signal.Signals) -> None:
    with DirectAgent(lab, "hop1") as agent:
        agent.place()
        agent.ask(mode=mode, next_ip=server(lab), next_port=8000)
        assert active(lab) == {mode}
        kill(agent.process.pid, number)
        agent.process.wait(timeout=20)
        assert wait_until(lambda: active(lab) == set())


def test_the_agent_ends_when_its_lease_runs_out(lab: Lab, agent: DirectAgent) -> None:
    agent.place()
    assert agent.ask(mode="nft", next_ip=server(lab), next_port=8000)["event"] == "ready"
    begin = time.monotonic()
    # It runs from when the agent reads this, and not from its answer.
    assert agent.ask(op="renew", lease_s=1)["event"] == "ready"
    assert agent.process.stdout is not None
    stopped = json.loads(agent.process.stdout.readline())
    assert (stopped["event"], stopped["reason"]) == ("stopped", "lease ran out")
    assert 0.9 < time.monotonic() - begin < 10
    assert active(lab) == set()


def test_the_agent_ends_with_its_input(lab: Lab, agent: DirectAgent) -> None:
    agent.place()
    agent.ask(mode="xdp", next_ip=server(lab), next_port=8000)
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert agent.process.wait(timeout=20) == 0
    assert active(lab) == set()
