# SPDX-License-Identifier: Apache-2.0
"""Offloads of real NICs: what `equal` and `native` do to packets, and that all is put back."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.hop import offload_records as records
from bench.lab import lifecycle
from bench.lab.model import NIC, Lab
from tests.lab import links
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

PAYLOAD = random.Random(1).randbytes(2_555_904)
FRAME = 1514  # what an MTU of 1500 leaves of Ethernet: 14 bytes of header
HOP = "hop1"
# Settings that no lab and no system has by itself: what is put back is what was there.
ODD = ("rx-gro-list on", "rx-udp-gro-forwarding on"), 54321


@pytest.fixture(scope="module", params=["xdp", "bridge"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of one hop. Nothing is deployed; the hop may forward."""
    name = f"off-{os.getpid()}"
    made = lifecycle.up(name, hops=1, wire=request.param)
    try:
        inside(
            *(made, HOP, "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1"),
            *("net.ipv4.conf.eth0.send_redirects=0", "net.ipv4.conf.eth0.accept_local=1"),
        )
        yield made
    finally:
        lifecycle.down(name)


@contextlib.contextmanager
def agent_of(lab: Lab) -> Iterator[CheckoutAgent]:
    """The hop's agent, at its place."""
    host = host_of(lab, HOP)
    with CheckoutAgent(host.namespace, host.data_ip) as agent:
        assert agent.place()["event"] == "ready"
        yield agent


def use(agent: CheckoutAgent, how: str, nic: str = NIC) -> dict[str, Any]:
    """Tell an agent what to do, and return what a NIC does then."""
    answer = agent.ask(op="offloads", use=how)
    assert answer["event"] == "ready", answer
    return dict(answer["offloads"][nic])


Run = Callable[..., str]


def on_hop(lab: Lab) -> Run:
    """Return what runs a program on the hop."""
    return lambda *argv: inside(lab, HOP, *argv)


def state(run: Run, nic: str = NIC) -> tuple[str, int, int]:
    """Return all that ethtool says of a NIC's features, and both sizes of what GRO merges."""
    sizes = json.loads(run("/usr/bin/python3", "-c", _SIZES, nic))
    return run("ethtool", "-k", nic), sizes[0], sizes[1]


# IFLA_GRO_MAX_SIZE and IFLA_GRO_IPV4_MAX_SIZE, which not every `ip` knows.
_SIZES = """
import json, socket, struct, sys
index = socket.if_nametoindex(sys.argv[1])
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
    sock.send(struct.pack("=IHHIIBxHiII", 32, 18, 1, 1, 0, 0, 0, index, 0, 0))
    reply, at, found = sock.recv(65536), 32, {}
while at + 4 <= len(reply):
    size, kind = struct.unpack_from("=HH", reply, at)
    found[kind] = reply[at + 4 : at + size]
    at += (size + 3) // 4 * 4
sizes = [int.from_bytes(found.get(kind, b""), sys.byteorder) for kind in (58, 64)]
print(json.dumps(sizes))
"""


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


def record_in(namespace: str, nic: str) -> Path:
    """Return where the record of a NIC in a namespace belongs."""
    inode = Path(f"/run/netns/{namespace}").stat().st_ino
    command = ["ip", "netns", "exec", namespace, "cat", f"/sys/class/net/{nic}/ifindex"]
    index = subprocess.run(command, capture_output=True, check=True, timeout=10).stdout
    return Path(records.path_of(records.RECORDS, inode, int(index)))


def record_of(lab: Lab) -> Path:
    """Return where the record of the hop's NIC belongs."""
    return record_in(lab.namespace(HOP), NIC)


def guards(namespace: str) -> list[int]:
    """Return the guards of a namespace's agents."""
    inode = Path(f"/run/netns/{namespace}").stat().st_ino
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            there = (entry / "ns/net").stat().st_ino == inode
            if there and b"offload_records.py" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def crash(namespace: str, agent: CheckoutAgent) -> None:
    """Kill an agent, and first of all its guard."""
    (guard,) = guards(namespace)
    kill(guard)
    kill(agent.process.pid)
    agent.process.wait(timeout=5)


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
def test_packets_are_merged_natively_and_never_equally(lab: Lab, mode: str) -> None:
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
            # Nothing larger than the MTU is ever on the wire.
            assert sizes.sent in ((0, FRAME) if word == "xdp" else (FRAME,))
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
        agent.process.wait(timeout=5)
        assert wait_until(lambda: not record_of(lab).exists(), 5)
        assert state(on_hop(lab)) == odd
    assert guards(lab.namespace(HOP)) == []


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


