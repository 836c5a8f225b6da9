# SPDX-License-Identifier: Apache-2.0
"""Chains of forwarders on one host's loopback: ports 7996 to 7999 before a server on 8000.

The 2022 report measured here. `lo` has no driver, so XDP on it is generic whatever is asked for.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Protocol

from . import compiler, kernel, net
from .compiler import Map
from .config import Place, Target
from .errors import HopError
from .program import Constants, Nic, Program, require_range
from .socat import SocatForwarder
from .xdp import wait_detached

NIC, ADDRESS, ATTACH = "lo", "127.0.0.1", "generic"
FIRST_PORT, SERVER_PORT = 7996, 8000
MOST_FORWARDERS = SERVER_PORT - FIRST_PORT
# Each forwarder's NAT has as many ports as there are for clients, so that every client port is at
# home at another one (bpf/nat.h), and none of them is any socket's.
NAT_MIN, NAT_COUNT = 10000, 10000
CLIENT_PORTS = (50000, 59999)
# From a hop's port to the only source port it has in the report's filter. What the filter left in
# TIME_WAIT under one setting of timestamps is not to meet it under another.
_LEGACY_OFFSET, _TODAY_OFFSET = 1000, 900
# Documentation/networking/ip-sysctl.rst: 2 takes all connections' timestamps from one clock, as
# every kernel of 2022 did for connections between the same two addresses. 1 adds an offset, which
# by now differs between ports too (secure_tcp_ts_off in net/core/secure_seq.c).
_TIMESTAMPS = Path("/proc/sys/net/ipv4/tcp_timestamps")
_ONE_CLOCK = "2"
_LEGACY_COUNTERS = ("forwarded_packets", "returned_packets", "syns", "resets")
_DISPATCH, _LEGACY = "hopbench_loopback", "hopbench_legacy"
_FIRST = struct.pack("=I", 0)

Counters = dict[str, dict[str, int]]


class LoopbackChain(Protocol):
    """A way to forward. Nothing it sets up may outlive the process, even on SIGKILL."""

    def start(self, forwarders: int) -> dict[str, object]:
        """Forward from port 8000 - forwarders on; return facts worth recording."""

    def counters(self) -> Counters:
        """Return what was counted, by the port that a forwarder listens on."""

    def stop(self) -> None:
        """Undo `start`. May be called at any time, also twice."""


def ports(forwarders: int) -> range:
    """Return the ports on which a chain of so many forwarders listens, the client's first."""
    return range(SERVER_PORT - forwarders, SERVER_PORT)


class SocatChain:
    """A socat for each forwarder."""

    def __init__(self) -> None:
        self._running: list[SocatForwarder] = []

    def start(self, forwarders: int) -> dict[str, object]:
        """Start them, the one before the server first. Raises HopError."""
        for port in reversed(ports(forwarders)):
            each = SocatForwarder(Place(NIC, ADDRESS, port))
            self._running.append(each)
            each.start(Target("socat", ATTACH, ADDRESS, port + 1))
        return {}

    def counters(self) -> Counters:
        """Return nothing: what sockets accept is counted for all of them together."""
        for each in self._running:
            each.counters()  # says when one has ended
        return {}

    def stop(self) -> None:
        """End every socat and its children."""
        while self._running:
            self._running.pop().stop()


class _Attached:
    """One XDP program on `lo`."""

    def __init__(self) -> None:
        self._link = -1

    def attach(self, fd: int) -> dict[str, object]:
        """Attach, and verify how. Raises HopError."""
        index = socket.if_nametoindex(NIC)
        self._link = kernel.attach_xdp(fd, index, ATTACH)
        found, prog_id = kernel.query_xdp(index)
        if found != ATTACH:
            raise HopError(f"XDP was asked for in {ATTACH} mode and runs in {found or 'no'} mode")
        return {"attach": found, "prog_id": prog_id}

    def detach(self) -> None:
        """Detach, and wait until the kernel has done it."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1
            wait_detached(socket.if_nametoindex(NIC))


class LegacyTodayChain:
    """bpf/legacy_loopback.c: the report's filter, with its faults, compiled for each length."""

    offset = _TODAY_OFFSET

    def __init__(self) -> None:
        self._programs: dict[int, dict[str, int]] = {}
        self._attached = _Attached()
        self._forwarders = 0

    def start(self, forwarders: int) -> dict[str, object]:
        """Attach the program of this length. Raises HopError."""
        if forwarders not in self._programs:
            self._programs[forwarders] = compiler.load(
                "legacy_loopback.c",
                (_LEGACY,),
                {
                    "legacy_counters": Map(
                        "PERCPU_ARRAY", 4, 8 * len(_LEGACY_COUNTERS), forwarders
                    ),
                    "legacy_client": Map("ARRAY", 4, 4, 1),
                },
                {
                    "FIRST_PORT": ports(forwarders)[0],
                    "SERVER_PORT": SERVER_PORT,
                    "SOURCE_OFFSET": self.offset,
                },
            )
        self._forwarders = forwarders
        return self._attached.attach(self._programs[forwarders][_LEGACY])

    def counters(self) -> Counters:
        """Return each hop's sums over CPUs since its program was loaded."""
        found: Counters = {}
        for hop, port in enumerate(ports(self._forwarders)):
            cpus, width = kernel.possible_cpus(), len(_LEGACY_COUNTERS)
            counters = self._programs[self._forwarders]["legacy_counters"]
            raw = kernel.lookup(counters, struct.pack("=I", hop), 8 * width * cpus)
            values = struct.unpack(f"={width * cpus}Q", raw)
            found[str(port)] = {
                name: sum(values[i::width]) for i, name in enumerate(_LEGACY_COUNTERS)
            }
        return found

    def stop(self) -> None:
        """Detach; the programs stay loaded."""
        self._attached.detach()


