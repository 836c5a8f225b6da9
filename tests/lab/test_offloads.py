# SPDX-License-Identifier: Apache-2.0
"""Offloads of real NICs: what `equal` and `native` do to packets, and that all is put back."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.lab.lifecycle import EphemeralLab
from bench.lab.model import NIC, Lab, Wire
from tests.lab.agents import CheckoutAgent
from tests.lab.conftest import bench, inside, kill, wait_until
from tests.lab.endpoints import (
    connected,
    counted,
    frames_of,
    host_of,
    listen,
    receive,
    send_beside,
)
from tests.lab.offloads import Run, crash, guards, record_in, state, use

PAYLOAD = random.Random(1).randbytes(2_555_904)
FRAME = 1514  # what an MTU of 1500 leaves of Ethernet: 14 bytes of header
HOP = "hop1"
# Settings that no lab and no system has by itself: what is put back is what was there.
ODD = ("rx-gro-list on", "rx-udp-gro-forwarding on"), 54321


@contextlib.contextmanager
def forwarding_lab(wire: Wire) -> Iterator[Lab]:
    """A lab of one hop. Nothing is deployed; the hop may forward."""
    name = f"off-{wire}-{os.getpid()}"[:16]
    with EphemeralLab(1, wire, name=name) as made:
        inside(
            *(made, HOP, "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1"),
            *("net.ipv4.conf.eth0.send_redirects=0", "net.ipv4.conf.eth0.accept_local=1"),
        )
        yield made


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab with the usual wire."""
    with forwarding_lab("xdp") as made:
        yield made


@pytest.fixture(scope="module", params=["xdp", "bridge"])
def wired(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Lab]:
    """A lab with each wire."""
    if request.param == lab.wire:
        yield lab
        return
    with forwarding_lab(request.param) as made:
        yield made


@contextlib.contextmanager
def agent_of(lab: Lab) -> Iterator[CheckoutAgent]:
    """The hop's agent, at its place."""
    host = host_of(lab, HOP)
    with CheckoutAgent(host.namespace, host.data_ip) as agent:
        assert agent.place()["event"] == "ready"
        yield agent


def on_hop(lab: Lab) -> Run:
    """Return what runs a program on the hop."""
    return lambda *argv: inside(lab, HOP, *argv)


@pytest.fixture
def odd(lab: Lab) -> Iterator[tuple[str, int, int]]:
    """The hop's NIC with settings of its own; yields its state."""
    before = state(on_hop(lab))
    features, size = ODD
    for feature in features:
        inside(lab, HOP, "ethtool", "-K", NIC, *feature.split())
    inside(lab, HOP, "ip", "link", "set", NIC, "gro_max_size", str(size))
    yield state(on_hop(lab))
    for feature in features:
        inside(lab, HOP, "ethtool", "-K", NIC, feature.split()[0], "off")
    inside(lab, HOP, "ip", "link", "set", NIC, "gro_max_size", str(before[1]))
    assert state(on_hop(lab)) == before


def record_of(lab: Lab) -> Path:
    """Return where the record of the hop's NIC belongs."""
    return record_in(lab.namespace(HOP), NIC)


# What is done to packets


class Sizes:
    """The largest frame that a host's stack takes in, and that its NIC sends."""

    def __init__(self, lab: Lab, host: str) -> None:
        self.taken = self.sent = 0
        self._socket = frames_of(lab, host, capture=True)
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Sizes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        buffer = bytearray(1)
        while True:
            try:
                # MSG_TRUNC: the frame's own length is returned, not the buffer's.
                size, address = self._socket.recvfrom_into(buffer, 1, socket.MSG_TRUNC)
            except TimeoutError:
                if self._over.is_set():
                    return
                continue
            if address[2] == socket.PACKET_OUTGOING:
                self.sent = max(self.sent, size)
            else:
                self.taken = max(self.taken, size)


