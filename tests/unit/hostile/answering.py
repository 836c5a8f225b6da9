# SPDX-License-Identifier: Apache-2.0
"""True answers of agents of every role, and an agent that somebody speaks for."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recorded import packed, records, siege_says

from bench.agent import Agent
from bench.cells import PAYLOAD_SIZES, Cell
from bench.chain import Chain, Host

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
