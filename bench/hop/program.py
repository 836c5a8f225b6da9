# SPDX-License-Identifier: Apache-2.0
"""The forwarder's program (bpf/forwarder.c): its constants, its maps, and what is in them."""

from __future__ import annotations

import fcntl
import gzip
import mmap
import os
import platform
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from . import compiler, kernel
from .compiler import Map
from .errors import HopError

FUNCTION, _TICK = "hopbench_fwd", "hopbench_tick"
_FIRST = struct.pack("=I", 0)  # key of the only element of an array
_COUNTER = re.compile(r"\bX\((\w+)\)")
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_ADDRESS_LEN = {4: 4, 6: 16}
# struct flow of bpf/flow.h: a cache line, or two.
FLOW_LEN = {4: 64, 6: 128}
# bpf/trace.h
TRACE_RING_BYTES = 1 << 22
TRACE_CONTROL_LEN = 24
# struct nic of bpf/host.h: dev, link, MAC address.
_NIC = struct.Struct("=II6s2x")
_NO_NIC = bytes(_NIC.size)
# struct ifreq: name, family, MAC address (netdevice(7)).
_SIOCGIFHWADDR = 0x8927
_IFREQ = struct.Struct("=16s2x6s16x")
# Kernels that hide their configuration run at one of 100, 250, 300 and 1000 ticks a second. The
# highest only makes ports rest for longer.
_HIGHEST_HZ = 1000
_FRAME = bytes(64)


@dataclass(frozen=True)
class Nic:
    """A NIC as the program needs to know it, by interface indices.

    dev: the NIC that has the address. link: what the program runs on, the lower device where dev
    is a VLAN. vlan: the tag, 0 for none.
    """

    dev: int
    link: int
    vlan: int = 0


@dataclass(frozen=True)
class Constants:
    """What the program works with; docs/forwarder.md says what each means."""

    hop_ip: str
    hop_port: int
    ports: tuple[int, int]
    data: Nic
    egress: Nic | None = None
    fresh: bool = False
    nat_flows: int | None = None
    trace: bool = False
    family: int = 4
    loopback: bool = False

    @property
    def port_count(self) -> int:
        """How many ports the NAT has, for each of TCP and UDP."""
        return self.ports[1] - self.ports[0] + 1

    def defines(self) -> dict[str, int]:
        """Return what it is compiled with, under the names that the source uses.

        Nothing of it differs between hops of a chain that are alike: they share what was compiled.
        """
        found = {
            "FAMILY": self.family,
            "HOP_PORT": socket.htons(self.hop_port),
            "PORT_MIN": self.ports[0],
            "PORT_MAX": self.ports[1],
            "NAT_FLOWS": self.nat_flows or 2 * self.port_count,
            "FRESH": int(self.fresh),
            "HZ": tick_hz(),
            "VLAN": self.data.vlan,
            "EGRESS": int(self.egress is not None),
            "EGRESS_VLAN": self.egress.vlan if self.egress else 0,
        }
        switches = {"TRACE": self.trace, "LOOPBACK": self.loopback}
        return found | {name: 1 for name, on in switches.items() if on}

    def maps(self) -> dict[str, Map]:
        """Return the maps the source declares."""
        address = _ADDRESS_LEN[self.family]
        places = 2 * self.port_count
        found = {
            "flows": Map("ARRAY", 4, FLOW_LEN[self.family], places, kernel.BPF_F_MMAPABLE),
            "by_client": Map("HASH", address + 4, 4, self.nat_flows or places),
            "claims": Map("HASH", 8, 1, places + 1024),
            "neighbours": Map("PERCPU_ARRAY", 4, 2 * address + 20, 32),
            "host": Map("ARRAY", 4, 2 * _NIC.size + address, 1, kernel.BPF_F_RDONLY_PROG),
            "settings": Map("ARRAY", 4, 2 * address + 4, 1),
            "counters": Map("PERCPU_ARRAY", 4, 8 * len(counter_names()), 1),
        }
        if self.trace:
            found["trace_events"] = Map("RINGBUF", 0, 0, TRACE_RING_BYTES)
            found["trace_control"] = Map("ARRAY", 4, TRACE_CONTROL_LEN, 1)
        return found


def pack_address(address: str, family: int) -> bytes:
    """Return an address in network order."""
    return socket.inet_pton(_AF[family], address)


def counter_names() -> list[str]:
    """Return the names of the forwarder's counters, in the order of the C structure."""
    text = (compiler.SOURCES / "counters.h").read_text()
    return _COUNTER.findall(text)


