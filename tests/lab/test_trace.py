# SPDX-License-Identifier: Apache-2.0
"""`bench trace` on a real lab: what it shows of packets, what it leaves out, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import REPOSITORY, bench, differences, inside, machine, wait_until
from tests.lab.endpoints import HOP_PORT, counted, frames_of, host_of, tcp

HOPS = [f"hop{number}" for number in range(1, 6)]
_TIME = r"\d\d:\d\d:\d\d\.\d{6}"
# Ports of the client's that hops keep, and that no other socket of it gets or has in TIME_WAIT:
# below those of bench/lab/network.py's CLIENT_PORTS.
PORT = 2000
_ROUND_S = 0.2  # how often bench/follow.py asks the hops at most


def journeys(text: str) -> list[dict[str, Any]]:
    """Return the packets of an output in JSON."""
    return [json.loads(line) for line in text.splitlines()]


def attached(lab: Lab) -> list[str]:
    """Return the hops that XDP is attached on."""
    found = []
    for hop in HOPS:
        (link,) = json.loads(inside(lab, hop, "ip", "-json", "link", "show", "eth0"))
        found += [hop] if "xdp" in link else []
    return found


class Tracing:
    """A trace that runs while the test makes traffic."""

    def __init__(self, *arguments: str | Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench", "trace", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Tracing:
        assert self._process.stderr is not None
        # A trace that never begins would keep readline waiting.
        guard = threading.Timer(150, self._process.kill)
        guard.start()
        line = self._process.stderr.readline()
        guard.cancel()
        assert line.startswith("forwarding from"), line + self._process.stderr.read()
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def stop(self) -> None:
        """Interrupt it, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return status, output and what it said on stderr."""
        out, errors = self._process.communicate(timeout=60)
        return self._process.returncode, out, errors


def get(lab: Lab, source_port: int = 0, size: int = 624) -> int:
    """Download a payload through the first hop; return the client's port."""
    source = (host_of(lab, "client").data_ip, source_port)
    with tcp(lab, source) as client:
        client.connect((host_of(lab, "hop1").data_ip, HOP_PORT))
        client.sendall(f"GET /{size}.bin HTTP/1.0\r\n\r\n".encode())
        got = bytearray()
        while chunk := client.recv(1 << 16):
            got += chunk
        assert got.startswith(b"HTTP/1.1 200") and len(got) > size
        return int(client.getsockname()[1])


# --- one connection --------------------------------------------------------------------------


def sent_again(lab: Lab) -> int:
    """Return how many segments client and server have sent a second time."""
    return sum(counted(lab, host)["TcpRetransSegs"] for host in ("client", "server"))


@pytest.fixture(scope="module")
def fetched(lab: Lab) -> list[dict[str, Any]]:
    """The packets of one download through five hops, each of them sent once.

    A stack sends the last one of several again when its answer takes 10 ms, as on a busy machine.
    """
    before = machine()
    for _ in range(3):
        again = sent_again(lab)
        done = bench("trace", "-i", lab.name, "--fetch", "624", "--json")
        assert done.status == 0, done.stderr
        assert attached(lab) == []
        assert differences(before) == {}
        found = journeys(done.stdout)
        assert f"{len(found)} packets" in done.stderr
        if sent_again(lab) == again:
            return found
    raise AssertionError("in three downloads something was sent again")


def test_every_packet_appears_once_with_all_hops(fetched: list[dict[str, Any]]) -> None:
    for packet in fetched:
        there = packet["direction"] == "to_server"
        assert packet["complete"]
        assert [hop["hop"] for hop in packet["hops"]] == (HOPS if there else HOPS[::-1])
        assert {hop["verdict"] for hop in packet["hops"]} == {"tx"}
        reason = "forwarded_packets" if there else "returned_packets"
        assert {hop["reason"] for hop in packet["hops"]} == {reason}
    known = [
        tuple(packet[name] for name in ("direction", "flags", "seq", "ack", "length"))
        for packet in fetched
    ]
    assert len(set(known)) == len(known)


def test_each_hop_gets_what_the_one_before_sent(lab: Lab, fetched: list[dict[str, Any]]) -> None:
    ends = [(host.data_ip, 8000 if host.name == "server" else HOP_PORT) for host in lab.hosts]
    client_ports = set()
    for packet in fetched:
        hops = packet["hops"]
        for one, other in pairwise(hops):
            assert one["after"] == other["before"]
            # The lab's hosts share a clock.
            assert one["time_ns"] < other["time_ns"]
            assert one["ttl"] == other["ttl"] + 1
        if packet["direction"] == "to_server":
            assert [tuple(hop["before"][2:]) for hop in hops] == ends[1:-1]
            assert tuple(hops[-1]["after"][2:]) == ends[-1]
            first = hops[0]["before"][:2]
        else:
            assert tuple(hops[0]["before"][:2]) == ends[-1]
            assert tuple(hops[-1]["after"][:2]) == ends[1]
            first = hops[-1]["after"][2:]
        assert first[0] == ends[0][0]
        client_ports.add(first[1])
    assert len(client_ports) == 1