def download(lab: Lab) -> None:
    """Move the payload from server to client through the hop, and compare it."""
    with listen(lab, 8000) as listener:
        client, server = connected(lab, listener)
        with client, server:
            thread = send_beside(server, PAYLOAD)
            assert receive(client, len(PAYLOAD)) == PAYLOAD
            thread.join()


@pytest.mark.parametrize("mode", ["nft", "socat", "xdp", "xdp generic"])
def test_packets_are_merged_natively_and_never_equally(wired: Lab, mode: str) -> None:
    lab = wired
    word, _, attach = mode.partition(" ")
    errors = {host.name: counted(lab, host.name)["TcpInCsumErrors"] for host in lab.hosts}
    with agent_of(lab) as agent:
        answer = agent.ask(
            mode=word,
            attach=attach or "native",
            next_ip=host_of(lab, "server").data_ip,
            next_port=8000,
        )
        assert answer["event"] == "ready", answer
        for how, merged in (("native", True), ("equal", False), ("native", True)):
            use(agent, how)
            before = counted(lab, HOP)["IpForwDatagrams"]
            with Sizes(lab, HOP) as sizes:
                download(lab)
            forwarded = counted(lab, HOP)["IpForwDatagrams"] - before
            # Nothing larger than the MTU is ever on the wire. XDP sends past the capture, which
            # then sees at most what the stack has to say beside it, as to ARP.
            assert sizes.sent <= FRAME
            assert sizes.sent == FRAME or word == "xdp"
            if word == "xdp":
                # In the driver there is no merging yet, and GRO passes by what generic XDP is on.
                assert (sizes.taken <= FRAME, forwarded) == (True, 0)
                continue
            assert (sizes.taken > FRAME) == merged, (how, sizes.taken)
            if word == "nft":
                assert (forwarded < len(PAYLOAD) / 1448) == merged, (how, forwarded)
    for host in lab.hosts:
        assert counted(lab, host.name)["TcpInCsumErrors"] == errors[host.name]


def test_facts_are_what_the_kernel_says(lab: Lab) -> None:
    with agent_of(lab) as agent:
        native, equal = use(agent, "native"), use(agent, "equal")
        assert use(agent, "equal") == equal
        assert native["gro_max_size"] == 65536
        assert (equal["gro_max_size"], equal["mtu"]) == (1, 1500)
        # A veth without GRO runs no NAPI, which the wire needs.
        assert equal.pop("generic-receive-offload") == "on"
        assert {value for value in equal.values() if isinstance(value, str)} == {"off"}
        assert native["generic-segmentation-offload"] == "on"
        assert "generic-segmentation-offload: off" in inside(lab, HOP, "ethtool", "-k", NIC)


def test_what_is_not_asked_for_properly_is_refused(lab: Lab) -> None:
    with agent_of(lab) as agent:
        for message in ({}, {"use": "fast"}, {"use": 1}, {"use": "equal", "nic": "lo"}):
            assert agent.ask(op="offloads", **message)["event"] == "error"
        assert not record_of(lab).exists()
    host = host_of(lab, HOP)
    with CheckoutAgent(host.namespace, host.data_ip) as agent:
        assert "its place" in agent.ask(op="offloads", use="equal")["cause"]


# What is put back


def _end_of_input(agent: CheckoutAgent) -> None:
    assert agent.process.stdin is not None
    agent.process.stdin.close()


