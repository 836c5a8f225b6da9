# SPDX-License-Identifier: Apache-2.0
"""A namespace in which the forwarder finds routes and neighbours, and frames to feed it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMESPACE = "hb-datapath"
HOP_IP, NEXT_IP, OTHER_IP, CLIENT_IP = "198.18.7.2", "198.18.7.3", "198.18.7.4", "198.18.7.1"
UNRESOLVED_IP, FAR_IP = "198.18.7.99", "203.0.113.1"
HOP_PORT, NEXT_PORT = 7000, 8000
PORT_MIN, PORT_MAX = 1024, 32767
HOP_MAC, NEXT_MAC, OTHER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04"
CLIENT_MAC = "02:00:00:00:00:01"

PASS, DROP, TX = 2, 1, 3  # enum xdp_action

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fed:
    """What became of the frames: (verdict, frame) each, in order, and the counters after all."""

    results: list[tuple[int, bytes]]
    counters: dict[str, int]


Feed = Callable[..., Fed]


@pytest.fixture(scope="session")
def ifindex() -> Iterator[int]:
    """The index of the hop's NIC in a namespace with a route and permanent neighbours."""

    def ip(*words: str) -> str:
        command = ["ip", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    ip("netns", "add", NAMESPACE)
    try:
        inside = ("-n", NAMESPACE)
        ip(*inside, "link", "add", "eth0", "address", HOP_MAC, "type", "veth", "peer", "name", "p0")
        for nic in ("eth0", "p0"):
            ip(*inside, "link", "set", nic, "up")
        ip(*inside, "address", "add", f"{HOP_IP}/24", "dev", "eth0")
        for address, mac in ((NEXT_IP, NEXT_MAC), (OTHER_IP, OTHER_MAC)):
            where = ("lladdr", mac, "dev", "eth0", "nud", "permanent")
            ip(*inside, "neighbour", "add", address, *where)
        sysctl = "net.ipv4.conf.eth0.forwarding=1"
        ip("netns", "exec", NAMESPACE, "sysctl", "-qw", sysctl)
        (link,) = json.loads(ip(*inside, "-json", "link", "show", "eth0"))
        yield link["ifindex"]
    finally:
        ip("netns", "delete", NAMESPACE)


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            NAMESPACE,
            "/usr/bin/python3",
            "-B",
            str(Path(__file__).with_name("run_packets.py")),
        ],
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY / "bench")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def feed(ifindex: int) -> Iterator[Feed]:
    """Run frames through the forwarder, one after the other, beginning with empty tables.

    A step is a frame (bytes), or (address, port): the next hop from then on. Keywords change the
    constants that the program is compiled with.
    """
    running: dict[str, subprocess.Popen[str]] = {}

    def run(*steps: bytes | tuple[str, int], **changes: int) -> Fed:
        defines = {
            "HOP_IP": struct.unpack("=I", socket.inet_aton(HOP_IP))[0],
            "HOP_PORT": socket.htons(HOP_PORT),
            "PORT_MIN": PORT_MIN,
            "PORT_MAX": PORT_MAX,
            **changes,
        }
        constants = json.dumps(defines)
        if constants not in running:
            running[constants] = _start()
            print(constants, file=running[constants].stdin, flush=True)
        process = running[constants]
        request = [
            {"frame": step.hex()} if isinstance(step, bytes) else {"next": list(step)}
            for step in ((NEXT_IP, NEXT_PORT), *steps)
        ]
        print(json.dumps({"ifindex": ifindex, "steps": request}), file=process.stdin, flush=True)
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline())
        results = [(verdict, bytes.fromhex(frame)) for verdict, frame in answer["results"]]
        return Fed(results, answer["counters"])

    yield run
    for process in running.values():
        process.communicate(timeout=10)