def test_the_connection_can_be_read_from_it(fetched: list[dict[str, Any]]) -> None:
    said = [(packet["direction"], packet["flags"]) for packet in fetched]
    assert said[:3] == [("to_server", "S"), ("to_client", "SA"), ("to_server", "A")]
    for direction in ("to_server", "to_client"):
        # Packets that pass each other may come in either order: hops are asked one by one.
        times = [packet["time_ns"] for packet in fetched if packet["direction"] == direction]
        assert times == sorted(times)
        assert sum("F" in flags for way, flags in said if way == direction) == 1
        assert sum("S" in flags for way, flags in said if way == direction) == 1
    # The answer: header and payload.
    assert sum(packet["length"] for packet in fetched if packet["direction"] == "to_client") > 800
    assert {packet["protocol"] for packet in fetched} == {"TCP"}


def test_one_line_a_packet(lab: Lab) -> None:
    done = bench("trace", "-i", lab.name, "--fetch", "624", "--hops", "2")
    assert done.status == 0, done.stderr
    assert done.stderr.startswith(f"forwarding from {host_of(lab, 'hop1').data_ip} port 7000 ")
    lines = done.stdout.splitlines()
    assert len(lines) > 5
    assert f"\n{len(lines)} packets\n" in done.stderr
    client, hop1, hop2, server = (
        re.escape(host_of(lab, name).data_ip) for name in ("client", "hop1", "hop2", "server")
    )
    there = rf"{_TIME} > TCP +\w+ +\d+ B +{client}:\d+ > hop1 tx > {hop1}:\d+ "
    there += rf"> hop2 tx > {server}:8000 +\+\d+\.\d us"
    back = rf"{_TIME} < TCP +\w+ +\d+ B +{server}:8000 > hop2 tx > {hop2}:7000 "
    back += rf"> hop1 tx > {client}:\d+ +\+\d+\.\d us"
    for line in lines:
        assert re.fullmatch(there if " > TCP " in line else back, line), line
    assert re.fullmatch(there, lines[0]) and " S " in lines[0]


# --- what is shown, and until when -----------------------------------------------------------


def test_only_one_port_of_the_client(lab: Lab) -> None:
    arguments = ("-i", lab.name, "--hops", "3", "--port", str(PORT), "--duration", "4", "--json")
    with Tracing(*arguments) as tracing:
        began = time.monotonic()
        for port in (PORT - 1, PORT, PORT + 1):
            assert get(lab, port) == port
        status, out, _ = tracing.end()
    assert status == 0
    assert time.monotonic() - began < 40
    found = journeys(out)
    assert len(found) >= 8
    for packet in found:
        there = packet["direction"] == "to_server"
        hops = packet["hops"]
        assert (hops[0]["before"][1] if there else hops[-1]["after"][3]) == PORT
        assert packet["complete"] and len(hops) == 3


def test_one_connection_beside_many(lab: Lab) -> None:
    """Only the first hop can tell the client's ports apart; the others see all that passes."""
    stop = threading.Event()
    downloads: list[int] = []

    def others() -> None:
        while not stop.is_set():
            downloads.append(get(lab, size=1_277_952))

    arguments = ("-i", lab.name, "--hops", "2", "--port", str(PORT), "--duration", "4", "--json")
    with Tracing(*arguments) as tracing:
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(others)
            try:
                assert wait_until(lambda: len(downloads) >= 3 or beside.done())
                get(lab, PORT)
            finally:
                stop.set()
            beside.result()
        status, out, errors = tracing.end()
    assert status == 0
    assert [len(packet["hops"]) for packet in journeys(out)] == [2] * len(out.splitlines()), errors
    assert out


def test_count_ends_it(lab: Lab) -> None:
    done = bench("trace", "-i", lab.name, "--hops", "1", "--fetch", "9984", "--count", "4")
    assert done.status == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert "4 packets" in done.stderr
    with Tracing("-i", lab.name, "--hops", "1", "--count", "6") as tracing:
        get(lab)
        status, out, errors = tracing.end()
    assert (status, len(out.splitlines())) == (0, 6)
    assert errors.startswith("6 packets")
    assert attached(lab) == []