ENDS: dict[str, Callable[[CheckoutAgent], object]] = {
    "end of input": _end_of_input,
    "SIGTERM": lambda agent: kill(agent.process.pid, signal.SIGTERM),
    "SIGHUP": lambda agent: kill(agent.process.pid, signal.SIGHUP),
    "lease": lambda agent: agent.ask(op="renew", lease_s=1),
    "a broken line": lambda agent: agent.tell("not JSON"),
    "SIGKILL": lambda agent: kill(agent.process.pid),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_however_it_ends(
    lab: Lab, odd: tuple[str, int, int], end: Callable[[CheckoutAgent], object]
) -> None:
    """By the agent, or, where it has no time for it, by its guard."""
    with agent_of(lab) as agent:
        use(agent, "equal")
        assert state(on_hop(lab)) != odd
        assert record_of(lab).exists()
        end(agent)
        agent.process.wait(timeout=20)
        assert wait_until(lambda: not record_of(lab).exists())
        assert state(on_hop(lab)) == odd
    # A guard that had to do it ends after that.
    assert wait_until(lambda: guards(lab.namespace(HOP)) == [])


def test_a_new_place_puts_back_too(lab: Lab, odd: tuple[str, int, int]) -> None:
    with agent_of(lab) as agent:
        use(agent, "equal")
        # Another mode is no reason to.
        assert agent.ask(mode="direct")["event"] == "ready"
        assert state(on_hop(lab)) != odd
        assert agent.place()["event"] == "ready"
        assert state(on_hop(lab)) == odd


def test_clean_puts_back_after_a_crash(lab: Lab, odd: tuple[str, int, int]) -> None:
    with agent_of(lab) as agent:
        use(agent, "equal")
        crash(lab.namespace(HOP), agent)
    assert record_of(lab).exists()
    assert state(on_hop(lab)) != odd
    done = bench("clean", "-i", lab.name)
    assert f"{HOP}: removed offload settings of {NIC}" in done.stderr, done.stderr
    assert state(on_hop(lab)) == odd
    assert not record_of(lab).exists()
    assert "nothing was left" in bench("clean", "-i", lab.name).stdout


def test_clean_leaves_alone_what_an_agent_still_needs(lab: Lab) -> None:
    """This one runs from a checkout, where clean does not look for agents."""
    with agent_of(lab) as agent:
        use(agent, "equal")
        before = state(on_hop(lab))
        done = bench("clean", "-i", lab.name)
        assert "nothing was left" in done.stdout, done.stderr
        assert state(on_hop(lab)) == before
        assert record_of(lab).exists()


def test_the_next_agent_takes_over(lab: Lab, odd: tuple[str, int, int]) -> None:
    """What a crashed one has set is not what the host had."""
    with agent_of(lab) as agent:
        equal = use(agent, "equal")
        crash(lab.namespace(HOP), agent)
    with agent_of(lab) as agent:
        assert use(agent, "equal") == equal
        crash(lab.namespace(HOP), agent)
    with agent_of(lab) as agent:
        use(agent, "native")
        assert state(on_hop(lab)) == odd
        use(agent, "equal")
    assert state(on_hop(lab)) == odd


def test_a_damaged_record_is_no_obstacle(lab: Lab) -> None:
    before = state(on_hop(lab))
    record = record_of(lab)
    record.parent.mkdir(mode=0o700, exist_ok=True)
    record.write_text('{"changes": 1}')
    with agent_of(lab) as agent:
        use(agent, "equal")
    assert state(on_hop(lab)) == before
    assert not record.exists()


def test_two_agents_are_one_too_many(lab: Lab, odd: tuple[str, int, int]) -> None:
    with agent_of(lab) as agent, agent_of(lab) as other:
        use(agent, "equal")
        before = state(on_hop(lab))
        answer = other.ask(op="offloads", use="native")
        assert "another agent has set the offloads" in answer["cause"]
        assert answer["remedy"]
        assert state(on_hop(lab)) == before
    assert state(on_hop(lab)) == odd


def test_what_somebody_else_changed_is_theirs(lab: Lab, odd: tuple[str, int, int]) -> None:
    with agent_of(lab) as agent:
        use(agent, "equal")
        inside(lab, HOP, "ethtool", "-K", NIC, "rx-gro-list", "on", "rx", "off")
        inside(lab, HOP, "ip", "link", "set", NIC, "gro_max_size", "9000")
    after = state(on_hop(lab))
    inside(lab, HOP, "ethtool", "-K", NIC, "rx", "on")
    assert after[1:] == (9000, 9000)
    assert after[0] == odd[0].replace("rx-checksumming: on", "rx-checksumming: off")
