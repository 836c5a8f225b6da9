# SPDX-License-Identifier: Apache-2.0
"""The connection timer: as many connections as siege made, with a packet capture's times."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import statistics
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import connections
from bench.cells import Cell
from bench.hop.version import digest
from bench.inventory import load
from bench.lab.model import Lab
from bench.session import Session
from bench.siege import parse_report
from tests.lab.agents import DirectAgent
from tests.lab.conftest import REPOSITORY, differences, kill, machine, wait_until
from tests.valid import valid_sample

MODES = ("direct", "socat", "nft", "xdp")
ATTACH = {"xdp": "native"}
FIN, SYN, ACK = 1, 2, 16  # RFC 9293, section 3.1


def cell(mode: str, *, hops: int = 3, concurrency: int = 1, requests: int = 300) -> Cell:
    """Return a cell of small payloads."""
    many = 0 if mode == "direct" else hops
    return Cell(mode, ATTACH.get(mode, ""), many, 624, concurrency, requests)


@pytest.fixture(scope="module")
def session(lab: Lab) -> Iterator[Session]:
    """A chain of three hops whose client times connections."""
    with Session(load(lab.name), 3, MODES, timer=True) as made:
        yield made


@pytest.mark.parametrize("concurrency", [1, 25])
@pytest.mark.parametrize("mode", MODES)
def test_every_connection_of_siege_is_timed(session: Session, mode: str, concurrency: int) -> None:
    asked = cell(mode, concurrency=concurrency)
    raw = valid_sample(session, asked)
    assert raw.records is not None
    assert connections.failed(raw.records) == 0
    found = connections.columns(raw.records, 624)
    assert len(found["port"]) == raw.timed == parse_report(raw.stdout).transactions == 300
    assert raw.lost == 0
    # nginx closes first; socat brings its FIN later than the data, and siege need not wait for it.
    assert set(found["end"]) <= ({"server", "client"} if mode == "socat" else {"server"})
    assert (found["connect_us"] > 1).all()
    assert (found["response_us"] > found["connect_us"]).all()
    assert (found["port"] > 0).all()
    rate = connections.rate_per_s(raw.records)
    assert rate is not None and 300 / rate <= raw.wall_s


@contextlib.contextmanager
def capturing(lab: Lab, file: Path) -> Iterator[None]:
    """Capture what passes the client's NIC."""
    command = ["tcpdump", "-i", "eth0", "-w", str(file), "-s", "96", "-U", "-B", "32768"]
    command += ["-Z", "root", "--time-stamp-precision=nano", "--immediate-mode", "tcp"]
    with subprocess.Popen(
        ["ip", "netns", "exec", lab.namespace("client"), *command],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            assert "listening" in process.stderr.readline()
            yield
        finally:
            process.send_signal(signal.SIGINT)
        assert "0 packets dropped by kernel" in process.communicate(timeout=20)[1]


def packets_of(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (time in ns, frame) of a capture, as far as it is written."""
    data, at = file.read_bytes(), 24  # pcap-savefile(5)
    while at + 16 <= len(data):
        seconds, ns, length = struct.unpack_from("=III", data, at)
        at += 16 + length
        if at <= len(data):
            yield seconds * 1_000_000_000 + ns, data[at - length : at]


def captured(file: Path, client: str) -> dict[int, tuple[float, float]]:
    """Return {client's port: (SYN to SYN-ACK, SYN to first FIN)} in µs."""
    syn: dict[int, int] = {}
    opened: dict[int, float] = {}
    found: dict[int, tuple[float, float]] = {}
    for at_ns, frame in packets_of(file):
        # Ethernet, IPv4 and TCP: the capture has nothing else.
        out = frame[26:30] == socket.inet_aton(client)
        header = 14 + 4 * (frame[14] & 15)
        source, target = struct.unpack_from("!HH", frame, header)
        port, flags = source if out else target, frame[header + 13]
        if flags == SYN and out:
            syn[port] = at_ns
        elif flags == SYN | ACK and port in syn:
            opened.setdefault(port, (at_ns - syn[port]) / 1000)
        elif flags & FIN and port in opened and port not in found:
            found[port] = opened[port], (at_ns - syn[port]) / 1000
    return found


@pytest.mark.parametrize("mode", MODES)
def test_times_agree_with_a_capture(session: Session, lab: Lab, mode: str, tmp_path: Path) -> None:
    file, client = tmp_path / "client.pcap", lab.hosts[0].data_ip
    with capturing(lab, file):
        raw = session.sample(cell(mode))
        # At its end tcpdump leaves out what it has not come to yet.
        assert wait_until(lambda: len(captured(file, client)) == 300)
    assert raw.records is not None
    found = connections.columns(raw.records, 624)
    seen = captured(file, client)
    assert set(found["port"].tolist()) <= set(seen)
    # Whether every one is timed is the test above; the kernel may keep a few from the timer.
    assert len(found["port"]) >= 290
    for column, place in (("connect_us", 0), ("response_us", 1)):
        apart = [
            abs(time_us - seen[port][place])
            for port, time_us in zip(found["port"].tolist(), found[column].tolist(), strict=True)
        ]
        assert statistics.median(apart) < 50, (column, np.percentile(apart, [50, 90, 99]))


def test_none_is_lost_among_a_hundred_thousand(session: Session) -> None:
    asked = cell("direct", concurrency=100, requests=100_000)
    raw = session.sample(asked)
    assert raw.timed is not None and parse_report(raw.stdout).transactions == 100_000
    # The ring had room for every one; the few that the kernel itself keeps from the timer are
    # what tests.valid tells.
    assert (100_000 - raw.timed <= 100, raw.lost) == (True, 0), raw.timed
    assert raw.records is not None
    rate = connections.rate_per_s(raw.records)
    assert rate is not None and rate > 1000, "too slow to say anything"


def _with_timer(body: str, ring_bytes: int) -> Any:
    """Run Python with a timer `timer` and a listening socket's port; return what it prints."""
    script = f"""
import json, socket, sys, threading
sys.path.insert(0, {str(REPOSITORY / "bench")!r})
from hop.timer import ConnectionTimer
timer = ConnectionTimer({ring_bytes})
waiting = socket.create_server(("127.0.0.1", 0), backlog=64)
port = waiting.getsockname()[1]
def serve():
    while True:
        made, _ = waiting.accept()
        made.close()
threading.Thread(target=serve, daemon=True).start()
def connect(many, port=port):
    for _ in range(many):
        with socket.create_connection(("127.0.0.1", port)) as made:
            made.recv(1)
timer.start("127.0.0.1", port)
{body}
"""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_finds_no_room_is_counted() -> None:
    # Records of 40 bytes in a ring of one page, less the one that keeps full from empty.
    timed, lost = _with_timer("connect(300); print(json.dumps(timer.stop()))", 4096)
    assert lost > 150
    assert timed + lost == 300


def test_a_ring_that_is_read_in_time_loses_nothing() -> None:
    body = """
for _ in range(20):
    connect(100)
    timer.relieve()
print(json.dumps([*timer.stop(), timer.lost()]))
"""
    assert _with_timer(body, 1 << 14) == [2000, 0, 0]


def test_only_the_destination_counts_and_only_until_the_end() -> None:
    body = """
other = socket.create_server(("127.0.0.1", 0), backlog=64)
connect(5)
socket.create_connection(other.getsockname()).close()
first = timer.stop()
connect(3)
timer.start("127.0.0.1", port)
connect(2)
print(json.dumps([first, timer.stop()]))
"""
    assert _with_timer(body, 1 << 16) == [[5, 0], [2, 0]]


def test_attempts_that_fail_are_there_too() -> None:
    body = """
closed = socket.create_server(("127.0.0.1", 0))
nobody = closed.getsockname()[1]
closed.close()
timer.start("127.0.0.1", nobody)
for _ in range(3):
    try:
        connect(1, nobody)
    except ConnectionRefusedError:
        pass
timer.stop()
print(json.dumps(timer.take()))
"""
    answer = _with_timer(body, 1 << 16)
    found = connections.columns(connections.unpack(answer["data"]), None)
    assert not answer["more"]
    assert list(found["end"]) == ["failed"] * 3
    assert np.isnan(found["response_us"]).all() and np.isnan(found["connect_us"]).all()
    assert (found["failed_us"] > 0).all()
    assert (found["port"] > 0).all()


def test_a_client_without_a_port_is_told_from_a_refusal(lab: Lab) -> None:
    """connect(2) finds no port: the attempt ends at once and has none.

    The ports are none of those that siege had, which may be in TIME_WAIT and are not to be bound.
    """
    server = lab.hosts[-1]
    script = f"""
import socket, sys
sys.path.insert(0, "/opt/hopbench")
from hop.timer import ConnectionTimer
timer = ConnectionTimer(1 << 16)
timer.start({server.data_ip!r}, 9)
held = []
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("60000 60003")
waiting = [socket.socket() for _ in range(4)]
for number, each in enumerate(waiting):
    each.bind(("", 60000 + number))
try:
    socket.create_connection(({server.data_ip!r}, 9), timeout=1)
except OSError as error:
    print(error.strerror, file=sys.stderr)
timer.stop()
print(timer.take()["data"])
"""
    range_file = "/proc/sys/net/ipv4/ip_local_port_range"
    inside = ["ip", "netns", "exec", lab.namespace("client")]
    before = subprocess.run([*inside, "cat", range_file], capture_output=True, text=True).stdout
    try:
        done = subprocess.run(
            [*inside, "/usr/bin/python3", "-c", script], capture_output=True, text=True, timeout=60
        )
    finally:
        restore = ["sh", "-c", f"echo {before.strip()} > {range_file}"]
        subprocess.run([*inside, *restore], check=True)
    assert "Cannot assign requested address" in done.stderr
    found = connections.columns(connections.unpack(done.stdout.strip()), None)
    assert (list(found["end"]), found["port"].tolist()) == (["failed"], [0])


def test_killed_it_leaves_the_tracepoint(lab: Lab) -> None:
    before = machine()
    with DirectAgent(lab, "client", "load") as agent:
        answer = agent.ask(
            op="place",
            version=digest(),
            data_nic="eth0",
            data_ip=lab.hosts[0].data_ip,
            timer=True,
        )
        assert answer["event"] == "ready", answer
        assert agent.process.stdin is not None
        siege = {"op": "siege", "ip": str(lab.network[250]), "port": 8000, "size_bytes": 624}
        siege |= {"concurrency": 1, "repetitions": 9, "limit_s": 30, "lease_s": 40, "timer": True}
        agent.process.stdin.write(json.dumps(siege) + "\n")
        agent.process.stdin.flush()
        assert wait_until(lambda: bool(machine()["BPF programs"] - before["BPF programs"]))
        kill(agent.process.pid)
    assert differences(before) == {}