class LegacyChain(LegacyTodayChain):
    """The report's filter on a stack whose timestamps are those of the report's time."""

    offset = _LEGACY_OFFSET

    def __init__(self) -> None:
        super().__init__()
        self._timestamps = ""

    def start(self, forwarders: int) -> dict[str, object]:
        """Set the timestamps of this network namespace, and attach. Raises HopError."""
        self._timestamps = self._timestamps or _TIMESTAMPS.read_text().strip()
        _TIMESTAMPS.write_text(_ONE_CLOCK)
        return {**super().start(forwarders), "tcp_timestamps": int(_ONE_CLOCK)}

    def stop(self) -> None:
        """Detach, and set the timestamps as they were."""
        super().stop()
        if self._timestamps:
            _TIMESTAMPS.write_text(self._timestamps)
            self._timestamps = ""


class XdpChain:
    """bpf/forwarder.c for each forwarder, behind the dispatcher bpf/loopback.c."""

    def __init__(self) -> None:
        self._hops: list[Program] = []
        self._dispatch: dict[str, int] = {}
        self._attached = _Attached()
        self._forwarders = 0

    def _load(self) -> None:
        if self._dispatch:
            return
        highest = NAT_MIN + MOST_FORWARDERS * NAT_COUNT - 1
        require_range(NAT_MIN, highest, net.ephemeral_ports())
        index = socket.if_nametoindex(NIC)
        while len(self._hops) < MOST_FORWARDERS:
            hop = len(self._hops)
            low = NAT_MIN + hop * NAT_COUNT
            program = Program(
                Constants(
                    hop_ip=ADDRESS,
                    hop_port=FIRST_PORT + hop,
                    ports=(low, low + NAT_COUNT - 1),
                    data=Nic(index, index),
                    loopback=True,
                )
            )
            program.set_next(ADDRESS, FIRST_PORT + hop + 1, ADDRESS)
            self._hops.append(program)
        self._dispatch = compiler.load(
            "loopback.c",
            (_DISPATCH,),
            {"forwarders": Map("PROG_ARRAY", 4, 4, MOST_FORWARDERS)},
            {
                "FIRST_PORT": FIRST_PORT,
                "FORWARDERS": MOST_FORWARDERS,
                "NAT_MIN": NAT_MIN,
                "NAT_COUNT": NAT_COUNT,
            },
        )

    def start(self, forwarders: int) -> dict[str, object]:
        """Put the forwarders that take part behind the dispatcher. Raises HopError."""
        self._load()
        first = MOST_FORWARDERS - forwarders
        for hop, program in enumerate(self._hops):
            key = struct.pack("=I", hop)
            if hop >= first:
                kernel.update(self._dispatch["forwarders"], key, struct.pack("=I", program.fd))
            else:
                kernel.delete(self._dispatch["forwarders"], key)
        self._forwarders = forwarders
        return self._attached.attach(self._dispatch[_DISPATCH])

    def counters(self) -> Counters:
        """Return each forwarder's sums over CPUs since it was loaded."""
        return {
            str(port): self._hops[port - FIRST_PORT].counters() for port in ports(self._forwarders)
        }

    def stop(self) -> None:
        """Detach; the programs stay loaded and their flows remembered."""
        self._attached.detach()


CHAINS: dict[str, type[LoopbackChain]] = {
    "socat": SocatChain,
    "legacy": LegacyChain,
    "legacy-today": LegacyTodayChain,
    "xdp": XdpChain,
}