# Other NICs than a lab's


@contextlib.contextmanager
def plain(*commands: str) -> Iterator[Run]:
    """A host with a veth pair as the kernel makes it: a0 has an address, b0 is its other end."""
    with links.hosts("plain"):
        links.ip(
            "plain",
            "link add a0 numrxqueues 2 numtxqueues 2 type veth peer name b0",
            "address add 198.19.9.1/30 dev a0",
            "link set a0 up",
            "link set b0 up",
            *commands,
        )
        yield lambda *argv: links.run("plain", *argv)


def plain_record() -> Path:
    """Return where the record of a0 belongs."""
    return record_in(links.namespace("plain"), "a0")


@contextlib.contextmanager
def plain_agent(**place: str) -> Iterator[CheckoutAgent]:
    """An agent on that host."""
    with CheckoutAgent(links.namespace("plain"), "198.19.9.1") as agent:
        assert agent.place(**{"data_nic": "a0", **place})["event"] == "ready"
        yield agent


def test_two_nics_that_segment_themselves() -> None:
    with plain("link set a0 gro_max_size 180000") as run:
        # What is asked for and cannot be, for want of checksums, is to be asked for again.
        run("ethtool", "-K", "b0", "tx", "off", "tx-tcp-ecn-segmentation", "off")
        before = state(run, "a0"), state(run, "b0")
        assert "tx-tcp-segmentation: on" in before[0][0]
        assert before[0][1:] == (180000, 65536)
        assert "tx-tcp-segmentation: off [requested on]" in before[1][0]
        with plain_agent(egress_nic="b0") as agent:
            for nic in ("a0", "b0"):
                found = use(agent, "equal", nic)
                assert {value for value in found.values() if isinstance(value, str)} == {"off"}
                assert "tx-tcp-segmentation: off\n" in run("ethtool", "-k", nic)
            assert state(run, "a0")[1:] == (1, 1)
            use(agent, "native", "a0")
            assert (state(run, "a0"), state(run, "b0")) == before
            use(agent, "equal", "a0")
        assert (state(run, "a0"), state(run, "b0")) == before


def test_a_nic_below_another() -> None:
    """It is there that what arrives is merged."""
    with plain("link add c0 type bridge", "link set a0 master c0", "link set c0 up") as run:
        before = state(run, "a0"), state(run, "c0")
        with plain_agent(data_nic="c0") as agent:
            answer = agent.ask(op="offloads", use="equal")
            assert list(answer["offloads"]) == ["c0", "a0"]
            for nic in ("c0", "a0"):
                assert "tx-tcp-segmentation: off" in run("ethtool", "-k", nic)
            assert answer["offloads"]["c0"]["generic-receive-offload"] == "off"
            assert answer["offloads"]["a0"]["gro_max_size"] == 1
        assert (state(run, "a0"), state(run, "c0")) == before


def test_what_cannot_be_put_back_yet_stays_recorded() -> None:
    """A veth whose peer runs XDP cannot have segmentation offload, as long as it does."""
    with plain() as run:
        before = state(run, "a0")
        with plain_agent() as agent:
            use(agent, "equal", "a0")
            links.attach_pass("plain", "b0")
        after = run("ethtool", "-k", "a0")
        assert re.search(r"tx-tcp-segmentation: off \[fixed\]", after)
        assert plain_record().exists()
        run("ip", "link", "set", "b0", "xdp", "off")
        said = json.loads(run("/usr/bin/python3", "-B", records.__file__))
        assert said == ["offload settings of a0"]
        assert state(run, "a0") == before
        assert not plain_record().exists()


def test_a_nic_that_goes_away_meanwhile() -> None:
    with plain() as run:
        record = plain_record()
        with plain_agent() as agent:
            use(agent, "equal", "a0")
            assert record.exists()
            run("ip", "link", "delete", "a0")
            assert agent.ask(op="offloads", use="native")["event"] == "error"
            assert agent.ask(op="renew")["event"] == "ready"
        assert not record.exists()


def test_a_namespace_that_goes_away_leaves_a_record_to_any_clean(lab: Lab) -> None:
    with plain(), plain_agent() as agent:
        record = plain_record()
        use(agent, "equal", "a0")
        crash(links.namespace("plain"), agent)
    assert record.exists()
    done = bench("clean", "-i", lab.name)
    assert f"record of offloads {record.name}" in done.stderr
    assert not record.exists()