def tick_hz() -> int:
    """Return how often a second the kernel's jiffies advance, from its configuration."""
    for path, opener in (
        (f"/boot/config-{platform.release()}", open),
        ("/proc/config.gz", gzip.open),
    ):
        try:
            with opener(path, "rt") as file:
                found = re.search(r"^CONFIG_HZ=(\d+)$", file.read(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return _HIGHEST_HZ


def _mac(ifindex: int) -> bytes:
    """Return the hardware address of a NIC. Raises HopError when it is gone.

    By socket: /sys may be that of another network namespace.
    """
    try:
        name = socket.if_indextoname(ifindex).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, _IFREQ.pack(name, bytes(6)))
    except OSError as error:
        raise HopError(f"NIC {ifindex} is gone: {error.strerror}") from error
    mac: bytes = _IFREQ.unpack(answer)[1]
    return mac


class Program:
    """One loaded forwarder; the kernel frees it with its last descriptor."""

    def __init__(self, constants: Constants) -> None:
        """Compile and load: a second or less, except in emulated machines. Raises HopError."""
        self.constants = constants
        self.flow_len = FLOW_LEN[constants.family]
        self.hz = constants.defines()["HZ"]
        maps = constants.maps()
        self.fds = compiler.load("forwarder.c", (FUNCTION, _TICK), maps, constants.defines())
        self.describe_host()
        self.flows = mmap.mmap(self.fds["flows"], self.flow_len * maps["flows"].entries)
        self._names, self._cpus = counter_names(), kernel.possible_cpus()

    @property
    def fd(self) -> int:
        """The program to attach."""
        return self.fds[FUNCTION]

    def describe_host(self) -> None:
        """Write what is this hop's own: NICs, their MAC addresses as they are now, its address.

        Raises HopError when a NIC is gone.
        """
        nics = (self.constants.data, self.constants.egress)
        packed = (_NIC.pack(nic.dev, nic.link, _mac(nic.dev)) if nic else _NO_NIC for nic in nics)
        address = pack_address(self.constants.hop_ip, self.constants.family)
        kernel.update(self.fds["host"], _FIRST, b"".join(packed) + address)

    def set_next(self, address: str, port: int, out: str) -> None:
        """Forward new flows there, with `out` as their source. Port 0: open no flows."""
        ends = pack_address(address, self.constants.family) + pack_address(
            out, self.constants.family
        )
        kernel.update(self.fds["settings"], _FIRST, ends + struct.pack("!HH", port, 0))

    def counters(self) -> dict[str, int]:
        """Return the sums over CPUs since the program was loaded."""
        width = len(self._names)
        raw = kernel.lookup(self.fds["counters"], _FIRST, 8 * width * self._cpus)
        values = struct.unpack(f"={width * self._cpus}Q", raw)
        return {name: sum(values[i::width]) for i, name in enumerate(self._names)}

    def home_of(self, address: str, port: int) -> int:
        """Return the port at which a client endpoint is at home, as home_of() of bpf/nat.h does.

        0 where it has no home: policy fresh, and a port outside the range.
        """
        low, high = self.constants.ports
        if low <= port <= high:
            return port
        if self.constants.fresh:
            return 0
        packed = pack_address(address, self.constants.family)
        words = 0
        for word in struct.unpack(f"={len(packed) // 4}I", packed):
            words ^= word
        spread = (words * 2654435761 % 2**32) >> 8
        return low + (port + spread) % self.constants.port_count

    def tick(self) -> int:
        """Return the kernel's tick counter, modulo 2**32."""
        return kernel.test_run(self.fds[_TICK], _FRAME, 1).verdict

    # --- flows: struct flow of bpf/flow.h ---------------------------------------------------

    def places(self) -> Iterator[int]:
        """Yield the places that hold a flow."""
        used = 3 * _ADDRESS_LEN[self.constants.family] + 6
        for place, flags in enumerate(self.flows[used :: self.flow_len]):
            if flags:
                yield place

    def ticks_at(self) -> tuple[int, int, int]:
        """Return the offsets of both ways' `checked`, and of `last`."""
        ways = (3 * _ADDRESS_LEN[self.constants.family] + 6 + 6 + 3) // 4 * 4
        return ways + 12, ways + 28, ways + 32

    def collect(self) -> int:
        """Forget flows that have expired, as the datapath would; return how many.

        By the same claim that the datapath takes: a place belongs to whoever inserted it.
        """
        tick, gone = self.tick(), 0
        for place in self.places():
            at = place * self.flow_len + 3 * _ADDRESS_LEN[self.constants.family] + 10
            (generation,) = struct.unpack_from("=H", self.flows, at)
            if not self._expired(place, tick):
                continue
            following = generation % 0xFFFF + 1
            key = struct.pack("=II", place, following)
            if kernel.insert(self.fds["claims"], key, b"\1"):
                self._forget(place)
                # Only now may another claim be made.
                struct.pack_into("=H", self.flows, at, following)
                kernel.delete(self.fds["claims"], struct.pack("=II", place, generation))
                gone += 1
        return gone

    def _expired(self, place: int, tick: int) -> bool:
        """As flow_expired() of bpf/flow.h."""
        at = place * self.flow_len + self.ticks_at()[2]
        last, limit = struct.unpack_from("=2I", self.flows, at)
        idle = (tick - last) % 2**32
        return bool(limit < idle < 2**31)

    def _forget(self, place: int) -> None:
        at, address = place * self.flow_len, _ADDRESS_LEN[self.constants.family]
        udp = int(place >= self.constants.port_count)
        client = self.flows[at : at + address]
        port = self.flows[at + 3 * address : at + 3 * address + 2]
        key = client + port + struct.pack("=H", udp)
        # Only flows away from home are in there, and only the latest of an endpoint.
        if kernel.find(self.fds["by_client"], key, 4) == struct.pack("=I", place):
            kernel.delete(self.fds["by_client"], key)
        # What belongs to the place and not to the flow stays: displaced, generation.
        used = at + 3 * address + 6
        self.flows[used] = 0
        self.flows[at : at + 3 * address + 6] = bytes(3 * address + 6)

    def close(self) -> None:
        """Let go of the program and its maps."""
        self.flows.close()
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}


def require_range(low: int, high: int, ephemeral: tuple[int, int]) -> None:
    """Raise HopError when a NAT's ports are ones that the host's sockets may get."""
    if low <= ephemeral[1] and ephemeral[0] <= high:
        raise HopError(
            f"nat_ports {low}-{high} overlaps net.ipv4.ip_local_port_range "
            f"{ephemeral[0]}-{ephemeral[1]}",
            "choose ports outside it",
        )