def test_the_rate_is_kept_to(lab: Lab) -> None:
    """Of a download of a thousand segments only some are shown, each with every hop."""
    arguments = ("-i", lab.name, "--hops", "2", "--rate", "10", "--attach", "generic")
    with Tracing(*arguments, "--duration", "2", "--json") as tracing:
        began = time.monotonic()
        get(lab, size=1_277_952)
        took_s = time.monotonic() - began
        status, out, _ = tracing.end()
    assert status == 0
    found = journeys(out)
    # Ten in each second, and ten more each time the hops have been told of a smaller share.
    assert 5 <= len(found) <= 25 + 10 * (took_s + took_s / _ROUND_S)
    assert all(packet["complete"] and len(packet["hops"]) == 2 for packet in found)


def test_interrupted_by_the_user(lab: Lab) -> None:
    before = machine()
    with Tracing("-i", lab.name, "--hops", "2") as tracing:
        get(lab)
        tracing.stop()
        status, _, errors = tracing.end()
    assert "Traceback" not in errors
    assert status == 1
    assert "interrupted" in errors.splitlines()[-1]
    assert attached(lab) == []
    assert differences(before) == {}


# --- what hops keep --------------------------------------------------------------------------


def strange_segment(lab: Lab, source: int) -> bytes:
    """Return a frame with an ACK of no connection, from the client to hop 1's forwarded port."""
    client, hop = (host_of(lab, name) for name in ("client", "hop1"))
    ends = socket.inet_aton(client.data_ip) + socket.inet_aton(hop.data_ip)
    macs = b"".join(bytes.fromhex(host.mac.replace(":", "")) for host in (hop, client))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends
    return macs + b"\x08\x00" + head + struct.pack("!HHIIHHHH", source, 7000, 7, 8, 0x5010, 9, 0, 0)


def test_a_packet_of_no_flow_is_shown_with_the_reason(lab: Lab) -> None:
    with Tracing("-i", lab.name, "--hops", "1", "--count", "1", "--json") as tracing:
        with frames_of(lab, "client") as sender:
            sender.send(strange_segment(lab, 40_000))
        status, out, _ = tracing.end()
    assert status == 0
    (packet,) = journeys(out)
    assert (packet["flags"], packet["seq"], packet["ack"]) == ("A", 7, 8)
    assert packet["complete"]
    (hop,) = packet["hops"]
    assert (hop["verdict"], hop["reason"]) == ("pass", "passed_no_flow")
    assert hop["before"] == hop["after"]
    assert hop["before"][:2] == [host_of(lab, "client").data_ip, 40_000]


def few_ports(lab: Lab, hop: str, folder: Path) -> Path:
    """Return an inventory of the lab in which a hop has 16 ports."""
    address = host_of(lab, hop).data_ip
    line = f"{hop} data_ip={address}"
    text = lab.inventory.read_text()
    assert line in text
    path = folder / "few.ini"
    path.write_text(text.replace(line, f"{line} nat_ports=12100-12115"))
    return path


def test_a_dropped_packet_is_shown_with_the_reason(lab: Lab, tmp_path: Path) -> None:
    """The second hop has no port left: what the first one does is shown with it."""
    inventory = few_ports(lab, "hop2", tmp_path)
    with (
        contextlib.ExitStack() as stack,
        Tracing("-i", inventory, "--hops", "2", "--rate", "0", "--duration", "5") as tracing,
    ):
        entry = (host_of(lab, "hop1").data_ip, HOP_PORT)
        for _ in range(16):
            stack.enter_context(tcp(lab)).connect(entry)
        with tcp(lab) as late:
            late.settimeout(0.5)
            with pytest.raises(TimeoutError):
                late.connect(entry)
        status, out, _ = tracing.end()
    assert status == 0
    dropped = [line for line in out.splitlines() if "dropped_no_port" in line]
    # It is closed before it repeats its SYN, but for a machine that is busy.
    assert 1 <= len(dropped) <= 2
    for line in dropped:
        assert " > TCP  S " in line
        assert " > hop1 tx > " in line and " > hop2 drop (dropped_no_port)" in line


# --- bad usage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--fetch", "5"], "no payload of 5 bytes"),
        (["--hops", "6"], "the inventory has 5 hops"),
        (["--hops", "0"], "--hops"),
        (["--port", "0"], "--port"),
        (["--port", "65536"], "--port"),
        (["--port", "http"], "--port"),
        (["--rate", "-1"], "--rate"),
        (["--count", "0"], "--count"),
        (["--duration", "0"], "--duration"),
        (["--attach", "offload"], "--attach"),
        (["--no-such-option"], "--no-such-option"),
        (["surplus"], "surplus"),
    ],
)
def test_bad_usage(lab: Lab, arguments: list[str], word: str) -> None:
    done = bench("trace", "-i", lab.name, *arguments)
    assert (done.status, word in done.stderr, done.stdout) == (2, True, ""), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
